//! May they? From a caller's standing to the reasons that speak against a call, in the order in which a refusal names
//! them. Pure.

use uuid::Uuid;

use super::tenant::Standing;
use crate::ctx::{Caller, Needs, SignedIn};
use crate::domain::membership::MemberStatus;
use crate::domain::role::Permissions;
use crate::domain::session::RECENT_LOGIN;
use crate::domain::tenant::{SuspendCause, TenantStatus};
use crate::error::Error;
use crate::time::Timestamp;

/// What the caller may do in the tenant: a member what any of their roles may; a service what its key may; a service in a
/// person's name what both may; an operator what the operator's key may; a tenant's key what it says; a member's key what it and
/// the member may.
#[must_use]
pub fn permissions(standing: &Standing, caller: &Caller) -> Permissions {
    let roles = &standing.roles;
    let of_role = standing.member.as_ref().map(|member| roles.permissions_of(&member.roles)).unwrap_or_default();
    match caller {
        Caller::Anonymous => Permissions::default(),
        Caller::User(_) | Caller::Named(_) => of_role,
        Caller::Delegated(key, _) => of_role.within(&key.permissions),
        Caller::Service(key) | Caller::Operator(key) => key.permissions.clone(),
        Caller::Key(key) => key.permissions.clone(),
        Caller::Personal(key, _) => of_role.within(&key.permissions),
        Caller::System => Permissions::all(),
    }
}

/// Whether it is long ago that the person proved who they are. A sign-in is asked of people; keys have none. The person whose
/// place an operator is in has not signed in at all.
#[must_use]
pub fn is_stale(caller: &Caller, now: Timestamp) -> bool {
    let stale = |person: &SignedIn| person.session.operator.is_some() || person.auth_time.after(RECENT_LOGIN) < now;
    caller.person().is_some_and(stale)
}

/// All that speaks against the call; empty when nothing does.
#[must_use]
pub fn judge(standing: &Standing, caller: &Caller, needs: &Needs<'_>, now: Timestamp) -> Vec<Error> {
    let mut reasons = Vec::new();
    if standing.member.as_ref().is_some_and(|member| member.status == MemberStatus::Suspended) {
        reasons.push(Error::MemberSuspended);
    }
    if standing.session_ended {
        reasons.push(Error::SessionEnded);
    }
    let tenant = &standing.tenant;
    match tenant.status(now) {
        TenantStatus::Suspended if !needs.allow_suspended => {
            reasons.extend(tenant.suspend_cause(now).map(|cause| Error::TenantSuspended {
                reason: tenant.suspend_reason(now).to_owned(),
                remedy: cause.remedy(),
                by_operator: cause == SuspendCause::Operator,
            }));
        }
        TenantStatus::Cancelled if !needs.allow_cancelled => reasons.push(Error::TenantCancelled),
        TenantStatus::Pending if !needs.allow_pending => reasons.push(Error::TenantPending),
        TenantStatus::Deleted if !needs.allow_deleted => {
            reasons.push(Error::TenantDeleted(tenant.purge_at.unwrap_or(now)));
        }
        _ => {}
    }
    // Maintenance is an operator's work: it keeps everybody else out.
    let at_work = matches!(caller, Caller::Operator(_) | Caller::System);
    if needs.writes && tenant.flags.maintenance && !at_work {
        reasons.push(Error::TenantInMaintenance);
    }
    // A tenant's own provider answers for how people prove themselves there; an operator in a member's place has their key.
    let vouched = connection(caller).is_some() || caller.impersonator().is_some();
    let one_step = caller.aal().is_some_and(|aal| aal < 2) && !vouched;
    if standing.policy.mfa_required && !needs.allow_mfa_missing && one_step {
        reasons.push(Error::MfaRequired);
    }
    reasons.extend(judge_method(standing, caller));
    reasons.extend(judge_connection(standing, caller));
    if needs.deny_impersonated && caller.impersonator().is_some() {
        reasons.push(Error::Impersonated);
    }
    if needs.recent_login && is_stale(caller, now) {
        reasons.push(Error::RecentLoginRequired);
    }
    let held = permissions(standing, caller);
    let missing = needs.permissions.iter().filter(|permission| !held.contains(permission));
    reasons.extend(missing.map(|permission| Error::PermissionMissing((*permission).to_owned())));
    reasons
}

/// What speaks against the way in which the caller proves who they are, where the tenant allows some only. An operator in a
/// member's place has come in by none.
fn judge_method(standing: &Standing, caller: &Caller) -> Option<Error> {
    let allowed = standing.policy.sign_in_methods;
    let (way, by) = match caller {
        Caller::Key(_) | Caller::Personal(..) => ("api_key", "a key"),
        _ => match &caller.person()?.session {
            session if session.operator.is_some() => return None,
            session if session.connection.is_some() => ("oidc", "single sign-on"),
            _ => ("password", "a password"),
        },
    };
    if allowed.contains(way) || (way != "api_key" && is_owner(standing)) {
        return None;
    }
    Some(Error::SignInMethodRefused { by, allowed: allowed.names().collect() })
}

/// Owners come in by other ways as well, so that a provider that fails, or a setting, locks nobody out for good.
fn is_owner(standing: &Standing) -> bool {
    standing.member.as_ref().is_some_and(|member| member.is_active_owner(&standing.roles))
}

/// The connection with a tenant's own provider that has said who it is: in the session of a call, or in the one in which a
/// member's key was made.
fn connection(caller: &Caller) -> Option<Uuid> {
    match caller {
        Caller::Personal(key, _) => key.connection,
        _ => caller.person()?.session.connection,
    }
}

/// What speaks against a person's session, or a key of theirs, by whether the tenant's own provider has said who it is.
fn judge_connection(standing: &Standing, caller: &Caller) -> Option<Error> {
    let sso = standing.sso.as_ref();
    if let Some(connection) = connection(caller) {
        // What another provider said, or one that is not the tenant's any more, counts for nothing.
        let same = sso.is_some_and(|sso| sso.connection_id == connection);
        return if same { None } else { Some(Error::CredentialInvalid) };
    }
    // A service that names somebody has let them in itself.
    let vouched = caller.impersonator().is_some() || matches!(caller, Caller::Named(_));
    let required = sso.is_some_and(|sso| sso.required) && !vouched;
    if required && !is_owner(standing) { Some(Error::SsoRequired) } else { None }
}
