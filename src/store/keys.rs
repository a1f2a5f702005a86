//! Rows of keys: the master key's check, signing keys, keys of services and operators.

use uuid::Uuid;

use super::dialect::{LOCK_OPERATOR_KEYS, LOCK_SIGNING_KEYS};
use super::feed::Change;
use super::scoped::{OnPlatform, Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::ctx::PlatformKey;
use crate::domain::api_key::OperatorScope;
use crate::domain::id::PlatformKeyId;
use crate::domain::role::Permissions;
use crate::domain::secret::KeyKind;
use crate::domain::signing_key::{KeyState, SigningKey};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of a key of a service or operator, but its digests.
macro_rules! platform_key_columns {
    () => {
        "platform_key_id, kind, key_id, display_name, last4, permissions, scope, created_at, expires_at, revoked_at,
                last_used_at, old_ends_at"
    };
}
pub(super) use platform_key_columns;

statements! {
    FIND_MASTER_CHECK: OfPlatform = Statement::new(
        "select check_value
         from master_key
         where kid = 1",
    );
    INSERT_MASTER_CHECK: OfPlatform = Statement::new(
        "insert into master_key (kid, check_value)
         values (1, $1)
         on conflict (kid) do nothing",
    );
    LIST_SIGNING_KEYS: OfPlatform = Statement::new(
        "select kid, state, public_key, sealed, created_at, current_at, retired_at, over_at, revoked_at
         from signing_key
         order by created_at, kid",
    );
    INSERT_SIGNING_KEY: OfPlatform = Statement::new(
        "insert into signing_key (kid, state, public_key, sealed, created_at, current_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict do nothing",
    );
    UPDATE_SIGNING_KEY: OfPlatform = Statement::new(
        "update signing_key
         set state = $2, sealed = $3, current_at = $4, retired_at = $5, over_at = $6, revoked_at = $7
         where kid = $1",
    );
    INSERT_PLATFORM_KEY: OfPlatform = Statement::new(
        "insert into platform_key (platform_key_id, kind, key_id, digest, display_name, permissions, created_at,
                                   expires_at, last4, scope)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    );
    COUNT_OPERATOR_KEYS: OfPlatform = Statement::new(
        "select count(*) as keys
         from platform_key
         where kind = 4 and revoked_at is null and scope = 'all' and (expires_at is null or expires_at > $1)",
    );
    LIST_PLATFORM_KEYS: OfPlatform = Statement::new(concat!(
        "select ",
        platform_key_columns!(),
        " from platform_key
         where platform_key_id > $1 and revoked_at is null and ($2 = 0 or kind = $2)
         order by platform_key_id
         limit $3",
    ));
    FIND_PLATFORM_KEY_ROW: OfPlatform = Statement::new(concat!(
        "select ",
        platform_key_columns!(),
        " from platform_key
         where key_id = $1 and revoked_at is null",
    ));
    ROTATE_PLATFORM_KEY: OfPlatform = Statement::new(
        "update platform_key
         set old_digest = digest, old_ends_at = $4, digest = $2, last4 = $3
         where platform_key_id = $1 and revoked_at is null",
    );
    REVOKE_PLATFORM_KEY: OfPlatform = Statement::new(
        "update platform_key
         set revoked_at = $2
         where platform_key_id = $1 and revoked_at is null",
    );
    USED_PLATFORM_KEY: OfPlatform = Statement::new(
        "update platform_key
         set last_used_at = $2
         where platform_key_id = $1 and (last_used_at is null or last_used_at < $2)",
    );
}

#[derive(sqlx::FromRow)]
struct MasterCheck {
    check_value: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct SigningKeyRow {
    kid: String,
    state: String,
    public_key: Vec<u8>,
    sealed: Vec<u8>,
    created_at: Timestamp,
    current_at: Option<Timestamp>,
    retired_at: Option<Timestamp>,
    over_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl From<SigningKeyRow> for SigningKey {
    fn from(row: SigningKeyRow) -> Self {
        Self {
            kid: row.kid,
            state: KeyState::parse(&row.state),
            public_key: row.public_key,
            sealed: row.sealed,
            created_at: row.created_at,
            current_at: row.current_at,
            retired_at: row.retired_at,
            over_at: row.over_at,
            revoked_at: row.revoked_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Locked {
    #[expect(dead_code, reason = "that the rows are locked is all that matters")]
    platform_key_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct Count {
    keys: i64,
}

/// The number of a key's kind; as `CallerKind` in access.proto.
#[must_use]
pub const fn kind_number(kind: KeyKind) -> i64 {
    match kind {
        KeyKind::Service => 3,
        KeyKind::Operator => 4,
        KeyKind::Tenant => 6,
        KeyKind::Personal => 7,
    }
}

/// What the master key must give to be the right one; none in a new database.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn master_check(tx: &mut Scoped<OnPlatform>) -> Result<Option<Vec<u8>>, Error> {
    Ok(tx.optional::<MasterCheck, _>(&FIND_MASTER_CHECK, &[]).await?.map(|row| row.check_value))
}

/// Ties a new database to its master key, unless another server was first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_master_check(tx: &mut Scoped<OnPlatform>, check: &[u8]) -> Result<(), Error> {
    tx.execute(&INSERT_MASTER_CHECK, &[check.into()]).await.map(|_| ())
}

/// The keys that sign access tokens, the oldest first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_signing_keys<S: Scope>(tx: &mut Scoped<S>) -> Result<Vec<SigningKey>, Error> {
    let rows: Vec<SigningKeyRow> = tx.all(&LIST_SIGNING_KEYS, &[]).await?;
    Ok(rows.into_iter().map(SigningKey::from).collect())
}

/// The same, kept from changing until the transaction ends.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock_signing_keys<S: Scope>(tx: &mut Scoped<S>) -> Result<Vec<SigningKey>, Error> {
    tx.execute(&LOCK_SIGNING_KEYS, &[]).await?;
    list_signing_keys(tx).await
}

/// Inserts a signing key, unless there is one in its state already; whether it did.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_signing_key<S: Scope>(tx: &mut Scoped<S>, key: &SigningKey) -> Result<bool, Error> {
    let args = [
        key.kid.as_str().into(),
        key.state.as_str().into(),
        key.public_key.as_slice().into(),
        key.sealed.as_slice().into(),
        key.created_at.into(),
        key.current_at.into(),
    ];
    let inserted = tx.execute(&INSERT_SIGNING_KEY, &args).await? == 1;
    if inserted {
        tx.changed(Change::SigningKeys);
    }
    Ok(inserted)
}

/// Writes where a signing key stands.
///
/// # Errors
/// Internal, when it is not there.
pub async fn update_signing_key<S: Scope>(tx: &mut Scoped<S>, key: &SigningKey) -> Result<(), Error> {
    let args = [
        key.kid.as_str().into(),
        key.state.as_str().into(),
        key.sealed.as_slice().into(),
        key.current_at.into(),
        key.retired_at.into(),
        key.over_at.into(),
        key.revoked_at.into(),
    ];
    if tx.execute(&UPDATE_SIGNING_KEY, &args).await? == 0 {
        return Err(Error::internal("a signing key is not there to be changed"));
    }
    tx.changed(Change::SigningKeys);
    Ok(())
}

/// A key's row, as both the platform's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct PlatformKeyRow {
    platform_key_id: Uuid,
    kind: i64,
    key_id: String,
    display_name: String,
    last4: String,
    permissions: String,
    scope: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    old_ends_at: Option<Timestamp>,
}

impl TryFrom<PlatformKeyRow> for PlatformKey {
    type Error = Error;

    fn try_from(row: PlatformKeyRow) -> Result<Self, Error> {
        let permissions: Permissions =
            serde_json::from_str(&row.permissions).map_err(|_| Error::internal("a key's row holds no permissions"))?;
        Ok(Self {
            platform_key_id: PlatformKeyId(row.platform_key_id),
            kind: if row.kind == 4 { KeyKind::Operator } else { KeyKind::Service },
            key_id: row.key_id,
            display_name: row.display_name,
            last4: row.last4,
            permissions,
            scope: OperatorScope::parse(&row.scope).ok_or_else(|| Error::internal("a key's row holds no scope"))?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
            old_ends_at: row.old_ends_at,
        })
    }
}

/// How many operator keys there are that may do everything.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_operator_keys<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<i64, Error> {
    Ok(tx.optional::<Count, _>(&COUNT_OPERATOR_KEYS, &[now.into()]).await?.map_or(0, |row| row.keys))
}

/// Keeps all operator keys from changing until the transaction ends.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock_operator_keys<S: Scope>(tx: &mut Scoped<S>) -> Result<(), Error> {
    tx.all::<Locked, _>(&LOCK_OPERATOR_KEYS, &[]).await.map(|_| ())
}

/// Keys of services and operators that are not revoked, of one kind or of both, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_platform_keys(
    tx: &mut Scoped<OnPlatform>,
    kind: Option<KeyKind>,
    (after, limit): (Uuid, i64),
) -> Result<Vec<PlatformKey>, Error> {
    let args = [after.into(), kind.map_or(0, kind_number).into(), limit.into()];
    let rows: Vec<PlatformKeyRow> = tx.all(&LIST_PLATFORM_KEYS, &args).await?;
    rows.into_iter().map(PlatformKey::try_from).collect()
}

/// A key of a service or operator by its public part, unless revoked.
///
/// # Errors
/// `KeyNotFound`.
pub async fn get_platform_key<S: Scope>(tx: &mut Scoped<S>, key_id: &str) -> Result<PlatformKey, Error> {
    let row: Option<PlatformKeyRow> = tx.optional(&FIND_PLATFORM_KEY_ROW, &[key_id.into()]).await?;
    row.ok_or(Error::KeyNotFound)?.try_into()
}

/// Gives a key another secret; the one before is good until `key.old_ends_at`, the one before that no more.
///
/// # Errors
/// `KeyNotFound` when it was revoked meanwhile.
pub async fn rotate_platform_key<S: Scope>(tx: &mut Scoped<S>, key: &PlatformKey, digest: &[u8]) -> Result<(), Error> {
    let args = [key.platform_key_id.0.into(), digest.into(), key.last4.as_str().into(), key.old_ends_at.into()];
    if tx.execute(&ROTATE_PLATFORM_KEY, &args).await? == 0 {
        return Err(Error::KeyNotFound);
    }
    tx.changed(Change::PlatformKey(key.platform_key_id, key.key_id.clone()));
    Ok(())
}

/// Revokes a key with both its secrets.
///
/// # Errors
/// `KeyNotFound` when it was revoked meanwhile.
pub async fn revoke_platform_key<S: Scope>(tx: &mut Scoped<S>, key: &PlatformKey, now: Timestamp) -> Result<(), Error> {
    if tx.execute(&REVOKE_PLATFORM_KEY, &[key.platform_key_id.0.into(), now.into()]).await? == 0 {
        return Err(Error::KeyNotFound);
    }
    tx.changed(Change::PlatformKey(key.platform_key_id, key.key_id.clone()));
    Ok(())
}

/// Writes when a key was last used.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn platform_key_used(tx: &mut Scoped<OnPlatform>, id: PlatformKeyId, at: Timestamp) -> Result<(), Error> {
    tx.execute(&USED_PLATFORM_KEY, &[id.0.into(), at.into()]).await.map(|_| ())
}

/// Inserts a key of a service or operator; only its digest is stored.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_platform_key<S: Scope>(tx: &mut Scoped<S>, key: &PlatformKey, digest: &[u8]) -> Result<(), Error> {
    let permissions = serde_json::Value::from(key.permissions.names()).to_string();
    let args = [
        key.platform_key_id.0.into(),
        kind_number(key.kind).into(),
        key.key_id.as_str().into(),
        digest.into(),
        key.display_name.as_str().into(),
        permissions.as_str().into(),
        key.created_at.into(),
        key.expires_at.into(),
        key.last4.as_str().into(),
        key.scope.as_str().into(),
    ];
    tx.execute(&INSERT_PLATFORM_KEY, &args).await?;
    tx.changed(Change::PlatformKey(key.platform_key_id, key.key_id.clone()));
    Ok(())
}
