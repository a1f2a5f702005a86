//! How long exceptions, keys and secrets hold.

use chrono::{DateTime, TimeDelta};
use clap::Args;
use prost_types::{Duration, Timestamp as ProtoTimestamp};

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

/// Flag of commands that make a key.
#[derive(Args, Debug)]
pub(super) struct Life {
    /// Good for so many days; for ever unless said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: Option<i64>,
}

impl Life {
    /// How long; none when for ever.
    pub(super) fn ttl(&self) -> Option<Duration> {
        self.days.map(|days| Duration { seconds: days * 86_400, nanos: 0 })
    }
}

/// Flag of commands that give a key another secret.
#[derive(Args, Debug)]
pub(super) struct Overlap {
    /// For how long the old secret stays good as well, 0 for not at all; 24 unless said
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(i64).range(0..=720))]
    overlap: Option<i64>,
}

impl Overlap {
    /// How long; none when not said.
    pub(super) fn time(&self) -> Option<Duration> {
        self.overlap.map(|hours| Duration { seconds: hours * 3600, nanos: 0 })
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc().into()).map_err(|_| "a time such as 2027-01-31T12:00:00Z is wanted".to_owned())
}
