//! Rows of accounts as their owners see and change them: profile, password, address, and their end. Seen only by a
//! transaction bound to the person.

use super::feed::Change;
use super::mfa;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfUser, Statement, statements};
use crate::domain::id::{SessionId, TenantId};
use crate::domain::name::Email;
use crate::domain::user::Profile;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND: OfUser = Statement::new(
        "select a.display_name, a.locale, a.default_tenant_id, a.email_verified_at, a.version, a.created_at,
                coalesce(c.changed_at, c.updated_at) as password_changed_at
         from user_account a
         left join credential c on c.user_id = $1
         where a.user_id = $1 and a.status = 1",
    );
    UPDATE: OfUser = Statement::new(
        "update user_account
         set display_name = $2, locale = $3, default_tenant_id = $4, version = version + 1, updated_at = $5
         where user_id = $1 and version = $6",
    );
    PUT_PASSWORD: OfUser = Statement::new(
        "insert into credential (user_id, password_hash, updated_at, changed_at)
         values ($1, $2, $3, $3)
         on conflict (user_id) do update
         set password_hash = excluded.password_hash, updated_at = excluded.updated_at,
             changed_at = excluded.changed_at",
    );
    BUMP_EPOCH: OfUser = Statement::new(
        "update user_account
         set session_epoch = session_epoch + 1, updated_at = $2
         where user_id = $1
         returning session_epoch",
    );
    CARRY_SESSION: OfUser = Statement::new(
        "update session
         set epoch = $3
         where user_id = $1 and session_id = $2 and epoch = $3 - 1 and revoked_at is null",
    );
    SET_VERIFIED: OfUser = Statement::new(
        "update user_account
         set email_verified_at = $2, version = version + 1, updated_at = $2
         where user_id = $1 and email_verified_at is null",
    );
    SET_EMAIL: OfUser = Statement::new(
        "update user_account
         set email = $2, email_verified_at = $3, version = version + 1, updated_at = $4
         where user_id = $1",
    );
    SET_STATUS: OfUser = Statement::new(
        "update user_account
         set status = $2, updated_at = $3
         where user_id = $1 and status = $4",
    );
    ANONYMISE: OfUser = Statement::new(
        "update user_account
         set email = $2, display_name = '', locale = '', status = 3, default_tenant_id = null, external_id = null,
             email_verified_at = null, version = version + 1, updated_at = $3
         where user_id = $1",
    );
    DELETE_CREDENTIAL: OfUser = Statement::new("delete from credential where user_id = $1");
    DELETE_DEVICES: OfUser = Statement::new("delete from device where user_id = $1");
    DELETE_SESSIONS: OfUser = Statement::new("delete from session where user_id = $1");
    DELETE_LINKS: OfUser = Statement::new("delete from mail_link where user_id = $1");
    DELETE_MAIL: OfUser = Statement::new("delete from personal_outbox where user_id = $1");
}

/// What goes with an account: every table of a person but the account itself, whose row stays without a name. A new table
/// of a person belongs in here; a test compares.
const PERSONAL: &[&Statement<OfUser>] =
    &[&DELETE_CREDENTIAL, &DELETE_DEVICES, &DELETE_SESSIONS, &DELETE_LINKS, &DELETE_MAIL];

#[derive(sqlx::FromRow)]
struct ProfileRow {
    display_name: String,
    locale: String,
    default_tenant_id: Option<uuid::Uuid>,
    email_verified_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    password_changed_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct EpochRow {
    session_epoch: i64,
}

/// What an active account says of itself.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<Profile>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let row: Option<ProfileRow> = tx.optional(&FIND, &[]).await?;
    Ok(row.map(|row| Profile {
        display_name: row.display_name,
        locale: row.locale,
        default_tenant: row.default_tenant_id.map(TenantId),
        email_verified_at: row.email_verified_at,
        password_changed_at: row.password_changed_at,
        version: row.version,
        created_at: row.created_at,
    }))
}

/// Writes what of a profile its owner may change, and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when it is not the one that was read any more.
pub async fn update<S: Scope>(tx: &mut Scoped<S>, profile: &mut Profile, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [
        profile.display_name.as_str().into(),
        profile.locale.as_str().into(),
        profile.default_tenant.map(|t| t.0).into(),
        now.into(),
        profile.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    profile.version += 1;
    note(tx);
    Ok(())
}

/// Gives the account a password that the person chose.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn put_password<S: Scope>(tx: &mut Scoped<S>, hash: &str, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&PUT_PASSWORD, &[hash.into(), now.into()]).await.map(|_| ())
}

/// Ends all sessions of the account; the epoch of those that begin from now on. Under the account's lock.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn end_sessions<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<i64, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let row: Option<EpochRow> = tx.optional(&BUMP_EPOCH, &[now.into()]).await?;
    note(tx);
    Ok(row.ok_or(Error::CredentialInvalid)?.session_epoch)
}

/// Removes everything by which the account can be entered: its password, second step, devices, links and sessions. The epoch
/// of sessions that begin from now on. Under the account's lock.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_credentials<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<i64, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    for statement in [&DELETE_CREDENTIAL, &DELETE_DEVICES, &DELETE_LINKS] {
        tx.execute(statement, &[]).await?;
    }
    mfa::delete(tx).await?;
    end_sessions(tx, now).await
}

/// Lets a session that `end_sessions` has just ended go on, unless it had ended before; whether it does.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn carry_session<S: Scope>(tx: &mut Scoped<S>, session: SessionId, epoch: i64) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&CARRY_SESSION, &[session.0.into(), epoch.into()]).await? == 1)
}

/// Notes that mail to the account's address arrives at the person.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_verified<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&SET_VERIFIED, &[now.into()]).await.map(|_| ())
}

/// Gives the account another address, which is proven.
///
/// # Errors
/// `EmailTaken`; the transaction is no good any more then.
pub async fn set_email<S: Scope>(tx: &mut Scoped<S>, email: &Email, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [email.as_str().into(), now.into(), now.into()];
    tx.execute_unless_taken(&SET_EMAIL, &args).await?.ok_or(Error::EmailTaken)?;
    note(tx);
    Ok(())
}

/// Disables an active account, or enables a disabled one; whether it was in the other state.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_enabled<S: Scope>(tx: &mut Scoped<S>, enabled: bool, now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let (after, before) = if enabled { (1_i64, 2_i64) } else { (2, 1) };
    let changed = tx.execute(&SET_STATUS, &[after.into(), now.into(), before.into()]).await? == 1;
    note(tx);
    Ok(changed)
}

/// Ends the account: everything of the person goes but the row itself, which others refer to, and which names nobody any
/// more. Their address is free from then on.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn anonymise<S: Scope>(tx: &mut Scoped<S>, nobody: &Email, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    for statement in PERSONAL {
        tx.execute(*statement, &[]).await?;
    }
    tx.execute(&ANONYMISE, &[nobody.as_str().into(), now.into()]).await?;
    note(tx);
    Ok(())
}

fn note<S: Scope>(tx: &mut Scoped<S>) {
    if let Some(user) = tx.scope().user() {
        tx.changed(Change::Account(user));
    }
}
