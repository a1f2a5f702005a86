//! Webhooks.

use tonic::Request;
use uuid::Uuid;

use crate::app::mutation::etag;
use crate::app::webhooks::{WebhookChanges, WebhookWish};
use crate::domain::webhook::{Delivery, DeliveryStatus, Webhook, WebhookStatus, choose_url, event_types};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

pub(super) async fn create_webhook(
    s: &Services,
    request: Request<v1::CreateWebhookRequest>,
) -> Result<v1::CreateWebhookResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let url = f.read("url", choose_url(&m.url, s.0.app.courier.takes_http()));
    let description = f.text("description", &m.description, 200);
    let types = types(&mut f, "event_types", &m.event_types);
    let (Some(key), Some(url), Some(description), Some(event_types)) = (key, url, description, types) else {
        return Err(f.refuse());
    };
    let made = s.0.app.create_webhook(&t, WebhookWish { url, description, event_types }, key).await?;
    Ok(v1::CreateWebhookResponse {
        webhook: Some(webhook(&made.webhook, t.ctx.now)),
        secret: made.secret.expose().clone(),
    })
}

pub(super) async fn list_webhooks(
    s: &Services,
    request: Request<v1::ListWebhooksRequest>,
) -> Result<v1::ListWebhooksResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let hooks = s.0.app.list_webhooks(&t).await?;
    Ok(v1::ListWebhooksResponse {
        webhooks: hooks.iter().map(|hook| webhook(hook, t.ctx.now)).collect(),
        event_types: event_types().map(str::to_owned).collect(),
    })
}

pub(super) async fn update_webhook(
    s: &Services,
    request: Request<v1::UpdateWebhookRequest>,
) -> Result<v1::UpdateWebhookResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let id = id(&mut f, &m.webhook_id);
    let changes = WebhookChanges {
        url: m.url.as_ref().and_then(|url| f.read("url", choose_url(url, s.0.app.courier.takes_http()))),
        description: m.description.as_ref().and_then(|text| f.text("description", text, 200)),
        event_types: m.event_types.as_ref().and_then(|m| types(&mut f, "event_types.event_types", &m.event_types)),
        enabled: m.enabled,
    };
    let (Some(key), Some(id), true) = (key, id, f.is_clean()) else { return Err(f.refuse()) };
    let after = s.0.app.update_webhook(&t, id, changes, &m.etag, key).await?;
    Ok(v1::UpdateWebhookResponse { webhook: Some(webhook(&after, t.ctx.now)) })
}

pub(super) async fn delete_webhook(
    s: &Services,
    request: Request<v1::DeleteWebhookRequest>,
) -> Result<v1::DeleteWebhookResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, id(&mut f, &m.webhook_id)) else { return Err(f.refuse()) };
    s.0.app.delete_webhook(&t, id, key).await?;
    Ok(v1::DeleteWebhookResponse {})
}

pub(super) async fn test_webhook(
    s: &Services,
    request: Request<v1::TestWebhookRequest>,
) -> Result<v1::TestWebhookResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, id(&mut f, &m.webhook_id)) else { return Err(f.refuse()) };
    let sent = s.0.app.test_webhook(&t, id, key).await?;
    Ok(v1::TestWebhookResponse { delivery: Some(delivery(sent)) })
}

pub(super) async fn list_webhook_deliveries(
    s: &Services,
    request: Request<v1::ListWebhookDeliveriesRequest>,
) -> Result<v1::ListWebhookDeliveriesResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(id) = id(&mut f, &m.webhook_id) else { return Err(f.refuse()) };
    let bound = v1::ListWebhookDeliveriesRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let app = &s.0.app;
    let page = Page::read(&app.master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &bound)?;
    let mut rows = app.list_webhook_deliveries(&t, id, page.span_down()).await?;
    let next_page_token = page.cut(&app.master, &mut rows, |row| row.delivery_id);
    Ok(v1::ListWebhookDeliveriesResponse { deliveries: rows.into_iter().map(delivery).collect(), next_page_token })
}

pub(super) async fn rotate_webhook_secret(
    s: &Services,
    request: Request<v1::RotateWebhookSecretRequest>,
) -> Result<v1::RotateWebhookSecretResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(id)) = (key, id(&mut f, &m.webhook_id)) else { return Err(f.refuse()) };
    let made = s.0.app.rotate_webhook_secret(&t, id, key).await?;
    Ok(v1::RotateWebhookSecretResponse {
        webhook: Some(webhook(&made.webhook, t.ctx.now)),
        secret: made.secret.expose().clone(),
    })
}

fn id(f: &mut Fields, text: &str) -> Option<Uuid> {
    f.read("webhook_id", Uuid::try_parse(text).map_err(|_| "must be a webhook's id, a UUID"))
}

/// Types of events: each once, in the order of their names.
fn types(f: &mut Fields, field: &str, names: &[String]) -> Option<Vec<String>> {
    let known = names.iter().all(|name| event_types().any(|known| known == name));
    let problem = || format!("must be some of {}", event_types().collect::<Vec<_>>().join(", "));
    let mut types = f.read(field, known.then(|| names.to_vec()).ok_or_else(problem))?;
    types.sort();
    types.dedup();
    Some(types)
}

fn webhook(hook: &Webhook, now: Timestamp) -> v1::Webhook {
    let status = match hook.status {
        WebhookStatus::Enabled => v1::WebhookStatus::Enabled,
        WebhookStatus::Disabled => v1::WebhookStatus::Disabled,
        WebhookStatus::Dead => v1::WebhookStatus::Dead,
    };
    v1::Webhook {
        webhook_id: hook.webhook_id.to_string(),
        url: hook.url.clone(),
        description: hook.description.clone(),
        event_types: hook.event_types.clone(),
        status: status.into(),
        failing_since: hook.failing_since.map(convert::time),
        problem: hook.problem.clone(),
        old_secret_expire_time: hook.old_until.filter(|until| *until > now).map(convert::time),
        create_time: Some(convert::time(hook.created_at)),
        update_time: Some(convert::time(hook.updated_at)),
        etag: etag(hook.version),
    }
}

fn delivery(row: Delivery) -> v1::WebhookDelivery {
    let status = match row.status {
        DeliveryStatus::Waiting => v1::WebhookDeliveryStatus::Waiting,
        DeliveryStatus::Delivered => v1::WebhookDeliveryStatus::Delivered,
        DeliveryStatus::GivenUp => v1::WebhookDeliveryStatus::GivenUp,
    };
    v1::WebhookDelivery {
        delivery_id: row.delivery_id.to_string(),
        event_type: row.event_type,
        status: status.into(),
        attempts: i32::try_from(row.attempts).unwrap_or(i32::MAX),
        response_code: i32::try_from(row.response_code).unwrap_or_default(),
        problem: row.problem,
        create_time: Some(convert::time(row.created_at)),
        attempt_time: row.attempted_at.map(convert::time),
        next_attempt_time: (row.status == DeliveryStatus::Waiting).then(|| convert::time(row.next_attempt_at)),
        body: row.body,
    }
}
