//! Thresholds that were reached, as the commit lanes noted them, and whether somebody was told.

use uuid::Uuid;

use crate::domain::quota::Notice;
use crate::entropy;
use crate::error::Error;
use crate::store::feed::Change;
use crate::store::jobs::{self, JobKind};
use crate::store::scoped::TenantTx;
use crate::store::tx::{OfTenant, Statement, statements};
use crate::time::Timestamp;

statements! {
    LIST_UNTOLD: OfTenant = Statement::new(
        "select notice_id, account_id, metric, percent, used, limit_value, period_end
         from quota_notice
         where tenant_id = $1 and told_at is null
         order by at, percent, notice_id
         limit $2",
    );
    INSERT: OfTenant = Statement::new(
        "insert into quota_notice (tenant_id, notice_id, account_id, metric, percent, used, limit_value, period_end, at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    NOTE: OfTenant = Statement::new(
        "update quota_notice
         set told_at = $3
         where tenant_id = $1 and notice_id = $2",
    );
}

/// A threshold that was reached.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct NoticeRow {
    /// Which.
    pub notice_id: Uuid,
    /// On which account.
    pub account_id: Uuid,
    /// Of which metric.
    pub metric: String,
    /// The percent.
    pub percent: i64,
    /// What was used then.
    pub used: i64,
    /// Of how much.
    pub limit_value: i64,
    /// When the next period begins.
    pub period_end: Timestamp,
}

/// Notes thresholds that were reached, and has somebody told. What commit lanes note of that is in `meter.rs`.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(tx: &mut TenantTx, reached: &[Notice], now: Timestamp) -> Result<(), Error> {
    for notice in reached {
        let args = [
            entropy::id(now).into(),
            notice.account.account.into(),
            (&*notice.metric).into(),
            notice.percent.into(),
            notice.used.into(),
            notice.limit.into(),
            notice.period_end.into(),
            now.into(),
        ];
        tx.execute(&INSERT, &args).await?;
    }
    let tenant = tx.scope().0;
    if reached.is_empty() { Ok(()) } else { jobs::schedule_by(tx, JobKind::QuotaNotice, tenant.0, now).await }
}

/// Notices that nobody was told of, the oldest first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_untold(tx: &mut TenantTx, limit: i64) -> Result<Vec<NoticeRow>, Error> {
    tx.all(&LIST_UNTOLD, &[limit.into()]).await
}

/// Notes that somebody was told, for watchers as well.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn note(tx: &mut TenantTx, notice: &NoticeRow, now: Timestamp) -> Result<(), Error> {
    tx.execute(&NOTE, &[notice.notice_id.into(), now.into()]).await?;
    let tenant = tx.scope().0;
    tx.changed(Change::Quota(tenant, notice.notice_id));
    Ok(())
}
