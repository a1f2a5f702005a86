//! Moves tenants to the newest versions of their plans, as of a catalogue: a job in small batches, each tenant in a transaction of
//! its own under its lock, so that it can stop anywhere and go on.

use uuid::Uuid;

use crate::app::App;
use crate::ctx::Ctx;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::TenantId;
use crate::domain::plan::{Plan, PlanRef};
use crate::error::Error;
use crate::store::InTenant;
use crate::time::Timestamp;

/// How many tenants are moved before the job is claimed anew: far less work than its lease is long.
const BATCH: i64 = 100;

/// The subject of the job for a catalogue.
pub(super) fn subject(version: i64) -> Uuid {
    Uuid::from_u128(u128::from(version.unsigned_abs()))
}

impl App {
    /// Moves a batch of tenants to the versions that their plans had with a catalogue; when to go on, if there may be more.
    /// Also those whom an earlier catalogue left behind. What was changed again since goes no further than asked, and a plan
    /// that is gone stays as it is.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub(in crate::app) async fn migrate_plans(&self, ctx: &Ctx, subject: Uuid) -> Result<Option<Timestamp>, Error> {
        let version = i64::try_from(subject.as_u128()).unwrap_or(0);
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let mut left = BATCH;
        for of in self.store.list_newest_plans(version).await? {
            let Some(plan) = catalogue.plan(&of).filter(|_| catalogue.definition.plans.contains_key(&of.plan)) else {
                continue;
            };
            for tenant in self.store.list_behind(&of, left).await? {
                self.move_tenant(ctx, &catalogue, tenant, (&of, plan)).await?;
                left -= 1;
            }
            if left <= 0 {
                return Ok(Some(self.clock.now()));
            }
        }
        Ok(None)
    }

    /// Moves a tenant, unless it is no longer behind.
    async fn move_tenant(
        &self,
        ctx: &Ctx,
        catalogue: &Catalogue,
        tenant: TenantId,
        (of, plan): (&PlanRef, &Plan),
    ) -> Result<(), Error> {
        let mut tx = self.store.write(InTenant(tenant)).await?;
        let before = match self.lock_settled(&mut tx, ctx, catalogue).await {
            Err(Error::TenantNotFound) => return Ok(()),
            settled => settled?,
        };
        let on = &before.subscription.of;
        if on.plan != of.plan || on.version >= of.version || before.deleted_at.is_some() {
            // What settling found is kept: it is why the tenant is no longer behind.
            return tx.commit_unaudited(ctx.now).await;
        }
        let mut after = before.clone();
        after.subscription.move_to(of.clone(), plan, ctx.now);
        let audit = self.write_tenant(&mut tx, ctx, catalogue, (&before, &mut after)).await?;
        tx.commit(ctx, audit).await
    }
}
