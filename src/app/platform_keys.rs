//! Keys of trusted backend services and of operators.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, Mutation, RequestKey};
use crate::ctx::{Ctx, PlatformKey};
use crate::domain::api_key::OperatorScope;
use crate::domain::id::{PlatformKeyId, UserId};
use crate::domain::role::Permissions;
use crate::domain::secret::{Key, KeyKind, Secret, sealed};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, OnPlatform, keys};

/// A key to be.
pub struct NewPlatformKey {
    /// Of a service or of an operator.
    pub kind: KeyKind,
    /// What or whom it is for.
    pub display_name: String,
    /// What it may do; everything for operators.
    pub permissions: Permissions,
    /// What an operator's key is for; all for services.
    pub scope: OperatorScope,
    /// How long it is good for.
    pub ttl: Option<TimeDelta>,
}

/// A key with its secret, as it is shown, and kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
pub struct ShownPlatformKey {
    /// The key.
    pub key: PlatformKey,
    /// Its whole text.
    #[serde(with = "sealed")]
    pub secret: Secret<String>,
}

impl App {
    /// Creates a key of a service or operator; the secret is shown this once.
    ///
    /// # Errors
    /// `AnswerExpired` when repeated too late.
    pub async fn create_platform_key(
        &self,
        ctx: &Ctx,
        new: NewPlatformKey,
        request: Option<RequestKey>,
    ) -> Result<ShownPlatformKey, Error> {
        let mut open = match self.begin(ctx, None, of_operator(ctx), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let text = Key::generate(new.kind);
        let key = PlatformKey {
            platform_key_id: PlatformKeyId(ctx.new_id()),
            kind: new.kind,
            key_id: text.key_id.clone(),
            display_name: new.display_name,
            last4: text.last4(),
            permissions: new.permissions,
            scope: new.scope,
            created_at: ctx.now,
            expires_at: new.ttl.map(|ttl| ctx.now.after(ttl)),
            revoked_at: None,
            last_used_at: None,
            old_ends_at: None,
        };
        keys::insert_platform_key(&mut open.tx, &key, &text.digest()).await?;
        let audit = Audit::of(key.platform_key_id.0)
            .set("key_id", key.key_id.as_str())
            .set("display_name", key.display_name.as_str())
            .set("permissions", key.permissions.names())
            .set("scope", key.scope.as_str());
        self.finish_secret(open, ctx, audit, ShownPlatformKey { key, secret: text.text }).await
    }

    /// Keys that are not revoked, of one kind or of both, after one of them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_platform_keys(
        &self,
        kind: Option<KeyKind>,
        span: (Uuid, i64),
    ) -> Result<Vec<PlatformKey>, Error> {
        let mut tx = self.store.read(OnPlatform).await?;
        keys::list_platform_keys(&mut tx, kind, span).await
    }

    /// Gives a key a new secret; the one of now stays good for `overlap`.
    ///
    /// # Errors
    /// `KeyNotFound`, `WrongState` when it has ended, `AnswerExpired`.
    pub async fn rotate_platform_key(
        &self,
        ctx: &Ctx,
        key_id: &str,
        overlap: TimeDelta,
        request: Option<RequestKey>,
    ) -> Result<ShownPlatformKey, Error> {
        let mut open = match self.begin(ctx, None, of_operator(ctx), request).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let mut key = keys::get_platform_key(&mut open.tx, key_id).await?;
        if !key.is_live(ctx.now) {
            return Err(Error::WrongState { state: "over", wanted: "a key that has not ended" });
        }
        let text = Key::again(key.kind, &key.key_id);
        let before = std::mem::replace(&mut key.last4, text.last4());
        key.old_ends_at = Some(ctx.now.after(overlap));
        keys::rotate_platform_key(&mut open.tx, &key, &text.digest()).await?;
        let audit = Audit::of(key.platform_key_id.0)
            .field("last4", before, key.last4.as_str())
            .set("old_secret_ends_at", key.old_ends_at.map(|at| at.to_string()));
        self.finish_secret(open, ctx, audit, ShownPlatformKey { key, secret: text.text }).await
    }

    /// Revokes a key, with all its secrets.
    ///
    /// # Errors
    /// `KeyNotFound`, also when it is revoked already; `LastOperatorKey`.
    pub async fn revoke_platform_key(&self, ctx: &Ctx, key_id: &str, request: Option<RequestKey>) -> Result<(), Error> {
        let mut open: Box<Mutation<_>> = match self.begin(ctx, None, of_operator(ctx), request).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        keys::lock_operator_keys(&mut open.tx).await?;
        let key = keys::get_platform_key(&mut open.tx, key_id).await?;
        keys::revoke_platform_key(&mut open.tx, &key, ctx.now).await?;
        // Nobody could make another one, but by a start of the server.
        if key.kind == KeyKind::Operator && keys::count_operator_keys(&mut open.tx, ctx.now).await? == 0 {
            return Err(Error::LastOperatorKey);
        }
        let audit = Audit::of(key.platform_key_id.0).set("revoked", true).set("key_id", key.key_id.as_str());
        self.finish(open, ctx, audit, ()).await
    }
}

/// Bound to the operator's key, whose answer it is.
fn of_operator(ctx: &Ctx) -> AsUser {
    AsUser(UserId(ctx.caller.principal().unwrap_or_default()))
}
