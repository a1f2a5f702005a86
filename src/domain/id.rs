//! Ids that cannot be mistaken for one another.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
