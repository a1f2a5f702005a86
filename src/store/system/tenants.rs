//! Reads across tenants of tenants: found by id, slug, domain or another system's id, with what decides on who may enter.

use super::super::Store;
use super::super::roles::{OwnRoleRow, role_columns};
use super::super::tenants::{TenantRow, status_number, tenant_columns};
use super::super::tx::{AcrossTenants, Statement, statements};
use super::{Seen, TenantIdRow, seen};
use crate::domain::domain::DomainName;
use crate::domain::id::TenantId;
use crate::domain::name::Slug;
use crate::domain::role::OwnRole;
use crate::domain::session::Session;
use crate::domain::sso::SsoRule;
use crate::domain::tenant::{Tenant, TenantStatus};
use crate::error::Error;
use crate::time::Timestamp;
use chrono::TimeDelta;
use uuid::Uuid;

statements! {
    /// With the version of the catalogue in force, so that no decision is made by an older one.
    FIND_TENANT: AcrossTenants = Statement::new(concat!(
        "select (select max(version) from catalogue) as catalogue_version, ",
        tenant_columns!(),
        " from tenant where tenant_id = $1",
    ));
    /// The same, with what decides on who may enter: what the tenant asks of sign-ins, and its own identity provider.
    FIND_GUARDED_TENANT: AcrossTenants = Statement::new(seen!(
        "(select max(version) from catalogue) as catalogue_version,
                (select mfa_required from tenant_settings s where s.tenant_id = $1) as mfa_required,
                (select sign_in_methods from tenant_settings s where s.tenant_id = $1) as sign_in_methods,
                (select session_length_seconds from tenant_settings s where s.tenant_id = $1) as session_length,
                (select connection_id from sso_connection c where c.tenant_id = $1) as connection_id,
                (select required from sso_connection c where c.tenant_id = $1) as sso_required, ",
        tenant_columns!(),
        " from tenant where tenant_id = $1",
    ));
    /// Whether the tenant $1 has ended a session for itself: $2 whose, $3 which, $4 no session's id, $5 when it began.
    FIND_SESSION_END: AcrossTenants = Statement::new(seen!(
        "min(e.ended_at) as ended_at
         from session_end e
         where e.tenant_id = $1 and e.user_id = $2
           and (e.session_id = $3 or (e.session_id = $4 and e.ended_at >= $5))
         having count(*) > 0",
    ));
    FIND_SLUG: AcrossTenants = Statement::new(seen!(
        "tenant_id, alias_until
         from tenant_slug
         where slug = $1",
    ));
    /// Also while it is an alias that leads nowhere any more and has not been cleared away.
    FIND_SLUG_HOLDER: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant_slug
         where slug = $1",
    );
    FIND_IMPORTED_TENANT: AcrossTenants = Statement::new(
        "select tenant_id
         from tenant_external_id
         where external_id = $1",
    );
    FIND_IMPORTED_PLACE: AcrossTenants = Statement::new(
        "select e.tenant_id, a.user_id, m.membership_id
         from tenant_external_id e
         join user_account a on a.external_id = $2
         left join membership m on m.tenant_id = e.tenant_id and m.user_id = a.user_id and m.status <> 3
         where e.external_id = $1",
    );
    FIND_DOMAIN_HOST: AcrossTenants = Statement::new(seen!(
        "tenant_id
         from domain_host
         where domain = $1",
    ));
    FIND_DOMAIN: AcrossTenants = Statement::new(
        "select tenant_id, domain
         from tenant_domain
         where domain_id = $1",
    );
    LIST_OWN_ROLES: AcrossTenants = Statement::new(concat!(
        "select ",
        role_columns!(),
        " from tenant_role
         where tenant_id = $1
         order by name",
    ));
    LIST_TENANTS: AcrossTenants = Statement::new(concat!(
        "select ",
        tenant_columns!(),
        " from tenant
         where tenant_id > $1
           and (($2 = 0 and status <> 6) or status = $2 or (status <> 6 and settle_at <= $7))
           and ($3 = '' or plan = $3 or settle_at <= $7)
           and ($4 = '' or (slug >= $4 and slug < $5))
           and (purge_at is null or purge_at > $7)
         order by tenant_id
         limit $6",
    ));
}

/// Where a membership is imported to.
#[derive(Debug, sqlx::FromRow)]
pub struct ImportedPlaceRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The membership, when it is there already.
    pub membership_id: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct DomainIdRow {
    tenant_id: Uuid,
    domain: String,
}

#[derive(sqlx::FromRow)]
struct SessionEndRow {
    ended_at: Timestamp,
}

#[derive(sqlx::FromRow)]
struct SlugRow {
    tenant_id: Uuid,
    alias_until: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct VersionedTenantRow {
    catalogue_version: Option<i64>,
    #[sqlx(flatten)]
    tenant: TenantRow,
}

#[derive(sqlx::FromRow)]
struct GuardedTenantRow {
    mfa_required: Option<i64>,
    sign_in_methods: Option<String>,
    session_length: Option<i64>,
    connection_id: Option<Uuid>,
    sso_required: Option<i64>,
    #[sqlx(flatten)]
    tenant: VersionedTenantRow,
}

/// A tenant with what decides on who may enter it.
#[derive(Debug, Clone)]
pub struct GuardedTenant {
    /// The tenant, as it is written.
    pub tenant: Tenant,
    /// The version of the catalogue in force.
    pub catalogue_version: i64,
    /// Whether sign-ins must have had two steps, when the tenant says so itself.
    pub mfa_required: Option<bool>,
    /// In which ways they may be made, when the tenant says so itself.
    pub sign_in_methods: Option<Vec<String>>,
    /// How long a session is good here, when the tenant says so itself.
    pub session_length: Option<TimeDelta>,
    /// What the tenant's own identity provider means for who enters; none without one.
    pub sso: Option<SsoRule>,
}

/// To whom a slug leads.
#[derive(Debug, Clone, Copy)]
pub struct SlugHolder {
    tenant: TenantId,
    /// Of an earlier slug: until when it leads there.
    until: Option<Timestamp>,
}

impl SlugHolder {
    /// To whom it leads at an instant.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Option<TenantId> {
        self.until.is_none_or(|until| now < until).then_some(self.tenant)
    }
}

/// What an operator's list is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    /// None is all but deleted ones.
    pub status: Option<TenantStatus>,
    /// Empty is every plan.
    pub plan: String,
    /// Empty is every slug.
    pub slug_prefix: String,
}

impl Store {
    /// A tenant by id, whatever its status and as it is written, with the version of the catalogue in force.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_tenant(&self, tenant: TenantId) -> Result<Option<(Tenant, i64)>, Error> {
        let row: Option<VersionedTenantRow> =
            self.across_tenants().await?.optional(&FIND_TENANT, &[tenant.0.into()]).await?;
        row.map(|row| Ok((row.tenant.try_into()?, row.catalogue_version.unwrap_or(0)))).transpose()
    }

    /// `find_tenant`, with what decides on who may enter, in the same look.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_guarded_tenant(&self, tenant: TenantId) -> Result<Seen<GuardedTenant>, Error> {
        let seen: Seen<GuardedTenantRow> = self.see(&FIND_GUARDED_TENANT, &[tenant.0.into()]).await?;
        seen.try_map(|row| {
            let required = row.sso_required == Some(1);
            let methods = row.sign_in_methods.map(|list| serde_json::from_str(&list)).transpose();
            Ok(GuardedTenant {
                sso: row.connection_id.map(|connection_id| SsoRule { connection_id, required }),
                tenant: row.tenant.tenant.try_into()?,
                catalogue_version: row.tenant.catalogue_version.unwrap_or(0),
                mfa_required: row.mfa_required.map(|required| required == 1),
                sign_in_methods: methods.map_err(|_| Error::internal("a tenant's ways to sign in do not read"))?,
                session_length: row.session_length.map(TimeDelta::seconds),
            })
        })
    }

    /// Since when a session is over for a tenant that has ended it for itself.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_session_end(&self, tenant: TenantId, session: &Session) -> Result<Seen<Timestamp>, Error> {
        let (user, id) = (session.user_id.0, session.session_id.0);
        let args = [tenant.0.into(), user.into(), id.into(), Uuid::nil().into(), session.created_at.into()];
        let seen: Seen<SessionEndRow> = self.see(&FIND_SESSION_END, &args).await?;
        seen.try_map(|row| Ok(row.ended_at))
    }

    /// To whom a slug leads, as its own or as an earlier one, and until when in that case.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_slug(&self, slug: &Slug) -> Result<Seen<SlugHolder>, Error> {
        let seen: Seen<SlugRow> = self.see(&FIND_SLUG, &[slug.as_str().into()]).await?;
        seen.try_map(|row| Ok(SlugHolder { tenant: TenantId(row.tenant_id), until: row.alias_until }))
    }

    /// Whether nobody else can take a slug.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn is_slug_held(&self, slug: &Slug) -> Result<bool, Error> {
        let args = [slug.as_str().into()];
        let row: Option<TenantIdRow> = self.across_tenants().await?.optional(&FIND_SLUG_HOLDER, &args).await?;
        Ok(row.is_some())
    }

    /// The tenant that another system knows by this id.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_imported_tenant(&self, external_id: &str) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_IMPORTED_TENANT, &[external_id.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// The tenant and the person whom another system knows by these ids, with the membership between them; none unless both
    /// are there.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_imported_place(&self, tenant: &str, user: &str) -> Result<Option<ImportedPlaceRow>, Error> {
        self.across_tenants().await?.optional(&FIND_IMPORTED_PLACE, &[tenant.into(), user.into()]).await
    }

    /// Who has proven a domain.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_domain_host(&self, domain: &DomainName) -> Result<Seen<TenantId>, Error> {
        let seen: Seen<TenantIdRow> = self.see(&FIND_DOMAIN_HOST, &[domain.as_str().into()]).await?;
        seen.try_map(|row| Ok(TenantId(row.tenant_id)))
    }

    /// Which domain of which tenant has this id; for the job that looks at it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_domain(&self, domain_id: Uuid) -> Result<Option<(TenantId, DomainName)>, Error> {
        let row: Option<DomainIdRow> = self.across_tenants().await?.optional(&FIND_DOMAIN, &[domain_id.into()]).await?;
        let Some(row) = row else { return Ok(None) };
        let domain = DomainName::parse(&row.domain).map_err(Error::internal)?;
        Ok(Some((TenantId(row.tenant_id), domain)))
    }

    /// The roles that a tenant has made for itself, by name.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_own_roles(&self, tenant: TenantId) -> Result<Vec<OwnRole>, Error> {
        let rows: Vec<OwnRoleRow> = self.across_tenants().await?.all(&LIST_OWN_ROLES, &[tenant.0.into()]).await?;
        rows.into_iter().map(OwnRole::try_from).collect()
    }

    /// All tenants after one of them, oldest first, for operators, as they are written. Of those that time has changed
    /// since, also ones that the filter may not mean any more, or not yet: it must be asked again of the settled ones.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_tenants(
        &self,
        filter: &TenantFilter,
        (after, limit): (Uuid, i64),
        now: Timestamp,
    ) -> Result<Vec<Tenant>, Error> {
        // Slugs are ASCII below '~', so the prefix and everything that begins with it sort before the prefix and '~'.
        let end = format!("{}~", filter.slug_prefix);
        let args = [
            after.into(),
            filter.status.map_or(0, status_number).into(),
            filter.plan.as_str().into(),
            filter.slug_prefix.as_str().into(),
            end.as_str().into(),
            limit.into(),
            now.into(),
        ];
        let rows: Vec<TenantRow> = self.across_tenants().await?.all(&LIST_TENANTS, &args).await?;
        rows.into_iter().map(Tenant::try_from).collect()
    }
}
