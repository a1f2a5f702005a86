//! The catalogue: put in force at the start, and by operators; shown, and its price list. Plans that change get a new
//! version, and tenants keep theirs until they are moved (`catalogue/migrate.rs`).

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::Ctx;
use crate::domain::catalogue::{Catalogue, CatalogueChange, Definition, EXAMPLE, Problem};
use crate::domain::id::UserId;
use crate::domain::plan::{Plan, PlanRef};
use crate::domain::secret::{hex, sha256};
use crate::error::{Error, Violation};
use crate::store::audit::Audit;
use crate::store::jobs::{self, JobKind};
use crate::store::{AsUser, OnPlatform, Store, catalogue};
use crate::time::Timestamp;

mod impact;
mod migrate;

pub use impact::{OverLimit, PlanImpact};

/// A catalogue that is asked to be put in force.
pub struct NewCatalogue<'a> {
    /// The file.
    pub toml: &'a str,
    /// The methods that rates may be about.
    pub methods: &'a [&'a str],
    /// Whether tenants move to the new versions of their plans.
    pub migrate_tenants: bool,
}

/// What a catalogue changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// The version in force afterwards.
    pub version: i64,
    /// What differs from the one before.
    pub changes: Vec<CatalogueChange>,
    /// Plans whose content changes, with the tenants on them.
    pub plans: Vec<PlanImpact>,
    /// Roles that members have and the new catalogue lacks.
    pub roles_in_use: Vec<String>,
}

/// Finds the catalogue in force. An empty database gets the one that is given, or the example. Later a given file is put in
/// force when exactly it never was: so a server that is started with an older file does not bring that back.
///
/// # Errors
/// `CatalogueInvalid`; `FieldsInvalid` when members have roles that the given file lacks; `DatabaseUnavailable`.
pub async fn at_start(
    store: &Store,
    given: Option<&str>,
    methods: &[&str],
    now: Timestamp,
) -> Result<Catalogue, Error> {
    let before = store.read_catalogue(0).await?;
    let text = match (&before, given) {
        (None, given) => given.unwrap_or(EXAMPLE),
        (Some(_), Some(given)) if !catalogue::was_applied(&mut store.read(OnPlatform).await?, given).await? => given,
        (Some(_), _) => return before.ok_or_else(|| Error::internal("the catalogue vanished")),
    };
    let definition = read(text, methods)?;
    refuse_roles(&roles_in_use(store, before.as_ref(), &definition).await?)?;
    let after = successor(before.as_ref(), definition);
    let mut tx = store.write(OnPlatform).await?;
    if catalogue::insert(&mut tx, after.version, text, &new_plans(before.as_ref(), &after), now).await? {
        tx.commit_unaudited(now).await?;
        return Ok(after);
    }
    // Another server was first.
    drop(tx);
    store.read_catalogue(0).await?.ok_or_else(|| Error::internal("the catalogue vanished"))
}

impl App {
    /// What putting a file in force would change.
    ///
    /// # Errors
    /// `CatalogueInvalid`.
    pub async fn preview_catalogue(&self, ctx: &Ctx, new: &NewCatalogue<'_>) -> Result<Applied, Error> {
        let (before, after) = self.next_catalogue(new).await?;
        // It names tenants.
        self.note_operator_read(ctx, None).await?;
        self.impact(ctx, &before, &after).await
    }

    /// Puts a file in force, all of it or nothing. The same file again changes nothing.
    ///
    /// # Errors
    /// `CatalogueInvalid`; `FieldsInvalid` when members have roles that the file lacks; `EtagMismatch` when another
    /// catalogue was put in force meanwhile, which this one has not been compared with.
    pub async fn apply_catalogue(
        &self,
        ctx: &Ctx,
        new: &NewCatalogue<'_>,
        key: Option<RequestKey>,
    ) -> Result<Applied, Error> {
        let (before, after) = self.next_catalogue(new).await?;
        // Before the transaction, which must not wait for reads across all tenants.
        let applied = self.impact(ctx, &before, &after).await?;
        // Bound to the operator's key, whose answer it is.
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let mut open = match self.begin(ctx, None, scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        refuse_roles(&applied.roles_in_use)?;
        if catalogue::newest_version(&mut open.tx).await? != before.version {
            return Err(Error::EtagMismatch);
        }
        if after.version != before.version {
            let plans = new_plans(Some(&before), &after);
            if !catalogue::insert(&mut open.tx, after.version, new.toml, &plans, ctx.now).await? {
                return Err(Error::EtagMismatch);
            }
        }
        if new.migrate_tenants {
            let subject = migrate::subject(after.version);
            jobs::schedule(&mut open.tx, JobKind::MigratePlan, subject, Some(ctx.now)).await?;
        }
        let audit = Audit::default()
            .field("version", before.version, after.version)
            .set("digest", hex(&sha256(new.toml.as_bytes())))
            .set("changes", applied.changes.len())
            .set("migrate_tenants", new.migrate_tenants);
        let applied = self.finish(open, ctx, audit, applied).await?;
        // Rates of methods go by the catalogue that was last seen.
        self.plane.catalogues.newest(&self.store).await?;
        Ok(applied)
    }

    /// The catalogue in force, and the one that a file would make of it: the same when it is the same file.
    async fn next_catalogue(&self, new: &NewCatalogue<'_>) -> Result<(Catalogue, Catalogue), Error> {
        let definition = read(new.toml, new.methods)?;
        let before = self.store.read_catalogue(0).await?.ok_or_else(|| Error::internal("there is no catalogue"))?;
        let file = self.store.read_catalogue_file().await?;
        if file.is_some_and(|file| file.version == before.version && file.body == new.toml) {
            return Ok((before.clone(), before));
        }
        let after = successor(Some(&before), definition);
        Ok((before, after))
    }

    /// The catalogue in force with its file, and when that was put in force.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn get_catalogue(&self) -> Result<(Catalogue, String, Timestamp), Error> {
        let mut tx = self.store.read(OnPlatform).await?;
        let row = catalogue::newest(&mut tx).await?.ok_or_else(|| Error::internal("there is no catalogue"))?;
        Ok((catalogue::catalogue(&mut tx, &row).await?, row.body, row.applied_at))
    }

    /// The newest versions of the plans that are public, cheapest first; those whose price is to be asked for last.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_plans(&self) -> Result<Vec<(PlanRef, Plan)>, Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let newest = catalogue.definition.plans.keys().filter_map(|name| catalogue.newest(name));
        let mut plans: Vec<(PlanRef, Plan)> =
            newest.filter(|(_, plan)| plan.public).map(|(of, plan)| (of, plan.clone())).collect();
        plans.sort_by_key(|(of, plan)| {
            let on_request = plan.shortest_cycle().is_none() && !plan.self_service;
            (on_request, plan.least_price(), of.plan.clone())
        });
        Ok(plans)
    }
}

/// Reads a file that is to be put in force.
///
/// # Errors
/// `CatalogueInvalid`.
fn read(text: &str, methods: &[&str]) -> Result<Definition, Error> {
    Definition::parse_new(text, methods).map_err(invalid)
}

/// The refusal of a file. It travels in headers, of which clients take 16 KiB, so what does not fit is only counted.
fn invalid(problems: Vec<Problem>) -> Error {
    const ROOM: usize = 3000;
    let count = problems.len();
    let mut violations: Vec<Violation> = Vec::new();
    let mut size = 0;
    for problem in problems {
        let field = if problem.line == 0 { "toml".to_owned() } else { format!("line {}", problem.line) };
        let violation = Violation { field, description: problem.to_string() };
        size += violation.field.len() + violation.description.len();
        if size > ROOM || violations.len() == 19 {
            let more = format!("has {} more problems; `tenantry catalogue check` shows all", count - violations.len());
            violations.push(Violation { field: "toml".to_owned(), description: more });
            break;
        }
        violations.push(violation);
    }
    Error::CatalogueInvalid(violations)
}

/// Roles that members have and a catalogue lacks. The top role before is one of them when another one is the top now: tenants
/// would be left without anybody in it. One who gets such a role at this very moment is found with no permission at all, so
/// nothing opens.
async fn roles_in_use(store: &Store, before: Option<&Catalogue>, after: &Definition) -> Result<Vec<String>, Error> {
    let Some(before) = before.map(|before| &before.definition.roles) else { return Ok(Vec::new()) };
    let dethroned = after.roles.top().name != before.top().name;
    let top = &after.roles.top().name;
    // Nor does a role that members have, or that a tenant made for itself, become the top under their hands.
    let moved = |name: &str| name == before.top().name.as_str() || name == top.as_str();
    let lost = |name: &str| after.roles.parse(name).is_err() || (dethroned && moved(name));
    if !dethroned && !before.descending().any(|role| lost(role.name.as_str())) {
        return Ok(Vec::new());
    }
    let mut used = store.list_roles_in_use(top).await?;
    used.retain(|name| lost(name));
    Ok(used)
}

fn refuse_roles(roles: &[String]) -> Result<(), Error> {
    if roles.is_empty() {
        return Ok(());
    }
    let some: Vec<&str> = roles.iter().take(20).map(String::as_str).collect();
    let reason = format!(
        "lacks roles that members have, or puts another one at the top: {}; give these members other roles first",
        some.join(", ")
    );
    Err(Error::field("toml", reason))
}

/// The catalogue that follows: plans that are new or changed get a version.
fn successor(before: Option<&Catalogue>, definition: Definition) -> Catalogue {
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
fn new_plans(before: Option<&Catalogue>, after: &Catalogue) -> Vec<(PlanRef, Plan)> {
    let known = |of: &PlanRef| before.is_some_and(|before| before.versions.contains_key(of));
    after.versions.iter().filter(|(of, _)| !known(of)).map(|(of, plan)| (of.clone(), plan.clone())).collect()
}
