//! Rows of memberships.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::{MembershipId, UserId};
use crate::domain::membership::{MemberStatus, Membership};
use crate::domain::role::{RoleName, RoleNames};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of a `MembershipRow`; `m` is the membership, `$1` its tenant.
macro_rules! membership_columns {
    () => {
        "m.membership_id, m.user_id, m.role, m.status, m.version, m.joined_at, m.updated_at, m.last_active_at,
                (select string_agg(r.role, ' ') from membership_role r
                 where r.tenant_id = $1 and r.membership_id = m.membership_id) as further_roles"
    };
}
pub(super) use membership_columns;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into membership (tenant_id, membership_id, user_id, role, status, version, joined_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (tenant_id, user_id) where status <> 3 do nothing",
    );
    INSERT_ROLE: OfTenant = Statement::new(
        "insert into membership_role (tenant_id, membership_id, role)
         values ($1, $2, $3)",
    );
    DELETE_ROLES: OfTenant = Statement::new(
        "delete from membership_role
         where tenant_id = $1 and membership_id = $2",
    );
    FIND: OfTenant = Statement::new(concat!(
        "select ",
        membership_columns!(),
        " from membership m
         where m.tenant_id = $1 and m.user_id = $2 and m.status <> 3",
    ));
    /// Of the top role alone: who has it has it in this column.
    COUNT_ACTIVE_IN_TOP: OfTenant = Statement::new(
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
    LIST: OfTenant = Statement::new(concat!(
        "select ",
        membership_columns!(),
        " from membership m
         where m.tenant_id = $1 and m.membership_id > $2 and m.status <> 3 and ($3 = 0 or m.status = $3)
         order by m.membership_id
         limit $4",
    ));
    LIST_IN_ROLE: OfTenant = Statement::new(concat!(
        "select ",
        membership_columns!(),
        " from membership m
         where m.tenant_id = $1 and m.membership_id > $2 and m.status <> 3
           and (m.role = $3 or m.membership_id in (
                select f.membership_id from membership_role f where f.tenant_id = $1 and f.role = $3))
         order by m.membership_id
         limit $4",
    ));
    UPDATE: OfTenant = Statement::new(
        "update membership
         set role = $3, status = $4, version = version + 1, updated_at = $5
         where tenant_id = $1 and membership_id = $2 and version = $6",
    );
    NOTE_ACTIVE: OfTenant = Statement::new(
        "update membership
         set last_active_at = $3
         where tenant_id = $1 and membership_id = $2 and (last_active_at is null or last_active_at < $3)",
    );
}

/// A membership's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct MembershipRow {
    membership_id: Uuid,
    user_id: Uuid,
    role: String,
    further_roles: Option<String>,
    status: i64,
    version: i64,
    joined_at: Timestamp,
    updated_at: Timestamp,
    last_active_at: Option<Timestamp>,
}

/// The roles that a row holds.
pub(super) fn role_names(first: &str, further: Option<&str>) -> RoleNames {
    RoleNames::with(RoleName::new(first), further.unwrap_or_default().split_whitespace().map(RoleName::new))
}

impl TryFrom<MembershipRow> for Membership {
    type Error = Error;

    fn try_from(row: MembershipRow) -> Result<Self, Error> {
        Ok(Self {
            membership_id: MembershipId(row.membership_id),
            user_id: UserId(row.user_id),
            roles: role_names(&row.role, row.further_roles.as_deref()),
            status: match row.status {
                1 => MemberStatus::Active,
                2 => MemberStatus::Suspended,
                _ => MemberStatus::Removed,
            },
            version: row.version,
            joined_at: row.joined_at,
            updated_at: row.updated_at,
            last_active_at: row.last_active_at,
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

/// Inserts a new membership. `top` is the tenant's top role.
///
/// # Errors
/// `AlreadyMember`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, member: &Membership, top: &RoleName) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let first = first(&member.roles, top);
    let args = [
        member.membership_id.0.into(),
        member.user_id.0.into(),
        first.as_str().into(),
        status_number(member.status).into(),
        member.version.into(),
        member.joined_at.into(),
        member.updated_at.into(),
    ];
    if tx.execute(&INSERT, &args).await? == 0 {
        return Err(Error::AlreadyMember);
    }
    insert_further(tx, member, first).await?;
    note(tx, member.user_id);
    Ok(())
}

/// The role that stands in the membership's own row: the top role, if it is one of them.
fn first<'r>(roles: &'r RoleNames, top: &'r RoleName) -> &'r RoleName {
    if roles.contains(top) { top } else { roles.iter().next().unwrap_or(top) }
}

async fn insert_further<S: Scope>(tx: &mut Scoped<S>, member: &Membership, first: &RoleName) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    for role in member.roles.iter().filter(|role| *role != first) {
        tx.execute(&INSERT_ROLE, &[member.membership_id.0.into(), role.as_str().into()]).await?;
    }
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

/// How many active members have the top role. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn count_active_in_top<S: Scope>(tx: &mut Scoped<S>, top: &RoleName) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Count> = tx.optional(&COUNT_ACTIVE_IN_TOP, &[top.as_str().into()]).await?;
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

/// Members who have a role, in the order in which they joined, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_in_role<S: Scope>(
    tx: &mut Scoped<S>,
    role: &RoleName,
    (after, limit): (Uuid, i64),
) -> Result<Vec<Membership>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let rows: Vec<MembershipRow> = tx.all(&LIST_IN_ROLE, &[after.into(), role.as_str().into(), limit.into()]).await?;
    rows.into_iter().map(Membership::try_from).collect()
}

/// Writes the changed roles and status over `before` and brings the version up to date. `top` is the tenant's top role.
///
/// # Errors
/// `EtagMismatch` when the row is not `before` any more.
pub async fn update<S: Scope>(
    tx: &mut Scoped<S>,
    (before, after): (&Membership, &mut Membership),
    top: &RoleName,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let first = first(&after.roles, top).clone();
    let args = [
        after.membership_id.0.into(),
        first.as_str().into(),
        status_number(after.status).into(),
        now.into(),
        after.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    if after.roles != before.roles {
        if before.roles.iter().count() > 1 {
            tx.execute(&DELETE_ROLES, &[after.membership_id.0.into()]).await?;
        }
        insert_further(tx, after, &first).await?;
    }
    after.version += 1;
    after.updated_at = now;
    note(tx, after.user_id);
    Ok(())
}

/// Notes when a member was last active, unless something newer is known. No version, no change that anybody follows.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn note_active<S: Scope>(tx: &mut Scoped<S>, member: MembershipId, at: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.execute(&NOTE_ACTIVE, &[member.0.into(), at.into()]).await.map(|_| ())
}

fn note<S: Scope>(tx: &mut Scoped<S>, user: UserId) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Membership(tenant, user));
    }
}
