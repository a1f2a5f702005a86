//! Rows of API keys: those of tenants and of their members. Who holds one is found in `system`, before a tenant is known.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::api_key::ApiKey;
use crate::domain::id::{ApiKeyId, MembershipId, TenantId, UserId};
use crate::domain::role::Permissions;
use crate::domain::secret::KeyKind;
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of a key, but its digests.
macro_rules! api_key_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "tenant_id, ",
            $prefix,
            "api_key_id, ",
            $prefix,
            "kind, ",
            $prefix,
            "key_id, ",
            $prefix,
            "last4, ",
            $prefix,
            "user_id, ",
            $prefix,
            "membership_id, ",
            $prefix,
            "display_name, ",
            $prefix,
            "permissions, ",
            $prefix,
            "aal, ",
            $prefix,
            "sso_connection_id, ",
            $prefix,
            "created_by, ",
            $prefix,
            "version, ",
            $prefix,
            "created_at, ",
            $prefix,
            "updated_at, ",
            $prefix,
            "expires_at, ",
            $prefix,
            "revoked_at, ",
            $prefix,
            "last_used_at, ",
            $prefix,
            "old_ends_at"
        )
    };
}
pub(super) use api_key_columns;

statements! {
    FIND_ANY: OfTenant = Statement::new(
        "select api_key_id
         from api_key
         where tenant_id = $1 and api_key_id = $2",
    );
    INSERT: OfTenant = Statement::new(
        "insert into api_key (tenant_id, api_key_id, kind, key_id, digest, last4, user_id, membership_id, display_name,
                              permissions, aal, created_by, version, created_at, updated_at, expires_at,
                              sso_connection_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $15, $16)",
    );
    FIND: OfTenant = Statement::new(concat!(
        "select ",
        api_key_columns!(""),
        " from api_key
         where tenant_id = $1 and api_key_id = $2",
    ));
    /// Keys that are not revoked, of one kind and one stay, or of every.
    LIST: OfTenant = Statement::new(concat!(
        "select ",
        api_key_columns!(""),
        " from api_key
         where tenant_id = $1 and api_key_id > $2 and revoked_at is null and ($3 = 0 or kind = $3)
           and (membership_id = $4 or $4 is null)
         order by api_key_id
         limit $5",
    ));
    COUNT: OfTenant = Statement::new(
        "select count(*) as keys
         from api_key
         where tenant_id = $1 and revoked_at is null and kind = $2 and (membership_id = $3 or $3 is null)",
    );
    RENAME: OfTenant = Statement::new(
        "update api_key
         set display_name = $3, version = version + 1, updated_at = $4
         where tenant_id = $1 and api_key_id = $2 and version = $5",
    );
    ROTATE: OfTenant = Statement::new(
        "update api_key
         set old_digest = digest, old_ends_at = $5, digest = $3, last4 = $4, version = version + 1, updated_at = $6
         where tenant_id = $1 and api_key_id = $2 and version = $7 and revoked_at is null",
    );
    REVOKE: OfTenant = Statement::new(
        "update api_key
         set revoked_at = $3, version = version + 1, updated_at = $3
         where tenant_id = $1 and api_key_id = $2 and revoked_at is null",
    );
    REVOKE_OF_USER: OfTenant = Statement::new(
        "update api_key
         set revoked_at = $3, version = version + 1, updated_at = $3
         where tenant_id = $1 and user_id = $2 and revoked_at is null
         returning api_key_id, key_id",
    );
    USED: OfTenant = Statement::new(
        "update api_key
         set last_used_at = $3
         where tenant_id = $1 and api_key_id = $2 and (last_used_at is null or last_used_at < $3)",
    );
}

/// A key's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct ApiKeyRow {
    tenant_id: Uuid,
    api_key_id: Uuid,
    kind: i64,
    key_id: String,
    last4: String,
    user_id: Option<Uuid>,
    membership_id: Option<Uuid>,
    display_name: String,
    permissions: String,
    aal: i64,
    sso_connection_id: Option<Uuid>,
    created_by: Option<Uuid>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    old_ends_at: Option<Timestamp>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = Error;

    fn try_from(row: ApiKeyRow) -> Result<Self, Error> {
        let permissions: Permissions =
            serde_json::from_str(&row.permissions).map_err(|_| Error::internal("a key's row holds no permissions"))?;
        Ok(Self {
            tenant_id: TenantId(row.tenant_id),
            api_key_id: ApiKeyId(row.api_key_id),
            kind: if row.kind == 7 { KeyKind::Personal } else { KeyKind::Tenant },
            key_id: row.key_id,
            last4: row.last4,
            user_id: row.user_id.map(UserId),
            membership_id: row.membership_id.map(MembershipId),
            display_name: row.display_name,
            permissions,
            aal: row.aal,
            connection: row.sso_connection_id,
            created_by: row.created_by,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
            old_ends_at: row.old_ends_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct RevokedRow {
    api_key_id: Uuid,
    key_id: String,
}

#[derive(sqlx::FromRow)]
struct Count {
    keys: i64,
}

/// Which keys are meant: the tenant's own, those of one stay of a member, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// All of the tenant and of its members.
    All,
    /// The tenant's own.
    Tenants,
    /// Those of one stay.
    Of(MembershipId),
}

impl Whose {
    const fn kind(self) -> i64 {
        match self {
            Self::All => 0,
            Self::Tenants => 6,
            Self::Of(_) => 7,
        }
    }

    const fn stay(self) -> Option<Uuid> {
        match self {
            Self::Of(stay) => Some(stay.0),
            Self::All | Self::Tenants => None,
        }
    }
}

/// Inserts a key; only its digest is stored.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(tx: &mut TenantTx, key: &ApiKey, digest: &[u8]) -> Result<(), Error> {
    let permissions = serde_json::Value::from(key.permissions.names()).to_string();
    let args = [
        key.api_key_id.0.into(),
        super::keys::kind_number(key.kind).into(),
        key.key_id.as_str().into(),
        digest.into(),
        key.last4.as_str().into(),
        key.user_id.map(|id| id.0).into(),
        key.membership_id.map(|id| id.0).into(),
        key.display_name.as_str().into(),
        permissions.as_str().into(),
        key.aal.into(),
        key.created_by.into(),
        key.version.into(),
        key.created_at.into(),
        key.expires_at.into(),
        key.connection.into(),
    ];
    tx.execute(&INSERT, &args).await?;
    note(tx, key);
    Ok(())
}

/// A key, also a revoked one.
///
/// # Errors
/// `KeyNotFound`.
pub async fn get<S: Scope>(tx: &mut Scoped<S>, id: ApiKeyId) -> Result<ApiKey, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<ApiKeyRow> = tx.optional(&FIND, &[id.0.into()]).await?;
    row.ok_or(Error::KeyNotFound)?.try_into()
}

/// Keys that are not revoked, in the order in which they were made, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list(tx: &mut TenantTx, whose: Whose, (after, limit): (Uuid, i64)) -> Result<Vec<ApiKey>, Error> {
    let args = [after.into(), whose.kind().into(), whose.stay().into(), limit.into()];
    let rows: Vec<ApiKeyRow> = tx.all(&LIST, &args).await?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// How many keys there are that are not revoked. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count(tx: &mut TenantTx, whose: Whose) -> Result<i64, Error> {
    let row: Option<Count> = tx.optional(&COUNT, &[whose.kind().into(), whose.stay().into()]).await?;
    Ok(row.map_or(0, |row| row.keys))
}

/// Gives a key another name and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when it has changed meanwhile.
pub async fn rename(tx: &mut TenantTx, key: &mut ApiKey, now: Timestamp) -> Result<(), Error> {
    let args = [key.api_key_id.0.into(), key.display_name.as_str().into(), now.into(), key.version.into()];
    if tx.execute(&RENAME, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    changed(tx, key, now);
    Ok(())
}

/// Gives a key another secret; the one before is good until `key.old_ends_at`, the one before that no more.
///
/// # Errors
/// `EtagMismatch` when it has changed meanwhile.
pub async fn rotate(tx: &mut TenantTx, key: &mut ApiKey, digest: &[u8], now: Timestamp) -> Result<(), Error> {
    let args = [
        key.api_key_id.0.into(),
        digest.into(),
        key.last4.as_str().into(),
        key.old_ends_at.into(),
        now.into(),
        key.version.into(),
    ];
    if tx.execute(&ROTATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    changed(tx, key, now);
    Ok(())
}

/// Revokes a key with both its secrets; whether it was live in that respect.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn revoke(tx: &mut TenantTx, key: &mut ApiKey, now: Timestamp) -> Result<bool, Error> {
    if tx.execute(&REVOKE, &[key.api_key_id.0.into(), now.into()]).await? == 0 {
        return Ok(false);
    }
    key.revoked_at = Some(now);
    changed(tx, key, now);
    Ok(true)
}

/// Revokes all keys of a member's own.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn revoke_of_user<S: Scope>(tx: &mut Scoped<S>, user: UserId, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Some(tenant) = tx.scope().tenant() else { return Ok(()) };
    let revoked: Vec<RevokedRow> = tx.all(&REVOKE_OF_USER, &[user.0.into(), now.into()]).await?;
    for row in revoked {
        tx.changed(Change::ApiKey(tenant, ApiKeyId(row.api_key_id), row.key_id));
    }
    Ok(())
}

/// Writes when a key was last used.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn used(tx: &mut TenantTx, id: ApiKeyId, at: Timestamp) -> Result<(), Error> {
    tx.execute(&USED, &[id.0.into(), at.into()]).await.map(|_| ())
}

fn changed(tx: &mut TenantTx, key: &mut ApiKey, now: Timestamp) {
    key.version += 1;
    key.updated_at = now;
    note(tx, key);
}

fn note(tx: &mut TenantTx, key: &ApiKey) {
    tx.changed(Change::ApiKey(key.tenant_id, key.api_key_id, key.key_id.clone()));
}

#[derive(sqlx::FromRow)]
struct Any {
    #[expect(dead_code, reason = "that there is one is what is asked")]
    api_key_id: Uuid,
}

/// Whether a key is, or ever was, the tenant's.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn was_ever(tx: &mut TenantTx, key: ApiKeyId) -> Result<bool, Error> {
    Ok(tx.optional::<Any, _>(&FIND_ANY, &[key.0.into()]).await?.is_some())
}
