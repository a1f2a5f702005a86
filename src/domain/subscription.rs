//! Subscriptions: the plan that a tenant is on, its periods and payments, and the ways between its states. Pure: what time
//! brings is computed from boundaries and the time of the decision (`settle`), so that no missed job can matter.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::period::next_cycle;
use super::plan::{AfterTrial, Cycle, Plan, PlanRef};
use crate::error::Error;
use crate::time::Timestamp;

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

    /// Begins periods anew at an instant; none when the plan has no cycle.
    fn begin_periods(&mut self, at: Timestamp) {
        self.anchor = self.cycle.map(|_| at);
        self.period_start = self.anchor;
        self.period_end = self.cycle.map(|cycle| next_cycle(at, cycle, at));
        self.paid_until = None;
    }

    /// Goes on to the period that follows the current one.
    fn roll(&mut self) {
        if let (Some(anchor), Some(cycle), Some(end)) = (self.anchor, self.cycle, self.period_end) {
            self.period_start = Some(end);
            self.period_end = Some(next_cycle(anchor, cycle, end));
        }
    }

    /// Whether a plan with a price is paid beyond an instant.
    fn is_paid_beyond(&self, at: Timestamp) -> bool {
        self.price == 0 || self.paid_until.is_some_and(|until| until > at)
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
        match self.status {
            SubscriptionStatus::Trialing => match self.trial_end {
                Some(end) if end <= now => {
                    self.end_trial(catalogue, end);
                    true
                }
                _ => false,
            },
            SubscriptionStatus::Active => match self.period_end {
                Some(end) if end <= now => {
                    self.end_period(catalogue, end);
                    true
                }
                _ => false,
            },
            SubscriptionStatus::PastDue if self.cancel_at_period_end => match self.period_end {
                Some(end) if end <= now => {
                    self.cancel_at(end);
                    true
                }
                _ => false,
            },
            SubscriptionStatus::PastDue | SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => false,
        }
    }

    fn end_trial(&mut self, catalogue: &Catalogue, end: Timestamp) {
        if self.cancel_at_period_end {
            return self.cancel_at(end);
        }
        let then = catalogue.plan(&self.of).and_then(|plan| plan.trial.as_ref()).map(|trial| &trial.then);
        let into = match then {
            Some(AfterTrial::Downgrade { downgrade }) => catalogue.newest(downgrade),
            _ => None,
        };
        match into {
            Some((of, plan)) => {
                self.take_plan(of, plan, self.cycle);
                self.status = SubscriptionStatus::Active;
                self.begin_periods(end);
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
            let paid = self.paid_until;
            self.take_plan(next.of, plan, next.cycle);
            self.begin_periods(end);
            self.paid_until = paid;
        } else {
            self.roll();
        }
        if !self.is_paid_beyond(end) {
            self.fall_due(end.after(self.grace(catalogue)));
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
        let boundary = match self.status {
            SubscriptionStatus::Trialing => self.trial_end,
            SubscriptionStatus::Active => self.period_end,
            SubscriptionStatus::PastDue => {
                let end = self.period_end.filter(|_| self.cancel_at_period_end);
                [self.grace_end.filter(|at| *at > now), end].into_iter().flatten().min()
            }
            SubscriptionStatus::Paused | SubscriptionStatus::Cancelled => None,
        };
        boundary.filter(|at| *at > now)
    }

    /// Whether it is unpaid and its grace is over.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.status == SubscriptionStatus::PastDue && self.grace_end.is_some_and(|at| at <= now)
    }

    /// Whether it is overdue because a trial ended, not because a payment is missing.
    #[must_use]
    pub fn is_trial_over(&self) -> bool {
        self.status == SubscriptionStatus::PastDue && self.trial_end.is_some() && self.trial_end == self.grace_end
    }

    /// Changes the plan at once. What is paid goes on, at the new plan; otherwise a new period begins. `trusted` says that
    /// the caller sees to the payment; for others a plan with a price that is not paid is past due, and a trial goes on.
    ///
    /// # Errors
    /// `WrongState` when paused.
    pub fn change_plan(
        &mut self,
        (of, plan): (PlanRef, &Plan),
        cycle: Option<Cycle>,
        trusted: bool,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.not_paused()?;
        let cycle_before = self.cycle;
        self.take_plan(of, plan, cycle.or(self.cycle));
        self.next = None;
        if self.price > 0 && self.status == SubscriptionStatus::Trialing && !trusted {
            return Ok(());
        }
        let paid = self.paid_until.is_some_and(|until| until > now);
        let goes_on =
            self.status == SubscriptionStatus::Active && self.cycle == cycle_before && (paid || self.price == 0);
        self.cancelled_at = None;
        self.cancel_at_period_end = false;
        self.leave_trial(now);
        if !goes_on {
            self.begin_periods(now);
        }
        if self.price == 0 {
            // Whatever was owed stays known, for the next plan with a price.
            self.status = SubscriptionStatus::Active;
        } else if trusted || paid {
            self.in_force();
        } else {
            self.fall_due(now.after(TimeDelta::days(i64::from(plan.grace_days))));
        }
        Ok(())
    }

    /// Moves to another version of the same plan. Periods stay, and what is paid; the price is the new one from the next
    /// period on.
    pub fn move_to(&mut self, of: &PlanRef, plan: &Plan) {
        self.of = of.clone();
        if let Some(price) = self.cycle.and_then(|cycle| plan.price_of(cycle)) {
            self.price = price;
            self.currency.clone_from(&plan.currency);
        }
    }

    /// A trial that is left before its time has ended now.
    fn leave_trial(&mut self, now: Timestamp) {
        self.trial_end = self.trial_end.map(|end| end.min(now));
    }

    /// Changes the plan when the period ends; to the plan in force, takes a change to come back.
    ///
    /// # Errors
    /// `WrongState` when there is no period whose end could be waited for.
    pub fn change_plan_later(&mut self, of: PlanRef, plan: &Plan, cycle: Option<Cycle>) -> Result<(), Error> {
        self.not_paused()?;
        if self.status != SubscriptionStatus::Active || self.period_end.is_none() {
            let wanted = "an active subscription with periods; change the plan at once instead";
            return Err(Error::WrongState { state: self.status.as_str(), wanted });
        }
        let cycle = cycle.or(self.cycle).filter(|c| plan.price_of(*c).is_some()).or_else(|| plan.shortest_cycle());
        let stays = of == self.of && cycle == self.cycle;
        self.next = (!stays).then_some(NextPlan { of, cycle });
        self.cancel_at_period_end = false;
        Ok(())
    }

    fn not_paused(&self) -> Result<(), Error> {
        if self.status == SubscriptionStatus::Paused {
            return Err(Error::WrongState {
                state: "paused",
                wanted: "a subscription that is not paused; resume it first",
            });
        }
        Ok(())
    }

    /// Ends it, at once or with the current period or trial.
    ///
    /// # Errors
    /// `WrongState` when it has ended.
    pub fn cancel(&mut self, at_period_end: bool, now: Timestamp) -> Result<(), Error> {
        let waits = match self.status {
            SubscriptionStatus::Cancelled => {
                return Err(Error::WrongState { state: "cancelled", wanted: "a subscription that is not cancelled" });
            }
            SubscriptionStatus::Trialing => at_period_end,
            SubscriptionStatus::Active | SubscriptionStatus::PastDue => at_period_end && self.period_end.is_some(),
            SubscriptionStatus::Paused => false,
        };
        if waits {
            self.cancel_at_period_end = true;
            self.next = None;
        } else {
            self.paused_at = None;
            self.cancel_at(now);
        }
        Ok(())
    }

    /// Takes a cancellation or a pause back. What is paid still counts; what is not is past due.
    ///
    /// # Errors
    /// `WrongState` when there is nothing to take back.
    pub fn resume(&mut self, catalogue: &Catalogue, now: Timestamp) -> Result<(), Error> {
        match self.status {
            SubscriptionStatus::Paused => {
                let stood = now.since(self.paused_at.unwrap_or(now));
                for at in [&mut self.anchor, &mut self.period_start, &mut self.period_end, &mut self.paid_until] {
                    *at = at.map(|at| at.after(stood));
                }
                let paused_at = self.paused_at.take().unwrap_or(now);
                self.status = SubscriptionStatus::Active;
                if let Some(end) = self.trial_end.filter(|end| *end > paused_at) {
                    self.status = SubscriptionStatus::Trialing;
                    self.trial_end = Some(end.after(stood));
                }
                Ok(())
            }
            SubscriptionStatus::Cancelled => {
                let cancelled_at = self.cancelled_at.take().unwrap_or(now);
                if self.trial_end.is_some_and(|end| end > now) {
                    self.status = SubscriptionStatus::Trialing;
                } else if self.price == 0 {
                    self.status = SubscriptionStatus::Active;
                    self.begin_periods(now);
                } else if self.paid_until.is_some_and(|until| until > now) {
                    self.in_force();
                } else {
                    // Cancelling and resuming over and over gains no time either.
                    self.begin_periods(now);
                    self.fall_due(cancelled_at.after(self.grace(catalogue)));
                }
                Ok(())
            }
            _ if self.cancel_at_period_end => {
                self.cancel_at_period_end = false;
                Ok(())
            }
            other => {
                Err(Error::WrongState { state: other.as_str(), wanted: "a subscription that is cancelled or paused" })
            }
        }
    }

    /// Lets it stand still.
    ///
    /// # Errors
    /// `WrongState` when it is neither active nor on trial.
    pub fn pause(&mut self, now: Timestamp) -> Result<(), Error> {
        match self.status {
            SubscriptionStatus::Active | SubscriptionStatus::Trialing => {
                self.status = SubscriptionStatus::Paused;
                self.paused_at = Some(now);
                Ok(())
            }
            other => Err(Error::WrongState { state: other.as_str(), wanted: "an active subscription or a trial" }),
        }
    }

    /// Adds one period, as if paid.
    ///
    /// # Errors
    /// `WrongState` when it is over, stands still, or has no periods.
    pub fn renew(&mut self, now: Timestamp) -> Result<(), Error> {
        let wanted = "a subscription with periods that is neither cancelled nor paused";
        if matches!(self.status, SubscriptionStatus::Cancelled | SubscriptionStatus::Paused) {
            return Err(Error::WrongState { state: self.status.as_str(), wanted });
        }
        if self.cycle.is_none() {
            return Err(Error::WrongState { state: "without periods", wanted });
        }
        self.pay(None, now);
        Ok(())
    }

    /// Takes what the billing provider says; whether it changed anything. An event that is older than the newest one changes
    /// nothing: events arrive in any order.
    pub fn bill(&mut self, catalogue: &Catalogue, payment: Payment, at: Timestamp, now: Timestamp) -> bool {
        if self.billed_at.is_some_and(|newest| at < newest) {
            return false;
        }
        self.billed_at = Some(at);
        match payment {
            Payment::Paid(until) => self.pay(until, now),
            Payment::Failed => self.owe(catalogue, now),
            Payment::Refunded => {
                self.paid_until = self.paid_until.min(self.period_start);
                self.owe(catalogue, now);
            }
        }
        true
    }

    /// A payment is missing: past due, if it was in force and has a price. A grace period that runs goes on.
    fn owe(&mut self, catalogue: &Catalogue, now: Timestamp) {
        if self.status == SubscriptionStatus::Active && self.price > 0 {
            self.fall_due(now.after(self.grace(catalogue)));
        }
    }

    /// A payment is there: until when the provider says, or for one more period.
    fn pay(&mut self, until: Option<Timestamp>, now: Timestamp) {
        let Some(cycle) = self.cycle else { return };
        match self.status {
            // What is paid for stays ended or still, but what was paid is known when it resumes.
            SubscriptionStatus::Cancelled | SubscriptionStatus::Paused => {
                self.paid_until = self.paid_until.max(until);
                return;
            }
            SubscriptionStatus::Trialing => {
                self.leave_trial(now);
                self.begin_periods(now);
            }
            // It stood still meanwhile: a new period begins with the payment.
            SubscriptionStatus::PastDue if self.is_overdue(now) => self.begin_periods(now),
            SubscriptionStatus::Active | SubscriptionStatus::PastDue => {}
        }
        let (Some(anchor), Some(end)) = (self.anchor, self.period_end) else { return };
        let paid = match until {
            Some(until) => until,
            // The current period, or when that is paid the one after.
            None if self.paid_until.is_none_or(|paid| paid < end) => end,
            None => next_cycle(anchor, cycle, self.paid_until.unwrap_or(end)),
        };
        self.paid_until = self.paid_until.max(Some(paid));
        if self.paid_until.is_some_and(|until| until > now) {
            self.in_force();
        }
    }
}
