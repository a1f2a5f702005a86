//! The catalogue: put in force at the start, and by operators.

use super::App;
use crate::domain::catalogue::{Catalogue, Definition, EXAMPLE, Problem};
use crate::domain::plan::{Plan, PlanRef};
use crate::error::{Error, Violation};
use crate::store::{OnPlatform, Store, catalogue};
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

impl App {}
