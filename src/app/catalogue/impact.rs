//! What a new catalogue means for the tenants that there are: who is on a plan that changes, and who uses more than its new
//! version allows.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Applied, new_plans, roles_in_use};
use crate::app::App;
use crate::ctx::Ctx;
use crate::domain::catalogue::{Catalogue, MEMBERS, Metric};
use crate::domain::id::TenantId;
use crate::domain::plan::{Limit, Plan, PlanRef};
use crate::error::Error;
use crate::store::system::Over;

/// How many tenants are named for a plan.
const NAMED: usize = 100;

/// How many are read at once.
const PAGE: i64 = 1000;

/// What the change of a plan means for the tenants on it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanImpact {
    /// The plan.
    pub plan: String,
    /// The version that it gets; none when it is gone.
    pub new_version: Option<i64>,
    /// Tenants on any version of it, deleted ones aside.
    pub tenants: i64,
    /// Some of those that use more than the new version allows.
    pub over_limit: Vec<OverLimit>,
    /// How many these are in all.
    pub over_limit_tenants: usize,
}

/// A tenant that uses more than a plan allows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OverLimit {
    /// Which.
    pub tenant_id: TenantId,
    /// The metric; `members` for seats.
    pub metric: String,
    /// What is used.
    pub used: i64,
    /// What is allowed.
    pub limit: i64,
}

/// Who is over limits of a plan.
#[derive(Default)]
struct Found {
    named: Vec<OverLimit>,
    tenants: HashSet<Uuid>,
}

impl App {
    /// What comes of a catalogue that takes the place of another.
    pub(super) async fn impact(&self, ctx: &Ctx, before: &Catalogue, after: &Catalogue) -> Result<Applied, Error> {
        let mut plans = Vec::new();
        for name in before.definition.plans.keys().filter(|name| !after.definition.plans.contains_key(*name)) {
            let tenants = self.store.count_tenants_of_plan(name).await?;
            let plan = name.clone();
            plans.push(PlanImpact { plan, new_version: None, tenants, over_limit: Vec::new(), over_limit_tenants: 0 });
        }
        // Nobody can be on a plan that there never was.
        for (of, plan) in new_plans(Some(before), after).into_iter().filter(|(of, _)| of.version > 1) {
            let tenants = self.store.count_tenants_of_plan(&of.plan).await?;
            let found = if tenants == 0 { Found::default() } else { self.over(ctx, after, (&of, &plan)).await? };
            plans.push(PlanImpact {
                plan: of.plan,
                new_version: Some(of.version),
                tenants,
                over_limit: found.named,
                over_limit_tenants: found.tenants.len(),
            });
        }
        plans.sort_by(|a, b| a.plan.cmp(&b.plan));
        Ok(Applied {
            version: after.version,
            changes: before.definition.diff(&after.definition),
            plans,
            roles_in_use: roles_in_use(&self.store, Some(before), &after.definition).await?,
        })
    }

    /// Who is over the limits of a version of a plan. Counters that are not counted yet are left out.
    async fn over(&self, ctx: &Ctx, catalogue: &Catalogue, (of, plan): (&PlanRef, &Plan)) -> Result<Found, Error> {
        let mut found = Found::default();
        if let Some(seats) = plan.seats {
            let mut after = Some(Uuid::nil());
            while let Some(from) = after {
                let page = self.store.list_over_seats(&of.plan, seats, (from, PAGE), ctx.now).await?;
                after = found.take(&page, MEMBERS, seats);
            }
        }
        let counted = |metric: &str| catalogue.definition.metrics.get(metric).is_some_and(Metric::is_kept);
        let limits: Vec<(&String, &Limit)> = plan.limits.iter().filter(|(metric, _)| counted(metric)).collect();
        for (metric, limit) in limits {
            let mut after = Some(Uuid::nil());
            while let Some(from) = after {
                let of_metric = (metric.as_str(), limit);
                let page = self.store.list_over_limit(&of.plan, of_metric, (from, PAGE), ctx.now).await?;
                after = found.take(&page, metric, limit.limit);
            }
        }
        Ok(found)
    }
}

impl Found {
    /// Takes a page; after which tenant the next one begins, if there may be one.
    fn take(&mut self, page: &[Over], metric: &str, limit: i64) -> Option<Uuid> {
        for over in page {
            self.tenants.insert(over.tenant_id.0);
            if self.named.len() < NAMED {
                let limit = over.own.unwrap_or(limit);
                let (tenant_id, used) = (over.tenant_id, over.used);
                self.named.push(OverLimit { tenant_id, metric: metric.to_owned(), used, limit });
            }
        }
        let full = i64::try_from(page.len()).is_ok_and(|len| len == PAGE);
        page.last().filter(|_| full).map(|over| over.tenant_id.0)
    }
}
