//! Imports: people, tenants and memberships from another system, each by the id that it has there. An item that is there
//! already changes nothing, so an import that broke off is repeated from the start.

use std::sync::Arc;

use uuid::Uuid;

use super::App;
use super::invitations::finish_pending;
use super::seats::check_seats;
use super::tenants::new_tenant;
use crate::ctx::Ctx;
use crate::decide::roles::together;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::{MembershipId, TenantId, UserId};
use crate::domain::import::Elsewhere;
use crate::domain::membership::{MemberStatus, Membership};
use crate::domain::name::{Email, Slug};
use crate::domain::plan::Cycle;
use crate::domain::role::RoleNames;
use crate::domain::settings::Settings;
use crate::domain::tenant::{SuspendedBy, Suspension};
use crate::domain::user::User;
use crate::entropy;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, InTenant, InTenantAsUser, memberships, settings, users};
use crate::time::Timestamp;

/// One thing to import, read and checked.
#[derive(Debug)]
pub enum Item {
    /// A person.
    User(ImportUser),
    /// A tenant.
    Tenant(Box<ImportTenant>),
    /// A person's place in a tenant.
    Membership(ImportMembership),
}

/// A person to import.
#[derive(Debug)]
pub struct ImportUser {
    /// The id that another system knows them by.
    pub external_id: String,
    /// Their address.
    pub email: Email,
    /// The name that people see.
    pub display_name: String,
    /// A hash that was checked; none when the person has to reset their password.
    pub password_hash: Option<String>,
    /// When the account was made; now unless said.
    pub created_at: Option<Timestamp>,
}

/// A tenant to import.
#[derive(Debug)]
pub struct ImportTenant {
    /// The id that another system knows it by.
    pub external_id: String,
    /// Its name in URLs.
    pub slug: Slug,
    /// The name that people see.
    pub display_name: String,
    /// Its plan; the catalogue's default when empty.
    pub plan: String,
    /// How long a period is; the plan's shortest unless said.
    pub cycle: Option<Cycle>,
    /// Where its subscription stood.
    pub elsewhere: Elsewhere,
    /// Why the platform has suspended it; empty when it has not.
    pub suspend_reason: String,
    /// What it has set itself.
    pub settings: Settings,
    /// When it was created; now unless said.
    pub created_at: Option<Timestamp>,
}

/// A membership to import.
#[derive(Debug)]
pub struct ImportMembership {
    /// The tenant's id elsewhere.
    pub tenant: String,
    /// The person's id elsewhere.
    pub user: String,
    /// The roles, which may be the tenant's own.
    pub roles: RoleNames,
    /// Whether they may not act.
    pub suspended: bool,
    /// When they joined; now unless said.
    pub joined_at: Option<Timestamp>,
    /// Whether it is where the person's calls go when nothing else names a tenant.
    pub default: bool,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is there now.
    Created(Uuid),
    /// It was there before.
    Unchanged(Uuid),
}

/// Why an item was refused, and which of its fields is to blame; empty when it is not one alone.
#[derive(Debug)]
pub struct Refused {
    /// The field.
    pub field: &'static str,
    /// The reason.
    pub error: Error,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { field: "", error }
    }
}

impl Item {
    /// What no two items that run at the same time may share: whatever one of them makes and another refers to or would
    /// take as well.
    #[must_use]
    pub fn claims(&self) -> Vec<String> {
        match self {
            Self::User(user) => vec![format!("user {}", user.external_id), format!("email {}", user.email.as_str())],
            Self::Tenant(tenant) => {
                vec![format!("tenant {}", tenant.external_id), format!("slug {}", tenant.slug.as_str())]
            }
            Self::Membership(place) => vec![format!("tenant {}", place.tenant), format!("user {}", place.user)],
        }
    }
}

impl App {
    /// The catalogue that an import begins with.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn import_catalogue(&self) -> Result<Arc<Catalogue>, Error> {
        self.plane.catalogues.newest(&self.store).await
    }

    /// Imports one item, in a transaction of its own.
    ///
    /// # Errors
    /// `EmailTaken`, `SlugTaken`, `ExternalIdTaken`, `ExternalIdUnknown`, `PlanUnknown`, `SeatsExhausted`, `TenantDeleted`,
    /// `FieldsInvalid`; and what is no fault of the item's, such as `DatabaseUnavailable`.
    pub async fn import(&self, ctx: &Ctx, catalogue: &Catalogue, item: &Item) -> Result<Imported, Refused> {
        match self.try_import(ctx, catalogue, item).await {
            // Somebody was faster. Who resends a stream that was cut meets the last items of the first one still under way:
            // what is taken may be this very item by now.
            Err(Refused {
                error: Error::EmailTaken | Error::SlugTaken | Error::ExternalIdTaken | Error::AlreadyMember,
                ..
            }) => self.try_import(ctx, catalogue, item).await,
            done => done,
        }
    }

    async fn try_import(&self, ctx: &Ctx, catalogue: &Catalogue, item: &Item) -> Result<Imported, Refused> {
        match item {
            Item::User(user) => self.import_user(ctx, user).await,
            Item::Tenant(tenant) => self.import_tenant(ctx, catalogue, tenant).await,
            Item::Membership(place) => self.import_membership(ctx, catalogue, place).await,
        }
    }

    async fn import_user(&self, ctx: &Ctx, item: &ImportUser) -> Result<Imported, Refused> {
        if let Some(there) = self.store.find_imported_user(&item.external_id).await? {
            return if there.email == item.email.as_str() {
                Ok(Imported::Unchanged(there.user_id))
            } else {
                Err(Refused { field: "external_id", error: Error::ExternalIdTaken })
            };
        }
        if let Some(there) = self.store.find_external_id_of(&item.email).await? {
            return self.adopt(ctx, UserId(there.user_id), item).await;
        }
        let created_at = item.created_at.unwrap_or(ctx.now);
        let user = User {
            user_id: UserId(entropy::id(created_at)),
            email: item.email.clone(),
            display_name: item.display_name.clone(),
        };
        let mut tx = self.store.write(AsUser(user.user_id)).await?;
        let hash = item.password_hash.as_deref();
        users::insert_imported(&mut tx, &user, &item.external_id, (created_at, ctx.now), hash).await?;
        let audit = Audit::of(user.user_id.0)
            .set("email", user.email.as_str())
            .set("external_id", item.external_id.as_str())
            .set("with_password", hash.is_some());
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(user.user_id.0))
    }

    /// Gives an account that was here before the id that it has elsewhere, and changes nothing else of it.
    async fn adopt(&self, ctx: &Ctx, user_id: UserId, item: &ImportUser) -> Result<Imported, Refused> {
        let mut tx = self.store.write(AsUser(user_id)).await?;
        if !users::set_external_id(&mut tx, &item.external_id, ctx.now).await? {
            return Err(Refused { field: "email", error: Error::EmailTaken });
        }
        tx.commit(ctx, Audit::of(user_id.0).set("external_id", item.external_id.as_str())).await?;
        Ok(Imported::Created(user_id.0))
    }

    async fn import_tenant(&self, ctx: &Ctx, catalogue: &Catalogue, item: &ImportTenant) -> Result<Imported, Refused> {
        if let Some(there) = self.store.find_imported_tenant(&item.external_id).await? {
            return Ok(Imported::Unchanged(there.0));
        }
        let name = if item.plan.is_empty() { &catalogue.definition.default_plan } else { &item.plan };
        let chosen = catalogue.newest(name).ok_or_else(|| Error::PlanUnknown(name.clone()))?;
        if item.cycle.is_some_and(|cycle| chosen.1.price_of(cycle).is_none()) {
            return Err(Error::field("cycle", "must be one that the plan has a price for").into());
        }
        let subscription = item.elsewhere.clone().go_on(chosen, item.cycle, ctx.now);
        let subscription = subscription.map_err(|problem| Error::field("trial_end_time", problem))?;
        let created_at = item.created_at.unwrap_or(ctx.now);
        let tenant_id = TenantId(entropy::id(created_at));
        let mut tenant = new_tenant(ctx, tenant_id, (item.display_name.clone(), item.slug.clone()), subscription);
        tenant.external_id = Some(item.external_id.clone());
        tenant.created_at = created_at;
        if !item.suspend_reason.is_empty() {
            tenant.suspension = Some(Suspension { reason: item.suspend_reason.clone(), by: SuspendedBy::Operator });
        }
        // What time has brought while it stood elsewhere is no change of ours.
        let tenant = tenant.settled(catalogue, ctx.now);
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        self.insert_tenant(&mut tx, ctx, catalogue, &tenant).await?;
        if item.settings != Settings::default() {
            settings::put(&mut tx, &item.settings, 1, ctx.now).await?;
        }
        let audit = Audit::of(tenant_id.0)
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str())
            .set("plan", tenant.subscription.of.plan.as_str())
            .set("status", tenant.status(ctx.now).as_str())
            .set("settings", item.settings.paths())
            .set("external_id", item.external_id.as_str());
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(tenant_id.0))
    }

    async fn import_membership(
        &self,
        ctx: &Ctx,
        catalogue: &Catalogue,
        item: &ImportMembership,
    ) -> Result<Imported, Refused> {
        let Some(place) = self.store.find_imported_place(&item.tenant, &item.user).await? else {
            let tenant = self.store.find_imported_tenant(&item.tenant).await?;
            let field = if tenant.is_none() { "tenant_external_id" } else { "user_external_id" };
            return Err(Refused { field, error: Error::ExternalIdUnknown });
        };
        let (tenant_id, user_id) = (TenantId(place.tenant_id), UserId(place.user_id));
        let names = item.roles.texts();
        let mut roles = catalogue.definition.roles.clone();
        if roles.parse_all(&names).is_err() {
            // One of the tenant's own, perhaps.
            roles = together(catalogue, &self.store.list_own_roles(tenant_id).await?);
        }
        if let Err(problem) = roles.parse_all(&names) {
            let field = if names.len() == 1 { "role" } else { "roles" };
            return Err(Error::field(field, problem).into());
        }
        if let Some(there) = place.membership_id {
            return Ok(Imported::Unchanged(there));
        }
        let joined_at = item.joined_at.unwrap_or(ctx.now);
        let membership = Membership {
            membership_id: MembershipId(entropy::id(joined_at)),
            user_id,
            roles: item.roles.clone(),
            status: if item.suspended { MemberStatus::Suspended } else { MemberStatus::Active },
            version: 1,
            joined_at,
            updated_at: ctx.now,
            last_active_at: None,
        };
        let user = self.store.find_user(user_id).await?.ok_or(Error::ExternalIdUnknown)?;
        let mut tx = self.store.write(InTenantAsUser(tenant_id, user_id)).await?;
        let tenant = self.lock_settled(&mut tx, ctx, catalogue).await?;
        if let Some(purge) = tenant.purge_at.filter(|_| tenant.deleted_at.is_some()) {
            return Err(Error::TenantDeleted(purge).into());
        }
        memberships::insert(&mut tx, &membership, &roles.top().name).await?;
        finish_pending(&mut tx, (&user.email, user_id), ctx.now).await?;
        if membership.status == MemberStatus::Active {
            check_seats(&mut tx, catalogue, &tenant, ctx.now).await?;
        }
        let mut default = false;
        if item.default {
            default = users::set_first_default_tenant(&mut tx, tenant_id, ctx.now).await?;
        }
        let audit = Audit::of(user_id.0)
            .set("roles", membership.roles.texts())
            .set("status", if item.suspended { "suspended" } else { "active" })
            .field("default", false, default);
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(membership.membership_id.0))
    }

    /// Whose an external id of a tenant is.
    ///
    /// # Errors
    /// `ExternalIdUnknown`.
    pub async fn lookup_tenant(&self, external_id: &str) -> Result<TenantId, Error> {
        self.store.find_imported_tenant(external_id).await?.ok_or(Error::ExternalIdUnknown)
    }

    /// Whose an external id of a user is.
    ///
    /// # Errors
    /// `ExternalIdUnknown`.
    pub async fn lookup_user(&self, external_id: &str) -> Result<UserId, Error> {
        let row = self.store.find_imported_user(external_id).await?.ok_or(Error::ExternalIdUnknown)?;
        Ok(UserId(row.user_id))
    }
}
