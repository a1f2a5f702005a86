//! Reads across tenants of keys: whose a key is that a caller shows.

use super::super::Store;
use super::super::api_keys::{ApiKeyRow, api_key_columns};
use super::super::keys::{PlatformKeyRow, platform_key_columns};
use super::super::tx::{AcrossTenants, Statement, statements};
use super::{Seen, TenantIdRow, UserRow, seen, user};
use crate::ctx::PlatformKey;
use crate::domain::api_key::ApiKey;
use crate::domain::id::{ApiKeyId, TenantId, UserId};
use crate::domain::secret::KeyKind;
use crate::domain::user::User;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND_PLATFORM_KEY: AcrossTenants = Statement::new(
        seen!(platform_key_columns!(), ", digest, old_digest from platform_key where key_id = $1"),
    );
    /// With the person, when it is a member's and their stay goes on.
    FIND_API_KEY: AcrossTenants = Statement::new(seen!(
        api_key_columns!("k."),
        ", k.digest, k.old_digest, a.email, a.display_name as user_name,
                cast(case when o.confirmed_at is null then 0 else 1 end as bigint) as two_steps
         from api_key k
         left join membership m on m.tenant_id = k.tenant_id and m.membership_id = k.membership_id and m.status <> 3
         left join user_account a on a.user_id = m.user_id and a.status = 1
         left join totp o on o.user_id = a.user_id
         where k.key_id = $1",
    ));
    FIND_API_KEY_PLACE: AcrossTenants = Statement::new(
        "select tenant_id
         from api_key
         where api_key_id = $1",
    );
}

#[derive(sqlx::FromRow)]
struct StoredPlatformKeyRow {
    digest: Vec<u8>,
    old_digest: Option<Vec<u8>>,
    #[sqlx(flatten)]
    key: PlatformKeyRow,
}

#[derive(sqlx::FromRow)]
struct StoredApiKeyRow {
    digest: Vec<u8>,
    old_digest: Option<Vec<u8>>,
    email: Option<String>,
    user_name: Option<String>,
    two_steps: i64,
    #[sqlx(flatten)]
    key: ApiKeyRow,
}

/// What a key's secret is compared with.
#[derive(Clone)]
pub struct Digests {
    /// SHA-256 of its whole text.
    pub current: Vec<u8>,
    /// The same of the one before the last rotation, and until when that one is good.
    pub before: Option<(Vec<u8>, Timestamp)>,
}

/// A key of a service or operator, with its digests.
#[derive(Clone)]
pub struct StoredKey {
    /// The key.
    pub key: PlatformKey,
    /// What its secret is compared with.
    pub digests: Digests,
}

/// A key of a tenant or of a member, with its digests.
#[derive(Clone)]
pub struct StoredApiKey {
    /// The key.
    pub key: ApiKey,
    /// What its secret is compared with.
    pub digests: Digests,
    /// Whose it is, when it is a member's; none when their stay has ended or their account is switched off.
    pub member: Option<User>,
}

impl StoredApiKey {
    /// Whether it needs no member, or has one.
    #[must_use]
    pub fn has_its_member(&self) -> bool {
        self.key.kind == KeyKind::Tenant || self.member.is_some()
    }
}

impl Store {
    /// A key by its public part.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_platform_key(&self, key_id: &str) -> Result<Seen<StoredKey>, Error> {
        let seen: Seen<StoredPlatformKeyRow> = self.see(&FIND_PLATFORM_KEY, &[key_id.into()]).await?;
        seen.try_map(|row| {
            let key = PlatformKey::try_from(row.key)?;
            let digests = Digests { current: row.digest, before: row.old_digest.zip(key.old_ends_at) };
            Ok(StoredKey { key, digests })
        })
    }

    /// A key of a tenant or of a member by its public part.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_api_key(&self, key_id: &str) -> Result<Seen<StoredApiKey>, Error> {
        let seen: Seen<StoredApiKeyRow> = self.see(&FIND_API_KEY, &[key_id.into()]).await?;
        seen.try_map(|row| {
            let mut key = ApiKey::try_from(row.key)?;
            if row.two_steps == 0 {
                // Whoever gave the second step up has no more than one.
                key.aal = key.aal.min(1);
            }
            let digests = Digests { current: row.digest, before: row.old_digest.zip(key.old_ends_at) };
            let member = match (key.user_id, row.email, row.user_name) {
                (Some(UserId(user_id)), Some(email), Some(display_name)) => {
                    Some(user(UserRow { user_id, email, display_name })?)
                }
                _ => None,
            };
            Ok(StoredApiKey { key, digests, member })
        })
    }

    /// Whose key this is; for the job that looks at it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_api_key_place(&self, id: ApiKeyId) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_API_KEY_PLACE, &[id.0.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }
}
