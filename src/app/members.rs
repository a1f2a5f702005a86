//! Members: joining, roles, suspension, leaving, ownership. Every change happens under the tenant's lock, so that the
//! rules on ranks and on the last owner see members as they are.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use super::tenants::new_membership;
use crate::ctx::TenantCtx;
use crate::decide::judge::judge;
use crate::decide::tenant::Standing;
use crate::domain::catalogue::MEMBERS;
use crate::domain::id::UserId;
use crate::domain::membership::{MemberStatus, Membership, may_lose, may_touch};
use crate::domain::name::Email;
use crate::domain::role::{Rank, Role, RoleName};
use crate::domain::tenant::Tenant;
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, entitlements, memberships};

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
    /// `UserUnknown` (which counts against the rate), `AlreadyMember`, `RankTooLow`, `RateExceeded`.
    pub async fn add_member(
        &self,
        t: &TenantCtx,
        email: &Email,
        role: &Role,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        let tenant_id = t.tenant_id();
        let account = self.store.find_account(email).await?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (tenant, rank) = self.lock_tenant(&mut open.tx, t).await?;
        may_touch(rank, role.rank)?;
        let Some(account) = account else {
            drop(open);
            return self.refuse_counted(&t.ctx, Some(tenant_id), Error::UserUnknown).await;
        };
        let membership = new_membership(&t.ctx, account.user.user_id, role.name.clone());
        memberships::insert(&mut open.tx, &membership).await?;
        self.check_seats(&mut open.tx, t, &tenant).await?;
        let audit = Audit::of(account.user.user_id.0).set("role", role.name.as_str()).set("status", "active");
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

    /// Gives a member another role.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`, `LastOwner`, `EtagMismatch`.
    pub async fn update_member_role(
        &self,
        t: &TenantCtx,
        user: UserId,
        role: &Role,
        etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Member, Error> {
        self.change_member(t, user, etag, key, |own, member| {
            may_touch(own, role.rank)?;
            member.role = role.name.clone();
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

    /// Makes another active member owner (the top role) and the caller what `own_role` says.
    ///
    /// # Errors
    /// `MemberNotFound`, `WrongState` when the new owner is suspended.
    pub async fn transfer_ownership(
        &self,
        t: &TenantCtx,
        new_owner: UserId,
        own_role: Option<RoleName>,
        key: Option<RequestKey>,
    ) -> Result<(Member, Option<Member>), Error> {
        if t.user_id() == Some(new_owner) {
            return Err(Error::field("new_owner_id", "is yourself"));
        }
        if t.user_id().is_none() && own_role.is_some() {
            return Err(Error::field("own_role", "is for owners; operators and services have no role to change"));
        }
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let new_owner_user = self.store.find_user(new_owner).await?.ok_or(Error::MemberNotFound)?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let roles = &t.catalogue.definition.roles;
        let (_, rank) = self.lock_tenant(&mut open.tx, t).await?;
        may_touch(rank, roles.top().rank)?;
        let mut owner = memberships::get(&mut open.tx, new_owner).await?;
        if owner.status != MemberStatus::Active {
            return Err(Error::WrongState { state: "suspended", wanted: "an active member" });
        }
        let top = roles.top().name.clone();
        let before = std::mem::replace(&mut owner.role, top.clone());
        memberships::update(&mut open.tx, &mut owner, t.ctx.now).await?;
        let mut audit = Audit::of(new_owner.0).field("role", before.as_str(), top.as_str());
        let mut previous = None;
        if let Some(user) = t.user_id() {
            let mut own = memberships::get(&mut open.tx, user).await?;
            let role = own_role.unwrap_or_else(|| roles.below_top().name.clone());
            audit = audit.field("previous_owner_role", own.role.as_str(), role.as_str());
            own.role = role;
            memberships::update(&mut open.tx, &mut own, t.ctx.now).await?;
            previous = t.ctx.caller.person().map(|p| Member { membership: own, user: p.user.clone() });
        }
        let answer = (Member { membership: owner, user: new_owner_user }, previous);
        self.finish(open, &t.ctx, audit, answer).await
    }

    /// Applies a rule to a member under the tenant's lock, with the rank rules on who and the last-owner rule on what
    /// comes out. The rule is given the caller's rank.
    async fn change_member(
        &self,
        t: &TenantCtx,
        user: UserId,
        etag: &str,
        key: Option<RequestKey>,
        rule: impl FnOnce(Option<Rank>, &mut Membership) -> Result<(), Error> + Send,
    ) -> Result<Member, Error> {
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let person = self.store.find_user(user).await?.ok_or(Error::MemberNotFound)?;
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let roles = &t.catalogue.definition.roles;
        let (tenant, own) = self.lock_tenant(&mut open.tx, t).await?;
        let before = memberships::get(&mut open.tx, user).await?;
        check_etag(etag, before.version)?;
        // Oneself one may always make less of.
        if t.user_id() != Some(user) {
            may_touch(own, roles.rank(&before.role))?;
        }
        let mut after = before.clone();
        rule(own, &mut after)?;
        if !after.is_active_owner(roles) {
            let owners = memberships::count_active_in(&mut open.tx, &roles.top().name).await?;
            may_lose(&before, roles, owners)?;
        }
        memberships::update(&mut open.tx, &mut after, t.ctx.now).await?;
        if after.status == MemberStatus::Active && before.status != MemberStatus::Active {
            self.check_seats(&mut open.tx, t, &tenant).await?;
        }
        let audit = Audit::of(user.0).field("role", before.role.as_str(), after.role.as_str()).field(
            "status",
            status_name(before.status),
            status_name(after.status),
        );
        self.finish(open, &t.ctx, audit, Member { membership: after, user: person }).await
    }
}

impl App {
    /// Locks the tenant, brings it up to date, and asks once more of the locked rows what the gate asked a moment earlier:
    /// whoever was demoted, suspended or removed meanwhile, or whose tenant was suspended, is too late. Gives the tenant as
    /// it stands and the caller's rank.
    pub(super) async fn lock_tenant(&self, tx: &mut TenantTx, t: &TenantCtx) -> Result<(Tenant, Option<Rank>), Error> {
        let (standing, rank) = self.lock_standing(tx, t).await?;
        Ok((standing.tenant, rank))
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
        let roles = &t.catalogue.definition.roles;
        let rank = t.ctx.caller.rank(member.as_ref().map(|member| &member.role), roles);
        let standing = Standing { tenant, catalogue: t.catalogue.clone(), member };
        match judge(&standing, &t.ctx.caller, &t.needs, t.ctx.now).into_iter().next() {
            Some(reason) => Err(reason),
            None => Ok((standing, rank)),
        }
    }

    /// Refuses when more members are active than there are seats. Asked after the change, under the tenant's lock.
    async fn check_seats(&self, tx: &mut TenantTx, t: &TenantCtx, tenant: &Tenant) -> Result<(), Error> {
        let own = entitlements::find_limit(tx, MEMBERS, t.ctx.now).await?;
        match t.catalogue.effective_limit(&tenant.subscription.of, MEMBERS, own.as_ref()) {
            Some(seats) if memberships::count_active(tx).await? > seats.limit => {
                Err(Error::SeatsExhausted { seats: seats.limit })
            }
            _ => Ok(()),
        }
    }
}

const fn status_name(status: MemberStatus) -> &'static str {
    match status {
        MemberStatus::Active => "active",
        MemberStatus::Suspended => "suspended",
        MemberStatus::Removed => "removed",
    }
}
