//! Webhooks: which events there are, what they are signed with (Standard Webhooks), when a delivery is tried again and when
//! an endpoint counts as dead.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use url::{Host, Url};
use uuid::Uuid;

use super::secret::Secret;
use crate::entropy;
use crate::time::Timestamp;

/// Most webhooks that a tenant may have.
pub const MOST: usize = 20;

/// How long the secret before a rotation goes on signing.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// How long nothing can be delivered before an endpoint counts as dead.
pub const DEAD_AFTER: TimeDelta = TimeDelta::days(4);

/// How long a delivery is kept that has ended.
pub const KEPT: TimeDelta = TimeDelta::days(30);

/// The type of an event that somebody asked for to see it arrive.
pub const TEST: &str = "webhook.test";

/// Seconds after each attempt that failed until the next.
const WAITS: [i64; 10] = [5, 300, 1800, 7200, 18_000, 36_000, 36_000, 86_400, 86_400, 86_400];

/// The longest that an endpoint which does not answer is left alone, as an index into `WAITS`.
const LONGEST_REST: usize = 2;

/// The actions of the audit log that are told as events, by what they are told as.
const EVENTS: &[(&str, &[&str])] = &[
    ("api_key.created", &["AuthService/CreateApiKey", "AuthService/CreatePersonalKey"]),
    ("api_key.revoked", &["AuthService/RevokeApiKey", "AuthService/RevokePersonalKey"]),
    ("api_key.rotated", &["AuthService/RotateApiKey", "AuthService/RotatePersonalKey"]),
    ("domain.added", &["TenantService/AddDomain"]),
    ("domain.removed", &["TenantService/RemoveDomain"]),
    ("domain.updated", &["System/RecheckDomain"]),
    ("domain.verified", &["TenantService/VerifyDomain"]),
    ("features.updated", &["TenantService/SetFeature"]),
    ("integrations.updated", &["TenantService/SetIntegration", "TenantService/DeleteIntegration"]),
    ("invitation.created", &["MembershipService/InviteMember", "MembershipService/BulkInvite"]),
    ("invitation.declined", &["MembershipService/DeclineInvitation"]),
    ("invitation.revoked", &["MembershipService/RevokeInvitation"]),
    ("limits.updated", &["TenantService/SetLimitOverride"]),
    (
        "member.added",
        &["MembershipService/AddMember", "MembershipService/AcceptInvitation", "System/AutoJoin", "System/JoinBySso"],
    ),
    ("member.reactivated", &["MembershipService/ReactivateMember"]),
    (
        "member.removed",
        &["MembershipService/RemoveMember", "MembershipService/LeaveTenant", "AuthService/DeleteAccount"],
    ),
    ("member.suspended", &["MembershipService/SuspendMember"]),
    ("member.updated", &["MembershipService/UpdateMemberRole", "System/FollowGroups"]),
    ("ownership.transferred", &["MembershipService/TransferOwnership"]),
    ("quota.reached", &["System/ReachQuota"]),
    ("role.created", &["MembershipService/CreateRole"]),
    ("role.deleted", &["MembershipService/DeleteRole"]),
    ("role.updated", &["MembershipService/UpdateRole"]),
    ("settings.updated", &["TenantService/UpdateSettings"]),
    ("sso.updated", &["TenantService/SetSsoConnection", "TenantService/DeleteSsoConnection"]),
    (
        "subscription.updated",
        &[
            "TenantService/ChangePlan",
            "TenantService/CancelSubscription",
            "TenantService/ResumeSubscription",
            "TenantService/RenewSubscription",
            "TenantService/PauseSubscription",
            "TenantService/RecordBillingEvent",
            "System/MigratePlan",
        ],
    ),
    ("tenant.activated", &["TenantService/ActivateTenant", "System/OpenTenant"]),
    ("tenant.deleted", &["TenantService/DeleteTenant", "TenantService/DeprovisionTenant"]),
    ("tenant.suspended", &["TenantService/SuspendTenant"]),
    ("tenant.undeleted", &["TenantService/UndeleteTenant"]),
    (
        "tenant.updated",
        &[
            "TenantService/UpdateTenant",
            "TenantService/ChangeSlug",
            "TenantService/SetTenantFlags",
            "System/SettleTenant",
        ],
    ),
];

/// The types of events, by name.
pub fn event_types() -> impl Iterator<Item = &'static str> {
    EVENTS.iter().map(|(name, _)| *name)
}

/// The actions that are told as events.
pub fn told_actions() -> impl Iterator<Item = &'static str> {
    EVENTS.iter().flat_map(|(_, actions)| actions.iter().copied())
}

/// What an action of the audit log is told as, if it is told.
#[must_use]
pub fn event_type(action: &str) -> Option<&'static str> {
    EVENTS.iter().find(|(_, actions)| actions.contains(&action)).map(|(name, _)| *name)
}

/// Whether events are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum WebhookStatus {
    /// They are.
    Enabled,
    /// Somebody switched it off.
    Disabled,
    /// The server did, because nobody answers.
    Dead,
}

impl WebhookStatus {
    /// Its name in the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Dead => "dead",
        }
    }
}

/// An address that events are sent to.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Webhook {
    /// Its id.
    pub webhook_id: Uuid,
    /// Where events go.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// Which events; all when empty.
    pub event_types: Vec<String>,
    /// Whether they are sent.
    pub status: WebhookStatus,
    /// Deliveries in a row that failed.
    pub failures: i64,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    /// What went wrong last.
    pub problem: String,
    /// Nothing new is tried before, because nobody answered.
    pub rests_until: Option<Timestamp>,
    /// Until when the secret before signs as well.
    pub old_until: Option<Timestamp>,
    /// Rises with each change of what can be set.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Webhook {
    /// Whether it is sent events of this type.
    #[must_use]
    pub fn takes(&self, event_type: &str) -> bool {
        self.status == WebhookStatus::Enabled
            && (self.event_types.is_empty() || self.event_types.iter().any(|name| name == event_type))
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeliveryStatus {
    /// To be sent, or sent again.
    Waiting,
    /// Answered 2xx.
    Delivered,
    /// Not tried any more.
    GivenUp,
}

/// An event on its way to a webhook.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Delivery {
    /// Its id, also outside.
    pub delivery_id: Uuid,
    /// Of which event.
    pub event_type: String,
    /// What is sent.
    pub body: String,
    /// How far it has come.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: i64,
    /// The status of the last answer; 0 for none.
    pub response_code: i64,
    /// What went wrong last.
    pub problem: String,
    /// When the event happened.
    pub created_at: Timestamp,
    /// When it was last tried.
    pub attempted_at: Option<Timestamp>,
    /// When it is tried next, while it waits.
    pub next_attempt_at: Timestamp,
}

/// When a delivery is tried next that has failed so often; none when it is given up.
#[must_use]
pub fn next_attempt(attempts: i64, now: Timestamp) -> Option<Timestamp> {
    let index = usize::try_from(attempts - 1).ok()?;
    WAITS.get(index).map(|seconds| now.after(TimeDelta::seconds(*seconds)))
}

/// Until when an endpoint is left alone that has not answered so often in a row.
#[must_use]
pub fn rest(failures: i64, now: Timestamp) -> Timestamp {
    let index = usize::try_from(failures - 1).unwrap_or(0).min(LONGEST_REST);
    now.after(TimeDelta::seconds(WAITS[index]))
}

/// A new secret.
#[must_use]
pub fn new_secret() -> Secret<String> {
    Secret::new(format!("whsec_{}", STANDARD.encode(entropy::bytes::<32>())))
}

/// What a message is signed with, one signature a secret: `v1,<base64>`, with spaces between them.
#[must_use]
pub fn signature(secrets: &[Secret<String>], id: Uuid, seconds: i64, body: &str) -> String {
    let content = format!("{id}.{seconds}.{body}");
    let sign = |secret: &Secret<String>| {
        let key = secret.expose().strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok()).unwrap_or_default();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), content.as_bytes());
        format!("v1,{}", STANDARD.encode(tag.as_ref()))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// Reads where events are to go: https, or http where the server allows addresses of its own networks. What addresses the
/// name stands for is looked at at each delivery.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn choose_url(text: &str, plain: bool) -> Result<String, &'static str> {
    const WRONG: &str = "must be an address such as https://hooks.example.com/tenantry, at most 1000 characters long";
    let url = Url::parse(text.trim()).map_err(|_| WRONG)?;
    match url.scheme() {
        "https" => {}
        "http" if plain => {}
        _ => return Err("must begin with https://"),
    }
    if text.len() > 1000 || matches!(url.host(), None | Some(Host::Domain(""))) {
        return Err(WRONG);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a password: events are signed, check the signature instead");
    }
    if url.fragment().is_some() {
        return Err("must not have a #fragment, which is never sent");
    }
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_signs_once_in_the_form_of_the_standard() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let id: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let one = signature(std::slice::from_ref(&secret), id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert!(one.starts_with("v1,") && one.len() == 3 + 44, "{one}");
        let two = signature(&[secret.clone(), new_secret()], id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert!(two.starts_with(&format!("{one} v1,")), "{two}");
    }

    #[test]
    fn each_event_has_one_place_and_each_action_one_event() {
        let names: Vec<&str> = event_types().collect();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        let mut actions: Vec<&str> = told_actions().collect();
        actions.sort_unstable();
        assert!(actions.windows(2).all(|pair| pair[0] != pair[1]), "{actions:?}");
        assert_eq!(event_type("MembershipService/AddMember"), Some("member.added"));
        assert_eq!(event_type("TenantService/GetTenant"), None);
    }

    #[test]
    fn a_delivery_is_tried_for_more_than_the_days_after_which_an_endpoint_is_dead() {
        let start = Timestamp::from_micros(0);
        let (mut now, mut attempts) = (start, 1);
        while let Some(next) = next_attempt(attempts, now) {
            assert!(next > now);
            (now, attempts) = (next, attempts + 1);
        }
        assert_eq!(attempts, 11);
        assert!(now.since(start) > DEAD_AFTER, "{now}");
        assert_eq!(rest(1, start).since(start), TimeDelta::seconds(5));
        assert_eq!(rest(1000, start).since(start), TimeDelta::minutes(30));
    }

    #[test]
    fn addresses_are_https_without_passwords() {
        assert_eq!(choose_url("https://Hooks.example.com", false).as_deref(), Ok("https://hooks.example.com/"));
        assert!(choose_url("http://10.0.0.1/x", true).is_ok());
        for wrong in [
            "http://hooks.example.com",
            "ftp://hooks.example.com",
            "hooks.example.com",
            "https://",
            "https://user:password@hooks.example.com",
            "https://hooks.example.com/#part",
            "",
        ] {
            assert!(choose_url(wrong, false).is_err(), "{wrong}");
        }
        assert!(choose_url(&format!("https://hooks.example.com/{}", "x".repeat(1000)), false).is_err());
    }
}
