//! Roles that a tenant makes for itself. Nobody makes, changes or deletes one that is beyond their own rank or allows what
//! they may not do themselves; every change happens under the tenant's lock and holds with the next call of every member.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::TenantCtx;
use crate::decide::roles::together;
use crate::domain::id::RoleId;
use crate::domain::invitation::{Invitation, InvitationStatus};
use crate::domain::membership::{Authority, may_touch};
use crate::domain::role::{MOST_OWN, OwnRole, Permissions, Rank, Role, RoleName, RoleNames, Roles};
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, invitations, memberships, roles, settings, sso};
use crate::time::Timestamp;

/// How many members are named in what a change would mean.
const NAMED: usize = 50;

/// How many members are read at once.
const PAGE: i64 = 500;

/// A role to be.
#[derive(Debug, Clone)]
pub struct NewRole {
    /// Its name.
    pub name: RoleName,
    /// Where it stands.
    pub rank: Rank,
    /// What it allows, spelt out.
    pub permissions: Permissions,
    /// What it is for.
    pub description: String,
}

/// What to change of a role; what is none stays.
#[derive(Debug, Clone, Default)]
pub struct RoleChanges {
    /// Where it stands.
    pub rank: Option<Rank>,
    /// What it allows, spelt out.
    pub permissions: Option<Permissions>,
    /// What it is for.
    pub description: Option<String>,
}

/// A role as a tenant sees it.
#[derive(Debug, Clone)]
pub struct RoleView {
    /// The role.
    pub role: Role,
    /// What else is known of one that the tenant made for itself.
    pub own: Option<OwnRole>,
}

/// What a change of a role would mean for the members who have it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RoleImpact {
    /// How many have it.
    pub members: i64,
    /// Some of those for whom something changes, other roles of theirs counted in.
    pub named: Vec<MemberImpact>,
    /// For how many something changes.
    pub affected: i64,
}

/// What a change of a role would mean for one member.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberImpact {
    /// Who.
    pub user: User,
    /// What they may do then and not now.
    pub gained: Vec<String>,
    /// What they may do now and not then.
    pub lost: Vec<String>,
}

impl App {
    /// The tenant's roles, highest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_roles(&self, t: &TenantCtx) -> Result<Vec<RoleView>, Error> {
        let own = roles::list(&mut self.store.read(InTenant(t.tenant_id())).await?).await?;
        let all = together(&t.catalogue, &own);
        let view = |role: &Role| RoleView {
            role: role.clone(),
            own: own.iter().find(|known| role.own && known.name == role.name).cloned(),
        };
        Ok(all.descending().map(view).collect())
    }

    /// Makes a role.
    ///
    /// # Errors
    /// `RoleTaken`, `RankTooLow`, `PermissionMissing`, `FieldsInvalid` for a rank at the top or one role too many.
    pub async fn create_role(
        &self,
        t: &TenantCtx,
        new: NewRole,
        validate_only: bool,
        key: Option<RequestKey>,
    ) -> Result<OwnRole, Error> {
        let role_id = if validate_only { Uuid::nil() } else { t.ctx.new_id() };
        let role = OwnRole {
            role_id: RoleId(role_id),
            name: new.name,
            rank: new.rank,
            permissions: new.permissions,
            description: new.description,
            version: 1,
            created_at: t.ctx.now,
            updated_at: t.ctx.now,
        };
        if validate_only {
            let own = roles::list(&mut self.store.read(InTenant(t.tenant_id())).await?).await?;
            return may_create(&authority(t), &own, &role).map(|()| role);
        }
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, authority) = self.lock_tenant(&mut open.tx, t).await?;
        may_create(&authority, &roles::list(&mut open.tx).await?, &role)?;
        roles::insert(&mut open.tx, &role).await?;
        let audit = Audit::of(role_id)
            .set("name", role.name.as_str())
            .set("rank", role.rank.0)
            .set("permissions", role.permissions.names());
        self.finish(open, &t.ctx, audit, role).await
    }

    /// Changes a role; or says what that would mean.
    ///
    /// # Errors
    /// `RoleNotFound`, `WrongState` for one of the catalogue's, `EtagMismatch`, and as `create_role`.
    pub async fn update_role(
        &self,
        t: &TenantCtx,
        (name, changes): (&RoleName, &RoleChanges),
        etag: &str,
        validate_only: bool,
        key: Option<RequestKey>,
    ) -> Result<(OwnRole, Option<RoleImpact>), Error> {
        let tenant_id = t.tenant_id();
        if validate_only {
            let mut tx = self.store.read(InTenant(tenant_id)).await?;
            let own = roles::list(&mut tx).await?;
            let after = changed(&authority(t), &own, (name, changes), etag)?;
            let with = |role: &OwnRole| if role.name == *name { after.clone() } else { role.clone() };
            let then = together(&t.catalogue, &own.iter().map(with).collect::<Vec<_>>());
            let impact = self.role_impact(&mut tx, (&t.roles, &then), name, |held| Some(held.clone())).await?;
            return Ok((after, Some(impact)));
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, authority) = self.lock_tenant(&mut open.tx, t).await?;
        let own = roles::list(&mut open.tx).await?;
        let before = find(&authority, &own, name)?;
        let mut after = changed(&authority, &own, (name, changes), etag)?;
        roles::update(&mut open.tx, &mut after, t.ctx.now).await?;
        let audit = Audit::of(after.role_id.0)
            .field("rank", before.rank.0, after.rank.0)
            .field("permissions", before.permissions.names(), after.permissions.names())
            .field("description", before.description.as_str(), after.description.as_str());
        self.finish(open, &t.ctx, audit, (after, None)).await
    }

    /// Deletes a role; those who have it get `replacement` instead. Or says what that would mean.
    ///
    /// # Errors
    /// `RoleNotFound`, `RoleInUse` without a replacement, `WrongState` for one of the catalogue's, `RankTooLow`,
    /// `PermissionMissing`, `EtagMismatch`.
    pub async fn delete_role(
        &self,
        t: &TenantCtx,
        (name, replacement): (&RoleName, Option<&RoleName>),
        etag: &str,
        validate_only: bool,
        key: Option<RequestKey>,
    ) -> Result<RoleImpact, Error> {
        let tenant_id = t.tenant_id();
        if validate_only {
            let mut tx = self.store.read(InTenant(tenant_id)).await?;
            let own = roles::list(&mut tx).await?;
            let authority = authority(t);
            check_etag(etag, touch(&authority, &own, name)?.version)?;
            self.may_delete(&mut tx, &authority, (name, replacement), t).await?;
            let replaced =
                |held: &RoleNames| RoleNames::of(held.iter().filter(|role| *role != name).chain(replacement).cloned());
            return self.role_impact(&mut tx, (&t.roles, &t.roles), name, replaced).await;
        }
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (_, authority) = self.lock_tenant(&mut open.tx, t).await?;
        let own = roles::list(&mut open.tx).await?;
        let role = touch(&authority, &own, name)?;
        check_etag(etag, role.version)?;
        self.may_delete(&mut open.tx, &authority, (name, replacement), t).await?;
        if let Some(replacement) = replacement {
            roles::replace(&mut open.tx, name, replacement, t.ctx.now).await?;
            for mut invitation in invited_as(&mut open.tx, name, t.ctx.now).await? {
                let others = invitation.roles.iter().filter(|role| *role != name).cloned();
                invitation.roles = RoleNames::with(replacement.clone(), others);
                invitations::update(&mut open.tx, &mut invitation, t.ctx.now).await?;
            }
        }
        roles::delete(&mut open.tx, name).await?;
        let audit = Audit::of(role.role_id.0)
            .field("name", name.as_str(), serde_json::Value::Null)
            .set("replacement", replacement.map(RoleName::as_str));
        self.finish(open, &t.ctx, audit, RoleImpact::default()).await
    }

    /// Whether a role can go: nobody may be left with a role that there is not.
    async fn may_delete(
        &self,
        tx: &mut TenantTx,
        authority: &Authority,
        (name, replacement): (&RoleName, Option<&RoleName>),
        t: &TenantCtx,
    ) -> Result<(), Error> {
        let (own, _) = settings::find(tx).await?;
        let joins = own.over(&t.catalogue.definition.settings).auto_join.role;
        if joins.is_some_and(|role| role == name.as_str()) {
            return Err(Error::RoleInUse(
                "people join at it by the setting auto_join.role; set another one there first",
            ));
        }
        if sso::find(tx).await?.is_some_and(|(connection, _)| connection.terms.gives(name)) {
            return Err(Error::RoleInUse(
                "people get it by signing in through the tenant's provider; set another one with SetSsoConnection first",
            ));
        }
        let Some(replacement) = replacement else {
            if !memberships::list_in_role(tx, name, (Uuid::nil(), 1)).await?.is_empty() {
                return Err(Error::RoleInUse("members have it; name a replacement, or give them other roles first"));
            }
            if !invited_as(tx, name, t.ctx.now).await?.is_empty() {
                return Err(Error::RoleInUse("people are invited to it; name a replacement, or revoke that first"));
            }
            return Ok(());
        };
        if replacement == name {
            return Err(Error::field("replacement", "is the role itself"));
        }
        if *replacement == authority.roles.top().name {
            return Err(Error::field("replacement", "must not be the top role: owners are made one by one"));
        }
        authority.may_give([replacement])
    }

    /// What it means for the members who have a role that roles change from `before` to `after` and theirs as `then` says.
    async fn role_impact(
        &self,
        tx: &mut TenantTx,
        (before, after): (&Roles, &Roles),
        name: &RoleName,
        then: impl Fn(&RoleNames) -> Option<RoleNames> + Send,
    ) -> Result<RoleImpact, Error> {
        let mut impact = RoleImpact::default();
        let mut named = Vec::new();
        let mut from = Uuid::nil();
        loop {
            let page = memberships::list_in_role(tx, name, (from, PAGE)).await?;
            let Some(end) = page.last() else { break };
            from = end.membership_id.0;
            for member in &page {
                impact.members += 1;
                let now = before.permissions_of(&member.roles);
                let then = then(&member.roles).map(|roles| after.permissions_of(&roles)).unwrap_or_default();
                let (gained, lost) = (then.beyond(&now), now.beyond(&then));
                if gained.is_empty() && lost.is_empty() {
                    continue;
                }
                impact.affected += 1;
                if named.len() < NAMED {
                    named.push((member.user_id, gained, lost));
                }
            }
        }
        for (user_id, gained, lost) in named {
            if let Some(user) = self.store.find_user(user_id).await? {
                impact.named.push(MemberImpact { user, gained, lost });
            }
        }
        Ok(impact)
    }
}

/// The pending invitations to a role.
async fn invited_as(tx: &mut TenantTx, name: &RoleName, now: Timestamp) -> Result<Vec<Invitation>, Error> {
    let mut found = Vec::new();
    let mut from = Uuid::nil();
    loop {
        let page = invitations::list(tx, (from, PAGE), Some(InvitationStatus::Pending), now).await?;
        let Some(end) = page.last() else { return Ok(found) };
        from = end.invitation_id.0;
        found.extend(page.into_iter().filter(|invitation| invitation.roles.contains(name)));
    }
}

/// What the caller may give, as the gate saw it: for what is only tried.
fn authority(t: &TenantCtx) -> Authority {
    let rank = t.ctx.caller.rank(t.member.as_ref().map(|member| &member.roles), &t.roles);
    Authority { rank, permissions: t.permissions.clone(), roles: t.roles.clone() }
}

/// The tenant's own role of a name.
fn find<'o>(authority: &Authority, own: &'o [OwnRole], name: &RoleName) -> Result<&'o OwnRole, Error> {
    own.iter().find(|role| role.name == *name).ok_or_else(|| match authority.roles.get(name) {
        Some(_) => Error::WrongState { state: "a role of the catalogue", wanted: "one of the tenant's own" },
        None => Error::RoleNotFound,
    })
}

/// The tenant's own role of a name, if the caller may touch it.
fn touch<'o>(authority: &Authority, own: &'o [OwnRole], name: &RoleName) -> Result<&'o OwnRole, Error> {
    let role = find(authority, own, name)?;
    // As it counts now: a permission that the catalogue no longer has is nobody's.
    let counts = authority.roles.get(name).ok_or(Error::RoleNotFound)?;
    may_stand(authority, counts.rank, &counts.permissions)?;
    Ok(role)
}

/// Whether the caller may have a hand in a role like this.
fn may_stand(authority: &Authority, rank: Rank, permissions: &Permissions) -> Result<(), Error> {
    may_touch(authority.rank, rank)?;
    authority.may_allow(permissions)
}

fn below_top(authority: &Authority, rank: Rank) -> Result<(), Error> {
    let top = authority.roles.top();
    if rank < top.rank {
        return Ok(());
    }
    Err(Error::field("rank", format!("must be below {}, the rank of {}", top.rank.0, top.name)))
}

fn may_create(authority: &Authority, own: &[OwnRole], role: &OwnRole) -> Result<(), Error> {
    below_top(authority, role.rank)?;
    may_stand(authority, role.rank, &role.permissions)?;
    if authority.roles.get(&role.name).is_some() {
        return Err(Error::RoleTaken);
    }
    if own.len() >= MOST_OWN {
        return Err(Error::field("name", format!("is one too many: {MOST_OWN} own roles are allowed; delete another")));
    }
    Ok(())
}

/// A role as it comes out of changes that the caller may make.
fn changed(
    authority: &Authority,
    own: &[OwnRole],
    (name, changes): (&RoleName, &RoleChanges),
    etag: &str,
) -> Result<OwnRole, Error> {
    let before = touch(authority, own, name)?;
    check_etag(etag, before.version)?;
    let counts = authority.roles.get(name).ok_or(Error::RoleNotFound)?;
    let after = OwnRole {
        rank: changes.rank.unwrap_or(counts.rank),
        permissions: changes.permissions.clone().unwrap_or_else(|| counts.permissions.clone()),
        description: changes.description.clone().unwrap_or_else(|| before.description.clone()),
        ..before.clone()
    };
    below_top(authority, after.rank)?;
    may_stand(authority, after.rank, &after.permissions)?;
    Ok(after)
}
