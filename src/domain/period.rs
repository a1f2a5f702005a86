//! Periods of counters. Computed from the time of the decision, so nothing needs resetting and no missed job matters.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};

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
        fn every_instant_is_in_its_month_and_months_follow_without_gap(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let now = Timestamp::from_micros(micros);
            let month = Period::month_of(now);
            prop_assert!(month.start <= now && now < month.end);
            prop_assert_eq!(Period::month_of(month.end).start, month.end);
            prop_assert_eq!(Period::month_of(Timestamp::from_micros(month.end.micros() - 1)), month);
        }
    }
}
