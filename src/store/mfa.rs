//! Rows of the second step of sign-ins: authenticators, recovery codes, and sign-ins that wait. Seen only by a transaction
//! bound to the person. What may happen once is one guarded update.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfUser, Statement, statements};
use crate::domain::id::TenantId;
use crate::domain::mfa::CHALLENGE_ATTEMPTS;
use crate::domain::session::{Device, Method};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND: OfUser = Statement::new(
        "select sealed, confirmed_at, last_step
         from totp
         where user_id = $1",
    );
    BEGIN: OfUser = Statement::new(
        "insert into totp (user_id, sealed, last_step, created_at)
         values ($1, $2, 0, $3)
         on conflict (user_id) do update
         set sealed = excluded.sealed, last_step = 0, created_at = excluded.created_at
         where totp.confirmed_at is null",
    );
    CONFIRM: OfUser = Statement::new(
        "update totp
         set confirmed_at = $2, last_step = $3
         where user_id = $1 and confirmed_at is null and last_step < $3 and sealed = $4",
    );
    USE_STEP: OfUser = Statement::new(
        "update totp
         set last_step = $2
         where user_id = $1 and confirmed_at is not null and last_step < $2",
    );
    DELETE: OfUser = Statement::new(
        "delete from totp
         where user_id = $1",
    );
    INSERT_CODE: OfUser = Statement::new(
        "insert into recovery_code (user_id, digest, created_at)
         values ($1, $2, $3)",
    );
    COUNT_CODES: OfUser = Statement::new(
        "select count(*) as codes
         from recovery_code
         where user_id = $1 and used_at is null",
    );
    USE_CODE: OfUser = Statement::new(
        "update recovery_code
         set used_at = $3
         where user_id = $1 and digest = $2 and used_at is null",
    );
    DELETE_CODES: OfUser = Statement::new(
        "delete from recovery_code
         where user_id = $1",
    );
    INSERT_CHALLENGE: OfUser = Statement::new(
        "insert into mfa_challenge (user_id, digest, epoch, methods, wanted_tenant_id, bound_tenant_id, remember,
                                    device_name, user_agent, attempts, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11)",
    );
    /// Counts one attempt before it is looked at, so that no two are counted as one.
    TRY_CHALLENGE: OfUser = Statement::new(
        "update mfa_challenge
         set attempts = attempts + 1
         where user_id = $1 and digest = $2 and used_at is null and expires_at > $3 and attempts < $4
         returning epoch, methods, wanted_tenant_id, bound_tenant_id, remember, device_name, user_agent",
    );
    USE_CHALLENGE: OfUser = Statement::new(
        "update mfa_challenge
         set used_at = $3
         where user_id = $1 and digest = $2 and used_at is null and expires_at > $3",
    );
    DELETE_OLD_CHALLENGES: OfUser = Statement::new(
        "delete from mfa_challenge
         where user_id = $1 and expires_at <= $2",
    );
    DELETE_CHALLENGES: OfUser = Statement::new(
        "delete from mfa_challenge
         where user_id = $1",
    );
    LOWER_SESSIONS: OfUser = Statement::new(
        "update session
         set aal = 1
         where user_id = $1 and aal > 1",
    );
    END_SESSIONS: OfUser = Statement::new(
        "update user_account
         set session_epoch = session_epoch + 1, updated_at = $2
         where user_id = $1",
    );
}

/// A person's authenticator.
#[derive(sqlx::FromRow)]
pub struct TotpRow {
    /// Its secret, under the master key.
    pub sealed: Vec<u8>,
    /// Since when it is asked for; none while it is being set up.
    pub confirmed_at: Option<Timestamp>,
    /// The step of the newest code that was used.
    pub last_step: i64,
}

#[derive(sqlx::FromRow)]
struct Count {
    codes: i64,
}

#[derive(sqlx::FromRow)]
struct ChallengeRow {
    epoch: i64,
    methods: String,
    wanted_tenant_id: Option<Uuid>,
    bound_tenant_id: Option<Uuid>,
    remember: i64,
    device_name: String,
    user_agent: String,
}

/// A sign-in whose first step is done.
pub struct Waiting {
    /// The account's epoch then.
    pub epoch: i64,
    /// How the first step was taken.
    pub methods: Vec<Method>,
    /// The tenant to work in.
    pub tenant: Option<TenantId>,
    /// The only tenant that it opens.
    pub bound_tenant: Option<TenantId>,
    /// Whether it is to outlast the day.
    pub remember: bool,
    /// From where.
    pub device: Device,
}

/// A person's authenticator, also one that is being set up.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<TotpRow>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.optional(&FIND, &[]).await
}

/// Begins to set an authenticator up, in the place of one that was not confirmed; false when one is in use.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn begin<S: Scope>(tx: &mut Scoped<S>, sealed: &[u8], now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&BEGIN, &[sealed.into(), now.into()]).await? == 1)
}

/// Puts the authenticator with this secret into use, by a code of `step`; false when somebody was faster.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn confirm<S: Scope>(tx: &mut Scoped<S>, sealed: &[u8], step: i64, now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let confirmed = tx.execute(&CONFIRM, &[now.into(), step.into(), sealed.into()]).await? == 1;
    if confirmed {
        note(tx);
    }
    Ok(confirmed)
}

/// Uses a code of `step` up; false when it, or a newer one, was used before.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn use_step<S: Scope>(tx: &mut Scoped<S>, step: i64) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&USE_STEP, &[step.into()]).await? == 1)
}

/// Uses a recovery code up; false when there is none such that was not used before.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn use_code<S: Scope>(tx: &mut Scoped<S>, digest: &[u8], now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&USE_CODE, &[digest.into(), now.into()]).await? == 1)
}

/// Puts these recovery codes in the place of all there were.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn put_codes<S: Scope>(tx: &mut Scoped<S>, digests: &[[u8; 32]], now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&DELETE_CODES, &[]).await?;
    for digest in digests {
        tx.execute(&INSERT_CODE, &[(&digest[..]).into(), now.into()]).await?;
    }
    Ok(())
}

/// How many recovery codes are left.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_codes<S: Scope>(tx: &mut Scoped<S>) -> Result<i64, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.optional::<Count, _>(&COUNT_CODES, &[]).await?.map_or(0, |row| row.codes))
}

/// Removes everything of a person's second step, and what sessions had by it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete<S: Scope>(tx: &mut Scoped<S>) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    for statement in [&DELETE, &DELETE_CODES, &DELETE_CHALLENGES, &LOWER_SESSIONS] {
        tx.execute(statement, &[]).await?;
    }
    note(tx);
    Ok(())
}

/// Ends all sessions of the person.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn end_sessions<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&END_SESSIONS, &[now.into()]).await?;
    note(tx);
    Ok(())
}

/// Inserts a sign-in that waits, and clears those away that have waited for too long.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_challenge<S: Scope>(
    tx: &mut Scoped<S>,
    digest: &[u8],
    waiting: &Waiting,
    (now, until): (Timestamp, Timestamp),
) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&DELETE_OLD_CHALLENGES, &[now.into()]).await?;
    let methods = Method::list(&waiting.methods);
    let args = [
        digest.into(),
        waiting.epoch.into(),
        methods.as_str().into(),
        waiting.tenant.map(|t| t.0).into(),
        waiting.bound_tenant.map(|t| t.0).into(),
        i64::from(waiting.remember).into(),
        waiting.device.display_name.as_str().into(),
        waiting.device.user_agent.as_str().into(),
        now.into(),
        until.into(),
    ];
    tx.execute(&INSERT_CHALLENGE, &args).await.map(|_| ())
}

/// Counts an attempt to finish a sign-in that waits; none when it is over, was finished, or was tried too often.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn try_challenge<S: Scope>(
    tx: &mut Scoped<S>,
    digest: &[u8],
    now: Timestamp,
) -> Result<Option<Waiting>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let args = [digest.into(), now.into(), CHALLENGE_ATTEMPTS.into()];
    let row: Option<ChallengeRow> = tx.optional(&TRY_CHALLENGE, &args).await?;
    Ok(row.map(|row| Waiting {
        epoch: row.epoch,
        methods: Method::parse_list(&row.methods),
        tenant: row.wanted_tenant_id.map(TenantId),
        bound_tenant: row.bound_tenant_id.map(TenantId),
        remember: row.remember == 1,
        device: Device { display_name: row.device_name, user_agent: row.user_agent },
    }))
}

/// Finishes a sign-in that waits; false when somebody was faster.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn use_challenge<S: Scope>(tx: &mut Scoped<S>, digest: &[u8], now: Timestamp) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.execute(&USE_CHALLENGE, &[digest.into(), now.into()]).await? == 1)
}

/// What is known of an account besides its sessions' own rows has changed.
fn note<S: Scope>(tx: &mut Scoped<S>) {
    if let Some(user) = tx.scope().user() {
        tx.changed(Change::Account(user));
    }
}
