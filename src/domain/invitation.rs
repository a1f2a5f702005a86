//! Invitations: somebody is asked to join a tenant, by a link that only they are sent. While one is pending it holds a seat.

use serde::{Deserialize, Serialize};

use super::base62;
use super::id::{ApiKeyId, InvitationId, UserId};
use super::name::Email;
use super::role::RoleNames;
use super::secret::{Secret, sha256};
use crate::entropy;
use crate::time::Timestamp;

/// How long an invitation holds where neither tenant nor catalogue says.
pub const HOLDS_DAYS: i32 = 7;

/// Where an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationStatus {
    /// It can be accepted.
    Pending,
    /// The person has joined.
    Accepted,
    /// The person did not want to.
    Declined,
    /// It was taken back.
    Revoked,
    /// Its time is over. Nothing needs to happen for that.
    Expired,
}

impl InvitationStatus {
    /// The status in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Declined => "declined",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// An invitation, without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its id.
    pub invitation_id: InvitationId,
    /// The address of the person, who alone can accept it.
    pub email: Email,
    /// What they will be.
    pub roles: RoleNames,
    /// Where it stood when it was written; see `status`.
    pub written: InvitationStatus,
    /// Who answers for it: whoever invited, or sent it again; none for services, operators and the tenant's own keys.
    pub inviter: Option<UserId>,
    /// The tenant's own key that answers for it.
    pub inviter_key: Option<ApiKeyId>,
    /// Whether the token that opens it went by mail, so that whoever has it has read the address's mail.
    pub mailed: bool,
    /// Whether a pending tenant begins with its acceptance.
    pub opens_tenant: bool,
    /// Who accepted it.
    pub accepted_by: Option<UserId>,
    /// Rises with each change.
    pub version: i64,
    /// When somebody was invited.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When the token was made that counts.
    pub sent_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

impl Invitation {
    /// Where it stands.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> InvitationStatus {
        match self.written {
            InvitationStatus::Pending if self.expires_at <= now => InvitationStatus::Expired,
            written => written,
        }
    }
}

/// What opens an invitation: `tni_` and 256 random bits.
pub struct InvitationToken(Secret<String>);

impl InvitationToken {
    /// A new random token.
    #[must_use]
    pub fn generate() -> Self {
        Self(Secret::new(format!("tni_{}", base62::encode(&entropy::bytes::<32>()))))
    }

    /// Reads a token; none when it was never one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        base62::decode::<32>(text.strip_prefix("tni_")?)?;
        Some(Self(Secret::new(text.to_owned())))
    }

    /// The token itself, for the person.
    #[must_use]
    pub fn into_text(self) -> Secret<String> {
        self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.0.expose().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, texts};

    #[test]
    fn a_token_reads_back_and_one_of_another_kind_or_length_does_not() {
        let token = InvitationToken::generate();
        let (digest, text) = (token.digest(), token.into_text().expose().clone());
        assert_eq!(text.len(), 47);
        assert_eq!(InvitationToken::parse(&text).unwrap().digest(), digest);
        for other in ["tnr_", "tns_", "TNI_", ""] {
            assert!(InvitationToken::parse(&text.replace("tni_", other)).is_none(), "{other}");
        }
        for cut in 0..text.len() {
            assert!(InvitationToken::parse(&text[..cut]).is_none(), "{cut}");
        }
        assert!(InvitationToken::parse(&format!("{text}0")).is_none());
    }

    #[test]
    fn a_fuzzed_invitation_token_is_read_as_what_it_is() {
        let own: Vec<String> = (0..4).map(|_| InvitationToken::generate().into_text().expose().clone()).collect();
        fuzz("invitation token", texts(&own), |text| {
            let Some(token) = InvitationToken::parse(&text) else {
                prop_assert!(!own.contains(&text));
                return Ok(false);
            };
            prop_assert!(text.len() == 47 && text[4..].bytes().all(|b| b.is_ascii_alphanumeric()), "{text}");
            prop_assert_eq!(token.digest(), sha256(text.as_bytes()));
            Ok(true)
        });
    }
}
