//! The database of a schedule: rows, row locks and transactions as PostgreSQL has them under READ COMMITTED. What is
//! written is seen by others at the commit; who wants a row that another transaction has locked waits until that has ended,
//! and then sees the newest version. There is no deadlock detector: the protocol says that there are no deadlocks, and one
//! ends the schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Poll, Waker};

use tenantry::decide::quota::Micros;
use tenantry::domain::id::TenantId;
use tenantry::domain::quota::{AccountKey, AccountRow, Class, EventKey, EventRow, HoldRow, LeaseRow};
use tenantry::store::quota::{Fault, WriterRow};
use tenantry::time::Timestamp;
use uuid::Uuid;

use crate::world::{Process, State};

/// How long a transaction of a process that does nothing is kept open.
pub(crate) const IDLE_IN_TRANSACTION: Micros = 200_000;

pub(crate) type TxId = u64;
pub(crate) type LeaseKey = (AccountKey, Uuid, Class);
pub(crate) type RollupKey = (TenantId, Timestamp, Arc<str>, i64);

/// A row that can be locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lock {
    Writer(Uuid),
    Event(EventKey),
    Hold(Uuid),
    Lease(LeaseKey),
    Account(AccountKey),
    Rollup(RollupKey),
}

/// How. An insert with the same key waits for a row that was inserted or written, and not for one that is only locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Locked,
    Written,
}

/// Rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    pub(crate) writers: BTreeMap<Uuid, WriterRow>,
    pub(crate) events: BTreeMap<EventKey, EventRow>,
    pub(crate) holds: BTreeMap<Uuid, HoldRow>,
    pub(crate) leases: BTreeMap<LeaseKey, LeaseRow>,
    pub(crate) accounts: BTreeMap<AccountKey, AccountRow>,
    /// Events and amount.
    pub(crate) rollups: BTreeMap<RollupKey, (i64, i64)>,
}

/// A transaction: what it has written, and nobody else sees.
#[derive(Debug, Default)]
pub(crate) struct Tx {
    pub(crate) process: Process,
    pub(crate) rows: Tables,
    pub(crate) gone_events: BTreeSet<EventKey>,
    pub(crate) gone_writers: BTreeSet<Uuid>,
    locks: Vec<Lock>,
    /// Its connection is lost: the database ends it by itself.
    pub(crate) is_orphan: bool,
}

/// The database.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) tables: Tables,
    pub(crate) open: BTreeMap<TxId, Tx>,
    locks: BTreeMap<Lock, (TxId, Mode)>,
    waiting: BTreeMap<TxId, (Lock, Waker)>,
    last: TxId,
    /// For a test of the tests: an insert does not wait for an uncommitted row with its key.
    pub(crate) forgets_to_wait: bool,
    /// The same: a lease may settle more than it was granted.
    pub(crate) drops_check: bool,
}

impl Database {
    pub(crate) fn begin(&mut self, process: Process) -> TxId {
        self.last += 1;
        self.open.insert(self.last, Tx { process, ..Tx::default() });
        self.last
    }

    pub(crate) fn is_locked(&self, lock: &Lock, tx: TxId) -> bool {
        self.locks.get(lock).is_some_and(|(by, _)| *by == tx)
    }

    /// Whether somebody else has a row locked.
    pub(crate) fn is_taken(&self, lock: &Lock, tx: TxId) -> bool {
        self.locks.get(lock).is_some_and(|(by, _)| *by != tx)
    }

    /// Who waits for whom, for people.
    pub(crate) fn state_of_locks(&self) -> String {
        let waits = |tx: &TxId| self.waiting.get(tx).map(|(lock, _)| (lock, self.waits_for(*tx)));
        let line = |(tx, open): (&TxId, &Tx)| {
            let (process, is_orphan) = (open.process, open.is_orphan);
            format!("\n  {tx} of {process}, orphan {is_orphan}, has {:?}, waits {:?}", open.locks, waits(tx))
        };
        self.open.iter().map(line).collect()
    }

    /// Marks a row that was locked as written.
    pub(crate) fn mark_written(&mut self, lock: &Lock) {
        if let Some((_, mode)) = self.locks.get_mut(lock) {
            *mode = Mode::Written;
        }
    }

    fn take(&mut self, tx: TxId, lock: &Lock, mode: Mode) {
        self.locks.insert(lock.clone(), (tx, mode));
        if let Some(open) = self.open.get_mut(&tx) {
            open.locks.push(lock.clone());
        }
    }

    /// Whom a transaction waits for, in the end; itself when there is a deadlock.
    fn waits_for(&self, tx: TxId) -> Option<TxId> {
        let (lock, _) = self.waiting.get(&tx)?;
        self.locks.get(lock).map(|(by, _)| *by)
    }

    fn deadlock_of(&self, tx: TxId) -> Option<String> {
        let mut at = tx;
        let mut path = String::new();
        for _ in 0..self.open.len() {
            let (lock, _) = self.waiting.get(&at)?;
            path = format!("{path} {at} wants {lock:?};");
            at = self.waits_for(at)?;
            if at == tx {
                return Some(path);
            }
        }
        None
    }
}

impl State {
    /// Locks a row; pending while another transaction has it.
    pub(crate) fn lock(&mut self, tx: TxId, lock: &Lock, mode: Mode, waker: &Waker) -> Poll<Result<(), Fault>> {
        self.db.waiting.remove(&tx);
        if self.db.open.get(&tx).is_none_or(|open| open.is_orphan) {
            return Poll::Ready(Err(Fault::Away("the transaction was ended".to_owned())));
        }
        if !self.db.is_taken(lock, tx) {
            if !self.db.is_locked(lock, tx) {
                self.db.take(tx, lock, mode);
            }
            return Poll::Ready(Ok(()));
        }
        self.wait(tx, lock, waker)
    }

    /// Inserts an event unless its key is taken; says whether it did. Pending while another transaction has inserted or
    /// written a row with this key.
    pub(crate) fn claim(&mut self, tx: TxId, event: &EventRow, waker: &Waker) -> Poll<Result<bool, Fault>> {
        self.db.waiting.remove(&tx);
        if self.db.open.get(&tx).is_none_or(|open| open.is_orphan) {
            return Poll::Ready(Err(Fault::Away("the transaction was ended".to_owned())));
        }
        let lock = Lock::Event(event.key.clone());
        let is_stored = self.db.tables.events.contains_key(&event.key);
        let blocks = self.db.locks.get(&lock).is_some_and(|(by, mode)| *by != tx && *mode == Mode::Written);
        if blocks && (is_stored || !self.db.forgets_to_wait) {
            return self.wait(tx, &lock, waker).map_ok(|()| false);
        }
        let Some(open) = self.db.open.get_mut(&tx) else { return Poll::Ready(Ok(false)) };
        if is_stored || open.rows.events.contains_key(&event.key) {
            return Poll::Ready(Ok(false));
        }
        open.rows.events.insert(event.key.clone(), event.clone());
        self.db.take(tx, &lock, Mode::Written);
        Poll::Ready(Ok(true))
    }

    fn wait(&mut self, tx: TxId, lock: &Lock, waker: &Waker) -> Poll<Result<(), Fault>> {
        if self.dice.one_in(self.faults.impatience) {
            self.end(tx, false);
            return Poll::Ready(Err(Fault::Retry("canceling statement due to lock timeout".to_owned())));
        }
        self.db.waiting.insert(tx, (lock.clone(), waker.clone()));
        if let Some(path) = self.db.deadlock_of(tx) {
            self.violated(format!("deadlock:{path}"));
        }
        Poll::Pending
    }

    /// Ends a transaction: what it wrote is seen by all, or by nobody; who waits for its rows goes on.
    pub(crate) fn end(&mut self, tx: TxId, commit: bool) {
        let Some(open) = self.db.open.remove(&tx) else { return };
        // Whoever waited in it is told.
        self.db.waiting.remove(&tx).into_iter().for_each(|(_, waker)| waker.wake());
        if commit {
            self.commit(&open);
        }
        for lock in &open.locks {
            if self.db.is_locked(lock, tx) {
                self.db.locks.remove(lock);
            }
            self.db.waiting.values().filter(|(wanted, _)| wanted == lock).for_each(|(_, waker)| waker.wake_by_ref());
        }
    }

    fn commit(&mut self, tx: &Tx) {
        let is_empty = tx.rows.accounts.is_empty()
            && tx.rows.leases.is_empty()
            && tx.rows.events.is_empty()
            && tx.rows.holds.is_empty()
            && tx.gone_events.is_empty();
        if !is_empty {
            self.before_commit(tx);
        }
        let tables = &mut self.db.tables;
        tables.writers.extend(tx.rows.writers.clone());
        tables.writers.retain(|writer, _| !tx.gone_writers.contains(writer));
        tables.events.extend(tx.rows.events.clone());
        tables.events.retain(|key, _| !tx.gone_events.contains(key));
        tables.holds.extend(tx.rows.holds.clone());
        tables.leases.extend(tx.rows.leases.clone());
        tables.accounts.extend(tx.rows.accounts.clone());
        for (key, (events, amount)) in &tx.rows.rollups {
            let row = tables.rollups.entry(key.clone()).or_default();
            (row.0, row.1) = (row.0 + events, row.1 + amount);
        }
        if !is_empty {
            self.after_commit(tx);
        }
    }

    /// The connection of a transaction is lost. The database finds out a while later: until then its locks stay.
    pub(crate) fn orphan(&mut self, tx: TxId) {
        if let Some(open) = self.db.open.get_mut(&tx) {
            open.is_orphan = true;
        }
        self.db.waiting.remove(&tx).into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Ends what a process that was stopped had begun.
    pub(crate) fn end_transactions_of(&mut self, process: Process) {
        let of = |(tx, open): (&TxId, &Tx)| (open.process == process && !open.is_orphan).then_some(*tx);
        let all: Vec<TxId> = self.db.open.iter().filter_map(of).collect();
        for tx in all {
            self.end(tx, false);
        }
    }
}
