//! May they? From a caller's standing to the reasons that speak against a call, in the order in which a refusal names
//! them. Pure.

use super::tenant::Standing;
use crate::ctx::{Caller, Needs};
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
        Caller::User(_) => of_role,
        Caller::Delegated(key, _) => of_role.within(&key.permissions),
        Caller::Service(key) | Caller::Operator(key) => key.permissions.clone(),
        Caller::Key(key) => key.permissions.clone(),
        Caller::Personal(key, _) => of_role.within(&key.permissions),
        Caller::System => Permissions::all(),
    }
}

/// All that speaks against the call; empty when nothing does.
#[must_use]
pub fn judge(standing: &Standing, caller: &Caller, needs: &Needs<'_>, now: Timestamp) -> Vec<Error> {
    let mut reasons = Vec::new();
    if standing.member.as_ref().is_some_and(|member| member.status == MemberStatus::Suspended) {
        reasons.push(Error::MemberSuspended);
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
    // A sign-in is asked of people; keys have none.
    let stale = |person: &crate::ctx::SignedIn| person.auth_time.after(RECENT_LOGIN) < now;
    if needs.recent_login && caller.person().is_some_and(stale) {
        reasons.push(Error::RecentLoginRequired);
    }
    let held = permissions(standing, caller);
    let missing = needs.permissions.iter().filter(|permission| !held.contains(permission));
    reasons.extend(missing.map(|permission| Error::PermissionMissing((*permission).to_owned())));
    reasons
}
