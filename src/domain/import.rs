//! Subscriptions as another system left them: how one begins here that has run elsewhere for a while. Pure.

use chrono::{Months, TimeDelta};

use super::plan::{Cycle, Plan, PlanRef};
use super::subscription::{ProviderIds, Subscription, SubscriptionStatus};
use crate::time::Timestamp;

/// Where a subscription stood elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// Its status; none is as the plan says for a new tenant.
    pub status: Option<SubscriptionStatus>,
    /// Until when it is paid.
    pub paid_until: Option<Timestamp>,
    /// When the trial ends.
    pub trial_end: Option<Timestamp>,
    /// What the billing provider calls things.
    pub provider: ProviderIds,
}

impl Elsewhere {
    /// The subscription as it goes on here. Times that lie behind are taken as they are: what follows from them is for
    /// `settle` to say.
    ///
    /// # Errors
    /// When it is on trial and nobody says until when.
    pub fn go_on(
        self,
        (of, plan): (PlanRef, &Plan),
        cycle: Option<Cycle>,
        now: Timestamp,
    ) -> Result<Subscription, &'static str> {
        let trial = match self.status {
            None | Some(SubscriptionStatus::Trialing) if self.trial_end.is_none() => None,
            _ => Some(TimeDelta::zero()),
        };
        let mut s = Subscription::begin((of, plan), cycle, trial, true, now);
        s.provider = self.provider;
        let trialing = self.status == Some(SubscriptionStatus::Trialing);
        if let Some(end) = self.trial_end {
            s.trial_end = Some(end);
        }
        if trialing && s.trial_end.is_none() {
            return Err("must be sent: the plan has no trial of its own");
        }
        if trialing || (self.status.is_none() && self.trial_end.is_some()) {
            s.status = SubscriptionStatus::Trialing;
            s.cycle_from(None, now);
            return Ok(s);
        }
        if s.status != SubscriptionStatus::Trialing {
            s.cycle_from(self.paid_until, now);
        }
        s.paid_until = self.paid_until;
        match self.status {
            None | Some(SubscriptionStatus::Trialing | SubscriptionStatus::Active) => {}
            Some(SubscriptionStatus::PastDue) => {
                s.status = SubscriptionStatus::PastDue;
                let grace = TimeDelta::days(i64::from(plan.grace_days));
                s.grace_end = Some(self.paid_until.filter(|at| *at < now).unwrap_or(now).after(grace));
            }
            Some(SubscriptionStatus::Paused) => {
                s.status = SubscriptionStatus::Paused;
                s.paused_at = Some(now);
            }
            Some(SubscriptionStatus::Cancelled) => {
                s.status = SubscriptionStatus::Cancelled;
                s.cancelled_at = Some(self.paid_until.filter(|at| *at < now).unwrap_or(now));
            }
        }
        Ok(s)
    }
}

impl Subscription {
    /// Lays periods so that the current one ends when the payment does; on trial, or without a cycle, there are none.
    fn cycle_from(&mut self, paid_until: Option<Timestamp>, now: Timestamp) {
        match (self.status, self.cycle, paid_until) {
            (SubscriptionStatus::Trialing, ..) => {
                self.anchor = None;
                self.period_start = None;
                self.period_end = None;
            }
            (_, Some(cycle), Some(until)) => {
                let start = until.utc().checked_sub_months(Months::new(cycle.months())).map_or(now, Timestamp::from);
                self.anchor = Some(until);
                self.period_start = Some(start.min(now));
                self.period_end = Some(until);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalogue::{Catalogue, Definition};
    use crate::domain::id::TenantId;
    use crate::domain::name::Slug;
    use crate::domain::tenant::{Flags, Tenant, TenantStatus};

    const DAY: i64 = 86_400_000_000;
    const NOW: i64 = 20_000 * DAY;

    const PLANS: &str = r#"
default_plan = "free"
[plans.free]
[plans.paid]
currency = "EUR"
price = { month = 1000 }
grace_days = 5
[plans.tried]
currency = "EUR"
price = { month = 1000 }
trial = { days = 14, then = "suspend" }
"#;

    fn catalogue() -> Catalogue {
        let definition = Definition::parse(PLANS).unwrap_or_else(|problems| panic!("{problems:?}"));
        let of = |name: &String| PlanRef { plan: name.clone(), version: 1 };
        let versions = definition.plans.iter().map(|(name, plan)| (of(name), plan.clone())).collect();
        Catalogue { version: 1, definition, versions }
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_micros(NOW + days * DAY)
    }

    /// The status at import, and so many days later.
    fn statuses(plan: &str, from: Elsewhere, later: i64) -> (TenantStatus, TenantStatus) {
        let catalogue = catalogue();
        let subscription = from.go_on(catalogue.newest(plan).unwrap(), None, at(0)).unwrap();
        let tenant = Tenant {
            tenant_id: TenantId(uuid::Uuid::nil()),
            slug: Slug::parse("acme").unwrap(),
            display_name: String::new(),
            suspension: None,
            pending: false,
            flags: Flags::default(),
            subscription,
            external_id: None,
            roles_version: 0,
            version: 1,
            created_at: at(0),
            updated_at: at(0),
            deleted_at: None,
            purge_at: None,
        };
        let status = |at| tenant.clone().settled(&catalogue, at).status(at);
        (status(at(0)), status(at(later)))
    }

    #[test]
    fn a_subscription_goes_on_where_it_stood() {
        use SubscriptionStatus::{Active, Cancelled, PastDue, Paused, Trialing};
        use TenantStatus as T;
        let with = |status, paid_until: Option<i64>, trial_end: Option<i64>| Elsewhere {
            status,
            paid_until: paid_until.map(at),
            trial_end: trial_end.map(at),
            ..Default::default()
        };
        for (plan, from, later, expected) in [
            ("free", with(None, None, None), 400, (T::Active, T::Active)),
            ("free", with(Some(Active), Some(10), None), 400, (T::Active, T::Active)),
            // Paid for ten days, five of grace.
            ("paid", with(Some(Active), Some(10), None), 14, (T::Active, T::Active)),
            ("paid", with(Some(Active), Some(10), None), 16, (T::Active, T::Suspended)),
            ("paid", with(Some(Active), Some(-10), None), 1, (T::Suspended, T::Suspended)),
            ("paid", with(Some(PastDue), Some(-2), None), 4, (T::Active, T::Suspended)),
            ("paid", with(Some(Paused), None, None), 400, (T::Suspended, T::Suspended)),
            ("paid", with(Some(Cancelled), None, None), 400, (T::Cancelled, T::Cancelled)),
            ("paid", with(Some(Trialing), None, Some(3)), 4, (T::Trial, T::Suspended)),
            ("tried", with(None, None, None), 15, (T::Trial, T::Suspended)),
            ("tried", with(Some(Trialing), None, None), 13, (T::Trial, T::Trial)),
            ("tried", with(None, None, Some(30)), 29, (T::Trial, T::Trial)),
            ("tried", with(Some(Active), Some(20), None), 19, (T::Active, T::Active)),
            ("tried", with(Some(Trialing), None, Some(-1)), 1, (T::Suspended, T::Suspended)),
        ] {
            assert_eq!(statuses(plan, from.clone(), later), expected, "{plan} {from:?}");
        }
        let endless = Elsewhere { status: Some(Trialing), ..Default::default() };
        assert!(endless.go_on(catalogue().newest("paid").unwrap(), None, at(0)).is_err());
    }
}
