//! Whom a tenant's provider lets in: as whom they are known, what becomes of an account that somebody else may have made, and
//! their place in the tenant. Nothing is given here that whoever connected the provider could not have given.

use std::sync::Arc;

use super::{App, SsoCallback, SsoDone};
use crate::app::invitations::finish_pending;
use crate::app::seats::check_seats;
use crate::app::sessions::SignIn;
use crate::app::sso_connection::check_feature;
use crate::app::tenants::new_membership;
use crate::ctx::Ctx;
use crate::decide::roles::together;
use crate::domain::catalogue::Catalogue;
use crate::domain::domain::DomainStatus;
use crate::domain::id::{TenantId, UserId};
use crate::domain::invitation::InvitationStatus;
use crate::domain::membership::Membership;
use crate::domain::name::{Email, display_name};
use crate::domain::role::{RoleName, RoleNames, Roles};
use crate::domain::session::{Method, Proof};
use crate::domain::sso::{SsoConnection, groups};
use crate::domain::tenant::Tenant;
use crate::domain::user::{Account, AccountStatus, FIRST_EPOCH, User};
use crate::error::Error;
use crate::outside::oidc::Identity;
use crate::store::audit::Audit;
use crate::store::{
    InTenant, InTenantAsUser, Scoped, TenantTx, accounts, api_keys, domains, invitations, memberships, roles, sessions,
    sso, users,
};

// Why somebody is not let in, as the end of a sentence.
const CLOSED: &str = "the account is closed";
const ABOVE: &str = "your role is above the one of who connected the provider; sign in with your own credentials";
const REMOVED: &str = "you are no member any more; an administrator of the tenant can add you again";
const NO_ROLE: &str =
    "the role that it would give is not there any more; an administrator of the tenant can set another";

/// Somebody who comes in, as far as they are known before the rows are locked.
struct Guest {
    user: User,
    /// The epoch of their account, read before what they prove was asked for; none when the account is to be made.
    epoch: Option<i64>,
    /// Whether the provider's name for them is kept already.
    known: bool,
}

impl Guest {
    /// Somebody who has an account.
    fn of(account: Account, known: bool) -> Result<Self, Error> {
        if account.status != AccountStatus::Active {
            return Err(Error::SsoMemberRefused(CLOSED));
        }
        Ok(Self { user: account.user, epoch: Some(account.session_epoch), known })
    }
}

impl App {
    /// Lets somebody in whom the provider has named: as whom they are known, as a member, in a session of this tenant.
    pub(super) async fn let_in(
        &self,
        ctx: &Ctx,
        (tenant, catalogue): (TenantId, &Catalogue),
        (connection, identity): (&SsoConnection, &Identity),
        back: &SsoCallback,
    ) -> Result<SsoDone, Error> {
        let guest = self.guest(ctx, tenant, connection, identity).await?;
        let user_id = guest.user.user_id;
        let mut tx = self.store.write(InTenantAsUser(tenant, user_id)).await?;
        let locked = self.lock_settled(&mut tx, ctx, catalogue).await?;
        // Asked again under the lock: a connection that was changed meanwhile said nothing about this person.
        let rule = sso::find_rule(&mut tx).await?;
        if locked.deleted_at.is_some() || rule.is_none_or(|rule| rule.connection_id != connection.connection_id) {
            return Err(Error::SsoStateInvalid);
        }
        let epoch = match guest.epoch {
            Some(epoch) if guest.known => epoch,
            Some(epoch) => take_over(&mut tx, ctx, epoch).await?,
            None => {
                users::insert_without_password(&mut tx, &guest.user, ctx.now).await?;
                // The provider says so, of a domain that the tenant has proven.
                accounts::set_verified(&mut tx, ctx.now).await?;
                users::set_first_default_tenant(&mut tx, tenant, ctx.now).await?;
                FIRST_EPOCH
            }
        };
        let who = (&guest.user.email, identity);
        let joined = self.place(&mut tx, ctx, (&locked, catalogue), connection, who).await?;
        if !guest.known {
            let name = (connection.terms.issuer.as_str(), identity.subject.as_str());
            sso::insert_identity(&mut tx, name, user_id, ctx.now).await?;
        }
        let sign_in = SignIn {
            user_id,
            proof: Proof { methods: vec![Method::Oidc], at: identity.auth_time, ..Proof::password(epoch) },
            tenant: Some(tenant),
            bound_tenant: Some(tenant),
            connection: Some(connection.connection_id),
            remember: back.remember,
            terms: self.sessions.terms(back.remember),
            device: back.device.clone(),
        };
        let opened = match self.open_session(&mut tx, ctx, sign_in).await {
            Err(Error::CredentialInvalid) => return Err(Error::SsoMemberRefused(CLOSED)),
            opened => opened?,
        };
        let audit = Audit::of(user_id.0)
            .set("session_id", opened.session.session_id.to_string())
            .set("issuer", connection.terms.issuer.as_str());
        tx.commit(ctx, audit).await?;
        Ok(SsoDone { user: guest.user, tokens: self.tokens(opened, ctx.now)?, joined })
    }

    /// Who it is: whom the provider's name stands for already, else whose address it is.
    async fn guest(
        &self,
        ctx: &Ctx,
        tenant: TenantId,
        connection: &SsoConnection,
        identity: &Identity,
    ) -> Result<Guest, Error> {
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let known = sso::find_identity(&mut tx, &connection.terms.issuer, &identity.subject).await?;
        if let Some(user) = known {
            drop(tx);
            let account = self.store.find_account_by_id(user).await?.found.ok_or(Error::SsoMemberRefused(CLOSED))?;
            return Guest::of(account, true);
        }
        let email = vouched(&mut tx, connection, identity).await?;
        drop(tx);
        if let Some(account) = self.store.find_account(&email).await? {
            return Guest::of(account, false);
        }
        let called = identity.name.as_deref().and_then(|name| display_name(name).ok());
        let called = called.unwrap_or_else(|| email.as_str().to_owned());
        let user = User { user_id: UserId(ctx.new_id()), email, display_name: called };
        Ok(Guest { user, epoch: None, known: false })
    }

    /// Gives somebody their place in the tenant: the one that they have, in the role that their groups stand for, or a new
    /// one. Whether it is new.
    async fn place(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        (tenant, catalogue): (&Tenant, &Catalogue),
        connection: &SsoConnection,
        (email, identity): (&Email, &Identity),
    ) -> Result<bool, Error> {
        let InTenantAsUser(_, user_id) = *tx.scope();
        // Under the tenant's lock, so that no role is given that has just gone.
        let roles = together(catalogue, &roles::list(tx).await?);
        let top = &roles.top().name;
        let terms = &connection.terms;
        let maker = connection.ceiling.in_roles(&roles);
        let held = groups(identity.claims.get(&terms.group_claim));
        let mapped = held.as_deref().and_then(|held| terms.role_of(held, &roles));
        // A role that is gone, or has risen above what the connection may give, is given to nobody.
        let gives = |role: &RoleName| role != top && maker.may_give([role]).is_ok();
        let wanted = mapped.or_else(|| roles.get(&terms.default_role)).filter(|role| gives(&role.name));
        match memberships::get(tx, user_id).await {
            Ok(member) => {
                let there = member.roles.iter().filter(|role| roles.get(role).is_some());
                maker.may_give(there).map_err(|_| Error::SsoMemberRefused(ABOVE))?;
                // Owners are not asked about; and a provider that says nothing of groups takes nobody's role away.
                let follows = terms.follows_groups() && held.is_some() && !member.roles.contains(top);
                let wanted = wanted.filter(|_| follows).map(|role| RoleNames::one(role.name.clone()));
                if let Some(wanted) = wanted.filter(|wanted| *wanted != member.roles) {
                    follow_groups(tx, ctx, (member, wanted), top).await?;
                }
                Ok(false)
            }
            Err(Error::MemberNotFound) if memberships::was_ever(tx, user_id).await? => {
                Err(Error::SsoMemberRefused(REMOVED))
            }
            Err(Error::MemberNotFound) => {
                may_join(tx, ctx, tenant, catalogue).await?;
                let invited = self.invited_as(tx, ctx, email, &roles).await?;
                let names = match invited.filter(|invited| invited.iter().all(gives)) {
                    Some(invited) => invited,
                    None => RoleNames::one(wanted.ok_or(Error::SsoMemberRefused(NO_ROLE))?.name.clone()),
                };
                let member = new_membership(ctx, user_id, names);
                memberships::insert(tx, &member, top).await?;
                // Who was invited as well holds one seat.
                finish_pending(tx, (email, user_id), ctx.now).await?;
                check_seats(tx, catalogue, tenant, ctx.now).await?;
                let audit = Audit::of(user_id.0).set("roles", member.roles.texts()).set("status", "active");
                tx.note(&ctx.as_system("System/JoinBySso"), audit).await?;
                Ok(true)
            }
            Err(other) => Err(other),
        }
    }

    /// As what somebody is invited who comes by this way: what an invitation says that could still be accepted.
    async fn invited_as(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        email: &Email,
        roles: &Arc<Roles>,
    ) -> Result<Option<RoleNames>, Error> {
        let Some(invitation) = invitations::find_pending(tx, email).await? else { return Ok(None) };
        if invitation.status(ctx.now) != InvitationStatus::Pending {
            return Ok(None);
        }
        match self.still_stands(tx, (&invitation, ctx.now), roles).await {
            Ok(()) => Ok(Some(invitation.roles)),
            Err(Error::InvitationVoid) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// Whether people may join the tenant now, as when they accept an invitation; and as long as its plan has single sign-on.
async fn may_join(
    tx: &mut Scoped<InTenantAsUser>,
    ctx: &Ctx,
    tenant: &Tenant,
    catalogue: &Catalogue,
) -> Result<(), Error> {
    tenant.may_be_joined(ctx.now, false)?;
    check_feature(tx, catalogue, tenant, ctx.now).await
}

/// Makes sure that an account which is known by its address only is that address's. When nobody has proven it so far,
/// somebody else may have made the account, to wait in it for whose address it is: then nothing is left by which they would
/// come back. The epoch of its sessions from now on.
async fn take_over(tx: &mut Scoped<InTenantAsUser>, ctx: &Ctx, epoch: i64) -> Result<i64, Error> {
    let InTenantAsUser(_, user_id) = *tx.scope();
    // Until the end nobody else proves the address, or changes it.
    let locked = sessions::lock_account(tx).await?;
    let profile = accounts::find(tx).await?;
    if locked != Some(epoch) || profile.is_none_or(|profile| profile.email_verified_at.is_some()) {
        return Ok(epoch);
    }
    let epoch = accounts::delete_credentials(tx, ctx.now).await?;
    api_keys::revoke_of_user(tx, user_id, ctx.now).await?;
    accounts::set_verified(tx, ctx.now).await?;
    let audit = Audit::of(user_id.0).field("email_verified", false, true).set("credentials", "removed");
    tx.note(&ctx.as_system("System/TakeOverAccount"), audit).await?;
    Ok(epoch)
}

/// Gives a member the role that their groups stand for today, in the place of those that they had.
async fn follow_groups(
    tx: &mut Scoped<InTenantAsUser>,
    ctx: &Ctx,
    (before, wanted): (Membership, RoleNames),
    top: &RoleName,
) -> Result<(), Error> {
    let mut after = Membership { roles: wanted, ..before.clone() };
    memberships::update(tx, (&before, &mut after), top, ctx.now).await?;
    let audit = Audit::of(after.user_id.0).field("roles", before.roles.texts(), after.roles.texts());
    tx.note(&ctx.as_system("System/FollowGroups"), audit).await
}

/// The address by which somebody is known for the first time: verified by the provider, and of a domain that the tenant has
/// proven to be its own. Without this a tenant's provider could claim anybody's.
async fn vouched(tx: &mut TenantTx, connection: &SsoConnection, identity: &Identity) -> Result<Email, Error> {
    let told = identity.email.as_deref().ok_or(Error::SsoAddressRefused("it says none"))?;
    let email = Email::parse(told).map_err(|_| Error::SsoAddressRefused("what it says is none"))?;
    if !identity.email_verified {
        return Err(Error::SsoAddressRefused("it has not verified it"));
    }
    let proven = domains::list(tx).await?.into_iter().filter(|domain| domain.status == DomainStatus::Verified);
    let proven: Vec<_> = proven.map(|domain| domain.domain).collect();
    if !connection.terms.vouches_for(&email, &proven) {
        return Err(Error::SsoAddressRefused("its domain is not one that the tenant has verified"));
    }
    Ok(email)
}
