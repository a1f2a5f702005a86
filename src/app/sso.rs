//! Sign-in through a tenant's own identity provider. What has begun is not stored: the state that travels through the
//! browser holds it, sealed; so nobody can fill a table by beginning. Only what was used is remembered, for as long as it
//! would be good. `sso/let_in.rs` is what follows from what the provider says.

mod let_in;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::sessions::Tokens;
use crate::ctx::Ctx;
use crate::domain::catalogue::Catalogue;
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::domain::secret::{Secret, binding_token, random_text, sha256};
use crate::domain::session::Device;
use crate::domain::sso::{SsoConnection, is_subject};
use crate::domain::user::User;
use crate::error::Error;
use crate::outside::oidc::{Beginning, Callback, OidcError, Registration};
use crate::store::{InTenant, sso};
use crate::time::Timestamp;

/// How long a sign-in may take, from its beginning to its end.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);

/// The longest state that is looked at.
const LONGEST_STATE: usize = 4096;

/// Where a sign-in begins.
pub struct SsoBegun {
    /// Where to send the browser.
    pub authorization_url: String,
    /// What the browser keeps.
    pub binding_token: Secret<String>,
}

/// What the provider sent the browser back with.
pub struct SsoCallback {
    /// The code.
    pub code: Secret<String>,
    /// The state.
    pub state: String,
    /// The issuer, where the provider says it.
    pub issuer: String,
    /// What the browser kept.
    pub binding_token: Secret<String>,
    /// Whether the session is to outlast the day.
    pub remember: bool,
    /// From where.
    pub device: Device,
}

/// Somebody who was let in.
pub struct SsoDone {
    /// The person.
    pub user: User,
    /// What proves it.
    pub tokens: Tokens,
    /// Whether they became a member just now.
    pub joined: bool,
}

/// What a state holds. Sealed, because the verifier is nobody's to know but the provider's, at the end.
#[derive(Serialize, Deserialize)]
struct State {
    tenant: Uuid,
    connection: Uuid,
    nonce: String,
    verifier: String,
    redirect_uri: String,
    binding: [u8; 32],
    expires_at: Timestamp,
}

impl App {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// `SsoNotConfigured`, `FieldsInvalid` for a redirect address that is not the connection's, `SsoProviderUnavailable`,
    /// `Overloaded`.
    pub async fn begin_sso(
        &self,
        ctx: &Ctx,
        tenant: &TenantName,
        redirect_uri: &str,
        (login_hint, prove_again): (&str, bool),
    ) -> Result<SsoBegun, Error> {
        let tenant = self.plane.look_at_rows().find(tenant, ctx.now).await?.ok_or(Error::SsoNotConfigured)?;
        self.sso_tenant(tenant, ctx.now).await?;
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let (connection, _) = self.open_sso_connection(&mut tx).await?;
        drop(tx);
        if !connection.terms.redirect_uris.iter().any(|uri| uri == redirect_uri) {
            return Err(Error::field("redirect_uri", "must be one of the connection's, letter by letter"));
        }
        let (nonce, verifier, binding) = (random_text(), random_text(), binding_token());
        let state = self.seal_state(&State {
            tenant: tenant.0,
            connection: connection.connection_id,
            nonce: nonce.expose().clone(),
            verifier: verifier.expose().clone(),
            redirect_uri: redirect_uri.to_owned(),
            binding: sha256(binding.expose().as_bytes()),
            expires_at: ctx.now.after(PATIENCE),
        })?;
        let with = Beginning {
            state: &state,
            nonce: nonce.expose(),
            verifier: &verifier,
            scopes: &connection.terms.scopes,
            login_hint,
            prove_again,
        };
        let registration = registration(tenant, &connection, None, redirect_uri);
        let authorization_url = self.oidc.begin(&registration, &with, ctx.now).await.map_err(failed)?;
        Ok(SsoBegun { authorization_url, binding_token: binding })
    }

    /// Ends a sign-in: whom the provider vouches for is let into this tenant, and into nothing else.
    ///
    /// # Errors
    /// `SsoStateInvalid`, `SsoNotConfigured`, `SsoProviderUnavailable`, `SsoRefused`, `SsoAddressRefused`,
    /// `SsoMemberRefused`, `SeatsExhausted`; for who would join, `WrongState` or `TenantInMaintenance` when the tenant is closed,
    /// and `FeatureNotInPlan`; `Overloaded`, before anything was used up.
    pub async fn complete_sso(&self, ctx: &Ctx, back: &SsoCallback) -> Result<SsoDone, Error> {
        let state = self.open_state(&back.state).ok_or(Error::SsoStateInvalid)?;
        let bound = sha256(back.binding_token.expose().as_bytes());
        let same_browser = aws_lc_rs::constant_time::verify_slices_are_equal(&bound, &state.binding).is_ok();
        if !same_browser || state.expires_at <= ctx.now {
            return Err(Error::SsoStateInvalid);
        }
        let tenant = TenantId(state.tenant);
        let catalogue = self.sso_tenant(tenant, ctx.now).await?;
        // Used from here on, whatever comes of it: a code is not tried twice.
        let mut tx = self.store.write(InTenant(tenant)).await?;
        let (connection, secret) = self.open_sso_connection(&mut tx).await?;
        // Before the state is used up: whoever gets none can come again.
        let turn = self.oidc.turn(tenant).map_err(failed)?;
        let digest = sha256(state.nonce.as_bytes());
        let fresh = sso::use_state(&mut tx, &digest, state.expires_at, ctx.now).await?;
        if !fresh || connection.connection_id != state.connection {
            return Err(Error::SsoStateInvalid);
        }
        tx.commit_unaudited(ctx.now).await?;

        let registration = registration(tenant, &connection, secret.as_ref(), &state.redirect_uri);
        let (nonce, verifier) = (state.nonce.as_str(), Secret::new(state.verifier.clone()));
        let terms = &connection.terms;
        let claim = if terms.follows_groups() { terms.group_claim.as_str() } else { "" };
        let callback = Callback { code: &back.code, issuer: &back.issuer, nonce, verifier: &verifier, claim };
        let identity = self.oidc.finish(turn, &registration, &callback, ctx.now).await.map_err(failed)?;
        if !is_subject(&identity.subject) {
            return Err(Error::SsoRefused("the provider names nobody".to_owned()));
        }
        // Whoever is made an account at the same moment is found at the second look.
        let who = (&connection, &identity);
        match self.let_in(ctx, (tenant, &catalogue), who, back).await {
            Err(Error::EmailTaken) => self.let_in(ctx, (tenant, &catalogue), who, back).await,
            other => other,
        }
    }

    /// The catalogue for a tenant that can be signed in to. One that is not there is like one without a provider.
    async fn sso_tenant(&self, tenant: TenantId, now: Timestamp) -> Result<std::sync::Arc<Catalogue>, Error> {
        let found = self.plane.find_settled(tenant, now).await?;
        let there = found.filter(|(tenant, _)| tenant.deleted_at.is_none());
        there.map(|(_, catalogue)| catalogue).ok_or(Error::SsoNotConfigured)
    }

    fn seal_state(&self, state: &State) -> Result<String, Error> {
        let plain = serde_json::to_vec(state).map_err(|e| Error::Internal(e.to_string().into()))?;
        Ok(URL_SAFE_NO_PAD.encode(self.master.seal(&[b"sso state"], b"", &plain)))
    }

    fn open_state(&self, text: &str) -> Option<State> {
        if text.len() > LONGEST_STATE {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let plain = self.master.open(&[b"sso state"], b"", &sealed)?;
        serde_json::from_slice(&plain).ok()
    }
}

fn registration<'a>(
    tenant: TenantId,
    connection: &'a SsoConnection,
    client_secret: Option<&'a Secret<String>>,
    redirect_uri: &'a str,
) -> Registration<'a> {
    let terms = &connection.terms;
    Registration { tenant, issuer: &terms.issuer, client_id: &terms.client_id, client_secret, redirect_uri }
}

fn failed(error: OidcError) -> Error {
    match error {
        OidcError::Unreachable(problem) => Error::SsoProviderUnavailable(problem),
        OidcError::Refused(problem) => Error::SsoRefused(problem),
        OidcError::Busy => Error::Overloaded,
    }
}
