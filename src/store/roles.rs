//! Rows of the roles that tenants make for themselves. Every change of them raises the tenant's `roles_version`, under the
//! tenant's lock.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::TenantTx;
use super::tx::{OfTenant, Statement, statements};
use super::{Scope, Scoped, scoped::RunsIn};
use crate::domain::id::RoleId;
use crate::domain::role::{OwnRole, Permissions, Rank, RoleName};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns of an `OwnRoleRow`.
macro_rules! role_columns {
    () => {
        "role_id, name, rank, permissions, description, version, created_at, updated_at"
    };
}
pub(super) use role_columns;

statements! {
    LIST: OfTenant = Statement::new(concat!(
        "select ",
        role_columns!(),
        " from tenant_role
         where tenant_id = $1
         order by name",
    ));
    INSERT: OfTenant = Statement::new(
        "insert into tenant_role (tenant_id, name, role_id, rank, permissions, description, version, created_at,
                                  updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    );
    UPDATE: OfTenant = Statement::new(
        "update tenant_role
         set rank = $3, permissions = $4, description = $5, updated_at = $6, version = version + 1
         where tenant_id = $1 and name = $2 and version = $7",
    );
    DELETE: OfTenant = Statement::new(
        "delete from tenant_role
         where tenant_id = $1 and name = $2",
    );
    RAISE_VERSION: OfTenant = Statement::new(
        "update tenant
         set roles_version = roles_version + 1
         where tenant_id = $1",
    );
    /// Those of a role who have it besides another, first: their version rises, whatever the next statements find.
    RAISE_HOLDERS: OfTenant = Statement::new(
        "update membership
         set version = version + 1, updated_at = $3
         where tenant_id = $1 and status <> 3
           and membership_id in (select f.membership_id from membership_role f where f.tenant_id = $1 and f.role = $2)",
    );
    /// Unless the member has the new role already.
    REPLACE_FURTHER: OfTenant = Statement::new(
        "update membership_role
         set role = $3
         where tenant_id = $1 and role = $2
           and membership_id not in (select f.membership_id from membership_role f where f.tenant_id = $1 and f.role = $3)
           and membership_id not in (select m.membership_id from membership m where m.tenant_id = $1 and m.role = $3)",
    );
    DELETE_FURTHER: OfTenant = Statement::new(
        "delete from membership_role
         where tenant_id = $1 and role = $2",
    );
    /// The new role is about to stand in the membership's own row.
    DELETE_DOUBLE: OfTenant = Statement::new(
        "delete from membership_role
         where tenant_id = $1 and role = $3
           and membership_id in (select m.membership_id from membership m where m.tenant_id = $1 and m.role = $2)",
    );
    REPLACE_FIRST: OfTenant = Statement::new(
        "update membership
         set role = $3, version = version + 1, updated_at = $4
         where tenant_id = $1 and role = $2 and status <> 3",
    );
}

/// A row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct OwnRoleRow {
    role_id: Uuid,
    name: String,
    rank: i64,
    permissions: String,
    description: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<OwnRoleRow> for OwnRole {
    type Error = Error;

    fn try_from(row: OwnRoleRow) -> Result<Self, Error> {
        let permissions: Permissions =
            serde_json::from_str(&row.permissions).map_err(|_| Error::internal("a role's row holds no permissions"))?;
        Ok(Self {
            role_id: RoleId(row.role_id),
            name: RoleName::new(&row.name),
            rank: Rank(row.rank),
            permissions,
            description: row.description,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The tenant's own roles, by name.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(tx: &mut Scoped<S>) -> Result<Vec<OwnRole>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let rows: Vec<OwnRoleRow> = tx.all(&LIST, &[]).await?;
    rows.into_iter().map(OwnRole::try_from).collect()
}

/// Inserts a role, whose name was seen to be free under the tenant's lock.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(tx: &mut TenantTx, role: &OwnRole) -> Result<(), Error> {
    let permissions = json(&role.permissions);
    let args = [
        role.name.as_str().into(),
        role.role_id.0.into(),
        role.rank.0.into(),
        permissions.as_str().into(),
        role.description.as_str().into(),
        role.version.into(),
        role.created_at.into(),
    ];
    tx.execute(&INSERT, &args).await?;
    changed(tx).await
}

/// Writes a changed role and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when it has changed meanwhile.
pub async fn update(tx: &mut TenantTx, role: &mut OwnRole, now: Timestamp) -> Result<(), Error> {
    let permissions = json(&role.permissions);
    let args = [
        role.name.as_str().into(),
        role.rank.0.into(),
        permissions.as_str().into(),
        role.description.as_str().into(),
        now.into(),
        role.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    role.version += 1;
    role.updated_at = now;
    changed(tx).await
}

/// Deletes a role that nobody has.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete(tx: &mut TenantTx, name: &RoleName) -> Result<(), Error> {
    tx.execute(&DELETE, &[name.as_str().into()]).await?;
    changed(tx).await
}

/// Gives everybody who has a role another one instead, which is not the top role; some may have had it already.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn replace(tx: &mut TenantTx, role: &RoleName, by: &RoleName, now: Timestamp) -> Result<(), Error> {
    let (role, by) = (role.as_str(), by.as_str());
    tx.execute(&RAISE_HOLDERS, &[role.into(), now.into()]).await?;
    tx.execute(&REPLACE_FURTHER, &[role.into(), by.into()]).await?;
    tx.execute(&DELETE_FURTHER, &[role.into()]).await?;
    tx.execute(&DELETE_DOUBLE, &[role.into(), by.into()]).await?;
    tx.execute(&REPLACE_FIRST, &[role.into(), by.into(), now.into()]).await.map(|_| ())
}

/// One row of the feed for all that the change of a role means, however many members have it.
async fn changed(tx: &mut TenantTx) -> Result<(), Error> {
    tx.execute(&RAISE_VERSION, &[]).await?;
    let tenant = tx.scope().0;
    tx.changed(Change::Roles(tenant));
    Ok(())
}

fn json(permissions: &Permissions) -> String {
    serde_json::Value::from(permissions.names()).to_string()
}
