//! Rows of people: accounts, passwords and devices. Seen only by a transaction bound to the person.

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfUser, Statement, statements};
use crate::domain::id::TenantId;
use crate::domain::user::{DEVICES, User};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfUser = Statement::new(
        "insert into user_account (user_id, email, display_name, status, session_epoch, created_at, updated_at)
         values ($1, $2, $3, 1, 1, $4, $4)
         on conflict do nothing",
    );
    INSERT_IMPORTED: OfUser = Statement::new(
        "insert into user_account (user_id, email, display_name, status, session_epoch, created_at, updated_at,
                                   external_id)
         values ($1, $2, $3, 1, 1, $4, $5, $6)
         on conflict do nothing",
    );
    SET_EXTERNAL_ID: OfUser = Statement::new(
        "update user_account
         set external_id = $2, updated_at = $3
         where user_id = $1 and external_id is null",
    );
    SET_DEFAULT_TENANT: OfUser = Statement::new(
        "update user_account
         set default_tenant_id = $2, updated_at = $3
         where user_id = $1 and default_tenant_id is null",
    );
    CHOOSE_DEFAULT_TENANT: OfUser = Statement::new(
        "update user_account
         set default_tenant_id = $2, version = version + 1, updated_at = $3
         where user_id = $1",
    );
    INSERT_CREDENTIAL: OfUser = Statement::new(
        "insert into credential (user_id, password_hash, updated_at, changed_at)
         values ($1, $2, $3, $3)",
    );
    UPDATE_CREDENTIAL: OfUser = Statement::new(
        "update credential
         set password_hash = $2, updated_at = $3, changed_at = coalesce(changed_at, updated_at)
         where user_id = $1 and password_hash = $4",
    );
    FIND_SIGN_IN: OfUser = Statement::new(
        "select c.password_hash, a.session_epoch, coalesce(c.changed_at, c.updated_at) as changed_at,
                a.email_verified_at
         from credential c
         join user_account a on a.user_id = c.user_id
         where c.user_id = $1 and a.user_id = $1 and a.status = 1",
    );
    FIND_DEVICE: OfUser = Statement::new(
        "select count(*) as devices
         from device
         where user_id = $1 and digest = $2",
    );
    COUNT_DEVICES: OfUser = Statement::new(
        "select count(*) as devices
         from device
         where user_id = $1",
    );
    KEEP_DEVICE: OfUser = Statement::new(
        "insert into device (user_id, digest, created_at, seen_at)
         values ($1, $2, $3, $3)
         on conflict (user_id, digest) do update set seen_at = excluded.seen_at",
    );
    FORGET_DEVICES: OfUser = Statement::new(
        "delete from device
         where user_id = $1
           and digest not in (select digest from device where user_id = $1 order by seen_at desc limit $2)",
    );
}

/// What a sign-in compares with.
#[derive(sqlx::FromRow)]
pub struct SignInRow {
    /// PHC string.
    pub password_hash: String,
    /// Read together with the hash: a session made from it dies with a password change in between.
    pub session_epoch: i64,
    /// When the person chose the password.
    pub changed_at: Timestamp,
    /// When the address was proven; none while it is not.
    pub email_verified_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct Devices {
    devices: i64,
}

/// Inserts a new account with its password.
///
/// # Errors
/// `EmailTaken`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, user: &User, password_hash: &str, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [user.email.as_str().into(), user.display_name.as_str().into(), now.into()];
    if tx.execute(&INSERT, &args).await? == 0 {
        return Err(Error::EmailTaken);
    }
    tx.execute(&INSERT_CREDENTIAL, &[password_hash.into(), now.into()]).await?;
    tx.changed(Change::Account(user.user_id));
    Ok(())
}

/// Inserts an account without a password, for somebody whom a tenant's identity provider vouches for.
///
/// # Errors
/// `EmailTaken` when somebody was faster.
pub async fn insert_without_password<S: Scope>(tx: &mut Scoped<S>, user: &User, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [user.email.as_str().into(), user.display_name.as_str().into(), now.into()];
    if tx.execute(&INSERT, &args).await? == 0 {
        return Err(Error::EmailTaken);
    }
    tx.changed(Change::Account(user.user_id));
    Ok(())
}

/// Inserts an account from another system, with the password hash that it brings, if it brings one.
///
/// # Errors
/// `EmailTaken` when somebody was faster.
pub async fn insert_imported<S: Scope>(
    tx: &mut Scoped<S>,
    user: &User,
    external_id: &str,
    (created_at, now): (Timestamp, Timestamp),
    password_hash: Option<&str>,
) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [
        user.email.as_str().into(),
        user.display_name.as_str().into(),
        created_at.into(),
        now.into(),
        external_id.into(),
    ];
    if tx.execute(&INSERT_IMPORTED, &args).await? == 0 {
        return Err(Error::EmailTaken);
    }
    if let Some(hash) = password_hash {
        tx.execute(&INSERT_CREDENTIAL, &[hash.into(), now.into()]).await?;
    }
    tx.changed(Change::Account(user.user_id));
    Ok(())
}

/// Gives an account that has none the id that another system knows it by; whether it had none.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_external_id<S: Scope>(tx: &mut Scoped<S>, external_id: &str, now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&SET_EXTERNAL_ID, &[external_id.into(), now.into()]).await? == 1)
}

/// Makes a tenant the account's default, when it has none yet; whether it did.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_first_default_tenant<S: Scope>(
    tx: &mut Scoped<S>,
    tenant: TenantId,
    now: Timestamp,
) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let set = tx.execute(&SET_DEFAULT_TENANT, &[tenant.0.into(), now.into()]).await? == 1;
    if let Some(user) = tx.scope().user().filter(|_| set) {
        tx.changed(Change::Account(user));
    }
    Ok(set)
}

/// Makes a tenant the account's default in the place of any other.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_default_tenant<S: Scope>(tx: &mut Scoped<S>, tenant: TenantId, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&CHOOSE_DEFAULT_TENANT, &[tenant.0.into(), now.into()]).await?;
    if let Some(user) = tx.scope().user() {
        tx.changed(Change::Account(user));
    }
    Ok(())
}

/// What a sign-in of an active account compares with.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_sign_in<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<SignInRow>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.optional(&FIND_SIGN_IN, &[]).await
}

/// Replaces a password hash by one with today's parameters, unless the password changed meanwhile.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn rehash<S: Scope>(tx: &mut Scoped<S>, old: &str, new: &str, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&UPDATE_CREDENTIAL, &[new.into(), now.into(), old.into()]).await.map(|_| ())
}

/// Whether the person has signed in on this device before.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn knows_device<S: Scope>(tx: &mut Scoped<S>, digest: &[u8]) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let row: Option<Devices> = tx.optional(&FIND_DEVICE, &[digest.into()]).await?;
    Ok(row.is_some_and(|row| row.devices > 0))
}

/// How many devices the person is known to sign in on.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_devices<S: Scope>(tx: &mut Scoped<S>) -> Result<i64, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.optional::<Devices, _>(&COUNT_DEVICES, &[]).await?.map_or(0, |row| row.devices))
}

/// Remembers a device, and no more than the bound of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn keep_device<S: Scope>(tx: &mut Scoped<S>, digest: &[u8], now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&KEEP_DEVICE, &[digest.into(), now.into()]).await?;
    tx.execute(&FORGET_DEVICES, &[DEVICES.into()]).await.map(|_| ())
}
