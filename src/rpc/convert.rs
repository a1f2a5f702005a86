//! Domain values as messages.

use chrono::TimeDelta;
use prost_types::{Duration, Timestamp as ProtoTimestamp};

use super::status::{retry_delay, told};
use super::v1;
use crate::app::members::Member;
use crate::app::mutation::etag;
use crate::app::sessions::Tokens;
use crate::app::tenants::MyTenant;
use crate::app::usage::UsageView;
use crate::ctx::PlatformKey;
use crate::decide::token::Minted;
use crate::domain::api_key::{ApiKey, OperatorScope};
use crate::domain::entitlement::Source;
use crate::domain::id::SessionId;
use crate::domain::membership::MemberStatus;
use crate::domain::quota::Scope;
use crate::domain::secret::KeyKind;
use crate::domain::session::{Session, ShownSession};
use crate::domain::tenant::{SuspendCause, Tenant, TenantStatus};
use crate::domain::user::User;
use crate::error::Error;
use crate::time::Timestamp;

pub(super) fn time(at: Timestamp) -> ProtoTimestamp {
    let nanos = at.micros().rem_euclid(1_000_000) * 1000;
    ProtoTimestamp { seconds: at.seconds(), nanos: i32::try_from(nanos).unwrap_or(0) }
}

fn duration(span: TimeDelta) -> Duration {
    Duration { seconds: span.num_seconds(), nanos: span.subsec_nanos() }
}

pub(super) const fn tenant_status(status: TenantStatus) -> v1::TenantStatus {
    match status {
        TenantStatus::Pending => v1::TenantStatus::Pending,
        TenantStatus::Trial => v1::TenantStatus::Trial,
        TenantStatus::Active => v1::TenantStatus::Active,
        TenantStatus::Suspended => v1::TenantStatus::Suspended,
        TenantStatus::Cancelled => v1::TenantStatus::Cancelled,
        TenantStatus::Deleted => v1::TenantStatus::Deleted,
    }
}

/// The status that a list is narrowed to; none when it is not said.
pub(super) const fn status_filter(status: v1::TenantStatus) -> Option<TenantStatus> {
    match status {
        v1::TenantStatus::Unspecified => None,
        v1::TenantStatus::Pending => Some(TenantStatus::Pending),
        v1::TenantStatus::Trial => Some(TenantStatus::Trial),
        v1::TenantStatus::Active => Some(TenantStatus::Active),
        v1::TenantStatus::Suspended => Some(TenantStatus::Suspended),
        v1::TenantStatus::Cancelled => Some(TenantStatus::Cancelled),
        v1::TenantStatus::Deleted => Some(TenantStatus::Deleted),
    }
}

const fn suspend_cause(cause: Option<SuspendCause>) -> v1::SuspendCause {
    match cause {
        None => v1::SuspendCause::Unspecified,
        Some(SuspendCause::Member) => v1::SuspendCause::Member,
        Some(SuspendCause::Operator) => v1::SuspendCause::Operator,
        Some(SuspendCause::Billing) => v1::SuspendCause::Billing,
        Some(SuspendCause::Paused) => v1::SuspendCause::Paused,
        Some(SuspendCause::TrialEnded) => v1::SuspendCause::TrialEnded,
    }
}

/// A settled tenant, as it stands at the time of the call.
pub(super) fn tenant(tenant: &Tenant, now: Timestamp) -> v1::Tenant {
    v1::Tenant {
        tenant_id: tenant.tenant_id.to_string(),
        slug: tenant.slug.as_str().to_owned(),
        display_name: tenant.display_name.clone(),
        status: tenant_status(tenant.status(now)).into(),
        suspend_reason: tenant.suspend_reason(now).to_owned(),
        plan: tenant.subscription.of.plan.clone(),
        create_time: Some(time(tenant.created_at)),
        update_time: Some(time(tenant.updated_at)),
        delete_time: tenant.deleted_at.map(time),
        purge_time: tenant.purge_at.map(time),
        etag: etag(tenant.version),
        suspend_cause: suspend_cause(tenant.suspend_cause(now)).into(),
        plan_version: tenant.subscription.of.version,
        verified: tenant.flags.verified,
        demo: tenant.flags.demo,
        maintenance: tenant.flags.maintenance,
        external_id: tenant.external_id.clone().unwrap_or_default(),
        trial_end_time: tenant.subscription.trial_end.map(time),
    }
}

pub(super) fn user(user: &User) -> v1::User {
    v1::User {
        user_id: user.user_id.to_string(),
        email: user.email.as_str().to_owned(),
        display_name: user.display_name.clone(),
    }
}

const fn member_status(status: MemberStatus) -> v1::MemberStatus {
    match status {
        MemberStatus::Active => v1::MemberStatus::Active,
        MemberStatus::Suspended => v1::MemberStatus::Suspended,
        MemberStatus::Removed => v1::MemberStatus::Removed,
    }
}

pub(super) fn member(member: &Member) -> v1::Member {
    let place = &member.membership;
    v1::Member {
        membership_id: place.membership_id.to_string(),
        user: Some(user(&member.user)),
        roles: place.roles.texts(),
        status: member_status(place.status).into(),
        join_time: Some(time(place.joined_at)),
        update_time: Some(time(place.updated_at)),
        etag: etag(place.version),
        last_active_time: place.last_active_at.map(time),
    }
}

pub(super) fn my_tenant(mine: &MyTenant, now: Timestamp) -> v1::MyTenant {
    let status = if mine.row.active { v1::MemberStatus::Active } else { v1::MemberStatus::Suspended };
    v1::MyTenant {
        tenant: Some(tenant(&mine.row.tenant, now)),
        roles: mine.row.roles.texts(),
        member_status: status.into(),
        member_count: mine.row.member_count,
        usage: mine.usage.iter().map(usage).collect(),
        default: mine.default,
    }
}

pub(super) const fn source(source: Source) -> v1::EntitlementSource {
    match source {
        Source::Plan => v1::EntitlementSource::Plan,
        Source::Override => v1::EntitlementSource::Override,
        Source::Tenant => v1::EntitlementSource::Tenant,
    }
}

pub(super) fn usage(view: &UsageView) -> v1::Usage {
    v1::Usage {
        metric: view.metric.clone(),
        unit: view.unit.clone(),
        used: view.used,
        limit: view.limit,
        remaining: view.remaining(),
        period_start_time: view.period_start.map(time),
        reset_time: view.resets_at.map(time),
        reserved: view.reserved,
        percent: view.percent(),
        source: source(view.source).into(),
        scope: scope(Scope::of(view.scope)).into(),
        revision: view.revision,
        burst: view.burst,
    }
}

pub(super) const fn scope(scope: Scope) -> v1::UsageScope {
    match scope {
        Scope::Key => v1::UsageScope::ApiKey,
        Scope::Member => v1::UsageScope::Member,
        Scope::Tenant => v1::UsageScope::Tenant,
    }
}

pub(super) fn access_token(session: &Session, minted: &Minted) -> v1::AccessToken {
    v1::AccessToken {
        token: minted.token.expose().clone(),
        expires_in: Some(duration(minted.expires_in)),
        tenant_id: session.active_tenant.map(|t| t.to_string()).unwrap_or_default(),
        session_id: session.session_id.to_string(),
    }
}

pub(super) fn refresh_token(tokens: &Tokens) -> v1::RefreshToken {
    v1::RefreshToken {
        token: tokens.refresh.expose().clone(),
        idle_expire_time: Some(time(tokens.session.idle_expires_at)),
        expire_time: Some(time(tokens.session.absolute_expires_at)),
    }
}

/// A session, and whether it is the one of the call.
pub(super) fn session(shown: &ShownSession, current: Option<SessionId>) -> v1::Session {
    let session = &shown.session;
    v1::Session {
        session_id: session.session_id.to_string(),
        device: Some(v1::Device {
            display_name: shown.device.display_name.clone(),
            user_agent: shown.device.user_agent.clone(),
        }),
        source: shown.source.clone(),
        create_time: Some(time(session.created_at)),
        last_use_time: Some(time(shown.last_used_at)),
        idle_expire_time: Some(time(session.idle_expires_at)),
        expire_time: Some(time(session.absolute_expires_at)),
        tenant_id: session.active_tenant.map(|t| t.to_string()).unwrap_or_default(),
        methods: session.methods.iter().map(|method| method.as_str().to_owned()).collect(),
        current: current == Some(session.session_id),
    }
}

pub(super) fn platform_key(key: &PlatformKey) -> v1::PlatformKey {
    v1::PlatformKey {
        key_id: key.key_id.clone(),
        display_name: key.display_name.clone(),
        permissions: key.permissions.names(),
        create_time: Some(time(key.created_at)),
        expire_time: key.expires_at.map(time),
        kind: key_kind(key.kind).into(),
        scope: match (key.kind, key.scope) {
            (KeyKind::Operator, OperatorScope::Read) => v1::OperatorScope::Read,
            (KeyKind::Operator, OperatorScope::Support) => v1::OperatorScope::Support,
            (KeyKind::Operator, OperatorScope::All) => v1::OperatorScope::All,
            _ => v1::OperatorScope::Unspecified,
        }
        .into(),
        last4: key.last4.clone(),
        last_use_time: key.last_used_at.map(time),
        old_secret_end_time: key.old_ends_at.map(time),
    }
}

const fn key_kind(kind: KeyKind) -> v1::CallerKind {
    match kind {
        KeyKind::Tenant => v1::CallerKind::ApiKey,
        KeyKind::Personal => v1::CallerKind::PersonalKey,
        KeyKind::Service => v1::CallerKind::Service,
        KeyKind::Operator => v1::CallerKind::Operator,
    }
}

pub(super) fn api_key(key: &ApiKey, now: Timestamp) -> v1::ApiKey {
    v1::ApiKey {
        api_key_id: key.api_key_id.to_string(),
        kind: key_kind(key.kind).into(),
        key_id: key.key_id.clone(),
        last4: key.last4.clone(),
        user_id: key.user_id.map(|id| id.to_string()).unwrap_or_default(),
        display_name: key.display_name.clone(),
        permissions: key.permissions.names(),
        create_time: Some(time(key.created_at)),
        update_time: Some(time(key.updated_at)),
        expire_time: key.expires_at.map(time),
        last_use_time: key.last_used_at.map(time),
        old_secret_end_time: key.old_ends_at.filter(|at| now < *at).map(time),
        etag: etag(key.version),
        creator_id: key.created_by.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// What is wrong with one question of many.
pub(super) fn refusal(error: &Error) -> v1::DenyReason {
    deny_reasons(error).swap_remove(0)
}

/// One reason of a decision; a shortage of several metrics is one reason each.
pub(super) fn deny_reasons(error: &Error) -> Vec<v1::DenyReason> {
    let remedy = match error {
        Error::CredentialInvalid
        | Error::TokenExpired
        | Error::RecentLoginRequired
        | Error::MfaRequired
        | Error::SessionEnded
        | Error::SsoRequired
        | Error::SessionBound => v1::Remedy::SignIn,
        Error::PermissionMissing(_)
        | Error::MemberSuspended
        | Error::TenantDeleted(_)
        | Error::TenantCancelled
        | Error::FeatureOff { by_operator: false, .. }
        | Error::TenantSuspended { by_operator: false, .. } => v1::Remedy::TenantAdmin,
        Error::QuotaExceeded(_) | Error::TooFast(_) | Error::FeatureNotInPlan(_) => v1::Remedy::UpgradeOrWait,
        Error::TenantSuspended { .. }
        | Error::TenantPending
        | Error::TenantInMaintenance
        | Error::FeatureOff { .. } => v1::Remedy::Operator,
        _ => v1::Remedy::Unspecified,
    };
    let one = |error: &Error, subject: &str| {
        let (reason, message) = told(error);
        let retry_delay = retry_delay(error).and_then(|delay| delay.try_into().ok());
        v1::DenyReason { reason, message, subject: subject.to_owned(), remedy: remedy.into(), retry_delay }
    };
    match error {
        Error::QuotaExceeded(shortages) => {
            shortages.iter().map(|short| one(&Error::QuotaExceeded(vec![short.clone()]), &short.metric)).collect()
        }
        Error::TooFast(all) => {
            all.iter().map(|short| one(&Error::TooFast(vec![short.clone()]), &short.metric)).collect()
        }
        Error::PermissionMissing(subject)
        | Error::FeatureUnknown(subject)
        | Error::FeatureNotInPlan(subject)
        | Error::FeatureOff { feature: subject, .. } => vec![one(error, subject)],
        other => vec![one(other, "")],
    }
}
