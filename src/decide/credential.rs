//! From a credential to a caller. All ways in which one is bad look the same from outside, except that an access token of
//! ours may say that it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::Plane;
use super::memory::Look;
use super::token::{Unverified, Verified};
use crate::ctx::{Caller, PlatformKey, SignedIn};
use crate::domain::id::UserId;
use crate::domain::secret::{Key, KeyKind};
use crate::domain::user::AccountStatus;
use crate::error::Error;
use crate::store::system::Digests;
use crate::store::{OnPlatform, keys};
use crate::time::Timestamp;

/// How long it takes until an unknown key is looked for again.
const SEEK: Duration = Duration::from_secs(1);

impl Look<'_> {
    /// Who holds this credential: an access token or a key, told apart by how they begin. There is no second attempt as
    /// another kind.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn identify(&mut self, credential: &str, now: Timestamp) -> Result<Caller, Error> {
        if credential.starts_with("eyJ") {
            return self.person(credential, now).await.map(|person| Caller::User(Arc::new(person)));
        }
        // The checksum stops what was never a key before the database is asked.
        let key = Key::parse(credential).ok_or(Error::CredentialInvalid)?;
        match key.kind {
            KeyKind::Service => self.find_platform_key(&key, now).await.map(|key| Caller::Service(Arc::new(key))),
            KeyKind::Operator => self.find_platform_key(&key, now).await.map(|key| Caller::Operator(Arc::new(key))),
            KeyKind::Tenant | KeyKind::Personal => self.find_api_key(&key, now).await,
        }
    }

    /// Who holds this key, which must be one of a tenant or of a member.
    ///
    /// # Errors
    /// `CredentialInvalid`, `DatabaseUnavailable`.
    pub async fn identify_api_key(&mut self, text: &str, now: Timestamp) -> Result<Caller, Error> {
        let key = Key::parse(text).ok_or(Error::CredentialInvalid)?;
        match key.kind {
            KeyKind::Tenant | KeyKind::Personal => self.find_api_key(&key, now).await,
            KeyKind::Service | KeyKind::Operator => Err(Error::CredentialInvalid),
        }
    }

    /// A person whom a service names.
    ///
    /// # Errors
    /// `AccountNotFound`: also when it cannot be used. `DatabaseUnavailable`.
    pub async fn named(&mut self, user: UserId) -> Result<Caller, Error> {
        let account = self.account(user).await?.filter(|account| account.status == AccountStatus::Active);
        account.map(|account| Caller::Named(Arc::new(account.user))).ok_or(Error::AccountNotFound)
    }

    /// The person whose access token this is, if their session and account are still good.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn person(&mut self, token: &str, now: Timestamp) -> Result<SignedIn, Error> {
        let verified = self.plane.verify(token, now).await?;
        let found = self.session(verified.user_id, verified.session_id, &verified.kid).await?;
        let (session, account) = found.ok_or(Error::CredentialInvalid)?;
        if !session.is_live(&account, now) {
            return Err(Error::CredentialInvalid);
        }
        Ok(SignedIn {
            user: account.user,
            session,
            auth_time: verified.auth_time,
            kid: verified.kid,
            token_expires_at: verified.expires_at,
            token_tenant: verified.tenant,
            default_tenant: account.default_tenant,
        })
    }

    /// Whether a caller's credential is still good that was so before this look began.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn still_live(&mut self, caller: &Caller, now: Timestamp) -> Result<(), Error> {
        if let Some(key) = caller.key() {
            let stored = self.platform_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
            if !stored.key.is_live(now) || is_rotated_away((key.old_ends_at, stored.key.old_ends_at), now) {
                return Err(Error::CredentialInvalid);
            }
        }
        if let Some(key) = caller.api_key() {
            let stored = self.api_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
            let rotated = is_rotated_away((key.old_ends_at, stored.key.old_ends_at), now);
            if !stored.key.is_live(now) || !stored.has_its_member() || rotated {
                return Err(Error::CredentialInvalid);
            }
        }
        if let Some(person) = caller.person() {
            if person.token_expires_at <= now {
                return Err(Error::TokenExpired);
            }
            let found = self.session(person.user.user_id, person.session.session_id, &person.kid).await?;
            let live = found.is_some_and(|(session, account)| session.is_live(&account, now));
            return if live { Ok(()) } else { Err(Error::CredentialInvalid) };
        }
        Ok(())
    }

    async fn find_platform_key(&mut self, key: &Key, now: Timestamp) -> Result<PlatformKey, Error> {
        let stored = self.platform_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
        let same = is_one_of(key, &stored.digests, now);
        if !same || !stored.key.is_live(now) || stored.key.kind != key.kind {
            return Err(Error::CredentialInvalid);
        }
        Ok(stored.key)
    }

    /// The tenant's program, or the member's, whose key this is. A member's key is dead when its stay has ended, or the
    /// account is switched off; a suspended member learns at the tenant's door that they are.
    async fn find_api_key(&mut self, key: &Key, now: Timestamp) -> Result<Caller, Error> {
        let stored = self.api_key(&key.key_id).await?.ok_or(Error::CredentialInvalid)?;
        let same = is_one_of(key, &stored.digests, now);
        if !same || !stored.key.is_live(now) || stored.key.kind != key.kind || !stored.has_its_member() {
            return Err(Error::CredentialInvalid);
        }
        Ok(match stored.member {
            Some(user) => Caller::Personal(Arc::new(stored.key), Arc::new(user)),
            None => Caller::Key(Arc::new(stored.key)),
        })
    }
}

impl Plane {
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

    /// Whether a caller's credential is still good that was so a while ago, by rows: for calls that go on for long.
    ///
    /// # Errors
    /// `CredentialInvalid`, `TokenExpired`, `DatabaseUnavailable`.
    pub async fn still_live(&self, caller: &Caller, now: Timestamp) -> Result<(), Error> {
        self.look_at_rows().still_live(caller, now).await
    }
}

/// Whether the key is the one that is stored, or the one before a rotation while it is still good. Both are compared, in
/// constant time.
fn is_one_of(key: &Key, stored: &Digests, now: Timestamp) -> bool {
    let digest = key.digest();
    let same = |other: &[u8]| verify_slices_are_equal(&digest, other).is_ok();
    let current = same(&stored.current);
    let before = stored.before.as_ref().is_some_and(|(before, ends_at)| same(before) && now < *ends_at);
    current || before
}

/// Whether a key was rotated since it was looked at, and the secret of then is over: by when the old one ends, then and now.
fn is_rotated_away((then, today): (Option<Timestamp>, Option<Timestamp>), now: Timestamp) -> bool {
    then != today && today.is_some_and(|end| end <= now)
}
