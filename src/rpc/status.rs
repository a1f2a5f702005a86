//! Errors as gRPC knows them: the one place where each gets its code, reason and details.
#![expect(clippy::disallowed_methods, reason = "the one file that makes a Status")]

use std::collections::HashMap;
use std::time::Duration;

use chrono::TimeDelta;
use tonic::{Code, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

use super::v1::ErrorReason;
use crate::error::Error;

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "tenantry";

/// How many wrong fields are told at once: trailers are bounded, also by what clients take.
const VIOLATIONS: usize = 20;

/// When to try again what is only passing.
const SHORTLY: Duration = Duration::from_secs(1);

/// How long it takes at most until units come back from a server that is gone.
const UNTIL_TAKEN_BACK: Duration = Duration::from_secs(4);

tokio::task_local! {
    /// The server's id of the call that is being answered.
    pub(super) static REQUEST_ID: Uuid;
}

/// Answers a call.
pub(super) async fn respond<T>(work: impl Future<Output = Result<T, Error>>) -> Result<Response<T>, Status> {
    work.await.map(Response::new).map_err(|error| status(&error))
}

/// The code of an error.
#[expect(clippy::too_many_lines, reason = "a table, one line an error")]
#[must_use]
pub fn code(error: &Error) -> Code {
    match error {
        Error::CredentialMissing
        | Error::CredentialInvalid
        | Error::TokenExpired
        | Error::PasswordWrong
        | Error::MfaCodeWrong
        | Error::MfaChallengeInvalid
        | Error::SsoStateInvalid
        | Error::SsoRefused(_) => Code::Unauthenticated,
        Error::CallerKindRefused(_)
        | Error::PermissionMissing(_)
        | Error::MemberSuspended
        | Error::TenantSuspended { .. }
        | Error::TenantDeleted(_)
        | Error::TenantCancelled
        | Error::TenantPending
        | Error::RecentLoginRequired
        | Error::MfaRequired
        | Error::SessionEnded
        | Error::RankTooLow
        | Error::SsoRequired
        | Error::SessionBound
        | Error::Impersonated
        | Error::SsoAddressRefused(_)
        | Error::SsoMemberRefused(_)
        | Error::SignInMethodRefused { .. }
        | Error::InvitationForAnother
        | Error::OperatorScopeMissing(_)
        | Error::KeyTooStrong(_)
        | Error::FeatureOff { .. }
        | Error::SuspendedByOperator => Code::PermissionDenied,
        Error::CredentialAmbiguous
        | Error::MetadataMalformed(_)
        | Error::TenantConflict
        | Error::TenantMissing
        | Error::FieldsInvalid(_)
        | Error::BodyMalformed(_)
        | Error::RequestIdReused
        | Error::IdempotencyKeyReused
        | Error::PageTokenMismatch
        | Error::MetricUnknown(_)
        | Error::CatalogueInvalid(_)
        | Error::FeatureUnknown(_)
        | Error::PlanUnknown(_)
        | Error::BillingEventReused => Code::InvalidArgument,
        Error::TenantNotFound
        | Error::MemberNotFound
        | Error::SessionNotFound
        | Error::SigningKeyNotFound
        | Error::KeyNotFound
        | Error::UserUnknown
        | Error::RoleNotFound
        | Error::InvitationNotFound
        | Error::DomainNotFound
        | Error::IntegrationNotFound
        | Error::WebhookNotFound
        | Error::SsoNotConfigured
        | Error::ImpersonationNotFound
        | Error::ExternalIdUnknown
        | Error::LinkInvalid
        | Error::AccountNotFound
        | Error::UsageEventNotFound
        | Error::HoldNotFound => Code::NotFound,
        Error::SlugTaken
        | Error::EmailTaken
        | Error::AlreadyMember
        | Error::RoleTaken
        | Error::AlreadyInvited
        | Error::TenantNotDeleted
        | Error::DomainTaken
        | Error::ExternalIdTaken => Code::AlreadyExists,
        Error::AnswerExpired
        | Error::RoleInUse(_)
        | Error::InvitationFinished(_)
        | Error::InvitationVoid
        | Error::SignUpFirst
        | Error::LastOwner
        | Error::LastOperatorKey
        | Error::WrongState { .. }
        | Error::SigningKeyTooNew(_)
        | Error::DomainNotVerified(_)
        | Error::FeatureNotInPlan(_)
        | Error::PlanExceeded(_)
        | Error::PasswordExpired
        | Error::SoleOwner(_)
        | Error::HoldClosed(_)
        | Error::BeyondAmount { .. } => Code::FailedPrecondition,
        Error::EtagMismatch | Error::RevisionLost | Error::CursorLost(_) => Code::Aborted,
        Error::QuotaExceeded(_)
        | Error::TooFast(_)
        | Error::RateExceeded { .. }
        | Error::TooManyAttempts { .. }
        | Error::Overloaded
        | Error::SeatsExhausted { .. } => Code::ResourceExhausted,
        Error::DatabaseUnavailable(_)
        | Error::QuotaContended
        | Error::ServerStopping
        | Error::DnsUnavailable(_)
        | Error::SsoProviderUnavailable(_)
        | Error::TenantInMaintenance => Code::Unavailable,
        Error::DeadlineExceeded => Code::DeadlineExceeded,
        Error::Internal(_) => Code::Internal,
        Error::MethodUnknown => Code::Unimplemented,
    }
}

/// The reason of an error, as errors.proto names it.
#[expect(clippy::too_many_lines, reason = "a table, one line an error")]
#[must_use]
pub fn reason(error: &Error) -> &'static str {
    use ErrorReason as R;
    let reason = match error {
        Error::CredentialMissing => R::CredentialMissing,
        Error::CredentialInvalid => R::CredentialInvalid,
        Error::TokenExpired => R::TokenExpired,
        Error::CredentialAmbiguous => R::CredentialAmbiguous,
        Error::MetadataMalformed(_) => R::MetadataMalformed,
        Error::PasswordWrong => R::PasswordWrong,
        Error::TooManyAttempts { .. } => R::TooManyAttempts,
        Error::PasswordExpired => R::PasswordExpired,
        Error::SignInMethodRefused { .. } => R::SignInMethodRefused,
        Error::LinkInvalid => R::LinkInvalid,
        Error::SoleOwner(_) => R::SoleOwner,
        Error::AccountNotFound => R::AccountNotFound,
        Error::CallerKindRefused(_) => R::CallerKindRefused,
        Error::PermissionMissing(_) => R::PermissionMissing,
        Error::MemberSuspended => R::MemberSuspended,
        Error::TenantSuspended { .. } => R::TenantSuspended,
        Error::TenantDeleted(_) => R::TenantDeleted,
        Error::RecentLoginRequired => R::RecentLoginRequired,
        Error::RankTooLow => R::RankTooLow,
        Error::MfaRequired => R::MfaRequired,
        Error::MfaCodeWrong => R::MfaCodeWrong,
        Error::MfaChallengeInvalid => R::MfaChallengeInvalid,
        Error::OperatorScopeMissing(_) => R::OperatorScopeMissing,
        Error::KeyTooStrong(_) => R::KeyTooStrong,
        Error::KeyNotFound => R::KeyNotFound,
        Error::LastOperatorKey => R::LastOperatorKey,
        Error::SuspendedByOperator => R::SuspendedByOperator,
        Error::SsoRequired => R::SsoRequired,
        Error::SessionBound => R::SessionBound,
        Error::Impersonated => R::Impersonated,
        Error::SsoStateInvalid => R::SsoStateInvalid,
        Error::SsoRefused(_) => R::SsoRefused,
        Error::SsoAddressRefused(_) => R::SsoAddressRefused,
        Error::SsoMemberRefused(_) => R::SsoMemberRefused,
        Error::SsoNotConfigured => R::SsoNotConfigured,
        Error::SsoProviderUnavailable(_) => R::SsoProviderUnavailable,
        Error::ImpersonationNotFound => R::ImpersonationNotFound,
        Error::TenantConflict => R::TenantConflict,
        Error::TenantMissing => R::TenantMissing,
        Error::TenantNotFound => R::TenantNotFound,
        Error::FieldsInvalid(_) => R::FieldsInvalid,
        Error::BodyMalformed(_) => R::BodyMalformed,
        Error::RequestIdReused => R::RequestIdReused,
        Error::IdempotencyKeyReused => R::IdempotencyKeyReused,
        Error::PageTokenMismatch => R::PageTokenMismatch,
        Error::AnswerExpired => R::AnswerExpired,
        Error::MetricUnknown(_) => R::MetricUnknown,
        Error::MemberNotFound => R::MemberNotFound,
        Error::SessionEnded => R::SessionEnded,
        Error::SessionNotFound => R::SessionNotFound,
        Error::SigningKeyNotFound => R::SigningKeyNotFound,
        Error::SigningKeyTooNew(_) => R::SigningKeyTooNew,
        Error::UserUnknown => R::UserUnknown,
        Error::SlugTaken => R::SlugTaken,
        Error::EmailTaken => R::EmailTaken,
        Error::AlreadyMember => R::AlreadyMember,
        Error::TenantNotDeleted => R::TenantNotDeleted,
        Error::LastOwner => R::LastOwner,
        Error::WrongState { .. } => R::WrongState,
        Error::EtagMismatch => R::EtagMismatch,
        Error::RevisionLost => R::RevisionLost,
        Error::CursorLost(_) => R::CursorLost,
        Error::ServerStopping => R::ServerStopping,
        Error::FeatureOff { .. } => R::FeatureOff,
        Error::RoleNotFound => R::RoleNotFound,
        Error::RoleTaken => R::RoleTaken,
        Error::RoleInUse(_) => R::RoleInUse,
        Error::AlreadyInvited => R::AlreadyInvited,
        Error::InvitationNotFound => R::InvitationNotFound,
        Error::InvitationFinished(_) => R::InvitationFinished,
        Error::InvitationVoid => R::InvitationVoid,
        Error::SignUpFirst => R::SignUpFirst,
        Error::InvitationForAnother => R::InvitationForAnother,
        Error::TenantCancelled => R::TenantCancelled,
        Error::TenantPending => R::TenantPending,
        Error::TenantInMaintenance => R::TenantInMaintenance,
        Error::CatalogueInvalid(_) => R::CatalogueInvalid,
        Error::FeatureUnknown(_) => R::FeatureUnknown,
        Error::PlanUnknown(_) => R::PlanUnknown,
        Error::BillingEventReused => R::BillingEventReused,
        Error::DomainNotFound => R::DomainNotFound,
        Error::DomainTaken => R::DomainTaken,
        Error::DomainNotVerified(_) => R::DomainNotVerified,
        Error::DnsUnavailable(_) => R::DnsUnavailable,
        Error::FeatureNotInPlan(_) => R::FeatureNotInPlan,
        Error::PlanExceeded(_) => R::PlanExceeded,
        Error::IntegrationNotFound => R::IntegrationNotFound,
        Error::WebhookNotFound => R::WebhookNotFound,
        Error::ExternalIdTaken => R::ExternalIdTaken,
        Error::ExternalIdUnknown => R::ExternalIdUnknown,
        Error::SeatsExhausted { .. } => R::SeatsExhausted,
        Error::QuotaExceeded(_) => R::QuotaExceeded,
        Error::TooFast(all) if all.iter().any(|one| one.wait.is_none()) => R::BurstExceeded,
        Error::TooFast(_) | Error::RateExceeded { .. } => R::RateExceeded,
        Error::Overloaded => R::Overloaded,
        Error::QuotaContended => R::QuotaContended,
        Error::UsageEventNotFound => R::UsageEventNotFound,
        Error::HoldNotFound => R::HoldNotFound,
        Error::HoldClosed(_) => R::HoldClosed,
        Error::BeyondAmount { .. } => R::BeyondAmount,
        Error::DatabaseUnavailable(_) => R::DatabaseUnavailable,
        Error::DeadlineExceeded => R::DeadlineExceeded,
        Error::Internal(_) => R::Internal,
        Error::MethodUnknown => R::MethodUnknown,
    };
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

/// The status of an error, with all its details. What is a fault of ours is logged here, once, with its chain; the client
/// gets the request id.
#[must_use]
pub fn status(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason(error), DOMAIN, metadata(error));
    match error {
        Error::FieldsInvalid(violations) | Error::CatalogueInvalid(violations) => {
            for violation in violations.iter().take(VIOLATIONS) {
                details.add_bad_request_violation(&violation.field, &violation.description);
            }
        }
        Error::QuotaExceeded(shortages) => {
            for short in shortages {
                let told =
                    format!("{} asked, {} of {} used until {}", short.amount, short.used, short.limit, short.resets_at);
                details.add_quota_failure_violation(&short.metric, told);
            }
        }
        Error::TooFast(all) => {
            for one in all {
                details.add_quota_failure_violation(&one.metric, one.told());
            }
            if let Some(delay) = retry_delay(error) {
                details.set_retry_info(Some(delay));
            }
        }
        Error::PlanExceeded(excess) => {
            for e in excess.iter().take(VIOLATIONS) {
                details.add_quota_failure_violation(&e.metric, format!("{} used, {} allowed", e.used, e.limit));
            }
        }
        Error::SeatsExhausted { seats } => {
            details.add_quota_failure_violation("members", format!("{seats} seats, all taken"));
        }
        Error::RateExceeded { retry_after, .. } | Error::TooManyAttempts { retry_after } => {
            details.set_retry_info(Some(wait(*retry_after)));
        }
        Error::QuotaContended => {
            details.set_retry_info(Some(UNTIL_TAKEN_BACK));
        }
        Error::Overloaded
        | Error::ServerStopping
        | Error::DatabaseUnavailable(_)
        | Error::DnsUnavailable(_)
        | Error::SsoProviderUnavailable(_) => {
            details.set_retry_info(Some(SHORTLY));
        }
        Error::LastOwner => {
            details.add_precondition_failure_violation("LAST_OWNER", "owner", "make somebody else owner first");
        }
        Error::SoleOwner(tenants) => {
            for slug in tenants.iter().take(VIOLATIONS) {
                details.add_precondition_failure_violation("SOLE_OWNER", slug, "make somebody else owner first");
            }
        }
        Error::WrongState { state, wanted } => {
            details.add_precondition_failure_violation("STATE", *state, format!("this call needs {wanted}"));
        }
        Error::Internal(source) => tracing::error!(error = %chain(source.as_ref()), "internal error"),
        _ => {}
    }
    if let Error::DatabaseUnavailable(source) = error {
        tracing::warn!(error = %chain(source.as_ref()), "database unavailable");
    }
    Status::with_error_details(code(error), error.to_string(), details)
}

/// What tonic itself refuses, in our words: a body that is no request or too large, an unknown method, a compression that
/// we do not speak.
#[must_use]
pub(super) fn of_framework(code: Code, message: &str) -> Status {
    match code {
        Code::Unimplemented if message.is_empty() => status(&Error::MethodUnknown),
        Code::Internal | Code::OutOfRange | Code::InvalidArgument | Code::Unimplemented => {
            // tonic's words speak of the wire only, but a decode error may quote a field's name; it is ours to name.
            let what = match code {
                Code::OutOfRange => "it is larger than this server takes",
                Code::Unimplemented => "send it uncompressed",
                _ => "it does not decode as that message",
            };
            status(&Error::BodyMalformed(what.to_owned()))
        }
        // The body broke off: the client is gone, or will want to know that it was not understood.
        Code::Unknown => status(&Error::BodyMalformed("it broke off".to_owned())),
        Code::Cancelled | Code::DeadlineExceeded => status(&Error::DeadlineExceeded),
        _ => status(&Error::Internal(message.to_owned().into())),
    }
}

/// A stream of requests that broke off in the middle, or holds what is no request, in our words.
#[must_use]
pub(super) fn broken_off(refused: &Status) -> Status {
    of_framework(refused.code(), refused.message())
}

fn metadata(error: &Error) -> HashMap<String, String> {
    let pairs: Vec<(&str, String)> = match error {
        Error::PermissionMissing(permission) | Error::KeyTooStrong(permission) => {
            vec![("permission", permission.clone())]
        }
        Error::OperatorScopeMissing(scope) => vec![("scope", (*scope).to_owned())],
        Error::TenantSuspended { reason, .. } => vec![("suspend_reason", reason.clone())],
        Error::TenantDeleted(purge) => vec![("purge_time", purge.to_string())],
        Error::CallerKindRefused(kind) => vec![("caller_kind", (*kind).to_owned())],
        Error::SigningKeyTooNew(ready) => vec![("ready_time", ready.to_string())],
        Error::WrongState { state, .. } | Error::InvitationFinished(state) | Error::HoldClosed(state) => {
            vec![("state", (*state).to_owned())]
        }
        Error::CursorLost(cursor) => vec![("cursor", cursor.clone())],
        Error::MetricUnknown(metric) => vec![("metric", metric.clone())],
        Error::BeyondAmount { metric, left } => vec![("metric", metric.clone()), ("left", left.to_string())],
        Error::FeatureUnknown(feature) | Error::FeatureNotInPlan(feature) => vec![("feature", feature.clone())],
        Error::PlanUnknown(plan) => vec![("plan", plan.clone())],
        Error::DomainNotVerified(problem) | Error::SsoRefused(problem) | Error::SsoProviderUnavailable(problem) => {
            vec![("problem", problem.clone())]
        }
        Error::SsoAddressRefused(problem) | Error::SsoMemberRefused(problem) => {
            vec![("problem", (*problem).to_owned())]
        }
        Error::SeatsExhausted { seats } => vec![("seats", seats.to_string())],
        Error::SignInMethodRefused { allowed, .. } => vec![("sign_in_methods", allowed.join(","))],
        Error::Internal(_) => REQUEST_ID.try_with(|id| vec![("request_id", id.to_string())]).unwrap_or_default(),
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// To the microsecond when the same goes through a rate that it does not go through now; none when it never does, and for
/// what no rate refuses.
pub(super) fn retry_delay(error: &Error) -> Option<Duration> {
    let Error::TooFast(all) = error else { return None };
    let waits: Option<Vec<TimeDelta>> = all.iter().map(|one| one.wait).collect();
    waits?.into_iter().max()?.to_std().ok()
}

/// At least a second, so that nobody comes back before anything could have changed.
fn wait(after: TimeDelta) -> Duration {
    after.to_std().unwrap_or(SHORTLY).max(SHORTLY)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// An error as part of a decision: its reason and words.
pub(super) fn told(error: &Error) -> (String, String) {
    (reason(error).to_owned(), error.to_string())
}
