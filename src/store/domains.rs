//! Rows of custom domains: those that a tenant has added, and, public, whose the proven ones are.

use uuid::Uuid;

use super::feed::Change;
use super::scoped::TenantTx;
use super::tx::{OfTenant, Statement, Value, statements};
use crate::domain::domain::{Domain, DomainName, DomainStatus};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    GET: OfTenant = Statement::new(
        "select domain, domain_id, token, status, verified_at, checked_at, next_check_at, failing_since, problem,
                created_at
         from tenant_domain
         where tenant_id = $1 and domain = $2",
    );
    LIST: OfTenant = Statement::new(
        "select domain, domain_id, token, status, verified_at, checked_at, next_check_at, failing_since, problem,
                created_at
         from tenant_domain
         where tenant_id = $1
         order by domain",
    );
    INSERT: OfTenant = Statement::new(
        "insert into tenant_domain (tenant_id, domain, status, verified_at, checked_at, next_check_at, failing_since,
                                    problem, domain_id, token, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    UPDATE: OfTenant = Statement::new(
        "update tenant_domain
         set status = $3, verified_at = $4, checked_at = $5, next_check_at = $6, failing_since = $7, problem = $8
         where tenant_id = $1 and domain = $2",
    );
    DELETE: OfTenant = Statement::new(
        "delete from tenant_domain
         where tenant_id = $1 and domain = $2",
    );
    CLAIM_HOST: OfTenant = Statement::new(
        "insert into domain_host (tenant_id, domain)
         values ($1, $2)
         on conflict (domain) do nothing",
    );
    RELEASE_HOST: OfTenant = Statement::new(
        "delete from domain_host
         where tenant_id = $1 and domain = $2",
    );
}

#[derive(sqlx::FromRow)]
struct DomainRow {
    domain: String,
    domain_id: Uuid,
    token: String,
    status: i64,
    verified_at: Option<Timestamp>,
    checked_at: Option<Timestamp>,
    next_check_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    problem: String,
    created_at: Timestamp,
}

impl TryFrom<DomainRow> for Domain {
    type Error = Error;

    fn try_from(row: DomainRow) -> Result<Self, Error> {
        Ok(Self {
            domain: DomainName::parse(&row.domain).map_err(|_| Error::internal("a domain's row holds no domain"))?,
            domain_id: row.domain_id,
            token: row.token,
            status: match row.status {
                1 => DomainStatus::Pending,
                2 => DomainStatus::Verified,
                3 => DomainStatus::Lapsed,
                _ => return Err(Error::internal("a domain's row holds no status")),
            },
            verified_at: row.verified_at,
            checked_at: row.checked_at,
            next_check_at: row.next_check_at,
            failing_since: row.failing_since,
            problem: row.problem,
            created_at: row.created_at,
        })
    }
}

/// The name and what changes, from `$2` on.
fn columns(domain: &Domain) -> Vec<Value<'_>> {
    let status: i64 = match domain.status {
        DomainStatus::Pending => 1,
        DomainStatus::Verified => 2,
        DomainStatus::Lapsed => 3,
    };
    vec![
        domain.domain.as_str().into(),
        status.into(),
        domain.verified_at.into(),
        domain.checked_at.into(),
        domain.next_check_at.into(),
        domain.failing_since.into(),
        domain.problem.as_str().into(),
    ]
}

/// A domain of the tenant, if it has added it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find(tx: &mut TenantTx, name: &DomainName) -> Result<Option<Domain>, Error> {
    let row: Option<DomainRow> = tx.optional(&GET, &[name.as_str().into()]).await?;
    row.map(Domain::try_from).transpose()
}

/// The tenant's domains, by name.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Domain>, Error> {
    let rows: Vec<DomainRow> = tx.all(&LIST, &[]).await?;
    rows.into_iter().map(Domain::try_from).collect()
}

/// Inserts a domain that the tenant does not have.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(tx: &mut TenantTx, domain: &Domain) -> Result<(), Error> {
    let mut args = columns(domain);
    let fixed: [Value<'_>; 3] = [domain.domain_id.into(), domain.token.as_str().into(), domain.created_at.into()];
    args.extend(fixed);
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// Writes what a look changed.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn update(tx: &mut TenantTx, domain: &Domain) -> Result<(), Error> {
    tx.execute(&UPDATE, &columns(domain)).await.map(|_| ())
}

/// Removes a domain; it leads nowhere any more.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete(tx: &mut TenantTx, name: &DomainName) -> Result<(), Error> {
    release_host(tx, name).await?;
    tx.execute(&DELETE, &[name.as_str().into()]).await.map(|_| ())
}

/// Makes a proven domain lead to the tenant; whether nobody else had it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn claim_host(tx: &mut TenantTx, name: &DomainName) -> Result<bool, Error> {
    let claimed = tx.execute(&CLAIM_HOST, &[name.as_str().into()]).await? > 0;
    if claimed {
        note(tx, name);
    }
    Ok(claimed)
}

/// Makes a domain lead nowhere, if it led to the tenant.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn release_host(tx: &mut TenantTx, name: &DomainName) -> Result<(), Error> {
    if tx.execute(&RELEASE_HOST, &[name.as_str().into()]).await? > 0 {
        note(tx, name);
    }
    Ok(())
}

fn note(tx: &mut TenantTx, name: &DomainName) {
    let tenant = tx.scope().0;
    tx.changed(Change::Tenant(tenant));
    tx.changed(Change::Host(tenant, name.as_str().to_owned()));
}
