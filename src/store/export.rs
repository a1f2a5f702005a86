//! Reads of a tenant's rows in pages, for exports: what no other file lists.

use uuid::Uuid;

use super::scoped::TenantTx;
use super::tx::{OfTenant, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    LIST_USAGE: OfTenant = Statement::new(
        "select metric, period_start, committed
         from quota_account
         where tenant_id = $1 and (metric > $2 or (metric = $2 and period_start > $3))
         order by metric, period_start
         limit $4",
    );
    LIST_EVENTS: OfTenant = Statement::new(
        "select key, verdict, charges, decided_at
         from usage_event
         where tenant_id = $1 and key > $2
         order by key
         limit $3",
    );
    LIST_AUDIT: OfTenant = Statement::new(
        "select event_id, at, actor_kind, actor_id, action, subject_id, changes
         from audit_event
         where tenant_id = $1 and event_id > $2
         order by event_id
         limit $3",
    );
}

/// What was used of a metric in a period.
#[derive(sqlx::FromRow)]
pub struct UsageRow {
    /// The metric.
    pub metric: String,
    /// When the period began.
    pub period_start: Timestamp,
    /// How much.
    pub committed: i64,
}

/// A keyed call of usage.
#[derive(sqlx::FromRow)]
pub struct EventRow {
    /// Its idempotency key.
    pub key: String,
    /// 1 admitted, 2 refused.
    pub verdict: i64,
    /// JSON: metric to amount.
    pub charges: String,
    /// When.
    pub decided_at: Timestamp,
}

/// A row of the tenant's audit log.
#[derive(sqlx::FromRow)]
pub struct AuditRow {
    /// Its id, in the order of time.
    pub event_id: Uuid,
    /// When.
    pub at: Timestamp,
    /// As in access.proto.
    pub actor_kind: i64,
    /// Who.
    pub actor_id: Option<Uuid>,
    /// `Service/Method`.
    pub action: String,
    /// About what.
    pub subject_id: Option<Uuid>,
    /// JSON: field to before and after.
    pub changes: String,
}

/// Usage after a metric and the beginning of a period, in microseconds since 1970.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_usage(tx: &mut TenantTx, (metric, period): (&str, &str), limit: i64) -> Result<Vec<UsageRow>, Error> {
    let after = Timestamp::from_micros(period.parse().unwrap_or(0));
    tx.all(&LIST_USAGE, &[metric.into(), after.into(), limit.into()]).await
}

/// Events after a key.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_events(tx: &mut TenantTx, key: &str, limit: i64) -> Result<Vec<EventRow>, Error> {
    tx.all(&LIST_EVENTS, &[key.into(), limit.into()]).await
}

/// Audit rows after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_audit(tx: &mut TenantTx, after: Uuid, limit: i64) -> Result<Vec<AuditRow>, Error> {
    tx.all(&LIST_AUDIT, &[after.into(), limit.into()]).await
}
