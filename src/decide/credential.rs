//! From a credential to a caller. All ways in which one is bad look the same from outside, except that an access token of
//! ours may say that it is over.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::Plane;
use super::judge::judge;
use crate::ctx::{Caller, Ctx, Needs, PlatformKey, SignedIn, TenantCtx};
use crate::domain::secret::{Key, KeyKind};
use crate::error::Error;
use crate::time::Timestamp;

impl Plane {
    /// Who holds this credential: an access token or a key, told apart by how they begin. There is no second attempt as
    /// another kind.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn identify(&self, credential: &str, now: Timestamp) -> Result<Caller, Error> {
        if credential.starts_with("eyJ") {
            return self.person(credential, now).await.map(|person| Caller::User(Box::new(person)));
        }
        let key = self.platform_key(credential, now).await?;
        Ok(match key.kind {
            KeyKind::Service => Caller::Service(Box::new(key)),
            KeyKind::Operator => Caller::Operator(Box::new(key)),
        })
    }

    /// The person whose access token this is, if their session and account are still good.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn person(&self, token: &str, now: Timestamp) -> Result<SignedIn, Error> {
        let verified = self.tokens.verify(token, now)?;
        let found = self.store.find_session(verified.user_id, verified.session_id).await?;
        let (session, account) = found.ok_or(Error::CredentialInvalid)?;
        if !session.is_live(&account, now) {
            return Err(Error::CredentialInvalid);
        }
        Ok(SignedIn {
            user: account.user,
            session,
            auth_time: verified.auth_time,
            token_expires_at: verified.expires_at,
            token_tenant: verified.tenant,
            default_tenant: account.default_tenant,
        })
    }

    /// Whether whoever opened a stream is still who they were: the session lives, the key was not revoked and has not ended.
    ///
    /// # Errors
    /// `CredentialInvalid`, `DatabaseUnavailable`.
    pub async fn still_there(&self, ctx: &Ctx) -> Result<(), Error> {
        if let Some(person) = ctx.caller.person() {
            let found = self.store.find_session(person.user.user_id, person.session.session_id).await?;
            if !found.is_some_and(|(session, account)| session.is_live(&account, ctx.now)) {
                return Err(Error::CredentialInvalid);
            }
        }
        if let Some(key) = ctx.caller.key() {
            let stored = self.store.find_platform_key(&key.key_id).await?;
            let over = |key: &PlatformKey| key.expires_at.is_some_and(|at| at <= ctx.now);
            if stored.is_none_or(|stored| stored.revoked_at.is_some() || over(&stored.key)) {
                return Err(Error::CredentialInvalid);
            }
        }
        Ok(())
    }

    /// Whether whoever opened a stream in a tenant may still do what it does.
    ///
    /// # Errors
    /// What speaks against it.
    pub async fn still_may(&self, ctx: &Ctx, t: &TenantCtx) -> Result<(), Error> {
        self.still_there(ctx).await?;
        let standing = self.standing(t.tenant_id(), &ctx.caller, ctx.now).await?;
        // The sign-in was recent when the stream began; it need not be all the time.
        let needs = Needs { recent_login: false, ..t.needs };
        judge(&standing, &ctx.caller, &needs, ctx.now).into_iter().next().map_or(Ok(()), Err)
    }

    async fn platform_key(&self, text: &str, now: Timestamp) -> Result<PlatformKey, Error> {
        // The checksum stops what was never a key before the database is asked.
        let key = Key::parse(text).ok_or(Error::CredentialInvalid)?;
        let stored = self.store.find_platform_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
        let over = stored.key.expires_at.is_some_and(|at| at <= now) || stored.revoked_at.is_some();
        let same = verify_slices_are_equal(&key.digest(), &stored.digest).is_ok();
        if over || !same || stored.key.kind != key.kind {
            return Err(Error::CredentialInvalid);
        }
        Ok(stored.key)
    }
}
