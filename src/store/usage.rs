//! Usage as its tenant reads it: accounts and events for the export, thresholds.

use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::tx::{OfTenant, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    LIST: OfTenant = Statement::new(
        "select a.metric, a.period_start,
                a.committed + coalesce((select cast(sum(l.settled) as bigint) from quota_lease l
                                        where l.tenant_id = $1 and l.account_id = a.account_id), 0) as used
         from quota_account a
         where a.tenant_id = $1 and a.scope = 2 and (a.metric > $2 or (a.metric = $2 and a.period_start > $3))
         order by a.metric, a.period_start
         limit $4",
    );
    LIST_EVENTS: OfTenant = Statement::new(
        "select key, verdict, charges, decided_at, kind, event_at, member_id, api_key_id, endpoint, method, status,
                latency_us, attributes
         from usage_event
         where tenant_id = $1 and key > $2
         order by key
         limit $3",
    );
    FIND_THRESHOLDS: OfTenant = Statement::new(
        "select percents
         from quota_threshold
         where tenant_id = $1 and metric = $2",
    );
}

/// What was used of a metric in a period.
#[derive(Debug, sqlx::FromRow)]
pub struct UsedRow {
    /// The metric.
    pub metric: String,
    /// When the period began.
    pub period_start: Timestamp,
    /// How much.
    pub used: i64,
}

/// An event as it is kept.
#[derive(Debug, sqlx::FromRow)]
pub struct UsageEventRow {
    /// Its idempotency key.
    pub key: String,
    /// 1 admitted, 2 refused.
    pub verdict: i64,
    /// What was charged; `domain::quota::read_charges`.
    pub charges: String,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What it is; `domain::quota::EventKind`.
    pub kind: i64,
    /// When it happened; none in rows of before: when it was decided.
    pub event_at: Option<Timestamp>,
    /// The person.
    pub member_id: Option<uuid::Uuid>,
    /// The key.
    pub api_key_id: Option<uuid::Uuid>,
    /// What was called.
    pub endpoint: String,
    /// How.
    pub method: String,
    /// What it answered.
    pub status: i64,
    /// How long it took.
    pub latency_us: i64,
    /// JSON object; empty when there are none.
    pub attributes: String,
}

#[derive(sqlx::FromRow)]
struct Percents {
    percents: String,
}

/// What was used, by metric and period, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list(
    tx: &mut TenantTx,
    (metric, period_start): (&str, Timestamp),
    limit: i64,
) -> Result<Vec<UsedRow>, Error> {
    tx.all(&LIST, &[metric.into(), period_start.into(), limit.into()]).await
}

/// Events after one of them, by key.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_events(tx: &mut TenantTx, after: &str, limit: i64) -> Result<Vec<UsageEventRow>, Error> {
    tx.all(&LIST_EVENTS, &[after.into(), limit.into()]).await
}

/// The percents of a metric's limit of which the tenant wants to be told; none when it never said.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_thresholds<S: Scope>(tx: &mut Scoped<S>, metric: &str) -> Result<Option<Vec<i64>>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Percents> = tx.optional(&FIND_THRESHOLDS, &[metric.into()]).await?;
    Ok(row.map(|row| serde_json::from_str(&row.percents).unwrap_or_default()))
}
