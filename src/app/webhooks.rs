//! Webhooks of a tenant: where its events go, with which secret. Sending them is `webhooks/deliver.rs`.

mod deliver;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use deliver::OFF;

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::TenantCtx;
use crate::domain::id::TenantId;
use crate::domain::secret::{Secret, sealed};
use crate::domain::webhook::{Delivery, MOST, OVERLAP, TEST, Webhook, WebhookStatus, new_secret};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, webhooks};

/// A webhook with its new secret, as it is kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
pub struct WebhookSecret {
    /// As it is now.
    pub webhook: Webhook,
    /// Shown this once.
    #[serde(with = "sealed")]
    pub secret: Secret<String>,
}

/// What a new webhook is to be.
pub struct WebhookWish {
    /// Where events go; checked.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// Which events; checked.
    pub event_types: Vec<String>,
}

/// What is to change; nothing of what is absent.
#[derive(Default)]
pub struct WebhookChanges {
    /// Where events go; checked.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Which events; checked.
    pub event_types: Option<Vec<String>>,
    /// Whether they are sent.
    pub enabled: Option<bool>,
}

impl App {
    /// Makes a webhook.
    ///
    /// # Errors
    /// `FieldsInvalid` when there are too many, `AnswerExpired` when repeated too late.
    pub async fn create_webhook(
        &self,
        t: &TenantCtx,
        wish: WebhookWish,
        key: Option<RequestKey>,
    ) -> Result<WebhookSecret, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        if webhooks::list(&mut open.tx).await?.len() >= MOST {
            let problem =
                format!("would be of one webhook more than the {MOST} that there may be; delete another first");
            return Err(Error::field("url", problem));
        }
        let webhook = Webhook {
            webhook_id: t.ctx.new_id(),
            url: wish.url,
            description: wish.description,
            event_types: wish.event_types,
            status: WebhookStatus::Enabled,
            failures: 0,
            failing_since: None,
            problem: String::new(),
            rests_until: None,
            old_until: None,
            version: 1,
            created_at: t.ctx.now,
            updated_at: t.ctx.now,
        };
        let secret = new_secret();
        let sealed = self.seal_webhook(tenant_id, webhook.webhook_id, &secret);
        webhooks::insert(&mut open.tx, &webhook, &sealed).await?;
        let audit = Audit::of(webhook.webhook_id)
            .set("url", webhook.url.as_str())
            .set("event_types", webhook.event_types.clone());
        self.finish_secret(open, &t.ctx, audit, WebhookSecret { webhook, secret }).await
    }

    /// Shows the webhooks, oldest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_webhooks(&self, t: &TenantCtx) -> Result<Vec<Webhook>, Error> {
        webhooks::list(&mut self.store.read(InTenant(t.tenant_id())).await?).await
    }

    /// Changes a webhook.
    ///
    /// # Errors
    /// `WebhookNotFound`, `EtagMismatch`.
    pub async fn update_webhook(
        &self,
        t: &TenantCtx,
        id: Uuid,
        changes: WebhookChanges,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Webhook, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        webhooks::hold(&mut open.tx, id, t.ctx.now).await?;
        let before = webhooks::find(&mut open.tx, id).await?;
        check_etag(sent_etag, before.version)?;
        let mut after = before.clone();
        after.url = changes.url.unwrap_or(after.url);
        after.description = changes.description.unwrap_or(after.description);
        after.event_types = changes.event_types.unwrap_or(after.event_types);
        match changes.enabled {
            Some(true) if before.status != WebhookStatus::Enabled => after.status = WebhookStatus::Enabled,
            Some(false) => {
                after.status = WebhookStatus::Disabled;
                webhooks::give_up(&mut open.tx, id, OFF, t.ctx.now).await?;
            }
            _ => {}
        }
        // Another address, or a new beginning, is not judged by what was before.
        if after.url != before.url || after.status != before.status {
            (after.failures, after.failing_since, after.rests_until) = (0, None, None);
            after.problem.clear();
        }
        after.version += 1;
        after.updated_at = t.ctx.now;
        webhooks::update(&mut open.tx, &after).await?;
        let audit = Audit::of(id)
            .field("url", before.url, after.url.as_str())
            .field("description", before.description, after.description.as_str())
            .field("event_types", before.event_types, after.event_types.clone())
            .field("status", before.status.as_str(), after.status.as_str());
        self.finish(open, &t.ctx, audit, after).await
    }

    /// Ends a webhook.
    ///
    /// # Errors
    /// `WebhookNotFound`.
    pub async fn delete_webhook(&self, t: &TenantCtx, id: Uuid, key: Option<RequestKey>) -> Result<(), Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(()) => return Ok(()),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let before = webhooks::find(&mut open.tx, id).await?;
        webhooks::delete(&mut open.tx, id).await?;
        let audit = Audit::of(id).field("url", before.url, serde_json::Value::Null);
        self.finish(open, &t.ctx, audit, ()).await
    }

    /// Sends a test event.
    ///
    /// # Errors
    /// `WebhookNotFound`, `WrongState` when it is switched off.
    pub async fn test_webhook(&self, t: &TenantCtx, id: Uuid, key: Option<RequestKey>) -> Result<Delivery, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let hook = webhooks::find(&mut open.tx, id).await?;
        if hook.status != WebhookStatus::Enabled {
            return Err(Error::WrongState { state: "switched off", wanted: "a webhook that is switched on" });
        }
        // Whoever asks does not want to wait until an endpoint that failed is looked at again.
        let hook = Webhook { rests_until: None, ..hook };
        let data = json!({ "tenant_id": tenant_id.to_string(), "webhook_id": id.to_string() });
        let delivery = webhooks::enqueue(&mut open.tx, &hook, (t.ctx.new_id(), TEST), &data, t.ctx.now).await?;
        let audit = Audit::of(id).set("delivery", delivery.delivery_id.to_string());
        self.finish(open, &t.ctx, audit, delivery).await
    }

    /// Shows what was sent to a webhook, the newest first, before one of them.
    ///
    /// # Errors
    /// `WebhookNotFound`.
    pub async fn list_webhook_deliveries(
        &self,
        t: &TenantCtx,
        id: Uuid,
        (before, limit): (Uuid, i64),
    ) -> Result<Vec<Delivery>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        webhooks::find(&mut tx, id).await?;
        webhooks::list_deliveries(&mut tx, id, before, limit).await
    }

    /// Gives a webhook another secret; the one before goes on signing for a while.
    ///
    /// # Errors
    /// `WebhookNotFound`, `AnswerExpired` when repeated too late.
    pub async fn rotate_webhook_secret(
        &self,
        t: &TenantCtx,
        id: Uuid,
        key: Option<RequestKey>,
    ) -> Result<WebhookSecret, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        self.lock_tenant(&mut open.tx, t).await?;
        let mut webhook = webhooks::find(&mut open.tx, id).await?;
        // The one that was promised to go on signing does, also when its successor is replaced meanwhile.
        let promised = webhook.old_until.filter(|until| *until > t.ctx.now);
        webhook.old_until = promised.or(Some(t.ctx.now.after(OVERLAP)));
        webhook.version += 1;
        webhook.updated_at = t.ctx.now;
        let secret = new_secret();
        webhooks::rotate(&mut open.tx, &webhook, &self.seal_webhook(tenant_id, id, &secret)).await?;
        let audit = Audit::of(id).set("secret_changed", true);
        self.finish_secret(open, &t.ctx, audit, WebhookSecret { webhook, secret }).await
    }

    /// Seals a secret for this webhook: moved to another row, it does not open.
    fn seal_webhook(&self, tenant: TenantId, id: Uuid, secret: &Secret<String>) -> Vec<u8> {
        self.master.seal(&[b"webhook"], &place(tenant, id), secret.expose().as_bytes())
    }

    fn open_webhook(&self, tenant: TenantId, id: Uuid, sealed: &[u8]) -> Result<Secret<String>, Error> {
        let secret = self.master.open_text(&[b"webhook"], &place(tenant, id), sealed);
        secret.ok_or_else(|| Error::internal("a webhook's secret does not open under this master key"))
    }
}

fn place(tenant: TenantId, id: Uuid) -> Vec<u8> {
    [tenant.0.as_bytes(), &id.as_bytes()[..]].concat()
}
