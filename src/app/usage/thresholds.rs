//! Thresholds: at which percents of its limits a tenant wants to be told, and telling it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::accounts::{THRESHOLDS, apply_limits};
use super::reports::accountable;
use crate::app::App;
use crate::app::mutation::{Begun, RequestKey};
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::catalogue::MetricKind;
use crate::domain::id::TenantId;
use crate::domain::mail::{Message, Template};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, Claimed};
use crate::store::quota::{notices, reports};
use crate::store::{InTenant, usage};

/// Notices that are told in one transaction.
const AT_ONCE: i64 = 50;

/// Percents of a metric's limit of which owners are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// The metric.
    pub metric: String,
    /// Rising.
    pub percents: Vec<i64>,
    /// Whether the tenant never set them.
    pub is_default: bool,
}

impl Thresholds {
    fn new(metric: &str, own: Option<Vec<i64>>) -> Self {
        let is_default = own.is_none();
        Self { metric: metric.to_owned(), percents: own.unwrap_or_else(|| THRESHOLDS.to_vec()), is_default }
    }
}

impl App {
    /// Shows the thresholds of all metrics that have accounts.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn get_thresholds(&self, t: &TenantCtx) -> Result<Vec<Thresholds>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let mut all = Vec::new();
        for (metric, known) in &t.catalogue.definition.metrics {
            if known.kind != MetricKind::Rate {
                all.push(Thresholds::new(metric, usage::find_thresholds(&mut tx, metric).await?));
            }
        }
        Ok(all)
    }

    /// Sets the thresholds of a metric, from now on, also for the period that is open.
    ///
    /// # Errors
    /// `MetricUnknown`, `FieldsInvalid` for a metric that has no accounts.
    pub async fn set_thresholds(
        &self,
        t: &TenantCtx,
        metric: &str,
        percents: Vec<i64>,
        key: Option<RequestKey>,
    ) -> Result<Thresholds, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, _) = self.lock_tenant(&mut open.tx, t).await?;
        accountable(&t.catalogue, metric)?;
        let before = Thresholds::new(metric, usage::find_thresholds(&mut open.tx, metric).await?);
        reports::put_thresholds(&mut open.tx, metric, &percents).await?;
        apply_limits(&mut open.tx, (&tenant, &t.catalogue), Some(metric), t.ctx.now).await?;
        let audit = Audit::of(tenant_id.0).set("metric", metric).field("percents", before.percents, percents.clone());
        self.finish(open, &t.ctx, audit, Thresholds::new(metric, Some(percents))).await
    }

    /// Tells a tenant which thresholds it has reached: its owners by mail, its webhooks and its log, and whoever watches. Each
    /// once, however often the job runs: in the transaction that notes that it was told.
    pub(in crate::app) async fn tell_notices(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let tenant_id = TenantId(job.subject);
        let Some((tenant, catalogue)) = self.plane.find_settled(tenant_id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        // Before the transaction: no other connection is waited for while it holds the job.
        let owners = self.store.list_active_in_top(tenant_id, &catalogue.definition.roles.top().name).await?;
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        // A batch that writes a notice waits for this from here on, and schedules the job anew.
        jobs::hold(&mut tx, job).await?;
        let found = notices::list_untold(&mut tx, AT_ONCE).await?;
        let is_more = i64::try_from(found.len()).unwrap_or(0) == AT_ONCE;
        for notice in found {
            for owner in &owners {
                let message = Message {
                    template: Template::QuotaReached,
                    recipient: owner.email.clone(),
                    payload: json!({
                        "tenant": tenant.display_name, "metric": notice.metric, "percent": notice.percent,
                        "used": notice.used, "limit": notice.limit_value,
                    }),
                    secret: None,
                    about: notice.notice_id.to_string(),
                };
                self.post(&mut tx, message, ctx.now).await?;
            }
            let audit = Audit::of(notice.account_id)
                .set("metric", notice.metric.as_str())
                .set("percent", notice.percent)
                .set("used", notice.used)
                .set("limit", notice.limit_value)
                .set("reset_time", notice.period_end.to_string());
            tx.note(ctx, audit).await?;
            notices::note(&mut tx, &notice, ctx.now).await?;
        }
        jobs::finish(&mut tx, job, is_more.then_some(ctx.now)).await?;
        tx.commit_unaudited(ctx.now).await
    }
}
