//! Subscriptions: the plan that a tenant is on, its periods and payments, and the ways between its states. Pure: what time
//! brings is computed from boundaries and the time of the decision (`settle`), so that no missed job can matter.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::period::next_cycle;
use super::plan::{AfterTrial, Cycle, Plan, PlanRef};
use crate::time::Timestamp;

mod changes;
#[cfg(test)]
mod tests;

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionStatus {
    /// On trial.
    Trialing,
    /// In force.
    Active,
    /// Unpaid: the tenant works until the grace period ends.
    PastDue,
    /// Stands still, and the tenant with it.
    Paused,
    /// Over.
    Cancelled,
}

impl SubscriptionStatus {
    /// The status's name in refusals and audit rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trialing => "trialing",
            Self::Active => "active",
            Self::PastDue => "past_due",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a billing provider calls things.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProviderIds {
    /// Who pays.
    pub customer: String,
    /// What is paid for.
    pub subscription: String,
    /// How it is paid.
    pub payment_method: String,
}

/// The plan of the next period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPlan {
    /// Which.
    pub of: PlanRef,
    /// How long its periods are; none when it costs nothing.
    pub cycle: Option<Cycle>,
}

/// A tenant's plan with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Which plan.
    pub of: PlanRef,
    /// Where it stands.
    pub status: SubscriptionStatus,
    /// How long a period is; none when it costs nothing.
    pub cycle: Option<Cycle>,
    /// What a period costs, in minor units, as it was when the tenant chose the plan.
    pub price: i64,
    /// ISO 4217; empty when it costs nothing.
    pub currency: String,
    /// Periods are whole cycles from here.
    pub anchor: Option<Timestamp>,
    /// When the current period began.
    pub period_start: Option<Timestamp>,
    /// When the current period ends.
    pub period_end: Option<Timestamp>,
    /// Until when it is paid.
    pub paid_until: Option<Timestamp>,
    /// When the trial ends, or ended.
    pub trial_end: Option<Timestamp>,
    /// Until when an unpaid tenant goes on working. Set when it falls due, and kept until a payment, so that going to and fro
    /// between plans gains no time.
    pub grace_end: Option<Timestamp>,
    /// Whether it ends with the current period.
    pub cancel_at_period_end: bool,
    /// The plan of the next period, when it changes.
    pub next: Option<NextPlan>,
    /// When it was paused.
    pub paused_at: Option<Timestamp>,
    /// When it was cancelled.
    pub cancelled_at: Option<Timestamp>,
    /// What the billing provider calls it.
    pub provider: ProviderIds,
    /// When the newest billing event happened.
    pub billed_at: Option<Timestamp>,
}

/// What happened at the billing provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payment {
    /// It arrived; until when it pays, when the provider says so.
    Paid(Option<Timestamp>),
    /// It failed.
    Failed,
    /// It was given back.
    Refunded,
}

impl Subscription {
    /// A new subscription. `trial` takes the place of the plan's own trial. Without a trial, a plan with a price begins in
    /// force when the caller is `trusted` to see to the payment, and past due otherwise.
    #[must_use]
    pub fn begin(
        (of, plan): (PlanRef, &Plan),
        cycle: Option<Cycle>,
        trial: Option<TimeDelta>,
        trusted: bool,
        now: Timestamp,
    ) -> Self {
        let trial = trial.or_else(|| plan.trial.as_ref().map(|trial| TimeDelta::days(i64::from(trial.days))));
        let mut new = Self::of_plan(of.clone());
        new.take_plan(of, plan, cycle);
        match trial {
            Some(length) if length > TimeDelta::zero() => {
                new.status = SubscriptionStatus::Trialing;
                new.trial_end = Some(now.after(length));
            }
            _ => {
                new.begin_periods(now);
                if new.price > 0 && !trusted {
                    new.fall_due(now.after(TimeDelta::days(i64::from(plan.grace_days))));
                }
            }
        }
        new
    }

    /// In force on a plan, without periods: what tenants had before there were subscriptions.
    #[must_use]
    pub fn of_plan(of: PlanRef) -> Self {
        Self {
            of,
            status: SubscriptionStatus::Active,
            cycle: None,
            price: 0,
            currency: String::new(),
            anchor: None,
            period_start: None,
            period_end: None,
            paid_until: None,
            trial_end: None,
            grace_end: None,
            cancel_at_period_end: false,
            next: None,
            paused_at: None,
            cancelled_at: None,
            provider: ProviderIds::default(),
            billed_at: None,
        }
    }

    /// Takes a plan's name and price; periods stay as they are.
    fn take_plan(&mut self, of: PlanRef, plan: &Plan, cycle: Option<Cycle>) {
        let cycle = cycle.filter(|cycle| plan.price_of(*cycle).is_some()).or_else(|| plan.shortest_cycle());
        self.of = of;
        self.cycle = cycle;
        self.price = cycle.and_then(|cycle| plan.price_of(cycle)).unwrap_or(0);
        self.currency = if cycle.is_some() { plan.currency.clone() } else { String::new() };
    }

    /// Begins periods anew at an instant; none when the plan has no cycle. What is paid beyond it stays paid.
    fn begin_periods(&mut self, at: Timestamp) {
        self.anchor = self.cycle.map(|_| at);
        self.period_start = self.anchor;
        self.period_end = self.cycle.map(|cycle| next_cycle(at, cycle, at));
        self.paid_until = self.paid_until.filter(|until| *until > at);
    }

    /// Goes on to the period that follows the current one.
    fn roll(&mut self) {
        if let (Some(anchor), Some(cycle), Some(end)) = (self.anchor, self.cycle, self.period_end) {
            self.period_start = Some(end);
            self.period_end = Some(next_cycle(anchor, cycle, end));
        }
    }

    /// Whether it is paid beyond an instant.
    fn is_paid_beyond(&self, at: Timestamp) -> bool {
        self.paid_until.is_some_and(|until| until > at)
    }

    /// When a subscription in force falls due: at the end of what is paid, or of the period that somebody sees to.
    fn due(&self) -> Option<Timestamp> {
        self.paid_until.or(self.period_end).filter(|_| self.price > 0)
    }

    /// Past due, from now on or still.
    fn fall_due(&mut self, grace_end: Timestamp) {
        self.status = SubscriptionStatus::PastDue;
        self.grace_end = Some(self.grace_end.unwrap_or(grace_end));
    }

    /// In force, with nothing owed.
    fn in_force(&mut self) {
        self.status = SubscriptionStatus::Active;
        self.grace_end = None;
    }

    fn cancel_at(&mut self, at: Timestamp) {
        self.status = SubscriptionStatus::Cancelled;
        self.cancelled_at = Some(at);
        self.cancel_at_period_end = false;
        self.next = None;
    }

    /// How it stands at `now`: everything that time alone has brought since it was written. Settling twice is settling once,
    /// and settling step by step is settling at the end.
    pub fn settle(&mut self, catalogue: &Catalogue, now: Timestamp) {
        // Bounded: each step moves an end forward by a cycle or leaves the state for good. Ten thousand months are plenty.
        for _ in 0..10_000 {
            if !self.step(catalogue, now) {
                return;
            }
        }
    }

    /// One step of `settle`; whether there was one to take.
    fn step(&mut self, catalogue: &Catalogue, now: Timestamp) -> bool {
        // A catalogue that does not know the plan is too old to say what becomes of it.
        if catalogue.plan(&self.of).is_none() {
            return false;
        }
        let passed = |at: Option<Timestamp>| at.filter(|at| *at <= now);
        let period = passed(self.heeded_period_end());
        match self.status {
            SubscriptionStatus::Trialing => match passed(self.trial_end) {
                Some(end) => self.end_trial(catalogue, end),
                None => return false,
            },
            SubscriptionStatus::Active => match (passed(self.due()), period) {
                (Some(due), period) if period.is_none_or(|end| due < end) => {
                    self.fall_due(due.after(self.grace(catalogue)));
                }
                (_, Some(end)) => self.end_period(catalogue, end),
                _ => return false,
            },
            SubscriptionStatus::PastDue => match period {
                Some(end) => self.end_period(catalogue, end),
                None => return false,
            },
            SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => return false,
        }
        true
    }

    /// The end of the current period, where something comes of it: periods of a subscription whose grace is over stand still,
    /// unless it is to end or to change with them.
    fn heeded_period_end(&self) -> Option<Timestamp> {
        let overdue_at = |end| self.status == SubscriptionStatus::PastDue && self.grace_end.is_some_and(|at| at <= end);
        self.period_end.filter(|end| self.cancel_at_period_end || self.next.is_some() || !overdue_at(*end))
    }

    fn end_trial(&mut self, catalogue: &Catalogue, end: Timestamp) {
        if self.cancel_at_period_end {
            return self.cancel_at(end);
        }
        if self.price > 0 && self.is_paid_beyond(end) {
            self.begin_periods(end);
            return self.in_force();
        }
        let then = catalogue.plan(&self.of).and_then(|plan| plan.trial.as_ref()).map(|trial| &trial.then);
        let into = match then {
            Some(AfterTrial::Downgrade { downgrade }) => catalogue.newest(downgrade),
            _ => None,
        };
        match into {
            Some((of, plan)) => {
                self.take_plan(of, plan, self.cycle);
                self.begin_periods(end);
                self.weigh(catalogue, end);
            }
            // No grace: the trial was it.
            None => self.fall_due(end),
        }
    }

    fn end_period(&mut self, catalogue: &Catalogue, end: Timestamp) {
        if self.cancel_at_period_end {
            return self.cancel_at(end);
        }
        if let Some(next) = self.next.take()
            && let Some(plan) = catalogue.plan(&next.of)
        {
            let before = self.rate();
            self.take_plan(next.of, plan, next.cycle);
            self.begin_periods(end);
            self.convert_paid(&before, end);
        } else {
            self.roll();
        }
        self.weigh(catalogue, end);
    }

    /// In force or past due at an instant at which a period begins. On a plan without a price nothing is due, and whatever
    /// was owed stays known, for the next plan with one.
    fn weigh(&mut self, catalogue: &Catalogue, at: Timestamp) {
        if self.price == 0 {
            self.status = SubscriptionStatus::Active;
        } else if self.is_paid_beyond(at) {
            self.in_force();
        } else {
            self.fall_due(at.after(self.grace(catalogue)));
        }
    }

    /// What a month costs, times twelve, and in which currency.
    fn rate(&self) -> (i64, String) {
        let months = self.cycle.map_or(12, |cycle| i64::from(cycle.months()));
        (self.price.saturating_mul(12 / months), self.currency.clone())
    }

    /// Counts what is paid beyond an instant at the price that holds now: what was paid on a cheap plan is no more than the
    /// same money on a dear one. On a plan without a price it is spent, since it would be worth any plan afterwards.
    fn convert_paid(&mut self, (before, currency): &(i64, String), at: Timestamp) {
        let Some(until) = self.paid_until.filter(|until| *until > at) else { return };
        let (rate, _) = self.rate();
        if rate == 0 {
            self.paid_until = None;
        } else if *before > 0 && (rate > *before || *currency != self.currency) {
            let worth = if *currency == self.currency { *before } else { 0 };
            let left =
                i128::from(until.since(at).num_microseconds().unwrap_or(0)) * i128::from(worth) / i128::from(rate);
            let left = TimeDelta::microseconds(i64::try_from(left).unwrap_or(0));
            self.paid_until = Some(at.after(left)).filter(|until| *until > at);
        }
    }

    /// How long an unpaid tenant goes on working.
    fn grace(&self, catalogue: &Catalogue) -> TimeDelta {
        let days = catalogue.plan(&self.of).map_or(0, |plan| plan.grace_days);
        TimeDelta::days(i64::from(days))
    }

    /// When time alone next changes something; none when it does not. To be asked of a settled subscription.
    #[must_use]
    pub fn next_boundary(&self, now: Timestamp) -> Option<Timestamp> {
        let [a, b] = match self.status {
            SubscriptionStatus::Trialing => [self.trial_end, None],
            SubscriptionStatus::Active => [self.period_end, self.due()],
            SubscriptionStatus::PastDue => [self.grace_end, self.heeded_period_end()],
            SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => [None, None],
        };
        [a, b].into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Whether it is unpaid and its grace is over.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.status == SubscriptionStatus::PastDue && self.grace_end.is_some_and(|at| at <= now)
    }

    /// Whether it is overdue because a trial ended, not because a payment is missing.
    #[must_use]
    pub fn is_trial_over(&self) -> bool {
        self.status == SubscriptionStatus::PastDue && self.ended_with_trial()
    }

    /// Whether its trial was all the grace that it had.
    fn ended_with_trial(&self) -> bool {
        self.trial_end.is_some() && self.trial_end == self.grace_end
    }
}
