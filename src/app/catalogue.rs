//! The catalogue: put in force at the start, and by operators.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::Ctx;
pub use crate::domain::catalogue::diff::Difference;
use crate::domain::catalogue::diff::differences;
use crate::domain::catalogue::{Catalogue, Definition, EXAMPLE, MEMBERS, Problem};
use crate::domain::id::{TenantId, UserId};
use crate::domain::period::Period;
use crate::domain::plan::{Plan, PlanRef};
use crate::domain::role::RoleName;
use crate::domain::secret::{hex, sha256};
use crate::error::{Error, Excess, Violation};
use crate::store::audit::Audit;
pub use crate::store::catalogue::CatalogueRow;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::{AsUser, InTenant, OnPlatform, Store, catalogue};
use crate::time::Timestamp;

/// Finds the catalogue in force. An empty database gets the one that is given, or the example. Later a given file is put in
/// force when exactly it never was: so a server that is started with an older file does not bring that back.
///
/// # Errors
/// `CatalogueInvalid`, `DatabaseUnavailable`.
pub async fn at_start(
    store: &Store,
    given: Option<&str>,
    methods: &[&str],
    now: Timestamp,
) -> Result<Catalogue, Error> {
    let mut tx = store.write(OnPlatform).await?;
    let newest = catalogue::newest(&mut tx).await?;
    let text = match (&newest, given) {
        (None, given) => given.unwrap_or(EXAMPLE),
        (Some(_), Some(given)) if !catalogue::was_applied(&mut tx, given).await? => given,
        (Some(row), _) => return catalogue::catalogue(&mut tx, row).await,
    };
    let before = match &newest {
        Some(row) => Some(catalogue::catalogue(&mut tx, row).await?),
        None => None,
    };
    let after = successor(before.as_ref(), read(text, methods)?);
    if let Some(before) = &before {
        let roles = orphaned(&before.definition, &after.definition, store.list_roles_in_use().await?);
        if !roles.is_empty() {
            return Err(Error::field("catalogue", lacks(&roles.join(", "))));
        }
    }
    if catalogue::insert(&mut tx, after.version, text, &new_plans(before.as_ref(), &after), now).await? {
        tx.commit_unaudited(now).await?;
        return Ok(after);
    }
    // Another server was first.
    drop(tx);
    store.read_catalogue(0).await?.ok_or_else(|| Error::internal("the catalogue vanished"))
}

/// Reads a file that is to be put in force.
///
/// # Errors
/// `CatalogueInvalid`.
pub(super) fn read(text: &str, methods: &[&str]) -> Result<Definition, Error> {
    let invalid = |problems: Vec<Problem>| {
        let violation = |problem: Problem| {
            let field = if problem.line == 0 { "toml".to_owned() } else { format!("line {}", problem.line) };
            Violation { field, description: problem.reason }
        };
        Error::CatalogueInvalid(problems.into_iter().map(violation).collect())
    };
    let definition = Definition::parse(text).map_err(invalid)?;
    let unknown = definition.rpc_rates.iter().find(|rate| !methods.contains(&rate.method.as_str()));
    if let Some(rate) = unknown {
        let reason = format!("rpc_rates: there is no method {:?}", rate.method);
        return Err(invalid(vec![Problem { line: 0, reason }]));
    }
    Ok(definition)
}

/// The catalogue that follows: plans that are new or changed get a version.
pub(super) fn successor(before: Option<&Catalogue>, definition: Definition) -> Catalogue {
    let mut versions = before.map(|before| before.versions.clone()).unwrap_or_default();
    for (name, plan) in &definition.plans {
        let newest = versions.iter().rfind(|(of, _)| of.plan == *name).map(|(of, plan)| (of.version, plan.clone()));
        let version = match newest {
            Some((_, same)) if same == *plan => continue,
            Some((version, _)) => version + 1,
            None => 1,
        };
        versions.insert(PlanRef { plan: name.clone(), version }, plan.clone());
    }
    Catalogue { version: before.map_or(1, |before| before.version + 1), definition, versions }
}

/// The versions of plans that a catalogue adds to the one before.
pub(super) fn new_plans(before: Option<&Catalogue>, after: &Catalogue) -> Vec<(PlanRef, Plan)> {
    let known = |of: &PlanRef| before.is_some_and(|before| before.versions.contains_key(of));
    after.versions.iter().filter(|(of, _)| !known(of)).map(|(of, plan)| (of.clone(), plan.clone())).collect()
}

/// What a catalogue changes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Applied {
    /// The version in force afterwards, or that it would get.
    pub version: i64,
    /// What differs.
    pub changes: Vec<Difference>,
    /// Plans whose content changes.
    pub plans: Vec<PlanImpact>,
    /// Roles that it lacks and that members have.
    pub roles_in_use: Vec<String>,
}

/// What a change of a plan means.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanImpact {
    /// Which.
    pub plan: String,
    /// The version that it gets; 0 when it is gone.
    pub new_version: i64,
    /// How many tenants are on any version of it.
    pub tenants: i64,
    /// Tenants that use more than the new version allows; the first hundred.
    pub over_limit: Vec<(TenantId, Excess)>,
    /// How many there are.
    pub over_limit_tenants: i64,
}

/// How many tenants over a limit are named.
const NAMED: usize = 100;

impl App {
    /// Puts a catalogue in force, or says what it would change. `methods` are the methods that there are.
    ///
    /// # Errors
    /// `CatalogueInvalid`, `FieldsInvalid` when members have roles that it lacks, `EtagMismatch` when another one was put in
    /// force meanwhile.
    pub async fn apply_catalogue(
        &self,
        ctx: &Ctx,
        text: &str,
        methods: &[&str],
        (validate_only, migrate_tenants): (bool, bool),
        key: Option<RequestKey>,
    ) -> Result<Applied, Error> {
        let definition = read(text, methods)?;
        let before = self.plane.catalogues.newest(&self.store).await?;
        let changes = differences(&before.definition, &definition);
        let after = successor(Some(&before), definition);
        let mut applied = Applied { version: before.version, changes, ..Applied::default() };
        if !applied.changes.is_empty() {
            applied.version = after.version;
            applied.plans = self.impacts(ctx, &before, &after).await?;
            let in_use = self.store.list_roles_in_use().await?;
            applied.roles_in_use = orphaned(&before.definition, &after.definition, in_use);
        }
        if validate_only {
            return Ok(applied);
        }
        if !applied.roles_in_use.is_empty() {
            let roles = applied.roles_in_use.join(", ");
            return Err(Error::field("toml", lacks(&roles)));
        }
        // Bound to the operator's key, whose answer it is.
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let mut open = match self.begin(ctx, None, scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let newest = catalogue::newest(&mut open.tx).await?;
        if newest.as_ref().is_none_or(|row| row.version != before.version) {
            return Err(Error::EtagMismatch);
        }
        let same = newest.is_some_and(|row| row.body == text);
        if !same {
            let plans = new_plans(Some(&before), &after);
            applied.version = after.version;
            if !catalogue::insert(&mut open.tx, after.version, text, &plans, ctx.now).await? {
                return Err(Error::EtagMismatch);
            }
        }
        // Also tenants that an earlier catalogue left on an older version.
        for plan in after.definition.plans.keys().filter(|_| migrate_tenants) {
            jobs::schedule(&mut open.tx, JobKind::MigratePlan, plan_id(plan), Some(ctx.now)).await?;
        }
        let audit = Audit::default()
            .set("version", applied.version)
            .set("changes", applied.changes.len())
            .set("migrate_tenants", migrate_tenants)
            .set("digest", hex(&sha256(text.as_bytes())[..8]));
        let applied = self.finish(open, ctx, audit, applied).await?;
        self.plane.catalogues.newest(&self.store).await?;
        Ok(applied)
    }

    /// What changed plans mean for the tenants on them.
    async fn impacts(&self, ctx: &Ctx, before: &Catalogue, after: &Catalogue) -> Result<Vec<PlanImpact>, Error> {
        let mut impacts = Vec::new();
        for (name, plan) in &before.definition.plans {
            let newer = after.newest(name);
            if newer.as_ref().is_some_and(|(_, newer)| *newer == plan) {
                continue;
            }
            let mut impact = PlanImpact {
                plan: name.clone(),
                new_version: newer.as_ref().map_or(0, |(of, _)| of.version),
                tenants: self.store.count_tenants_on(name).await?,
                over_limit: Vec::new(),
                over_limit_tenants: 0,
            };
            if let Some((of, _)) = newer.filter(|_| impact.tenants > 0) {
                let over = self.over_limit(ctx, name, after, &of).await?;
                let tenants: BTreeSet<TenantId> = over.iter().map(|(tenant, _)| *tenant).collect();
                impact.over_limit_tenants = i64::try_from(tenants.len()).unwrap_or(i64::MAX);
                impact.over_limit = over.into_iter().take(NAMED).collect();
            }
            impacts.push(impact);
        }
        Ok(impacts)
    }

    /// Tenants on a plan that use more than a version of it allows, overrides considered.
    async fn over_limit(
        &self,
        ctx: &Ctx,
        plan: &str,
        after: &Catalogue,
        of: &PlanRef,
    ) -> Result<Vec<(TenantId, Excess)>, Error> {
        let mut over = Vec::new();
        let period = Period::month_of(ctx.now);
        let counted = after.definition.metrics.iter().filter(|(_, metric)| metric.is_counted());
        for metric in counted.map(|(name, _)| name.as_str()).chain([MEMBERS]) {
            let Some(limit) = after.limit(of, metric).map(|limit| limit.limit) else { continue };
            let found = if metric == MEMBERS {
                self.store.list_over_seats(plan, limit, ctx.now).await?
            } else {
                self.store.list_over_limit(plan, (metric, limit), period, ctx.now).await?
            };
            let excess = |used| Excess { metric: metric.to_owned(), used, limit };
            over.extend(found.into_iter().map(|(tenant, used)| (tenant, excess(used))));
        }
        Ok(over)
    }

    /// Moves the tenants on older versions of a plan to the newest, one by one. What a period costs is the newest price from
    /// the next period on.
    pub(super) async fn migrate_plan(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let name = catalogue.definition.plans.keys().find(|name| plan_id(name) == job.subject);
        let Some((of, plan)) = name.and_then(|name| catalogue.newest(name)) else { return self.end_job(job).await };
        loop {
            let tenants = self.store.list_tenants_before(&of).await?;
            if tenants.is_empty() {
                return self.end_job(job).await;
            }
            for tenant in tenants {
                let mut tx = self.store.write(InTenant(tenant)).await?;
                let before = self.lock_settled(&mut tx, ctx, &catalogue).await?;
                let now_on = &before.subscription.of;
                if now_on.plan != of.plan || now_on.version >= of.version {
                    // It has left the plan meanwhile, or was moved: what time has brought is all there is to write.
                    tx.commit_unaudited(ctx.now).await?;
                    continue;
                }
                let mut after = before.clone();
                after.subscription.move_to(&of, plan);
                let audit = self.write_tenant(&mut tx, ctx, &catalogue, (&before, &mut after)).await?;
                tx.commit(ctx, audit).await?;
            }
        }
    }

    /// The catalogue in force, with the file and when it was applied.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn get_catalogue(&self) -> Result<(Arc<Catalogue>, CatalogueRow), Error> {
        let mut tx = self.store.read(OnPlatform).await?;
        let row = catalogue::newest(&mut tx).await?.ok_or_else(|| Error::internal("there is no catalogue"))?;
        drop(tx);
        Ok((self.plane.catalogues.at(&self.store, row.version).await?, row))
    }

    /// The newest versions of public plans, cheapest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_plans(&self) -> Result<Vec<(PlanRef, Plan)>, Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let newest = catalogue.definition.plans.keys().filter_map(|name| catalogue.newest(name));
        let mut plans: Vec<(PlanRef, Plan)> =
            newest.filter(|(_, plan)| plan.public).map(|(of, plan)| (of, plan.clone())).collect();
        // What owners cannot choose themselves has its price by agreement: at the end.
        plans.sort_by_key(|(of, plan)| (!plan.self_service, plan.least_price(), of.plan.clone()));
        Ok(plans)
    }
}

/// Roles that members have and that a catalogue lacks. The top role before is one of them when it is the top no more: tenants
/// would be left without anybody at the top.
fn orphaned(before: &Definition, after: &Definition, in_use: Vec<RoleName>) -> Vec<String> {
    let was_top = &before.roles.top().name;
    let dethroned = |role: &RoleName| role == was_top && after.roles.top().name != *was_top;
    let lost = in_use.into_iter().filter(|role| after.roles.get(role).is_none() || dethroned(role));
    lost.map(|role| role.to_string()).collect()
}

fn lacks(roles: &str) -> String {
    format!("lacks roles that members have, or puts another at the top: {roles}; change their roles first")
}

/// An id for a plan's name, for the job that is about it.
fn plan_id(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256(name.as_bytes())[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
