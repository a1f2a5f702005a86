//! Events as a tenant's own transaction writes them: where a gauge is set, outside the commit lanes.

use crate::domain::bucket::Bucket;
use crate::domain::quota::{EventRow, charges_text};
use crate::error::Error;
use crate::store::scoped::TenantTx;
use crate::store::tx::{OfTenant, Statement, statements};
use crate::time::Timestamp;
use uuid::Uuid;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into usage_event (tenant_id, key, payload_hash, verdict, charges, decided_at, kind, event_at)
         values ($1, $2, $3, 1, $4, $5, $6, $7)",
    );
    ADD_ROLLUP: OfTenant = Statement::new(
        "insert into usage_rollup (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard, events,
           amount)
         values ($1, $2, $3, $4, $4, '', '', 0, 0, 1, $5)
         on conflict (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard) do update
         set events = usage_rollup.events + excluded.events, amount = usage_rollup.amount + excluded.amount",
    );
}

/// Writes an event of a new key.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_event(tx: &mut TenantTx, event: &EventRow) -> Result<(), Error> {
    let charges = charges_text(&event.charges);
    let args = [
        (&*event.key.key).into(),
        event.payload_hash[..].into(),
        charges.as_str().into(),
        event.decided_at.into(),
        event.kind.number().into(),
        event.event_at.into(),
    ];
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// Adds an amount of nobody in particular to the roll-ups, if there is one.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert_rollup(tx: &mut TenantTx, metric: &str, amount: i64, at: Timestamp) -> Result<(), Error> {
    if amount == 0 {
        return Ok(());
    }
    let args = [Bucket::of(at).start().into(), metric.into(), Uuid::nil().into(), amount.into()];
    tx.execute(&ADD_ROLLUP, &args).await.map(|_| ())
}
