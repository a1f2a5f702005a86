//! Rows of keys: the master key's check, signing keys, keys of services and operators.

use super::dialect::LOCK_SIGNING_KEYS;
use super::feed::Change;
use super::scoped::{OnPlatform, Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::ctx::PlatformKey;
use crate::domain::secret::KeyKind;
use crate::domain::signing_key::{KeyState, SigningKey};
use crate::error::Error;
use crate::time::Timestamp;

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
                                   expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    COUNT_OPERATOR_KEYS: OfPlatform = Statement::new(
        "select count(*) as keys
         from platform_key
         where kind = 4 and revoked_at is null",
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
struct Count {
    keys: i64,
}

/// The number of a key's kind; as `CallerKind` in access.proto.
#[must_use]
pub const fn kind_number(kind: KeyKind) -> i64 {
    match kind {
        KeyKind::Service => 3,
        KeyKind::Operator => 4,
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
    let rows: Vec<SigningKeyRow> = tx.all(&LOCK_SIGNING_KEYS, &[]).await?;
    Ok(rows.into_iter().map(SigningKey::from).collect())
}

/// Inserts a signing key, unless another server was first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_signing_key<S: Scope>(tx: &mut Scoped<S>, key: &SigningKey) -> Result<(), Error> {
    let args = [
        key.kid.as_str().into(),
        key.state.as_str().into(),
        key.public_key.as_slice().into(),
        key.sealed.as_slice().into(),
        key.created_at.into(),
        key.current_at.into(),
    ];
    if tx.execute(&INSERT_SIGNING_KEY, &args).await? == 1 {
        tx.changed(Change::SigningKeys);
    }
    Ok(())
}

/// Writes where a signing key stands.
///
/// # Errors
/// `DatabaseUnavailable`.
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
    tx.execute(&UPDATE_SIGNING_KEY, &args).await?;
    tx.changed(Change::SigningKeys);
    Ok(())
}

/// How many operator keys there are.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_operator_keys(tx: &mut Scoped<OnPlatform>) -> Result<i64, Error> {
    Ok(tx.optional::<Count, _>(&COUNT_OPERATOR_KEYS, &[]).await?.map_or(0, |row| row.keys))
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
    ];
    tx.execute(&INSERT_PLATFORM_KEY, &args).await?;
    tx.changed(Change::PlatformKey(key.platform_key_id, key.key_id.clone()));
    Ok(())
}
