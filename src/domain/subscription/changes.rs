//! What people and billing providers do to a subscription. Each expects it settled at the time of the call, and leaves it
//! settled.

use chrono::TimeDelta;

use super::{NextPlan, Payment, Subscription, SubscriptionStatus};
use crate::domain::catalogue::Catalogue;
use crate::domain::period::next_cycle;
use crate::domain::plan::{Cycle, Plan, PlanRef};
use crate::error::Error;
use crate::time::Timestamp;

/// How far ahead anything can be paid.
const PAID_AHEAD: TimeDelta = TimeDelta::days(3660);

impl Subscription {
    /// Changes the plan at once. What is paid goes on, counted at the new price; otherwise a new period begins. `trusted` says
    /// that the caller sees to the payment; for others a plan with a price that is not paid is past due, and a trial goes on.
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
        let (cycle_before, rate_before) = (self.cycle, self.rate());
        self.take_plan(of, plan, cycle.or(self.cycle));
        self.next = None;
        self.cancel_at_period_end = false;
        if self.price > 0 && self.status == SubscriptionStatus::Trialing && !trusted {
            return Ok(());
        }
        let was_active = self.status == SubscriptionStatus::Active;
        self.cancelled_at = None;
        self.choose_after_trial(now);
        if !trusted {
            self.convert_paid(&rate_before, now);
        }
        let paid = self.is_paid_beyond(now);
        if !was_active || self.cycle != cycle_before || !(paid || self.price == 0) {
            self.begin_periods(now);
            // The first period is seen to, also where the end of what was paid lies within it.
            self.paid_until = self.paid_until.filter(|until| !trusted || Some(*until) > self.period_end);
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

    /// A plan was chosen: a trial that is left before its time has ended now. One that was over is forgotten on a plan without
    /// a price; that there is no grace left stays known.
    fn choose_after_trial(&mut self, now: Timestamp) {
        if self.ended_with_trial() && self.price == 0 {
            self.trial_end = None;
        } else {
            self.leave_trial(now);
        }
    }

    /// Takes another version of the plan that it is on, because an operator moves it: limits and features at once, the price
    /// with the next period. What is paid stays paid, and a trial goes on.
    pub fn move_to(&mut self, of: PlanRef, plan: &Plan, now: Timestamp) {
        let (cycle, owed) = (self.cycle, self.status == SubscriptionStatus::PastDue && !self.is_trial_over());
        self.take_plan(of, plan, cycle);
        if self.cycle.is_some() != cycle.is_some() && self.status != SubscriptionStatus::Trialing {
            // It begins to cost something, or ends to.
            self.begin_periods(now);
        }
        if owed && self.price == 0 {
            self.in_force();
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
            // The period of one whose grace is long over can have ended already.
            SubscriptionStatus::Active | SubscriptionStatus::PastDue => {
                at_period_end && self.period_end.is_some_and(|end| end > now)
            }
            SubscriptionStatus::Paused => false,
        };
        if waits {
            self.cancel_at_period_end = true;
            self.next = None;
        } else {
            self.go_on_from_pause(now);
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
            SubscriptionStatus::Paused => self.go_on_from_pause(now),
            SubscriptionStatus::Cancelled => {
                let cancelled_at = self.cancelled_at.take().unwrap_or(now);
                if self.trial_end.is_some_and(|end| end > now) {
                    self.status = SubscriptionStatus::Trialing;
                } else if self.price == 0 && self.ended_with_trial() {
                    // Its trial was over, and no plan has been chosen since.
                    self.status = SubscriptionStatus::PastDue;
                } else if self.price == 0 {
                    self.status = SubscriptionStatus::Active;
                    self.begin_periods(now);
                } else if self.is_paid_beyond(now) {
                    self.in_force();
                    if self.period_end.is_none_or(|end| end <= now) {
                        self.begin_periods(now);
                    }
                } else {
                    // Cancelling and resuming over and over gains no time either.
                    self.begin_periods(now);
                    self.fall_due(cancelled_at.after(self.grace(catalogue)));
                }
            }
            _ if self.cancel_at_period_end => self.cancel_at_period_end = false,
            other => {
                let wanted = "a subscription that is cancelled or paused";
                return Err(Error::WrongState { state: other.as_str(), wanted });
            }
        }
        Ok(())
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

    /// Takes up again what stood still, with what was left when it was paused. A payment that failed or was given back
    /// meanwhile is owed.
    fn go_on_from_pause(&mut self, now: Timestamp) {
        let Some(paused_at) = self.paused_at.take() else { return };
        let stood = now.since(paused_at).max(TimeDelta::zero());
        for at in [&mut self.period_start, &mut self.period_end, &mut self.paid_until] {
            *at = at.map(|at| at.after(stood));
        }
        // Whole cycles are counted from the end that was moved: months differ in length, so that from an anchor moved by as
        // much the next end could be days away.
        self.anchor = self.period_end;
        if let Some(end) = self.trial_end.filter(|end| *end > paused_at) {
            self.status = SubscriptionStatus::Trialing;
            self.trial_end = Some(end.after(stood));
        } else if self.price > 0 && self.grace_end.is_some() {
            self.status = SubscriptionStatus::PastDue;
        } else {
            self.status = SubscriptionStatus::Active;
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
    /// nothing: events arrive in any order. One of a clock that is ahead counts as of now, so that it outdates nothing to come.
    pub fn bill(&mut self, catalogue: &Catalogue, payment: Payment, at: Timestamp, now: Timestamp) -> bool {
        let at = at.min(now);
        if self.billed_at.is_some_and(|newest| at < newest) {
            return false;
        }
        self.settle(catalogue, now);
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

    /// A payment is missing: past due, if it was in force and has a price. What is paid is had first; a grace period that
    /// runs goes on.
    fn owe(&mut self, catalogue: &Catalogue, now: Timestamp) {
        let from = self.paid_until.filter(|until| *until > now).unwrap_or(now);
        let grace_end = from.after(self.grace(catalogue));
        match self.status {
            _ if self.price == 0 => {}
            SubscriptionStatus::Active => self.fall_due(grace_end),
            // Known when it goes on.
            SubscriptionStatus::Paused => self.grace_end = Some(self.grace_end.unwrap_or(grace_end)),
            SubscriptionStatus::Trialing | SubscriptionStatus::PastDue | SubscriptionStatus::Cancelled => {}
        }
    }

    /// A payment is there: until when the provider says, or for one more period. One that covers nothing to come
    /// changes nothing.
    fn pay(&mut self, until: Option<Timestamp>, now: Timestamp) {
        if until.is_some_and(|until| until <= now) {
            return;
        }
        let Some(cycle) = self.cycle else {
            // A plan without a price, whose trial may be over: somebody has paid for it elsewhere.
            if matches!(self.status, SubscriptionStatus::Trialing | SubscriptionStatus::PastDue) {
                self.leave_trial(now);
                self.in_force();
            }
            return;
        };
        match self.status {
            SubscriptionStatus::Cancelled => {
                // It stays over, but what is paid is known when it resumes.
                let paid = until.unwrap_or_else(|| next_cycle(now, cycle, now.max(self.paid_until.unwrap_or(now))));
                return self.paid(paid, now);
            }
            SubscriptionStatus::Paused => {
                // It goes on standing still. What the payment covers from now on is what will be left.
                let paused_at = self.paused_at.unwrap_or(now).min(now);
                self.grace_end = None;
                let until = until.map(|until| until.after(paused_at.since(now)));
                let paid = until.unwrap_or_else(|| self.one_more_period(cycle, paused_at));
                return self.paid(paid, now);
            }
            SubscriptionStatus::Trialing => {
                self.leave_trial(now);
                self.begin_periods(now);
            }
            // It stood still meanwhile: a new period begins with the payment.
            SubscriptionStatus::PastDue if self.is_overdue(now) => self.begin_periods(now),
            SubscriptionStatus::Active | SubscriptionStatus::PastDue => {}
        }
        let paid = until.unwrap_or_else(|| self.one_more_period(cycle, now));
        self.paid(paid, now);
        if self.is_paid_beyond(now) {
            self.in_force();
        }
    }

    /// The end of the current period, or when that is paid of the one after.
    fn one_more_period(&self, cycle: Cycle, now: Timestamp) -> Timestamp {
        let (Some(anchor), Some(end)) = (self.anchor, self.period_end) else {
            // On a trial that stands still: the first period is the one after it.
            let from = self.trial_end.unwrap_or(now).max(now);
            return next_cycle(from, cycle, self.paid_until.unwrap_or(from).max(from));
        };
        match self.paid_until {
            Some(paid) if paid >= end => next_cycle(anchor, cycle, paid),
            _ => end,
        }
    }

    /// Notes until when it is paid, which a payment only ever moves ahead.
    fn paid(&mut self, until: Timestamp, now: Timestamp) {
        let until = until.min(now.after(PAID_AHEAD));
        self.paid_until = self.paid_until.max(Some(until));
    }
}
