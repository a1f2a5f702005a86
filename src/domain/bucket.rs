//! Roll-ups: what happened in each quarter of an hour, and the hours, days and months that are made of them. A quarter is the
//! coarsest span of which the days of all time zones are made, so that one row serves every zone that a tenant may choose.

use chrono::{Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::catalogue::MetricPeriod;
use super::period::{Calendar, DAWN, FAR, Period};
use super::plan::Cycle;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// A quarter of an hour, UTC, by its first instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(Timestamp);

/// 15 minutes in microseconds.
const QUARTER: i64 = 900_000_000;

impl Bucket {
    /// The one that holds the instant.
    #[must_use]
    pub const fn of(at: Timestamp) -> Self {
        Self(Timestamp::from_micros(at.micros().saturating_sub(at.micros().rem_euclid(QUARTER))))
    }

    /// Its first instant: what its rows are kept under.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.0
    }

    /// The one after it.
    const fn next(self) -> Self {
        Self(self.0.after(TimeDelta::microseconds(QUARTER)))
    }

    /// The end of the last one that begins before the instant.
    const fn up_to(at: Timestamp) -> Timestamp {
        Self::of(at.after(TimeDelta::microseconds(QUARTER - 1))).0
    }
}

/// How finely usage is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// As it is kept.
    QuarterHour,
    /// From one full hour to the next, as the zone's clocks show it: at half past, UTC, in Kolkata. Where clocks are put
    /// forward or back by less than an hour, what they leave of one is a span of its own.
    Hour,
    /// A calendar day, as counters have it.
    Day,
    /// A calendar month, as counters have it.
    Month,
}

impl Granularity {
    /// Where the span ends that holds a bucket.
    fn end(self, zone: Tz, bucket: Bucket) -> Timestamp {
        let calendar = Calendar { zone, anchor: bucket.start(), cycle: Cycle::Month };
        match self {
            Self::QuarterHour => bucket.next().start(),
            Self::Hour => {
                let (hour, mut end) = (full_hour(zone, bucket), bucket.next());
                while full_hour(zone, end) == hour {
                    end = end.next();
                }
                end.start()
            }
            Self::Day => Period::at(MetricPeriod::Day, &calendar, bucket.start()).end,
            Self::Month => Period::at(MetricPeriod::Month, &calendar, bucket.start()).end,
        }
    }
}

/// When a zone's clocks showed the last full hour, or would have, had they always been as they are when the bucket begins.
fn full_hour(zone: Tz, bucket: Bucket) -> Timestamp {
    let offset = zone.offset_from_utc_datetime(&bucket.start().utc().naive_utc()).fix().local_minus_utc();
    let shown = bucket.start().seconds() + i64::from(offset);
    bucket.start().after(TimeDelta::seconds(-shown.rem_euclid(3_600)))
}

/// The spans of which the time from `from` up to but not including `to` is made, the earliest first. Made of whole buckets,
/// from the one that holds `from` to the one that holds the last instant, to which the first and the last span are cut. They
/// follow each other without gap or overlap.
///
/// Lazy, so that a question for more spans than may be asked for is known by taking one more than that.
pub fn spans(granularity: Granularity, zone: Tz, from: Timestamp, to: Timestamp) -> impl Iterator<Item = Period> {
    let (from, last) = (Bucket::of(from.max(DAWN)).start(), Bucket::up_to(to.min(FAR)));
    std::iter::successors(Some(Period { start: from, end: from }), move |before| {
        let start = before.end;
        // Since 1972 days begin with a quarter in all zones; one within which a day began earlier belongs to the day before.
        let end = || Bucket::up_to(granularity.end(zone, Bucket(start))).min(last);
        (start < last).then(|| Period { start, end: end() })
    })
    .skip(1)
}

/// What each span sums up to, from the roll-ups in any order. What lies in none of them is left out.
pub fn fold(spans: &[Period], rows: impl IntoIterator<Item = (Bucket, i64)>) -> Vec<i64> {
    let mut sums = vec![0_i128; spans.len()];
    for (bucket, amount) in rows {
        let n = spans.partition_point(|span| span.end <= bucket.start());
        if spans.get(n).is_some_and(|span| span.holds(bucket.start())) {
            sums[n] += i128::from(amount);
        }
    }
    // Wide in between, so that the order of rows makes no difference.
    sums.into_iter().map(|sum| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })).collect()
}
