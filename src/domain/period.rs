//! Periods of counters. Computed from the time of the decision, so nothing needs resetting and no missed job matters.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};

use super::plan::Cycle;
use crate::time::Timestamp;

/// A span of time, from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first instant.
    pub start: Timestamp,
    /// The next period's first instant.
    pub end: Timestamp,
}

impl Period {
    /// The calendar month, UTC, that holds the instant.
    #[must_use]
    pub fn month_of(now: Timestamp) -> Self {
        let today = now.utc().date_naive();
        let first = today.with_day(1).unwrap_or(today);
        let next = first.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX);
        Self { start: midnight(first), end: midnight(next) }
    }
}

/// The first whole number of cycles after the anchor that is later than `after`. Counted from the anchor each time, so that a
/// period that begins on the 31st comes back to the 31st after a shorter month.
#[must_use]
pub fn next_cycle(anchor: Timestamp, cycle: Cycle, after: Timestamp) -> Timestamp {
    let start = anchor.utc();
    let nth = |n: u32| start.checked_add_months(Months::new(n * cycle.months())).map_or(FAR, Timestamp::from);
    // Near the right number at once: months are at most 31 days long, so this never begins too late.
    let days = after.since(anchor).num_days().max(0);
    let mut n = u32::try_from(days / (31 * i64::from(cycle.months()))).unwrap_or(u32::MAX / 24).max(1);
    while nth(n) <= after && nth(n) < FAR {
        n += 1;
    }
    nth(n)
}

/// Later than any period that is told to anybody.
const FAR: Timestamp = Timestamp::from_micros(i64::MAX);

/// The day's first instant, UTC.
fn midnight(day: NaiveDate) -> Timestamp {
    DateTime::<Utc>::from_naive_utc_and_offset(day.and_time(chrono::NaiveTime::MIN), Utc).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cycles_follow_their_anchor_without_gap(
            anchor in 0_i64..4_000_000_000_000_000, ahead in 0_i64..2_000_000_000_000_000, yearly in any::<bool>(),
        ) {
            let cycle = if yearly { Cycle::Year } else { Cycle::Month };
            let (anchor, at) = (Timestamp::from_micros(anchor), Timestamp::from_micros(anchor + ahead));
            let next = next_cycle(anchor, cycle, at);
            prop_assert!(next > at);
            // Nothing lies between: the instant before leads to the same end.
            prop_assert_eq!(next_cycle(anchor, cycle, Timestamp::from_micros(next.micros() - 1)), next);
            prop_assert!(next.since(at) <= chrono::TimeDelta::days(if yearly { 366 } else { 31 }));
            // The day of the month is the anchor's, or the last one of a shorter month.
            let (a, n) = (anchor.utc().date_naive(), next.utc().date_naive());
            prop_assert!(n.day() == a.day() || (n.day() < a.day() && (n + chrono::Days::new(1)).day() == 1));
        }

        #[test]
        fn every_instant_is_in_its_month_and_months_follow_without_gap(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let now = Timestamp::from_micros(micros);
            let month = Period::month_of(now);
            prop_assert!(month.start <= now && now < month.end);
            prop_assert_eq!(Period::month_of(month.end).start, month.end);
            prop_assert_eq!(Period::month_of(Timestamp::from_micros(month.end.micros() - 1)), month);
        }
    }
}
