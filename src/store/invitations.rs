//! Rows of invitations. They are read and changed under the tenant's lock, so that the seats that they hold are exact.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::{InvitationId, TenantId, UserId};
use crate::domain::invitation::{Invitation, InvitationStatus};
use crate::domain::name::Email;
use crate::domain::role::RoleNames;
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of an `InvitationRow`, after the prefix of their table.
macro_rules! invitation_columns {
    ($of:literal) => {
        $crate::store::invitations::invitation_columns!(@list $of invitation_id email roles status inviter_id opens_tenant accepted_by version created_at updated_at sent_at expires_at)
    };
    (@list $of:literal $first:ident $($rest:ident)*) => {
        concat!($of, stringify!($first) $(, ", ", $of, stringify!($rest))*)
    };
}
pub(super) use invitation_columns;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into invitation (tenant_id, invitation_id, email, roles, status, digest, inviter_id, opens_tenant,
                                 version, created_at, updated_at, sent_at, expires_at)
         values ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $9, $9, $10)
         on conflict (tenant_id, email) where status = 1 do nothing",
    );
    /// One whose time is over makes room for a new one.
    EXPIRE: OfTenant = Statement::new(
        "update invitation
         set status = 5
         where tenant_id = $1 and email = $2 and status = 1 and expires_at <= $3",
    );
    GET: OfTenant = Statement::new(concat!(
        "select ",
        invitation_columns!(""),
        " from invitation
         where tenant_id = $1 and invitation_id = $2",
    ));
    FIND_BY_DIGEST: OfTenant = Statement::new(concat!(
        "select ",
        invitation_columns!(""),
        " from invitation
         where tenant_id = $1 and digest = $2",
    ));
    FORGET: OfTenant = Statement::new(
        "update invitation
         set email = $3
         where tenant_id = $1 and email = $2 and status <> 1",
    );
    FIND_PENDING: OfTenant = Statement::new(concat!(
        "select ",
        invitation_columns!(""),
        " from invitation
         where tenant_id = $1 and email = $2 and status = 1",
    ));
    LIST: OfTenant = Statement::new(concat!(
        "select ",
        invitation_columns!(""),
        " from invitation
         where tenant_id = $1 and invitation_id > $2
           and ($3 = 0 or (status = $3 and (status <> 1 or expires_at > $4)) or ($3 = 5 and status = 1 and expires_at <= $4))
         order by invitation_id
         limit $5",
    ));
    COUNT_PENDING: OfTenant = Statement::new(
        "select count(*) as invitations
         from invitation
         where tenant_id = $1 and status = 1 and expires_at > $2",
    );
    UPDATE: OfTenant = Statement::new(
        "update invitation
         set status = $3, roles = $4, inviter_id = $5, accepted_by = $6, sent_at = $7, expires_at = $8, updated_at = $9,
             version = version + 1
         where tenant_id = $1 and invitation_id = $2 and version = $10",
    );
    SET_DIGEST: OfTenant = Statement::new(
        "update invitation
         set digest = $3
         where tenant_id = $1 and invitation_id = $2",
    );
}

/// An invitation's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct InvitationRow {
    invitation_id: Uuid,
    email: String,
    roles: String,
    status: i64,
    inviter_id: Option<Uuid>,
    opens_tenant: i64,
    accepted_by: Option<Uuid>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    sent_at: Timestamp,
    expires_at: Timestamp,
}

impl TryFrom<InvitationRow> for Invitation {
    type Error = Error;

    fn try_from(row: InvitationRow) -> Result<Self, Error> {
        let roles: RoleNames =
            serde_json::from_str(&row.roles).map_err(|_| Error::internal("an invitation's row holds no roles"))?;
        Ok(Self {
            invitation_id: InvitationId(row.invitation_id),
            email: Email::parse(&row.email).map_err(|_| Error::internal("an invitation's row holds no address"))?,
            roles,
            written: match row.status {
                1 => InvitationStatus::Pending,
                2 => InvitationStatus::Accepted,
                3 => InvitationStatus::Declined,
                4 => InvitationStatus::Revoked,
                _ => InvitationStatus::Expired,
            },
            inviter: row.inviter_id.map(UserId),
            opens_tenant: row.opens_tenant != 0,
            accepted_by: row.accepted_by.map(UserId),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            sent_at: row.sent_at,
            expires_at: row.expires_at,
        })
    }
}

/// The number of a status; as in invitation.proto.
const fn status_number(status: InvitationStatus) -> i64 {
    match status {
        InvitationStatus::Pending => 1,
        InvitationStatus::Accepted => 2,
        InvitationStatus::Declined => 3,
        InvitationStatus::Revoked => 4,
        InvitationStatus::Expired => 5,
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    invitations: i64,
}

/// Inserts a new, pending invitation.
///
/// # Errors
/// `AlreadyInvited` when one is pending for the address.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, invitation: &Invitation, digest: &[u8; 32]) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let now = invitation.created_at;
    tx.execute(&EXPIRE, &[invitation.email.as_str().into(), now.into()]).await?;
    let roles = json(&invitation.roles);
    let args = [
        invitation.invitation_id.0.into(),
        invitation.email.as_str().into(),
        roles.as_str().into(),
        digest.as_slice().into(),
        invitation.inviter.map(|user| user.0).into(),
        i64::from(invitation.opens_tenant).into(),
        invitation.version.into(),
        now.into(),
        invitation.expires_at.into(),
    ];
    if tx.execute(&INSERT, &args).await? == 0 {
        return Err(Error::AlreadyInvited);
    }
    note(tx, invitation.invitation_id);
    Ok(())
}

/// An invitation of the tenant.
///
/// # Errors
/// `InvitationNotFound`.
pub async fn get<S: Scope>(tx: &mut Scoped<S>, id: InvitationId) -> Result<Invitation, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<InvitationRow> = tx.optional(&GET, &[id.0.into()]).await?;
    row.ok_or(Error::InvitationNotFound)?.try_into()
}

/// The invitation that a token opens.
///
/// # Errors
/// `InvitationNotFound` when it opens none, or another token was sent since.
pub async fn find_by_digest<S: Scope>(tx: &mut Scoped<S>, digest: &[u8; 32]) -> Result<Invitation, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<InvitationRow> = tx.optional(&FIND_BY_DIGEST, &[digest.as_slice().into()]).await?;
    row.ok_or(Error::InvitationNotFound)?.try_into()
}

/// The invitation of an address that is written as pending; its time may be over.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_pending<S: Scope>(tx: &mut Scoped<S>, email: &Email) -> Result<Option<Invitation>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<InvitationRow> = tx.optional(&FIND_PENDING, &[email.as_str().into()]).await?;
    row.map(Invitation::try_from).transpose()
}

/// Invitations in the order in which they were made, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(
    tx: &mut Scoped<S>,
    (after, limit): (Uuid, i64),
    status: Option<InvitationStatus>,
    now: Timestamp,
) -> Result<Vec<Invitation>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [after.into(), status.map_or(0, status_number).into(), now.into(), limit.into()];
    let rows: Vec<InvitationRow> = tx.all(&LIST, &args).await?;
    rows.into_iter().map(Invitation::try_from).collect()
}

/// How many invitations hold a seat. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_pending<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Count> = tx.optional(&COUNT_PENDING, &[now.into()]).await?;
    Ok(row.map_or(0, |row| row.invitations))
}

/// Writes a changed invitation and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when it has changed meanwhile.
pub async fn update<S: Scope>(tx: &mut Scoped<S>, invitation: &mut Invitation, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let roles = json(&invitation.roles);
    let args = [
        invitation.invitation_id.0.into(),
        status_number(invitation.written).into(),
        roles.as_str().into(),
        invitation.inviter.map(|user| user.0).into(),
        invitation.accepted_by.map(|user| user.0).into(),
        invitation.sent_at.into(),
        invitation.expires_at.into(),
        now.into(),
        invitation.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    invitation.version += 1;
    invitation.updated_at = now;
    note(tx, invitation.invitation_id);
    Ok(())
}

/// Makes another token the one that opens an invitation.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn set_digest<S: Scope>(tx: &mut Scoped<S>, id: InvitationId, digest: &[u8; 32]) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.execute(&SET_DIGEST, &[id.0.into(), digest.as_slice().into()]).await.map(|_| ())
}

/// Takes an address out of the invitations that are finished.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget(tx: &mut TenantTx, email: &Email, nobody: &Email) -> Result<(), Error> {
    tx.execute(&FORGET, &[email.as_str().into(), nobody.as_str().into()]).await.map(|_| ())
}

fn json(roles: &RoleNames) -> String {
    serde_json::Value::from(roles.texts()).to_string()
}

fn note<S: Scope>(tx: &mut Scoped<S>, id: InvitationId) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Invitation(tenant, id));
    }
}

/// Which tenant's an invitation is.
#[derive(Debug, Clone)]
pub struct Found {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The invitation, as it was a moment ago.
    pub invitation: Invitation,
}
