//! Rows of usage: one account a metric and period, one event a keyed call.

use super::dialect::LOCK_QUOTA_ACCOUNT;
use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::period::Period;
use crate::entropy;
use crate::error::Error;
use crate::time::Timestamp;
use uuid::Uuid;

statements! {
    ENSURE_ACCOUNT: OfTenant = Statement::new(
        "insert into quota_account (tenant_id, account_id, metric, scope, scope_id, period_start, committed)
         values ($1, $4, $2, 2, $5, $3, 0)
         on conflict (tenant_id, metric, scope, scope_id, period_start) do nothing",
    );
    ADD: OfTenant = Statement::new(
        "update quota_account
         set committed = committed + $4
         where tenant_id = $1 and metric = $2 and scope = 2 and period_start = $3 and committed + $4 <= $5",
    );
    FIND: OfTenant = Statement::new(
        "select committed
         from quota_account
         where tenant_id = $1 and metric = $2 and scope = 2 and period_start = $3",
    );
    LIST: OfTenant = Statement::new(
        "select metric, period_start, committed
         from quota_account
         where tenant_id = $1 and scope = 2 and (metric > $2 or (metric = $2 and period_start > $3))
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
    CLAIM_EVENT: OfTenant = Statement::new(
        "insert into usage_event (tenant_id, key, payload_hash, verdict, charges, answer, decided_at)
         values ($1, $2, $3, 0, '{}', '', $4)
         on conflict (tenant_id, key) do nothing",
    );
    FIND_EVENT: OfTenant = Statement::new(
        "select payload_hash, answer
         from usage_event
         where tenant_id = $1 and key = $2",
    );
    DECIDE_EVENT: OfTenant = Statement::new(
        "update usage_event
         set verdict = $3, charges = $4, answer = $5
         where tenant_id = $1 and key = $2",
    );
}

#[derive(sqlx::FromRow)]
struct Account {
    committed: i64,
}

/// What was used of a metric in a period.
#[derive(Debug, sqlx::FromRow)]
pub struct UsedRow {
    /// The metric.
    pub metric: String,
    /// When the period began.
    pub period_start: Timestamp,
    /// How much.
    pub committed: i64,
}

/// A keyed call, and what came of it.
#[derive(Debug, sqlx::FromRow)]
pub struct UsageEventRow {
    /// Its idempotency key.
    pub key: String,
    /// 1 admitted, 2 refused.
    pub verdict: i64,
    /// JSON: metric to amount.
    pub charges: String,
    /// When.
    pub decided_at: Timestamp,
}

/// What a keyed call was told.
#[derive(sqlx::FromRow)]
pub struct EventRow {
    /// SHA-256 of what it asked.
    pub payload_hash: Vec<u8>,
    /// The answer, as the caller of `decide` wrote it.
    pub answer: String,
}

/// The used amount of a metric, locked until the transaction ends. Lock several in the order of their names.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock<S: Scope>(tx: &mut Scoped<S>, metric: &str, period: Period) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let key = [metric.into(), period.start.into()];
    let account = entropy::id(period.start);
    tx.execute(&ENSURE_ACCOUNT, &[metric.into(), period.start.into(), account.into(), Uuid::nil().into()]).await?;
    let row: Option<Account> = tx.optional(&LOCK_QUOTA_ACCOUNT, &key).await?;
    row.map(|row| row.committed).ok_or_else(|| Error::internal("a quota account vanished"))
}

/// Adds to a locked account. The statement guards the limit as well.
///
/// # Errors
/// Internal when the guard refuses what was decided under the lock.
pub async fn add<S: Scope>(
    tx: &mut Scoped<S>,
    metric: &str,
    period: Period,
    amount: i64,
    limit: i64,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [metric.into(), period.start.into(), amount.into(), limit.into()];
    if tx.execute(&ADD, &args).await? == 0 {
        return Err(Error::internal("the guard refused an amount that the decision admitted"));
    }
    Ok(())
}

/// The used amount of a metric.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn used<S: Scope>(tx: &mut Scoped<S>, metric: &str, period: Period) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<Account> = tx.optional(&FIND, &[metric.into(), period.start.into()]).await?;
    Ok(row.map_or(0, |row| row.committed))
}

/// Claims an event's key for this call, or finds what the first call with it was told. Waits for a call with the same
/// key that is still open.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn claim<S: Scope>(
    tx: &mut Scoped<S>,
    key: &str,
    payload_hash: &[u8],
    now: Timestamp,
) -> Result<Option<EventRow>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if tx.execute(&CLAIM_EVENT, &[key.into(), payload_hash.into(), now.into()]).await? == 1 {
        return Ok(None);
    }
    let found: Option<EventRow> = tx.optional(&FIND_EVENT, &[key.into()]).await?;
    // Not claimed and not there: it was purged between the two.
    found.map(Some).ok_or_else(|| Error::DatabaseUnavailable("an event with this key was purged just now".into()))
}

/// Writes the decision into a claimed event.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn decide<S: Scope>(
    tx: &mut Scoped<S>,
    key: &str,
    admitted: bool,
    charges: &str,
    answer: &str,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let verdict: i64 = if admitted { 1 } else { 2 };
    tx.execute(&DECIDE_EVENT, &[key.into(), verdict.into(), charges.into(), answer.into()]).await.map(|_| ())
}

/// What was used, by metric and period, after one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(
    tx: &mut Scoped<S>,
    (metric, period_start): (&str, Timestamp),
    limit: i64,
) -> Result<Vec<UsedRow>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.all(&LIST, &[metric.into(), period_start.into(), limit.into()]).await
}

/// Keyed calls after one of them, by key.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_events<S: Scope>(tx: &mut Scoped<S>, after: &str, limit: i64) -> Result<Vec<UsageEventRow>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    tx.all(&LIST_EVENTS, &[after.into(), limit.into()]).await
}
