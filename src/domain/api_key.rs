//! API keys of tenants: what a program may do in a tenant, in the tenant's own name or in a member's. A member's key is
//! tied to one stay of theirs in the tenant, and dies with it. And what operator keys are for.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::id::{ApiKeyId, MembershipId, TenantId, UserId};
use super::role::Permissions;
use super::secret::KeyKind;
use crate::time::Timestamp;

/// For how long the secret before a rotation is good when nobody says.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// For how long at most.
pub const LONGEST_OVERLAP: TimeDelta = TimeDelta::days(30);

/// How long before a key ends its maker is told.
pub const NOTICE: TimeDelta = TimeDelta::days(7);

/// A key of a tenant, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The tenant that it opens, and no other.
    pub tenant_id: TenantId,
    /// The row.
    pub api_key_id: ApiKeyId,
    /// `Tenant` or `Personal`.
    pub kind: KeyKind,
    /// The public part of the key.
    pub key_id: String,
    /// How the secret ends, for people to tell keys apart.
    pub last4: String,
    /// Of a member's key: whose.
    pub user_id: Option<UserId>,
    /// Of a member's key: in which stay.
    pub membership_id: Option<MembershipId>,
    /// What it is for.
    pub display_name: String,
    /// What it may do. A tenant's key names each permission; a member's may hold patterns, for it never does more than the
    /// member may.
    pub permissions: Permissions,
    /// How surely its maker had proven who they are: 2 with a second factor.
    pub aal: i64,
    /// Of a member's key: the connection with the tenant's own identity provider that had said who they are when they made it;
    /// the key opens nothing without it.
    #[serde(default)]
    pub connection: Option<Uuid>,
    /// The user or key that made it.
    pub created_by: Option<Uuid>,
    /// Rises with each change that people make.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute and up to a minute late.
    pub last_used_at: Option<Timestamp>,
    /// Until when the secret before the last rotation is good.
    pub old_ends_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it opens anything.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// What an operator's key is for; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OperatorScope {
    /// To look.
    Read,
    /// To help in tenants: what a tenant's own API key could do, and what the access option gives to support.
    Support,
    /// Everything.
    All,
}

impl OperatorScope {
    /// Its name in rows and requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Support => "support",
            Self::All => "all",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Support, Self::All].into_iter().find(|scope| scope.as_str() == text)
    }
}
