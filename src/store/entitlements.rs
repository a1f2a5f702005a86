//! Rows of overrides and switches: what a tenant may use besides, or instead of, what its plan says.

use std::collections::HashMap;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::entitlement::{FeatureSwitch, LimitOverride, Source};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND_LIMIT: OfTenant = Statement::new(
        "select limit_value, expires_at
         from limit_override
         where tenant_id = $1 and metric = $2",
    );
    LIST_LIMITS: OfTenant = Statement::new(
        "select metric, limit_value, expires_at, reason, updated_at
         from limit_override
         where tenant_id = $1
         order by metric",
    );
    PUT_LIMIT: OfTenant = Statement::new(
        "insert into limit_override (tenant_id, metric, limit_value, expires_at, reason, updated_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, metric) do update
         set limit_value = excluded.limit_value, expires_at = excluded.expires_at, reason = excluded.reason,
             updated_at = excluded.updated_at",
    );
    DELETE_LIMIT: OfTenant = Statement::new(
        "delete from limit_override
         where tenant_id = $1 and metric = $2",
    );
    LIST_FEATURES: OfTenant = Statement::new(
        "select feature, source, enabled, expires_at, updated_at
         from feature_switch
         where tenant_id = $1
         order by feature, source",
    );
    PUT_FEATURE: OfTenant = Statement::new(
        "insert into feature_switch (tenant_id, feature, source, enabled, expires_at, updated_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, feature, source) do update
         set enabled = excluded.enabled, expires_at = excluded.expires_at, updated_at = excluded.updated_at",
    );
    DELETE_FEATURE: OfTenant = Statement::new(
        "delete from feature_switch
         where tenant_id = $1 and feature = $2 and source = $3",
    );
}

#[derive(sqlx::FromRow)]
struct LimitRow {
    limit_value: Option<i64>,
    expires_at: Option<Timestamp>,
}

/// An override of a limit as it is written, also when it is over.
#[derive(Debug, sqlx::FromRow)]
pub struct LimitOverrideRow {
    /// The metric.
    pub metric: String,
    /// How much; none is unlimited.
    pub limit_value: Option<i64>,
    /// When it ends; none is never.
    pub expires_at: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// When it was given.
    pub updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct SwitchRow {
    feature: String,
    source: i64,
    enabled: i64,
    expires_at: Option<Timestamp>,
    updated_at: Timestamp,
}

/// A switch of a feature as it is written, also when it is over.
#[derive(Debug, Clone)]
pub struct FeatureSwitchRow {
    /// The feature.
    pub feature: String,
    /// The switch.
    pub switch: FeatureSwitch,
    /// When it was set.
    pub updated_at: Timestamp,
}

/// The number of a source; as in entitlement.proto.
const fn source_number(source: Source) -> i64 {
    match source {
        Source::Plan => 1,
        Source::Override => 2,
        Source::Tenant => 3,
    }
}

/// The override of a metric's limit that holds at `now`.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_limit<S: Scope>(
    tx: &mut Scoped<S>,
    metric: &str,
    now: Timestamp,
) -> Result<Option<LimitOverride>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<LimitRow> = tx.optional(&FIND_LIMIT, &[metric.into()]).await?;
    let own = row.map(|row| LimitOverride { limit: row.limit_value, expires_at: row.expires_at });
    Ok(own.filter(|own| own.holds(now)))
}

/// All overrides of limits, by metric; also those that are over.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_limits<S: Scope>(tx: &mut Scoped<S>) -> Result<Vec<LimitOverrideRow>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.all(&LIST_LIMITS, &[]).await
}

/// Writes the override of a metric's limit, in the place of one that was there; none takes it away.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_limit<S: Scope>(
    tx: &mut Scoped<S>,
    metric: &str,
    own: Option<&LimitOverride>,
    reason: &str,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let metric = metric.into();
    match own {
        Some(own) => {
            tx.execute(&PUT_LIMIT, &[metric, own.limit.into(), own.expires_at.into(), reason.into(), now.into()])
                .await?
        }
        None => tx.execute(&DELETE_LIMIT, &[metric]).await?,
    };
    note(tx);
    Ok(())
}

/// All switches of features, by feature; also those that are over.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_features<S: Scope>(tx: &mut Scoped<S>) -> Result<Vec<FeatureSwitchRow>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let rows: Vec<SwitchRow> = tx.all(&LIST_FEATURES, &[]).await?;
    let switch = |row: SwitchRow| FeatureSwitchRow {
        feature: row.feature,
        switch: FeatureSwitch {
            source: if row.source == source_number(Source::Override) { Source::Override } else { Source::Tenant },
            enabled: row.enabled != 0,
            expires_at: row.expires_at,
        },
        updated_at: row.updated_at,
    };
    Ok(rows.into_iter().map(switch).collect())
}

/// The switches of all features, by feature; also those that are over.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn switches<S: Scope>(tx: &mut Scoped<S>) -> Result<HashMap<String, Vec<FeatureSwitch>>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let mut by_feature: HashMap<String, Vec<FeatureSwitch>> = HashMap::new();
    for row in list_features(tx).await? {
        by_feature.entry(row.feature).or_default().push(row.switch);
    }
    Ok(by_feature)
}

/// Writes a switch in the place of the one of its source that was there.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_feature<S: Scope>(
    tx: &mut Scoped<S>,
    feature: &str,
    switch: &FeatureSwitch,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [
        feature.into(),
        source_number(switch.source).into(),
        i64::from(switch.enabled).into(),
        switch.expires_at.into(),
        now.into(),
    ];
    tx.execute(&PUT_FEATURE, &args).await?;
    note(tx);
    Ok(())
}

/// Takes the switch of a source away.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn remove_feature<S: Scope>(tx: &mut Scoped<S>, feature: &str, source: Source) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.execute(&DELETE_FEATURE, &[feature.into(), source_number(source).into()]).await?;
    note(tx);
    Ok(())
}

fn note<S: Scope>(tx: &mut Scoped<S>) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Tenant(tenant));
    }
}
