//! Notices: what a tenant's owners are told before time changes something.

use chrono::TimeDelta;

use super::mail::Template;
use super::subscription::SubscriptionStatus;
use super::tenant::Tenant;
use crate::time::Timestamp;

/// Something that is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Which letter tells of it.
    pub template: Template,
    /// When it happens.
    pub at: Timestamp,
    /// Days before it at which it is told.
    pub days: u16,
}

impl Tenant {
    /// What comes next, if owners are told of it: the end of a trial, of a paid period that nobody has paid for yet, of a
    /// subscription, of the grace period.
    fn coming(&self, now: Timestamp) -> Option<(Template, Timestamp)> {
        let s = &self.subscription;
        let ahead = |at: Option<Timestamp>| at.filter(|at| *at > now);
        if self.deleted_at.is_some() {
            return None;
        }
        match s.status {
            SubscriptionStatus::Trialing => ahead(s.trial_end).map(|at| (Template::TrialEnding, at)),
            SubscriptionStatus::PastDue => ahead(s.grace_end).map(|at| (Template::PaymentOverdue, at)),
            SubscriptionStatus::Active => {
                let end = ahead(s.period_end)?;
                let template = if s.cancel_at_period_end {
                    Template::SubscriptionEnding
                } else if s.price > 0 && s.paid_until.is_none_or(|until| until <= end) {
                    Template::PeriodEnding
                } else {
                    return None;
                };
                Some((template, end))
            }
            SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => None,
        }
    }

    /// The notice that is due: the latest one whose day has come. Earlier ones that were missed are not made up for.
    #[must_use]
    pub fn due_notice(&self, notice_days: &[u16], now: Timestamp) -> Option<Notice> {
        let (template, at) = self.coming(now)?;
        let reached = notice_days.iter().copied().filter(|days| before(at, *days) <= now);
        reached.min().map(|days| Notice { template, at, days })
    }

    /// When the server has to look at the tenant again by itself: at the next change that time brings, or at the next
    /// notice before it. To be asked of a settled tenant.
    #[must_use]
    pub fn next_look(&self, notice_days: &[u16], now: Timestamp) -> Option<Timestamp> {
        let coming = self.coming(now);
        let notices = notice_days.iter().filter_map(|days| coming.map(|(_, at)| before(at, *days)));
        notices.filter(|at| *at > now).chain(self.next_boundary(now)).min()
    }
}

fn before(at: Timestamp, days: u16) -> Timestamp {
    at.after(-TimeDelta::days(i64::from(days)))
}
