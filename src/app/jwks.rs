//! The keys that access tokens are verified by, for services that do so themselves: published before they sign, and for as
//! long as a token of theirs may be good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::App;

/// A public key of ours as a JSON Web Key (RFC 8037).
#[derive(Debug, Serialize)]
pub struct Jwk {
    /// Its name in token headers.
    pub kid: String,
    /// The key, in base64url.
    pub x: String,
    /// Its family.
    pub kty: &'static str,
    /// Its curve.
    pub crv: &'static str,
    /// The algorithm.
    pub alg: &'static str,
    /// What it is used for.
    #[serde(rename = "use")]
    pub used_for: &'static str,
}

#[derive(Serialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

impl App {
    /// The published keys.
    #[must_use]
    pub fn published_keys(&self) -> Vec<Jwk> {
        let jwk = |(kid, key): (String, Vec<u8>)| Jwk {
            kid,
            x: URL_SAFE_NO_PAD.encode(key),
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            used_for: "sig",
        };
        self.plane.tokens.published().into_iter().map(jwk).collect()
    }

    /// The same as the text of a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> String {
        serde_json::to_string(&JwkSet { keys: self.published_keys() }).unwrap_or_default()
    }
}
