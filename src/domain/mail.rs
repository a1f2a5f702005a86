//! Mail: which letters there are, what each speaks of and where its link leads, and a message that waits to be sent. How a
//! letter reads is a text (`app/letters/`).

use serde_json::Value;
use uuid::Uuid;

use super::id::derived;
use super::name::Email;
use super::secret::{Secret, sha256};

/// One letter of the table.
macro_rules! letters {
    ($($(#[$doc:meta])* $name:ident = $text:literal { keys: $keys:expr, path: $path:literal })*) => {
        /// Which letter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Template {
            $($(#[$doc])* $name,)*
        }

        impl Template {
            /// All letters.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in rows, texts and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What its payload must have; the text may speak of more when it is there.
            #[must_use]
            pub const fn keys(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &$keys,)*
                }
            }

            /// Where its link leads, below the product's public address; empty when it has none. A message with a secret
            /// has it added as `?token=`.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)*
                }
            }
        }
    };
}

letters! {
    /// Somebody is asked to join a tenant. Carries a token.
    Invitation = "invitation" { keys: ["tenant", "inviter", "role", "expires_at"], path: "/accept-invitation" }
    /// An address is to be proven. Carries a token.
    EmailVerification = "email_verification" { keys: ["expires_at"], path: "/verify-email" }
    /// An account waits for its link. Carries a token.
    SignUp = "sign_up" { keys: ["expires_at"], path: "/confirm-sign-up" }
    /// A tenant is ready for its administrator.
    Welcome = "welcome" { keys: ["tenant", "slug", "name"], path: "/sign-in" }
    /// A forgotten password can be set anew. Carries a token.
    PasswordReset = "password_reset" { keys: ["expires_at"], path: "/reset-password" }
    /// A password was changed or set anew.
    PasswordChanged = "password_changed" { keys: ["at"], path: "/forgot-password" }
    /// Another address was asked for: told to the one of now.
    EmailChangeRequested = "email_change_requested" { keys: ["at", "email"], path: "/account" }
    /// An account has another address: told to both.
    EmailChanged = "email_changed" { keys: ["at", "email"], path: "/account" }
    /// Somebody signed in from a device that was not seen before.
    NewSignIn = "new_sign_in" { keys: ["at"], path: "/account/sessions" }
    /// A refresh token was used twice: the session was ended.
    SessionReuse = "session_reuse" { keys: ["at"], path: "/account/sessions" }
    /// A second factor was set up, removed, or its recovery codes made anew: `change` is `enabled`, `disabled` or
    /// `recovery_codes`.
    MfaChanged = "mfa_changed" { keys: ["at", "change"], path: "/account" }
    /// An API key ends soon.
    KeyExpiring = "key_expiring" { keys: ["tenant", "key", "at"], path: "/settings/keys" }
    /// A trial ends soon.
    TrialEnding = "trial_ending" { keys: ["tenant", "plan", "at", "days"], path: "/settings/billing" }
    /// A payment is missing, and the grace period ends.
    PaymentOverdue = "payment_overdue" { keys: ["tenant", "plan", "at", "days"], path: "/settings/billing" }
    /// A subscription that was cancelled ends soon.
    SubscriptionEnding = "subscription_ending" { keys: ["tenant", "plan", "at", "days"], path: "/settings/billing" }
    /// A paid period ends soon, and the next is not paid for.
    PeriodEnding = "period_ending" { keys: ["tenant", "plan", "at", "days"], path: "/settings/billing" }
    /// So much of a limit is used.
    QuotaReached = "quota_reached" { keys: ["tenant", "metric", "percent", "used", "limit"], path: "/settings/usage" }
    /// What was used in a calendar month.
    UsageReport = "usage_report" { keys: ["tenant", "month", "usage"], path: "/settings/usage" }
    /// A webhook was switched off, because nothing could be delivered to it.
    WebhookDisabled = "webhook_disabled" { keys: ["tenant", "url", "since", "problem"], path: "/settings/webhooks" }
    /// Somebody signed up with an address that has an account, or wanted it for theirs.
    SignUpExists = "sign_up_exists" { keys: [], path: "/sign-in" }
    /// An account was deleted.
    AccountDeleted = "account_deleted" { keys: ["at"], path: "" }
}

impl Template {
    /// The letter of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|template| template.as_str() == name)
    }
}

/// A message to somebody, before it is written down.
#[derive(Clone)]
pub struct Message {
    /// Which letter.
    pub template: Template,
    /// To whom.
    pub recipient: Email,
    /// What the letter speaks of, an object with at least the letter's keys. Never a secret. Times as `Timestamp` writes
    /// them.
    pub payload: Value,
    /// The token of the letter's link. Kept sealed, and only until the letter is sent.
    pub secret: Option<Secret<String>>,
    /// What it is about, such as a trial and its end: two messages to one person about the same are one.
    pub about: String,
}

impl Message {
    /// The message's id, derived from what it is about: whoever writes it again writes the same.
    #[must_use]
    pub fn id(&self, owner: Uuid) -> Uuid {
        let text = format!("{owner} {} {} {}", self.template.as_str(), self.recipient.as_str(), self.about);
        derived(&sha256(text.as_bytes()))
    }

    /// The first of the letter's keys that the payload has not.
    #[must_use]
    pub fn missing_key(&self) -> Option<&'static str> {
        self.template.keys().iter().copied().find(|key| self.payload.get(key).is_none_or(Value::is_null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_by_their_names() {
        for template in Template::ALL {
            assert_eq!(Template::parse(template.as_str()), Some(*template));
        }
        assert_eq!(Template::parse("advertisement"), None);
    }

    #[test]
    fn a_message_is_the_same_when_it_is_about_the_same() {
        let message = |about: &str, secret: Option<&str>| Message {
            template: Template::PasswordReset,
            recipient: Email::parse("ada@example.com").unwrap(),
            payload: serde_json::json!({ "expires_at": "2030-01-01T00:00:00Z" }),
            secret: secret.map(|text| Secret::new(text.to_owned())),
            about: about.to_owned(),
        };
        let owner = Uuid::nil();
        assert_eq!(message("a", None).id(owner), message("a", Some("token")).id(owner));
        assert_ne!(message("a", None).id(owner), message("b", None).id(owner));
        assert_ne!(message("a", None).id(owner), message("a", None).id(Uuid::max()));
        assert_eq!(message("a", None).missing_key(), None);
        assert_eq!(Message { payload: serde_json::json!({}), ..message("a", None) }.missing_key(), Some("expires_at"));
    }
}
