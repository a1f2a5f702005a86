//! Rows of overrides and switches: what a tenant may use besides, or instead of, what its plan says.

use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::entitlement::LimitOverride;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    FIND_LIMIT: OfTenant = Statement::new(
        "select limit_value, expires_at
         from limit_override
         where tenant_id = $1 and metric = $2",
    );
}

#[derive(sqlx::FromRow)]
struct LimitRow {
    limit_value: Option<i64>,
    expires_at: Option<Timestamp>,
}

/// The override of a metric's limit that holds at `now`.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_limit<S: Scope>(
    tx: &mut Scoped<S>,
    metric: &str,
    now: Timestamp,
) -> Result<Option<LimitOverride>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<LimitRow> = tx.optional(&FIND_LIMIT, &[metric.into()]).await?;
    let own = row.map(|row| LimitOverride { limit: row.limit_value, expires_at: row.expires_at });
    Ok(own.filter(|own| own.holds(now)))
}
