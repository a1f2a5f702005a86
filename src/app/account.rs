//! Accounts, by those whose they are: what an account says, changing it, and its end. And by operators, who may switch one
//! off.

use super::App;
use super::links::letter;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::{Ctx, SignedIn};
use crate::domain::id::{TenantId, UserId};
use crate::domain::mail::Template;
use crate::domain::membership::{MemberStatus, Membership, may_lose};
use crate::domain::name::Email;
use crate::domain::tenant::Tenant;
use crate::domain::user::{AccountStatus, Profile, User};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, InTenant, accounts, invitations, memberships, mfa, outbox, sessions, sso, tenants};
use crate::time::Timestamp;

/// What of a profile changes; none leaves it.
#[derive(Debug, Default)]
pub struct ProfileChanges {
    /// The name that people see.
    pub display_name: Option<String>,
    /// BCP 47; empty chooses none.
    pub locale: Option<String>,
    /// Where calls go when nothing names a tenant; none forgets it.
    pub default_tenant: Option<Option<TenantId>>,
}

/// How many tenants are read at once when an account ends.
const PAGE: i64 = 100;

impl App {
    /// Shows the caller's account.
    ///
    /// # Errors
    /// `CredentialInvalid` when it was disabled meanwhile.
    pub async fn get_account(&self, person: &SignedIn) -> Result<Profile, Error> {
        let mut tx = self.store.read(AsUser(person.user.user_id)).await?;
        accounts::find(&mut tx).await?.ok_or(Error::CredentialInvalid)
    }

    /// Changes the caller's account.
    ///
    /// # Errors
    /// `EtagMismatch`, `TenantNotFound` when the default tenant is none of theirs.
    pub async fn update_account(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        changes: ProfileChanges,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<(User, Profile), Error> {
        let user_id = person.user.user_id;
        if let Some(Some(tenant)) = changes.default_tenant {
            self.store.find_membership(tenant, user_id).await?.found.ok_or(Error::TenantNotFound)?;
        }
        let mut open = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        sessions::lock_account(&mut open.tx).await?.ok_or(Error::CredentialInvalid)?;
        let before = accounts::find(&mut open.tx).await?.ok_or(Error::CredentialInvalid)?;
        check_etag(sent_etag, before.version)?;
        let mut after = Profile {
            display_name: changes.display_name.unwrap_or_else(|| before.display_name.clone()),
            locale: changes.locale.unwrap_or_else(|| before.locale.clone()),
            default_tenant: changes.default_tenant.unwrap_or(before.default_tenant),
            ..before.clone()
        };
        let id = |tenant: Option<TenantId>| tenant.map(|tenant| tenant.to_string());
        let audit = Audit::of(user_id.0)
            .field("display_name", before.display_name.as_str(), after.display_name.as_str())
            .field("locale", before.locale.as_str(), after.locale.as_str())
            .field("default_tenant", id(before.default_tenant), id(after.default_tenant));
        if after != before {
            accounts::update(&mut open.tx, &mut after, ctx.now).await?;
        }
        let user = User { display_name: after.display_name.clone(), ..person.user.clone() };
        self.finish(open, ctx, audit, (user, after)).await
    }

    /// Ends the caller's account: their memberships, then everything of theirs. Should the server die in between, the
    /// account is still there, and the call can be repeated.
    ///
    /// # Errors
    /// `SoleOwner` with the tenants that would have no owner any more; nothing has ended then.
    pub async fn delete_account(&self, ctx: &Ctx, person: &SignedIn) -> Result<(), Error> {
        self.charge_alone(ctx, None).await?;
        let user_id = person.user.user_id;
        let tenants = self.tenants_of(user_id, ctx.now).await?;
        let mut alone = Vec::new();
        for tenant in &tenants {
            if self.is_sole_owner(tenant, user_id).await? {
                alone.push(tenant.slug.as_str().to_owned());
            }
        }
        if !alone.is_empty() {
            return Err(Error::SoleOwner(alone));
        }
        let nobody = Email::parse(&format!("{}@deleted.invalid", user_id.0.as_simple()));
        let nobody = nobody.map_err(Error::internal)?;
        for tenant in &tenants {
            self.end_membership(ctx, tenant, (&person.user, &nobody)).await?;
        }
        let mut tx = self.store.write(AsUser(user_id)).await?;
        sessions::lock_account(&mut tx).await?.ok_or(Error::CredentialInvalid)?;
        accounts::anonymise(&mut tx, &nobody, ctx.now).await?;
        mfa::delete(&mut tx).await?;
        // The last letter; it goes when it was sent.
        let payload = serde_json::json!({ "at": ctx.now.to_string() });
        self.post(&mut tx, letter((Template::AccountDeleted, &person.user.email), payload, ctx), ctx.now).await?;
        tx.commit(ctx, Audit::of(user_id.0).field("status", "active", "deleted")).await?;
        // Whoever added them meanwhile looked them up before: nobody finds them from here on.
        for tenant in self.tenants_of(user_id, ctx.now).await? {
            self.end_membership(ctx, &tenant, (&person.user, &nobody)).await?;
        }
        Ok(())
    }

    /// All tenants in which a person has a place.
    async fn tenants_of(&self, user: UserId, now: Timestamp) -> Result<Vec<Tenant>, Error> {
        let (mut tenants, mut after) = (Vec::new(), uuid::Uuid::nil());
        loop {
            let page = self.store.list_tenants_of(user, false, (after, PAGE), now).await?;
            let Some(last) = page.last() else { return Ok(tenants) };
            after = last.tenant.tenant_id.0;
            tenants.extend(page.into_iter().map(|mine| mine.tenant));
        }
    }

    /// Whether a tenant would have no owner without a person. A deleted one needs none any more.
    async fn is_sole_owner(&self, tenant: &Tenant, user: UserId) -> Result<bool, Error> {
        if tenant.deleted_at.is_some() {
            return Ok(false);
        }
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let roles = &catalogue.definition.roles;
        let mut tx = self.store.read(InTenant(tenant.tenant_id)).await?;
        let member = match memberships::get(&mut tx, user).await {
            Err(Error::MemberNotFound) => return Ok(false),
            member => member?,
        };
        let owners = memberships::count_active_in_top(&mut tx, &roles.top().name).await?;
        Ok(may_lose(&member, roles, owners).is_err())
    }

    /// Ends a person's membership on their own behalf, with the last-owner rule under the tenant's lock, and takes their
    /// address out of what the tenant has of them besides. Its audit log keeps what it says: it is the tenant's record.
    async fn end_membership(&self, ctx: &Ctx, tenant: &Tenant, (user, nobody): (&User, &Email)) -> Result<(), Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let roles = &catalogue.definition.roles;
        let mut tx = self.store.write(InTenant(tenant.tenant_id)).await?;
        let tenant = match tenants::lock(&mut tx).await {
            Err(Error::TenantNotFound) => return Ok(()),
            tenant => tenant?,
        };
        let member = match memberships::get(&mut tx, user.user_id).await {
            Err(Error::MemberNotFound) => return Ok(()),
            member => member?,
        };
        if tenant.deleted_at.is_none() {
            let owners = memberships::count_active_in_top(&mut tx, &roles.top().name).await?;
            may_lose(&member, roles, owners).map_err(|_| Error::SoleOwner(vec![tenant.slug.as_str().to_owned()]))?;
        }
        let mut gone = Membership { status: MemberStatus::Removed, ..member.clone() };
        memberships::update(&mut tx, (&member, &mut gone), &roles.top().name, ctx.now).await?;
        invitations::forget(&mut tx, &user.email, nobody).await?;
        outbox::forget(&mut tx, &user.email).await?;
        sso::delete_identities(&mut tx, user.user_id).await?;
        tx.commit(ctx, Audit::of(user.user_id.0).field("status", member.status.as_str(), gone.status.as_str())).await
    }

    /// Switches an account off, which ends its sessions, or on again. To do it twice does nothing more.
    ///
    /// # Errors
    /// `AccountNotFound`.
    pub async fn set_account_enabled(&self, ctx: &Ctx, user_id: UserId, enabled: bool) -> Result<User, Error> {
        let account = self.store.find_account_by_id(user_id).await?.found;
        let account = account.filter(|account| account.status != AccountStatus::Deleted);
        let account = account.ok_or(Error::AccountNotFound)?;
        let mut tx = self.store.write(AsUser(user_id)).await?;
        if !accounts::set_enabled(&mut tx, enabled, ctx.now).await? {
            return Ok(account.user);
        }
        if !enabled {
            accounts::end_sessions(&mut tx, ctx.now).await?;
        }
        let names = if enabled { ("disabled", "active") } else { ("active", "disabled") };
        tx.commit(ctx, Audit::of(user_id.0).field("status", names.0, names.1)).await?;
        Ok(account.user)
    }
}
