//! Sign-up, sign-in, and the choice of the tenant to work in.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::App;
use super::mfa::Entered;
use super::mutation::{Begun, RequestKey};
use super::passwords::Comparison;
use super::sessions::{Opened, SignIn, Tokens};
use super::tenants::{first_subscription, new_tenant};
use super::throttle::{Attempted, Origin};
use crate::ctx::{Ctx, Needs, SignedIn};
use crate::decide::judge::judge;
use crate::decide::token::Minted;
use crate::domain::id::{TenantId, UserId, derived};
use crate::domain::link::Purpose;
use crate::domain::mail::{Message, Template};
use crate::domain::mfa::Challenge;
use crate::domain::name::{Email, Slug, TenantName};
use crate::domain::secret::{Secret, device_token, sha256};
use crate::domain::session::{Device, Proof, Session};
use crate::domain::tenant::Tenant;
use crate::domain::user::{AccountStatus, FIRST_EPOCH, User};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::scoped::RunsIn;
use crate::store::system::PasswordPolicy;
use crate::store::tx::{OfUser, Statement};
use crate::store::{AsUser, InTenantAsUser, Scope, Scoped, accounts, links, mfa, sessions, users};
use crate::time::Timestamp;

/// An account to be.
pub struct NewAccount {
    /// Its address.
    pub email: Email,
    /// Its password, which has passed the rules.
    pub password: Secret<String>,
    /// The person's name.
    pub display_name: String,
    /// A tenant to create with it: its name and slug.
    pub tenant: Option<(String, Slug)>,
    /// Whether the sign-in is to outlast the day.
    pub remember: bool,
    /// From where.
    pub device: Device,
}

/// A new account, signed in.
#[derive(Serialize, Deserialize)]
pub struct SignedUp {
    /// The person.
    pub user: User,
    /// The tenant, when one was asked for.
    pub tenant: Option<Tenant>,
    /// The sign-in.
    pub opened: Opened,
}

/// What somebody signs in with.
pub struct Credentials {
    /// The address.
    pub email: Email,
    /// The password.
    pub password: Secret<String>,
    /// What is to take its place, when it is right; has passed the rules.
    pub new_password: Option<Secret<String>>,
    /// The tenant to work in; the account's default when none.
    pub tenant: Option<TenantName>,
    /// What an earlier sign-in on the device was given; empty when nothing.
    pub device_token: String,
    /// Whether the sign-in is to outlast the day.
    pub remember: bool,
    /// From where.
    pub device: Device,
}

/// A sign-in that worked.
pub struct LoggedIn {
    /// The person.
    pub user: User,
    /// What proves it.
    pub tokens: Tokens,
    /// What tells this device next time.
    pub device_token: Secret<String>,
}

/// How a sign-in goes on whose password was right.
pub enum Login {
    /// It is complete.
    Done(Box<LoggedIn>),
    /// The second step is wanted, until then.
    Waits(Challenge, Timestamp),
}

impl App {
    /// Creates an account, with a tenant that it owns when asked, and signs in. Repeated with its `request_id` it gives
    /// the same account and session, with a token of its own.
    ///
    /// # Errors
    /// `EmailTaken`, `SlugTaken`, `RateExceeded`, `Overloaded`.
    pub async fn sign_up(
        &self,
        ctx: &Ctx,
        new: NewAccount,
        key: Option<RequestKey>,
    ) -> Result<(User, Option<Tenant>, Tokens), Error> {
        // Asked before the hash is paid for; counted with the account.
        self.look_at_rate(ctx, None).await?;
        let user_id = UserId(key.map_or_else(|| ctx.new_id(), |key| self.account_of_request(&key)));
        let user = User { user_id, email: new.email, display_name: new.display_name };
        // Before the transaction, which may not stay open for as long as a hash takes. A repetition pays for it again.
        let password_hash = self.passwords.hash(new.password.clone(), false).await?;
        let email = user.email.clone();
        let sign_in = SignIn {
            user_id,
            proof: Proof::password(FIRST_EPOCH),
            tenant: None,
            bound_tenant: None,
            connection: None,
            remember: new.remember,
            terms: self.sessions.terms(new.remember),
            device: new.device,
        };
        let account = (user, password_hash.as_str(), sign_in);
        let done = match new.tenant {
            None => self.sign_up_alone(ctx, account, None, key).await,
            Some(tenant) => self.sign_up_with_tenant(ctx, account, tenant, None, key).await,
        };
        // A hash was paid for: whatever came of it counts.
        let (done, repeated) = match done {
            Ok(done) => done,
            // The derived id is taken, not the address: the account of a request that is forgotten.
            Err(Error::EmailTaken) if self.store.find_account(&email).await?.is_none() => {
                return self.refuse_counted(ctx, None, Error::RequestIdReused).await;
            }
            Err(told @ (Error::EmailTaken | Error::SlugTaken | Error::RequestIdReused | Error::AnswerExpired)) => {
                return self.refuse_counted(ctx, None, told).await;
            }
            Err(other) => return Err(other),
        };
        if repeated {
            self.charge_alone(ctx, None).await?;
            self.prove_repetition(&done, new.password).await?;
        }
        Ok((done.user, done.tenant, self.tokens(done.opened, ctx.now)?))
    }

    /// Passwords are no part of what a repetition is compared by, and its answer is a sign-in: so the password must be the
    /// account's.
    async fn prove_repetition(&self, done: &SignedUp, password: Secret<String>) -> Result<(), Error> {
        let mut tx = self.store.read(AsUser(done.user.user_id)).await?;
        let stored = users::find_sign_in(&mut tx).await?.map(|row| row.password_hash);
        drop(tx);
        match self.passwords.compare(password, stored, false).await? {
            Comparison::Wrong => Err(Error::RequestIdReused),
            Comparison::Right | Comparison::RightButOld(_) => Ok(()),
        }
    }

    /// `link` is the one that the account waited for, when it did.
    pub(super) async fn sign_up_alone(
        &self,
        ctx: &Ctx,
        (user, password_hash, sign_in): (User, &str, SignIn),
        link: Option<[u8; 32]>,
        key: Option<RequestKey>,
    ) -> Result<(SignedUp, bool), Error> {
        let mut open = match self.begin(ctx, None, AsUser(user.user_id), key).await? {
            Begun::Done(first) => return Ok((first, true)),
            Begun::Open(open) => open,
        };
        users::insert(&mut open.tx, &user, password_hash, ctx.now).await?;
        take_sign_up_link(&mut open.tx, link, ctx.now).await?;
        let opened = self.open_session(&mut open.tx, ctx, sign_in).await?;
        let audit = Audit::of(user.user_id.0).set("email", user.email.as_str());
        Ok((self.finish_secret(open, ctx, audit, SignedUp { user, tenant: None, opened }).await?, false))
    }

    pub(super) async fn sign_up_with_tenant(
        &self,
        ctx: &Ctx,
        (user, password_hash, sign_in): (User, &str, SignIn),
        (display_name, slug): (String, Slug),
        link: Option<[u8; 32]>,
        key: Option<RequestKey>,
    ) -> Result<(SignedUp, bool), Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let subscription = first_subscription(ctx, &catalogue, "")?;
        let tenant_id = TenantId(ctx.new_id());
        let mut open = match self.begin(ctx, None, InTenantAsUser(tenant_id, user.user_id), key).await? {
            Begun::Done(first) => return Ok((first, true)),
            Begun::Open(open) => open,
        };
        users::insert(&mut open.tx, &user, password_hash, ctx.now).await?;
        take_sign_up_link(&mut open.tx, link, ctx.now).await?;
        let tenant = new_tenant(ctx, tenant_id, (display_name, slug), subscription);
        self.insert_owned(&mut open.tx, ctx, &catalogue, (&tenant, user.user_id)).await?;
        users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
        let sign_in = SignIn { tenant: Some(tenant_id), ..sign_in };
        let opened = self.open_session(&mut open.tx, ctx, sign_in).await?;
        let audit = Audit::of(user.user_id.0)
            .set("email", user.email.as_str())
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str());
        Ok((self.finish_secret(open, ctx, audit, SignedUp { user, tenant: Some(tenant), opened }).await?, false))
    }

    /// The id of the account that a sign-up with this `request_id` makes. Derived, so that a repetition speaks of the same
    /// account before anybody is signed in.
    pub(super) fn account_of_request(&self, key: &RequestKey) -> uuid::Uuid {
        derived(&self.master.mac("sign-up", &[key.request_id.as_bytes()]))
    }

    /// Signs in with e-mail and password, as far as the account's second step. Costs one comparison on every path.
    ///
    /// # Errors
    /// `PasswordWrong` for everything that is wrong with address or password, `TooManyAttempts`, `PasswordExpired`,
    /// `TenantNotFound` for a tenant that is not the person's, `Overloaded`, `FieldsInvalid` for a new password where there is
    /// a second step.
    pub async fn login(&self, ctx: &Ctx, with: Credentials) -> Result<Login, Error> {
        let account = self.store.find_account(&with.email).await?.filter(|a| a.status == AccountStatus::Active);
        let digest = sha256(with.device_token.as_bytes());
        // Nobody's id where there is no account: the same look-ups, finding nothing.
        let user_id = account.as_ref().map_or_else(|| UserId(ctx.new_id()), |a| a.user.user_id);
        let mut tx = self.store.read(AsUser(user_id)).await?;
        let known = users::knows_device(&mut tx, &digest).await?;
        let stored = users::find_sign_in(&mut tx).await?;
        drop(tx);
        let policy = self.password_policy(user_id).await?;
        let origin = if known { Origin::Device(&digest) } else { Origin::Network(ctx.source) };
        let strict = self.attempts.tightened(policy.attempts);
        // Elsewhere a bound of the account's own would tell that there is one: beyond it every password is wrong.
        let limits = if known { strict } else { self.attempts };
        let attempt = self.take_attempt(Attempted::Password, (&with.email, origin), limits, ctx.now).await?;
        let hash = stored.as_ref().filter(|_| attempt.is_within(strict)).map(|row| row.password_hash.clone());
        let comparison = match self.passwords.compare(with.password, hash, known).await {
            // Nothing was tried.
            Err(Error::Overloaded) => {
                self.take_back(&attempt, ctx.now).await?;
                return Err(Error::Overloaded);
            }
            comparison => comparison?,
        };
        let (Some(account), Some(stored)) = (account, stored) else { return Err(Error::PasswordWrong) };
        if comparison == Comparison::Wrong {
            return Err(Error::PasswordWrong);
        }
        self.forgive(&attempt, ctx.now).await?;
        let expired = policy.lifetime.is_some_and(|lifetime| stored.changed_at.after(lifetime) <= ctx.now);
        if expired && with.new_password.is_none() {
            return Err(Error::PasswordExpired);
        }
        if stored.email_verified_at.is_some() {
            self.auto_join(ctx, &account.user).await;
        }
        let tenant = self.tenant_at_sign_in(user_id, account.default_tenant, with.tenant.as_ref(), ctx.now).await?;
        let new_hash = match with.new_password {
            Some(new) => Some(self.passwords.hash(new, true).await?),
            None => None,
        };
        let sign_in = SignIn {
            user_id,
            // A changed password ends the sessions of before.
            proof: Proof::password(stored.session_epoch + i64::from(new_hash.is_some())),
            tenant,
            bound_tenant: None,
            connection: None,
            remember: with.remember,
            terms: self.sessions.terms(with.remember),
            device: with.device.clone(),
        };

        let mut tx = self.store.write(AsUser(user_id)).await?;
        if let Some(hash) = &new_hash {
            // One step alone changes no credential of an account that has two.
            if mfa::find(&mut tx).await?.is_some_and(|row| row.confirmed_at.is_some()) {
                return Err(Error::field(
                    "new_password",
                    "is not taken where there is a second step; reset it by mail",
                ));
            }
            if sessions::lock_account(&mut tx).await? != Some(stored.session_epoch) {
                return Err(Error::PasswordWrong);
            }
            self.replace_password(&mut tx, ctx, (&account.user.email, hash), None).await?;
        }
        let entered = match self.enter(&mut tx, ctx, sign_in).await {
            // The password that was compared is the account's no more.
            Err(Error::CredentialInvalid) => return Err(Error::PasswordWrong),
            entered => entered?,
        };
        if let (Comparison::RightButOld(hash), None) = (&comparison, &new_hash) {
            users::rehash(&mut tx, &stored.password_hash, hash, ctx.now).await?;
        }
        let opened = match entered {
            Entered::Open(opened) => *opened,
            Entered::Waits(challenge, until) => {
                tx.commit(ctx, Audit::of(user_id.0).set("waits", "mfa")).await?;
                return Ok(Login::Waits(challenge, until));
            }
        };
        let from = (&with.device, with.device_token.as_str(), known);
        let device_token = self.keep_device(&mut tx, ctx, &account.user, from).await?;
        let audit = Audit::of(user_id.0).set("session_id", opened.session.session_id.to_string());
        tx.commit(ctx, audit).await?;
        let tokens = self.tokens(opened, ctx.now)?;
        Ok(Login::Done(Box::new(LoggedIn { user: account.user, tokens, device_token })))
    }

    /// Keeps the device of a sign-in that is complete, and tells the person of one that was not known; what tells it next
    /// time.
    pub(super) async fn keep_device(
        &self,
        tx: &mut Scoped<AsUser>,
        ctx: &Ctx,
        user: &User,
        (device, token, known): (&Device, &str, bool),
    ) -> Result<Secret<String>, Error> {
        // The first sign-in after a sign-up is no news.
        if !known && users::count_devices(tx).await? > 0 {
            self.post(tx, new_sign_in(ctx, user, device), ctx.now).await?;
        }
        let token = if known { Secret::new(token.to_owned()) } else { device_token() };
        users::keep_device(tx, &sha256(token.expose().as_bytes()), ctx.now).await?;
        Ok(token)
    }

    /// What the tenants of a person ask of their password.
    pub(super) async fn password_policy(&self, user: UserId) -> Result<PasswordPolicy, Error> {
        self.store.find_password_policy(user, &self.plane.catalogues.seen().definition.settings.security).await
    }

    async fn tenant_at_sign_in(
        &self,
        user: UserId,
        own: Option<TenantId>,
        named: Option<&TenantName>,
        now: Timestamp,
    ) -> Result<Option<TenantId>, Error> {
        let Some(named) = named else {
            return self.plane.fallback(user, own, self.default_tenant.as_ref(), now).await;
        };
        let tenant = self.plane.look_at_rows().find(named, now).await?.ok_or(Error::TenantNotFound)?;
        let member = self.store.find_membership(tenant, user).await?.found;
        let there = self.store.find_tenant(tenant).await?.is_some_and(|(tenant, _)| !tenant.is_purged(now));
        member.filter(|_| there).map(|_| Some(tenant)).ok_or(Error::TenantNotFound)
    }

    /// Gives the person a token for another of their tenants, and makes it the session's, on request for their next ones
    /// too.
    ///
    /// # Errors
    /// `TenantNotFound`, `MemberSuspended`, `TenantSuspended`, `TenantDeleted`.
    pub async fn switch_tenant(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        (to, keep_as_default): (&TenantName, bool),
        key: Option<RequestKey>,
    ) -> Result<(Session, Minted), Error> {
        let tenant = self.plane.look_at_rows().find(to, ctx.now).await?.ok_or(Error::TenantNotFound)?;
        let standing = self.plane.look_at_rows().standing(tenant, &ctx.caller, ctx.now).await?;
        if let Some(reason) = judge(&standing, &ctx.caller, &Needs::default(), ctx.now).into_iter().next() {
            return Err(reason);
        }
        let user_id = person.user.user_id;
        let session: Session = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(first) => first,
            Begun::Open(mut open) => {
                let session = Session { active_tenant: Some(tenant), ..person.session.clone() };
                sessions::set_active_tenant(&mut open.tx, session.session_id, tenant).await?;
                let mut audit = Audit::of(session.session_id.0).set("active_tenant", tenant.to_string());
                if keep_as_default {
                    users::set_default_tenant(&mut open.tx, tenant, ctx.now).await?;
                    let before = person.default_tenant.map(|before| before.to_string());
                    audit = audit.field("default_tenant", before, tenant.to_string());
                }
                self.finish(open, ctx, audit, session).await?
            }
        };
        if session.session_id != person.session.session_id {
            return Err(Error::RequestIdReused);
        }
        // The new token is as old a proof as the one it was exchanged for, and ends with it: a token cannot be kept alive
        // by exchanging it.
        let proof = Session { auth_time: person.auth_time, ..session.clone() };
        let token = self.plane.tokens.mint(&proof, Some(tenant), ctx.now, Some(person.token_expires_at))?;
        Ok((session, token))
    }
}

/// The letter to a person who, or in whose name somebody, has signed in on a device that was not known; one a day for the
/// same device and address.
fn new_sign_in(ctx: &Ctx, user: &User, device: &Device) -> Message {
    let name = if device.display_name.is_empty() { &device.user_agent } else { &device.display_name };
    let source = ctx.source.map(|ip| ip.to_string());
    Message {
        template: Template::NewSignIn,
        recipient: user.email.clone(),
        about: format!("{} {source:?} {name}", ctx.now.utc().date_naive()),
        payload: json!({ "at": ctx.now.to_string(), "device": name, "source": source }),
        secret: None,
    }
}

/// Uses up the link that an account waited for, which proves its address.
async fn take_sign_up_link<S: Scope>(tx: &mut Scoped<S>, link: Option<[u8; 32]>, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let Some(digest) = link else { return Ok(()) };
    let taken: Option<serde_json::Value> = links::take(tx, (Purpose::SignUp, &digest), now).await?;
    taken.ok_or(Error::LinkInvalid)?;
    accounts::set_verified(tx, now).await
}
