//! Integrations of a tenant. A secret comes in, is sealed, and never comes out of here again: not in answers, not in the
//! audit log.

use serde_json::{Map, Value};

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use super::settings::digest;
use crate::ctx::TenantCtx;
use crate::domain::id::TenantId;
use crate::domain::integration::{Integration, MOST, SecretChange};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, TenantTx, settings};

impl App {
    /// Shows the integrations, by name.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_integrations(&self, t: &TenantCtx) -> Result<Vec<Integration>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        settings::list_integrations(&mut tx, i64::try_from(MOST).unwrap_or(i64::MAX)).await
    }

    /// Makes an integration, or gives it another configuration and perhaps another secret.
    ///
    /// # Errors
    /// `EtagMismatch`, `FieldsInvalid` when there are too many.
    pub async fn set_integration(
        &self,
        t: &TenantCtx,
        (name, config): (&str, Map<String, Value>),
        secret: SecretChange,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Integration, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let before = settings::find_integration(&mut open.tx, name).await?;
        check_etag(sent_etag, before.as_ref().map_or(0, |before| before.version))?;
        if before.is_none() {
            check_room(&mut open.tx).await?;
        }
        let had_secret = before.as_ref().is_some_and(|before| before.has_secret);
        let changed = match &secret {
            SecretChange::Keep => false,
            SecretChange::Forget => had_secret,
            SecretChange::Replace(_) => true,
        };
        let last_changed = before.as_ref().and_then(|before| before.secret_updated_at);
        let after = Integration {
            name: name.to_owned(),
            config,
            has_secret: matches!(secret, SecretChange::Replace(_)) || (had_secret && !changed),
            secret_updated_at: if changed { Some(t.ctx.now) } else { last_changed },
            version: before.as_ref().map_or(0, |before| before.version) + 1,
            updated_at: t.ctx.now,
        };
        settings::put_integration(&mut open.tx, &after).await?;
        if changed {
            let sealed = match &secret {
                SecretChange::Replace(secret) => Some(self.seal_secret(tenant_id, name, secret.expose())),
                SecretChange::Keep | SecretChange::Forget => None,
            };
            settings::seal_integration(&mut open.tx, name, sealed.as_deref()).await?;
        }
        let audit = Audit::of(tenant_id.0)
            .field(&path(name, "config"), before.map(|before| noted(before.config)), noted(after.config.clone()))
            .field(&path(name, "has_secret"), had_secret, after.has_secret)
            .field(&path(name, "secret_changed"), false, changed);
        self.finish(open, &t.ctx, audit, after).await
    }

    /// Ends an integration and forgets its secret.
    ///
    /// # Errors
    /// `IntegrationNotFound`.
    pub async fn delete_integration(&self, t: &TenantCtx, name: &str, key: Option<RequestKey>) -> Result<(), Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let before = settings::find_integration(&mut open.tx, name).await?.ok_or(Error::IntegrationNotFound)?;
        settings::delete_integration(&mut open.tx, name).await?;
        let audit = Audit::of(tenant_id.0).field(&path(name, "config"), noted(before.config), Value::Null).field(
            &path(name, "has_secret"),
            before.has_secret,
            Value::Null,
        );
        self.finish(open, &t.ctx, audit, ()).await
    }

    /// Seals a secret for the row of this tenant and name: moved to another row, it does not open.
    fn seal_secret(&self, tenant: TenantId, name: &str, secret: &str) -> Vec<u8> {
        let place = [tenant.0.as_bytes(), name.as_bytes()].concat();
        self.master.seal(&[b"integration"], &place, secret.as_bytes())
    }
}

/// Refuses one more than a tenant may have. Asked under the tenant's lock.
async fn check_room(tx: &mut TenantTx) -> Result<(), Error> {
    let there = settings::count_integrations(tx).await?;
    if usize::try_from(there).is_ok_and(|there| there < MOST) {
        return Ok(());
    }
    Err(Error::field("name", format!("would be one more than the {MOST} that a tenant may have; delete another first")))
}

/// The name of a field in the audit log.
fn path(name: &str, field: &str) -> String {
    format!("integrations.{name}.{field}")
}

/// A configuration as the audit log keeps it.
fn noted(config: Map<String, Value>) -> Value {
    digest(Value::Object(config))
}
