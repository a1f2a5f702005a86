//! Rows of webhooks, and of what is sent to them. An event is written with the audit row of what happened, for each webhook
//! that takes it, with the job that sends it.

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::jobs::{self, JobKind};
use super::scoped::{Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::ctx::Ctx;
use crate::domain::id::TenantId;
use crate::domain::webhook::{Delivery, DeliveryStatus, Webhook, WebhookStatus};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    LIST: OfTenant = Statement::new(
        "select webhook_id, url, description, event_types, status, failures, failing_since, problem, rests_until,
                old_until, version, created_at, updated_at
         from webhook
         where tenant_id = $1
         order by webhook_id",
    );
    FIND: OfTenant = Statement::new(
        "select webhook_id, url, description, event_types, status, failures, failing_since, problem, rests_until,
                old_until, version, created_at, updated_at
         from webhook
         where tenant_id = $1 and webhook_id = $2",
    );
    FIND_SECRETS: OfTenant = Statement::new(
        "select sealed, sealed_old, old_until
         from webhook
         where tenant_id = $1 and webhook_id = $2",
    );
    INSERT: OfTenant = Statement::new(
        "insert into webhook (tenant_id, webhook_id, url, description, event_types, status, sealed, failures, problem,
                              version, created_at, updated_at)
         values ($1, $2, $3, $4, $5, 1, $6, 0, '', 1, $7, $7)",
    );
    UPDATE: OfTenant = Statement::new(
        "update webhook
         set url = $3, description = $4, event_types = $5, status = $6, failures = $7, failing_since = $8, problem = $9,
             rests_until = $10, version = $11, updated_at = $12
         where tenant_id = $1 and webhook_id = $2 and version = $11 - 1",
    );
    ROTATE: OfTenant = Statement::new(
        "update webhook
         set sealed_old = case when old_until > $6 then sealed_old else sealed end, sealed = $3, old_until = $4,
             version = $5, updated_at = $6
         where tenant_id = $1 and webhook_id = $2 and version = $5 - 1",
    );
    /// What comes of deliveries: changes nothing that somebody has set.
    NOTE: OfTenant = Statement::new(
        "update webhook
         set failures = $3, failing_since = $4, problem = $5, rests_until = $6
         where tenant_id = $1 and webhook_id = $2",
    );
    DELETE: OfTenant = Statement::new(
        "delete from webhook
         where tenant_id = $1 and webhook_id = $2",
    );
    DELETE_DELIVERIES: OfTenant = Statement::new(
        "delete from webhook_delivery
         where tenant_id = $1 and webhook_id = $2",
    );
    INSERT_DELIVERY: OfTenant = Statement::new(
        "insert into webhook_delivery (tenant_id, delivery_id, webhook_id, event_type, body, status, attempts,
                                       response_code, problem, created_at, next_attempt_at)
         values ($1, $2, $3, $4, $5, 1, 0, 0, '', $6, $7)",
    );
    LIST_DELIVERIES: OfTenant = Statement::new(
        "select delivery_id, event_type, body, status, attempts, response_code, problem, created_at, attempted_at,
                next_attempt_at
         from webhook_delivery
         where tenant_id = $1 and webhook_id = $2 and delivery_id < $3
         order by delivery_id desc
         limit $4",
    );
    /// Somebody waits for a test.
    LIST_DUE: OfTenant = Statement::new(
        "select delivery_id, event_type, body, status, attempts, response_code, problem, created_at, attempted_at,
                next_attempt_at
         from webhook_delivery
         where tenant_id = $1 and webhook_id = $2 and status = 1 and next_attempt_at <= $3
         order by case event_type when 'webhook.test' then 0 else 1 end, next_attempt_at, delivery_id
         limit $4",
    );
    RECORD: OfTenant = Statement::new(
        "update webhook_delivery
         set status = $3, attempts = attempts + 1, response_code = $4, problem = $5, attempted_at = $6,
             next_attempt_at = $7, ended_at = $8
         where tenant_id = $1 and delivery_id = $2 and status = 1",
    );
    GIVE_UP: OfTenant = Statement::new(
        "update webhook_delivery
         set status = 3, problem = $3, ended_at = $4
         where tenant_id = $1 and webhook_id = $2 and status = 1",
    );
    NEXT: OfTenant = Statement::new(
        "select min(next_attempt_at) as at
         from webhook_delivery
         where tenant_id = $1 and webhook_id = $2 and status = 1",
    );
    OLDEST: OfTenant = Statement::new(
        "select min(ended_at) as at
         from webhook_delivery
         where tenant_id = $1 and webhook_id = $2 and status <> 1",
    );
    CLEAR: OfTenant = Statement::new(
        "delete from webhook_delivery
         where tenant_id = $1 and webhook_id = $2 and status <> 1 and ended_at <= $3",
    );
}

#[derive(sqlx::FromRow)]
struct WebhookRow {
    webhook_id: Uuid,
    url: String,
    description: String,
    event_types: String,
    status: i64,
    failures: i64,
    failing_since: Option<Timestamp>,
    problem: String,
    rests_until: Option<Timestamp>,
    old_until: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<WebhookRow> for Webhook {
    type Error = Error;

    fn try_from(row: WebhookRow) -> Result<Self, Error> {
        let wrong = || Error::internal("a webhook's row does not read");
        Ok(Self {
            webhook_id: row.webhook_id,
            url: row.url,
            description: row.description,
            event_types: serde_json::from_str(&row.event_types).map_err(|_| wrong())?,
            status: match row.status {
                1 => WebhookStatus::Enabled,
                2 => WebhookStatus::Disabled,
                3 => WebhookStatus::Dead,
                _ => return Err(wrong()),
            },
            failures: row.failures,
            failing_since: row.failing_since,
            problem: row.problem,
            rests_until: row.rests_until,
            old_until: row.old_until,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    delivery_id: Uuid,
    event_type: String,
    body: String,
    status: i64,
    attempts: i64,
    response_code: i64,
    problem: String,
    created_at: Timestamp,
    attempted_at: Option<Timestamp>,
    next_attempt_at: Timestamp,
}

impl TryFrom<DeliveryRow> for Delivery {
    type Error = Error;

    fn try_from(row: DeliveryRow) -> Result<Self, Error> {
        Ok(Self {
            delivery_id: row.delivery_id,
            event_type: row.event_type,
            body: row.body,
            status: match row.status {
                1 => DeliveryStatus::Waiting,
                2 => DeliveryStatus::Delivered,
                3 => DeliveryStatus::GivenUp,
                _ => return Err(Error::internal("a delivery's row does not read")),
            },
            attempts: row.attempts,
            response_code: row.response_code,
            problem: row.problem,
            created_at: row.created_at,
            attempted_at: row.attempted_at,
            next_attempt_at: row.next_attempt_at,
        })
    }
}

/// The secrets of a webhook, sealed.
#[derive(sqlx::FromRow)]
pub struct SealedSecrets {
    /// What signs.
    pub sealed: Vec<u8>,
    /// What signed before the last rotation.
    pub sealed_old: Option<Vec<u8>>,
    /// Until when that signs as well.
    pub old_until: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct At {
    at: Option<Timestamp>,
}

/// What came of trying to deliver.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// How far the delivery has come.
    pub status: DeliveryStatus,
    /// The status of the answer; 0 for none.
    pub response_code: i64,
    /// What went wrong.
    pub problem: String,
    /// When it is tried again, when it waits.
    pub next_attempt_at: Timestamp,
}

const fn number(status: DeliveryStatus) -> i64 {
    match status {
        DeliveryStatus::Waiting => 1,
        DeliveryStatus::Delivered => 2,
        DeliveryStatus::GivenUp => 3,
    }
}

fn json_array(names: &[String]) -> String {
    Json::from(names).to_string()
}

/// The webhooks of the tenant, oldest first.
///
/// # Errors
/// `DatabaseUnavailable`; internal when a row does not read.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Webhook>, Error> {
    let rows: Vec<WebhookRow> = tx.all(&LIST, &[]).await?;
    rows.into_iter().map(Webhook::try_from).collect()
}

/// A webhook of the tenant.
///
/// # Errors
/// `WebhookNotFound`.
pub async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Webhook, Error> {
    let row: Option<WebhookRow> = tx.optional(&FIND, &[id.into()]).await?;
    row.ok_or(Error::WebhookNotFound)?.try_into()
}

/// The secrets of a webhook.
///
/// # Errors
/// `WebhookNotFound`.
pub async fn find_secrets(tx: &mut TenantTx, id: Uuid) -> Result<SealedSecrets, Error> {
    tx.optional(&FIND_SECRETS, &[id.into()]).await?.ok_or(Error::WebhookNotFound)
}

/// Writes a new webhook.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(tx: &mut TenantTx, hook: &Webhook, sealed: &[u8]) -> Result<(), Error> {
    let types = json_array(&hook.event_types);
    let args = [
        hook.webhook_id.into(),
        hook.url.as_str().into(),
        hook.description.as_str().into(),
        types.as_str().into(),
        sealed.into(),
        hook.created_at.into(),
    ];
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// Writes what was set, over the version before.
///
/// # Errors
/// `EtagMismatch` when the row is another one by now.
pub async fn update(tx: &mut TenantTx, hook: &Webhook) -> Result<(), Error> {
    let types = json_array(&hook.event_types);
    let status = match hook.status {
        WebhookStatus::Enabled => 1_i64,
        WebhookStatus::Disabled => 2,
        WebhookStatus::Dead => 3,
    };
    let args = [
        hook.webhook_id.into(),
        hook.url.as_str().into(),
        hook.description.as_str().into(),
        types.as_str().into(),
        status.into(),
        hook.failures.into(),
        hook.failing_since.into(),
        hook.problem.as_str().into(),
        hook.rests_until.into(),
        hook.version.into(),
        hook.updated_at.into(),
    ];
    if tx.execute(&UPDATE, &args).await? == 0 { Err(Error::EtagMismatch) } else { Ok(()) }
}

/// Writes another secret, and keeps the one before until `hook.old_until`.
///
/// # Errors
/// `EtagMismatch` when the row is another one by now.
pub async fn rotate(tx: &mut TenantTx, hook: &Webhook, sealed: &[u8]) -> Result<(), Error> {
    let args =
        [hook.webhook_id.into(), sealed.into(), hook.old_until.into(), hook.version.into(), hook.updated_at.into()];
    if tx.execute(&ROTATE, &args).await? == 0 { Err(Error::EtagMismatch) } else { Ok(()) }
}

/// Writes how deliveries go.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn note(tx: &mut TenantTx, hook: &Webhook) -> Result<(), Error> {
    let args = [
        hook.webhook_id.into(),
        hook.failures.into(),
        hook.failing_since.into(),
        hook.problem.as_str().into(),
        hook.rests_until.into(),
    ];
    tx.execute(&NOTE, &args).await.map(|_| ())
}

/// Deletes a webhook with its deliveries and its job.
///
/// # Errors
/// `WebhookNotFound`.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<(), Error> {
    // First the job: in the order of whoever delivers.
    jobs::schedule(tx, JobKind::Webhook, id, None).await?;
    if tx.execute(&DELETE, &[id.into()]).await? == 0 {
        return Err(Error::WebhookNotFound);
    }
    tx.execute(&DELETE_DELIVERIES, &[id.into()]).await.map(|_| ())
}

/// Keeps whoever delivers to a webhook from writing until the transaction ends: its rows are locked in one order, the job's
/// first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn hold(tx: &mut TenantTx, id: Uuid, now: Timestamp) -> Result<(), Error> {
    jobs::schedule_by(tx, JobKind::Webhook, id, now).await
}

/// Deliveries of a webhook before one of them, the newest first.
///
/// # Errors
/// `DatabaseUnavailable`; internal when a row does not read.
pub async fn list_deliveries(tx: &mut TenantTx, id: Uuid, before: Uuid, limit: i64) -> Result<Vec<Delivery>, Error> {
    let rows: Vec<DeliveryRow> = tx.all(&LIST_DELIVERIES, &[id.into(), before.into(), limit.into()]).await?;
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Deliveries of a webhook that are due.
///
/// # Errors
/// `DatabaseUnavailable`; internal when a row does not read.
pub async fn list_due(tx: &mut TenantTx, id: Uuid, now: Timestamp, limit: i64) -> Result<Vec<Delivery>, Error> {
    let rows: Vec<DeliveryRow> = tx.all(&LIST_DUE, &[id.into(), now.into(), limit.into()]).await?;
    rows.into_iter().map(Delivery::try_from).collect()
}

/// Writes what came of trying to deliver.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn record(tx: &mut TenantTx, delivery: Uuid, attempt: &Attempt, now: Timestamp) -> Result<(), Error> {
    let ended = (attempt.status != DeliveryStatus::Waiting).then_some(now);
    let args = [
        delivery.into(),
        number(attempt.status).into(),
        attempt.response_code.into(),
        attempt.problem.as_str().into(),
        now.into(),
        attempt.next_attempt_at.into(),
        ended.into(),
    ];
    tx.execute(&RECORD, &args).await.map(|_| ())
}

/// Gives up what waits for a webhook.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn give_up(tx: &mut TenantTx, id: Uuid, problem: &str, now: Timestamp) -> Result<(), Error> {
    tx.execute(&GIVE_UP, &[id.into(), problem.into(), now.into()]).await.map(|_| ())
}

/// Clears deliveries away that ended before `kept_from`; when there is something to be delivered next, and when the oldest
/// that is left ended.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn clear(
    tx: &mut TenantTx,
    id: Uuid,
    kept_from: Timestamp,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Error> {
    tx.execute(&CLEAR, &[id.into(), kept_from.into()]).await?;
    let next: Option<At> = tx.optional(&NEXT, &[id.into()]).await?;
    let oldest: Option<At> = tx.optional(&OLDEST, &[id.into()]).await?;
    Ok((next.and_then(|row| row.at), oldest.and_then(|row| row.at)))
}

/// Writes an event for one webhook, with the job that sends it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn enqueue<S: Scope>(
    tx: &mut Scoped<S>,
    hook: &Webhook,
    (id, event_type): (Uuid, &str),
    data: &Json,
    now: Timestamp,
) -> Result<Delivery, Error> {
    let delivery = Delivery {
        delivery_id: id,
        event_type: event_type.to_owned(),
        body: json!({ "type": event_type, "timestamp": now.to_string(), "data": data }).to_string(),
        status: DeliveryStatus::Waiting,
        attempts: 0,
        response_code: 0,
        problem: String::new(),
        created_at: now,
        attempted_at: None,
        next_attempt_at: hook.rests_until.filter(|until| *until > now).unwrap_or(now),
    };
    let args = [
        id.into(),
        hook.webhook_id.into(),
        event_type.into(),
        delivery.body.as_str().into(),
        now.into(),
        delivery.next_attempt_at.into(),
    ];
    tx.execute_if_tenant(&INSERT_DELIVERY, &args).await?;
    jobs::schedule_by(tx, JobKind::Webhook, hook.webhook_id, delivery.next_attempt_at).await?;
    Ok(delivery)
}

/// Writes an event for each webhook of the transaction's tenant that takes it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub(super) async fn tell<S: Scope>(
    tx: &mut Scoped<S>,
    ctx: &Ctx,
    tenant: TenantId,
    event_type: &str,
    mut data: Json,
) -> Result<(), Error> {
    let rows: Vec<WebhookRow> = tx.all_if_tenant(&LIST, &[]).await?;
    data["tenant_id"] = Json::from(tenant.to_string());
    for row in rows {
        let hook = Webhook::try_from(row)?;
        if hook.takes(event_type) {
            enqueue(tx, &hook, (ctx.new_id(), event_type), &data, ctx.now).await?;
        }
    }
    Ok(())
}
