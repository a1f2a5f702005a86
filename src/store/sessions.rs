//! Rows of sessions, seen only by a transaction bound to the person. The swap of a refresh token is one guarded update: of
//! any number of callers with the same token one makes the successor, and the others find the row changed.

use uuid::Uuid;

use super::dialect::{LOCK_ACCOUNT, LOCK_REFRESH};
use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, OfUser, Statement, statements};
use crate::domain::id::{PlatformKeyId, SessionId, TenantId, UserId};
use crate::domain::session::{Device, Method, Session, SessionKind, ShownSession};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of a session that decisions are made from; with an argument, each with that in front.
macro_rules! session_columns {
    () => {
        session_columns!("")
    };
    ($of:literal) => {
        concat!(
            $of,
            "session_id, ",
            $of,
            "kind, ",
            $of,
            "epoch, ",
            $of,
            "active_tenant_id, ",
            $of,
            "bound_tenant_id, ",
            $of,
            "methods, ",
            $of,
            "aal, ",
            $of,
            "auth_time, ",
            $of,
            "created_at, ",
            $of,
            "remember, ",
            $of,
            "idle_expires_at, ",
            $of,
            "absolute_expires_at, ",
            $of,
            "revoked_at, ",
            $of,
            "sso_connection_id, ",
            $of,
            "operator_key_id"
        )
    };
}
pub(super) use session_columns;

statements! {
    INSERT: OfUser = Statement::new(
        "insert into session (user_id, session_id, kind, epoch, active_tenant_id, bound_tenant_id, methods, aal,
                              auth_time, created_at, remember, idle_expires_at, absolute_expires_at, refresh_cur,
                              refreshed_at, device_name, user_agent, source, sso_connection_id, operator_key_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $10, $15, $16, $17, $18, $19)",
    );
    REVOKE_BEYOND: OfUser = Statement::new(
        "update session
         set revoked_at = $2, revoke_reason = 'limit'
         where user_id = $1 and session_id in (
           select session_id
           from session
           where user_id = $1 and kind = 1 and epoch = $3 and revoked_at is null and absolute_expires_at > $2
             and idle_expires_at > $2 and coalesce(bound_tenant_id, $6) = $5
           order by refreshed_at desc, session_id desc
           limit 1000 offset $4)
         returning session_id",
    );
    DELETE_ENDED: OfUser = Statement::new(
        "delete from session
         where user_id = $1 and absolute_expires_at < $2",
    );
    SET_ACTIVE_TENANT: OfUser = Statement::new(
        "update session
         set active_tenant_id = $3
         where user_id = $1 and session_id = $2 and revoked_at is null",
    );
    ROTATE: OfUser = Statement::new(
        "update session
         set refresh_prev = refresh_cur, refresh_cur = $3, refresh_sealed = $4, refresh_gen = refresh_gen + 1,
             refreshed_at = $5, idle_expires_at = $6, absolute_expires_at = $7, source = $8
         where user_id = $1 and session_id = $2 and refresh_cur = $9 and revoked_at is null
           and idle_expires_at > $5 and absolute_expires_at > $5",
    );
    REPLACE: OfUser = Statement::new(
        "update session
         set refresh_cur = $3, refresh_sealed = $4, refresh_gen = refresh_gen + 1, refreshed_at = $5,
             idle_expires_at = $6, absolute_expires_at = $7, source = $8
         where user_id = $1 and session_id = $2 and refresh_prev = $9 and refresh_cur = $10 and revoked_at is null",
    );
    LIST: OfUser = Statement::new(concat!(
        "select ",
        session_columns!(),
        ", refreshed_at, device_name, user_agent, source
         from session
         where user_id = $1 and session_id > $2 and kind = 1 and revoked_at is null and absolute_expires_at > $3
           and coalesce(idle_expires_at, absolute_expires_at) > $3
           and epoch = (select session_epoch from user_account where user_id = $1)
         order by session_id
         limit $4",
    ));
    FIND: OfUser = Statement::new(
        "select session_id
         from session
         where user_id = $1 and session_id = $2 and kind = 1",
    );
    FIND_GOOD: OfUser = Statement::new(
        "select session_id
         from session
         where user_id = $1 and session_id = $2 and refresh_cur = $3 and revoked_at is null",
    );
    REVOKE_OTHERS: OfUser = Statement::new(
        "update session
         set revoked_at = $3, revoke_reason = $4
         where user_id = $1 and session_id <> $2 and kind = 1 and revoked_at is null
         returning session_id",
    );
    END_IN_TENANT: OfTenant = Statement::new(
        "insert into session_end (tenant_id, user_id, session_id, ended_at)
         values ($1, $2, $3, $4)
         on conflict (tenant_id, user_id, session_id) do update
         set ended_at = excluded.ended_at",
    );
    REVOKE: OfUser = Statement::new(
        "update session
         set revoked_at = $3, revoke_reason = $4
         where user_id = $1 and session_id = $2 and revoked_at is null",
    );
}

/// A session's row, as both the person's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    session_id: Uuid,
    kind: i64,
    epoch: i64,
    active_tenant_id: Option<Uuid>,
    bound_tenant_id: Option<Uuid>,
    methods: String,
    aal: i64,
    auth_time: Timestamp,
    created_at: Timestamp,
    remember: i64,
    idle_expires_at: Option<Timestamp>,
    absolute_expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    sso_connection_id: Option<Uuid>,
    operator_key_id: Option<Uuid>,
}

impl SessionRow {
    /// The session, whose it is.
    pub(super) fn of(self, user_id: UserId) -> Session {
        Session {
            session_id: SessionId(self.session_id),
            user_id,
            kind: if self.kind == 2 { SessionKind::Impersonation } else { SessionKind::SignIn },
            epoch: self.epoch,
            active_tenant: self.active_tenant_id.map(TenantId),
            bound_tenant: self.bound_tenant_id.map(TenantId),
            methods: Method::parse_list(&self.methods),
            aal: self.aal,
            auth_time: self.auth_time,
            created_at: self.created_at,
            remember: self.remember == 1,
            // Rows of a time before sessions were refreshed.
            idle_expires_at: self.idle_expires_at.unwrap_or(self.absolute_expires_at),
            absolute_expires_at: self.absolute_expires_at,
            revoked_at: self.revoked_at,
            connection: self.sso_connection_id,
            operator: self.operator_key_id.map(PlatformKeyId),
        }
    }
}

/// A session with what people know it by.
#[derive(sqlx::FromRow)]
pub(super) struct ShownRow {
    #[sqlx(flatten)]
    session: SessionRow,
    refreshed_at: Option<Timestamp>,
    device_name: String,
    user_agent: String,
    source: Option<String>,
}

impl ShownRow {
    /// The session, whose it is.
    pub(super) fn of(self, user_id: UserId) -> ShownSession {
        let session = self.session.of(user_id);
        ShownSession {
            last_used_at: self.refreshed_at.unwrap_or(session.created_at),
            session,
            device: Device { display_name: self.device_name, user_agent: self.user_agent },
            source: self.source.unwrap_or_default(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    status: i64,
    session_epoch: i64,
}

#[derive(sqlx::FromRow)]
struct SessionIdRow {
    session_id: Uuid,
}

/// Where a session's refresh tokens stand.
#[derive(sqlx::FromRow)]
pub struct RefreshRow {
    /// How many there were.
    pub refresh_gen: i64,
    /// SHA-256 of the one that is good.
    pub refresh_cur: Option<Vec<u8>>,
    /// SHA-256 of the one before, unless its successor has been used.
    pub refresh_prev: Option<Vec<u8>>,
    /// The one that is good, sealed under the one before.
    pub refresh_sealed: Option<Vec<u8>>,
    /// When it was made.
    pub refreshed_at: Option<Timestamp>,
    /// When the session was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A new refresh token in the place of another.
pub struct Swap<'a> {
    /// The session as it is after the refresh.
    pub session: &'a Session,
    /// SHA-256 of the token that was presented.
    pub presented: [u8; 32],
    /// SHA-256 of the new one.
    pub next: [u8; 32],
    /// The new one, sealed under the presented one.
    pub sealed: Vec<u8>,
    /// The caller's address.
    pub source: Option<String>,
    /// When.
    pub now: Timestamp,
}

/// The number of a kind.
const fn kind_number(kind: SessionKind) -> i64 {
    match kind {
        SessionKind::SignIn => 1,
        SessionKind::Impersonation => 2,
    }
}

/// Keeps the account from changing until the transaction ends; the epoch of its sessions, if it is active.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock_account<S: Scope>(tx: &mut Scoped<S>) -> Result<Option<i64>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let row: Option<AccountRow> = tx.optional(&LOCK_ACCOUNT, &[]).await?;
    Ok(row.filter(|row| row.status == 1).map(|row| row.session_epoch))
}

/// Inserts a new session. No change is noted: its id is random, so nobody can have cached its absence.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert<S: Scope>(
    tx: &mut Scoped<S>,
    session: &Session,
    refresh_digest: Option<&[u8]>,
    device: &Device,
    source: Option<&str>,
) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let methods = Method::list(&session.methods);
    let args = [
        session.session_id.0.into(),
        kind_number(session.kind).into(),
        session.epoch.into(),
        session.active_tenant.map(|t| t.0).into(),
        session.bound_tenant.map(|t| t.0).into(),
        methods.as_str().into(),
        session.aal.into(),
        session.auth_time.into(),
        session.created_at.into(),
        i64::from(session.remember).into(),
        session.idle_expires_at.into(),
        session.absolute_expires_at.into(),
        refresh_digest.into(),
        device.display_name.as_str().into(),
        device.user_agent.as_str().into(),
        source.into(),
        session.connection.into(),
        session.operator.map(|key| key.0).into(),
    ];
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// Revokes all live sign-ins of an epoch but the `keep` that were refreshed last, of those that open one tenant only, or of
/// those that open all: a tenant's provider ends no others. How many it were. Means something under the account's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn revoke_beyond<S: Scope>(
    tx: &mut Scoped<S>,
    keep: i64,
    (epoch, bound): (i64, Option<TenantId>),
    now: Timestamp,
) -> Result<usize, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    // No tenant has the nil id: it stands for none.
    let bound = bound.map_or(Uuid::nil(), |tenant| tenant.0);
    let args = [now.into(), epoch.into(), keep.into(), bound.into(), Uuid::nil().into()];
    let revoked: Vec<SessionIdRow> = tx.all(&REVOKE_BEYOND, &args).await?;
    for row in &revoked {
        note(tx, row.session_id);
    }
    Ok(revoked.len())
}

/// Deletes the rows of sessions that ended before a time.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_ended<S: Scope>(tx: &mut Scoped<S>, before: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&DELETE_ENDED, &[before.into()]).await.map(|_| ())
}

/// Moves a session to another tenant.
///
/// # Errors
/// `CredentialInvalid` when the session has been revoked meanwhile.
pub async fn set_active_tenant<S: Scope>(tx: &mut Scoped<S>, session: SessionId, tenant: TenantId) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    if tx.execute(&SET_ACTIVE_TENANT, &[session.0.into(), tenant.0.into()]).await? == 0 {
        return Err(Error::CredentialInvalid);
    }
    Ok(())
}

/// Exchanges the session's good token, if the presented one is it and the session lives; whether it was.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn rotate<S: Scope>(tx: &mut Scoped<S>, swap: &Swap<'_>) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let session = swap.session;
    let args = [
        session.session_id.0.into(),
        swap.next[..].into(),
        swap.sealed.as_slice().into(),
        swap.now.into(),
        session.idle_expires_at.into(),
        session.absolute_expires_at.into(),
        swap.source.as_deref().into(),
        swap.presented[..].into(),
    ];
    Ok(tx.execute(&ROTATE, &args).await? == 1)
}

/// Where a session's refresh tokens stand, kept from changing until the transaction ends.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock_refresh<S: Scope>(tx: &mut Scoped<S>, session: SessionId) -> Result<Option<RefreshRow>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.optional(&LOCK_REFRESH, &[session.0.into()]).await
}

/// Puts another successor of the presented token in the place of `unused`, which is void from then on; whether both were
/// still there.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn replace<S: Scope>(tx: &mut Scoped<S>, swap: &Swap<'_>, unused: &[u8]) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let session = swap.session;
    let args = [
        session.session_id.0.into(),
        swap.next[..].into(),
        swap.sealed.as_slice().into(),
        swap.now.into(),
        session.idle_expires_at.into(),
        session.absolute_expires_at.into(),
        swap.source.as_deref().into(),
        swap.presented[..].into(),
        unused.into(),
    ];
    Ok(tx.execute(&REPLACE, &args).await? == 1)
}

/// Revokes a session; whether it was not revoked before.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn revoke<S: Scope>(
    tx: &mut Scoped<S>,
    session: SessionId,
    reason: &'static str,
    now: Timestamp,
) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let revoked = tx.execute(&REVOKE, &[session.0.into(), now.into(), reason.into()]).await? == 1;
    if revoked {
        note(tx, session.0);
    }
    Ok(revoked)
}

/// The person's live sign-ins after one of them, in the order in which they began.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(
    tx: &mut Scoped<S>,
    user: UserId,
    (after, limit): (Uuid, i64),
    now: Timestamp,
) -> Result<Vec<ShownSession>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let rows: Vec<ShownRow> = tx.all(&LIST, &[after.into(), now.into(), limit.into()]).await?;
    Ok(rows.into_iter().map(|row| row.of(user)).collect())
}

/// Whether the person has, or had not long ago, this sign-in.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn is_there<S: Scope>(tx: &mut Scoped<S>, session: SessionId) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.optional::<SessionIdRow, _>(&FIND, &[session.0.into()]).await?.is_some())
}

/// Whether this is the digest of the session's good refresh token.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn is_good<S: Scope>(tx: &mut Scoped<S>, session: SessionId, digest: &[u8]) -> Result<bool, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    Ok(tx.optional::<SessionIdRow, _>(&FIND_GOOD, &[session.0.into(), digest.into()]).await?.is_some())
}

/// Revokes all of the person's sign-ins, but one of them when it is named; how many it were.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn revoke_all<S: Scope>(
    tx: &mut Scoped<S>,
    except: Option<SessionId>,
    reason: &'static str,
    now: Timestamp,
) -> Result<usize, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let except = except.map_or(Uuid::nil(), |session| session.0);
    let args = [except.into(), now.into(), reason.into()];
    let revoked: Vec<SessionIdRow> = tx.all(&REVOKE_OTHERS, &args).await?;
    for row in &revoked {
        note(tx, row.session_id);
    }
    Ok(revoked.len())
}

/// Ends a session of a member for the tenant, or, when none is named, all that have begun by now.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn end_in_tenant<S: Scope>(
    tx: &mut Scoped<S>,
    user: UserId,
    session: Option<SessionId>,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let session = session.map_or(Uuid::nil(), |session| session.0);
    tx.execute(&END_IN_TENANT, &[user.0.into(), session.into(), now.into()]).await?;
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Membership(tenant, user));
    }
    Ok(())
}

fn note<S: Scope>(tx: &mut Scoped<S>, session: Uuid) {
    if let Some(user) = tx.scope().user() {
        tx.changed(Change::Session(user, SessionId(session)));
    }
}
