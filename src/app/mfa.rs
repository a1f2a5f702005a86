//! The second step of a sign-in: set up, asked for, taken away. A code works once, whoever sends it how often at once: the
//! guarded update that uses it up is in the transaction of what it allows. Attempts are counted before they are looked at.

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use super::sessions::{Opened, SignIn, Tokens};
use super::sign_in::LoggedIn;
use crate::ctx::{Ctx, SignedIn, TenantCtx};
use crate::domain::id::UserId;
use crate::domain::mail::{Message, Template};
use crate::domain::mfa::{Authenticator, CHALLENGE_LIFETIME, CODE_RATE, Challenge, recovery_codes, recovery_digest};
use crate::domain::name::Email;
use crate::domain::secret::{Secret, hex, sealed, sha256};
use crate::domain::session::{Device, Method, Proof, SessionKind};
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::mfa::{self, TotpRow, Waiting};
use crate::store::tx::{OfUser, Statement};
use crate::store::{
    AsUser, InTenantAsUser, OnPlatform, Scope, Scoped, memberships, rates, scoped::RunsIn, sessions, users,
};
use crate::time::Timestamp;

/// Under which name codes that are tried are counted.
const CODES: &str = "mfa codes";

/// What somebody sends as the second step.
pub enum Code {
    /// Of the authenticator.
    Totp(Secret<String>),
    /// One of the recovery codes.
    Recovery(Secret<String>),
}

/// An authenticator that is being set up, as it is shown.
pub struct Enrollment {
    /// The secret, to be typed.
    pub secret: Secret<String>,
    /// The same as a URI.
    pub uri: Secret<String>,
    /// The URI as a picture, PNG.
    pub qr: Secret<Vec<u8>>,
}

/// A secret as it is kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(with = "sealed")]
    text: Secret<String>,
}

/// How a sign-in goes on whose first step is done.
pub enum Entered {
    /// It is complete.
    Open(Box<Opened>),
    /// The second step is wanted, until then.
    Waits(Challenge, Timestamp),
}

/// Where a person stands.
pub struct MfaStatus {
    /// Since when a second step is asked for; none when it is not.
    pub since: Option<Timestamp>,
    /// How many recovery codes are left.
    pub codes_left: i64,
}

impl App {
    /// Goes on with a sign-in in its transaction: a session, or, when the account has a second step that was not taken, the
    /// token that waits for it. The end of every sign-in but those that took it.
    ///
    /// # Errors
    /// As `open_session`.
    pub async fn enter<S: Scope>(&self, tx: &mut Scoped<S>, ctx: &Ctx, sign_in: SignIn) -> Result<Entered, Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        let asked = mfa::find(tx).await?.is_some_and(|row| row.confirmed_at.is_some());
        if !asked || sign_in.proof.aal > 1 {
            return self.open_session(tx, ctx, sign_in).await.map(|opened| Entered::Open(Box::new(opened)));
        }
        if sessions::lock_account(tx).await? != Some(sign_in.proof.epoch) {
            return Err(Error::CredentialInvalid);
        }
        let challenge = Challenge::generate(&self.master, sign_in.user_id);
        let until = ctx.now.after(CHALLENGE_LIFETIME);
        let waiting = Waiting {
            epoch: sign_in.proof.epoch,
            methods: sign_in.proof.methods,
            tenant: sign_in.tenant,
            bound_tenant: sign_in.bound_tenant,
            remember: sign_in.remember,
            device: sign_in.device,
        };
        mfa::insert_challenge(tx, &challenge.digest(), &waiting, (ctx.now, until)).await?;
        Ok(Entered::Waits(challenge, until))
    }

    /// Takes the second step of a sign-in. Codes on a known device are counted by themselves: who has the password uses up
    /// the others.
    ///
    /// # Errors
    /// `MfaChallengeInvalid` for whatever is wrong with the token, `MfaCodeWrong`, `RateExceeded`.
    pub async fn complete_mfa(&self, ctx: &Ctx, token: &str, code: &Code, device: &str) -> Result<LoggedIn, Error> {
        let challenge = Challenge::parse(&self.master, token).ok_or(Error::MfaChallengeInvalid)?;
        let (user_id, digest) = (challenge.user_id, challenge.digest());
        let user = self.store.find_user(user_id).await?.ok_or(Error::MfaChallengeInvalid)?;
        let mut tx = self.store.write(AsUser(user_id)).await?;
        let waiting = mfa::try_challenge(&mut tx, &digest, ctx.now).await?.ok_or(Error::MfaChallengeInvalid)?;
        let device_digest = sha256(device.as_bytes());
        let known = users::knows_device(&mut tx, &device_digest).await?;
        let counted =
            if known { format!("device:{user_id}:{}", hex(&device_digest)) } else { format!("user:{user_id}") };
        charge_code(&mut tx, &counted, code, ctx.now).await?;
        tx.commit_unaudited(ctx.now).await?;

        let mut tx = self.store.write(AsUser(user_id)).await?;
        if sessions::lock_account(&mut tx).await? != Some(waiting.epoch) {
            return Err(Error::MfaChallengeInvalid);
        }
        let method = match self.use_code(&mut tx, (user_id, &user.email), code, ctx.now).await {
            Err(Error::MfaCodeWrong) => {
                drop(tx);
                return self.refuse_code(ctx, user_id).await;
            }
            method => method?,
        };
        if !mfa::use_challenge(&mut tx, &digest, ctx.now).await? {
            return Err(Error::MfaChallengeInvalid);
        }
        // After the challenge, as where it was counted.
        rates::uncount(&mut tx, (CODES, &counted), ctx.now).await?;
        let methods = waiting.methods.into_iter().chain([method]).collect();
        let sign_in = SignIn {
            user_id,
            proof: Proof { methods, aal: 2, ..Proof::password(waiting.epoch) },
            tenant: waiting.tenant,
            bound_tenant: waiting.bound_tenant,
            connection: None,
            remember: waiting.remember,
            terms: self.sessions.terms(waiting.remember),
            device: waiting.device.clone(),
        };
        let opened = self.open_session(&mut tx, ctx, sign_in).await?;
        let device_token = self.keep_device(&mut tx, ctx, &user, (&waiting.device, device, known)).await?;
        let audit = Audit::of(user_id.0)
            .set("session_id", opened.session.session_id.to_string())
            .set("method", method.as_str());
        tx.commit(ctx, audit).await?;
        Ok(LoggedIn { user, tokens: self.tokens(opened, ctx.now)?, device_token })
    }

    /// A wrong code after a right password is worth a line in the log.
    async fn refuse_code<T>(&self, ctx: &Ctx, user_id: UserId) -> Result<T, Error> {
        let tx = self.store.write(AsUser(user_id)).await?;
        tx.commit(ctx, Audit::of(user_id.0).set("denied", "code")).await?;
        Err(Error::MfaCodeWrong)
    }

    /// Proves once more who the caller is: a new session in the place of theirs, with the assurance of today.
    ///
    /// # Errors
    /// `PasswordWrong`, `TooManyAttempts`, `MfaCodeWrong` (also when a code is wanted and none was sent), `RateExceeded`,
    /// `Overloaded`, `CredentialInvalid` when the session ended meanwhile.
    pub async fn reauthenticate(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        password: Secret<String>,
        code: Option<&Code>,
        device: Device,
    ) -> Result<Tokens, Error> {
        let user_id = person.user.user_id;
        if person.session.kind != SessionKind::SignIn {
            return Err(Error::CallerKindRefused("impersonated"));
        }
        let epoch = self.prove_password(ctx, person, password).await?;
        if let Some(code) = code {
            self.charge_session(person, code, ctx.now).await?;
        }
        let mut tx = self.store.write(AsUser(user_id)).await?;
        if sessions::lock_account(&mut tx).await? != Some(epoch) {
            return Err(Error::PasswordWrong);
        }
        let mut proof = Proof::password(epoch);
        if mfa::find(&mut tx).await?.is_some_and(|row| row.confirmed_at.is_some()) {
            let code = code.ok_or(Error::MfaCodeWrong)?;
            proof.methods.push(self.use_code(&mut tx, (user_id, &person.user.email), code, ctx.now).await?);
            proof.aal = 2;
            rates::uncount(&mut tx, (CODES, &of_session(person)), ctx.now).await?;
        }
        let sign_in = SignIn {
            user_id,
            proof,
            tenant: person.session.active_tenant,
            bound_tenant: person.session.bound_tenant,
            connection: person.session.connection,
            remember: person.session.remember,
            terms: self.sessions.terms(person.session.remember),
            device,
        };
        // First, or it would count, and another one end in its place.
        let before = person.session.session_id;
        if !sessions::revoke(&mut tx, before, "replaced", ctx.now).await? {
            return Err(Error::CredentialInvalid);
        }
        let opened = self.open_session(&mut tx, ctx, sign_in).await?;
        let after = opened.session.session_id;
        tx.commit(ctx, Audit::of(user_id.0).field("session_id", before.to_string(), after.to_string())).await?;
        self.tokens(opened, ctx.now)
    }

    /// Begins to set an authenticator up, in the place of one that was not confirmed.
    ///
    /// # Errors
    /// `WrongState` when one is in use, `AnswerExpired`.
    pub async fn begin_totp(&self, ctx: &Ctx, person: &SignedIn, key: Option<RequestKey>) -> Result<Enrollment, Error> {
        let user = &person.user;
        let mut open = match self.begin::<Kept, _>(ctx, None, AsUser(user.user_id), key).await? {
            Begun::Done(first) => return self.enrollment(&first.text, &user.email),
            Begun::Open(open) => open,
        };
        let new = Authenticator::generate(self.letters.platform(), &user.email);
        let sealed = self.master.seal(&[b"totp"], user.user_id.0.as_bytes(), new.secret().expose());
        if !mfa::begin(&mut open.tx, &sealed, ctx.now).await? {
            return Err(Error::WrongState {
                state: "on",
                wanted: "an account without a second step: DisableMfa first",
            });
        }
        let audit = Audit::of(user.user_id.0).set("totp", "begun");
        let kept = self.finish_secret(open, ctx, audit, Kept { text: new.base32() }).await?;
        self.enrollment(&kept.text, &user.email)
    }

    fn enrollment(&self, base32: &Secret<String>, account: &Email) -> Result<Enrollment, Error> {
        let unfit = || Error::internal("an authenticator's URI does not fit");
        let one = Authenticator::from_base32(base32, self.letters.platform(), account).ok_or_else(unfit)?;
        Ok(Enrollment { secret: one.base32(), uri: one.uri().ok_or_else(unfit)?, qr: one.qr_png().ok_or_else(unfit)? })
    }

    /// Puts the authenticator into use, by a code of it; the recovery codes are shown this once.
    ///
    /// # Errors
    /// `WrongState` when none is being set up, `MfaCodeWrong`, `RateExceeded`, `AnswerExpired`.
    pub async fn confirm_totp(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        code: &Secret<String>,
        key: Option<RequestKey>,
    ) -> Result<Vec<Secret<String>>, Error> {
        let user = &person.user;
        let sent = Code::Totp(code.clone());
        self.charge_session(person, &sent, ctx.now).await?;
        let mut open = match self.begin::<Kept, _>(ctx, None, AsUser(user.user_id), key).await? {
            Begun::Done(first) => return Ok(apart(&first.text)),
            Begun::Open(open) => open,
        };
        let row = mfa::find(&mut open.tx).await?.filter(|row| row.confirmed_at.is_none());
        let row = row.ok_or(Error::WrongState { state: "not being set up", wanted: "BeginTotpEnrollment before" })?;
        let step = self.authenticator((user.user_id, &user.email), &row)?.step_of(code.expose(), ctx.now);
        let step = step.ok_or(Error::MfaCodeWrong)?;
        if !mfa::confirm(&mut open.tx, &row.sealed, step, ctx.now).await? {
            return Err(Error::MfaCodeWrong);
        }
        rates::uncount(&mut open.tx, (CODES, &of_session(person)), ctx.now).await?;
        let codes = self.new_codes(&mut open.tx, ctx.now).await?;
        self.tell(&mut open.tx, user, "enabled", ctx).await?;
        let audit = Audit::of(user.user_id.0).set("mfa", "on");
        Ok(apart(&self.finish_secret(open, ctx, audit, Kept { text: codes }).await?.text))
    }

    /// Makes new recovery codes, shown this once, in the place of the old ones.
    ///
    /// # Errors
    /// `WrongState` when there is no second step, `MfaCodeWrong`, `RateExceeded`, `AnswerExpired`.
    pub async fn regenerate_recovery_codes(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        code: &Code,
        key: Option<RequestKey>,
    ) -> Result<Vec<Secret<String>>, Error> {
        let user = &person.user;
        self.charge_session(person, code, ctx.now).await?;
        let mut open = match self.begin::<Kept, _>(ctx, None, AsUser(user.user_id), key).await? {
            Begun::Done(first) => return Ok(apart(&first.text)),
            Begun::Open(open) => open,
        };
        let method = self.use_code(&mut open.tx, (user.user_id, &user.email), code, ctx.now).await?;
        rates::uncount(&mut open.tx, (CODES, &of_session(person)), ctx.now).await?;
        let codes = self.new_codes(&mut open.tx, ctx.now).await?;
        self.tell(&mut open.tx, user, "recovery_codes", ctx).await?;
        let audit = Audit::of(user.user_id.0).set("recovery_codes", "new").set("method", method.as_str());
        Ok(apart(&self.finish_secret(open, ctx, audit, Kept { text: codes }).await?.text))
    }

    /// Takes the second step away. Sessions go on with the assurance of a password.
    ///
    /// # Errors
    /// `WrongState` when there is none, `MfaCodeWrong`, `RateExceeded`.
    pub async fn disable_mfa(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        code: &Code,
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let user = &person.user;
        self.charge_session(person, code, ctx.now).await?;
        let mut open = match self.begin(ctx, None, AsUser(user.user_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        // First, as whoever signs in does.
        sessions::lock_account(&mut open.tx).await?;
        let method = self.use_code(&mut open.tx, (user.user_id, &user.email), code, ctx.now).await?;
        rates::uncount(&mut open.tx, (CODES, &of_session(person)), ctx.now).await?;
        mfa::delete(&mut open.tx).await?;
        self.tell(&mut open.tx, user, "disabled", ctx).await?;
        let audit = Audit::of(user.user_id.0).field("mfa", "on", "off").set("method", method.as_str());
        self.finish(open, ctx, audit, ()).await
    }

    /// Takes the second step of a member away who has lost it, and ends their sessions; by an operator.
    ///
    /// # Errors
    /// `MemberNotFound`, `WrongState` when there is none.
    pub async fn reset_mfa(&self, t: &TenantCtx, user_id: UserId, key: Option<RequestKey>) -> Result<(), Error> {
        let user = self.store.find_user(user_id).await?.ok_or(Error::MemberNotFound)?;
        let scope = InTenantAsUser(t.tenant_id(), user_id);
        let mut open = match self.begin(&t.ctx, Some(t.tenant_id()), scope, key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        memberships::get(&mut open.tx, user_id).await?;
        // First, as whoever signs in does.
        sessions::lock_account(&mut open.tx).await?;
        // One that is being set up keeps nobody out.
        if mfa::find(&mut open.tx).await?.is_none_or(|row| row.confirmed_at.is_none()) {
            return Err(Error::WrongState { state: "off", wanted: "an account with a second step" });
        }
        mfa::delete(&mut open.tx).await?;
        mfa::end_sessions(&mut open.tx, t.ctx.now).await?;
        self.tell(&mut open.tx, &user, "disabled", &t.ctx).await?;
        self.finish(open, &t.ctx, Audit::of(user_id.0).field("mfa", "on", "off"), ()).await
    }

    /// Whether somebody has a second step, and how many recovery codes are left.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn mfa_status(&self, user: UserId) -> Result<MfaStatus, Error> {
        let mut tx = self.store.read(AsUser(user)).await?;
        let since = mfa::find(&mut tx).await?.and_then(|row| row.confirmed_at);
        let codes_left = if since.is_some() { mfa::count_codes(&mut tx).await? } else { 0 };
        Ok(MfaStatus { since, codes_left })
    }

    /// Uses a code up, of whichever kind. Whoever had it counted takes that back, as the last thing of all.
    async fn use_code<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        whose: (UserId, &Email),
        code: &Code,
        now: Timestamp,
    ) -> Result<Method, Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        let row = mfa::find(tx).await?.filter(|row| row.confirmed_at.is_some());
        let row = row.ok_or(Error::WrongState { state: "off", wanted: "an account with a second step" })?;
        let (used, method) = match code {
            Code::Totp(code) => match self.authenticator(whose, &row)?.step_of(code.expose(), now) {
                Some(step) => (mfa::use_step(tx, step).await?, Method::Totp),
                None => (false, Method::Totp),
            },
            Code::Recovery(code) => match recovery_digest(code.expose()) {
                Some(digest) => (mfa::use_code(tx, &digest, now).await?, Method::RecoveryCode),
                None => (false, Method::RecoveryCode),
            },
        };
        if used { Ok(method) } else { Err(Error::MfaCodeWrong) }
    }

    fn authenticator(&self, (user_id, email): (UserId, &Email), row: &TotpRow) -> Result<Authenticator, Error> {
        let secret = self.master.open(&[b"totp"], user_id.0.as_bytes(), &row.sealed);
        let secret = secret.ok_or_else(|| Error::internal("an authenticator does not open under this master key"))?;
        Ok(Authenticator::new(&secret, self.letters.platform(), email))
    }

    /// New recovery codes, with blanks between them.
    async fn new_codes<S: Scope>(&self, tx: &mut Scoped<S>, now: Timestamp) -> Result<Secret<String>, Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        let codes = recovery_codes();
        let digests: Vec<_> = codes.iter().map(|code| sha256(code.expose().as_bytes())).collect();
        mfa::put_codes(tx, &digests, now).await?;
        let texts: Vec<&str> = codes.iter().map(|code| code.expose().as_str()).collect();
        Ok(Secret::new(texts.join(" ")))
    }

    /// Counts a code that is about to be tried by somebody who has signed in.
    async fn charge_session(&self, person: &SignedIn, code: &Code, now: Timestamp) -> Result<(), Error> {
        let mut tx = self.store.write(OnPlatform).await?;
        charge_code(&mut tx, &of_session(person), code, now).await?;
        tx.commit_unaudited(now).await
    }

    /// Tells the person that their second step has changed.
    async fn tell<S: Scope>(&self, tx: &mut Scoped<S>, user: &User, change: &str, ctx: &Ctx) -> Result<(), Error> {
        let message = Message {
            template: Template::MfaChanged,
            recipient: user.email.clone(),
            payload: serde_json::json!({ "at": ctx.now.to_string(), "change": change }),
            secret: None,
            about: ctx.request_id.to_string(),
        };
        self.post(tx, message, ctx.now).await.map(|_| ())
    }
}

/// Counts a code that is about to be tried, before it is looked at.
async fn charge_code<S: Scope>(tx: &mut Scoped<S>, counted: &str, code: &Code, now: Timestamp) -> Result<(), Error> {
    match code {
        Code::Totp(_) => rates::charge(tx, CODES, counted, CODE_RATE, now).await,
        Code::Recovery(_) => Ok(()),
    }
}

/// With what the codes are counted that come in a session.
fn of_session(person: &SignedIn) -> String {
    format!("session:{}", person.session.session_id)
}

fn apart(codes: &Secret<String>) -> Vec<Secret<String>> {
    codes.expose().split(' ').map(|code| Secret::new(code.to_owned())).collect()
}
