//! The catalogue: put in force, shown, and its price list.

use tonic::Request;

use super::subscription::cycle;
use crate::app::catalogue::{Applied, PlanImpact};
use crate::domain::plan::{AfterTrial, Cycle, Plan, PlanRef};
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
    let Some(key) = key else { return Err(f.refuse()) };
    let how = (m.validate_only, m.migrate_tenants);
    let applied = s.0.app.apply_catalogue(&ctx, &m.toml, &Access::names(), how, key).await?;
    Ok(response(applied))
}

pub(super) async fn get_catalogue(
    s: &Services,
    request: Request<v1::GetCatalogueRequest>,
) -> Result<v1::GetCatalogueResponse, Error> {
    s.0.open(request).await?;
    let (catalogue, row) = s.0.app.get_catalogue().await?;
    Ok(v1::GetCatalogueResponse {
        version: row.version,
        toml: row.body,
        apply_time: Some(convert::time(row.applied_at)),
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

fn response(applied: Applied) -> v1::ApplyCatalogueResponse {
    let change = |change: crate::app::catalogue::Difference| v1::CatalogueChange {
        path: change.path,
        before: change.before,
        after: change.after,
    };
    v1::ApplyCatalogueResponse {
        version: applied.version,
        changes: applied.changes.into_iter().map(change).collect(),
        plans: applied.plans.into_iter().map(impact).collect(),
        roles_in_use: applied.roles_in_use,
    }
}

fn impact(impact: PlanImpact) -> v1::PlanImpact {
    let over = |(tenant, excess): (crate::domain::id::TenantId, crate::error::Excess)| v1::OverLimit {
        tenant_id: tenant.to_string(),
        metric: excess.metric,
        used: excess.used,
        limit: excess.limit,
    };
    v1::PlanImpact {
        plan: impact.plan,
        new_version: impact.new_version,
        tenants: impact.tenants,
        over_limit: impact.over_limit.into_iter().map(over).collect(),
        over_limit_tenants: impact.over_limit_tenants,
    }
}

/// A version of a plan.
fn plan(of: &PlanRef, plan: &Plan) -> v1::Plan {
    let price = |of: Cycle| plan.price_of(of).map(|amount| v1::Price { cycle: cycle(Some(of)).into(), amount });
    let limit = |(metric, limit): (&String, &crate::domain::plan::Limit)| v1::PlanLimit {
        metric: metric.clone(),
        limit: limit.limit,
        soft_percent: i32::from(limit.soft_percent),
        burst: limit.burst,
        overage_amount: limit.overage.map_or(0, |overage| overage.amount),
        overage_per: limit.overage.map_or(0, |overage| overage.per),
    };
    let into = plan.trial.as_ref().and_then(|trial| match &trial.then {
        AfterTrial::Downgrade { downgrade } => Some(downgrade.clone()),
        AfterTrial::Suspend => None,
    });
    v1::Plan {
        plan: of.plan.clone(),
        version: of.version,
        display_name: if plan.display_name.is_empty() { of.plan.clone() } else { plan.display_name.clone() },
        description: plan.description.clone(),
        currency: plan.currency.clone(),
        prices: [Cycle::Month, Cycle::Year].into_iter().filter_map(price).collect(),
        trial_days: plan.trial.as_ref().map_or(0, |trial| i32::from(trial.days)),
        trial_ends_into: into.unwrap_or_default(),
        grace_days: i32::from(plan.grace_days),
        seats: plan.seats,
        features: plan.features.clone(),
        limits: plan.limits.iter().map(limit).collect(),
        public: plan.public,
        self_service: plan.self_service,
    }
}
