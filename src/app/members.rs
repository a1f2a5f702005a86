//! Members: joining, roles, suspension, leaving, ownership. Every change happens under the tenant's lock, so that the
//! rules on ranks and on the last owner see members as they are.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::invitations::finish_pending;
use super::mutation::{Begun, RequestKey, check_etag};
use super::seats::check_seats;
use super::tenants::new_membership;
use crate::ctx::TenantCtx;
use crate::decide::judge::{judge, permissions};
use crate::decide::roles::together;
use crate::decide::tenant::Standing;
use crate::domain::id::UserId;
use crate::domain::membership::{Authority, MemberStatus, Membership, may_lose, may_touch};
use crate::domain::name::Email;
use crate::domain::role::{Rank, RoleNames};
use crate::domain::tenant::Tenant;
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, memberships, roles, sso};

/// A member with their name and address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Their place in the tenant.
    pub membership: Membership,
    /// The person.
    pub user: User,
}

impl App {
    /// Makes the user of an address a member.
    ///
    /// # Errors
    /// `UserUnknown` (which counts against the rate), `AlreadyMember`, `RankTooLow`, `SeatsExhausted`, `RateExceeded`.
    pub async fn add_member(
        &self,
        t: &TenantCtx,
        email: &Email,
        roles: RoleNames,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        let tenant_id = t.tenant_id();
        let account = self.store.find_account(email).await?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        own.may_give(roles.iter())?;
        let Some(account) = account else {
            drop(open);
            return self.refuse_counted(&t.ctx, Some(tenant_id), Error::UserUnknown).await;
        };
        let membership = new_membership(&t.ctx, account.user.user_id, roles);
        memberships::insert(&mut open.tx, &membership, &own.roles.top().name).await?;
        finish_pending(&mut open.tx, (email, account.user.user_id), t.ctx.now).await?;
        check_seats(&mut open.tx, &t.catalogue, &tenant, t.ctx.now).await?;
        let audit = Audit::of(account.user.user_id.0).set("roles", membership.roles.texts()).set("status", "active");
        self.finish(open, &t.ctx, audit, Member { membership, user: account.user }).await
    }

    /// Shows a member.
    ///
    /// # Errors
    /// `MemberNotFound`.
    pub async fn get_member(&self, t: &TenantCtx, user: UserId) -> Result<Member, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let membership = memberships::get(&mut tx, user).await?;
        drop(tx);
        let user = self.store.find_user(membership.user_id).await?.ok_or(Error::MemberNotFound)?;
        Ok(Member { membership, user })
    }

    /// Members after one of them, in the order in which they joined.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_members(
        &self,
        t: &TenantCtx,
        status: Option<MemberStatus>,
        (after, limit): (Uuid, i64),
    ) -> Result<Vec<Member>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let page = memberships::list(&mut tx, after, status, limit).await?;
        drop(tx);
        let users = self.store.list_users_of(t.tenant_id(), &page).await?;
        let user_of = |membership: &Membership| users.iter().find(|u| u.user_id == membership.user_id).cloned();
        Ok(page.into_iter().filter_map(|m| user_of(&m).map(|user| Member { membership: m, user })).collect())
    }

    /// Gives a member other roles instead of those that they have. What they have already may be above what the caller could
    /// give, though not above the caller's rank.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`, `LastOwner`, `EtagMismatch`.
    pub async fn update_member_role(
        &self,
        t: &TenantCtx,
        user: UserId,
        roles: RoleNames,
        etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        self.change_member(t, user, etag, key, |own, member| {
            own.may_give(roles.iter().filter(|name| !member.roles.contains(name)))?;
            member.roles = roles;
            Ok(())
        })
        .await
    }

    /// Takes a member's access away until they are reactivated.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`, `LastOwner`, `WrongState`.
    pub async fn suspend_member(&self, t: &TenantCtx, user: UserId, key: Option<RequestKey>) -> Result<Member, Error> {
        self.change_member(t, user, "", key, |_, member| {
            if member.status == MemberStatus::Suspended {
                return Err(Error::WrongState { state: "suspended", wanted: "an active member" });
            }
            member.status = MemberStatus::Suspended;
            Ok(())
        })
        .await
    }

    /// Gives a suspended member their access back.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`, `WrongState`.
    pub async fn reactivate_member(
        &self,
        t: &TenantCtx,
        user: UserId,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        self.change_member(t, user, "", key, |_, member| {
            if member.status == MemberStatus::Active {
                return Err(Error::WrongState { state: "active", wanted: "a suspended member" });
            }
            member.status = MemberStatus::Active;
            Ok(())
        })
        .await
    }

    /// Removes a member.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`, `LastOwner`, `EtagMismatch`; oneself one does not remove but leaves.
    pub async fn remove_member(
        &self,
        t: &TenantCtx,
        user: UserId,
        etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        if t.user_id() == Some(user) {
            return Err(Error::field("user_id", "is yourself; to leave there is LeaveTenant"));
        }
        self.change_member(t, user, etag, key, |_, member| {
            member.status = MemberStatus::Removed;
            Ok(())
        })
        .await
    }

    /// Ends the caller's own membership.
    ///
    /// # Errors
    /// `LastOwner`, `CallerKindRefused` for those who are no members.
    pub async fn leave_tenant(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<(), Error> {
        let user = t.user_id().ok_or(Error::CallerKindRefused(t.ctx.caller.kind()))?;
        self.change_member(t, user, "", key, |_, member| {
            member.status = MemberStatus::Removed;
            Ok(())
        })
        .await
        .map(|_| ())
    }

    /// Makes another active member owner (the top role instead of those that they have) and the caller what `own_roles`
    /// says: unless said, what else they are, or the highest role below the top.
    ///
    /// # Errors
    /// `MemberNotFound`, `WrongState` when the new owner is suspended.
    pub async fn transfer_ownership(
        &self,
        t: &TenantCtx,
        new_owner: UserId,
        own_roles: Option<RoleNames>,
        key: Option<RequestKey>,
    ) -> Result<(Member, Option<Member>), Error> {
        if t.user_id() == Some(new_owner) {
            return Err(Error::field("new_owner_id", "is yourself"));
        }
        if t.user_id().is_none() && own_roles.is_some() {
            return Err(Error::field("own_roles", "is for owners; operators and services have no role to change"));
        }
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let new_owner_user = self.store.find_user(new_owner).await?.ok_or(Error::MemberNotFound)?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, own) = self.lock_tenant(&mut open.tx, t).await?;
        let top = &own.roles.top().name;
        own.may_give([top])?;
        let before = memberships::get(&mut open.tx, new_owner).await?;
        if before.status != MemberStatus::Active {
            return Err(Error::WrongState { state: "suspended", wanted: "an active member" });
        }
        let mut owner = Membership { roles: RoleNames::one(top.clone()), ..before.clone() };
        memberships::update(&mut open.tx, (&before, &mut owner), top, t.ctx.now).await?;
        let mut audit = Audit::of(new_owner.0).field("roles", before.roles.texts(), owner.roles.texts());
        let mut previous = None;
        if let Some(user) = t.user_id() {
            let before = memberships::get(&mut open.tx, user).await?;
            let below = || RoleNames::one(own.roles.below_top().name.clone());
            let roles = own_roles.or_else(|| before.roles.without(top)).unwrap_or_else(below);
            own.may_give(roles.iter().filter(|name| !before.roles.contains(name)))?;
            let mut after = Membership { roles, ..before.clone() };
            memberships::update(&mut open.tx, (&before, &mut after), top, t.ctx.now).await?;
            audit = audit.field("previous_owner_roles", before.roles.texts(), after.roles.texts());
            previous = t.ctx.caller.person().map(|p| Member { membership: after, user: p.user.clone() });
        }
        let answer = (Member { membership: owner, user: new_owner_user }, previous);
        self.finish(open, &t.ctx, audit, answer).await
    }

    /// Applies a rule to a member under the tenant's lock, with the rank rules on who and the last-owner rule on what
    /// comes out. The rule is given what the caller may give.
    async fn change_member(
        &self,
        t: &TenantCtx,
        user: UserId,
        etag: &str,
        key: Option<RequestKey>,
        rule: impl FnOnce(&Authority, &mut Membership) -> Result<(), Error> + Send,
    ) -> Result<Member, Error> {
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let person = self.store.find_user(user).await?.ok_or(Error::MemberNotFound)?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        let roles = &own.roles;
        let before = memberships::get(&mut open.tx, user).await?;
        check_etag(etag, before.version)?;
        // Oneself one may always make less of.
        if t.user_id() != Some(user) {
            may_touch(own.rank, roles.rank_of(&before.roles))?;
        }
        let mut after = before.clone();
        rule(&own, &mut after)?;
        let top = &roles.top().name;
        if !after.is_active_owner(roles) {
            let owners = memberships::count_active_in_top(&mut open.tx, top).await?;
            may_lose(&before, roles, owners)?;
        }
        memberships::update(&mut open.tx, (&before, &mut after), top, t.ctx.now).await?;
        if after.status == MemberStatus::Active && before.status != MemberStatus::Active {
            check_seats(&mut open.tx, &t.catalogue, &tenant, t.ctx.now).await?;
        }
        let audit = Audit::of(user.0).field("roles", before.roles.texts(), after.roles.texts()).field(
            "status",
            before.status.as_str(),
            after.status.as_str(),
        );
        self.finish(open, &t.ctx, audit, Member { membership: after, user: person }).await
    }
}

impl App {
    /// Locks the tenant, brings it up to date, and asks once more of the locked rows what the gate asked a moment earlier:
    /// whoever was demoted, suspended or removed meanwhile, or whose tenant was suspended, is too late. Gives the tenant as
    /// it stands and what the caller may give in it.
    pub(super) async fn lock_tenant(&self, tx: &mut TenantTx, t: &TenantCtx) -> Result<(Tenant, Authority), Error> {
        let (standing, rank) = self.lock_standing(tx, t).await?;
        let permissions = permissions(&standing, &t.ctx.caller);
        Ok((standing.tenant, Authority { rank, permissions, roles: standing.roles }))
    }

    /// `lock_tenant`, with all of the caller's standing.
    pub(super) async fn lock_standing(
        &self,
        tx: &mut TenantTx,
        t: &TenantCtx,
    ) -> Result<(Standing, Option<Rank>), Error> {
        let tenant = self.lock_settled(tx, &t.ctx, &t.catalogue).await?;
        let member = match t.user_id() {
            None => None,
            Some(user) => match memberships::get(tx, user).await {
                Ok(member) => Some(member),
                Err(Error::MemberNotFound) => return Err(Error::TenantNotFound),
                Err(other) => return Err(other),
            },
        };
        // Those that the gate saw, unless they have changed since.
        let roles = if tenant.roles_version == t.tenant.roles_version {
            t.roles.clone()
        } else {
            together(&t.catalogue, &roles::list(tx).await?)
        };
        let rank = t.ctx.caller.rank(member.as_ref().map(|member| &member.roles), &roles);
        let sso = if t.ctx.caller.person().is_some() { sso::find_rule(tx).await? } else { None };
        let standing = Standing {
            tenant,
            catalogue: t.catalogue.clone(),
            policy: t.policy,
            roles,
            member,
            session_ended: false,
            sso,
        };
        match judge(&standing, &t.ctx.caller, &t.needs, t.ctx.now).into_iter().next() {
            Some(reason) => Err(reason),
            None => Ok((standing, rank)),
        }
    }
}
