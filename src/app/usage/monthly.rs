//! The monthly report: what was used in the calendar month before, to the owners of tenants that want it. Every tenant that
//! uses something has the job, so that a setting or zone that changes needs no schedule of its own: it is looked at when the
//! month begins.

use chrono::TimeDelta;
use serde_json::json;

use super::Of;
use super::accounts::calendar;
use crate::app::App;
use crate::ctx::Ctx;
use crate::domain::catalogue::MetricPeriod;
use crate::domain::id::TenantId;
use crate::domain::mail::{Message, Template};
use crate::domain::period::{Calendar, Period};
use crate::error::Error;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::quota::reports::{self, GroupBy};
use crate::store::{InTenant, TenantTx, settings};
use crate::time::Timestamp;

/// How long after a month has begun the one before is still worth a letter: a server that was away makes up for it, and a
/// zone that was changed just before the month begins does not bring the letter of the month before once more.
const WORTH_IT: TimeDelta = TimeDelta::days(15);

/// Metrics that a letter speaks of.
const MOST: usize = 50;

/// Schedules the job of a tenant that uses something, unless it is.
pub(super) async fn ensure(tx: &mut TenantTx, (tenant, catalogue): Of<'_>, now: Timestamp) -> Result<(), Error> {
    let calendar = calendar(tx, tenant, catalogue).await?;
    jobs::ensure(tx, JobKind::UsageReport, tenant.tenant_id.0, month(&calendar, now).end).await
}

fn month(calendar: &Calendar, at: Timestamp) -> Period {
    Period::at(MetricPeriod::Month, calendar, at)
}

impl App {
    /// Sends owners what was used in the month before, once, and comes again when the next month begins.
    pub(in crate::app) async fn report_usage(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let tenant_id = TenantId(job.subject);
        let Some((tenant, catalogue)) = self.plane.find_settled(tenant_id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        // Before the transaction: no other connection is waited for while it holds the job.
        let owners = self.store.list_active_in_top(tenant_id, &catalogue.definition.roles.top().name).await?;
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        let (own, _) = settings::find(&mut tx).await?;
        let is_wanted = own.over(&catalogue.definition.settings).is_reported_monthly();
        let calendar = calendar(&mut tx, &tenant, &catalogue).await?;
        let now = month(&calendar, ctx.now);
        if is_wanted && tenant.deleted_at.is_none() && ctx.now.since(now.start) < WORTH_IT {
            let last = month(&calendar, now.start.after(TimeDelta::microseconds(-1)));
            let sums = reports::sum(&mut tx, &[last], &[], GroupBy::default(), i64::MAX).await?;
            let unit = |metric: &str| catalogue.definition.metrics.get(metric).map_or("", |known| known.unit.as_str());
            let line = |sum: &reports::SumRow| match unit(&sum.metric) {
                unit if unit.is_empty() || unit == sum.metric => format!("{} {}", sum.amount, sum.metric),
                unit => format!("{} {} ({unit})", sum.amount, sum.metric),
            };
            let usage: Vec<String> = sums.iter().take(MOST).map(line).collect();
            let name = last.start.utc().with_timezone(&calendar.zone).format("%Y-%m").to_string();
            for owner in owners.iter().filter(|_| !usage.is_empty()) {
                let message = Message {
                    template: Template::UsageReport,
                    recipient: owner.email.clone(),
                    payload: json!({ "tenant": tenant.display_name, "month": name, "usage": usage.join(", ") }),
                    secret: None,
                    about: name.clone(),
                };
                self.post(&mut tx, message, ctx.now).await?;
            }
        }
        jobs::finish(&mut tx, job, Some(now.end)).await?;
        tx.commit_unaudited(ctx.now).await
    }
}
