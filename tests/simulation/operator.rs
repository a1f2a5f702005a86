//! What other parts of the program do to the rows of quotas in transactions of their own: change limits, set gauges. Written
//! here as section 4.3 of the protocol says.

use std::sync::Arc;

use tenantry::domain::quota::{
    AccountKey, AccountRow, Book, Charge, Details, EventKey, EventKind, EventRow, LeaseRow, Scope, Standing,
};
use tenantry::store::quota::{Batch, Fault, Rows, Signal, Writes};
use uuid::Uuid;

use crate::faults::Point;
use crate::rows::{SimBatch, SimRows};
use crate::world::{World, wall};

/// How a limit is lowered. The protocol forbids all ways but one: the others are for the tests of the tests.
#[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "only tests of tests break the rules"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lowering {
    AsItShould,
    WithoutFencing,
    WithoutSumCheck,
    AccountFirst,
}

/// Locks the open leases of an account, and the account; closes them. None when a lease was granted meanwhile.
async fn fenced(
    batch: &mut SimBatch,
    account: AccountKey,
    how: Lowering,
) -> Result<Option<(AccountRow, Vec<LeaseRow>)>, Fault> {
    if how == Lowering::AccountFirst {
        batch.lock_accounts(&[account]).await?;
    }
    let leases = if how == Lowering::WithoutFencing { Vec::new() } else { batch.lock_leases_on(account).await? };
    let mut row = batch.lock_accounts(&[account]).await?.pop().ok_or(Fault::Away("no such account".to_owned()))?;
    batch.pass(Point::LowerRowsLocked).await?;
    if matches!(how, Lowering::AsItShould | Lowering::AccountFirst)
        && leases.iter().map(|lease| lease.granted).sum::<i64>() != row.leased
    {
        return Ok(None);
    }
    let mut closed = Vec::new();
    for lease in leases {
        let class = lease.class;
        let mut book = Book::new(vec![row], vec![lease]);
        book.fence(&account, class);
        closed.extend(book.lease(&account, class).cloned());
        row = book.account(&account).cloned().ok_or(Fault::Away("no such account".to_owned()))?;
    }
    Ok(Some((row, closed)))
}

async fn try_limit(rows: &SimRows, account: AccountKey, limit: i64, how: Lowering) -> Result<bool, Fault> {
    let mut batch = rows.begin().await?;
    let lowers = rows.world.state().db.tables.accounts.get(&account).is_some_and(|row| limit < row.limit);
    let how = if lowers { how } else { Lowering::WithoutFencing };
    let Some((row, leases)) = fenced(&mut batch, account, how).await? else { return Ok(false) };
    if !lowers && limit < row.limit {
        return Ok(false);
    }
    batch.write(Uuid::nil(), 0, wall(rows.world.now()), &Writes { leases, ..Writes::default() }).await?;
    let row = AccountRow { limit, shown_limit: Some(limit), revision: row.revision + 1, settled: 0, ..row };
    batch.put_account(row)?;
    batch.commit().await?;
    rows.tell(Signal::Returned, &[account]).await;
    Ok(true)
}

/// Sets the limit of an account, however often that takes.
pub(crate) async fn set_limit(world: &Arc<World>, account: AccountKey, limit: i64, how: Lowering) {
    let rows = SimRows { world: world.clone(), process: 0 };
    {
        let mut state = world.state();
        let highest = state.oracle.highest_limit.entry(account).or_default();
        *highest = limit.max(*highest);
        state.note(|| format!("limit {limit} of {:?}", account.scope));
    }
    while !matches!(try_limit(&rows, account, limit, how).await, Ok(true)) {
        world.sleep(2_000).await;
    }
}

async fn try_gauge(rows: &SimRows, account: AccountKey, key: &EventKey, value: i64) -> Result<bool, Fault> {
    let now = wall(rows.world.now());
    let mut event = EventRow {
        key: key.clone(),
        payload_hash: [9; 32],
        admitted: true,
        kind: EventKind::Set,
        leased: false,
        charges: Vec::new(),
        decided_at: now,
        event_at: now,
        details: Arc::new(Details::default()),
        subject: Box::default(),
    };
    let mut batch = rows.begin().await?;
    if batch.claim(&[&event]).await?.is_empty() {
        return Ok(true);
    }
    let Some((row, leases)) = fenced(&mut batch, account, Lowering::AsItShould).await? else { return Ok(false) };
    let change = value - row.committed;
    let standing = Standing::default();
    event.charges.push(Charge { metric: row.metric.clone(), account, amount: change, refunded: 0, standing });
    let rollup = tenantry::store::quota::RollupRow {
        tenant: account.tenant,
        bucket: tenantry::domain::bucket::Bucket::of(now).start(),
        metric: row.metric.clone(),
        details: Arc::new(Details::default()),
        events: 1,
        amount: change,
    };
    let rollups = if change == 0 || account.scope != Scope::Tenant { Vec::new() } else { vec![rollup] };
    let accounts = vec![AccountRow { committed: value, ..row }];
    let writes = Writes { decided: vec![event], leases, accounts, rollups, ..Writes::default() };
    batch.write(Uuid::nil(), 0, now, &writes).await?;
    batch.commit().await?;
    rows.tell(Signal::Returned, &[account]).await;
    Ok(true)
}

/// Sets the level of a gauge, however often that takes.
pub(crate) async fn set_gauge(world: &Arc<World>, account: AccountKey, value: i64) {
    let rows = SimRows { world: world.clone(), process: 0 };
    let key = {
        let mut state = world.state();
        state.oracle.is_mixed = true;
        EventKey { tenant: account.tenant, key: format!("set-{}", state.id()).into() }
    };
    while !matches!(try_gauge(&rows, account, &key, value).await, Ok(true)) {
        world.sleep(2_000).await;
    }
}
