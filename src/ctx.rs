//! What is known of a call: who makes it, when, from where, in which tenant. Built by the gate; everything below takes
//! it as an argument.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::api_key::{ApiKey, OperatorScope};
use crate::domain::catalogue::Catalogue;
use crate::domain::cursor::Cursor;
use crate::domain::id::{PlatformKeyId, TenantId, UserId};
use crate::domain::membership::Membership;
use crate::domain::role::{Permissions, Rank, RoleNames, Roles};
use crate::domain::secret::KeyKind;
use crate::domain::session::{Session, SessionKind};
use crate::domain::settings::SignInMethods;
use crate::domain::tenant::{SuspendedBy, Tenant};
use crate::domain::user::User;
use crate::entropy;
use crate::time::Timestamp;

tokio::task_local! {
    /// Where the call that is being answered has left the change feed.
    pub static WRITTEN: Cell<Written>;
}

/// What a call has written of what others may have in memory.
#[derive(Debug, Clone, Copy, Default)]
pub enum Written {
    /// Nothing so far.
    #[default]
    Nothing,
    /// Something, up to here.
    UpTo(Cursor),
    /// Something, at a place that is not known: the call is a repetition.
    Somewhere,
}

/// A signed-in person.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// In which sign-in.
    pub session: Session,
    /// When they proved who they are, as their token says.
    pub auth_time: Timestamp,
    /// The key that signed their token.
    pub kid: String,
    /// When their token ends.
    pub token_expires_at: Timestamp,
    /// The tenant that their token names.
    pub token_tenant: Option<TenantId>,
    /// Where their calls go when nothing names a tenant.
    pub default_tenant: Option<TenantId>,
}

/// A key of a service or operator, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlatformKey {
    /// The row.
    pub platform_key_id: PlatformKeyId,
    /// What it opens.
    pub kind: KeyKind,
    /// The public part of the key.
    pub key_id: String,
    /// What it is for.
    pub display_name: String,
    /// How its secret ends, for people to tell keys apart; empty for those of before that was kept.
    pub last4: String,
    /// What it may do.
    pub permissions: Permissions,
    /// What an operator's key is for; all for services.
    pub scope: OperatorScope,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, to the minute and up to a minute late.
    pub last_used_at: Option<Timestamp>,
    /// Until when the secret before the last rotation is good.
    pub old_ends_at: Option<Timestamp>,
}

impl PlatformKey {
    /// Whether it opens anything.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody said.
    Anonymous,
    /// A person.
    User(Arc<SignedIn>),
    /// A trusted backend service.
    Service(Arc<PlatformKey>),
    /// A service in a person's name: allowed is what both may do.
    Delegated(Arc<PlatformKey>, Arc<SignedIn>),
    /// A platform administrator.
    Operator(Arc<PlatformKey>),
    /// A program of a tenant: allowed is what its key may do.
    Key(Arc<ApiKey>),
    /// A program of a member: allowed is what both the member and the key may do.
    Personal(Arc<ApiKey>, Arc<User>),
    /// A person whom a service names by id, in a question about them: how they have signed in is not known.
    Named(Arc<User>),
    /// The server itself, at work on what time has brought.
    System,
}

impl Caller {
    /// The kind's name in logs and refusals.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.impersonator().is_some() {
            return "impersonating";
        }
        match self {
            Self::Anonymous => "anonymous",
            Self::User(_) => "user",
            Self::Service(_) => "service",
            Self::Delegated(..) => "delegated",
            Self::Operator(_) => "operator",
            Self::Key(_) => "api_key",
            Self::Personal(..) => "personal_key",
            Self::Named(_) => "named",
            Self::System => "system",
        }
    }

    /// The kind's number in rows; as `CallerKind` in access.proto. A service in a person's name is a service; an operator
    /// in a person's place is an operator, whichever way the call came.
    #[must_use]
    pub fn kind_number(&self) -> i64 {
        if self.impersonator().is_some() {
            return 4;
        }
        match self {
            Self::Anonymous => 1,
            Self::User(_) | Self::Named(_) => 2,
            Self::Service(_) | Self::Delegated(..) => 3,
            Self::Operator(_) => 4,
            Self::System => 5,
            Self::Key(_) => 6,
            Self::Personal(..) => 7,
        }
    }

    /// The id of the credential's holder: a user or a key.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        if let Some(key) = self.impersonator() {
            return Some(key.0);
        }
        match self {
            Self::Anonymous | Self::System => None,
            Self::User(user) => Some(user.user.user_id.0),
            Self::Named(user) => Some(user.user_id.0),
            Self::Service(key) | Self::Delegated(key, _) | Self::Operator(key) => Some(key.platform_key_id.0),
            Self::Key(key) | Self::Personal(key, _) => Some(key.api_key_id.0),
        }
    }

    /// The person who has signed in and calls, or in whose name is called. Behind a member's key nobody has signed in.
    #[must_use]
    pub fn person(&self) -> Option<&SignedIn> {
        match self {
            Self::User(user) | Self::Delegated(_, user) => Some(user),
            Self::Anonymous
            | Self::Service(_)
            | Self::Operator(_)
            | Self::Key(_)
            | Self::Personal(..)
            | Self::Named(_)
            | Self::System => None,
        }
    }

    /// The person as whose the call counts: who signed in, or whose key it is.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Personal(_, user) | Self::Named(user) => Some(user),
            other => other.person().map(|person| &person.user),
        }
    }

    /// How surely the person has proven who they are as whom the call counts; none where there is nobody. Behind a member's
    /// key it is what they had proven when they made it. An operator in a person's place has proven more than they.
    #[must_use]
    pub fn aal(&self) -> Option<i64> {
        match self {
            Self::Personal(key, _) => Some(key.aal),
            other => other
                .person()
                .filter(|person| person.session.kind == SessionKind::SignIn)
                .map(|person| person.session.aal),
        }
    }

    /// The tenant that the credential itself names.
    #[must_use]
    pub fn own_tenant(&self) -> Option<TenantId> {
        let of_token = || self.person().and_then(|person| person.token_tenant);
        self.api_key().map(|key| key.tenant_id).or_else(of_token)
    }

    /// Whose call it is, for counting and for repetitions: the person where there is one, else the key's holder.
    #[must_use]
    pub fn principal(&self) -> Option<Uuid> {
        self.user().map(|user| user.user_id.0).or(self.id())
    }

    /// The key of the operator who is in the person's place.
    #[must_use]
    pub fn impersonator(&self) -> Option<PlatformKeyId> {
        match self.person() {
            Some(person) => person.session.operator,
            None => None,
        }
    }

    /// The key of a service or operator, when one is used.
    #[must_use]
    pub fn key(&self) -> Option<&PlatformKey> {
        match self {
            Self::Service(key) | Self::Delegated(key, _) | Self::Operator(key) => Some(key),
            Self::Anonymous | Self::User(_) | Self::Key(_) | Self::Personal(..) | Self::Named(_) | Self::System => None,
        }
    }

    /// The key of a tenant or of a member, when one is used.
    #[must_use]
    pub fn api_key(&self) -> Option<&ApiKey> {
        match self {
            Self::Key(key) | Self::Personal(key, _) => Some(key),
            Self::Anonymous
            | Self::User(_)
            | Self::Service(_)
            | Self::Delegated(..)
            | Self::Operator(_)
            | Self::Named(_)
            | Self::System => None,
        }
    }

    /// The rank that bounds whom the caller may make, change or remove, given the roles of the person in the tenant: nobody
    /// gives what they do not have. A key ranks as the highest of the catalogue's roles all of whose permissions, and of the
    /// lower ones', it holds: a tenant's own roles, which its service knows nothing of, do not lower it; a service in a
    /// person's name, and a member's key, as the lower of both; an operator for everything and the server itself at the top.
    /// Keys of tenants and members, and operators for support, stay below the top: they make no owners. None is below every
    /// role.
    #[must_use]
    pub fn rank(&self, held: Option<&RoleNames>, roles: &Roles) -> Option<Rank> {
        let of_person = held.map(|names| roles.rank_of(names));
        match self {
            Self::Anonymous => None,
            Self::User(_) | Self::Named(_) => of_person,
            Self::Service(key) => rank_by_permissions(&key.permissions, roles),
            Self::Delegated(key, _) => of_person.min(rank_by_permissions(&key.permissions, roles)),
            Self::Key(key) => rank_of_key(&key.permissions, roles),
            Self::Personal(key, _) => of_person.min(rank_of_key(&key.permissions, roles)),
            // Who owns a tenant is not a matter of support.
            Self::Operator(key) if key.scope < OperatorScope::All => Some(roles.below_top().rank),
            Self::Operator(_) | Self::System => Some(roles.top().rank),
        }
    }

    /// Whether the caller speaks for the platform: a service by itself, an operator, the server.
    #[must_use]
    pub const fn speaks_for_platform(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Operator(_) | Self::System)
    }

    /// As whom they suspend a tenant.
    #[must_use]
    pub const fn suspends_as(&self) -> SuspendedBy {
        match self {
            Self::Operator(_) | Self::System => SuspendedBy::Operator,
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
    /// The same moment as the server's own work, for what time alone has brought.
    #[must_use]
    pub fn as_system(&self, method: &'static str) -> Self {
        Self { method, source: None, caller: Caller::System, ..self.clone() }
    }

    /// A new id, born at the time of the call.
    #[must_use]
    pub fn new_id(&self) -> Uuid {
        entropy::id(self.now)
    }
}

/// The rank of a tenant's or a member's key: below the top, whatever it may do, for keys do not decide on who owns a tenant.
#[must_use]
pub fn rank_of_key(permissions: &Permissions, roles: &Roles) -> Option<Rank> {
    rank_by_permissions(permissions, roles).min(Some(roles.below_top().rank))
}

fn rank_by_permissions(permissions: &Permissions, roles: &Roles) -> Option<Rank> {
    let catalogue = roles.ascending().filter(|role| !role.own);
    catalogue.take_while(|role| permissions.covers(&role.permissions)).last().map(|role| role.rank)
}

/// What a tenant asks of sign-ins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether they must have had two steps.
    pub mfa_required: bool,
    /// The ways in which they may be made.
    pub sign_in_methods: SignInMethods,
}

/// A call in a tenant, after the gate let it in.
#[derive(Debug, Clone)]
pub struct TenantCtx {
    /// The call.
    pub ctx: Ctx,
    /// The tenant, as it stood when the gate looked.
    pub tenant: Tenant,
    /// The catalogue that was in force then.
    pub catalogue: Arc<Catalogue>,
    /// What it asked of sign-ins then.
    pub policy: Policy,
    /// The tenant's roles then: the catalogue's and its own.
    pub roles: Arc<Roles>,
    /// The person's place in it; none for services alone, operators and the tenant's own keys.
    pub member: Option<Membership>,
    /// What the caller may do in it.
    pub permissions: Permissions,
    /// What the method asks for, to be asked again of the locked rows.
    pub needs: Needs<'static>,
}

/// What a call asks for besides a tenant.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a row of the access table, one column a question")]
pub struct Needs<'a> {
    /// Permissions, all of them.
    pub permissions: &'a [&'a str],
    /// Whether a suspended tenant will do.
    pub allow_suspended: bool,
    /// Whether a cancelled tenant will do.
    pub allow_cancelled: bool,
    /// Whether a pending tenant will do.
    pub allow_pending: bool,
    /// Whether a deleted tenant will do.
    pub allow_deleted: bool,
    /// Whether anything changes that a tenant in maintenance does not take.
    pub writes: bool,
    /// Whether a sign-in of one step will do where the tenant asks for two.
    pub allow_mfa_missing: bool,
    /// Whether the sign-in must be recent.
    pub recent_login: bool,
    /// Whether an operator in a member's place may not.
    pub deny_impersonated: bool,
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
        self.ctx.caller.user().map(|user| user.user_id)
    }
}
