//! People and their accounts.

use serde::{Deserialize, Serialize};

use super::id::{TenantId, UserId};
use super::name::Email;
use crate::time::Timestamp;

/// The epoch of the sessions of a new account.
pub const FIRST_EPOCH: i64 = 1;

/// How many devices of a user are remembered; the one unseen for longest is forgotten first.
pub const DEVICES: i64 = 20;

/// Whether an account can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    /// In use.
    Active,
    /// Switched off.
    Disabled,
    /// Ended by the person: its row names nobody any more.
    Deleted,
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

/// What an account says of itself to its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The name that people see.
    pub display_name: String,
    /// BCP 47; empty when none was chosen.
    pub locale: String,
    /// Where calls go when nothing names a tenant.
    pub default_tenant: Option<TenantId>,
    /// When mail to its address was seen to arrive; none when not yet.
    pub email_verified_at: Option<Timestamp>,
    /// When the password was chosen; none when there is none.
    pub password_changed_at: Option<Timestamp>,
    /// Rises with each change of the profile.
    pub version: i64,
    /// When it was created.
    pub created_at: Timestamp,
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
