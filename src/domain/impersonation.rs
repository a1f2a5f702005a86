//! Impersonation: an operator in a member's place, for a while, where the tenant can see it.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::id::{PlatformKeyId, SessionId, UserId};
use crate::time::Timestamp;

/// How long it lasts when nobody says.
pub const USUAL: TimeDelta = TimeDelta::minutes(15);

/// How long it lasts at least and at most.
pub const SHORTEST: TimeDelta = TimeDelta::minutes(1);
/// How long it lasts at most.
pub const LONGEST: TimeDelta = TimeDelta::hours(1);

/// An operator in a member's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impersonation {
    /// Its id: that of its session.
    pub session_id: SessionId,
    /// The member.
    pub user_id: UserId,
    /// The operator's key.
    pub operator: PlatformKeyId,
    /// What the operator's key is called.
    pub operator_name: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// When it was ended before that.
    pub ended_at: Option<Timestamp>,
}
