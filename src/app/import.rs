//! Import: people, tenants and memberships of another system, each with the id that it had there. An item that is there
//! already changes nothing, so a stream that broke off is sent again from the start.

use super::App;
use super::tenants::{new_membership, new_tenant};
use crate::ctx::Ctx;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::{TenantId, UserId};
use crate::domain::membership::MemberStatus;
use crate::domain::name::{Email, Slug};
use crate::domain::plan::Cycle;
use crate::domain::secret::Secret;
use crate::domain::settings::Settings;
use crate::domain::subscription::{ProviderIds, Subscription, SubscriptionStatus};
use crate::domain::tenant::{SuspendedBy, Suspension};
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, JobKind};
use crate::store::{AsUser, InTenant, InTenantAsUser, memberships, settings, tenants, users};
use crate::time::Timestamp;

/// One thing to import.
pub enum ImportItem {
    /// A person.
    User(ImportedUser),
    /// A tenant.
    Tenant(Box<ImportedTenant>),
    /// A person's place in a tenant.
    Membership(ImportedMembership),
}

/// A person.
pub struct ImportedUser {
    /// Their id elsewhere.
    pub external_id: String,
    /// Their address.
    pub email: Email,
    /// Their name.
    pub display_name: String,
    /// A hash that `Passwords::accepts`; without one there is no password until it is reset.
    pub password_hash: Option<Secret<String>>,
    /// When the account was made.
    pub created_at: Option<Timestamp>,
}

/// A tenant.
pub struct ImportedTenant {
    /// Its id elsewhere.
    pub external_id: String,
    /// Its name in URLs.
    pub slug: Slug,
    /// The name that people see.
    pub display_name: String,
    /// The plan; the default when empty.
    pub plan: String,
    /// How long a period is.
    pub cycle: Option<Cycle>,
    /// Where the subscription stands; as for a new tenant unless said.
    pub status: Option<SubscriptionStatus>,
    /// Until when it is paid.
    pub paid_until: Option<Timestamp>,
    /// When the trial ends.
    pub trial_end: Option<Timestamp>,
    /// Why the platform has suspended it; empty when it has not.
    pub suspend_reason: String,
    /// The billing provider's ids.
    pub provider: ProviderIds,
    /// What it has set.
    pub settings: Settings,
    /// When it was created.
    pub created_at: Option<Timestamp>,
}

/// A person's place in a tenant.
pub struct ImportedMembership {
    /// The tenant's id elsewhere.
    pub tenant_external_id: String,
    /// The person's id elsewhere.
    pub user_external_id: String,
    /// The role's name.
    pub role: String,
    /// Whether they may not act.
    pub suspended: bool,
    /// When they joined.
    pub joined_at: Option<Timestamp>,
    /// Whether their calls go there when nothing names a tenant.
    pub default: bool,
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is there now.
    Created(uuid::Uuid),
    /// It was there before.
    Unchanged(uuid::Uuid),
}

impl App {
    /// Imports one item.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub async fn import(&self, ctx: &Ctx, catalogue: &Catalogue, item: ImportItem) -> Result<Imported, Error> {
        match item {
            ImportItem::User(user) => self.import_user(ctx, user).await,
            ImportItem::Tenant(tenant) => self.import_tenant(ctx, catalogue, *tenant).await,
            ImportItem::Membership(membership) => self.import_membership(ctx, catalogue, &membership).await,
        }
    }

    async fn import_user(&self, ctx: &Ctx, new: ImportedUser) -> Result<Imported, Error> {
        if let Some(id) = self.store.find_user_by_external_id(&new.external_id).await? {
            return Ok(Imported::Unchanged(id.0));
        }
        if let Some(hash) = &new.password_hash
            && !self.passwords.accepts(hash.expose())
        {
            let wanted = "must be an Argon2id or bcrypt hash of reasonable cost";
            return Err(Error::field("user.password_hash", wanted));
        }
        let account = self.store.find_account(&new.email).await?;
        let user_id = account.as_ref().map_or_else(|| UserId(ctx.new_id()), |account| account.user.user_id);
        let mut tx = self.store.write(AsUser(user_id)).await?;
        if account.is_some() {
            users::set_external_id(&mut tx, &new.external_id, ctx.now).await?;
        } else {
            let user = User { user_id, email: new.email.clone(), display_name: new.display_name };
            let hash = new.password_hash.as_ref().map(|hash| hash.expose().as_str());
            let created_at = new.created_at.unwrap_or(ctx.now);
            users::insert_imported(&mut tx, &user, (&new.external_id, hash), created_at).await?;
        }
        let audit = Audit::of(user_id.0).set("external_id", new.external_id).set("email", new.email.as_str());
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(user_id.0))
    }

    async fn import_tenant(&self, ctx: &Ctx, catalogue: &Catalogue, new: ImportedTenant) -> Result<Imported, Error> {
        if let Some(id) = self.store.find_tenant_by_external_id(&new.external_id).await? {
            return Ok(Imported::Unchanged(id.0));
        }
        let name = if new.plan.is_empty() { &catalogue.definition.default_plan } else { &new.plan };
        let (of, plan) = catalogue.newest(name).ok_or_else(|| Error::PlanUnknown(name.clone()))?;
        let trial = new.trial_end.map(|end| end.since(ctx.now));
        let mut subscription = Subscription::begin((of, plan), new.cycle, trial, true, ctx.now);
        subscription.paid_until = new.paid_until;
        subscription.provider = new.provider;
        if let Some(status) = new.status {
            subscription.imported_as(status, (new.trial_end, new.paid_until), ctx.now);
        }
        let mut tenant = new_tenant(ctx, TenantId(ctx.new_id()), (new.display_name, new.slug), subscription)
            .settled(catalogue, ctx.now);
        tenant.created_at = new.created_at.unwrap_or(ctx.now);
        tenant.external_id = Some(new.external_id);
        if !new.suspend_reason.is_empty() {
            tenant.suspension = Some(Suspension { reason: new.suspend_reason, by: SuspendedBy::Operator });
        }
        let id = tenant.tenant_id;
        let mut tx = self.store.write(InTenant(id)).await?;
        tenants::insert(&mut tx, &tenant, ctx.now).await?;
        if new.settings != Settings::default() {
            settings::put(&mut tx, &new.settings, 0, ctx.now).await?;
        }
        let look = tenant.next_look(&catalogue.definition.notice_days, ctx.now);
        if look.is_some() {
            jobs::schedule(&mut tx, JobKind::Tenant, id.0, look).await?;
        }
        let audit = Audit::of(id.0)
            .set("external_id", tenant.external_id.clone())
            .set("slug", tenant.slug.as_str())
            .set("plan", tenant.subscription.of.plan.as_str());
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(id.0))
    }

    async fn import_membership(
        &self,
        ctx: &Ctx,
        catalogue: &Catalogue,
        new: &ImportedMembership,
    ) -> Result<Imported, Error> {
        let role =
            catalogue.definition.roles.parse(&new.role).map_err(|wrong| Error::field("membership.role", wrong))?;
        let missing = |field: &str| Error::field(field, "is not there; import it first");
        let tenant_id = self.store.find_tenant_by_external_id(&new.tenant_external_id).await?;
        let tenant_id = tenant_id.ok_or_else(|| missing("membership.tenant_external_id"))?;
        let user_id = self.store.find_user_by_external_id(&new.user_external_id).await?;
        let user_id = user_id.ok_or_else(|| missing("membership.user_external_id"))?;
        if let Some(there) = self.store.find_membership(tenant_id, user_id).await? {
            return Ok(Imported::Unchanged(there.membership_id.0));
        }
        let mut tx = self.store.write(InTenantAsUser(tenant_id, user_id)).await?;
        let tenant = self.lock_settled(&mut tx, ctx, catalogue).await?;
        let mut membership = new_membership(ctx, user_id, role.name.clone());
        membership.joined_at = new.joined_at.unwrap_or(ctx.now);
        if new.suspended {
            membership.status = MemberStatus::Suspended;
        }
        memberships::insert(&mut tx, &membership).await?;
        if membership.status == MemberStatus::Active {
            self.check_seats(&mut tx, ctx, (&tenant, catalogue)).await?;
        }
        if new.default {
            users::set_default_tenant(&mut tx, tenant_id, ctx.now).await?;
        }
        let audit = Audit::of(user_id.0).set("role", role.name.as_str()).set("imported", true);
        tx.commit(ctx, audit).await?;
        Ok(Imported::Created(membership.membership_id.0))
    }

    /// The tenant that another system knows by this id.
    ///
    /// # Errors
    /// `ExternalIdUnknown`.
    pub async fn find_external_tenant(&self, external_id: &str) -> Result<TenantId, Error> {
        self.store.find_tenant_by_external_id(external_id).await?.ok_or(Error::ExternalIdUnknown)
    }

    /// The user whom another system knows by this id.
    ///
    /// # Errors
    /// `ExternalIdUnknown`.
    pub async fn find_external_user(&self, external_id: &str) -> Result<UserId, Error> {
        self.store.find_user_by_external_id(external_id).await?.ok_or(Error::ExternalIdUnknown)
    }
}
