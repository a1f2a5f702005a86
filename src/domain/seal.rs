//! The master key, and what is derived from it: sealed values and MACs. One 32-byte key in a file protects everything
//! in the database that must be read back; each purpose has a key of its own (HKDF, RFC 5869).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};

use super::secret::Secret;
use crate::entropy;

/// The key that all others are derived from.
pub struct MasterKey {
    prk: hkdf::Prk,
}

impl MasterKey {
    /// Takes the 32 bytes of a key file.
    #[must_use]
    pub fn new(bytes: &Secret<[u8; 32]>) -> Self {
        Self { prk: hkdf::Salt::new(hkdf::HKDF_SHA256, b"tenantry").extract(bytes.expose()) }
    }

    /// 32 bytes for one purpose. Parts are written with their lengths, so that no two lists of parts are alike.
    fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let info = frame(parts);
        let mut key = [0; 32];
        #[expect(clippy::expect_used, reason = "32 bytes are always within HKDF's bound of 255 hashes")]
        self.prk
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("HKDF-SHA256 gives 32 bytes");
        key
    }

    /// HMAC-SHA-256 over parts, under a key for the purpose.
    #[must_use]
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive(&[b"mac", purpose.as_bytes()]));
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&key, &frame(parts)).as_ref());
        out
    }

    /// Encrypts with AES-256-GCM. `purpose` selects the key; `place` is bound in, so that a sealed value cannot be moved
    /// to another row. The random nonce of 96 bits leads the result.
    ///
    /// # Panics
    /// Never: AES-256-GCM takes any plaintext that fits in memory.
    #[must_use]
    pub fn seal(&self, purpose: &[&[u8]], place: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce = entropy::bytes::<NONCE_LEN>();
        let mut sealed = plain.to_vec();
        #[expect(clippy::expect_used, reason = "sealing fails only for plaintexts beyond 64 GiB")]
        self.aead(purpose)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed)
            .expect("AES-256-GCM seals");
        [&nonce[..], &sealed].concat()
    }

    /// Decrypts; none when it was sealed for something else, under another key, or changed.
    #[must_use]
    pub fn open(&self, purpose: &[&[u8]], place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let plain = self
            .aead(purpose)
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place), &mut body)
            .ok()?
            .len();
        body.truncate(plain);
        Some(body)
    }

    /// `open` for a secret that is text.
    #[must_use]
    pub fn open_text(&self, purpose: &[&[u8]], place: &[u8], sealed: &[u8]) -> Option<Secret<String>> {
        self.open(purpose, place, sealed).and_then(|plain| String::from_utf8(plain).ok()).map(Secret::new)
    }

    fn aead(&self, purpose: &[&[u8]]) -> LessSafeKey {
        let parts: Vec<&[u8]> = std::iter::once(&b"seal"[..]).chain(purpose.iter().copied()).collect();
        #[expect(clippy::expect_used, reason = "the key is 32 bytes long, as AES-256 wants it")]
        let key = UnboundKey::new(&AES_256_GCM, &self.derive(&parts)).expect("an AES-256 key");
        LessSafeKey::new(key)
    }
}

/// Parts, each after its length.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes(), *part].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_where_it_was_sealed() {
        let key = MasterKey::new(&Secret::new([7; 32]));
        let sealed = key.seal(&[b"answer", b"1"], b"row 1", b"hello");
        assert_eq!(key.open(&[b"answer", b"1"], b"row 1", &sealed).as_deref(), Some(&b"hello"[..]));
        assert!(key.open(&[b"answer", b"2"], b"row 1", &sealed).is_none());
        assert!(key.open(&[b"answer", b"1"], b"row 2", &sealed).is_none());
        assert!(MasterKey::new(&Secret::new([8; 32])).open(&[b"answer", b"1"], b"row 1", &sealed).is_none());
        assert!(key.open(&[b"answer", b"1"], b"row 1", &sealed[..20]).is_none());
    }

    #[test]
    fn parts_do_not_run_into_one_another() {
        let key = MasterKey::new(&Secret::new([7; 32]));
        assert_ne!(key.mac("p", &[b"ab", b"c"]), key.mac("p", &[b"a", b"bc"]));
    }
}
