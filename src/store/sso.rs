//! Rows of single sign-on: the connection with a provider, whom its names stand for, and the states that were used.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::UserId;
use crate::domain::role::RoleName;
use crate::domain::sso::{SsoConnection, SsoRule, Terms};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND: OfTenant = Statement::new(
        "select connection_id, body, sealed, version, updated_at
         from sso_connection
         where tenant_id = $1",
    );
    FIND_RULE: OfTenant = Statement::new(
        "select connection_id, required
         from sso_connection
         where tenant_id = $1",
    );
    PUT: OfTenant = Statement::new(
        "insert into sso_connection (tenant_id, connection_id, body, sealed, required, version, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (tenant_id) do update
         set connection_id = excluded.connection_id, body = excluded.body, sealed = excluded.sealed,
             required = excluded.required, version = excluded.version, updated_at = excluded.updated_at
         where sso_connection.version = excluded.version - 1",
    );
    DELETE: OfTenant = Statement::new(
        "delete from sso_connection
         where tenant_id = $1",
    );
    USE_STATE: OfTenant = Statement::new(
        "insert into sso_state (tenant_id, digest, expires_at)
         values ($1, $2, $3)
         on conflict (tenant_id, digest) do nothing",
    );
    FORGET_STATES: OfTenant = Statement::new(
        "delete from sso_state
         where tenant_id = $1 and expires_at < $2",
    );
    DELETE_IDENTITIES: OfTenant = Statement::new(
        "delete from sso_identity
         where tenant_id = $1 and user_id = $2",
    );
    FIND_IDENTITY: OfTenant = Statement::new(
        "select user_id
         from sso_identity
         where tenant_id = $1 and issuer = $2 and subject = $3",
    );
    INSERT_IDENTITY: OfTenant = Statement::new(
        "insert into sso_identity (tenant_id, issuer, subject, user_id, created_at)
         values ($1, $2, $3, $4, $5)
         on conflict (tenant_id, issuer, subject) do nothing",
    );
}

#[derive(sqlx::FromRow)]
struct ConnectionRow {
    connection_id: Uuid,
    body: String,
    sealed: Option<Vec<u8>>,
    version: i64,
    updated_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct SsoRuleRow {
    connection_id: Uuid,
    required: i64,
}

impl From<SsoRuleRow> for SsoRule {
    fn from(row: SsoRuleRow) -> Self {
        Self { connection_id: row.connection_id, required: row.required == 1 }
    }
}

#[derive(sqlx::FromRow)]
struct IdentityRow {
    user_id: Uuid,
}

/// What is in the body of a connection's row.
#[derive(serde::Serialize, serde::Deserialize)]
struct Body {
    terms: Terms,
    highest_role: RoleName,
}

/// The connection with its sealed secret, if there is one.
///
/// # Errors
/// `DatabaseUnavailable`; internal when the row does not read.
pub async fn find<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<(SsoConnection, Option<Vec<u8>>)>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Some(row) = tx.optional::<ConnectionRow, _>(&FIND, &[]).await? else { return Ok(None) };
    let body: Body =
        serde_json::from_str(&row.body).map_err(|_| Error::internal("the row of a connection does not read"))?;
    let connection = SsoConnection {
        connection_id: row.connection_id,
        terms: body.terms,
        highest_role: body.highest_role,
        has_secret: row.sealed.is_some(),
        version: row.version,
        updated_at: row.updated_at,
    };
    Ok(Some((connection, row.sealed)))
}

/// What the connection means for who enters.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_rule<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<SsoRule>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<SsoRuleRow> = tx.optional(&FIND_RULE, &[]).await?;
    Ok(row.map(SsoRule::from))
}

/// Writes the connection over the version before, which was read under the tenant's lock.
///
/// # Errors
/// `EtagMismatch` when the row is another one by now.
pub async fn put(tx: &mut TenantTx, after: &SsoConnection, sealed: Option<&[u8]>) -> Result<(), Error> {
    let body = Body { terms: after.terms.clone(), highest_role: after.highest_role.clone() };
    let body = serde_json::to_string(&body).map_err(|e| Error::Internal(e.to_string().into()))?;
    let args = [
        after.connection_id.into(),
        body.as_str().into(),
        sealed.into(),
        i64::from(after.terms.required).into(),
        after.version.into(),
        after.updated_at.into(),
    ];
    if tx.execute(&PUT, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    note(tx);
    Ok(())
}

/// Removes the connection and its secret.
///
/// # Errors
/// `SsoNotConfigured` when there is none.
pub async fn delete(tx: &mut TenantTx) -> Result<(), Error> {
    if tx.execute(&DELETE, &[]).await? == 0 {
        return Err(Error::SsoNotConfigured);
    }
    note(tx);
    Ok(())
}

/// Marks a state as used; whether it had not been. Those that are over are forgotten.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn use_state(tx: &mut TenantTx, digest: &[u8], expires_at: Timestamp, now: Timestamp) -> Result<bool, Error> {
    tx.execute(&FORGET_STATES, &[now.into()]).await?;
    Ok(tx.execute(&USE_STATE, &[digest.into(), expires_at.into()]).await? == 1)
}

/// Whom a provider's name for somebody stands for.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_identity<S: Scope>(tx: &mut Scoped<S>, issuer: &str, subject: &str) -> Result<Option<UserId>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<IdentityRow> = tx.optional(&FIND_IDENTITY, &[issuer.into(), subject.into()]).await?;
    Ok(row.map(|row| UserId(row.user_id)))
}

/// Keeps whom a provider's name stands for.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_identity<S: Scope>(
    tx: &mut Scoped<S>,
    (issuer, subject): (&str, &str),
    user: UserId,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [issuer.into(), subject.into(), user.0.into(), now.into()];
    tx.execute(&INSERT_IDENTITY, &args).await.map(|_| ())
}

/// Who may enter has changed, for all members at once.
fn note(tx: &mut TenantTx) {
    let tenant = tx.scope().0;
    tx.changed(Change::Tenant(tenant));
}

/// Forgets by which names providers know a person.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_identities(tx: &mut TenantTx, user: UserId) -> Result<(), Error> {
    tx.execute(&DELETE_IDENTITIES, &[user.0.into()]).await.map(|_| ())
}
