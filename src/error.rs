//! Everything that a call can be refused for: one enum, so that one place can map each to its code, reason and details
//! (`rpc/status.rs`). Messages say what is wrong and what would make it work; they name nothing of other tenants.

use chrono::TimeDelta;

use crate::time::Timestamp;

/// A field that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field's path in the request, such as `amounts[2].metric`.
    pub field: String,
    /// What is wrong with it, as the end of a sentence that begins with the field.
    pub description: String,
}

/// A metric that fell short.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shortage {
    /// The metric's name.
    pub metric: String,
    /// What was asked for.
    pub amount: i64,
    /// What is used in this period.
    pub used: i64,
    /// The limit.
    pub limit: i64,
    /// When the period ends.
    pub resets_at: Timestamp,
}

/// A rate that an amount does not go through now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateShortage {
    /// The metric's name.
    pub metric: String,
    /// What was asked for.
    pub amount: i64,
    /// What of the burst is used and has not come back yet.
    pub used: i64,
    /// How many at once.
    pub burst: i64,
    /// How many per minute.
    pub per_minute: i64,
    /// After how long it goes through, if nothing else does; none is never.
    pub wait: Option<TimeDelta>,
}

/// A metric of which more is in use than a plan allows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Excess {
    /// The metric's name; `members` for seats.
    pub metric: String,
    /// What is used.
    pub used: i64,
    /// What the plan allows.
    pub limit: i64,
}

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it, and errors.proto documents each reason")]
pub enum Error {
    // ---- who is calling
    #[error("this method needs a credential: send `authorization: Bearer <access token>` or `x-api-key`")]
    CredentialMissing,
    #[error("the credential is not valid")]
    CredentialInvalid,
    #[error("the access token has expired; sign in again")]
    TokenExpired,
    #[error("send one credential, once: either `authorization` or `x-api-key`")]
    CredentialAmbiguous,
    #[error("metadata `{0}` cannot be read: send it once, in printable ASCII, as documented")]
    MetadataMalformed(&'static str),
    #[error("e-mail or password is wrong")]
    PasswordWrong,
    #[error(
        "the code is missing, is not right, or was used before; send the next one of the authenticator, or a recovery code"
    )]
    MfaCodeWrong,
    #[error("this is no sign-in that waits for a code, any more; begin again with the password")]
    MfaChallengeInvalid,
    #[error("too many attempts; wait as long as retry_info says, or sign in on a device that was used before")]
    TooManyAttempts { retry_after: TimeDelta },
    #[error("the password is older than a tenant of yours allows; sign in with `new_password`, or reset it by mail")]
    PasswordExpired,
    #[error("this tenant is not entered by {by}; it allows: {}", .allowed.join(", "))]
    SignInMethodRefused { by: &'static str, allowed: Vec<&'static str> },
    #[error("the link is over, was used, or was replaced by a newer one; ask for a new one")]
    LinkInvalid,

    // ---- may they
    #[error("this method is not for {0} callers")]
    CallerKindRefused(&'static str),
    #[error("the permission `{0}` is missing; an administrator of the tenant can grant a role that has it")]
    PermissionMissing(String),
    #[error("your membership is suspended; an administrator of the tenant can reactivate it")]
    MemberSuspended,
    #[error("the tenant is suspended ({reason}); {remedy}")]
    TenantSuspended { reason: String, remedy: &'static str, by_operator: bool },
    #[error("the subscription of the tenant has ended; an owner can resume it")]
    TenantCancelled,
    #[error("the tenant is not confirmed yet; an operator of the platform can activate it")]
    TenantPending,
    #[error("the tenant is in maintenance and takes no changes; reads go on, try again later")]
    TenantInMaintenance,
    #[error("the tenant is deleted; an owner can undelete it until {0}")]
    TenantDeleted(Timestamp),
    #[error("this method needs a sign-in of the last ten minutes; sign in again")]
    RecentLoginRequired,
    #[error(
        "this session is good in the tenant no more: an administrator has ended it there, or it is too old; sign in again"
    )]
    SessionEnded,
    #[error("this operator key is not for that; one of the scope `{0}` is")]
    OperatorScopeMissing(&'static str),
    #[error("the key would be allowed `{0}`, and you are not; leave it out, or let somebody make the key who is")]
    KeyTooStrong(String),
    #[error("the tenant asks for a second step at sign-in; set one up with BeginTotpEnrollment, then sign in with it")]
    MfaRequired,
    #[error("that is above your own rank; a member of that rank can do it")]
    RankTooLow,
    #[error("this tenant is entered through its identity provider: sign in with BeginSso")]
    SsoRequired,
    #[error("this session opens one tenant only, and nothing of the account; sign in with your own credentials")]
    SessionBound,
    #[error("an operator in a member's place may not do this; the member can, or the operator as themselves")]
    Impersonated,
    #[error("the state or binding token is not one of a sign-in that goes on; begin again, in the same browser")]
    SsoStateInvalid,
    #[error("the sign-in through the tenant's identity provider failed: {0}")]
    SsoRefused(String),
    #[error("the identity provider knows no address of yours that this tenant may vouch for: {0}")]
    SsoAddressRefused(&'static str),
    #[error("this sign-in is not for you: {0}")]
    SsoMemberRefused(&'static str),
    #[error("an operator of the platform suspended the tenant, so only an operator can activate it")]
    SuspendedByOperator,

    // ---- in which tenant
    #[error("the credential, `x-tenant-id`, the host or the request name different tenants; name one")]
    TenantConflict,
    #[error("name a tenant: by a token of SwitchTenant, by `x-tenant-id`, by host, or in the request")]
    TenantMissing,
    #[error("there is no such tenant, or it is not yours to see")]
    TenantNotFound,

    // ---- what was asked
    #[error("{}", describe(.0))]
    FieldsInvalid(Vec<Violation>),
    #[error("the body is not this method's request: {0}")]
    BodyMalformed(String),
    #[error("this request_id was used with another body; use a new one for a new call")]
    RequestIdReused,
    #[error("this idempotency_key was used with another payload; use a new one for a new call")]
    IdempotencyKeyReused,
    #[error("the page token belongs to another list, filter or caller; start again without one")]
    PageTokenMismatch,
    #[error("this request_id was answered with a secret more than ten minutes ago; it is not shown again")]
    AnswerExpired,
    #[error("the catalogue has no metric `{0}`")]
    MetricUnknown(String),
    #[error("the catalogue has mistakes: {}", describe(.0))]
    CatalogueInvalid(Vec<Violation>),
    #[error("the catalogue has no feature `{0}`")]
    FeatureUnknown(String),
    #[error("there is no plan `{0}` to be chosen; ListPlans shows those that there are")]
    PlanUnknown(String),

    // ---- how things stand
    #[error("there is no such key, or it is not yours to see")]
    KeyNotFound,
    #[error("this is the last operator key of the scope `all`; create another one first")]
    LastOperatorKey,
    #[error("there is no such member")]
    MemberNotFound,
    #[error("there is no such session; ListSessions shows those that there are")]
    SessionNotFound,
    #[error("there is no such signing key; ListSigningKeys shows those that there are")]
    SigningKeyNotFound,
    #[error("the next signing key is not known to everybody yet; it can sign from {0} on")]
    SigningKeyTooNew(Timestamp),
    #[error("nobody has signed up with this address")]
    UserUnknown,
    #[error("this slug is taken")]
    SlugTaken,
    #[error("this address has an account; sign in instead")]
    EmailTaken,
    #[error("this user is a member already")]
    AlreadyMember,
    #[error("the tenant has no such role; ListRoles shows those that there are")]
    RoleNotFound,
    #[error("there is a role of this name")]
    RoleTaken,
    #[error("the role is in use: {0}")]
    RoleInUse(&'static str),
    #[error("this address has an invitation that is pending; send it again, or revoke it first")]
    AlreadyInvited,
    #[error("there is no such invitation, or another link was sent since; use the newest one")]
    InvitationNotFound,
    #[error("the invitation is {0}; ask for another one")]
    InvitationFinished(&'static str),
    #[error("whoever invited you may not give what the invitation says any more; ask for another one")]
    InvitationVoid,
    #[error("this invitation did not come by mail, so it proves no address; sign up first, then accept it")]
    SignUpFirst,
    #[error("the invitation is for another address; sign in with the account of that address")]
    InvitationForAnother,
    #[error("the tenant is not deleted")]
    TenantNotDeleted,
    #[error("a tenant keeps at least one active owner; make somebody else owner first")]
    LastOwner,
    #[error("it is {state}; this call needs {wanted}")]
    WrongState { state: &'static str, wanted: &'static str },
    #[error("it has changed since you read it; read it again and repeat with the new etag")]
    EtagMismatch,
    #[error(
        "what this revision stands for is not there: it was lost in a failover, or is of another cluster; ask without it"
    )]
    RevisionLost,
    #[error("the server is stopping; go on at another one, or at this one when it is back")]
    ServerStopping,
    #[error("the cursor is not in the feed of changes any more; forget what you keep and go on from `cursor`")]
    CursorLost(String),
    #[error("the tenant has no such domain; add it first")]
    DomainNotFound,
    #[error("another tenant has proven this domain")]
    DomainTaken,
    #[error("the domain is not proven: {0}")]
    DomainNotVerified(String),
    #[error("the name server does not answer ({0}); try again")]
    DnsUnavailable(String),
    #[error("the tenant's identity provider cannot be asked ({0}); try again")]
    SsoProviderUnavailable(String),
    #[error("the feature `{feature}` is switched off for the tenant; {} can switch it on", if *.by_operator { "an operator" } else { "an administrator of it" })]
    FeatureOff { feature: String, by_operator: bool },
    #[error("the tenant's plan does not include the feature `{0}`; a larger plan does, or an operator's override")]
    FeatureNotInPlan(String),
    #[error("more is in use than the plan allows; use less first, or say allow_exceeding: {}", describe_excess(.0))]
    PlanExceeded(Vec<Excess>),
    #[error("the tenant has no such integration")]
    IntegrationNotFound,
    #[error("the tenant has no such webhook")]
    WebhookNotFound,
    #[error("the tenant has no identity provider of its own; SetSsoConnection connects one")]
    SsoNotConfigured,
    #[error("there is no such impersonation that goes on")]
    ImpersonationNotFound,
    #[error("this event id of the provider was used with other content")]
    BillingEventReused,
    #[error("this external id belongs to another")]
    ExternalIdTaken,
    #[error("nothing has this external id")]
    ExternalIdUnknown,
    #[error("all {seats} seats of the plan are taken; remove a member or choose a larger plan")]
    SeatsExhausted { seats: i64 },

    #[error("you are the only owner of {}; make somebody else owner, or delete the tenant, first", .0.join(", "))]
    SoleOwner(Vec<String>),
    #[error("there is no such account")]
    AccountNotFound,
    #[error("there is no such event of usage, or it charged nothing")]
    UsageEventNotFound,
    #[error("there is no such reservation or slot, or somebody else opened it")]
    HoldNotFound,
    #[error("it is {0}: nothing is set aside by it any more")]
    HoldClosed(&'static str),
    #[error("of `{metric}` no more than {left} can be given back or used")]
    BeyondAmount { metric: String, left: i64 },

    // ---- how much
    #[error("{}", describe_shortages(.0))]
    QuotaExceeded(Vec<Shortage>),
    #[error("{}", describe_rates(.0))]
    TooFast(Vec<RateShortage>),
    #[error("called too often: {count} within {} seconds are allowed", .window.num_seconds())]
    RateExceeded { count: u16, window: TimeDelta, retry_after: TimeDelta },
    #[error("the server has as much to do as it may take on; nothing was done, try again shortly")]
    Overloaded,
    #[error("quota is left, but a server that does not answer holds it; it comes back within seconds, try again")]
    QuotaContended,

    // ---- how we are
    #[error("the database cannot be reached; repeat the call with the same request_id or idempotency_key")]
    DatabaseUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the deadline has passed; repeat the call with the same request_id or idempotency_key")]
    DeadlineExceeded,
    #[error("an internal error; the operator finds it in the log by its request id")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("there is no such method")]
    MethodUnknown,
}

impl Error {
    /// A fault of ours that is told only as a sentence in the log.
    #[must_use]
    pub fn internal(what: &'static str) -> Self {
        Self::Internal(what.into())
    }

    /// One wrong field.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::FieldsInvalid(vec![Violation { field: field.into(), description: description.into() }])
    }
}

fn describe(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().take(20).map(|v| format!("`{}` {}", v.field, v.description)).collect();
    lines.join("; ")
}

fn describe_excess(excess: &[Excess]) -> String {
    let lines: Vec<String> =
        excess.iter().take(20).map(|e| format!("`{}`: {} used, {} allowed", e.metric, e.used, e.limit)).collect();
    lines.join("; ")
}

fn describe_shortages(shortages: &[Shortage]) -> String {
    let lines: Vec<String> = shortages
        .iter()
        .map(|s| format!("`{}`: {} asked, {} of {} used until {}", s.metric, s.amount, s.used, s.limit, s.resets_at))
        .collect();
    format!("the limit is used up; a larger plan or the next period would do: {}", lines.join("; "))
}

fn describe_rates(all: &[RateShortage]) -> String {
    let lines: Vec<String> = all.iter().map(|one| format!("`{}`: {}", one.metric, one.told())).collect();
    let what = if all.iter().all(|one| one.wait.is_some()) {
        "this is faster than the limit; wait as long as retry_info says, or get a larger plan"
    } else {
        "this is more than the limit ever lets through at once; ask for less at a time, or get a larger limit"
    };
    format!("{what}: {}", lines.join("; "))
}

impl RateShortage {
    /// It in words.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { amount, used, burst, per_minute, wait, .. } = self;
        match wait {
            Some(wait) => {
                let seconds = wait.num_microseconds().unwrap_or(i64::MAX).saturating_add(999_999) / 1_000_000;
                format!("{amount} asked, {used} of {burst} used, {per_minute} a minute come back: again in {seconds} s")
            }
            None => format!("{amount} asked, never more than {burst} at once at {per_minute} a minute"),
        }
    }
}
