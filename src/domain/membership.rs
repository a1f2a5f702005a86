//! Memberships: who belongs to a tenant, as what, and who may change that.

use serde::{Deserialize, Serialize};

use super::id::{MembershipId, UserId};
use super::role::{Rank, RoleName, Roles};
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

/// A user's place in a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its id, new at each join.
    pub membership_id: MembershipId,
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: RoleName,
    /// Whether they may act.
    pub status: MemberStatus,
    /// Rises with each change.
    pub version: i64,
    /// When they joined.
    pub joined_at: Timestamp,
    /// When role or status last changed.
    pub updated_at: Timestamp,
}

impl Membership {
    /// Whether the last-owner rules count this member.
    #[must_use]
    pub fn is_active_owner(&self, roles: &Roles) -> bool {
        self.role == roles.top().name && self.status == MemberStatus::Active
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
