//! Usage: consumption against the limits of a plan, and where metrics stand. Accounts are locked in the order of their
//! names, decided together, then charged or not: all or nothing, in one transaction with the event that remembers it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::App;
use crate::ctx::Ctx;
use crate::domain::catalogue::{Catalogue, Metric};
use crate::domain::period::Period;
use crate::domain::plan::Limit;
use crate::domain::secret::sha256;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Shortage};
use crate::store::{InTenant, TenantTx, entitlements, usage};
use crate::time::Timestamp;

/// What an unlimited metric may reach: far from overflow.
const CEILING: i64 = 1 << 62;

/// Where a metric stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageView {
    /// Its name.
    pub metric: String,
    /// Its base unit.
    pub unit: String,
    /// Used in the period.
    pub used: i64,
    /// The plan's limit; none is unlimited.
    pub limit: Option<i64>,
    /// When the period began.
    pub period_start: Timestamp,
    /// When the next one begins.
    pub resets_at: Timestamp,
}

impl UsageView {
    /// What is left; none is unlimited.
    #[must_use]
    pub fn remaining(&self) -> Option<i64> {
        self.limit.map(|limit| (limit - self.used).max(0))
    }
}

/// Amounts by metric.
pub type Amounts = BTreeMap<String, i64>;

/// What a call was told, as it is kept for its repetition.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Admitted(Vec<UsageView>),
    Refused(Vec<Shortage>),
}

impl Outcome {
    fn into_result(self) -> Result<Vec<UsageView>, Error> {
        match self {
            Self::Admitted(usage) => Ok(usage),
            Self::Refused(shortages) => Err(Error::QuotaExceeded(shortages)),
        }
    }
}

impl App {
    /// Consumes amounts, all or none. With a key, a repetition gets the first answer, a refusal too.
    ///
    /// # Errors
    /// `QuotaExceeded`, `MetricUnknown`, `IdempotencyKeyReused`.
    pub async fn consume(
        &self,
        ctx: &Ctx,
        (tenant, catalogue): (&Tenant, &Catalogue),
        amounts: &Amounts,
        key: Option<&str>,
    ) -> Result<Vec<UsageView>, Error> {
        countable_metrics(catalogue, amounts.keys())?;
        let payload_hash = payload_hash(amounts);
        let mut tx = self.store.write(InTenant(tenant.tenant_id)).await?;
        if let Some(key) = key
            && let Some(first) = usage::claim(&mut tx, key, &payload_hash, ctx.now).await?
        {
            if first.payload_hash != payload_hash {
                return Err(Error::IdempotencyKeyReused);
            }
            let outcome: Outcome =
                serde_json::from_str(&first.answer).map_err(|e| Error::Internal(e.to_string().into()))?;
            return outcome.into_result();
        }
        let period = Period::month_of(ctx.now);
        let mut used = BTreeMap::new();
        let mut limits = Limits::new();
        for metric in amounts.keys() {
            used.insert(metric.as_str(), usage::lock(&mut tx, metric, period).await?);
            limits.insert(metric.as_str(), limit(&mut tx, ctx, (tenant, catalogue), metric).await?);
        }
        let shortages = shortages(&limits, amounts, &used, period);
        if shortages.is_empty() {
            for (metric, amount) in amounts {
                let limit = limits[metric.as_str()].as_ref().map_or(CEILING, Limit::admits);
                usage::add(&mut tx, metric, period, *amount, limit).await?;
            }
        } else if key.is_none() {
            // Nothing was changed, and a refusal without a key is not remembered.
            return Err(Error::QuotaExceeded(shortages));
        }
        let admitted = shortages.is_empty();
        let outcome = if admitted {
            let after = |(metric, amount): (&String, &i64)| {
                let limit = limits[metric.as_str()].as_ref();
                view(catalogue, metric, limit, used[metric.as_str()] + amount, period)
            };
            Outcome::Admitted(amounts.iter().map(after).collect())
        } else {
            Outcome::Refused(shortages)
        };
        if let Some(key) = key {
            let json = |e: serde_json::Error| Error::Internal(e.to_string().into());
            let charges = if admitted { serde_json::to_string(amounts).map_err(json)? } else { "{}".to_owned() };
            let answer = serde_json::to_string(&outcome).map_err(json)?;
            usage::decide(&mut tx, key, admitted, &charges, &answer).await?;
        }
        tx.commit_unaudited(ctx.now).await?;
        outcome.into_result()
    }

    /// Whether amounts are there now; consumes nothing. Gives where the metrics stand and what falls short.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn check_quota(
        &self,
        ctx: &Ctx,
        of: (&Tenant, &Catalogue),
        amounts: &Amounts,
    ) -> Result<(Vec<UsageView>, Vec<Shortage>), Error> {
        countable_metrics(of.1, amounts.keys())?;
        let period = Period::month_of(ctx.now);
        let mut tx = self.store.read(InTenant(of.0.tenant_id)).await?;
        let (mut used, mut limits, mut views) = (BTreeMap::new(), Limits::new(), Vec::new());
        for metric in amounts.keys() {
            let limit = limit(&mut tx, ctx, of, metric).await?;
            let sum = usage::used(&mut tx, metric, period).await?;
            views.push(view(of.1, metric, limit.as_ref(), sum, period));
            used.insert(metric.as_str(), sum);
            limits.insert(metric.as_str(), limit);
        }
        Ok((views, shortages(&limits, amounts, &used, period)))
    }

    /// Where counters stand; all of the catalogue when none are named.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn get_usage(
        &self,
        ctx: &Ctx,
        of: (&Tenant, &Catalogue),
        metrics: &[String],
    ) -> Result<Vec<UsageView>, Error> {
        countable_metrics(of.1, metrics)?;
        let all: Vec<String>;
        let metrics = if metrics.is_empty() {
            let counters = of.1.definition.metrics.iter().filter(|(_, metric)| metric.is_counted());
            all = counters.map(|(name, _)| name.clone()).collect();
            &all
        } else {
            metrics
        };
        let period = Period::month_of(ctx.now);
        let mut tx = self.store.read(InTenant(of.0.tenant_id)).await?;
        let mut views = Vec::with_capacity(metrics.len());
        for metric in metrics {
            let limit = limit(&mut tx, ctx, of, metric).await?;
            let used = usage::used(&mut tx, metric, period).await?;
            views.push(view(of.1, metric, limit.as_ref(), used, period));
        }
        Ok(views)
    }
}

/// Limits by metric.
type Limits<'a> = BTreeMap<&'a str, Option<Limit>>;

/// The limit that holds for a tenant; none is unlimited.
async fn limit(
    tx: &mut TenantTx,
    ctx: &Ctx,
    (tenant, catalogue): (&Tenant, &Catalogue),
    metric: &str,
) -> Result<Option<Limit>, Error> {
    let own = entitlements::find_limit(tx, metric, ctx.now).await?;
    Ok(catalogue.effective_limit(&tenant.subscription.of, metric, own.as_ref()))
}

/// Checks that the catalogue has all these metrics.
pub(super) fn known_metrics<'a>(
    catalogue: &Catalogue,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<(), Error> {
    match names.into_iter().find(|name| !catalogue.definition.metrics.contains_key(*name)) {
        // It travels back in a header, and clients take only so much of those.
        Some(unknown) => Err(Error::MetricUnknown(unknown.chars().take(64).collect())),
        None => Ok(()),
    }
}

/// Checks that all these metrics are counters that can be consumed: those of a calendar month.
fn countable_metrics<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        known_metrics(catalogue, [name])?;
        if !catalogue.definition.metrics.get(name).is_some_and(Metric::is_counted) {
            return Err(Error::field("amounts", format!("`{name}` is no counter of a calendar month")));
        }
    }
    Ok(())
}

/// A metric with its limit and period.
pub(super) fn view(catalogue: &Catalogue, metric: &str, limit: Option<&Limit>, used: i64, period: Period) -> UsageView {
    UsageView {
        metric: metric.to_owned(),
        unit: catalogue.definition.metrics.get(metric).map(|m| m.unit.clone()).unwrap_or_default(),
        used,
        limit: limit.map(|limit| limit.limit),
        period_start: period.start,
        resets_at: period.end,
    }
}

fn shortages(limits: &Limits<'_>, amounts: &Amounts, used: &BTreeMap<&str, i64>, period: Period) -> Vec<Shortage> {
    let short = |(metric, amount): (&String, &i64)| {
        let limit = limits.get(metric.as_str()).copied().flatten();
        let admits = limit.as_ref().map_or(CEILING, Limit::admits);
        let used = used.get(metric.as_str()).copied().unwrap_or(0);
        let fits = used.checked_add(*amount).is_some_and(|sum| sum <= admits);
        let limit = limit.map_or(CEILING, |limit| limit.limit);
        (!fits).then(|| Shortage { metric: metric.clone(), amount: *amount, used, limit, resets_at: period.end })
    };
    amounts.iter().filter_map(short).collect()
}

/// What identifies a payload: its metrics and amounts, in order.
fn payload_hash(amounts: &Amounts) -> [u8; 32] {
    let lines: Vec<String> = amounts.iter().map(|(metric, amount)| format!("{metric}={amount}")).collect();
    sha256(lines.join(";").as_bytes())
}
