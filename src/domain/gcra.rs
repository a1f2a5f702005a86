//! Rates: so many units per minute, and so many at once (the generic cell rate algorithm). Decided in memory at each replica,
//! which has its share of the rate and of the burst.
//!
//! What is used is kept in whole numbers that are fine enough for every rate, so that nothing is lost by rounding however
//! often it is asked. One replica alone is exact; `Share` says how far several together are not.

use chrono::TimeDelta;

use super::catalogue::MAX_AMOUNT;
use super::period::FAR;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// How much may be used how fast. A rate or a burst of 0 admits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// What comes back within a minute.
    pub per_minute: i64,
    /// What may be used at once after a pause, and the largest amount that is ever admitted.
    pub burst: i64,
}

/// The part of a rate that one replica enforces: `part` of every `of`, where 0 counts as 1 and more than all as all. Equal
/// parts, or parts by demand: the whole is right as long as the shares of the replicas that are alive add up to 1. A share
/// may be less than a unit a minute, because rates are not rounded.
///
/// An amount above a replica's share of the burst but within the whole burst is admitted when the share is wholly unused, and
/// waited for afterwards; otherwise no replica would ever admit it, and none would admit anything where there are more
/// replicas than units of burst. Let `most` be the burst, or what the replicas can so have out at once if that is more: the
/// largest single amount times the largest number of replicas. **In any window of time, n replicas with equal shares together
/// admit at most `most + rate * time`, and beyond that**
/// - each time that the n become m, the fraction `1 - min(n, m) / max(n, m)` of `most`, which is what changes hands. One that
///   starts anew has left and joined;
/// - while replicas disagree about who is alive, so much of `rate * time` and of `most` as their shares add up to beyond 1.
///
/// Each replica alone admits at most `most * (its share at the beginning + all that the share has grown by since) + rate *
/// share * time`, of which this is the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// So many.
    pub part: u32,
    /// Of so many.
    pub of: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// That of each of so many replicas that have the same.
    #[must_use]
    pub const fn equal(replicas: u32) -> Self {
        Self { part: 1, of: if replicas == 0 { 1 } else { replicas } }
    }
}

/// What has been used at this replica and has not come back yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Against the whole burst, in `UNIT`ths of a unit: where a replica has a tenth of the rate, one unit counts ten, so that
    /// nothing is to be converted when shares change. In a microsecond just so many come back as units in a minute.
    used: i128,
    /// As of when.
    at: Timestamp,
}

/// Microseconds in a minute: the parts of a unit that are counted.
const UNIT: i128 = 60_000_000;

/// An instant further before the last one than this is of a clock that was put back; a nearer one is of a request that
/// another one has overtaken.
const OVERTAKEN: TimeDelta = TimeDelta::minutes(1);

/// What is left of a replica's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// So many single units would be admitted at this instant.
    pub remaining: i64,
    /// When all of it is back, if nothing more is used.
    pub full_at: Timestamp,
}

/// Why an amount is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooFast {
    /// It is admitted after so long, if nothing else is.
    Wait(TimeDelta),
    /// It is more than is ever admitted.
    Never,
}

impl Gcra {
    /// Nothing has been used.
    pub const UNUSED: Self = Self { used: 0, at: Timestamp::from_micros(0) };

    /// Charges an amount if there is room for it, and says what is left then.
    ///
    /// # Errors
    /// How long to wait; nothing is charged.
    pub fn decide(&mut self, rate: Rate, share: Share, amount: i64, now: Timestamp) -> Result<Room, TooFast> {
        let rate = rate.bounded();
        *self = self.as_of(rate, now);
        if amount > rate.burst || (rate.per_minute == 0 && amount > 0) {
            return Err(TooFast::Never);
        }
        let cost = share.cost(amount);
        let lacking = cost.min(rate.whole()) - (rate.whole() - self.used);
        if amount > 0 && lacking > 0 {
            return Err(TooFast::Wait(rate.time_for(lacking)));
        }
        self.used += cost;
        Ok(self.room(rate, share, now))
    }

    /// Takes back what was charged when `decide` was asked at `then`, but for what may have come back of itself since: what
    /// others use is never forgotten.
    pub fn give_back(&mut self, rate: Rate, share: Share, amount: i64, then: Timestamp, now: Timestamp) {
        let rate = rate.bounded();
        *self = self.as_of(rate, now);
        let passed = (i128::from(now.micros()) - i128::from(then.micros())).max(0);
        let left = share.cost(amount) - passed * i128::from(rate.per_minute);
        self.used -= left.clamp(0, self.used);
    }

    /// The same under a lower burst: what was used of the higher one, and is more than all of the lower one, is forgotten, so
    /// that nobody waits longer than if all of the new one was used.
    #[must_use]
    pub fn lowered(self, rate: Rate) -> Self {
        Self { used: self.used.min(rate.bounded().whole()), ..self }
    }

    /// So many units of the whole burst are used, as far as this replica can tell: as if the others had used as much of their
    /// shares. More than the burst after an amount that was above the share.
    #[must_use]
    pub fn used(self, rate: Rate, now: Timestamp) -> i64 {
        let used = (self.as_of(rate.bounded(), now).used + UNIT - 1) / UNIT;
        i64::try_from(used).unwrap_or(i64::MAX)
    }

    /// What `decide` would say; charges nothing.
    ///
    /// # Errors
    /// Those of `decide`.
    pub fn peek(mut self, rate: Rate, share: Share, amount: i64, now: Timestamp) -> Result<Room, TooFast> {
        self.decide(rate, share, amount, now)
    }

    /// What is left.
    #[must_use]
    pub fn room(self, rate: Rate, share: Share, now: Timestamp) -> Room {
        let rate = rate.bounded();
        let Self { used, at } = self.as_of(rate, now);
        let remaining = match rate {
            Rate { per_minute: 0, .. } | Rate { burst: 0, .. } => 0,
            _ if used == 0 => (rate.whole() / share.cost(1)).max(1),
            _ => (rate.whole() - used).max(0) / share.cost(1),
        };
        Room {
            remaining: i64::try_from(remaining).unwrap_or(i64::MAX),
            full_at: at.after(rate.time_for(used)).min(FAR),
        }
    }

    /// The same, with what has come back by now.
    fn as_of(self, rate: Rate, now: Timestamp) -> Self {
        let overtaken = now < self.at && self.at.since(now) <= OVERTAKEN;
        let at = if overtaken { self.at } else { now };
        let passed = (i128::from(at.micros()) - i128::from(self.at.micros())).max(0);
        Self { used: (self.used - passed * i128::from(rate.per_minute)).max(0), at }
    }
}

impl Rate {
    /// Within what the numbers below hold.
    fn bounded(self) -> Self {
        Self { per_minute: self.per_minute.clamp(0, MAX_AMOUNT), burst: self.burst.clamp(0, MAX_AMOUNT) }
    }

    /// The burst, as it is counted.
    fn whole(self) -> i128 {
        i128::from(self.burst) * UNIT
    }

    /// How long it takes until so much is back: up to the first microsecond at which it is.
    fn time_for(self, used: i128) -> TimeDelta {
        let micros = (used + i128::from(self.per_minute) - 1) / i128::from(self.per_minute).max(1);
        TimeDelta::microseconds(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

impl Share {
    /// What an amount counts, rounded up where parts are uneven.
    fn cost(self, amount: i64) -> i128 {
        let of = i128::from(self.of.max(1));
        let part = i128::from(self.part.max(1)).min(of);
        (i128::from(amount.max(0)) * UNIT * of + part - 1) / part
    }
}
