//! Keys of trusted backend services.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::{Ctx, PlatformKey};
use crate::domain::id::{PlatformKeyId, UserId};
use crate::domain::role::Permissions;
use crate::domain::secret::{Key, KeyKind, Secret, sealed};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, keys};
use crate::time::Timestamp;

/// A new key with its secret, as it is kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
struct Kept {
    platform_key_id: PlatformKeyId,
    key_id: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    #[serde(with = "sealed")]
    text: Secret<String>,
}

impl App {
    /// Creates a key for a service; the secret is shown this once.
    ///
    /// # Errors
    /// `AnswerExpired` when repeated too late.
    pub async fn create_service_key(
        &self,
        ctx: &Ctx,
        display_name: String,
        permissions: Permissions,
        ttl: Option<TimeDelta>,
        request: Option<RequestKey>,
    ) -> Result<(PlatformKey, Secret<String>), Error> {
        // Bound to the operator's key, whose answer it is.
        let scope = AsUser(UserId(ctx.caller.principal().unwrap_or_default()));
        let shown = |kept: Kept| {
            let key = PlatformKey {
                platform_key_id: kept.platform_key_id,
                kind: KeyKind::Service,
                key_id: kept.key_id,
                display_name: display_name.clone(),
                permissions: permissions.clone(),
                created_at: kept.created_at,
                expires_at: kept.expires_at,
            };
            (key, kept.text)
        };
        let mut open = match self.begin(ctx, None, scope, request).await? {
            Begun::Done(first) => return Ok(shown(first)),
            Begun::Open(open) => open,
        };
        let new = Key::generate(KeyKind::Service);
        let digest = new.digest();
        let (key, text) = shown(Kept {
            platform_key_id: PlatformKeyId(ctx.new_id()),
            key_id: new.key_id,
            created_at: ctx.now,
            expires_at: ttl.map(|ttl| ctx.now.after(ttl)),
            text: new.text,
        });
        keys::insert_platform_key(&mut open.tx, &key, &digest).await?;
        let audit = Audit::of(key.platform_key_id.0)
            .set("key_id", key.key_id.as_str())
            .set("display_name", key.display_name.as_str())
            .set("permissions", key.permissions.names());
        let kept = Kept {
            platform_key_id: key.platform_key_id,
            key_id: key.key_id.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            text: text.clone(),
        };
        self.finish_secret(open, ctx, audit, kept).await?;
        Ok((key, text))
    }
}
