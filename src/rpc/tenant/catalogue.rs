//! The catalogue: put in force, shown, and its price list.

use serde_json::Value;
use tonic::Request;

use crate::app::catalogue::{Applied, NewCatalogue, OverLimit, PlanImpact};
use crate::domain::catalogue::CatalogueChange;
use crate::domain::plan::{AfterTrial, Limit, Plan, PlanRef};
use crate::error::Error;
use crate::rpc::access::Access;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn apply_catalogue(
    s: &Services,
    request: Request<v1::ApplyCatalogueRequest>,
) -> Result<v1::ApplyCatalogueResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let toml = f.read("toml", if m.toml.is_empty() { Err("must be the catalogue's file") } else { Ok(()) });
    let (Some(key), Some(())) = (key, toml) else { return Err(f.refuse()) };
    let methods = Access::names();
    let new = NewCatalogue { toml: &m.toml, methods: &methods, migrate_tenants: m.migrate_tenants };
    let applied = if m.validate_only {
        s.0.app.preview_catalogue(&ctx, &new).await?
    } else {
        s.0.app.apply_catalogue(&ctx, &new, key).await?
    };
    let Applied { version, changes, plans, roles_in_use } = applied;
    Ok(v1::ApplyCatalogueResponse {
        version,
        changes: changes.into_iter().map(change).collect(),
        plans: plans.into_iter().map(impact).collect(),
        roles_in_use,
    })
}

pub(super) async fn get_catalogue(
    s: &Services,
    request: Request<v1::GetCatalogueRequest>,
) -> Result<v1::GetCatalogueResponse, Error> {
    s.0.open(request).await?;
    let (catalogue, toml, applied_at) = s.0.app.get_catalogue().await?;
    Ok(v1::GetCatalogueResponse {
        version: catalogue.version,
        toml,
        apply_time: Some(convert::time(applied_at)),
        plans: catalogue.versions.iter().map(|(of, version)| plan(of, version)).collect(),
    })
}

pub(super) async fn list_plans(
    s: &Services,
    request: Request<v1::ListPlansRequest>,
) -> Result<v1::ListPlansResponse, Error> {
    s.0.open(request).await?;
    let plans = s.0.app.list_plans().await?;
    Ok(v1::ListPlansResponse { plans: plans.iter().map(|(of, version)| plan(of, version)).collect() })
}

fn change(change: CatalogueChange) -> v1::CatalogueChange {
    let json = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
    v1::CatalogueChange { path: change.path, before: json(change.before), after: json(change.after) }
}

fn impact(impact: PlanImpact) -> v1::PlanImpact {
    let over = |over: OverLimit| v1::OverLimit {
        tenant_id: over.tenant_id.to_string(),
        metric: over.metric,
        used: over.used,
        limit: over.limit,
    };
    v1::PlanImpact {
        plan: impact.plan,
        new_version: impact.new_version.unwrap_or(0),
        tenants: impact.tenants,
        over_limit: impact.over_limit.into_iter().map(over).collect(),
        over_limit_tenants: i64::try_from(impact.over_limit_tenants).unwrap_or(i64::MAX),
    }
}

/// A version of a plan.
fn plan(of: &PlanRef, plan: &Plan) -> v1::Plan {
    let price =
        |cycle: v1::BillingCycle, amount: Option<i64>| amount.map(|amount| v1::Price { cycle: cycle.into(), amount });
    let prices = [price(v1::BillingCycle::Month, plan.price.month), price(v1::BillingCycle::Year, plan.price.year)];
    let ends_into = match plan.trial.as_ref().map(|trial| &trial.then) {
        Some(AfterTrial::Downgrade { downgrade }) => downgrade.clone(),
        Some(AfterTrial::Suspend) | None => String::new(),
    };
    let name = if plan.display_name.is_empty() { &of.plan } else { &plan.display_name };
    v1::Plan {
        plan: of.plan.clone(),
        version: of.version,
        display_name: name.clone(),
        description: plan.description.clone(),
        currency: plan.currency.clone(),
        prices: prices.into_iter().flatten().collect(),
        trial_days: plan.trial.as_ref().map_or(0, |trial| trial.days.into()),
        trial_ends_into: ends_into,
        grace_days: plan.grace_days.into(),
        seats: plan.seats,
        features: plan.features.clone(),
        limits: plan.limits.iter().map(|(metric, of_metric)| limit(metric, of_metric)).collect(),
        public: plan.public,
        self_service: plan.self_service,
        usage_retention_days: plan.retention_days().into(),
    }
}

fn limit(metric: &str, limit: &Limit) -> v1::PlanLimit {
    v1::PlanLimit {
        metric: metric.to_owned(),
        limit: limit.limit,
        soft_percent: limit.soft_percent.into(),
        burst: limit.burst,
        overage_amount: limit.overage.map_or(0, |overage| overage.amount),
        overage_per: limit.overage.map_or(0, |overage| overage.per),
    }
}
