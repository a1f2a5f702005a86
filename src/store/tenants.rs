//! Rows of tenants and their slugs.

use uuid::Uuid;

use super::audit::Audit;
use super::dialect::LOCK_TENANT;
use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::TenantId;
use crate::domain::name::Slug;
use crate::domain::tenant::{SuspendedBy, Suspension, Tenant};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns that a `TenantRow` reads, by name: a prepared `select *` fails when a migration adds one.
macro_rules! tenant_columns {
    () => {
        "tenant_id, slug, display_name, suspend_reason, suspended_by, plan, version, created_at, updated_at, deleted_at, \
         purge_at"
    };
}
pub(super) use tenant_columns;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into tenant (tenant_id, slug, display_name, status, plan, version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    INSERT_SLUG: OfTenant = Statement::new(
        "insert into tenant_slug (tenant_id, slug)
         values ($1, $2)
         on conflict (slug) do nothing",
    );
    UPDATE: OfTenant = Statement::new(
        "update tenant
         set display_name = $2, status = $3, suspend_reason = $4, suspended_by = $5, plan = $6,
             version = version + 1, updated_at = $7, deleted_at = $8, purge_at = $9
         where tenant_id = $1 and version = $10",
    );
}

/// A tenant's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct TenantRow {
    tenant_id: Uuid,
    slug: String,
    display_name: String,
    suspend_reason: Option<String>,
    suspended_by: Option<i64>,
    plan: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    purge_at: Option<Timestamp>,
}

impl TryFrom<TenantRow> for Tenant {
    type Error = Error;

    fn try_from(row: TenantRow) -> Result<Self, Error> {
        let by = |number| if number == 4 { SuspendedBy::Operator } else { SuspendedBy::Member };
        Ok(Self {
            tenant_id: TenantId(row.tenant_id),
            slug: Slug::parse(&row.slug).map_err(|_| Error::internal("a tenant's row holds no slug"))?,
            display_name: row.display_name,
            suspension: row
                .suspended_by
                .map(|number| Suspension { reason: row.suspend_reason.unwrap_or_default(), by: by(number) }),
            plan: row.plan,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            purge_at: row.purge_at,
        })
    }
}

/// The number of a tenant's status; as in access.proto.
const fn status_number(tenant: &Tenant) -> i64 {
    use crate::domain::tenant::TenantStatus::{Active, Deleted, Suspended};
    match tenant.status() {
        Active => 3,
        Suspended => 4,
        Deleted => 6,
    }
}

/// Inserts a new tenant with its slug.
///
/// # Errors
/// `SlugTaken`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, tenant: &Tenant) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [
        tenant.slug.as_str().into(),
        tenant.display_name.as_str().into(),
        status_number(tenant).into(),
        tenant.plan.as_str().into(),
        tenant.version.into(),
        tenant.created_at.into(),
        tenant.updated_at.into(),
    ];
    tx.execute(&INSERT, &args).await?;
    if tx.execute(&INSERT_SLUG, &[tenant.slug.as_str().into()]).await? == 0 {
        return Err(Error::SlugTaken);
    }
    tx.changed(Change::Tenant(tenant.tenant_id));
    tx.changed(Change::Host(tenant.tenant_id, tenant.slug.clone()));
    Ok(())
}

/// Reads the tenant and keeps everybody else from changing it, or its members, until the transaction ends.
///
/// # Errors
/// `TenantNotFound`.
pub async fn lock<S: Scope>(tx: &mut Scoped<S>) -> Result<Tenant, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<TenantRow> = tx.optional(&LOCK_TENANT, &[]).await?;
    row.ok_or(Error::TenantNotFound)?.try_into()
}

/// Writes the changed tenant over `before`, which was read under its lock, and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when the row is not `before` any more.
pub async fn update<S: Scope>(tx: &mut Scoped<S>, before: &Tenant, after: &mut Tenant) -> Result<Audit, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let suspension = after.suspension.as_ref();
    let by = |s: &Suspension| if s.by == SuspendedBy::Operator { 4_i64 } else { 2 };
    let args = [
        after.display_name.as_str().into(),
        status_number(after).into(),
        suspension.map(|s| s.reason.as_str()).into(),
        suspension.map(by).into(),
        after.plan.as_str().into(),
        after.updated_at.into(),
        after.deleted_at.into(),
        after.purge_at.into(),
        before.version.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    after.version = before.version + 1;
    tx.changed(Change::Tenant(after.tenant_id));
    let reason = |t: &Tenant| t.suspension.as_ref().map(|s| s.reason.clone());
    Ok(Audit::of(after.tenant_id.0)
        .field("display_name", before.display_name.as_str(), after.display_name.as_str())
        .field("status", before.status().as_str(), after.status().as_str())
        .field("suspend_reason", reason(before), reason(after))
        .field("plan", before.plan.as_str(), after.plan.as_str()))
}
