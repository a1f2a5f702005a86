//! Secrets: the wrapper that keeps them out of logs, and the written form of keys and tokens.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::base62;
use crate::entropy;

/// Something that must not be seen: no `Debug`, no `Display`, no `Serialize`. Whoever needs the value says `expose`.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; for the one place that hands it on.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

/// Writes and reads a secret as part of an answer that is sealed before it is stored; for
/// `#[serde(with = "secret::sealed")]`.
pub mod sealed {
    use super::{Deserialize, Deserializer, Secret, Serialize, Serializer};

    /// Writes it, for sealing.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(serializer)
    }

    /// Reads it, after opening.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

/// SHA-256: how every opaque token is stored. Enough, because tokens have 256 random bits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

/// So many random characters of base62, all equally likely; 43 have 256 bits.
pub(super) fn random_base62(length: usize) -> String {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        // 248 = 4 x 62: bytes above would make the first characters likelier.
        let fair = entropy::bytes::<64>().into_iter().filter(|b| *b < 248);
        text.extend(fair.take(length - text.len()).map(|b| base62::digit(usize::from(b % 62))));
    }
    text
}

/// The CRC-32 of a key's text as six characters: tells a mistyped or invented key without a look into the database.
fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes()) as usize;
    let mut out = ['0'; 6];
    for slot in out.iter_mut().rev() {
        *slot = base62::digit(rest % 62);
        rest /= 62;
    }
    out.into_iter().collect()
}

/// What a key opens, by its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// `tnk_`: a program of a tenant.
    Tenant,
    /// `tnp_`: a member of a tenant, by a program.
    Personal,
    /// `tns_`: a trusted backend service.
    Service,
    /// `tno_`: a platform administrator.
    Operator,
}

impl KeyKind {
    const ALL: [Self; 4] = [Self::Tenant, Self::Personal, Self::Service, Self::Operator];

    /// The prefix of its keys.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Tenant => "tnk",
            Self::Personal => "tnp",
            Self::Service => "tns",
            Self::Operator => "tno",
        }
    }
}

/// A key as its holder keeps it: `<prefix>_<id 12>_<secret 43>_<checksum 6>`.
pub struct Key {
    /// What it opens.
    pub kind: KeyKind,
    /// Its public part.
    pub key_id: String,
    /// The whole text.
    pub text: Secret<String>,
}

impl Key {
    /// A new random key.
    #[must_use]
    pub fn generate(kind: KeyKind) -> Self {
        Self::with_id(kind, random_base62(12))
    }

    /// A new secret for a key that there is: its public part stays.
    #[must_use]
    pub fn again(kind: KeyKind, key_id: &str) -> Self {
        Self::with_id(kind, key_id.to_owned())
    }

    fn with_id(kind: KeyKind, key_id: String) -> Self {
        let body = format!("{}_{key_id}_{}", kind.prefix(), random_base62(43));
        let text = Secret::new(format!("{body}_{}", checksum(&body)));
        Self { kind, key_id, text }
    }

    /// Reads a key; none when it was never one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.rsplit_once('_')?;
        let mut parts = body.split('_');
        let (prefix, id, secret) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = KeyKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)?;
        let base62 = |s: &str| s.bytes().all(|b| b.is_ascii_alphanumeric());
        let well_formed =
            parts.next().is_none() && id.len() == 12 && secret.len() == 43 && base62(id) && base62(secret);
        if !well_formed || checksum(body) != sum {
            return None;
        }
        Some(Self { kind, key_id: id.to_owned(), text: Secret::new(text.to_owned()) })
    }

    /// How it ends, for people to tell keys apart: characters of the checksum, so nothing of the secret.
    #[must_use]
    pub fn last4(&self) -> String {
        let text = self.text.expose();
        text[text.len().saturating_sub(4)..].to_owned()
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(self.text.expose().as_bytes())
    }
}

/// A password for somebody who did not choose one: 20 characters of base62, 119 bits.
#[must_use]
pub fn generated_password() -> String {
    random_base62(20)
}

/// What proves that a sign-in through a provider ends in the browser where it began: `tnb_` and 256 random bits.
#[must_use]
pub fn binding_token() -> Secret<String> {
    Secret::new(format!("tnb_{}", random_base62(43)))
}

/// 256 random bits as text, for what others hand back to us or prove to others.
#[must_use]
pub fn random_text() -> Secret<String> {
    Secret::new(random_base62(43))
}

/// A new device token, `tnd_` and 256 random bits.
#[must_use]
pub fn device_token() -> Secret<String> {
    Secret::new(format!("tnd_{}", random_base62(43)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, texts};

    #[test]
    fn a_key_reads_back_and_a_changed_one_does_not() {
        let key = Key::generate(KeyKind::Service);
        let text = key.text.expose().clone();
        assert_eq!(text.len(), 3 + 1 + 12 + 1 + 43 + 1 + 6);
        let again = Key::parse(&text).unwrap();
        assert_eq!((again.kind, again.key_id.as_str()), (KeyKind::Service, key.key_id.as_str()));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(Key::parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "changed at {at}");
        }
    }

    #[test]
    fn a_fuzzed_key_is_read_as_what_it_is() {
        let own = KeyKind::ALL.map(|kind| Key::generate(kind).text.expose().clone());
        // Whoever knows how keys are made can give any text its checksum.
        let body = "tn[kpsox]_[0-9A-Za-z]{11,13}_[0-9A-Za-z]{42,44}(_x)?";
        let summed = body.prop_map(|body| format!("{body}_{}", checksum(&body)));
        fuzz("key", prop_oneof![7 => texts(&own), 1 => summed], |text| {
            let Some(key) = Key::parse(&text) else {
                prop_assert!(!own.contains(&text));
                return Ok(false);
            };
            prop_assert!(text.is_ascii() && text.len() == 67, "{text}");
            prop_assert!(text.starts_with(&format!("{}_{}_", key.kind.prefix(), key.key_id)), "{text}");
            prop_assert_eq!((key.digest(), key.last4()), (sha256(text.as_bytes()), text[63..].to_owned()));
            Ok(true)
        });
    }

    proptest! {
        /// The checksum covers the prefix: a key cannot be turned into one of another kind.
        #[test]
        fn a_key_of_one_kind_is_none_of_another(from in 0_usize..4, to in 0_usize..4) {
            let (from, to) = (KeyKind::ALL[from], KeyKind::ALL[to]);
            let text = Key::generate(from).text.expose().replacen(from.prefix(), to.prefix(), 1);
            prop_assert_eq!(Key::parse(&text).is_some(), from == to);
        }
    }
}
