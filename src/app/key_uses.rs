//! When keys were last used, to the minute: remembered here, and written once a minute, so that a key that is used a
//! thousand times a second costs one write a minute. What a crash loses is a minute's worth.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::App;
use crate::ctx::Caller;
use crate::domain::id::{ApiKeyId, PlatformKeyId, TenantId};
use crate::error::Error;
use crate::store::{InTenant, OnPlatform, api_keys, keys};
use crate::time::Timestamp;

/// How many keys are remembered until they are written; the last use of further ones is not.
const BOUND: usize = 65_536;

/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// Uses that are not written yet.
#[derive(Default)]
pub struct KeyUses {
    open: Mutex<HashMap<Used, Timestamp>>,
    /// Held while uses are written, so that a stop does not lose those in hand.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Used {
    Platform(PlatformKeyId),
    Api(TenantId, ApiKeyId),
}

impl KeyUses {
    /// Notes that the caller's key is used now, unless the row says so already.
    pub fn note(&self, caller: &Caller, now: Timestamp) {
        let minute = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(MINUTE));
        let (used, written) = match (caller.key(), caller.api_key()) {
            (Some(key), _) => (Used::Platform(key.platform_key_id), key.last_used_at),
            (None, Some(key)) => (Used::Api(key.tenant_id, key.api_key_id), key.last_used_at),
            (None, None) => return,
        };
        if written.is_some_and(|at| at >= minute) {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < BOUND || open.contains_key(&used) {
            open.insert(used, minute);
        }
    }

    fn take(&self) -> HashMap<Used, Timestamp> {
        std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl App {
    /// Writes the uses that were noted. While the database is away they are lost, and said so in the log.
    pub async fn write_key_uses(&self) {
        let _writing = self.key_uses.writing.lock().await;
        let taken = self.key_uses.take();
        let (mut of_platform, mut of_tenants): (Vec<_>, HashMap<TenantId, Vec<_>>) = (Vec::new(), HashMap::new());
        for (used, at) in taken {
            match used {
                Used::Platform(key) => of_platform.push((key, at)),
                Used::Api(tenant, key) => of_tenants.entry(tenant).or_default().push((key, at)),
            }
        }
        if let Err(error) = self.write_uses(of_platform, of_tenants).await {
            tracing::warn!(%error, "when keys were last used could not be written");
        }
    }

    async fn write_uses(
        &self,
        of_platform: Vec<(PlatformKeyId, Timestamp)>,
        of_tenants: HashMap<TenantId, Vec<(ApiKeyId, Timestamp)>>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        if !of_platform.is_empty() {
            let mut tx = self.store.write(OnPlatform).await?;
            for (key, at) in of_platform {
                keys::platform_key_used(&mut tx, key, at).await?;
            }
            tx.commit_unaudited(now).await?;
        }
        for (tenant, uses) in of_tenants {
            let mut tx = self.store.write(InTenant(tenant)).await?;
            for (key, at) in uses {
                api_keys::used(&mut tx, key, at).await?;
            }
            tx.commit_unaudited(now).await?;
        }
        Ok(())
    }
}
