//! Rows of slugs: the one that is a tenant's own, and earlier ones that lead to it for a while.

use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::name::Slug;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into tenant_slug (tenant_id, slug)
         values ($1, $2)
         on conflict (slug) do nothing",
    );
    TAKE_BACK: OfTenant = Statement::new(
        "update tenant_slug
         set alias_until = null
         where tenant_id = $1 and slug = $2 and alias_until is not null",
    );
    RETIRE: OfTenant = Statement::new(
        "update tenant_slug
         set alias_until = $3
         where tenant_id = $1 and slug = $2",
    );
    LIST_ALIASES: OfTenant = Statement::new(
        "select slug, alias_until
         from tenant_slug
         where tenant_id = $1 and alias_until is not null
         order by alias_until, slug",
    );
    DELETE_EXPIRED: OfTenant = Statement::new(
        "delete from tenant_slug
         where tenant_id = $1 and alias_until <= $2",
    );
}

/// An earlier slug of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The slug.
    pub slug: Slug,
    /// Until when it leads to the tenant.
    pub until: Timestamp,
}

#[derive(sqlx::FromRow)]
struct AliasRow {
    slug: String,
    alias_until: Timestamp,
}

/// Takes a slug that nobody has.
///
/// # Errors
/// `SlugTaken`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, slug: &Slug) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if tx.execute(&INSERT, &[slug.as_str().into()]).await? == 0 {
        return Err(Error::SlugTaken);
    }
    note(tx, slug);
    Ok(())
}

/// Takes a slug that nobody has, or that was the tenant's own before.
///
/// # Errors
/// `SlugTaken`.
pub async fn take(tx: &mut TenantTx, slug: &Slug) -> Result<(), Error> {
    if tx.execute(&TAKE_BACK, &[slug.as_str().into()]).await? == 0 {
        return insert(tx, slug).await;
    }
    note(tx, slug);
    Ok(())
}

/// Makes a slug an earlier one, which leads to the tenant until then.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn retire(tx: &mut TenantTx, slug: &Slug, until: Timestamp) -> Result<(), Error> {
    tx.execute(&RETIRE, &[slug.as_str().into(), until.into()]).await?;
    note(tx, slug);
    Ok(())
}

/// The earlier slugs of the tenant, the next to expire first; also those that are over and were not cleared away.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_aliases(tx: &mut TenantTx) -> Result<Vec<Alias>, Error> {
    let rows: Vec<AliasRow> = tx.all(&LIST_ALIASES, &[]).await?;
    let alias = |row: AliasRow| {
        let slug = Slug::parse(&row.slug).map_err(Error::internal)?;
        Ok(Alias { slug, until: row.alias_until })
    };
    rows.into_iter().map(alias).collect()
}

/// Gives earlier slugs free that lead to the tenant no more. What is left, the next to expire first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_expired(tx: &mut TenantTx, now: Timestamp) -> Result<Vec<Alias>, Error> {
    let mut aliases = list_aliases(tx).await?;
    let over: Vec<Alias> = aliases.extract_if(.., |alias| alias.until <= now).collect();
    if !over.is_empty() {
        tx.execute(&DELETE_EXPIRED, &[now.into()]).await?;
    }
    for alias in over {
        note(tx, &alias.slug);
    }
    Ok(aliases)
}

/// Notes that a slug may lead elsewhere now.
fn note<S: Scope>(tx: &mut Scoped<S>, slug: &Slug) {
    if let Some(tenant) = tx.scope().tenant() {
        tx.changed(Change::Host(tenant, slug.as_str().to_owned()));
    }
}
