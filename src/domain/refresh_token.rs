//! Refresh tokens, in their written form: `tnr_` and 113 characters of base62. In them stand whose session it is, which
//! token of the session, 256 random bits and a MAC. The MAC proves that we made the token, so an old one that comes back is
//! known for what it is without a row for each that was spent, and nobody can end a session by inventing tokens.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use uuid::Uuid;

use super::base62;
use super::id::{SessionId, UserId};
use super::seal::MasterKey;
use super::secret::{Secret, sha256};
use crate::entropy;

/// How it begins.
const PREFIX: &str = "tnr_";

/// User 16, session 16, generation 4, random 32, MAC 16.
const BYTES: usize = 84;

/// What the MAC is over.
const BODY: usize = BYTES - 16;

/// A refresh token that we made.
pub struct RefreshToken {
    /// Whose session it is.
    pub user_id: UserId,
    /// Which session.
    pub session_id: SessionId,
    /// Which token of the session; the first has 0.
    pub generation: u32,
    /// The whole text.
    pub text: Secret<String>,
}

impl RefreshToken {
    /// A new one.
    #[must_use]
    pub fn generate(master: &MasterKey, user_id: UserId, session_id: SessionId, generation: u32) -> Self {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(user_id.0.as_bytes());
        bytes[16..32].copy_from_slice(session_id.0.as_bytes());
        bytes[32..36].copy_from_slice(&generation.to_be_bytes());
        bytes[36..BODY].copy_from_slice(&entropy::bytes::<32>());
        let mac = mac(master, &bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&mac);
        let text = Secret::new(format!("{PREFIX}{}", base62::encode(&bytes)));
        Self { user_id, session_id, generation, text }
    }

    /// Reads one; none when we never made it.
    #[must_use]
    pub fn parse(master: &MasterKey, text: &str) -> Option<Self> {
        let bytes = base62::decode::<BYTES>(text.strip_prefix(PREFIX)?)?;
        verify_slices_are_equal(&mac(master, &bytes[..BODY]), &bytes[BODY..]).ok()?;
        Some(Self {
            user_id: UserId(Uuid::from_slice(&bytes[..16]).ok()?),
            session_id: SessionId(Uuid::from_slice(&bytes[16..32]).ok()?),
            generation: u32::from_be_bytes(bytes[32..36].try_into().ok()?),
            text: Secret::new(text.to_owned()),
        })
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.text.expose().as_bytes())
    }

    /// Its successor, and the successor's text sealed under this one: whoever has this one can be given the same successor
    /// again, and the database alone gives nothing.
    #[must_use]
    pub fn succeed(&self, master: &MasterKey, generation: u32) -> (Self, Vec<u8>) {
        let next = Self::generate(master, self.user_id, self.session_id, generation);
        let sealed = master.seal(&self.sealing(), self.session_id.0.as_bytes(), next.text.expose().as_bytes());
        (next, sealed)
    }

    /// The successor that was sealed under this one.
    #[must_use]
    pub fn open(&self, master: &MasterKey, sealed: &[u8]) -> Option<Self> {
        let text = master.open(&self.sealing(), self.session_id.0.as_bytes(), sealed)?;
        Self::parse(master, std::str::from_utf8(&text).ok()?)
    }

    fn sealing(&self) -> [&[u8]; 2] {
        [b"refresh", self.text.expose().as_bytes()]
    }
}

fn mac(master: &MasterKey, body: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&master.mac("refresh", &[body])[..16]);
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, master, texts};

    fn token() -> RefreshToken {
        RefreshToken::generate(&master(), UserId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)), 3)
    }

    #[test]
    fn a_token_reads_back() {
        let token = token();
        let text = token.text.expose();
        assert_eq!(text.len(), PREFIX.len() + base62::length(BYTES));
        let again = RefreshToken::parse(&master(), text).unwrap();
        let of = |t: &RefreshToken| (t.user_id, t.session_id, t.generation, t.digest());
        assert_eq!(of(&again), of(&token));
        assert!(RefreshToken::parse(&MasterKey::new(&Secret::new([8; 32])), text).is_none());
    }

    #[test]
    fn a_successor_opens_under_its_predecessor_alone() {
        let (first, other) = (token(), token());
        let (next, sealed) = first.succeed(&master(), 4);
        assert_eq!(first.open(&master(), &sealed).unwrap().text.expose(), next.text.expose());
        assert_eq!(next.generation, 4);
        assert!(other.open(&master(), &sealed).is_none() && next.open(&master(), &sealed).is_none());
    }

    #[test]
    fn a_fuzzed_refresh_token_is_read_only_when_it_is_whole() {
        let own: Vec<String> = (0..4).map(|_| token().text.expose().clone()).collect();
        let bytes = vec(any::<u8>(), BYTES).prop_map(|bytes| format!("{PREFIX}{}", base62::encode(&bytes)));
        fuzz("refresh token", prop_oneof![7 => texts(&own), 1 => bytes], |text| {
            let read = RefreshToken::parse(&master(), &text).is_some();
            prop_assert_eq!(read, own.contains(&text));
            Ok(read)
        });
    }
}
