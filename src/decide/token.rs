//! Access tokens: JWTs signed with Ed25519 (RFC 9068 profile). The algorithm, type and key are pinned: what a token says
//! about itself is compared, never followed.

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::impersonation::LONGEST;
use crate::domain::secret::Secret;
use crate::domain::session::{ACCESS_TOKEN_LIFETIME, Session};
use crate::error::Error;
use crate::time::Timestamp;

/// The longest token that is looked at. Ours have about 400 bytes.
const MAX_LENGTH: usize = 2048;

/// How far other machines' clocks may be ahead of ours.
const LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// What signs and verifies access tokens.
pub struct Tokens {
    kid: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    issuer: String,
    audience: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    sid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<Uuid>,
    iat: i64,
    exp: i64,
    auth_time: i64,
    #[serde(default)]
    aal: i64,
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
#[derive(Debug, Clone, Copy)]
pub struct Verified {
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
    /// Takes the signing key: its name, its PKCS#8 form and its public half.
    #[must_use]
    pub fn new(kid: String, pkcs8: &Secret<Vec<u8>>, public_key: &[u8], issuer: String, audience: String) -> Self {
        let signing = EncodingKey::from_ed_der(pkcs8.expose());
        Self { kid, signing, verifying: DecodingKey::from_ed_der(public_key), issuer, audience }
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
        // In somebody's place there is no refreshing: the token is good for all of the time.
        let lifetime = if session.operator.is_some() { LONGEST } else { ACCESS_TOKEN_LIFETIME };
        let exp = now.after(lifetime).min(session.idle_expires_at).min(session.absolute_expires_at);
        let exp = not_after.map_or(exp, |end| exp.min(end));
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: session.user_id.0,
            sid: session.session_id.0,
            tid: tenant.map(|t| t.0),
            iat: now.seconds(),
            exp: exp.seconds(),
            auth_time: session.auth_time.seconds(),
            aal: session.aal,
            act: session.operator.map(|key| Act { sub: key.0 }),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        let token = encode(&header, &claims, &self.signing).map_err(|e| Error::Internal(e.to_string().into()))?;
        Ok(Minted { token: Secret::new(token), expires_in: TimeDelta::seconds(exp.seconds() - now.seconds()) })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// `TokenExpired` for one of ours that is over, `CredentialInvalid` for everything else.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, Error> {
        if token.len() > MAX_LENGTH {
            return Err(Error::CredentialInvalid);
        }
        let header = decode_header(token).map_err(|_| Error::CredentialInvalid)?;
        let typed = header.typ.is_some_and(|typ| typ.eq_ignore_ascii_case("at+jwt"));
        if !typed || header.alg != Algorithm::EdDSA || header.kid.as_deref() != Some(self.kid.as_str()) {
            return Err(Error::CredentialInvalid);
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Time is compared below, with the clock of the call.
        validation.validate_exp = false;
        let claims =
            decode::<Claims>(token, &self.verifying, &validation).map_err(|_| Error::CredentialInvalid)?.claims;
        if claims.iat > now.after(LEEWAY).seconds() {
            return Err(Error::CredentialInvalid);
        }
        if claims.exp <= now.seconds() {
            return Err(Error::TokenExpired);
        }
        Ok(Verified {
            user_id: UserId(claims.sub),
            session_id: SessionId(claims.sid),
            tenant: claims.tid.map(TenantId),
            auth_time: Timestamp::from_micros(claims.auth_time.saturating_mul(1_000_000)),
            expires_at: Timestamp::from_micros(claims.exp.saturating_mul(1_000_000)),
        })
    }
}
