//! Sign-ins: how somebody proved who they are, and how long that is believed.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::id::{PlatformKeyId, SessionId, TenantId, UserId};
use super::user::{Account, AccountStatus};
use crate::time::Timestamp;

/// How long an access token is good for.
pub const ACCESS_TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(5);

/// How fresh a sign-in must be for a method that asks for a recent one.
pub const RECENT_LOGIN: TimeDelta = TimeDelta::minutes(10);

/// For how long a refresh token that has been exchanged is answered with the same successor. Longer than an answer is
/// waited for, so that a lost one can be asked for again, and not much longer, because a thief may use it as well.
pub const REPLAY_WINDOW: TimeDelta = TimeDelta::seconds(10);

/// How long the row of a session is kept after its end.
pub const ENDED_KEPT: TimeDelta = TimeDelta::days(30);

/// How somebody proved who they are, by the names of RFC 8176 where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// A password.
    Password,
    /// A code of an authenticator.
    Totp,
    /// A recovery code.
    RecoveryCode,
    /// An OpenID provider.
    Oidc,
    /// A link that was sent to their address.
    MailLink,
}

impl Method {
    const ALL: [Self; 5] = [Self::Password, Self::Totp, Self::RecoveryCode, Self::Oidc, Self::MailLink];

    /// Its name in rows and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "pwd",
            Self::Totp => "otp",
            Self::RecoveryCode => "recovery",
            Self::Oidc => "oidc",
            Self::MailLink => "mail",
        }
    }

    /// The methods of a list with blanks between them; what has no name here is passed over.
    #[must_use]
    pub fn parse_list(text: &str) -> Vec<Self> {
        text.split(' ').filter_map(|name| Self::ALL.into_iter().find(|method| method.as_str() == name)).collect()
    }

    /// The names with blanks between them.
    #[must_use]
    pub fn list(methods: &[Self]) -> String {
        methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SessionKind {
    /// A person's own sign-in.
    #[default]
    SignIn,
    /// An operator in a person's place.
    Impersonation,
}

/// How somebody proved who they are.
#[derive(Debug, Clone)]
pub struct Proof {
    /// By what.
    pub methods: Vec<Method>,
    /// The authenticator assurance level that comes of it (NIST SP 800-63B): 1 with one factor, 2 with two.
    pub aal: i64,
    /// The account's epoch, read together with what was compared: a session made from it dies with a password change in
    /// between.
    pub epoch: i64,
    /// When, where a provider says that it was a while ago; none is just now.
    pub at: Option<Timestamp>,
}

impl Proof {
    /// A password alone.
    #[must_use]
    pub fn password(epoch: i64) -> Self {
        Self { methods: vec![Method::Password], aal: 1, epoch, at: None }
    }
}

/// From where somebody signs in, as far as the caller tells.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// What people call it.
    pub display_name: String,
    /// The browser's or program's own words.
    pub user_agent: String,
}

/// How long sessions last where nothing shortens them, and how many an account may have.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// How long one lasts that is not refreshed.
    pub idle: TimeDelta,
    /// How long one lasts at most.
    pub length: TimeDelta,
    /// `idle` for one that is to be remembered.
    pub remembered_idle: TimeDelta,
    /// `length` for one that is to be remembered.
    pub remembered_length: TimeDelta,
    /// How many live ones an account has at most.
    pub per_account: i64,
}

/// How long a session may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Without being refreshed.
    pub idle: TimeDelta,
    /// In any case.
    pub length: TimeDelta,
}

impl SessionLimits {
    /// The terms of a session. Shorter ones of a tenant hold in that tenant, whatever the session is good for elsewhere.
    #[must_use]
    pub fn terms(&self, remember: bool) -> Terms {
        let (idle, length) =
            if remember { (self.remembered_idle, self.remembered_length) } else { (self.idle, self.length) };
        Terms { idle: idle.min(length), length }
    }
}

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// What it is for.
    #[serde(default)]
    pub kind: SessionKind,
    /// The account's epoch when the person proved who they are.
    pub epoch: i64,
    /// The tenant that new access tokens name.
    pub active_tenant: Option<TenantId>,
    /// The only tenant that it opens; none opens all that the person has.
    #[serde(default)]
    pub bound_tenant: Option<TenantId>,
    /// How the person proved who they are.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// With what assurance; see `Proof::aal`.
    #[serde(default)]
    pub aal: i64,
    /// When the person proved who they are.
    pub auth_time: Timestamp,
    /// When it began.
    pub created_at: Timestamp,
    /// Whether it is to outlast the day.
    #[serde(default)]
    pub remember: bool,
    /// When it ends unless it is refreshed.
    pub idle_expires_at: Timestamp,
    /// When it ends in any case.
    pub absolute_expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The connection with the tenant's own identity provider that said who it is; the session opens nothing without it.
    #[serde(default)]
    pub connection: Option<Uuid>,
    /// The key of the operator who is in the person's place; the session ends with it.
    #[serde(default)]
    pub operator: Option<PlatformKeyId>,
}

impl Session {
    /// Whether calls in this session are still the account's: not revoked, not over, and of the account's epoch. That it has
    /// idled for too long shows in its access tokens, which end no later.
    #[must_use]
    pub fn is_live(&self, account: &Account, now: Timestamp) -> bool {
        self.revoked_at.is_none()
            && now < self.absolute_expires_at
            && self.user_id == account.user.user_id
            && self.epoch == account.session_epoch
            && account.status == AccountStatus::Active
    }

    /// Where a refresh at `now` takes the session: idle anew, and no longer than the terms of today allow. None when it is
    /// over.
    #[must_use]
    pub fn refreshed(&self, terms: Terms, now: Timestamp) -> Option<Self> {
        let end = self.absolute_expires_at.min(self.created_at.after(terms.length));
        let live = self.revoked_at.is_none() && now < self.idle_expires_at && now < end;
        let idle_expires_at = now.after(terms.idle).min(end);
        live.then(|| Self { idle_expires_at, absolute_expires_at: end, ..self.clone() })
    }
}

/// A session with what people know it by.
#[derive(Debug, Clone)]
pub struct ShownSession {
    /// The session.
    pub session: Session,
    /// When it was last refreshed.
    pub last_used_at: Timestamp,
    /// Where it began.
    pub device: Device,
    /// From which address it was last refreshed; empty when that is not known.
    pub source: String,
}
