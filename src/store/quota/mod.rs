//! Rows of the quota engine: accounts, leases, writers, events, holds and roll-ups of many tenants, read and written by the
//! commit lanes as the role `tenantry_meter`.
//!
//! [`Rows`] and [`Batch`] are the one place where the store is a trait: the engine's simulation puts rows in memory behind
//! them, with locks, crashes and lost commits of its own making.

pub mod accounts;
mod events;
mod lanes;
mod listen;
mod meter;
pub mod notices;
pub mod proof;
pub mod reports;
pub mod retention;

use std::future::Future;

use uuid::Uuid;

use std::sync::Arc;

use crate::domain::id::TenantId;
use crate::domain::quota::{
    AccountKey, AccountRow, Charge, Class, Details, EventKey, EventRow, HoldRow, LeaseRow, Notice,
};
use crate::time::Timestamp;

pub use events::{find_opening, insert_event, insert_rollup};
pub use listen::{Listener, Recalls};
pub use meter::QuotaRows;

pub(super) use accounts::account_columns;

/// The statements of the engine, for the tests.
pub(super) const STATEMENTS: [&[super::tx::Listed]; 7] = [
    accounts::STATEMENTS,
    events::STATEMENTS,
    lanes::STATEMENTS,
    notices::STATEMENTS,
    proof::STATEMENTS,
    reports::STATEMENTS,
    retention::STATEMENTS,
];

/// Why a step failed. In every case but an unknown commit nothing of the batch is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// In somebody's way: the same again may work.
    Retry(String),
    /// A value that the database does not take.
    Poison(String),
    /// The database does not answer.
    Away(String),
    /// The commit was sent, and whether it happened is not known.
    Unknown(String),
}

/// A commit lane of one run of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterRow {
    /// New at each start.
    pub writer: Uuid,
    /// Lanes of one process share it.
    pub process: Uuid,
    /// The last batch that was committed.
    pub batch_no: i64,
    /// Rises for as long as the lane lives.
    pub beat: i64,
}

/// What became of a batch whose commit was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was committed.
    Committed,
    /// It was not, and never will be.
    Dead,
    /// The writer was declared dead: nothing that it holds is worth anything.
    Gone,
}

/// What other servers are told of accounts, so that they need not wait for a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Leases on them are wanted back.
    Recall,
    /// Leases came back.
    Returned,
}

/// An amount for the roll-ups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupRow {
    /// The tenant.
    pub tenant: TenantId,
    /// The quarter of an hour.
    pub bucket: Timestamp,
    /// The metric.
    pub metric: Arc<str>,
    /// By whom, and what was called.
    pub details: Arc<Details>,
    /// How many events.
    pub events: i64,
    /// How much.
    pub amount: i64,
}

/// What a batch writes, besides the events that it claimed.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    /// Events whose verdict or charges are other than was written at the claim.
    pub decided: Vec<EventRow>,
    /// Claims that were given up.
    pub dropped: Vec<EventKey>,
    /// Events of which something was refunded.
    pub refunded: Vec<(EventKey, Vec<Charge>)>,
    /// Holds, opened or changed.
    pub holds: Vec<HoldRow>,
    /// Leases that were locked.
    pub leases: Vec<LeaseRow>,
    /// Accounts that were locked.
    pub accounts: Vec<AccountRow>,
    /// Roll-ups.
    pub rollups: Vec<RollupRow>,
    /// Thresholds that were reached.
    pub notices: Vec<Notice>,
}

/// One transaction of a lane. Dropped without commit, it leaves nothing behind. Locks are taken in one order by everybody:
/// writer, events, holds, leases, accounts; each in the order of its key.
pub trait Batch: Send {
    /// Counts the batch: false when the writer is gone or is at another batch.
    fn beat(&mut self, writer: Uuid, batch_no: i64) -> impl Future<Output = Result<bool, Fault>> + Send;
    /// Inserts events, but those whose key is taken; gives the keys that were taken, which are few. Waits for whoever has
    /// inserted the same key and has not committed.
    fn claim(&mut self, events: &[&EventRow]) -> impl Future<Output = Result<Vec<EventKey>, Fault>> + Send;
    /// Events as they are stored.
    fn find_events(&mut self, keys: &[EventKey]) -> impl Future<Output = Result<Vec<EventRow>, Fault>> + Send;
    /// The same, locked.
    fn lock_events(&mut self, keys: &[EventKey]) -> impl Future<Output = Result<Vec<EventRow>, Fault>> + Send;
    /// Holds, locked.
    fn lock_holds(&mut self, keys: &[(TenantId, Uuid)]) -> impl Future<Output = Result<Vec<HoldRow>, Fault>> + Send;
    /// Holds that should have ended by now, locked; those that somebody else has locked are passed over.
    fn lock_due_holds(
        &mut self,
        now: Timestamp,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<HoldRow>, Fault>> + Send;
    /// A writer's leases on these accounts, locked; only those that have a row.
    fn lock_leases(
        &mut self,
        writer: Uuid,
        keys: &[(AccountKey, Class)],
    ) -> impl Future<Output = Result<Vec<LeaseRow>, Fault>> + Send;
    /// Open leases of a writer, locked; those that somebody else has locked are passed over.
    fn lock_leases_of(&mut self, writer: Uuid, limit: i64)
    -> impl Future<Output = Result<Vec<LeaseRow>, Fault>> + Send;
    /// Accounts, locked; only those that there are.
    fn lock_accounts(&mut self, keys: &[AccountKey]) -> impl Future<Output = Result<Vec<AccountRow>, Fault>> + Send;
    /// Writes.
    fn write(
        &mut self,
        writer: Uuid,
        shard: i64,
        now: Timestamp,
        writes: &Writes,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Commits.
    fn commit(self) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The rows of the engine.
pub trait Rows: Send + Sync + 'static {
    /// A transaction.
    type Batch: Batch;
    /// Begins one.
    fn begin(&self) -> impl Future<Output = Result<Self::Batch, Fault>> + Send;
    /// Enters a writer, whether or not it is there already, with its number.
    fn register(&self, writer: WriterRow) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Finds out, on another connection, what became of a batch, and makes sure that it stays so: of one that is dead the
    /// next number is used up too, so that asking again gives the same answer.
    fn resolve(&self, writer: Uuid, batch_no: i64) -> impl Future<Output = Result<Fate, Fault>> + Send;
    /// All writers.
    fn writers(&self) -> impl Future<Output = Result<Vec<WriterRow>, Fault>> + Send;
    /// Removes a writer that is still at this beat and has no open lease; whether it did.
    fn bury(&self, writer: Uuid, beat: i64) -> impl Future<Output = Result<bool, Fault>> + Send;
    /// Accounts that these writers have leases on and that somebody waits for.
    fn recalled(&self, writers: &[Uuid]) -> impl Future<Output = Result<Vec<AccountKey>, Fault>> + Send;
    /// Tells other servers; may be lost.
    fn tell(&self, signal: Signal, accounts: &[AccountKey]) -> impl Future<Output = ()> + Send;
}
