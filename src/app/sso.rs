//! Sign-in through a tenant's own identity provider. What has begun is not stored: the state that travels through the
//! browser holds it, sealed; so nobody can fill a table by beginning. Only what was used is remembered, for as long as it
//! would be good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::invitations::finish_pending;
use super::seats::check_seats;
use super::sessions::{SignIn, Tokens};
use super::tenants::new_membership;
use crate::ctx::Ctx;
use crate::decide::roles::together;
use crate::domain::catalogue::Catalogue;
use crate::domain::domain::DomainStatus;
use crate::domain::id::{TenantId, UserId};
use crate::domain::membership::Membership;
use crate::domain::name::{Email, TenantName, display_name};
use crate::domain::role::{RoleName, RoleNames};
use crate::domain::secret::{Secret, binding_token, random_text, sha256};
use crate::domain::session::{Device, Method, Proof};
use crate::domain::sso::{SsoConnection, groups, is_subject};
use crate::domain::user::{Account, AccountStatus, FIRST_EPOCH, User};
use crate::error::Error;
use crate::outside::oidc::{Beginning, Callback, Identity, OidcError, Registration};
use crate::store::audit::Audit;
use crate::store::{InTenant, InTenantAsUser, Scoped, TenantTx, accounts, domains, memberships, roles, sso, users};
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

/// Somebody who comes in, as far as they are known before the rows are locked.
struct Guest {
    user: User,
    /// The epoch of their account, read before what they prove was asked for; none when the account is to be made.
    epoch: Option<i64>,
    /// Whether the provider's name for them is kept already.
    known: bool,
}

impl Guest {
    /// Somebody who has an account.
    fn of(account: Account, known: bool) -> Result<Self, Error> {
        if account.status != AccountStatus::Active {
            return Err(Error::SsoMemberRefused(CLOSED));
        }
        Ok(Self { user: account.user, epoch: Some(account.session_epoch), known })
    }
}

impl App {
    /// Begins a sign-in.
    ///
    /// # Errors
    /// `SsoNotConfigured`, `FieldsInvalid` for a redirect address that is not the connection's, `SsoProviderUnavailable`.
    pub async fn begin_sso(
        &self,
        ctx: &Ctx,
        tenant: &TenantName,
        redirect_uri: &str,
        login_hint: &str,
    ) -> Result<SsoBegun, Error> {
        let tenant = self.plane.find(tenant, ctx.now).await?.ok_or(Error::SsoNotConfigured)?;
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
        };
        let registration = registration(&connection, None, redirect_uri);
        let authorization_url = self.oidc.begin(&registration, &with, ctx.now).await.map_err(failed)?;
        Ok(SsoBegun { authorization_url, binding_token: binding })
    }

    /// Ends a sign-in: whom the provider vouches for is let into this tenant, and into nothing else.
    ///
    /// # Errors
    /// `SsoStateInvalid`, `SsoNotConfigured`, `SsoProviderUnavailable`, `SsoRefused`, `SsoAddressRefused`,
    /// `SsoMemberRefused`, `SeatsExhausted`.
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
        let digest = sha256(state.nonce.as_bytes());
        let fresh = sso::use_state(&mut tx, &digest, state.expires_at, ctx.now).await?;
        if !fresh || connection.connection_id != state.connection {
            return Err(Error::SsoStateInvalid);
        }
        tx.commit_unaudited(ctx.now).await?;

        let registration = registration(&connection, secret.as_ref(), &state.redirect_uri);
        let (nonce, verifier) = (state.nonce.as_str(), Secret::new(state.verifier.clone()));
        let callback = Callback { code: &back.code, issuer: &back.issuer, nonce, verifier: &verifier };
        let identity = self.oidc.finish(&registration, &callback, ctx.now).await.map_err(failed)?;
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

    /// Lets somebody in whom the provider has named: as whom they are known, as a member, in a session of this tenant.
    async fn let_in(
        &self,
        ctx: &Ctx,
        (tenant, catalogue): (TenantId, &Catalogue),
        (connection, identity): (&SsoConnection, &Identity),
        back: &SsoCallback,
    ) -> Result<SsoDone, Error> {
        let guest = self.guest(ctx, tenant, connection, identity).await?;
        let user_id = guest.user.user_id;
        let mut tx = self.store.write(InTenantAsUser(tenant, user_id)).await?;
        let locked = self.lock_settled(&mut tx, ctx, catalogue).await?;
        // Asked again under the lock: a connection that was changed meanwhile said nothing about this person.
        let rule = sso::find_rule(&mut tx).await?;
        if locked.deleted_at.is_some() || rule.is_none_or(|rule| rule.connection_id != connection.connection_id) {
            return Err(Error::SsoStateInvalid);
        }
        if guest.epoch.is_none() {
            users::insert_without_password(&mut tx, &guest.user, ctx.now).await?;
            // The provider says so, of a domain that the tenant has proven.
            accounts::set_verified(&mut tx, ctx.now).await?;
            users::set_first_default_tenant(&mut tx, tenant, ctx.now).await?;
        }
        let joined = self.place(&mut tx, ctx, (&locked, catalogue), connection, identity).await?;
        if !guest.known {
            let name = (connection.terms.issuer.as_str(), identity.subject.as_str());
            sso::insert_identity(&mut tx, name, user_id, ctx.now).await?;
        }
        let sign_in = SignIn {
            user_id,
            proof: Proof { methods: vec![Method::Oidc], aal: 1, epoch: guest.epoch.unwrap_or(FIRST_EPOCH) },
            tenant: Some(tenant),
            bound_tenant: Some(tenant),
            connection: Some(connection.connection_id),
            remember: back.remember,
            terms: self.sessions.terms(back.remember),
            device: back.device.clone(),
        };
        let opened = match self.open_session(&mut tx, ctx, sign_in).await {
            Err(Error::CredentialInvalid) => return Err(Error::SsoMemberRefused(CLOSED)),
            opened => opened?,
        };
        let audit = Audit::of(user_id.0)
            .set("session_id", opened.session.session_id.to_string())
            .set("issuer", connection.terms.issuer.as_str());
        tx.commit(ctx, audit).await?;
        Ok(SsoDone { user: guest.user, tokens: self.tokens(opened, ctx.now)?, joined })
    }

    /// Who it is: whom the provider's name stands for already, else whose address it is.
    async fn guest(
        &self,
        ctx: &Ctx,
        tenant: TenantId,
        connection: &SsoConnection,
        identity: &Identity,
    ) -> Result<Guest, Error> {
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let known = sso::find_identity(&mut tx, &connection.terms.issuer, &identity.subject).await?;
        if let Some(user) = known {
            drop(tx);
            let account = self.store.find_account_by_id(user).await?.ok_or(Error::SsoMemberRefused(CLOSED))?;
            return Guest::of(account, true);
        }
        let email = vouched(&mut tx, connection, identity).await?;
        drop(tx);
        if let Some(account) = self.store.find_account(&email).await? {
            return Guest::of(account, false);
        }
        let called = identity.name.as_deref().and_then(|name| display_name(name).ok());
        let called = called.unwrap_or_else(|| email.as_str().to_owned());
        let user = User { user_id: UserId(ctx.new_id()), email, display_name: called };
        Ok(Guest { user, epoch: None, known: false })
    }

    /// Gives somebody their place in the tenant: the one that they have, in the role that their groups stand for, or a new
    /// one. Whether it is new.
    async fn place(
        &self,
        tx: &mut Scoped<InTenantAsUser>,
        ctx: &Ctx,
        (tenant, catalogue): (&crate::domain::tenant::Tenant, &Catalogue),
        connection: &SsoConnection,
        identity: &Identity,
    ) -> Result<bool, Error> {
        let InTenantAsUser(_, user_id) = *tx.scope();
        // Under the tenant's lock, so that no role is given that has just gone.
        let roles = together(catalogue, &roles::list(tx).await?);
        let terms = &connection.terms;
        let highest = roles.rank(&connection.highest_role);
        let held = groups(identity.claims.get(&terms.group_claim));
        let mapped = terms.role_of(&held, &roles).or_else(|| roles.get(&terms.default_role));
        // A role that is gone, or has risen above what the connection may give, is given to nobody.
        let wanted = mapped.filter(|role| role.rank <= highest && role.name != roles.top().name);
        match memberships::get(tx, user_id).await {
            Ok(member) if roles.rank_of(&member.roles) > highest => Err(Error::SsoMemberRefused(ABOVE)),
            Ok(member) => {
                let follows = terms.follows_groups() && !member.roles.contains(&roles.top().name);
                let wanted = wanted.filter(|_| follows).map(|role| RoleNames::one(role.name.clone()));
                if let Some(wanted) = wanted.filter(|wanted| *wanted != member.roles) {
                    follow_groups(tx, ctx, (member, wanted), &roles.top().name).await?;
                }
                Ok(false)
            }
            Err(Error::MemberNotFound) if memberships::was_ever(tx, user_id).await? => {
                Err(Error::SsoMemberRefused(REMOVED))
            }
            Err(Error::MemberNotFound) => {
                let role = wanted.ok_or(Error::SsoMemberRefused(NO_ROLE))?;
                let member = new_membership(ctx, user_id, RoleNames::one(role.name.clone()));
                memberships::insert(tx, &member, &roles.top().name).await?;
                // Who was invited as well holds one seat.
                if let Some(email) = identity.email.as_deref().and_then(|email| Email::parse(email).ok()) {
                    finish_pending(tx, (&email, user_id), ctx.now).await?;
                }
                check_seats(tx, catalogue, tenant, ctx.now).await?;
                let audit = Audit::of(user_id.0).set("roles", member.roles.texts()).set("status", "active");
                tx.note(&ctx.as_system("System/JoinBySso"), audit).await?;
                Ok(true)
            }
            Err(other) => Err(other),
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

/// Gives a member the role that their groups stand for today, in the place of those that they had. Owners are not asked about.
async fn follow_groups(
    tx: &mut Scoped<InTenantAsUser>,
    ctx: &Ctx,
    (before, wanted): (Membership, RoleNames),
    top: &RoleName,
) -> Result<(), Error> {
    let mut after = Membership { roles: wanted, ..before.clone() };
    memberships::update(tx, (&before, &mut after), top, ctx.now).await?;
    let audit = Audit::of(after.user_id.0).field("roles", before.roles.texts(), after.roles.texts());
    tx.note(&ctx.as_system("System/FollowGroups"), audit).await
}

// Why somebody is not let in, as the end of a sentence.
const CLOSED: &str = "the account is closed";
const ABOVE: &str = "your role is above the one of who connected the provider; sign in with your own credentials";
const REMOVED: &str = "you are no member any more; an administrator of the tenant can add you again";
const NO_ROLE: &str =
    "the role that it would give is not there any more; an administrator of the tenant can set another";

/// The address by which somebody is known for the first time: verified by the provider, and of a domain that the tenant has
/// proven to be its own. Without this a tenant's provider could claim anybody's.
async fn vouched(tx: &mut TenantTx, connection: &SsoConnection, identity: &Identity) -> Result<Email, Error> {
    let told = identity.email.as_deref().ok_or(Error::SsoAddressRefused("it says none"))?;
    let email = Email::parse(told).map_err(|_| Error::SsoAddressRefused("what it says is none"))?;
    if !identity.email_verified {
        return Err(Error::SsoAddressRefused("it has not verified it"));
    }
    let proven = domains::list(tx).await?.into_iter().filter(|domain| domain.status == DomainStatus::Verified);
    let proven: Vec<_> = proven.map(|domain| domain.domain).collect();
    if !connection.terms.vouches_for(&email, &proven) {
        return Err(Error::SsoAddressRefused("its domain is not one that the tenant has verified"));
    }
    Ok(email)
}

fn registration<'a>(
    connection: &'a SsoConnection,
    client_secret: Option<&'a Secret<String>>,
    redirect_uri: &'a str,
) -> Registration<'a> {
    let terms = &connection.terms;
    Registration { issuer: &terms.issuer, client_id: &terms.client_id, client_secret, redirect_uri }
}

fn failed(error: OidcError) -> Error {
    match error {
        OidcError::Unreachable(problem) => Error::SsoProviderUnavailable(problem),
        OidcError::Refused(problem) => Error::SsoRefused(problem),
    }
}
