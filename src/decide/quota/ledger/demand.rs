//! How much is asked of an account: what decides whether it is worth a lease, and how large a one.

use super::super::Micros;
use crate::domain::quota::Class;

/// How long requests are counted before they are a rate.
const WINDOW: Micros = 200_000;

/// Requests and units of an account, as they come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    since: Micros,
    requests: i64,
    units: i64,
    /// Of the last whole window, by second.
    request_rate: i64,
    unit_rate: i64,
}

impl Demand {
    pub(super) fn count(&mut self, units: i64, now: Micros) {
        let passed = now.saturating_sub(self.since);
        if passed >= WINDOW {
            let by_second = |n: i64| i64::try_from(i128::from(n) * 1_000_000 / i128::from(passed)).unwrap_or(i64::MAX);
            (self.request_rate, self.unit_rate) = (by_second(self.requests), by_second(self.units));
            (self.since, self.requests, self.units) = (now, 0, 0);
        }
        self.requests += 1;
        self.units = self.units.saturating_add(units);
    }

    /// Requests a second: of the last window, or of this one when it has more already.
    pub(super) fn requests(&self) -> i64 {
        self.request_rate.max(per_second(self.requests))
    }

    /// Units that are asked for in a span.
    pub(super) fn units_in(&self, span: Micros) -> i64 {
        let rate = i128::from(self.unit_rate.max(per_second(self.units)));
        i64::try_from(rate * i128::from(span) / 1_000_000).unwrap_or(i64::MAX)
    }
}

const fn per_second(in_window: i64) -> i64 {
    in_window.saturating_mul((1_000_000 / WINDOW).cast_signed())
}

/// For how long a lease should last: long enough that grants are rare beside commits, short for what is forfeited after a
/// crash.
pub(super) const fn span(class: Class) -> Micros {
    match class {
        Class::Durable => 75_000,
        Class::Leased => 20_000,
    }
}
