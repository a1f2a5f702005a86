//! Rows of memberships.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::{MembershipId, UserId};
use crate::domain::membership::{MemberStatus, Membership};
use crate::domain::role::RoleName;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into membership (tenant_id, membership_id, user_id, role, status, version, joined_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (tenant_id, user_id) where status <> 3 do nothing",
    );
    FIND: OfTenant = Statement::new(
        "select membership_id, user_id, role, status, version, joined_at, updated_at
         from membership
         where tenant_id = $1 and user_id = $2 and status <> 3",
    );
    COUNT_ACTIVE_IN_ROLE: OfTenant = Statement::new(
        "select count(*) as members
         from membership
         where tenant_id = $1 and role = $2 and status = 1",
    );
    COUNT_EVER: OfTenant = Statement::new(
        "select count(*) as members
         from membership
         where tenant_id = $1 and user_id = $2",
    );
    COUNT_ACTIVE: OfTenant = Statement::new(
        "select count(*) as members
         from membership
         where tenant_id = $1 and status = 1",
    );
    LIST: OfTenant = Statement::new(
        "select membership_id, user_id, role, status, version, joined_at, updated_at
         from membership
         where tenant_id = $1 and membership_id > $2 and status <> 3 and ($3 = 0 or status = $3)
         order by membership_id
         limit $4",
    );
    UPDATE: OfTenant = Statement::new(
        "update membership
         set role = $3, status = $4, version = version + 1, updated_at = $5
         where tenant_id = $1 and membership_id = $2 and version = $6",
    );
}

/// A membership's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct MembershipRow {
    membership_id: Uuid,
    user_id: Uuid,
    role: String,
    status: i64,
    version: i64,
    joined_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<MembershipRow> for Membership {
    type Error = Error;

    fn try_from(row: MembershipRow) -> Result<Self, Error> {
        Ok(Self {
            membership_id: MembershipId(row.membership_id),
            user_id: UserId(row.user_id),
            role: RoleName::new(&row.role),
            status: match row.status {
                1 => MemberStatus::Active,
                2 => MemberStatus::Suspended,
                _ => MemberStatus::Removed,
            },
            version: row.version,
            joined_at: row.joined_at,
            updated_at: row.updated_at,
        })
    }
}

/// The number of a status; as in types.proto.
const fn status_number(status: MemberStatus) -> i64 {
    match status {
        MemberStatus::Active => 1,
        MemberStatus::Suspended => 2,
        MemberStatus::Removed => 3,
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    members: i64,
}

/// Inserts a new membership.
///
/// # Errors
/// `AlreadyMember`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, member: &Membership) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [
        member.membership_id.0.into(),
        member.user_id.0.into(),
        member.role.as_str().into(),
        status_number(member.status).into(),
        member.version.into(),
        member.joined_at.into(),
        member.updated_at.into(),
    ];
    if tx.execute(&INSERT, &args).await? == 0 {
        return Err(Error::AlreadyMember);
    }
    note(tx, member.user_id);
    Ok(())
}

/// A user's membership, unless removed.
///
/// # Errors
/// `MemberNotFound`.
pub async fn get<S: Scope>(tx: &mut Scoped<S>, user: UserId) -> Result<Membership, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<MembershipRow> = tx.optional(&FIND, &[user.0.into()]).await?;
    row.ok_or(Error::MemberNotFound)?.try_into()
}

/// How many active members have a role. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_active_in<S: Scope>(tx: &mut Scoped<S>, role: &RoleName) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Count> = tx.optional(&COUNT_ACTIVE_IN_ROLE, &[role.as_str().into()]).await?;
    Ok(row.map_or(0, |row| row.members))
}

/// Whether a user is a member or ever was one.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn was_ever<S: Scope>(tx: &mut Scoped<S>, user: UserId) -> Result<bool, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Count> = tx.optional(&COUNT_EVER, &[user.0.into()]).await?;
    Ok(row.is_some_and(|row| row.members > 0))
}

/// How many members are active: the seats that are taken. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_active<S: Scope>(tx: &mut Scoped<S>) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Count> = tx.optional(&COUNT_ACTIVE, &[]).await?;
    Ok(row.map_or(0, |row| row.members))
}

/// Members in the order in which they joined, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(
    tx: &mut Scoped<S>,
    after: Uuid,
    status: Option<MemberStatus>,
    limit: i64,
) -> Result<Vec<Membership>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let status = status.map_or(0, status_number);
    let rows: Vec<MembershipRow> = tx.all(&LIST, &[after.into(), status.into(), limit.into()]).await?;
    rows.into_iter().map(Membership::try_from).collect()
}

/// Writes the changed role and status over `before` and brings the version up to date.
///
/// # Errors
/// `EtagMismatch` when the row is not `before` any more.
pub async fn update<S: Scope>(tx: &mut Scoped<S>, after: &mut Membership, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [
        after.membership_id.0.into(),
        after.role.as_str().into(),
        status_number(after.status).into(),
        now.into(),
        after.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    after.version += 1;
    after.updated_at = now;
    note(tx, after.user_id);
    Ok(())
}

fn note<S: Scope>(tx: &mut Scoped<S>, user: UserId) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Membership(tenant, user));
    }
}
