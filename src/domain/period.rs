//! Periods of counters. Computed from the time of the decision, so nothing needs resetting and no missed job matters.

use chrono::{DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};

use super::catalogue::MetricPeriod;
use super::plan::Cycle;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// A span of time, from `start` up to but not including `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its first instant.
    pub start: Timestamp,
    /// The next period's first instant.
    pub end: Timestamp,
}

/// What a tenant's periods are drawn by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// Where its days begin.
    pub zone: Tz,
    /// Billing periods are whole cycles from here: the subscription's anchor, or when the tenant was created while it has no
    /// paid periods.
    pub anchor: Timestamp,
    /// How long a billing period is; a month while it has no paid periods.
    pub cycle: Cycle,
}

/// 0001-01-01 UTC. Together with `FAR` the years that `timestamptz`, microseconds in 64 bits, chrono and the timestamps of
/// protobuf all hold.
pub(super) const DAWN: Timestamp = Timestamp::from_micros(-62_135_596_800_000_000);

/// 9999-12-31 UTC: later than any period that is told to anybody, but for all time, which ends here.
pub(crate) const FAR: Timestamp = Timestamp::from_micros(253_402_214_400_000_000);

impl Period {
    /// The period that holds the instant, as the calendar alone draws it. Days, weeks (from Monday), months and years begin
    /// with a day of the zone, at its first instant: midnight, the earlier one where the clock shows it twice, or what follows
    /// where it is skipped. A day that a zone leaves out is none. Billing periods are those of the subscription, to the
    /// instant, and reach back before the anchor as well, because the periods of a subscription that was paused end at its
    /// anchor.
    ///
    /// An instant before 0001 or after 9998 counts as the first or the last one of these years.
    #[must_use]
    pub fn at(period: MetricPeriod, calendar: &Calendar, now: Timestamp) -> Self {
        let now = now.clamp(DAWN, FAR.after(TimeDelta::microseconds(-1)));
        let zone = calendar.zone;
        let day = day_at(zone, now);
        let (first, next) = match period {
            MetricPeriod::Day => (day, day + Days::new(1)),
            MetricPeriod::Week => {
                let monday = day - Days::new(u64::from(day.weekday().num_days_from_monday()));
                (monday, monday + Days::new(7))
            }
            MetricPeriod::Month => {
                let first = day.with_day(1).unwrap_or(day);
                (first, first + Months::new(1))
            }
            MetricPeriod::Year => {
                let first = day.with_ordinal(1).unwrap_or(day);
                (first, first + Months::new(12))
            }
            MetricPeriod::Billing => return cycle_at(calendar.anchor, calendar.cycle, now),
            MetricPeriod::Lifetime => return Self { start: DAWN, end: FAR },
        };
        Self { start: first_instant(zone, first), end: first_instant(zone, next) }
    }

    /// The period in which to count at `now`, after the one that was `last` counted in.
    ///
    /// What was opened is never redrawn: as long as the last one holds `now` it is the one, whatever has become of the time
    /// zone, the anchor, the cycle or the metric's kind of period meanwhile, and the change draws the next one. That begins
    /// where the last one ended, or later with its natural start, and ends with its natural end. So no instant lies in two
    /// periods, where a limit could be spent twice, and none at which anything was used in no period. A period that a change
    /// has cut short has the whole limit; but one shorter than half of what it was cut from goes on to the end of the next
    /// one, so that whoever changes the time zone to and fro gets no more limits than there are periods. All time has no
    /// end: a metric that was counted over it stays so.
    ///
    /// A clock that was put back to before the last period counts in that one.
    #[must_use]
    pub fn following(last: Option<Self>, kind: MetricPeriod, calendar: &Calendar, now: Timestamp) -> Self {
        let natural = Self::at(kind, calendar, now);
        let Some(last) = last else { return natural };
        if now < last.end || natural.end <= last.end {
            return last;
        }
        let start = natural.start.max(last.end);
        let is_whole = natural.end.since(start) >= natural.end.since(natural.start) / 2;
        Self { start, end: if is_whole { natural.end } else { Self::at(kind, calendar, natural.end).end } }
    }

    /// Whether the instant lies in it.
    #[must_use]
    pub fn holds(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// The calendar month, UTC, that holds the instant.
    #[must_use]
    pub fn month_of(now: Timestamp) -> Self {
        Self::at(MetricPeriod::Month, &Calendar { zone: Tz::UTC, anchor: now, cycle: Cycle::Month }, now)
    }
}

/// The first whole number of cycles after the anchor that is later than `after`. Counted from the anchor each time, so that a
/// period that begins on the 31st comes back to the 31st after a shorter month.
#[must_use]
pub fn next_cycle(anchor: Timestamp, cycle: Cycle, after: Timestamp) -> Timestamp {
    cycle_at(anchor, cycle, after.max(anchor)).end
}

/// The cycle that holds the instant, a whole number of them after the anchor or before it.
fn cycle_at(anchor: Timestamp, cycle: Cycle, now: Timestamp) -> Period {
    let (from, to) = (anchor.utc(), now.utc());
    let nth = |n: i32| {
        let months = Months::new(n.unsigned_abs() * cycle.months());
        let at = if n < 0 { from.checked_sub_months(months) } else { from.checked_add_months(months) };
        at.map_or(if n < 0 { DAWN } else { FAR }, Timestamp::from)
    };
    let month = |at: DateTime<Utc>| at.year() * 12 + at.month0().cast_signed();
    // Cycles differ in length but never in months: this one begins in the instant's month or before it, the next one after it.
    let n = (month(to) - month(from)).div_euclid(cycle.months().cast_signed());
    let n = if nth(n) > now { n - 1 } else { n };
    Period { start: nth(n), end: nth(n + 1) }
}

/// The day that has begun last. Mostly what the zone's clock shows; a clock that is put back over midnight shows the day
/// before once more, and no day begins for that.
fn day_at(zone: Tz, now: Timestamp) -> NaiveDate {
    let mut day = now.utc().with_timezone(&zone).date_naive() + Days::new(1);
    while first_instant(zone, day) > now {
        day = day - Days::new(1);
    }
    day
}

/// When a day begins; one that is left out, with the day after it.
fn first_instant(zone: Tz, day: NaiveDate) -> Timestamp {
    let midnight = day.and_time(NaiveTime::MIN);
    let at = match zone.from_local_datetime(&midnight) {
        LocalResult::Single(at) => at.to_utc(),
        LocalResult::Ambiguous(one, other) => one.min(other).to_utc(),
        // Every gap of every zone has an end.
        LocalResult::None => GapInfo::new(&midnight, &zone)
            .and_then(|gap| gap.end)
            .map_or_else(|| midnight.and_utc(), |end| end.to_utc()),
    };
    at.into()
}
