//! Rows of the catalogue: every file that was put in force, and every version of a plan.

use std::collections::BTreeMap;

use super::scoped::{OnPlatform, Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use super::{Store, feed::Change};
use crate::domain::catalogue::{Catalogue, Definition};
use crate::domain::plan::{Plan, PlanRef};
use crate::domain::secret::sha256;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND_NEWEST: OfPlatform = Statement::new(
        "select version, body, applied_at
         from catalogue
         order by version desc
         limit 1",
    );
    NEWEST_VERSION: OfPlatform = Statement::new(
        "select max(version) as version
         from catalogue",
    );
    FIND_DIGEST: OfPlatform = Statement::new(
        "select version, body, applied_at
         from catalogue
         where digest = $1
         limit 1",
    );
    LIST_PLAN_VERSIONS: OfPlatform = Statement::new(
        "select plan, version, definition
         from plan_version
         where catalogue_version <= $1",
    );
    LIST_NEWEST_PLANS: OfPlatform = Statement::new(
        "select plan, max(version) as version
         from plan_version
         where catalogue_version <= $1
         group by plan
         order by plan",
    );
    INSERT: OfPlatform = Statement::new(
        "insert into catalogue (version, digest, body, applied_at)
         values ($1, $2, $3, $4)
         on conflict (version) do nothing",
    );
    INSERT_PLAN_VERSION: OfPlatform = Statement::new(
        "insert into plan_version (plan, version, definition, catalogue_version)
         values ($1, $2, $3, $4)",
    );
}

/// A catalogue as it is stored.
#[derive(sqlx::FromRow)]
pub struct CatalogueRow {
    /// From 1.
    pub version: i64,
    /// The file.
    pub body: String,
    /// When it was put in force.
    pub applied_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct VersionRow {
    version: Option<i64>,
}

#[derive(sqlx::FromRow)]
struct NewestRow {
    plan: String,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct PlanRow {
    plan: String,
    version: i64,
    definition: String,
}

impl Store {
    /// The catalogue in force; none when it is version `known`, or there is none.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; internal when what is kept cannot be read.
    pub async fn read_catalogue(&self, known: i64) -> Result<Option<Catalogue>, Error> {
        let mut tx = self.read(OnPlatform).await?;
        // Asked often, so not for the whole file.
        if newest_version(&mut tx).await? == known {
            return Ok(None);
        }
        match newest(&mut tx).await? {
            Some(row) => catalogue(&mut tx, &row).await.map(Some),
            None => Ok(None),
        }
    }

    /// The file in force.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn read_catalogue_file(&self) -> Result<Option<CatalogueRow>, Error> {
        newest(&mut self.read(OnPlatform).await?).await
    }

    /// The newest version of each plan that there was with a catalogue, also of plans that it no longer had.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_newest_plans(&self, version: i64) -> Result<Vec<PlanRef>, Error> {
        let rows: Vec<NewestRow> = self.read(OnPlatform).await?.all(&LIST_NEWEST_PLANS, &[version.into()]).await?;
        Ok(rows.into_iter().map(|row| PlanRef { plan: row.plan, version: row.version }).collect())
    }
}

/// The version of the catalogue in force; 0 when there is none.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn newest_version<S: Scope>(tx: &mut Scoped<S>) -> Result<i64, Error> {
    let row: Option<VersionRow> = tx.optional(&NEWEST_VERSION, &[]).await?;
    Ok(row.and_then(|row| row.version).unwrap_or(0))
}

/// The file in force.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn newest<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<CatalogueRow>, Error> {
    tx.optional(&FIND_NEWEST, &[]).await
}

/// Whether exactly this file was ever in force.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn was_applied<S: Scope>(tx: &mut Scoped<S>, body: &str) -> Result<bool, Error> {
    let digest = sha256(body.as_bytes());
    let row: Option<CatalogueRow> = tx.optional(&FIND_DIGEST, &[(&digest[..]).into()]).await?;
    Ok(row.is_some())
}

/// A stored file with the versions of plans that it knows.
///
/// # Errors
/// Internal when what is kept cannot be read.
pub async fn catalogue<S: Scope>(tx: &mut Scoped<S>, row: &CatalogueRow) -> Result<Catalogue, Error> {
    let unreadable = |what: String| Error::Internal(format!("the kept catalogue cannot be read: {what}").into());
    let definition = Definition::parse(&row.body)
        .map_err(|problems| unreadable(problems.first().map(ToString::to_string).unwrap_or_default()))?;
    let rows: Vec<PlanRow> = tx.all(&LIST_PLAN_VERSIONS, &[row.version.into()]).await?;
    let mut versions = BTreeMap::new();
    for row in rows {
        let plan: Plan = serde_json::from_str(&row.definition).map_err(|e| unreadable(e.to_string()))?;
        versions.insert(PlanRef { plan: row.plan, version: row.version }, plan);
    }
    Ok(Catalogue { version: row.version, definition, versions })
}

/// Puts a file in force, with the plans that are new or changed. False when another one came first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert<S: Scope>(
    tx: &mut Scoped<S>,
    version: i64,
    body: &str,
    plans: &[(PlanRef, Plan)],
    now: Timestamp,
) -> Result<bool, Error> {
    let digest = sha256(body.as_bytes());
    if tx.execute(&INSERT, &[version.into(), (&digest[..]).into(), body.into(), now.into()]).await? == 0 {
        return Ok(false);
    }
    for (of, plan) in plans {
        let json = serde_json::to_string(plan).map_err(|e| Error::Internal(e.to_string().into()))?;
        let args = [of.plan.as_str().into(), of.version.into(), json.as_str().into(), version.into()];
        tx.execute(&INSERT_PLAN_VERSION, &args).await?;
    }
    tx.changed(Change::Catalogue);
    Ok(true)
}
