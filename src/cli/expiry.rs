//! Until when an exception holds.

use chrono::{DateTime, TimeDelta};
use clap::Args;
use prost_types::Timestamp as ProtoTimestamp;

use crate::time::{Clock as _, SystemClock, Timestamp};

/// Flags of commands that make an exception for a time.
#[derive(Args, Debug)]
pub(super) struct Expiry {
    /// Until then, such as 2027-01-31T12:00:00Z; for good unless said
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<Timestamp>,

    /// For so many days from now
    #[arg(long, value_name = "N", conflicts_with = "until", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

impl Expiry {
    /// The end; none when it is for good.
    pub(super) fn end(&self) -> Option<ProtoTimestamp> {
        let days = |days: u32| SystemClock.now().after(TimeDelta::days(days.into()));
        let end = self.until.or_else(|| self.days.map(days))?;
        Some(ProtoTimestamp { seconds: end.seconds(), nanos: 0 })
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc().into()).map_err(|_| "a time such as 2027-01-31T12:00:00Z is wanted".to_owned())
}
