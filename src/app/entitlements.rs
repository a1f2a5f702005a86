//! Entitlements: limits and features as they hold for a tenant now, and what operators and tenants change of them.

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use super::usage::accounts::apply_limits;
use super::usage::{Of, used_of};
use crate::ctx::{Caller, TenantCtx};
use crate::domain::catalogue::{Catalogue, MEMBERS, MetricKind};
use crate::domain::entitlement::{FeatureSwitch, LimitOverride, Source, members_metric};
use crate::domain::plan::PlanRef;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, entitlements};
use crate::time::Timestamp;

/// A limit as it holds for a tenant now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitView {
    /// The metric.
    pub metric: String,
    /// What it counts.
    pub kind: MetricKind,
    /// Its base unit.
    pub unit: String,
    /// How much; none is unlimited.
    pub limit: Option<i64>,
    /// What is used; none for kinds that are not counted.
    pub used: Option<i64>,
    /// When a counter begins anew.
    pub resets_at: Option<Timestamp>,
    /// Where the limit comes from.
    pub source: Source,
    /// When an override ends.
    pub expires_at: Option<Timestamp>,
    /// What the plan alone allows; none is unlimited.
    pub plan_limit: Option<i64>,
    /// Percent by which it may be exceeded.
    pub soft_percent: u16,
    /// Of a rate: how many at once; none is unlimited, and of all else.
    #[serde(default)]
    pub burst: Option<i64>,
}

impl LimitView {
    /// What is left; none when it is unlimited or not counted.
    #[must_use]
    pub fn remaining(&self) -> Option<i64> {
        self.limit.zip(self.used).map(|(limit, used)| (limit - used).max(0))
    }
}

/// A feature as it holds for a tenant now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FeatureView {
    /// Its name.
    pub feature: String,
    /// A sentence for people.
    pub description: String,
    /// Whether the tenant has it.
    pub enabled: bool,
    /// What decides that.
    pub source: Source,
    /// When an override ends.
    pub expires_at: Option<Timestamp>,
    /// Whether the plan includes it.
    pub in_plan: bool,
}

/// How a feature is to be switched.
#[derive(Debug, Clone, Copy)]
pub struct FeatureChange {
    /// On or off; none takes the switch away.
    pub enabled: Option<bool>,
    /// By an operator's override instead of the tenant's own switch.
    pub by_override: bool,
    /// When the override ends; none is never.
    pub expires_at: Option<Timestamp>,
}

impl App {
    /// All limits of the tenant, by metric, seats among them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_limits(&self, t: &TenantCtx) -> Result<Vec<LimitView>, Error> {
        let mut names: Vec<&str> = t.catalogue.definition.metrics.keys().map(String::as_str).collect();
        if !names.contains(&MEMBERS) {
            names.push(MEMBERS);
        }
        names.sort_unstable();
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let mut views = Vec::with_capacity(names.len());
        for metric in names {
            views.push(limit_view(&mut tx, (&t.tenant, &t.catalogue), metric, t.ctx.now).await?);
        }
        Ok(views)
    }

    /// Gives the tenant another limit than its plan; none takes that away again. Whatever is consumed after the answer, on
    /// any server, is decided by it: leases that were given out under the old limit are taken back. Of a rate other servers
    /// learn within a second.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn set_limit_override(
        &self,
        t: &TenantCtx,
        metric: &str,
        own: Option<LimitOverride>,
        reason: &str,
        key: Option<RequestKey>,
    ) -> Result<LimitView, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, _) = self.lock_tenant(&mut open.tx, t).await?;
        let known = t.catalogue.definition.metrics.get(metric);
        if known.is_none() && metric != MEMBERS {
            return Err(Error::MetricUnknown(metric.to_owned()));
        }
        let of = (&tenant, &*t.catalogue);
        let before = limit_view(&mut open.tx, of, metric, t.ctx.now).await?;
        entitlements::set_limit(&mut open.tx, metric, own.as_ref(), reason, t.ctx.now).await?;
        apply_limits(&mut open.tx, of, Some(metric), t.ctx.now).await?;
        let after = limit_view(&mut open.tx, of, metric, t.ctx.now).await?;
        let audit = Audit::of(tenant_id.0)
            .set("metric", metric)
            .field("limit", before.limit, after.limit)
            .field("source", source_name(before.source), source_name(after.source))
            .field("expire_time", told(before.expires_at), told(after.expires_at))
            .set("reason", Some(reason).filter(|reason| !reason.is_empty()));
        let set = self.finish(open, &t.ctx, audit, after).await?;
        self.quota.overrides.forget(tenant_id, metric);
        Ok(set)
    }

    /// All features of the catalogue, by name, as they hold for the tenant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_features(&self, t: &TenantCtx) -> Result<Vec<FeatureView>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let switches = entitlements::switches(&mut tx).await?;
        let of = (&*t.catalogue, &t.tenant.subscription.of);
        let view = |feature: &String| {
            let switches = switches.get(feature).map_or(&[][..], Vec::as_slice);
            feature_view(of, feature, switches, t.ctx.now)
        };
        Ok(t.catalogue.definition.features.keys().map(view).collect())
    }

    /// Switches a feature.
    ///
    /// # Errors
    /// `FeatureUnknown`; `FeatureNotInPlan` for the tenant's own switch; `FieldsInvalid` for an override by anybody but an
    /// operator.
    pub async fn set_feature(
        &self,
        t: &TenantCtx,
        feature: &str,
        change: FeatureChange,
        key: Option<RequestKey>,
    ) -> Result<FeatureView, Error> {
        if change.by_override && !matches!(t.ctx.caller, Caller::Operator(_)) {
            return Err(Error::field("override", "is for operators; without it, switch within what the plan includes"));
        }
        if change.expires_at.is_some() && !(change.by_override && change.enabled.is_some()) {
            return Err(Error::field("expire_time", "is for an operator's override that is set"));
        }
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, _) = self.lock_tenant(&mut open.tx, t).await?;
        if !t.catalogue.definition.features.contains_key(feature) {
            return Err(Error::FeatureUnknown(feature.to_owned()));
        }
        let of = (&*t.catalogue, &tenant.subscription.of);
        let before = locked_feature(&mut open.tx, of, feature, t.ctx.now).await?;
        let source = if change.by_override { Source::Override } else { Source::Tenant };
        match change.enabled {
            Some(true) if source == Source::Tenant && !before.in_plan => {
                return Err(Error::FeatureNotInPlan(feature.to_owned()));
            }
            Some(enabled) => {
                let switch = FeatureSwitch { source, enabled, expires_at: change.expires_at };
                entitlements::set_feature(&mut open.tx, feature, &switch, t.ctx.now).await?;
            }
            None => entitlements::remove_feature(&mut open.tx, feature, source).await?,
        }
        let after = locked_feature(&mut open.tx, of, feature, t.ctx.now).await?;
        let audit = Audit::of(tenant_id.0)
            .set("feature", feature)
            .set("switch", source_name(source))
            .set("switched", change.enabled.map_or("removed", |on| if on { "on" } else { "off" }))
            .field("enabled", before.enabled, after.enabled)
            .field("expire_time", told(before.expires_at), told(after.expires_at));
        self.finish(open, &t.ctx, audit, after).await
    }
}

/// A limit as it holds, with what is used of it.
async fn limit_view(tx: &mut TenantTx, of: Of<'_>, metric: &str, now: Timestamp) -> Result<LimitView, Error> {
    let seats = members_metric();
    let (catalogue, plan) = (of.1, &of.0.subscription.of);
    let definition = if metric == MEMBERS { &seats } else { &catalogue.definition.metrics[metric] };
    let own = entitlements::find_limit(tx, metric, now).await?;
    let limit = catalogue.effective_limit(plan, metric, own.as_ref());
    let used = used_of(tx, of, metric, now).await?;
    Ok(LimitView {
        metric: metric.to_owned(),
        kind: definition.kind,
        unit: definition.unit.clone(),
        limit: limit.map(|limit| limit.limit),
        used: used.as_ref().map(|view| view.used + view.reserved),
        resets_at: used.and_then(|view| view.resets_at),
        source: if own.is_some() { Source::Override } else { Source::Plan },
        expires_at: own.and_then(|own| own.expires_at),
        plan_limit: catalogue.limit(plan, metric).map(|limit| limit.limit),
        soft_percent: limit.map_or(0, |limit| limit.soft_percent),
        burst: limit.filter(|_| definition.kind == MetricKind::Rate).map(|limit| limit.at_once()),
    })
}

async fn locked_feature(
    tx: &mut TenantTx,
    of: (&Catalogue, &PlanRef),
    feature: &str,
    now: Timestamp,
) -> Result<FeatureView, Error> {
    let switches = entitlements::switches(tx).await?.remove(feature).unwrap_or_default();
    Ok(feature_view(of, feature, &switches, now))
}

fn feature_view(
    (catalogue, of): (&Catalogue, &PlanRef),
    feature: &str,
    switches: &[FeatureSwitch],
    now: Timestamp,
) -> FeatureView {
    let found = catalogue.effective_feature(of, feature, switches, now);
    FeatureView {
        feature: feature.to_owned(),
        description: catalogue.definition.features.get(feature).cloned().unwrap_or_default(),
        enabled: found.enabled,
        source: found.source,
        expires_at: found.expires_at,
        in_plan: found.in_plan,
    }
}

/// A source's name in audit rows.
const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Plan => "plan",
        Source::Override => "override",
        Source::Tenant => "tenant",
    }
}

fn told(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
