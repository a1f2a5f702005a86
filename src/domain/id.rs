//! Ids that cannot be mistaken for one another.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

/// The id that a digest or MAC stands for: whoever derives it again gets the same (UUID version 8, RFC 9562).
#[must_use]
pub fn derived(digest: &[u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
    )*};
}

ids! {
    /// A tenant.
    TenantId
    /// A person's account.
    UserId
    /// One stay of a user in a tenant; new at each join.
    MembershipId
    /// A role of a tenant's own.
    RoleId
    /// An invitation.
    InvitationId
    /// A sign-in.
    SessionId
    /// A key of a service or operator.
    PlatformKeyId
    /// A key of a tenant or of one of its members.
    ApiKeyId
}
