//! Passwords of people who have an account, changed by themselves. Those that are forgotten are `links.rs`.

use super::App;
use super::links::letter;
use super::mutation::{Begun, RequestKey};
use super::passwords::Comparison;
use super::throttle::{Attempted, Origin};
use crate::ctx::{Ctx, SignedIn};
use crate::domain::id::SessionId;
use crate::domain::mail::Template;
use crate::domain::name::Email;
use crate::domain::secret::Secret;
use crate::domain::session::RECENT_LOGIN;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::scoped::RunsIn;
use crate::store::tx::{OfUser, Statement};
use crate::store::{AsUser, Scope, Scoped, accounts, links, sessions, users};

impl App {
    /// Gives the caller another password and ends all their other sessions. Who they are is proven by the old one or, when
    /// it is not given, by a recent sign-in.
    ///
    /// # Errors
    /// `PasswordWrong`, `TooManyAttempts`, `RecentLoginRequired`, `Overloaded`, `CredentialInvalid` when the session ended
    /// meanwhile.
    pub async fn change_password(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        (old, new): (Option<Secret<String>>, Secret<String>),
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let user_id = person.user.user_id;
        // The old password of a repetition is the account's no more.
        if key.is_some()
            && let Begun::Done(()) = self.begin(ctx, None, AsUser(user_id), key).await?
        {
            return Ok(());
        }
        self.prove_again(ctx, person, old).await?;
        let hash = self.passwords.hash(new, false).await?;
        let mut open = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        // What was proven was proven to this epoch.
        if sessions::lock_account(&mut open.tx).await? != Some(person.session.epoch) {
            return Err(Error::CredentialInvalid);
        }
        let session = Some(person.session.session_id);
        self.replace_password(&mut open.tx, ctx, (&person.user.email, &hash), session).await?;
        self.finish(open, ctx, Audit::of(user_id.0).set("password", "changed"), ()).await
    }

    /// Whether the person behind a session is there: by their password, or else by a sign-in of the last minutes.
    pub(super) async fn prove_again(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        password: Option<Secret<String>>,
    ) -> Result<(), Error> {
        if let Some(password) = password {
            return self.prove_password(ctx, person, password).await.map(|_| ());
        }
        let recent = person.auth_time.after(RECENT_LOGIN) >= ctx.now;
        if recent { Ok(()) } else { Err(Error::RecentLoginRequired) }
    }

    /// Whether this is the password of the person behind a session; the account's epoch, read together with it. Guesses
    /// count as those at sign-in do.
    pub(super) async fn prove_password(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        password: Secret<String>,
    ) -> Result<i64, Error> {
        let user_id = person.user.user_id;
        let policy = self.password_policy(user_id).await?;
        let limits = self.attempts.tightened(policy.attempts);
        let who = (&person.user.email, Origin::Network(ctx.source));
        let attempt = self.take_attempt(Attempted::Password, who, limits, ctx.now).await?;
        let mut tx = self.store.read(AsUser(user_id)).await?;
        let stored = users::find_sign_in(&mut tx).await?;
        drop(tx);
        let epoch = stored.as_ref().map_or(person.session.epoch, |row| row.session_epoch);
        match self.passwords.compare(password, stored.map(|row| row.password_hash), true).await {
            Ok(Comparison::Right | Comparison::RightButOld(_)) => self.forgive(&attempt, ctx.now).await.map(|()| epoch),
            Ok(Comparison::Wrong) => Err(Error::PasswordWrong),
            Err(error) => {
                self.take_back(&attempt, ctx.now).await?;
                Err(error)
            }
        }
    }

    /// Puts another password in the place of the account's, ends its sessions but one, voids its links, and tells the
    /// person. Under the account's lock.
    pub(super) async fn replace_password<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        (email, hash): (&Email, &str),
        but: Option<SessionId>,
    ) -> Result<(), Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        accounts::put_password(tx, hash, ctx.now).await?;
        links::void(tx).await?;
        let epoch = accounts::end_sessions(tx, ctx.now).await?;
        if let Some(session) = but
            && !accounts::carry_session(tx, session, epoch).await?
        {
            return Err(Error::CredentialInvalid);
        }
        let payload = serde_json::json!({ "at": ctx.now.to_string() });
        self.post(tx, letter((Template::PasswordChanged, email), payload, ctx), ctx.now).await.map(|_| ())
    }
}
