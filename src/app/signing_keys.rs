//! The keys that sign access tokens: their rotation, by the clock and by an operator, and their withdrawal. Every server
//! reads the keys anew now and then, and at once when it meets a token of a key that it does not know.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::Ctx;
use crate::domain::id::UserId;
use crate::domain::seal::MasterKey;
use crate::domain::secret::hex;
use crate::domain::signing_key::{KeyState, SigningKey, find, next_look, rotates_at};
use crate::entropy;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::{AsUser, OnPlatform, Scope, Scoped, keys};
use crate::time::Timestamp;

/// The subject of the one job that rotates: keys are the platform's.
pub(super) const SUBJECT: Uuid = Uuid::nil();

/// That it is done.
#[derive(Serialize, Deserialize)]
struct Done;

/// A new key, published and not signing.
///
/// # Errors
/// Internal, when no key can be made.
pub(super) fn new_key(master: &MasterKey, now: Timestamp) -> Result<SigningKey, Error> {
    let failed = |_| Error::internal("an Ed25519 key could not be made");
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(failed)?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| failed(aws_lc_rs::error::Unspecified))?;
    let kid = hex(&entropy::bytes::<8>());
    Ok(SigningKey {
        state: KeyState::Next,
        public_key: pair.public_key().as_ref().to_vec(),
        sealed: master.seal(&[b"signing key"], kid.as_bytes(), pkcs8.as_ref()),
        kid,
        created_at: now,
        current_at: None,
        retired_at: None,
        over_at: None,
        revoked_at: None,
    })
}

impl App {
    /// All keys, the oldest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_signing_keys(&self) -> Result<Vec<SigningKey>, Error> {
        let mut tx = self.store.read(OnPlatform).await?;
        keys::list_signing_keys(&mut tx).await
    }

    /// Reads the keys anew, as other servers may have changed them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn follow_signing_keys(&self) -> Result<(), Error> {
        self.plane.follow_keys().await
    }

    /// Lets the next key sign, and the current one no more.
    ///
    /// # Errors
    /// `SigningKeyTooNew` when it has not been published for long enough.
    pub async fn rotate_signing_key(&self, ctx: &Ctx, request: Option<RequestKey>) -> Result<Vec<SigningKey>, Error> {
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let mut open = match self.begin(ctx, None, scope, request).await? {
            Begun::Done(Done) => return self.list_signing_keys().await,
            Begun::Open(open) => open,
        };
        let mut all = keys::lock_signing_keys(&mut open.tx).await?;
        let next = find(&all, KeyState::Next).ok_or(Error::SigningKeyNotFound)?;
        if next.ready_at() > ctx.now {
            return Err(Error::SigningKeyTooNew(next.ready_at()));
        }
        let audit = self.promote(&mut open.tx, &mut all, ctx.now).await?;
        self.reschedule(&mut open.tx, &all).await?;
        self.finish(open, ctx, audit, Done).await?;
        self.follow_signing_keys().await?;
        Ok(all)
    }

    /// Withdraws a key: every token that it signed is refused from now on. Sessions live, and their tokens are had anew.
    /// When it was the one that signs, the next one takes over at once, however new.
    ///
    /// # Errors
    /// `SigningKeyNotFound`, `WrongState` when there is nothing left to withdraw.
    pub async fn revoke_signing_key(
        &self,
        ctx: &Ctx,
        kid: &str,
        request: Option<RequestKey>,
    ) -> Result<Vec<SigningKey>, Error> {
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let mut open = match self.begin(ctx, None, scope, request).await? {
            Begun::Done(Done) => return self.list_signing_keys().await,
            Begun::Open(open) => open,
        };
        let mut all = keys::lock_signing_keys(&mut open.tx).await?;
        let at = all.iter().position(|key| key.kid == kid).ok_or(Error::SigningKeyNotFound)?;
        let before = all[at].state;
        if !before.is_published() {
            return Err(Error::WrongState { state: before.as_str(), wanted: "a key that is published" });
        }
        all[at].revoke(ctx.now);
        keys::update_signing_key(&mut open.tx, &all[at]).await?;
        self.complete(&mut open.tx, &mut all, ctx.now).await?;
        self.reschedule(&mut open.tx, &all).await?;
        let audit = Audit::of(SUBJECT).set("kid", kid).field("state", before.as_str(), "revoked");
        self.finish(open, ctx, audit, Done).await?;
        self.follow_signing_keys().await?;
        Ok(all)
    }

    /// The job: what the clock says.
    pub(super) async fn rotate_job(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let mut tx = self.store.write(OnPlatform).await?;
        let mut all = keys::lock_signing_keys(&mut tx).await?;
        for key in &mut all {
            if key.let_go(ctx.now) {
                keys::update_signing_key(&mut tx, key).await?;
            }
        }
        if rotates_at(&all, self.signing_key_period).is_some_and(|at| at <= ctx.now) {
            let audit = self.promote(&mut tx, &mut all, ctx.now).await?;
            tx.note(ctx, audit).await?;
        }
        self.complete(&mut tx, &mut all, ctx.now).await?;
        jobs::finish(&mut tx, job, next_look(&all, self.signing_key_period)).await?;
        tx.commit_unaudited(ctx.now).await?;
        self.follow_signing_keys().await
    }

    /// The next key signs, the current one has signed; and another one is published.
    async fn promote<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        all: &mut Vec<SigningKey>,
        now: Timestamp,
    ) -> Result<Audit, Error> {
        let mut audit = Audit::of(SUBJECT);
        // One key is current: the old one goes before the new one comes.
        if let Some(current) = all.iter_mut().find(|key| key.state == KeyState::Current) {
            current.retire(now);
            keys::update_signing_key(tx, current).await?;
            audit = audit.set("retired", current.kid.as_str());
        }
        self.complete(tx, all, now).await?;
        let current = find(all, KeyState::Current).map(|key| key.kid.clone());
        Ok(audit.set("current", current))
    }

    /// Sees to it that one key signs and another one is published to be the next.
    async fn complete<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        all: &mut Vec<SigningKey>,
        now: Timestamp,
    ) -> Result<(), Error> {
        if find(all, KeyState::Next).is_none() {
            self.publish(tx, all, now).await?;
        }
        if find(all, KeyState::Current).is_none() {
            if let Some(next) = all.iter_mut().find(|key| key.state == KeyState::Next) {
                next.promote(now);
                keys::update_signing_key(tx, next).await?;
            }
            self.publish(tx, all, now).await?;
        }
        Ok(())
    }

    async fn publish<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        all: &mut Vec<SigningKey>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let key = new_key(&self.master, now)?;
        if keys::insert_signing_key(tx, &key).await? {
            all.push(key);
        }
        Ok(())
    }

    async fn reschedule<S: Scope>(&self, tx: &mut Scoped<S>, all: &[SigningKey]) -> Result<(), Error> {
        jobs::schedule(tx, JobKind::SigningKeys, SUBJECT, next_look(all, self.signing_key_period)).await
    }
}
