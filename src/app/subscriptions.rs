//! Subscriptions: changes of plan, ends, pauses, payments. What time brings is in `domain/subscription.rs`; here is what
//! people and billing providers do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use super::usage::used_of;
use crate::ctx::TenantCtx;
use crate::domain::catalogue::MEMBERS;
use crate::domain::plan::{Cycle, Plan, PlanRef};
use crate::domain::secret::sha256;
use crate::domain::subscription::{Payment, ProviderIds, Subscription};
use crate::domain::tenant::Tenant;
use crate::error::{Error, Excess};
use crate::store::audit::Audit;
use crate::store::billing;
pub use crate::store::billing::BillingEvent;
use crate::store::{InTenant, TenantTx, entitlements};
use crate::time::Timestamp;

/// A change of plan that is asked for.
#[derive(Debug, Clone)]
pub struct PlanChange {
    /// Which plan.
    pub plan: String,
    /// How long a period is; as it is, or the plan's shortest, unless said.
    pub cycle: Option<Cycle>,
    /// Whether it waits for the end of the period.
    pub at_period_end: bool,
    /// Whether more may be in use than the plan allows.
    pub allow_exceeding: bool,
    /// Only says what would be.
    pub validate_only: bool,
    /// As the subscription was read.
    pub etag: String,
}

/// A change of plan that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangedPlan {
    /// The tenant with it.
    pub tenant: Tenant,
    /// What is in use beyond what the plan allows.
    pub exceeded: Vec<Excess>,
    /// Features that the plan before had.
    pub lost: Vec<String>,
    /// Features that the plan before lacked.
    pub gained: Vec<String>,
}

/// What a billing provider tells.
#[derive(Debug, Clone)]
pub struct Told {
    /// The event.
    pub event: BillingEvent,
    /// What it means.
    pub payment: Payment,
    /// Ids that are known now; empty ones stay as they are.
    pub provider_ids: ProviderIds,
}

impl App {
    /// Changes the plan, at once or when the period ends.
    ///
    /// # Errors
    /// `PlanUnknown`, `PlanExceeded`, `WrongState`, `EtagMismatch`.
    pub async fn change_plan(
        &self,
        t: &TenantCtx,
        change: &PlanChange,
        key: Option<RequestKey>,
    ) -> Result<ChangedPlan, Error> {
        let trusted = t.ctx.caller.speaks_for_platform();
        let found = t.catalogue.newest(&change.plan).filter(|(_, plan)| trusted || plan.self_service);
        let (of, plan) = found.ok_or_else(|| Error::PlanUnknown(change.plan.clone()))?;
        if let Some(cycle) = change.cycle
            && plan.price_of(cycle).is_none()
        {
            return Err(Error::field("cycle", "must be one that the plan has a price for"));
        }
        let tenant_id = t.tenant_id();
        if change.validate_only {
            check_etag(&change.etag, t.tenant.version)?;
            let mut tx = self.store.read(InTenant(tenant_id)).await?;
            return changed(&mut tx, t, t.tenant.clone(), change, (of, plan)).await;
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        check_etag(&change.etag, before.version)?;
        let mut done = changed(&mut open.tx, t, before.clone(), change, (of, plan)).await?;
        if !done.exceeded.is_empty() && !change.allow_exceeding {
            return Err(Error::PlanExceeded(done.exceeded));
        }
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut done.tenant)).await?;
        self.finish(open, &t.ctx, audit, done).await
    }

    /// Ends the subscription, at once or when the period ends.
    ///
    /// # Errors
    /// `WrongState`.
    pub async fn cancel_subscription(
        &self,
        t: &TenantCtx,
        at_period_end: bool,
        reason: &str,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        let mut after = before.clone();
        after.subscription.cancel(at_period_end, t.ctx.now)?;
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?;
        let audit = if reason.is_empty() { audit } else { audit.set("reason", reason) };
        self.finish(open, &t.ctx, audit, after).await
    }

    /// Takes a cancellation or a pause back.
    ///
    /// # Errors
    /// `WrongState`.
    pub async fn resume_subscription(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let (catalogue, now) = (t.catalogue.clone(), t.ctx.now);
        self.change_tenant(t, "", key, move |tenant| tenant.subscription.resume(&catalogue, now)).await
    }

    /// Lets the subscription stand still.
    ///
    /// # Errors
    /// `WrongState`.
    pub async fn pause_subscription(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let now = t.ctx.now;
        self.change_tenant(t, "", key, |tenant| tenant.subscription.pause(now)).await
    }

    /// Adds one period, as if paid.
    ///
    /// # Errors
    /// `WrongState`.
    pub async fn renew_subscription(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let now = t.ctx.now;
        self.change_tenant(t, "", key, |tenant| tenant.subscription.renew(now)).await
    }

    /// Takes what the billing provider says, once; whether it changed anything.
    ///
    /// # Errors
    /// `BillingEventReused`.
    pub async fn record_billing_event(&self, t: &TenantCtx, told: &Told) -> Result<(Tenant, bool), Error> {
        let hash = payload_hash(told);
        let mut tx = self.store.write(InTenant(t.tenant_id())).await?;
        let (before, _) = self.lock_tenant(&mut tx, t).await?;
        if billing::was_told(&mut tx, &told.event, &hash).await? {
            return Ok((before, false));
        }
        let mut after = before.clone();
        let subscription = &mut after.subscription;
        let applied = subscription.bill(&t.catalogue, told.payment, told.event.at, t.ctx.now);
        if applied {
            take_ids(&mut subscription.provider, &told.provider_ids);
        }
        billing::insert(&mut tx, &told.event, &hash, applied, t.ctx.now).await?;
        let audit = if after == before {
            Audit::of(t.tenant_id().0)
        } else {
            self.write_tenant(&mut tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?
        };
        let audit = audit
            .set("provider", told.event.provider.as_str())
            .set("event_id", told.event.event_id.as_str())
            .set("applied", applied);
        tx.commit(&t.ctx, audit).await?;
        Ok((after, applied))
    }
}

/// A tenant after a change of plan, and what the change means for it.
async fn changed(
    tx: &mut TenantTx,
    t: &TenantCtx,
    mut tenant: Tenant,
    change: &PlanChange,
    (of, plan): (PlanRef, &Plan),
) -> Result<ChangedPlan, Error> {
    let features = |of: &PlanRef| -> BTreeSet<String> {
        t.catalogue.plan(of).map(|plan| plan.features.iter().cloned().collect()).unwrap_or_default()
    };
    let (before, after) = (features(&tenant.subscription.of), features(&of));
    let exceeded = exceeded(tx, t, &of).await?;
    let trusted = t.ctx.caller.speaks_for_platform();
    let subscription: &mut Subscription = &mut tenant.subscription;
    if change.at_period_end {
        subscription.change_plan_later(of, plan, change.cycle)?;
    } else {
        subscription.change_plan((of, plan), change.cycle, trusted, t.ctx.now)?;
    }
    let difference = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect();
    Ok(ChangedPlan { tenant, exceeded, lost: difference(&before, &after), gained: difference(&after, &before) })
}

/// What is in use beyond what a plan allows: metrics in their periods, and seats.
async fn exceeded(tx: &mut TenantTx, t: &TenantCtx, of: &PlanRef) -> Result<Vec<Excess>, Error> {
    let mut found = Vec::new();
    let counted = t.catalogue.definition.metrics.iter().filter(|(_, metric)| metric.is_kept());
    for metric in counted.map(|(name, _)| name.as_str()).chain([MEMBERS]) {
        let own = entitlements::find_limit(tx, metric, t.ctx.now).await?;
        let Some(limit) = t.catalogue.effective_limit(of, metric, own.as_ref()) else { continue };
        let view = used_of(tx, (&t.tenant, &t.catalogue), metric, t.ctx.now).await?;
        let used = view.map_or(0, |view| view.used + view.reserved);
        if used > limit.limit {
            found.push(Excess { metric: metric.to_owned(), used, limit: limit.limit });
        }
    }
    Ok(found)
}

fn take_ids(known: &mut ProviderIds, told: &ProviderIds) {
    for (known, told) in [
        (&mut known.customer, &told.customer),
        (&mut known.subscription, &told.subscription),
        (&mut known.payment_method, &told.payment_method),
    ] {
        if !told.is_empty() {
            known.clone_from(told);
        }
    }
}

/// What identifies the content of an event. The time is left out: a handler that does not know it says "now" each time.
fn payload_hash(told: &Told) -> [u8; 32] {
    let event = &told.event;
    let paid_until = match told.payment {
        Payment::Paid(until) => until.map(Timestamp::micros),
        Payment::Failed | Payment::Refunded => None,
    };
    sha256(format!("{} {} {} {paid_until:?}", event.kind, event.amount, event.currency).as_bytes())
}
