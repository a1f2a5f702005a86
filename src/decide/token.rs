//! Access tokens: JWTs signed with Ed25519 (RFC 9068 profile). The algorithm, type and key are pinned: what a token says
//! about itself is compared, never followed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::impersonation::LONGEST;
use crate::domain::seal::MasterKey;
use crate::domain::secret::{Secret, sha256};
use crate::domain::session::{ACCESS_TOKEN_LIFETIME, Session};
use crate::domain::signing_key::{KeyState, SigningKey};
use crate::error::Error;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// The longest token that is looked at. Ours have about 400 bytes.
const MAX_LENGTH: usize = 2048;

/// Tokens that are remembered, about 300 bytes each.
const REMEMBERED: usize = 50_000;

/// How far other machines' clocks may be ahead of ours: each within half a minute of the true time.
const LEEWAY: TimeDelta = TimeDelta::seconds(60);

/// Whom access tokens are for.
#[derive(Debug, Clone)]
pub struct Audiences {
    /// This service: what it takes itself.
    pub own: String,
    /// Services that verify tokens by themselves, besides.
    pub others: Vec<String>,
    /// One of each tenant's own, in which `{tenant_id}` stands for the tenant; empty for none.
    pub of_tenant: String,
}

impl Audiences {
    /// `aud` of a token.
    fn of(&self, tenant: Option<TenantId>) -> Aud {
        let of_tenant = tenant.filter(|_| !self.of_tenant.is_empty());
        let of_tenant = of_tenant.map(|tenant| self.of_tenant.replace("{tenant_id}", &tenant.to_string()));
        let mut all = vec![self.own.clone()];
        all.extend(self.others.iter().cloned());
        all.extend(of_tenant);
        if all.len() == 1 { Aud::One(self.own.clone()) } else { Aud::Several(all) }
    }
}

/// One audience or several, as RFC 7519 writes them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Aud {
    One(String),
    Several(Vec<String>),
}

/// What signs and verifies access tokens.
pub struct Tokens {
    master: Arc<MasterKey>,
    issuer: String,
    audiences: Audiences,
    ring: RwLock<Arc<Ring>>,
    /// When an unknown key was last looked for.
    pub(super) sought: Mutex<Option<Instant>>,
}

/// The keys, as they were last read.
struct Ring {
    signing: Option<(String, EncodingKey)>,
    known: HashMap<String, DecodingKey>,
    published: Vec<(String, Vec<u8>)>,
    /// What tokens say that these keys have signed, by the token's hash: a token comes with every call until it ends, and to
    /// check a signature takes longer than all other questions about a call.
    read: Cache<[u8; 32], Read>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { signing: None, known: HashMap::new(), published: Vec::new(), read: Cache::new(REMEMBERED) }
    }
}

/// What a token with a good signature says.
#[derive(Clone)]
struct Read {
    /// From when on it is good, in seconds.
    begins: i64,
    says: Verified,
}

/// Why a token was not verified.
pub(super) enum Unverified {
    /// It names a key that is not known here.
    UnknownKey,
    /// It is no good.
    Bad(Error),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Aud,
    sub: Uuid,
    sid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<Uuid>,
    iat: i64,
    exp: i64,
    auth_time: i64,
    #[serde(default)]
    aal: i64,
    /// Never in a token of ours; should one have it, it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    /// The operator who is in the person's place (RFC 8693). For others to see; the session's row decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Act>,
}

#[derive(Serialize, Deserialize)]
struct Act {
    sub: Uuid,
}

/// A new access token.
pub struct Minted {
    /// The token.
    pub token: Secret<String>,
    /// How long it is good for.
    pub expires_in: TimeDelta,
}

/// What a good token says. Whether its session still lives is not known from it.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The key that signed it.
    pub kid: String,
    /// Whose.
    pub user_id: UserId,
    /// In which sign-in.
    pub session_id: SessionId,
    /// For which tenant.
    pub tenant: Option<TenantId>,
    /// When the person proved who they are.
    pub auth_time: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Tokens {
    /// Knows no keys yet; see `follow`.
    #[must_use]
    pub fn new(master: Arc<MasterKey>, issuer: String, audiences: Audiences) -> Self {
        Self { master, issuer, audiences, ring: RwLock::default(), sought: Mutex::default() }
    }

    /// Takes the keys as they are stored now.
    ///
    /// # Errors
    /// Internal, when the one that signs does not open.
    pub fn follow(&self, keys: &[SigningKey]) -> Result<(), Error> {
        let mut ring = Ring::default();
        for key in keys.iter().filter(|key| key.state.is_published()) {
            ring.known.insert(key.kid.clone(), DecodingKey::from_ed_der(&key.public_key));
            ring.published.push((key.kid.clone(), key.public_key.clone()));
            if key.state == KeyState::Current {
                let pkcs8 = self.master.open(&[b"signing key"], key.kid.as_bytes(), &key.sealed);
                let pkcs8 = Secret::new(pkcs8.ok_or_else(|| Error::internal("the signing key does not open"))?);
                ring.signing = Some((key.kid.clone(), EncodingKey::from_ed_der(pkcs8.expose())));
            }
        }
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }

    fn ring(&self) -> Arc<Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys that tokens can be verified by: names and public halves.
    #[must_use]
    pub fn published(&self) -> Vec<(String, Vec<u8>)> {
        self.ring().published.clone()
    }

    /// Signs a token for a session. It never outlives the session, nor `not_after`: the end of a token that it is exchanged
    /// for.
    ///
    /// # Errors
    /// Internal, when the key does not sign.
    pub fn mint(
        &self,
        session: &Session,
        tenant: Option<TenantId>,
        now: Timestamp,
        not_after: Option<Timestamp>,
    ) -> Result<Minted, Error> {
        let ring = self.ring();
        let (kid, signing) = ring.signing.as_ref().ok_or_else(|| Error::internal("no key signs access tokens"))?;
        // In somebody's place there is no refreshing: the token is good for all of the time.
        let lifetime = if session.operator.is_some() { LONGEST } else { ACCESS_TOKEN_LIFETIME };
        let exp = now.after(lifetime).min(session.idle_expires_at).min(session.absolute_expires_at);
        let exp = not_after.map_or(exp, |end| exp.min(end));
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audiences.of(tenant),
            sub: session.user_id.0,
            sid: session.session_id.0,
            tid: tenant.map(|t| t.0),
            iat: now.seconds(),
            exp: exp.seconds(),
            auth_time: session.auth_time.seconds(),
            aal: session.aal,
            nbf: None,
            act: session.operator.map(|key| Act { sub: key.0 }),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(kid.clone());
        let token = encode(&header, &claims, signing).map_err(|e| Error::Internal(e.to_string().into()))?;
        Ok(Minted { token: Secret::new(token), expires_in: TimeDelta::seconds(exp.seconds() - now.seconds()) })
    }

    /// Reads a token. Errors are `TokenExpired` for one of ours that is over, `CredentialInvalid` for everything else.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, Unverified> {
        let bad = || Unverified::Bad(Error::CredentialInvalid);
        if token.len() > MAX_LENGTH {
            return Err(bad());
        }
        let ring = self.ring();
        let hash = sha256(token.as_bytes());
        let read = if let Some(read) = ring.read.get(&hash) {
            read
        } else {
            let read = self.read(&ring, token)?;
            ring.read.insert(hash, read.clone());
            read
        };
        if read.begins > now.after(LEEWAY).seconds() {
            return Err(bad());
        }
        if read.says.expires_at.seconds() <= now.seconds() {
            return Err(Unverified::Bad(Error::TokenExpired));
        }
        Ok(read.says)
    }

    /// What a token says, if one of these keys has signed it. Whether it is good now is not asked.
    fn read(&self, ring: &Ring, token: &str) -> Result<Read, Unverified> {
        let bad = || Unverified::Bad(Error::CredentialInvalid);
        let header = decode_header(token).map_err(|_| bad())?;
        let typed = header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"));
        let kid = header.kid.filter(|kid| is_kid(kid)).ok_or_else(bad)?;
        if !typed || header.alg != Algorithm::EdDSA {
            return Err(bad());
        }
        let key = ring.known.get(&kid).ok_or(Unverified::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audiences.own]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Time is compared with the clock of the call.
        validation.validate_exp = false;
        let claims = decode::<Claims>(token, key, &validation).map_err(|_| bad())?.claims;
        let says = Verified {
            kid,
            user_id: UserId(claims.sub),
            session_id: SessionId(claims.sid),
            tenant: claims.tid.map(TenantId),
            auth_time: Timestamp::from_micros(claims.auth_time.saturating_mul(1_000_000)),
            expires_at: Timestamp::from_micros(claims.exp.saturating_mul(1_000_000)),
        };
        Ok(Read { begins: claims.nbf.map_or(claims.iat, |nbf| nbf.max(claims.iat)), says })
    }
}

/// Whether a name can be one of a key of ours: 16 hexadecimal digits. Everything else is not looked for.
fn is_kid(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
