//! From a credential to a caller. All ways in which one is bad look the same from outside, except that an access token of
//! ours may say that it is over.

use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::Plane;
use super::token::{Unverified, Verified};
use crate::ctx::{Caller, PlatformKey, SignedIn};
use crate::domain::secret::{Key, KeyKind};
use crate::error::Error;
use crate::store::{OnPlatform, keys};
use crate::time::Timestamp;

/// How long it takes until an unknown key is looked for again.
const SEEK: Duration = Duration::from_secs(1);

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
        let verified = self.verify(token, now).await?;
        let found = self.store.find_session(verified.user_id, verified.session_id, Some(&verified.kid)).await?;
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

    /// What a token says, if it is one of ours. A key that is not known here may be newer than what was last read: then the
    /// keys are read anew, once a second at most.
    async fn verify(&self, token: &str, now: Timestamp) -> Result<Verified, Error> {
        match self.tokens.verify(token, now) {
            Ok(verified) => return Ok(verified),
            Err(Unverified::Bad(error)) => return Err(error),
            Err(Unverified::UnknownKey) => {}
        }
        let mut sought = self.tokens.sought.lock().await;
        if sought.is_none_or(|at| at.elapsed() >= SEEK) {
            self.follow_keys().await?;
            *sought = Some(Instant::now());
        }
        drop(sought);
        self.tokens.verify(token, now).map_err(|unverified| match unverified {
            Unverified::Bad(error) => error,
            Unverified::UnknownKey => Error::CredentialInvalid,
        })
    }

    /// Reads the keys that sign access tokens anew.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn follow_keys(&self) -> Result<(), Error> {
        let mut tx = self.store.read(OnPlatform).await?;
        let stored = keys::list_signing_keys(&mut tx).await?;
        drop(tx);
        self.tokens.follow(&stored)
    }

    /// Whether a caller's credential is still good that was so a while ago: for calls that go on for long.
    ///
    /// # Errors
    /// `CredentialInvalid`, `DatabaseUnavailable`.
    pub async fn still_live(&self, caller: &Caller, now: Timestamp) -> Result<(), Error> {
        if let Some(key) = caller.key() {
            let stored = self.store.find_platform_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
            if stored.key.expires_at.is_some_and(|at| at <= now) || stored.revoked_at.is_some() {
                return Err(Error::CredentialInvalid);
            }
        }
        if let Some(person) = caller.person() {
            let found = self.store.find_session(person.user.user_id, person.session.session_id, None).await?;
            let live = found.is_some_and(|(session, account)| session.is_live(&account, now));
            return if live { Ok(()) } else { Err(Error::CredentialInvalid) };
        }
        Ok(())
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
