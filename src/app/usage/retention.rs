//! Retention: once a day what a tenant used long ago is forgotten event by event, in batches so small that nobody waits for
//! them. What it used stays in its roll-ups and accounts.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use crate::app::App;
use crate::ctx::Ctx;
use crate::domain::bucket::Bucket;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::quota::retention;
use crate::store::{InTenant, TenantTx, settings};
use crate::time::Timestamp;

/// How many rows of a table go in one transaction.
const BATCH: i64 = 5_000;

/// How long a turn of the job goes on; the rest is for the next one.
const TURN: Duration = Duration::from_secs(5);

/// How often it is done.
const EVERY: TimeDelta = TimeDelta::days(1);

/// Schedules the job of a tenant that uses something, unless it is.
pub(super) async fn ensure(tx: &mut TenantTx, now: Timestamp) -> Result<(), Error> {
    let InTenant(tenant) = *tx.scope();
    jobs::ensure(tx, JobKind::UsageRetention, tenant.0, now.after(EVERY)).await
}

/// For how many days a tenant's events are kept: as it says itself, or else its plan.
async fn days(tx: &mut TenantTx, tenant: &Tenant, catalogue: &Catalogue) -> Result<i64, Error> {
    let (own, _) = settings::find(tx).await?;
    let own = own.over(&catalogue.definition.settings).compliance.retention_days.filter(|days| *days > 0);
    Ok(own.map_or_else(|| catalogue.usage_retention_days(&tenant.subscription.of), i64::from))
}

impl App {
    /// Forgets what is older than it is kept.
    pub(in crate::app) async fn forget_usage(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let tenant_id = TenantId(job.subject);
        let Some((tenant, catalogue)) = self.plane.find_settled(tenant_id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        let began = Instant::now();
        loop {
            let mut tx = self.store.write(InTenant(tenant_id)).await?;
            // Two of them at once would only be in each other's way.
            jobs::hold(&mut tx, job).await?;
            let days = days(&mut tx, &tenant, &catalogue).await?;
            let before = Bucket::of(ctx.now.after(-TimeDelta::days(days))).start();
            let events = retention::forget_events(&mut tx, before, BATCH).await?;
            let rest = retention::forget_rest(&mut tx, before, BATCH).await?;
            let full = i64::try_from(events).unwrap_or(0) == BATCH || rest >= BATCH.unsigned_abs();
            if !full || began.elapsed() >= TURN {
                let again = if full { ctx.now } else { ctx.now.after(EVERY) };
                jobs::finish(&mut tx, job, Some(again)).await?;
                return tx.commit_unaudited(ctx.now).await;
            }
            tx.commit_unaudited(ctx.now).await?;
        }
    }
}
