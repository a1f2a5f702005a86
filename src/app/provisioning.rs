//! Tenants made and ended as a whole, and what the platform says of them.

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::TenantCtx;
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::InTenant;

/// A step, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub step: String,
    /// How it went.
    pub outcome: StepOutcome,
    /// A sentence for people.
    pub detail: String,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepOutcome {
    /// Done by this call.
    Done,
    /// Had been done before.
    AlreadyDone,
    /// Not asked for.
    Skipped,
}

impl Step {
    fn new(step: &str, outcome: StepOutcome, detail: impl Into<String>) -> Self {
        Self { step: step.to_owned(), outcome, detail: detail.into() }
    }
}

/// Flags to set or clear; what is none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlagChanges {
    /// The platform has checked who it is.
    pub verified: Option<bool>,
    /// It is for showing.
    pub demo: Option<bool>,
    /// It takes no changes.
    pub maintenance: Option<bool>,
}

/// How a tenant is to end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Must be its slug.
    pub confirm_slug: String,
    /// Whether everything goes after the grace period; otherwise it is cancelled and kept.
    pub delete_data: bool,
    /// For the audit log.
    pub reason: String,
    /// Only says what would be.
    pub validate_only: bool,
}

impl App {
    /// Sets or clears what the platform says of a tenant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn set_tenant_flags(
        &self,
        t: &TenantCtx,
        changes: FlagChanges,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        self.change_tenant(t, "", key, |tenant| {
            let flags = &mut tenant.flags;
            flags.verified = changes.verified.unwrap_or(flags.verified);
            flags.demo = changes.demo.unwrap_or(flags.demo);
            flags.maintenance = changes.maintenance.unwrap_or(flags.maintenance);
            Ok(())
        })
        .await
    }

    /// Ends a tenant: cancels its subscription, and deletes it when asked. What is ended already stays so.
    ///
    /// # Errors
    /// `FieldsInvalid` for another slug, `WrongState` when it is deleted.
    pub async fn deprovision_tenant(
        &self,
        t: &TenantCtx,
        ending: &Ending,
        key: Option<RequestKey>,
    ) -> Result<(Tenant, Vec<Step>), Error> {
        if ending.validate_only {
            let mut tenant = t.tenant.clone();
            let steps = end(&mut tenant, ending, t)?;
            return Ok((tenant, steps));
        }
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        let mut after = before.clone();
        let steps = end(&mut after, ending, t)?;
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?;
        self.finish(open, &t.ctx, audit.set("reason", ending.reason.as_str()), (after, steps)).await
    }
}

/// Applies an ending to a tenant.
fn end(tenant: &mut Tenant, ending: &Ending, t: &TenantCtx) -> Result<Vec<Step>, Error> {
    if ending.confirm_slug != tenant.slug.as_str() {
        return Err(Error::field("confirm_slug", "must be the tenant's slug"));
    }
    let now = t.ctx.now;
    if tenant.deleted_at.is_some() {
        return Err(Error::WrongState { state: "deleted", wanted: "a tenant that is not deleted" });
    }
    let cancelled = match tenant.subscription.cancel(false, now) {
        Ok(()) => StepOutcome::Done,
        Err(_) => StepOutcome::AlreadyDone,
    };
    let mut steps = vec![Step::new("subscription", cancelled, "cancelled: nobody gets in, everything is kept")];
    if ending.delete_data {
        tenant.delete(now)?;
        let until = tenant.purge_at.map(|at| at.to_string()).unwrap_or_default();
        steps.push(Step::new("data", StepOutcome::Done, format!("deleted: can be undeleted until {until}, then it is purged")));
    } else {
        steps.push(Step::new("data", StepOutcome::Skipped, "kept"));
    }
    Ok(steps)
}
