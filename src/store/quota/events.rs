//! Events as a tenant's own transaction sees them: written where a gauge is set, outside the commit lanes, and read where it
//! is asked who opened a hold.

use crate::domain::bucket::Bucket;
use crate::domain::quota::{EventRow, HoldKind, charges_text};
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
    FIND_OPENING: OfTenant = Statement::new(
        "select h.kind, h.opened_by, e.member_id, e.api_key_id
         from quota_hold h
         left join usage_event e on e.tenant_id = $1 and e.key = h.key
         where h.tenant_id = $1 and h.hold_id = $2",
    );
}

/// How a hold was opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// What it is.
    pub kind: HoldKind,
    /// By whom: a person or key.
    pub opened_by: Uuid,
    /// The person it is for.
    pub member: Option<Uuid>,
    /// The key it is for.
    pub api_key: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct OpeningRecord {
    kind: i64,
    opened_by: Uuid,
    member_id: Option<Uuid>,
    api_key_id: Option<Uuid>,
}

/// How a hold of the tenant was opened; none when there is no such hold.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_opening(tx: &mut TenantTx, hold: Uuid) -> Result<Option<Opening>, Error> {
    let row: Option<OpeningRecord> = tx.optional(&FIND_OPENING, &[hold.into()]).await?;
    Ok(row.map(|row| Opening {
        kind: HoldKind::of(row.kind),
        opened_by: row.opened_by,
        member: row.member_id,
        api_key: row.api_key_id,
    }))
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
