//! What is known of a call: who makes it, when, from where, in which tenant. Built by the gate; everything below takes
//! it as an argument.

use std::net::IpAddr;

use uuid::Uuid;

use crate::domain::id::{PlatformKeyId, TenantId, UserId};
use crate::domain::membership::Membership;
use crate::domain::role::{Permissions, Role};
use crate::domain::secret::KeyKind;
use crate::domain::tenant::{SuspendedBy, Tenant};
use crate::domain::user::{Session, User};
use crate::entropy;
use crate::time::Timestamp;

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// In which sign-in.
    pub session: Session,
    /// When they proved who they are, as their token says.
    pub auth_time: Timestamp,
    /// When their token ends.
    pub token_expires_at: Timestamp,
    /// The tenant that their token names.
    pub token_tenant: Option<TenantId>,
    /// Where their calls go when nothing names a tenant.
    pub default_tenant: Option<TenantId>,
}

/// A key of a service or operator, without its secret.
#[derive(Debug, Clone)]
pub struct PlatformKey {
    /// The row.
    pub platform_key_id: PlatformKeyId,
    /// What it opens.
    pub kind: KeyKind,
    /// The public part of the key.
    pub key_id: String,
    /// What it is for.
    pub display_name: String,
    /// What it may do.
    pub permissions: Permissions,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody said.
    Anonymous,
    /// A person.
    User(Box<SignedIn>),
    /// A trusted backend service.
    Service(Box<PlatformKey>),
    /// A service in a person's name: allowed is what both may do.
    Delegated(Box<PlatformKey>, Box<SignedIn>),
    /// A platform administrator.
    Operator(Box<PlatformKey>),
}

impl Caller {
    /// The kind's name in logs and refusals.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User(_) => "user",
            Self::Service(_) => "service",
            Self::Delegated(..) => "delegated",
            Self::Operator(_) => "operator",
        }
    }

    /// The kind's number in rows; as `CallerKind` in access.proto. A service in a person's name is a service.
    #[must_use]
    pub const fn kind_number(&self) -> i64 {
        match self {
            Self::Anonymous => 1,
            Self::User(_) => 2,
            Self::Service(_) | Self::Delegated(..) => 3,
            Self::Operator(_) => 4,
        }
    }

    /// The id of the credential's holder: a user or a key.
    #[must_use]
    pub const fn id(&self) -> Option<Uuid> {
        match self {
            Self::Anonymous => None,
            Self::User(user) => Some(user.user.user_id.0),
            Self::Service(key) | Self::Delegated(key, _) | Self::Operator(key) => Some(key.platform_key_id.0),
        }
    }

    /// The person who calls or in whose name is called.
    #[must_use]
    pub const fn person(&self) -> Option<&SignedIn> {
        match self {
            Self::User(user) | Self::Delegated(_, user) => Some(user),
            Self::Anonymous | Self::Service(_) | Self::Operator(_) => None,
        }
    }

    /// Whose call it is, for counting and for repetitions: the person where there is one, else the key's holder.
    #[must_use]
    pub fn principal(&self) -> Option<Uuid> {
        self.person().map(|person| person.user.user_id.0).or(self.id())
    }

    /// The key, when one is used.
    #[must_use]
    pub const fn key(&self) -> Option<&PlatformKey> {
        match self {
            Self::Service(key) | Self::Delegated(key, _) | Self::Operator(key) => Some(key),
            Self::Anonymous | Self::User(_) => None,
        }
    }

    /// The rank that bounds whom the caller may make, change or remove, given the role of the person in the tenant: nobody
    /// gives what they do not have. A key ranks as the highest role all of whose permissions it holds; a service in a
    /// person's name as the lower of both; an operator at the top. None is below every role.
    #[must_use]
    pub fn rank(&self, role: Option<Role>) -> Option<Role> {
        let of_key = |key: &PlatformKey| Role::ALL.into_iter().rev().find(|role| key.permissions.covers(*role));
        match self {
            Self::Anonymous => None,
            Self::User(_) => role,
            Self::Service(key) => of_key(key),
            Self::Delegated(key, _) => role.min(of_key(key)),
            Self::Operator(_) => Some(Role::TOP),
        }
    }

    /// As whom they suspend a tenant.
    #[must_use]
    pub const fn suspends_as(&self) -> SuspendedBy {
        match self {
            Self::Operator(_) => SuspendedBy::Operator,
            _ => SuspendedBy::Member,
        }
    }
}

/// A call.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// The server's id of the call, in its logs, audit rows and internal errors.
    pub request_id: Uuid,
    /// `Service/Method`.
    pub method: &'static str,
    /// When it was decided on.
    pub now: Timestamp,
    /// The caller's address, when known.
    pub source: Option<IpAddr>,
    /// Who.
    pub caller: Caller,
}

impl Ctx {
    /// A new id, born at the time of the call.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        entropy::id(self.now)
    }
}

/// A call in a tenant, after the gate let it in.
#[derive(Debug, Clone)]
pub struct TenantCtx {
    /// The call.
    pub ctx: Ctx,
    /// The tenant, as it was when the gate looked.
    pub tenant: Tenant,
    /// The person's place in it; none for services alone and operators.
    pub member: Option<Membership>,
    /// What the caller may do in it.
    pub permissions: Permissions,
    /// What the method asks for, to be asked again of the locked rows.
    pub needs: Needs<'static>,
}

/// What a call asks for besides a tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs<'a> {
    /// Permissions, all of them.
    pub permissions: &'a [&'a str],
    /// Whether a suspended tenant will do.
    pub allow_suspended: bool,
    /// Whether a deleted tenant will do.
    pub allow_deleted: bool,
    /// Whether the sign-in must be recent.
    pub recent_login: bool,
}

impl TenantCtx {
    /// The tenant's id.
    #[must_use]
    pub const fn tenant_id(&self) -> TenantId {
        self.tenant.tenant_id
    }

    /// The person who calls or in whose name is called.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        self.ctx.caller.person().map(|person| person.user.user_id)
    }
}
