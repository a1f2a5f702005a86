//! When keys were last used: a key that is used a thousand times a second costs one write a minute.

use std::collections::HashMap;

use super::App;
use super::noted::Noted;
use crate::ctx::Caller;
use crate::domain::id::{ApiKeyId, PlatformKeyId, TenantId};
use crate::error::Error;
use crate::store::{InTenant, OnPlatform, api_keys, keys};
use crate::time::Timestamp;

/// Uses that are not written yet.
pub type KeyUses = Noted<Used>;

/// A key that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Used {
    /// Of a service or operator.
    Platform(PlatformKeyId),
    /// Of a tenant or a member.
    Api(TenantId, ApiKeyId),
}

impl KeyUses {
    /// Notes that the caller's key is used now, unless the row says so already.
    pub fn note_caller(&self, caller: &Caller, now: Timestamp) {
        match (caller.key(), caller.api_key()) {
            (Some(key), _) => self.note(Used::Platform(key.platform_key_id), key.last_used_at, now),
            (None, Some(key)) => self.note(Used::Api(key.tenant_id, key.api_key_id), key.last_used_at, now),
            (None, None) => {}
        }
    }
}

impl App {
    /// Writes the uses that were noted, in the order of their ids, so that two servers never wait for each other. While the
    /// database is away they are lost, and said so in the log.
    pub async fn write_key_uses(&self) {
        let (taken, _writing) = self.key_uses.take().await;
        let mut taken: Vec<_> = taken.into_iter().collect();
        taken.sort_unstable();
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
