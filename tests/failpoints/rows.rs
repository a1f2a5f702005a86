//! The engine's rows as the product keeps them, with points where a server may be trapped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tenantry::domain::id::TenantId;
use tenantry::domain::quota::{AccountKey, AccountRow, Class, EventKey, EventRow, HoldRow, LeaseRow};
use tenantry::store::quota::{Batch, Fate, Fault, QuotaRows, Rows, Signal, WriterRow, Writes};
use tenantry::time::Timestamp;
use uuid::Uuid;

use crate::points::Point;
use crate::trap::Trap;
use crate::wire::Wire;

/// What a server has of the database.
#[derive(Clone)]
pub(crate) struct TrapRows {
    pub(crate) rows: QuotaRows,
    pub(crate) slot: usize,
    pub(crate) wire: Option<Arc<Wire>>,
    pub(crate) trap: Arc<Trap>,
    /// The lanes that it entered.
    pub(crate) writers: Arc<Mutex<Vec<Uuid>>>,
}

type ProductBatch = <QuotaRows as Rows>::Batch;

/// A transaction.
pub(crate) struct TrapBatch {
    batch: ProductBatch,
    rows: TrapRows,
    /// Whether it is one of a lane.
    is_lane: bool,
    leases: BTreeMap<(AccountKey, Class), LeaseRow>,
    needs: BTreeMap<AccountKey, i64>,
    holds: BTreeSet<Uuid>,
    /// What its commit will be about; none before it has written.
    about: Option<Vec<Point>>,
}

fn lost() -> Fault {
    Fault::Unknown("the answer was lost".to_owned())
}

impl TrapRows {
    pub(crate) async fn pass(&self, point: Point) -> bool {
        self.trap.pass(point, self.slot, self.wire.as_deref()).await
    }
}

impl TrapBatch {
    /// What follows a cut is found out by the next statement.
    async fn pass(&self, point: Point) {
        self.rows.pass(point).await;
    }
}

impl Batch for TrapBatch {
    async fn beat(&mut self, writer: Uuid, batch_no: i64) -> Result<bool, Fault> {
        self.is_lane = true;
        self.batch.beat(writer, batch_no).await
    }

    async fn claim(&mut self, events: &[&EventRow]) -> Result<Vec<EventKey>, Fault> {
        // Not after every beat: of a batch with nothing in it there is nothing to lose.
        self.pass(Point::BatchBegin).await;
        let taken = self.batch.claim(events).await?;
        self.pass(Point::BatchClaimed).await;
        Ok(taken)
    }

    async fn find_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        self.batch.find_events(keys).await
    }

    async fn lock_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        self.batch.lock_events(keys).await
    }

    async fn lock_holds(&mut self, keys: &[(TenantId, Uuid)]) -> Result<Vec<HoldRow>, Fault> {
        let rows = self.batch.lock_holds(keys).await?;
        self.holds.extend(rows.iter().map(|row| row.hold));
        Ok(rows)
    }

    async fn lock_due_holds(&mut self, now: Timestamp, limit: i64) -> Result<Vec<HoldRow>, Fault> {
        let rows = self.batch.lock_due_holds(now, limit).await?;
        if !rows.is_empty() {
            self.pass(Point::ExpireLocked).await;
        }
        Ok(rows)
    }

    async fn lock_leases(&mut self, writer: Uuid, keys: &[(AccountKey, Class)]) -> Result<Vec<LeaseRow>, Fault> {
        let rows = self.batch.lock_leases(writer, keys).await?;
        self.leases.extend(rows.iter().map(|row| ((row.account, row.class), row.clone())));
        self.pass(Point::BatchLeasesLocked).await;
        Ok(rows)
    }

    async fn lock_leases_of(&mut self, writer: Uuid, limit: i64) -> Result<Vec<LeaseRow>, Fault> {
        let rows = self.batch.lock_leases_of(writer, limit).await?;
        if !rows.is_empty() {
            self.pass(Point::ReclaimLeaseLocked).await;
        }
        Ok(rows)
    }

    async fn lock_accounts(&mut self, keys: &[AccountKey]) -> Result<Vec<AccountRow>, Fault> {
        let rows = self.batch.lock_accounts(keys).await?;
        self.needs.extend(rows.iter().map(|row| (row.key, row.recall_need)));
        if self.is_lane {
            self.pass(Point::BatchAccountsLocked).await;
        }
        Ok(rows)
    }

    async fn write(&mut self, by: Uuid, shard: i64, now: Timestamp, writes: &Writes) -> Result<(), Fault> {
        self.batch.write(by, shard, now, writes).await?;
        if self.is_lane {
            self.about = Some(self.passed_by(writes));
        }
        self.pass(Point::BatchWritten).await;
        Ok(())
    }

    async fn commit(self) -> Result<(), Fault> {
        let Self { batch, rows, about, .. } = self;
        let Some(about) = about else { return batch.commit().await };
        rows.pass(Point::CommitSent).await;
        if let Some(happens) = rows.trap.loses() {
            if happens {
                batch.commit().await?;
            } else {
                drop(batch);
            }
            rows.pass(Point::CommitLostApplied).await;
            rows.pass(Point::CommitLostUnapplied).await;
            return Err(lost());
        }
        batch.commit().await?;
        for point in [Point::CommittedUnanswered].into_iter().chain(about) {
            if rows.pass(point).await {
                return Err(lost());
            }
        }
        Ok(())
    }
}

impl TrapBatch {
    /// What a commit of these rows is about.
    fn passed_by(&self, writes: &Writes) -> Vec<Point> {
        let before = |row: &LeaseRow| self.leases.get(&(row.account, row.class));
        let granted = |row: &LeaseRow| row.granted > before(row).map_or(0, |old| old.granted);
        let returned = |row: &LeaseRow| row.epoch == 0 && before(row).is_some_and(|old| old.epoch != 0);
        let recalls = |row: &AccountRow| row.recall_need > self.needs.get(&row.key).copied().unwrap_or(0);
        let mut about = Vec::new();
        if writes.leases.iter().any(granted) {
            about.push(Point::GrantCommitted);
        }
        if writes.leases.iter().any(returned) {
            about.push(Point::ReturnCommitted);
        }
        if writes.accounts.iter().any(recalls) {
            about.push(Point::RecallMarked);
        }
        if writes.holds.iter().any(|row| !self.holds.contains(&row.hold)) {
            about.push(Point::ReserveCommitted);
        }
        about
    }
}

impl Rows for TrapRows {
    type Batch = TrapBatch;

    async fn begin(&self) -> Result<TrapBatch, Fault> {
        let batch = self.rows.begin().await?;
        let (leases, needs, holds) = Default::default();
        Ok(TrapBatch { batch, rows: self.clone(), is_lane: false, leases, needs, holds, about: None })
    }

    async fn register(&self, writer: WriterRow) -> Result<(), Fault> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).push(writer.writer);
        self.rows.register(writer).await
    }

    async fn resolve(&self, writer: Uuid, batch_no: i64) -> Result<Fate, Fault> {
        self.pass(Point::ResolveBefore).await;
        self.rows.resolve(writer, batch_no).await
    }

    async fn writers(&self) -> Result<Vec<WriterRow>, Fault> {
        self.rows.writers().await
    }

    async fn bury(&self, writer: Uuid, beat: i64) -> Result<bool, Fault> {
        self.rows.bury(writer, beat).await
    }

    async fn recalled(&self, writers: &[Uuid]) -> Result<Vec<AccountKey>, Fault> {
        self.rows.recalled(writers).await
    }

    async fn tell(&self, signal: Signal, accounts: &[AccountKey]) {
        self.rows.tell(signal, accounts).await;
        if signal == Signal::Recall {
            self.pass(Point::RecallNotified).await;
        }
    }
}
