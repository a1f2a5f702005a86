//! Rows of impersonations.

use uuid::Uuid;

use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::id::{PlatformKeyId, SessionId, UserId};
use crate::domain::impersonation::Impersonation;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into impersonation (tenant_id, impersonation_id, user_id, operator_key_id, operator_name, reason,
                                    started_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    FIND: OfTenant = Statement::new(
        "select impersonation_id, user_id, operator_key_id, operator_name, reason, started_at, expires_at, ended_at
         from impersonation
         where tenant_id = $1 and impersonation_id = $2",
    );
    LIST: OfTenant = Statement::new(
        "select impersonation_id, user_id, operator_key_id, operator_name, reason, started_at, expires_at, ended_at
         from impersonation
         where tenant_id = $1 and impersonation_id < $2
         order by impersonation_id desc
         limit $3",
    );
    END: OfTenant = Statement::new(
        "update impersonation
         set ended_at = $3
         where tenant_id = $1 and impersonation_id = $2 and ended_at is null and expires_at > $3",
    );
}

#[derive(sqlx::FromRow)]
struct ImpersonationRow {
    impersonation_id: Uuid,
    user_id: Uuid,
    operator_key_id: Uuid,
    operator_name: String,
    reason: String,
    started_at: Timestamp,
    expires_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl From<ImpersonationRow> for Impersonation {
    fn from(row: ImpersonationRow) -> Self {
        Self {
            session_id: SessionId(row.impersonation_id),
            user_id: UserId(row.user_id),
            operator: PlatformKeyId(row.operator_key_id),
            operator_name: row.operator_name,
            reason: row.reason,
            started_at: row.started_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
        }
    }
}

/// Writes down that one has begun.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, begun: &Impersonation) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [
        begun.session_id.0.into(),
        begun.user_id.0.into(),
        begun.operator.0.into(),
        begun.operator_name.as_str().into(),
        begun.reason.as_str().into(),
        begun.started_at.into(),
        begun.expires_at.into(),
    ];
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// One of the tenant's.
///
/// # Errors
/// `ImpersonationNotFound`.
pub async fn get<S: Scope>(tx: &mut Scoped<S>, id: SessionId) -> Result<Impersonation, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<ImpersonationRow> = tx.optional(&FIND, &[id.0.into()]).await?;
    row.map(Impersonation::from).ok_or(Error::ImpersonationNotFound)
}

/// The tenant's, newest first, before one of them.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list<S: Scope>(tx: &mut Scoped<S>, before: Uuid, limit: i64) -> Result<Vec<Impersonation>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let rows: Vec<ImpersonationRow> = tx.all(&LIST, &[before.into(), limit.into()]).await?;
    Ok(rows.into_iter().map(Impersonation::from).collect())
}

/// Writes down that one has ended before its time.
///
/// # Errors
/// `ImpersonationNotFound` when it does not go on.
pub async fn end<S: Scope>(tx: &mut Scoped<S>, id: SessionId, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if tx.execute(&END, &[id.0.into(), now.into()]).await? == 0 {
        return Err(Error::ImpersonationNotFound);
    }
    Ok(())
}
