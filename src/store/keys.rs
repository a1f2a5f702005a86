//! Rows of keys: the master key's check, signing keys, keys of services and operators.

use super::feed::Change;
use super::scoped::{OnPlatform, Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::ctx::PlatformKey;
use crate::domain::secret::KeyKind;
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
    FIND_CURRENT_SIGNING_KEY: OfPlatform = Statement::new(
        "select kid, public_key, sealed
         from signing_key
         where state = 'current'",
    );
    INSERT_SIGNING_KEY: OfPlatform = Statement::new(
        "insert into signing_key (kid, state, public_key, sealed, created_at)
         values ($1, 'current', $2, $3, $4)
         on conflict do nothing",
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

/// A signing key as it is stored.
#[derive(sqlx::FromRow)]
pub struct SigningKeyRow {
    /// Its name in token headers.
    pub kid: String,
    /// 32 bytes, Ed25519.
    pub public_key: Vec<u8>,
    /// PKCS#8, sealed under the master key.
    pub sealed: Vec<u8>,
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

/// The key that signs access tokens; none in a new database.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn current_signing_key(tx: &mut Scoped<OnPlatform>) -> Result<Option<SigningKeyRow>, Error> {
    tx.optional(&FIND_CURRENT_SIGNING_KEY, &[]).await
}

/// Inserts the first signing key, unless another server was first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_signing_key(tx: &mut Scoped<OnPlatform>, key: &SigningKeyRow, now: Timestamp) -> Result<(), Error> {
    let args = [key.kid.as_str().into(), key.public_key.as_slice().into(), key.sealed.as_slice().into(), now.into()];
    if tx.execute(&INSERT_SIGNING_KEY, &args).await? == 1 {
        tx.changed(Change::SigningKeys);
    }
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
