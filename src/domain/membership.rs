//! Memberships: who belongs to a tenant, as what, and who may change that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{MembershipId, UserId};
use super::role::{Permissions, Rank, RoleName, RoleNames, Roles};
use crate::error::Error;
use crate::time::Timestamp;

/// Whether a member may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStatus {
    /// May act.
    Active,
    /// May not act until reactivated.
    Suspended,
    /// Is no longer a member.
    Removed,
}

impl MemberStatus {
    /// Its name in audit logs and exports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
        }
    }
}

/// A user's place in a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its id, new at each join.
    pub membership_id: MembershipId,
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub roles: RoleNames,
    /// Whether they may act.
    pub status: MemberStatus,
    /// Rises with each change.
    pub version: i64,
    /// When they joined.
    pub joined_at: Timestamp,
    /// When roles or status last changed.
    pub updated_at: Timestamp,
    /// When they last made a call in the tenant, to the minute and known a little later; none when they never have.
    pub last_active_at: Option<Timestamp>,
}

impl Membership {
    /// Whether the last-owner rules count this member.
    #[must_use]
    pub fn is_active_owner(&self, roles: &Roles) -> bool {
        self.roles.contains(&roles.top().name) && self.status == MemberStatus::Active
    }
}

/// What a caller may give and touch in a tenant.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The caller's rank; none is below every role.
    pub rank: Option<Rank>,
    /// What the caller may do.
    pub permissions: Permissions,
    /// The tenant's roles.
    pub roles: Arc<Roles>,
}

impl Authority {
    /// Whether the caller may give somebody these roles: nobody gives what they do not have. The catalogue's roles are
    /// compared by rank alone, as the product ordered them; a tenant's own ones also by what they may do.
    ///
    /// # Errors
    /// `RankTooLow`, `PermissionMissing`; `FieldsInvalid` for a role that there is not, or not any more.
    pub fn may_give<'n>(&self, names: impl IntoIterator<Item = &'n RoleName>) -> Result<(), Error> {
        for name in names {
            let role = self.roles.parse(name.as_str()).map_err(|problem| Error::field("roles", problem))?;
            may_touch(self.rank, role.rank)?;
            if role.own {
                self.may_allow(&role.permissions)?;
            }
        }
        Ok(())
    }

    /// Whether the caller may let somebody do all this: it must be what they may do themselves.
    ///
    /// # Errors
    /// `PermissionMissing`, with the first that they lack.
    pub fn may_allow(&self, permissions: &Permissions) -> Result<(), Error> {
        permissions
            .beyond(&self.permissions)
            .into_iter()
            .next()
            .map_or(Ok(()), |name| Err(Error::PermissionMissing(name)))
    }
}

/// Whether a caller of this rank may grant, change or remove that rank.
///
/// # Errors
/// `RankTooLow` when the rank is above the caller's own.
pub fn may_touch(own: Option<Rank>, other: Rank) -> Result<(), Error> {
    if own < Some(other) { Err(Error::RankTooLow) } else { Ok(()) }
}

/// Whether a tenant may lose this member as an active owner. `active_owners` counts this one, read under the tenant's
/// lock.
///
/// # Errors
/// `LastOwner` when nobody would be left.
pub fn may_lose(member: &Membership, roles: &Roles, active_owners: i64) -> Result<(), Error> {
    if member.is_active_owner(roles) && active_owners <= 1 { Err(Error::LastOwner) } else { Ok(()) }
}
