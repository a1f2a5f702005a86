//! People and their sign-ins.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::id::{PlatformKeyId, SessionId, TenantId, UserId};
use super::name::Email;
use crate::time::Timestamp;

/// How long a sign-in lasts at most.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::days(30);

/// How long an access token is good for.
pub const ACCESS_TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// How fresh a sign-in must be for a method that asks for a recent one.
pub const RECENT_LOGIN: TimeDelta = TimeDelta::minutes(10);

/// How many devices of a user are remembered; the one unseen for longest is forgotten first.
pub const DEVICES: i64 = 20;

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    /// In use.
    Active,
    /// Switched off.
    Disabled,
}

/// A person who can sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The account's id.
    pub user_id: UserId,
    /// Where mail reaches them; unique on the platform.
    pub email: Email,
    /// The name that people see.
    pub display_name: String,
}

/// What is known of a person's account besides their name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The person.
    pub user: User,
    /// Whether the account can be used.
    pub status: AccountStatus,
    /// Sessions of an older epoch are dead.
    pub session_epoch: i64,
    /// Where calls go when nothing names a tenant.
    pub default_tenant: Option<TenantId>,
}

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The account's epoch when the password was verified.
    pub epoch: i64,
    /// The tenant that new access tokens name.
    pub active_tenant: Option<TenantId>,
    /// When the person proved who they are.
    pub auth_time: Timestamp,
    /// When it ends in any case.
    pub absolute_expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The only tenant that it opens; none opens all that the person has.
    #[serde(default)]
    pub bound_tenant: Option<TenantId>,
    /// The connection with the tenant's own identity provider that said who it is; the session ends with it.
    #[serde(default)]
    pub connection: Option<Uuid>,
    /// The key of the operator who is in the person's place; the session ends with it.
    #[serde(default)]
    pub operator: Option<PlatformKeyId>,
}

impl Session {
    /// Whether calls in this session are still the account's: not revoked, not over, and of the account's epoch.
    #[must_use]
    pub fn is_live(&self, account: &Account, now: Timestamp) -> bool {
        self.revoked_at.is_none()
            && now < self.absolute_expires_at
            && self.user_id == account.user.user_id
            && self.epoch == account.session_epoch
            && account.status == AccountStatus::Active
    }
}
