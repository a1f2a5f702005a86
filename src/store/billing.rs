//! Rows of billing events: what the provider said, each once.

use super::scoped::TenantTx;
use super::tx::{OfTenant, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into billing_event (tenant_id, provider, event_id, payload_hash, kind, at, amount, currency, applied,
                                    created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (tenant_id, provider, event_id) do nothing",
    );
    FIND_HASH: OfTenant = Statement::new(
        "select payload_hash
         from billing_event
         where tenant_id = $1 and provider = $2 and event_id = $3",
    );
    LIST: OfTenant = Statement::new(
        "select provider, event_id, kind, at, amount, currency, applied
         from billing_event
         where tenant_id = $1 and (provider > $2 or (provider = $2 and event_id > $3))
         order by provider, event_id
         limit $4",
    );
}

/// What a provider said.
#[derive(Debug, Clone)]
pub struct BillingEvent {
    /// Which provider.
    pub provider: String,
    /// Its id of the event.
    pub event_id: String,
    /// What happened; as in subscription.proto.
    pub kind: i64,
    /// When.
    pub at: Timestamp,
    /// How much, in minor units.
    pub amount: i64,
    /// ISO 4217; empty when the provider did not say.
    pub currency: String,
}

/// An event as it is kept.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct BillingEventRow {
    /// Which provider.
    pub provider: String,
    /// Its id of the event.
    pub event_id: String,
    /// What happened; as in subscription.proto.
    pub kind: i64,
    /// When.
    pub at: Timestamp,
    /// How much, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// Whether it changed the subscription.
    pub applied: i64,
}

#[derive(sqlx::FromRow)]
struct HashRow {
    payload_hash: Vec<u8>,
}

/// Whether the event was told before, with the same content. To be asked under the tenant's lock.
///
/// # Errors
/// `BillingEventReused` for other content.
pub async fn was_told(tx: &mut TenantTx, event: &BillingEvent, payload_hash: &[u8]) -> Result<bool, Error> {
    let args = [event.provider.as_str().into(), event.event_id.as_str().into()];
    let row: Option<HashRow> = tx.optional(&FIND_HASH, &args).await?;
    match row {
        None => Ok(false),
        Some(row) if row.payload_hash == payload_hash => Ok(true),
        Some(_) => Err(Error::BillingEventReused),
    }
}

/// Keeps an event that was not told before.
///
/// # Errors
/// `DatabaseUnavailable`, also when another transaction has just told it: to be tried again.
pub async fn insert(
    tx: &mut TenantTx,
    event: &BillingEvent,
    payload_hash: &[u8],
    applied: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let args = [
        event.provider.as_str().into(),
        event.event_id.as_str().into(),
        payload_hash.into(),
        event.kind.into(),
        event.at.into(),
        event.amount.into(),
        event.currency.as_str().into(),
        i64::from(applied).into(),
        now.into(),
    ];
    match tx.execute(&INSERT, &args).await? {
        0 => Err(Error::DatabaseUnavailable("the event was told by another call just now".into())),
        _ => Ok(()),
    }
}

/// Events after one of them, by provider and id.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list(
    tx: &mut TenantTx,
    (provider, event_id): (&str, &str),
    limit: i64,
) -> Result<Vec<BillingEventRow>, Error> {
    tx.all(&LIST, &[provider.into(), event_id.into(), limit.into()]).await
}
