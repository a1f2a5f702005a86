//! Forgetting: events that are older than they are kept, with what they charged added to their accounts in the same
//! transaction, so that the books go on agreeing. Roll-ups stay.

use std::collections::BTreeMap;

use crate::domain::quota::{AccountKey, EventKind, read_charges};
use crate::error::Error;
use crate::store::dialect::{DELETE_EVENTS, DELETE_OLD_HOLDS, LOCK_OLD_EVENTS};
use crate::store::scoped::TenantTx;
use crate::store::tx::{Column, OfTenant, Statement, Value, statements};
use crate::time::Timestamp;

statements! {
    /// What was forgotten never comes back, also when more is kept from now on.
    PUT_HORIZON: OfTenant = Statement::new(
        "insert into usage_horizon (tenant_id, forgotten_until)
         values ($1, $2)
         on conflict (tenant_id) do update
         set forgotten_until = excluded.forgotten_until
         where usage_horizon.forgotten_until < excluded.forgotten_until",
    );
    ARCHIVE: OfTenant = Statement::new(
        "update quota_account
         set archived = archived + $3
         where tenant_id = $1 and account_id = $2",
    );
    DELETE_NOTICES: OfTenant = Statement::new(
        "delete from quota_notice
         where tenant_id = $1 and notice_id in (
           select notice_id from quota_notice where tenant_id = $1 and told_at < $2 limit $3)",
    );
}

#[derive(sqlx::FromRow)]
struct OldEvent {
    key: String,
    verdict: i64,
    kind: i64,
    charges: String,
}

/// Forgets events that happened, and were decided, before the beginning of a quarter of an hour; how many. Those that
/// somebody is at just now are left for the next time, so that nobody waits for anybody.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget_events(tx: &mut TenantTx, before: Timestamp, limit: i64) -> Result<usize, Error> {
    let events: Vec<OldEvent> = tx.all(&LOCK_OLD_EVENTS, &[before.into(), limit.into()]).await?;
    if events.is_empty() {
        return Ok(0);
    }
    tx.execute(&PUT_HORIZON, &[before.into()]).await?;
    let keys = [Column::Texts(events.iter().map(|event| (&event.key).into()).collect())];
    tx.execute(&DELETE_EVENTS, &[Value::Rows(&keys)]).await?;
    let tenant = tx.scope().0;
    let counted = events.iter().filter(|event| event.verdict == 1 && EventKind::of(event.kind).counts());
    // In the order in which everybody locks accounts.
    let mut sums: BTreeMap<AccountKey, i64> = BTreeMap::new();
    for charge in counted.flat_map(|event| read_charges(tenant, &event.charges)) {
        *sums.entry(charge.account).or_default() += charge.amount;
    }
    for (key, amount) in sums.into_iter().filter(|(_, amount)| *amount != 0) {
        tx.execute(&ARCHIVE, &[key.account.into(), amount.into()]).await?;
    }
    Ok(events.len())
}

/// Forgets holds that ended, and notices that were told, before an instant; how many.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget_rest(tx: &mut TenantTx, before: Timestamp, limit: i64) -> Result<u64, Error> {
    let holds = tx.execute(&DELETE_OLD_HOLDS, &[before.into(), limit.into()]).await?;
    Ok(holds + tx.execute(&DELETE_NOTICES, &[before.into(), limit.into()]).await?)
}
