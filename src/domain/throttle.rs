//! How many attempts at a secret are let through: so many from one network, so many in all, and beyond that one at a time
//! from each further network, so that guessing everywhere keeps nobody out for good. Pure; counting is the store's.

use chrono::TimeDelta;

use crate::time::Timestamp;

/// How often somebody may try within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimits {
    /// From one network, or on one known device.
    pub per_source: usize,
    /// From all unknown devices together.
    pub total: usize,
    /// The span that is looked at, back from now.
    pub window: TimeDelta,
    /// Beyond the total: how long a network waits from one attempt to the next.
    pub interval: TimeDelta,
}

impl AttemptLimits {
    /// As a tenant wants it that allows fewer; the total shrinks in proportion.
    #[must_use]
    pub fn tightened(self, per_source: Option<usize>) -> Self {
        match per_source {
            Some(fewer) if fewer < self.per_source && self.per_source > 0 => {
                Self { per_source: fewer, total: (self.total * fewer / self.per_source).max(fewer), ..self }
            }
            _ => self,
        }
    }
}

/// Attempts that were counted, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// From where this one comes.
    pub own: Vec<Timestamp>,
    /// From everywhere; none for known devices, which are counted by themselves.
    pub total: Option<Vec<Timestamp>>,
}

impl Counted {
    /// Forgets what lies before the window.
    fn prune(&mut self, limits: AttemptLimits, now: Timestamp) {
        let since = now.after(-limits.window);
        self.own.retain(|hit| *hit > since);
        if let Some(total) = &mut self.total {
            total.retain(|hit| *hit > since);
        }
    }

    /// Counts one more attempt.
    ///
    /// # Errors
    /// How long to wait when there is no room for it; nothing is counted then.
    pub fn take(&mut self, limits: AttemptLimits, now: Timestamp) -> Result<(), TimeDelta> {
        self.prune(limits, now);
        if self.own.len() >= limits.per_source {
            // The oldest of the last `per_source` must leave the window first.
            let first = self.own[self.own.len() - limits.per_source.max(1)];
            return Err(first.after(limits.window).since(now));
        }
        match &mut self.total {
            Some(total) if total.len() >= limits.total => {
                // A budget of its own: it neither uses up the total nor is used up by others.
                if let Some(last) = self.own.last().filter(|last| last.after(limits.interval) > now) {
                    return Err(last.after(limits.interval).since(now));
                }
            }
            Some(total) => total.push(now),
            None => {}
        }
        self.own.push(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AttemptLimits =
        AttemptLimits { per_source: 3, total: 5, window: TimeDelta::minutes(15), interval: TimeDelta::seconds(30) };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
    }

    fn counted(own: &[i64], total: &[i64]) -> Counted {
        let times = |list: &[i64]| list.iter().map(|s| at(*s)).collect();
        Counted { own: times(own), total: Some(times(total)) }
    }

    #[test]
    fn a_network_has_so_many_attempts_within_the_window() {
        let mut own = counted(&[], &[]);
        for second in 0..3 {
            own.take(LIMITS, at(second)).unwrap();
        }
        assert_eq!(own.take(LIMITS, at(10)), Err(TimeDelta::seconds(890)));
        own.take(LIMITS, at(900)).expect("the first has left the window");
        assert!(own.take(LIMITS, at(900)).is_err());
    }

    #[test]
    fn beyond_the_total_each_further_network_has_one_attempt_an_interval() {
        let full = [0, 1, 2, 3, 4];
        let mut new = counted(&[], &full);
        new.take(LIMITS, at(5)).expect("somebody at a new place comes in");
        assert_eq!(new.total.as_ref().map(Vec::len), Some(5), "it is a budget of its own");
        assert_eq!(new.take(LIMITS, at(15)), Err(TimeDelta::seconds(20)));
        new.take(LIMITS, at(35)).unwrap();
        // Whoever has helped to fill it waits as well.
        assert!(counted(&[4], &full).take(LIMITS, at(5)).is_err());
    }

    #[test]
    fn known_devices_are_counted_by_themselves() {
        let mut known = Counted { own: Vec::new(), total: None };
        for second in 0..3 {
            known.take(LIMITS, at(second)).unwrap();
        }
        assert!(known.take(LIMITS, at(3)).is_err());
    }

    #[test]
    fn tenants_make_limits_tighter_and_never_wider() {
        assert_eq!(LIMITS.tightened(None), LIMITS);
        assert_eq!(LIMITS.tightened(Some(50)), LIMITS);
        let tight = AttemptLimits { per_source: 10, total: 100, ..LIMITS }.tightened(Some(3));
        assert_eq!((tight.per_source, tight.total), (3, 30));
    }
}
