//! Joining by address: whoever has proven an address of a domain that a tenant has proven becomes a member of it, when the
//! tenant wants that. Asked when an address is proven and at every sign-in by password, so that a tenant that wants it later,
//! or gets a seat later, is joined then. Nobody is told that it did not happen.

use super::App;
use super::seats::Seats;
use super::tenants::new_membership;
use crate::ctx::Ctx;
use crate::decide::roles::together;
use crate::domain::domain::DomainName;
use crate::domain::invitation::{Invitation, InvitationStatus};
use crate::domain::role::RoleNames;
use crate::domain::settings::AutoJoin;
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenantAsUser, invitations, memberships, roles, settings, users};

impl App {
    /// Makes a person, whose address is proven, a member of the tenant that has proven its domain. It is nothing that was
    /// asked for, so that what keeps it from happening fails no call; the next sign-in tries again.
    pub(super) async fn auto_join(&self, ctx: &Ctx, user: &User) {
        // The server's own doing: the person did not ask for it.
        let ctx = ctx.as_system("System/AutoJoin");
        let mut done = self.try_auto_join(&ctx, user).await;
        if matches!(done, Err(Error::DatabaseUnavailable(_))) {
            // Nobody else is told to try again.
            done = self.try_auto_join(&ctx, user).await;
        }
        match done {
            Ok(()) | Err(Error::SeatsExhausted { .. } | Error::TenantNotFound) => {}
            Err(error) => tracing::warn!(%error, "a person could not be made a member by their address"),
        }
    }

    async fn try_auto_join(&self, ctx: &Ctx, user: &User) -> Result<(), Error> {
        let Ok(domain) = DomainName::parse(user.email.domain()) else { return Ok(()) };
        let Some(tenant_id) = self.store.find_domain_host(&domain).await?.found else { return Ok(()) };
        if self.store.find_membership(tenant_id, user.user_id).await?.found.is_some() {
            return Ok(());
        }
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let mut tx = self.store.write(InTenantAsUser(tenant_id, user.user_id)).await?;
        let tenant = self.lock_settled(&mut tx, ctx, &catalogue).await?;
        let is_pending = |invitation: Invitation| invitation.status(ctx.now) == InvitationStatus::Pending;
        // Who left or was removed does not come back by this. Who is invited says to that whether they come, and as what.
        if tenant.may_be_joined(ctx.now, false).is_err()
            || memberships::was_ever(&mut tx, user.user_id).await?
            || invitations::find_pending(&mut tx, &user.email).await?.is_some_and(is_pending)
        {
            return Ok(());
        }
        let (own, _) = settings::find(&mut tx).await?;
        let joins = own.over(&catalogue.definition.settings).auto_join;
        let AutoJoin { enabled: Some(true), role: Some(role) } = joins else { return Ok(()) };
        let roles = together(&catalogue, &roles::list(&mut tx).await?);
        // A role that is gone, or has become the top one, is nobody's by itself.
        let Some(role) = roles.parse(&role).ok().filter(|role| role.name != roles.top().name) else { return Ok(()) };
        Seats::count(&mut tx, &catalogue, &tenant, ctx.now).await?.left()?;
        let member = new_membership(ctx, user.user_id, RoleNames::one(role.name.clone()));
        memberships::insert(&mut tx, &member, &roles.top().name).await?;
        users::set_first_default_tenant(&mut tx, tenant_id, ctx.now).await?;
        let audit = Audit::of(user.user_id.0)
            .set("roles", member.roles.texts())
            .set("status", "active")
            .set("domain", domain.as_str());
        tx.commit(ctx, audit).await
    }
}
