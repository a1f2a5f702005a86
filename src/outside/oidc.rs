//! OpenID Connect, as the relying party: authorization code flow with PKCE. What a provider says is proven here (issuer,
//! audience, signature, nonce, time); what follows from it is not decided here.

mod providers;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClientAuthMethod,
    CoreErrorResponseType, CoreGenderClaim, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType, CoreRevocableToken,
    CoreRevocationErrorResponse, CoreSubjectIdentifierType, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AdditionalProviderMetadata, AuthType, AuthorizationCode, ClaimsVerificationError, Client,
    ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet,
    IdTokenFields, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl,
    RequestTokenError, Scope, StandardErrorResponse, StandardTokenResponse, TokenResponse as _, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use providers::Providers;
pub use providers::Turn;

use super::http::{Http, HttpError};
use crate::domain::id::TenantId;
use crate::domain::secret::Secret;
use crate::time::Timestamp;

/// Of how much of what a provider says people are told.
const TOLD: usize = 200;

/// How far a provider's clock may be ahead of ours.
const LEEWAY: TimeDelta = TimeDelta::seconds(60);

/// How a provider may sign: with a private key, never with a shared secret, never not at all.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 6] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Whom a provider knows us as.
pub struct Registration<'a> {
    /// Whose provider it is.
    pub tenant: TenantId,
    /// The provider's name for itself.
    pub issuer: &'a str,
    /// Our name there.
    pub client_id: &'a str,
    /// What proves that it is us; none for a public client.
    pub client_secret: Option<&'a Secret<String>>,
    /// Where the provider sends the person back to.
    pub redirect_uri: &'a str,
}

/// What a sign-in is begun with.
pub struct Beginning<'a> {
    /// Comes back with the code.
    pub state: &'a str,
    /// Comes back in the token.
    pub nonce: &'a str,
    /// What the code is exchanged with; only its hash is sent now.
    pub verifier: &'a Secret<String>,
    /// What is asked for besides `openid`.
    pub scopes: &'a [String],
    /// Who wants to sign in, as far as the client knows.
    pub login_hint: &'a str,
    /// Whether they are to prove who they are again, whatever session they have there.
    pub prove_again: bool,
}

/// What came back.
pub struct Callback<'a> {
    /// The code.
    pub code: &'a Secret<String>,
    /// Who says that it comes from them; empty when nobody does.
    pub issuer: &'a str,
    /// What the sign-in was begun with.
    pub nonce: &'a str,
    /// What the sign-in was begun with.
    pub verifier: &'a Secret<String>,
    /// A claim that is asked for further when the token has none; empty for none.
    pub claim: &'a str,
}

/// Who a provider says somebody is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The provider's own, lasting name of the person.
    pub subject: String,
    /// Their address.
    pub email: Option<String>,
    /// Whether the provider has seen that the address is theirs.
    pub email_verified: bool,
    /// What they are called.
    pub name: Option<String>,
    /// When they proved who they are there, where it says so.
    pub auth_time: Option<Timestamp>,
    /// Everything else that was said.
    pub claims: Map<String, Value>,
}

/// Why nothing is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// The provider cannot be asked.
    #[error("{0}")]
    Unreachable(String),
    /// The provider said no, or what it said does not hold.
    #[error("{0}")]
    Refused(String),
    /// So many wait for providers that no more may.
    #[error("too many wait for it")]
    Busy,
}

impl OidcError {
    /// The provider said this, of which the beginning is told.
    fn refused(before: &str, said: &str) -> Self {
        let printable = said.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
        Self::Refused(format!("{before}: {}", printable.take(TOLD).collect::<String>()))
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Further {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}
impl AdditionalProviderMetadata for Further {}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct AllClaims(Map<String, Value>);
impl AdditionalClaims for AllClaims {}

type Metadata = ProviderMetadata<
    Further,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Tokens = StandardTokenResponse<
    IdTokenFields<
        AllClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type Relying = Client<
    AllClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Talks to providers; nobody waits for one without a turn.
pub struct Oidc {
    providers: Providers,
}

impl Oidc {
    /// Talks over this.
    #[must_use]
    pub fn new(http: Http) -> Self {
        Self { providers: Providers::new(http) }
    }

    /// What calls are made with.
    #[must_use]
    pub const fn http(&self) -> &Http {
        &self.providers.http
    }

    /// A turn to `finish` a sign-in.
    ///
    /// # Errors
    /// That too many have one.
    pub fn turn(&self, tenant: TenantId) -> Result<Turn, OidcError> {
        self.providers.turn(tenant)
    }

    /// Asks a provider what it publishes about itself, now: its keys and where to go. Says how many keys there are.
    ///
    /// # Errors
    /// That it does not answer, or not as a provider does.
    pub async fn look(&self, tenant: TenantId, issuer: &str) -> Result<usize, OidcError> {
        let _turn = self.turn(tenant)?;
        Ok(self.providers.ask(issuer).await?.jwks().keys().len())
    }

    /// Where to send the person's browser.
    ///
    /// # Errors
    /// That the provider does not answer.
    pub async fn begin(
        &self,
        to: &Registration<'_>,
        with: &Beginning<'_>,
        now: Timestamp,
    ) -> Result<String, OidcError> {
        let metadata = if let Some(found) = self.providers.remembered(to.issuer, now) {
            found?
        } else {
            let _turn = self.turn(to.tenant)?;
            self.providers.find(to.issuer, now).await?
        };
        self.http()
            .reach()
            .check(metadata.authorization_endpoint().url())
            .map_err(|problem| OidcError::Refused(format!("the provider's sign-in page {problem}")))?;
        let relying = relying(&metadata, to)?;
        let verifier = PkceCodeVerifier::new(with.verifier.expose().clone());
        let (state, nonce) = (CsrfToken::new(with.state.to_owned()), Nonce::new(with.nonce.to_owned()));
        let mut request = relying
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || state, move || nonce)
            .add_scopes(with.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier));
        if !with.login_hint.is_empty() {
            request = request.add_extra_param("login_hint", with.login_hint);
        }
        if with.prove_again {
            request = request.set_max_age(Duration::ZERO);
        }
        Ok(request.url().0.to_string())
    }

    /// Exchanges the code for what the provider says about the person.
    ///
    /// # Errors
    /// That the provider does not answer, says no, or says what does not hold.
    pub async fn finish(
        &self,
        _turn: Turn,
        to: &Registration<'_>,
        back: &Callback<'_>,
        now: Timestamp,
    ) -> Result<Identity, OidcError> {
        let metadata = self.providers.find(to.issuer, now).await?;
        // Somebody else's provider, which got hold of a code of this one, would have to say that it is this one (RFC 9207).
        let says_who = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        if (says_who || !back.issuer.is_empty()) && back.issuer != to.issuer {
            return Err(OidcError::Refused("the answer comes from another provider".to_owned()));
        }
        let relying = relying(&metadata, to)?;
        let tokens = relying
            .exchange_code(AuthorizationCode::new(back.code.expose().clone()))
            .map_err(|_| OidcError::Unreachable("the provider exchanges no codes".to_owned()))?
            .set_pkce_verifier(PkceCodeVerifier::new(back.verifier.expose().clone()))
            .request_async(self.http())
            .await
            .map_err(exchange_failed)?;
        let mut identity = match verified(&relying, &tokens, back.nonce, now) {
            // The keys may have been changed since they were looked at.
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                let fresh = self.providers.renew(to.issuer, now).await?;
                verified(&self::relying(&fresh, to)?, &tokens, back.nonce, now)
            }
            other => other,
        }
        .map_err(|error| OidcError::refused("the provider's token does not hold", &error.to_string()))?;
        let nameless = identity.email.is_none();
        let silent = !back.claim.is_empty() && !identity.claims.contains_key(back.claim);
        if nameless || silent {
            let asked = self.ask_further(&relying, &tokens, &mut identity).await;
            // Without an address it may be nobody; a claim may be missing.
            if nameless {
                asked?;
            }
        }
        Ok(identity)
    }

    /// Asks the provider's userinfo endpoint for what is not in the token, where there is one.
    async fn ask_further(&self, relying: &Relying, tokens: &Tokens, identity: &mut Identity) -> Result<(), OidcError> {
        let subject = openidconnect::SubjectIdentifier::new(identity.subject.clone());
        let Ok(request) = relying.user_info(tokens.access_token().clone(), Some(subject)) else { return Ok(()) };
        let said: UserInfoClaims<AllClaims, CoreGenderClaim> = request
            .request_async(self.http())
            .await
            .map_err(|error| OidcError::refused("the provider does not say who it is", &error.to_string()))?;
        if identity.email.is_none() {
            identity.email = said.email().map(|email| email.to_string());
            identity.email_verified = said.email_verified().unwrap_or(false);
        }
        let name = said.name().and_then(|name| name.get(None)).map(|name| name.to_string());
        identity.name = name.or(identity.name.take());
        for (claim, value) in said.additional_claims().0.clone() {
            identity.claims.entry(claim).or_insert(value);
        }
        Ok(())
    }
}

fn relying(metadata: &Metadata, to: &Registration<'_>) -> Result<Relying, OidcError> {
    let redirect = RedirectUrl::new(to.redirect_uri.to_owned())
        .map_err(|_| OidcError::Refused("the redirect address is none".to_owned()))?;
    let secret = to.client_secret.map(|secret| ClientSecret::new(secret.expose().clone()));
    let methods = metadata.token_endpoint_auth_methods_supported();
    let only_in_body = methods.is_some_and(|methods| {
        !methods.contains(&CoreClientAuthMethod::ClientSecretBasic)
            && methods.contains(&CoreClientAuthMethod::ClientSecretPost)
    });
    let relying = Client::from_provider_metadata(metadata.clone(), ClientId::new(to.client_id.to_owned()), secret)
        .set_redirect_uri(redirect);
    Ok(if only_in_body { relying.set_auth_type(AuthType::RequestBody) } else { relying })
}

/// What the ID token says, once it is proven.
fn verified(
    relying: &Relying,
    tokens: &Tokens,
    nonce: &str,
    now: Timestamp,
) -> Result<Identity, ClaimsVerificationError> {
    let token = tokens.id_token().ok_or_else(|| ClaimsVerificationError::Other("there is none".to_owned()))?;
    let issued = move |at: DateTime<Utc>| {
        if at <= now.after(LEEWAY).utc() { Ok(()) } else { Err("it is of the future".to_owned()) }
    };
    let verifier = relying
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || now.utc())
        .set_issue_time_verifier_fn(issued);
    let claims = token.claims(&verifier, &Nonce::new(nonce.to_owned()))?;
    Ok(Identity {
        subject: claims.subject().to_string(),
        email: claims.email().map(|email| email.to_string()),
        email_verified: claims.email_verified().unwrap_or(false),
        name: claims.name().and_then(|name| name.get(None)).map(|name| name.to_string()),
        auth_time: claims.auth_time().map(|at| Timestamp::from_micros(at.timestamp_micros())),
        claims: claims.additional_claims().0.clone(),
    })
}

fn exchange_failed(error: RequestTokenError<HttpError, StandardErrorResponse<CoreErrorResponseType>>) -> OidcError {
    match error {
        RequestTokenError::ServerResponse(said) => {
            OidcError::refused("the provider refuses the code", said.error().as_ref())
        }
        RequestTokenError::Request(error) => OidcError::Unreachable(error.to_string()),
        RequestTokenError::Parse(..) => OidcError::Refused("the provider's answer does not read".to_owned()),
        RequestTokenError::Other(_) => OidcError::Unreachable("the call failed".to_owned()),
    }
}
