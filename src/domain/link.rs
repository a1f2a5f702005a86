//! Links in mails: what each kind opens, how long it is good for, and the token that stands in it.

use chrono::TimeDelta;

use super::secret::{Secret, random_base62, sha256};
use crate::time::Timestamp;

/// How a token of a link begins.
const PREFIX: &str = "tnl_";

/// What a link opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new password for one that was forgotten.
    Reset,
    /// That the address is the person's.
    Verification,
    /// Another address for the account.
    EmailChange,
    /// A new account.
    SignUp,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 4] = [Self::Reset, Self::Verification, Self::EmailChange, Self::SignUp];

    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Reset => 1,
            Self::Verification => 2,
            Self::EmailChange => 3,
            Self::SignUp => 4,
        }
    }

    /// How long a link is good for. What it proves is that the person reads the mail now.
    #[must_use]
    pub const fn lifetime(self) -> TimeDelta {
        match self {
            Self::Reset | Self::EmailChange => TimeDelta::hours(1),
            Self::Verification | Self::SignUp => TimeDelta::hours(24),
        }
    }
}

/// A link as it is stored.
#[derive(Debug, Clone)]
pub struct Link {
    /// What it opens.
    pub purpose: Purpose,
    /// SHA-256 of its token.
    pub digest: [u8; 32],
    /// What it is about, by purpose.
    pub body: serde_json::Value,
    /// When it is over.
    pub expires_at: Timestamp,
}

impl Link {
    /// A new link, and the token that stands in the mail and nowhere else: 256 random bits.
    #[must_use]
    pub fn new(purpose: Purpose, body: serde_json::Value, now: Timestamp) -> (Self, Secret<String>) {
        let token = format!("{PREFIX}{}", random_base62(43));
        let digest = sha256(token.as_bytes());
        let expires_at = now.after(purpose.lifetime());
        (Self { purpose, digest, body, expires_at }, Secret::new(token))
    }
}

/// The SHA-256 of a token; none when the text was never one of ours.
#[must_use]
pub fn digest(token: &str) -> Option<[u8; 32]> {
    let random = token.strip_prefix(PREFIX)?;
    let well_formed = random.len() == 43 && random.bytes().all(|b| b.is_ascii_alphanumeric());
    well_formed.then(|| sha256(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, texts};

    #[test]
    fn a_token_reads_back_and_a_cut_one_does_not() {
        let now = Timestamp::from_micros(0);
        for purpose in Purpose::ALL {
            let (link, token) = Link::new(purpose, serde_json::json!({}), now);
            assert_eq!(digest(token.expose()), Some(link.digest));
            assert_eq!(link.expires_at, now.after(purpose.lifetime()));
            for length in 0..token.expose().len() {
                assert_eq!(digest(&token.expose()[..length]), None);
            }
        }
    }

    #[test]
    fn a_fuzzed_token_of_a_link_is_read_as_what_it_is() {
        let link = |purpose| Link::new(purpose, serde_json::json!({}), Timestamp::from_micros(0)).1.expose().clone();
        let own = Purpose::ALL.map(link);
        fuzz("token of a link", texts(&own), |text| {
            let whole = text.strip_prefix("tnl_").filter(|random| random.len() == 43);
            let good = whole.is_some_and(|random| random.chars().all(|c| c.is_ascii_alphanumeric()));
            prop_assert_eq!(digest(&text), good.then(|| sha256(text.as_bytes())));
            Ok(good)
        });
    }
}
