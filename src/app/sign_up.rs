//! Sign-up in two steps: what was asked is kept aside until the link that was sent to the address comes back. Nobody who
//! asks learns whether the address has an account; whoever reads its mail does.

use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use super::sessions::{SignIn, Tokens};
use super::sign_in::NewAccount;
use super::throttle::{Attempted, MAIL_LIMITS, Origin};
use crate::ctx::Ctx;
use crate::domain::id::UserId;
use crate::domain::link::{self, Link, Purpose};
use crate::domain::mail::Template;
use crate::domain::name::{Email, Slug};
use crate::domain::session::{Device, Method, Proof};
use crate::domain::tenant::Tenant;
use crate::domain::user::{FIRST_EPOCH, User};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, links};

/// How people sign up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUpMode {
    /// At once. That an address has an account shows.
    Immediate,
    /// By a link that is sent to the address.
    Confirm,
}

/// An account that waits for its link.
#[derive(Serialize, Deserialize)]
struct Waiting {
    email: Email,
    display_name: String,
    password_hash: String,
    tenant: Option<(String, Slug)>,
}

/// What comes back with a link.
pub struct Confirmation {
    /// The token of the link.
    pub token: String,
    /// In the place of the slug that was asked for, should that be taken by now.
    pub slug: Option<Slug>,
    /// Whether the sign-in is to outlast the day.
    pub remember: bool,
    /// From where.
    pub device: Device,
}

impl App {
    /// Keeps an account to be aside and sends the link that makes it; or, when the address has one, a letter that says so.
    /// The work is the same: one hash, the same rows, one letter.
    ///
    /// # Errors
    /// `SlugTaken` (slugs are public), `TooManyAttempts`, `RateExceeded`, `RequestIdReused`, `Overloaded`.
    pub async fn ask_to_sign_up(&self, ctx: &Ctx, new: NewAccount, key: Option<RequestKey>) -> Result<(), Error> {
        self.look_at_rate(ctx, None).await?;
        let who = (&new.email, Origin::Network(ctx.source));
        self.take_attempt(Attempted::Mail, who, MAIL_LIMITS, ctx.now).await?;
        if let Some((_, slug)) = &new.tenant
            && self.store.is_slug_held(slug).await?
        {
            return self.refuse_counted(ctx, None, Error::SlugTaken).await;
        }
        let password_hash = self.passwords.hash(new.password, false).await?;
        let exists = self.store.find_account(&new.email).await?.is_some();
        let user_id = UserId(key.map_or_else(|| ctx.new_id(), |key| self.account_of_request(&key)));
        let mut open = match self.begin(ctx, None, AsUser(user_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        let email = new.email.clone();
        let waiting = Waiting { email: new.email, display_name: new.display_name, password_hash, tenant: new.tenant };
        let body = serde_json::to_value(&waiting).map_err(|e| Error::Internal(e.to_string().into()))?;
        let (link, token) = Link::new(Purpose::SignUp, body, ctx.now);
        self.put_link(&mut open.tx, user_id, &link, ctx).await?;
        let (template, token) = if exists { (Template::SignUpExists, None) } else { (Template::SignUp, Some(token)) };
        self.post_link(&mut open.tx, ctx, (template, &email), (&link, token)).await?;
        self.finish(open, ctx, Audit::default(), ()).await
    }

    /// Makes the account that a link stands for, with the tenant that was asked for, and signs in.
    ///
    /// # Errors
    /// `LinkInvalid`, `EmailTaken` when the address has an account by now, `SlugTaken` when somebody else has the slug by
    /// now: the link is good for another try then.
    pub async fn confirm_sign_up(
        &self,
        ctx: &Ctx,
        with: Confirmation,
    ) -> Result<(User, Option<Tenant>, Tokens), Error> {
        let digest = link::digest(&with.token).ok_or(Error::LinkInvalid)?;
        let user_id = self.store.find_link(Purpose::SignUp, &digest, ctx.now).await?.ok_or(Error::LinkInvalid)?;
        let mut tx = self.store.read(AsUser(user_id)).await?;
        let waiting: Option<Waiting> = links::find(&mut tx, (Purpose::SignUp, &digest), ctx.now).await?;
        drop(tx);
        let Waiting { email, display_name, password_hash, tenant } = waiting.ok_or(Error::LinkInvalid)?;
        let tenant = tenant.map(|(name, slug)| (name, with.slug.unwrap_or(slug)));
        let sign_in = SignIn {
            user_id,
            proof: Proof { methods: vec![Method::MailLink], ..Proof::password(FIRST_EPOCH) },
            tenant: None,
            bound_tenant: None,
            connection: None,
            remember: with.remember,
            terms: self.sessions.terms(with.remember),
            device: with.device,
        };
        let user = User { user_id, email, display_name };
        let account = (user, password_hash.as_str(), sign_in);
        let (done, _) = match tenant {
            None => self.sign_up_alone(ctx, account, Some(digest), None).await?,
            Some(tenant) => self.sign_up_with_tenant(ctx, account, tenant, Some(digest), None).await?,
        };
        self.auto_join(ctx, &done.user).await;
        Ok((done.user, done.tenant, self.tokens(done.opened, ctx.now)?))
    }
}
