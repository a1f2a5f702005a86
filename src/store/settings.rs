//! Rows of settings and of integrations.

use serde_json::{Map, Value as Json};

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::integration::Integration;
use crate::domain::settings::Settings;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND: OfTenant = Statement::new(
        "select body, version
         from tenant_settings
         where tenant_id = $1",
    );
    PUT: OfTenant = Statement::new(
        "insert into tenant_settings (tenant_id, body, version, updated_at)
         values ($1, $2, $3, $4)
         on conflict (tenant_id) do update
         set body = excluded.body, version = excluded.version, updated_at = excluded.updated_at
         where tenant_settings.version = excluded.version - 1",
    );
    FIND_INTEGRATION: OfTenant = Statement::new(
        "select name, config, cast(case when sealed is null then 0 else 1 end as bigint) as has_secret,
                secret_updated_at, version, updated_at
         from integration
         where tenant_id = $1 and name = $2",
    );
    LIST_INTEGRATIONS: OfTenant = Statement::new(
        "select name, config, cast(case when sealed is null then 0 else 1 end as bigint) as has_secret,
                secret_updated_at, version, updated_at
         from integration
         where tenant_id = $1
         order by name
         limit $2",
    );
    COUNT_INTEGRATIONS: OfTenant = Statement::new(
        "select count(*) as integrations
         from integration
         where tenant_id = $1",
    );
    PUT_INTEGRATION: OfTenant = Statement::new(
        "insert into integration (tenant_id, name, config, secret_updated_at, version, updated_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, name) do update
         set config = excluded.config, secret_updated_at = excluded.secret_updated_at, version = excluded.version,
             updated_at = excluded.updated_at
         where integration.version = excluded.version - 1",
    );
    SEAL_INTEGRATION: OfTenant = Statement::new(
        "update integration
         set sealed = $3
         where tenant_id = $1 and name = $2",
    );
    DELETE_INTEGRATION: OfTenant = Statement::new(
        "delete from integration
         where tenant_id = $1 and name = $2",
    );
}

#[derive(sqlx::FromRow)]
struct SettingsRow {
    body: String,
    version: i64,
}

#[derive(sqlx::FromRow)]
struct IntegrationRow {
    name: String,
    config: String,
    has_secret: i64,
    secret_updated_at: Option<Timestamp>,
    version: i64,
    updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct Count {
    integrations: i64,
}

impl TryFrom<IntegrationRow> for Integration {
    type Error = Error;

    fn try_from(row: IntegrationRow) -> Result<Self, Error> {
        let config: Map<String, Json> = serde_json::from_str(&row.config)
            .map_err(|_| Error::internal("an integration's row holds no JSON object"))?;
        Ok(Self {
            name: row.name,
            config,
            has_secret: row.has_secret == 1,
            secret_updated_at: row.secret_updated_at,
            version: row.version,
            updated_at: row.updated_at,
        })
    }
}

/// What the tenant has set itself, with its version; nothing and version 0 when it never has.
///
/// # Errors
/// `DatabaseUnavailable`; internal when the row does not read.
pub async fn find<S: Scope>(tx: &mut Scoped<S>) -> Result<(Settings, i64), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Some(row) = tx.optional::<SettingsRow, _>(&FIND, &[]).await? else { return Ok((Settings::default(), 0)) };
    let own =
        serde_json::from_str(&row.body).map_err(|_| Error::internal("a tenant's row of settings does not read"))?;
    Ok((own, row.version))
}

/// Writes what the tenant has set itself as this version, 1 for the first, over the one before, which was read under the
/// tenant's lock.
///
/// # Errors
/// `EtagMismatch` when the row is another one by now.
pub async fn put<S: Scope>(tx: &mut Scoped<S>, own: &Settings, version: i64, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let body = serde_json::to_string(own).map_err(|e| Error::Internal(e.to_string().into()))?;
    if tx.execute(&PUT, &[body.as_str().into(), version.into(), now.into()]).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    note(tx);
    Ok(())
}

/// An integration of the tenant.
///
/// # Errors
/// `DatabaseUnavailable`; internal when the row does not read.
pub async fn find_integration(tx: &mut TenantTx, name: &str) -> Result<Option<Integration>, Error> {
    let row: Option<IntegrationRow> = tx.optional(&FIND_INTEGRATION, &[name.into()]).await?;
    row.map(Integration::try_from).transpose()
}

/// The integrations of the tenant, by name.
///
/// # Errors
/// `DatabaseUnavailable`; internal when a row does not read.
pub async fn list_integrations(tx: &mut TenantTx, limit: i64) -> Result<Vec<Integration>, Error> {
    let rows: Vec<IntegrationRow> = tx.all(&LIST_INTEGRATIONS, &[limit.into()]).await?;
    rows.into_iter().map(Integration::try_from).collect()
}

/// How many integrations the tenant has. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_integrations(tx: &mut TenantTx) -> Result<i64, Error> {
    Ok(tx.optional::<Count, _>(&COUNT_INTEGRATIONS, &[]).await?.map_or(0, |row| row.integrations))
}

/// Writes an integration over the version before, which was read under the tenant's lock. Its secret stays as it is.
///
/// # Errors
/// `EtagMismatch` when the row is another one by now.
pub async fn put_integration(tx: &mut TenantTx, integration: &Integration) -> Result<(), Error> {
    let config = serde_json::to_string(&integration.config).map_err(|e| Error::Internal(e.to_string().into()))?;
    let args = [
        integration.name.as_str().into(),
        config.as_str().into(),
        integration.secret_updated_at.into(),
        integration.version.into(),
        integration.updated_at.into(),
    ];
    if tx.execute(&PUT_INTEGRATION, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    note(tx);
    Ok(())
}

/// Writes an integration's secret, sealed; none forgets it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn seal_integration(tx: &mut TenantTx, name: &str, sealed: Option<&[u8]>) -> Result<(), Error> {
    tx.execute(&SEAL_INTEGRATION, &[name.into(), sealed.into()]).await.map(|_| ())
}

/// Deletes an integration with its secret.
///
/// # Errors
/// `IntegrationNotFound`.
pub async fn delete_integration(tx: &mut TenantTx, name: &str) -> Result<(), Error> {
    if tx.execute(&DELETE_INTEGRATION, &[name.into()]).await? == 0 {
        return Err(Error::IntegrationNotFound);
    }
    note(tx);
    Ok(())
}

/// Settings and integrations are part of what is kept of a tenant.
fn note<S: Scope>(tx: &mut Scoped<S>) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Tenant(tenant));
    }
}
