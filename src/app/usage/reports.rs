//! Sums of what was used, over spans of time in the tenant's own zone; and which tenants use most.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use chrono_tz::Tz;

use super::accounts::{calendar, metric_period};
use super::known_metrics;
use crate::app::App;
use crate::ctx::TenantCtx;
use crate::domain::bucket::{Granularity, spans};
use crate::domain::catalogue::{Catalogue, MEMBERS, MetricKind, MetricPeriod};
use crate::domain::period::Period;
use crate::error::Error;
use crate::store::InTenant;
use crate::store::quota::reports::sum;
pub use crate::store::quota::reports::{GroupBy, SumRow};
pub use crate::store::system::TopTenant;
use crate::time::Timestamp;

/// The most spans that are asked for at once.
pub const MOST_SPANS: usize = 5_000;

/// The most rows of an answer.
pub const MOST_SUMS: usize = 10_000;

/// How far back a question goes that does not say.
const UNSAID: TimeDelta = TimeDelta::days(30);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct UsageQuestion {
    /// From when; a while before the end when none.
    pub from: Option<Timestamp>,
    /// Up to when; now when none.
    pub to: Option<Timestamp>,
    /// How finely.
    pub granularity: Granularity,
    /// Which metrics; all when empty.
    pub metrics: Vec<String>,
    /// By what besides the metric.
    pub by: GroupBy,
}

/// What was used.
#[derive(Debug, Clone)]
pub struct UsageSums {
    /// All spans.
    pub spans: Vec<Period>,
    /// By span and group.
    pub sums: Vec<SumRow>,
    /// Events and amounts over all spans, by metric.
    pub totals: BTreeMap<String, (i64, i64)>,
    /// In which spans are drawn.
    pub zone: Tz,
}

impl App {
    /// Sums what the tenant used.
    ///
    /// # Errors
    /// `FieldsInvalid` when the answer would be too large or the time is none, `MetricUnknown`.
    pub async fn query_usage(&self, t: &TenantCtx, question: &UsageQuestion) -> Result<UsageSums, Error> {
        known_metrics(&t.catalogue, &question.metrics)?;
        let to = question.to.unwrap_or(t.ctx.now);
        let from = question.from.unwrap_or(to.after(-UNSAID));
        if from >= to {
            return Err(Error::field("start_time", "must be before the end"));
        }
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let zone = calendar(&mut tx, &t.tenant, &t.catalogue).await?.zone;
        let spans: Vec<Period> = spans(question.granularity, zone, from, to).take(MOST_SPANS + 1).collect();
        if spans.len() > MOST_SPANS {
            let problem = format!("asks for more than {MOST_SPANS} spans: ask for longer ones, or for less time");
            return Err(Error::field("granularity", problem));
        }
        let limit = i64::try_from(MOST_SUMS).unwrap_or(i64::MAX) + 1;
        let sums = sum(&mut tx, &spans, &question.metrics, question.by, limit).await?;
        if sums.len() > MOST_SUMS {
            let problem = format!(
                "gives more than {MOST_SUMS} sums: ask for less time, longer spans, fewer metrics or fewer groups"
            );
            return Err(Error::field("group_by", problem));
        }
        let mut totals: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for sum in &sums {
            let (events, amount) = totals.entry(sum.metric.clone()).or_default();
            *events = events.saturating_add(sum.events);
            *amount = amount.saturating_add(sum.amount);
        }
        Ok(UsageSums { spans, sums, totals, zone })
    }

    /// Which tenants use most of a metric in the periods that are open now.
    ///
    /// # Errors
    /// `MetricUnknown`, `FieldsInvalid` for a metric that has no accounts.
    pub async fn top_tenants(&self, metric: &str, limit: i64) -> Result<Vec<TopTenant>, Error> {
        let catalogue = self.plane.catalogues.seen();
        accountable(&catalogue, metric)?;
        let mut top = self.store.list_top_tenants(metric, self.clock.now(), limit).await?;
        if metric_period(&catalogue, metric) == MetricPeriod::Lifetime {
            for tenant in &mut top {
                tenant.period = None;
            }
        }
        Ok(top)
    }
}

/// Checks that a metric is counted or held on accounts: any but rates, which are not kept, and seats, which are members.
pub(super) fn accountable(catalogue: &Catalogue, metric: &str) -> Result<(), Error> {
    if metric == MEMBERS {
        return Err(Error::field("metric", "must not be `members`: seats are counted by members"));
    }
    known_metrics(catalogue, [&metric.to_owned()])?;
    match catalogue.definition.metrics.get(metric) {
        Some(known) if known.kind != MetricKind::Rate => Ok(()),
        _ => Err(Error::field("metric", "must not be a rate: what goes through it is not kept")),
    }
}
