//! What opens by a link in a mail: a new password, the proof of an address, another address. Whoever has no account is
//! answered, counted and written down alike; only the letter is missing.

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use super::throttle::{Attempted, MAIL_LIMITS, Origin};
use crate::ctx::{Ctx, SignedIn};
use crate::domain::id::{SessionId, UserId};
use crate::domain::link::{self, Link, Purpose};
use crate::domain::mail::{Message, Template};
use crate::domain::name::Email;
use crate::domain::password;
use crate::domain::secret::Secret;
use crate::domain::user::{AccountStatus, User};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::scoped::RunsIn;
use crate::store::tx::{OfUser, Statement};
use crate::store::{AsUser, Scope, Scoped, accounts, links, sessions};

/// What a link is about that proves an address.
#[derive(Serialize, Deserialize)]
struct Address {
    email: Email,
    /// The session that asked for another address; it goes on when the address changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_id: Option<SessionId>,
}

impl App {
    /// Sends a link to set a new password by, if the address has an account.
    ///
    /// # Errors
    /// `TooManyAttempts`.
    pub async fn request_password_reset(&self, ctx: &Ctx, email: &Email) -> Result<(), Error> {
        let account = self.store.find_account(email).await?.filter(|a| a.status == AccountStatus::Active);
        self.take_attempt(Attempted::Mail, (email, Origin::Network(ctx.source)), MAIL_LIMITS, ctx.now).await?;
        // Nobody's id where there is no account: the same rows, which nobody ever finds.
        let user_id = account.as_ref().map_or_else(|| UserId(ctx.new_id()), |account| account.user.user_id);
        let mut tx = self.store.write(AsUser(user_id)).await?;
        let (link, token) = Link::new(Purpose::Reset, serde_json::json!({}), ctx.now);
        self.put_link(&mut tx, user_id, &link, ctx).await?;
        let audit = match account {
            Some(_) => {
                self.post_link(&mut tx, ctx, (Template::PasswordReset, email), (&link, Some(token))).await?;
                Audit::of(user_id.0)
            }
            None => Audit::default(),
        };
        tx.commit(ctx, audit).await
    }

    /// Sets a new password by a link, and ends all sessions. Signs nobody in.
    ///
    /// # Errors
    /// `LinkInvalid`, `FieldsInvalid` for a password that is guessed first, `Overloaded`.
    pub async fn reset_password(&self, ctx: &Ctx, token: &str, new: Secret<String>) -> Result<(), Error> {
        let digest = link::digest(token).ok_or(Error::LinkInvalid)?;
        // Looked up before the hash is paid for, and taken with the password.
        let user_id = self.store.find_link(Purpose::Reset, &digest, ctx.now).await?.ok_or(Error::LinkInvalid)?;
        let user = self.store.find_user(user_id).await?.ok_or(Error::LinkInvalid)?;
        let context = [user.email.as_str(), user.display_name.as_str()];
        password::check(new.expose(), &context).map_err(|problem| Error::field("new_password", problem))?;
        let hash = self.passwords.hash(new, true).await?;
        let mut tx = self.store.write(AsUser(user_id)).await?;
        sessions::lock_account(&mut tx).await?.ok_or(Error::LinkInvalid)?;
        let body: Option<serde_json::Value> = links::take(&mut tx, (Purpose::Reset, &digest), ctx.now).await?;
        body.ok_or(Error::LinkInvalid)?;
        self.replace_password(&mut tx, ctx, (&user.email, &hash), None).await?;
        // Whoever set it has read the mail.
        accounts::set_verified(&mut tx, ctx.now).await?;
        tx.commit(ctx, Audit::of(user_id.0).set("password", "reset")).await
    }

    /// Sends a link that proves the caller's address.
    ///
    /// # Errors
    /// `WrongState` when it is proven, `TooManyAttempts`.
    pub async fn request_email_verification(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let (user_id, email) = (person.user.user_id, &person.user.email);
        // A repetition asks for nothing.
        if key.is_some()
            && let Begun::Done(()) = self.begin(ctx, None, AsUser(user_id), key).await?
        {
            return Ok(());
        }
        if self.get_account(person).await?.email_verified_at.is_some() {
            return Err(Error::WrongState { state: "verified", wanted: "an address that is not proven yet" });
        }
        self.take_attempt(Attempted::Mail, (email, Origin::Network(ctx.source)), MAIL_LIMITS, ctx.now).await?;
        let mut open = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        let address = Address { email: email.clone(), session_id: None };
        let (link, token) = Link::new(Purpose::Verification, body(&address)?, ctx.now);
        self.put_link(&mut open.tx, user_id, &link, ctx).await?;
        self.post_link(&mut open.tx, ctx, (Template::EmailVerification, email), (&link, Some(token))).await?;
        self.finish(open, ctx, Audit::of(user_id.0), ()).await
    }

    /// Sends a link to another address, by which it becomes the account's; and tells the address of now. An address that
    /// another account has gets a letter that says so, and no link.
    ///
    /// # Errors
    /// `PasswordWrong`, `TooManyAttempts`, `RecentLoginRequired`.
    pub async fn change_email(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        (new, password): (&Email, Option<Secret<String>>),
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let user_id = person.user.user_id;
        // A repetition asks for nothing.
        if key.is_some()
            && let Begun::Done(()) = self.begin(ctx, None, AsUser(user_id), key).await?
        {
            return Ok(());
        }
        self.prove_again(ctx, person, password).await?;
        self.take_attempt(Attempted::Mail, (new, Origin::Network(ctx.source)), MAIL_LIMITS, ctx.now).await?;
        let exists = self.store.find_account(new).await?.is_some();
        let mut open = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        if sessions::lock_account(&mut open.tx).await? != Some(person.session.epoch) {
            return Err(Error::CredentialInvalid);
        }
        let address = Address { email: new.clone(), session_id: Some(person.session.session_id) };
        let (link, token) = Link::new(Purpose::EmailChange, body(&address)?, ctx.now);
        self.put_link(&mut open.tx, user_id, &link, ctx).await?;
        let (template, token) =
            if exists { (Template::SignUpExists, None) } else { (Template::EmailVerification, Some(token)) };
        self.post_link(&mut open.tx, ctx, (template, new), (&link, token)).await?;
        let told = (Template::EmailChangeRequested, &person.user.email);
        let payload = serde_json::json!({ "at": ctx.now.to_string(), "email": new.as_str() });
        self.post(&mut open.tx, letter(told, payload, ctx), ctx.now).await?;
        self.finish(open, ctx, Audit::of(user_id.0).set("email_asked", new.as_str()), ()).await
    }

    /// Proves an address by a link; for an account that asked for another address, it becomes the account's, and all
    /// sessions end but the one that asked.
    ///
    /// # Errors
    /// `LinkInvalid`, `EmailTaken` when another account has it by now.
    pub async fn verify_email(&self, ctx: &Ctx, token: &str) -> Result<User, Error> {
        let digest = link::digest(token).ok_or(Error::LinkInvalid)?;
        for purpose in [Purpose::Verification, Purpose::EmailChange] {
            let Some(user_id) = self.store.find_link(purpose, &digest, ctx.now).await? else { continue };
            let user = self.store.find_user(user_id).await?.ok_or(Error::LinkInvalid)?;
            let mut tx = self.store.write(AsUser(user_id)).await?;
            sessions::lock_account(&mut tx).await?.ok_or(Error::LinkInvalid)?;
            let address: Option<Address> = links::take(&mut tx, (purpose, &digest), ctx.now).await?;
            let address = address.ok_or(Error::LinkInvalid)?;
            if purpose == Purpose::Verification {
                if address.email != user.email {
                    return Err(Error::LinkInvalid);
                }
                accounts::set_verified(&mut tx, ctx.now).await?;
                tx.commit(ctx, Audit::of(user_id.0).field("email_verified", false, true)).await?;
                self.auto_join(ctx, &user).await;
                return Ok(user);
            }
            let user = self.take_email(tx, ctx, user, address).await?;
            self.auto_join(ctx, &user).await;
            return Ok(user);
        }
        Err(Error::LinkInvalid)
    }

    async fn take_email(&self, mut tx: Scoped<AsUser>, ctx: &Ctx, user: User, address: Address) -> Result<User, Error> {
        accounts::set_email(&mut tx, &address.email, ctx.now).await?;
        // What was sent to the address of before opens nothing any more.
        links::void(&mut tx).await?;
        let epoch = accounts::end_sessions(&mut tx, ctx.now).await?;
        if let Some(session) = address.session_id {
            accounts::carry_session(&mut tx, session, epoch).await?;
        }
        let payload = serde_json::json!({ "at": ctx.now.to_string(), "email": address.email.as_str() });
        for told in [&user.email, &address.email] {
            self.post(&mut tx, letter((Template::EmailChanged, told), payload.clone(), ctx), ctx.now).await?;
        }
        let audit = Audit::of(user.user_id.0).field("email", user.email.as_str(), address.email.as_str());
        tx.commit(ctx, audit).await?;
        Ok(User { email: address.email, ..user })
    }

    /// Writes a link down, and when it is to be cleared away.
    pub(super) async fn put_link<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        user: UserId,
        link: &Link,
        ctx: &Ctx,
    ) -> Result<(), Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        links::put(tx, link, ctx.now).await?;
        jobs::schedule(tx, JobKind::Link, user.0, Some(link.expires_at)).await
    }

    /// Posts the letter of a link.
    pub(super) async fn post_link<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        to: (Template, &Email),
        (link, token): (&Link, Option<Secret<String>>),
    ) -> Result<(), Error> {
        let payload = serde_json::json!({ "expires_at": link.expires_at.to_string() });
        let message = Message { secret: token, ..letter(to, payload, ctx) };
        self.post(tx, message, ctx.now).await.map(|_| ())
    }

    /// Clears away links that are over.
    pub(super) async fn forget_links(&self, job: &Claimed) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.store.write(AsUser(UserId(job.subject))).await?;
        let again = links::delete_expired(&mut tx, now).await?;
        jobs::finish(&mut tx, job, again).await?;
        tx.commit_unaudited(now).await
    }
}

fn body(about: &impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(about).map_err(|e| Error::Internal(e.to_string().into()))
}

/// A letter about this call: each call writes its own.
pub(super) fn letter((template, to): (Template, &Email), payload: serde_json::Value, ctx: &Ctx) -> Message {
    Message { template, recipient: to.clone(), payload, secret: None, about: ctx.request_id.to_string() }
}
