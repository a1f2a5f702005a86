//! Purging: everything of a deleted tenant goes, in batches so small that nobody else waits for them. What stays is the
//! tenant's id in the change feed until that is compacted, the platform's audit row of the purge, and the answer that is
//! kept for a repetition.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::Ctx;
use crate::domain::id::{TenantId, UserId};
use crate::domain::name::TenantName;
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::{AsUser, InTenant, OnPlatform, purge, tenants};

/// How many rows go in one transaction.
const BATCH: i64 = 500;

/// How long a call or a turn of the job goes on; the rest is for the next one.
const TURN: Duration = Duration::from_secs(5);

/// What went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PurgeReport {
    /// Rows by table.
    pub tables: BTreeMap<String, i64>,
    /// Whether all is gone.
    pub finished: bool,
}

impl App {
    /// Removes a deleted tenant at once. `confirm` must be its slug.
    ///
    /// # Errors
    /// `TenantNotFound`, `WrongState` when it is not deleted, `FieldsInvalid` for another slug.
    pub async fn purge_tenant(
        &self,
        ctx: &Ctx,
        name: &TenantName,
        confirm: &str,
        validate_only: bool,
        key: Option<RequestKey>,
    ) -> Result<PurgeReport, Error> {
        // Bound to the operator's key, whose answer it is: it must outlive the tenant.
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let open = match self.begin(ctx, None, scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let id = self.plane.look_at_rows().find(name, ctx.now).await?.ok_or(Error::TenantNotFound)?;
        let tenant = self.store.find_tenant(id).await?.ok_or(Error::TenantNotFound)?.0;
        if tenant.deleted_at.is_none() {
            return Err(Error::WrongState { state: "in use", wanted: "a deleted tenant; delete it first" });
        }
        if confirm != tenant.slug.as_str() {
            return Err(Error::field("confirm_slug", "must be the tenant's slug"));
        }
        // The answer is kept at the end, in a transaction of its own: this one must not hold SQLite's only writer meanwhile.
        drop(open);
        if validate_only {
            return self.count_rows(id).await;
        }
        self.begin_purge(ctx, id, false).await?;
        let report = self.purge_for_a_turn(ctx, &tenant).await?;
        let mut open = match self.begin(ctx, None, scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        if report.finished {
            jobs::schedule(&mut open.tx, JobKind::Purge, id.0, None).await?;
        }
        let audit = Audit::of(id.0).set("slug", tenant.slug.as_str()).set("finished", report.finished);
        self.finish(open, ctx, audit, report).await
    }

    /// From here on the tenant is gone for everybody, whatever their clocks say, and cannot be undeleted any more: asked and
    /// written under its lock. A job begins only when the time has come; a call also hands the rest to the job, should it
    /// break off.
    async fn begin_purge(&self, ctx: &Ctx, id: TenantId, by_job: bool) -> Result<(), Error> {
        let mut tx = self.store.write(InTenant(id)).await?;
        let before = tenants::lock(&mut tx).await?;
        let Some(deleted_at) = before.deleted_at.filter(|_| !by_job || before.is_purged(ctx.now)) else {
            return Err(Error::WrongState { state: "in use", wanted: "a deleted tenant; delete it first" });
        };
        let mut after = before.clone();
        after.purge_at = Some(deleted_at);
        if before != after {
            tenants::update(&mut tx, &before, &mut after, ctx.now).await?;
        }
        if !by_job {
            jobs::schedule(&mut tx, JobKind::Purge, id.0, Some(ctx.now.after(TimeDelta::seconds(30)))).await?;
        }
        tx.commit(ctx, Audit::of(id.0).set("purge", "begun")).await
    }

    /// A turn of the job.
    pub(super) async fn purge_job(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let id = TenantId(job.subject);
        let Some((tenant, _)) = self.store.find_tenant(id).await? else { return self.end_job(job).await };
        // Undeleted meanwhile, or deleted anew: the schedule was changed with it.
        if !tenant.is_purged(ctx.now) {
            let mut tx = self.store.write(OnPlatform).await?;
            jobs::finish(&mut tx, job, tenant.purge_at).await?;
            return tx.commit_unaudited(ctx.now).await;
        }
        self.begin_purge(ctx, id, true).await?;
        let report = self.purge_for_a_turn(ctx, &tenant).await?;
        let mut tx = self.store.write(OnPlatform).await?;
        jobs::finish(&mut tx, job, (!report.finished).then_some(ctx.now)).await?;
        if !report.finished {
            return tx.commit_unaudited(ctx.now).await;
        }
        let audit = Audit::of(id.0).set("slug", tenant.slug.as_str()).set("finished", true);
        tx.commit(ctx, audit).await
    }

    /// Removes batches until all is gone or the turn is over.
    async fn purge_for_a_turn(&self, ctx: &Ctx, tenant: &Tenant) -> Result<PurgeReport, Error> {
        let (id, began) = (tenant.tenant_id, Instant::now());
        let mut report = PurgeReport::default();
        for table in purge::tables() {
            loop {
                if began.elapsed() > TURN {
                    return Ok(report);
                }
                let mut tx = self.store.write(InTenant(id)).await?;
                let gone = purge::delete_some(&mut tx, table, BATCH).await?;
                tx.commit_unaudited(ctx.now).await?;
                if gone == 0 {
                    break;
                }
                let count = i64::try_from(gone).unwrap_or(0);
                *report.tables.entry(table.to_owned()).or_default() += count;
                // Others first: a purge has time.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        loop {
            let users = self.store.list_who_remember(id).await?;
            if users.is_empty() {
                break;
            }
            if began.elapsed() > TURN {
                return Ok(report);
            }
            for user in users {
                let mut tx = self.store.write(AsUser(user)).await?;
                purge::forget(&mut tx, id).await?;
                tx.commit_unaudited(ctx.now).await?;
            }
        }
        let mut tx = self.store.write(InTenant(id)).await?;
        // Locked first, as everybody does; only what `begin_purge` has sealed is removed.
        if !tenants::lock(&mut tx).await?.is_purged(ctx.now) {
            return Err(Error::internal("a tenant that is being purged came back"));
        }
        // What was on its way while the tables were emptied goes with the tenant.
        for table in purge::tables() {
            purge::delete_some(&mut tx, table, BATCH).await?;
        }
        purge::delete_tenant(&mut tx, tenant).await?;
        tx.commit_unaudited(ctx.now).await?;
        *report.tables.entry("tenant".to_owned()).or_default() += 1;
        report.finished = true;
        Ok(report)
    }

    async fn count_rows(&self, id: TenantId) -> Result<PurgeReport, Error> {
        let mut tx = self.store.read(InTenant(id)).await?;
        let mut report = PurgeReport::default();
        for table in purge::tables() {
            report.tables.insert(table.to_owned(), purge::count(&mut tx, table).await?);
        }
        report.tables.insert("tenant".to_owned(), 1);
        Ok(report)
    }
}
