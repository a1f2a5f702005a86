//! The engine's rows on the database of the schedule. Each step is a point where others may go first, where a process may
//! end or stop, and where a connection may be lost.

use std::future::poll_fn;
use std::sync::Arc;

use tenantry::domain::id::TenantId;
use tenantry::domain::quota::{AccountKey, AccountRow, Class, EventKey, EventRow, HoldRow, HoldState, LeaseRow};
use tenantry::store::quota::{Batch, Fate, Fault, Rows, Signal, WriterRow, Writes};
use tenantry::time::Timestamp;
use uuid::Uuid;

use crate::database::{LeaseKey, Lock, Mode, Tx, TxId};
use crate::faults::Point;
use crate::world::{Process, State, World};

/// The connections of a process.
#[derive(Clone)]
pub(crate) struct SimRows {
    pub(crate) world: Arc<World>,
    pub(crate) process: Process,
}

/// A transaction.
pub(crate) struct SimBatch {
    rows: SimRows,
    tx: TxId,
    /// Whether it is one of a lane.
    is_batch: bool,
}

fn cut() -> Fault {
    Fault::Away("the connection was cut".to_owned())
}

impl SimRows {
    /// Before a step; now and then the connection is not there any more.
    async fn enter(&self) -> Result<(), Fault> {
        self.world.moment().await;
        let mut state = self.world.state();
        let State { dice, faults, .. } = &mut *state;
        if dice.one_in(faults.cuts) { Err(cut()) } else { Ok(()) }
    }

    /// A transaction of one statement.
    async fn once<T>(&self, lock: Lock, work: impl FnOnce(&mut State, TxId) -> T) -> Result<T, Fault> {
        self.enter().await?;
        let tx = self.world.state().db.begin(self.process);
        let mut batch = SimBatch { rows: self.clone(), tx, is_batch: false };
        batch.lock(lock).await?;
        let done = {
            let mut state = self.world.state();
            let done = work(&mut state, tx);
            state.end(tx, true);
            done
        };
        // Done, and perhaps nobody hears of it.
        self.enter().await?;
        Ok(done)
    }
}

impl SimBatch {
    async fn enter(&self) -> Result<(), Fault> {
        let entered = self.rows.enter().await;
        if entered.is_err() {
            self.lose(false);
        }
        entered
    }

    /// After a step.
    async fn leave(&self, point: Point) -> Result<(), Fault> {
        if self.rows.world.pass(point, self.rows.process).await {
            self.lose(false);
            return Err(cut());
        }
        Ok(())
    }

    /// The connection is lost; the database ends the transaction later.
    fn lose(&self, commit: bool) {
        let (world, tx) = (self.rows.world.clone(), self.tx);
        let span = {
            let mut state = world.state();
            state.orphan(tx);
            state.dice.below(30_000)
        };
        self.rows.world.spawn(0, async move {
            world.sleep(span).await;
            world.state().end(tx, commit);
        });
    }

    async fn lock(&mut self, lock: Lock) -> Result<(), Fault> {
        poll_fn(|cx| self.rows.world.state().lock(self.tx, &lock, Mode::Locked, cx.waker())).await
    }

    /// Does something with the transaction, if it is still there.
    fn with<T>(&self, work: impl FnOnce(&mut Tx) -> T) -> Result<T, Fault> {
        self.rows.world.state().db.open.get_mut(&self.tx).filter(|tx| !tx.is_orphan).map(work).ok_or_else(cut)
    }

    /// Locks the rows that a statement found, in order; gives those that are still there, in their newest version.
    async fn lock_all<K, T>(
        &mut self,
        keys: Vec<K>,
        lock: impl Fn(&K) -> Lock,
        row: impl Fn(&State, &K) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let mut rows = Vec::new();
        for key in keys {
            self.lock(lock(&key)).await?;
            rows.extend(row(&self.rows.world.state(), &key));
            self.rows.world.moment().await;
        }
        Ok(rows)
    }

    /// All open leases of an account, locked.
    pub(crate) async fn lock_leases_on(&mut self, account: AccountKey) -> Result<Vec<LeaseRow>, Fault> {
        self.enter().await?;
        let keys: Vec<LeaseKey> = {
            let state = self.rows.world.state();
            let open = state.db.tables.leases.iter().filter(|(key, row)| key.0 == account && row.epoch != 0);
            open.map(|(key, _)| *key).collect()
        };
        let find =
            |state: &State, key: &LeaseKey| state.db.tables.leases.get(key).filter(|row| row.epoch != 0).cloned();
        self.lock_all(keys, |key| Lock::Lease(*key), find).await
    }

    /// Changes an account that is locked: its limit too.
    pub(crate) fn put_account(&mut self, row: AccountRow) -> Result<(), Fault> {
        self.with(|tx| tx.rows.accounts.insert(row.key, row)).map(|_| ())
    }

    pub(crate) async fn pass(&self, point: Point) -> Result<(), Fault> {
        self.leave(point).await
    }
}

impl Drop for SimBatch {
    fn drop(&mut self) {
        let dead = {
            let mut state = self.rows.world.state();
            if state.db.open.get(&self.tx).is_none_or(|tx| tx.is_orphan) {
                return;
            }
            let dead = state.dead.contains(&self.rows.process);
            if !dead {
                state.end(self.tx, false);
            }
            dead
        };
        if dead {
            self.lose(false);
        }
    }
}

impl Batch for SimBatch {
    async fn beat(&mut self, writer: Uuid, batch_no: i64) -> Result<bool, Fault> {
        self.enter().await?;
        if !self.rows.world.state().db.tables.writers.contains_key(&writer) {
            return Ok(false);
        }
        self.lock(Lock::Writer(writer)).await?;
        let row = self.rows.world.state().db.tables.writers.get(&writer).copied();
        let Some(mut row) = row.filter(|row| row.batch_no == batch_no - 1) else { return Ok(false) };
        (row.batch_no, row.beat) = (batch_no, row.beat + 1);
        self.is_batch = true;
        self.with(|tx| tx.rows.writers.insert(writer, row))?;
        self.leave(Point::BatchBegin).await?;
        Ok(true)
    }

    async fn claim(&mut self, events: &[&EventRow]) -> Result<Vec<EventKey>, Fault> {
        self.enter().await?;
        if events.iter().any(|event| event.key.key.contains('\0')) {
            self.rows.world.state().end(self.tx, false);
            return Err(Fault::Poison("invalid byte sequence for encoding".to_owned()));
        }
        let mut taken = Vec::new();
        for event in events {
            let is_new = poll_fn(|cx| self.rows.world.state().claim(self.tx, event, cx.waker())).await?;
            taken.extend((!is_new).then(|| event.key.clone()));
            self.rows.world.moment().await;
        }
        self.leave(Point::BatchClaimed).await?;
        Ok(taken)
    }

    async fn find_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        self.enter().await?;
        self.with(|_| ())?;
        let state = self.rows.world.state();
        Ok(keys.iter().filter_map(|key| state.db.tables.events.get(key)).cloned().collect())
    }

    async fn lock_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        self.enter().await?;
        let own = self.with(|tx| tx.rows.events.clone())?;
        let there: Vec<EventKey> = {
            let state = self.rows.world.state();
            let is_there = |key: &&EventKey| own.contains_key(*key) || state.db.tables.events.contains_key(*key);
            keys.iter().filter(is_there).cloned().collect()
        };
        let find = |state: &State, key: &EventKey| own.get(key).or_else(|| state.db.tables.events.get(key)).cloned();
        self.lock_all(there, |key| Lock::Event(key.clone()), find).await
    }

    async fn lock_holds(&mut self, keys: &[(TenantId, Uuid)]) -> Result<Vec<HoldRow>, Fault> {
        self.enter().await?;
        let there: Vec<Uuid> = {
            let state = self.rows.world.state();
            keys.iter().map(|(_, hold)| *hold).filter(|hold| state.db.tables.holds.contains_key(hold)).collect()
        };
        self.lock_all(there, |hold| Lock::Hold(*hold), |state, hold| state.db.tables.holds.get(hold).cloned()).await
    }

    async fn lock_due_holds(&mut self, now: Timestamp, limit: i64) -> Result<Vec<HoldRow>, Fault> {
        self.enter().await?;
        let is_due = |row: &&HoldRow| row.state == HoldState::Held && row.expires_at <= now;
        let there: Vec<Uuid> = {
            let state = self.rows.world.state();
            let due = state.db.tables.holds.values().filter(is_due).map(|row| row.hold);
            due.filter(|hold| !state.db.is_taken(&Lock::Hold(*hold), self.tx))
                .take(usize::try_from(limit).unwrap_or(0))
                .collect()
        };
        let find = |state: &State, hold: &Uuid| state.db.tables.holds.get(hold).filter(is_due).cloned();
        let mut rows = Vec::new();
        for hold in there {
            if !self.rows.world.state().db.is_taken(&Lock::Hold(hold), self.tx) {
                rows.extend(self.lock_all(vec![hold], |hold| Lock::Hold(*hold), find).await?);
            }
        }
        if !rows.is_empty() {
            self.leave(Point::ExpireLocked).await?;
        }
        Ok(rows)
    }

    async fn lock_leases(&mut self, writer: Uuid, keys: &[(AccountKey, Class)]) -> Result<Vec<LeaseRow>, Fault> {
        self.enter().await?;
        let there: Vec<LeaseKey> = {
            let state = self.rows.world.state();
            let keys = keys.iter().map(|(account, class)| (*account, writer, *class));
            keys.filter(|key| state.db.tables.leases.contains_key(key)).collect()
        };
        let find = |state: &State, key: &LeaseKey| state.db.tables.leases.get(key).cloned();
        let rows = self.lock_all(there, |key| Lock::Lease(*key), find).await?;
        self.leave(Point::BatchLeasesLocked).await?;
        Ok(rows)
    }

    async fn lock_leases_of(&mut self, writer: Uuid, limit: i64) -> Result<Vec<LeaseRow>, Fault> {
        self.enter().await?;
        let there: Vec<LeaseKey> = {
            let state = self.rows.world.state();
            let open = state.db.tables.leases.iter().filter(|(key, row)| key.1 == writer && row.epoch != 0);
            open.map(|(key, _)| *key).take(usize::try_from(limit).unwrap_or(0)).collect()
        };
        let find =
            |state: &State, key: &LeaseKey| state.db.tables.leases.get(key).filter(|row| row.epoch != 0).cloned();
        let mut rows = Vec::new();
        for key in there {
            if !self.rows.world.state().db.is_taken(&Lock::Lease(key), self.tx) {
                rows.extend(self.lock_all(vec![key], |key| Lock::Lease(*key), find).await?);
            }
        }
        if !rows.is_empty() {
            self.leave(Point::ReclaimLeaseLocked).await?;
        }
        Ok(rows)
    }

    async fn lock_accounts(&mut self, keys: &[AccountKey]) -> Result<Vec<AccountRow>, Fault> {
        self.enter().await?;
        let there: Vec<AccountKey> = {
            let state = self.rows.world.state();
            keys.iter().filter(|key| state.db.tables.accounts.contains_key(key)).copied().collect()
        };
        let find = |state: &State, key: &AccountKey| state.db.tables.accounts.get(key).cloned();
        let mut rows = self.lock_all(there, |key| Lock::Account(*key), find).await?;
        // Read by a statement of its own, after the locks.
        self.rows.world.moment().await;
        {
            let state = self.rows.world.state();
            for row in &mut rows {
                let of_account = state.db.tables.leases.values().filter(|lease| lease.account == row.key);
                row.settled = of_account.map(|lease| lease.settled).sum();
            }
        }
        if self.is_batch {
            self.leave(Point::BatchAccountsLocked).await?;
        }
        Ok(rows)
    }

    async fn write(&mut self, _: Uuid, shard: i64, _: Timestamp, writes: &Writes) -> Result<(), Fault> {
        self.enter().await?;
        let rollup_locks: Vec<Lock> = writes
            .rollups
            .iter()
            .map(|row| Lock::Rollup((row.tenant, row.bucket, row.metric.clone(), shard)))
            .collect();
        if let Err(fault) = self.put(writes) {
            self.rows.world.state().end(self.tx, false);
            return Err(fault);
        }
        for (row, lock) in writes.rollups.iter().zip(rollup_locks) {
            self.lock(lock.clone()).await?;
            let Lock::Rollup(key) = lock else { continue };
            self.with(|tx| {
                let sum = tx.rows.rollups.entry(key).or_default();
                (sum.0, sum.1) = (sum.0 + row.events, sum.1 + row.amount);
            })?;
        }
        self.leave(Point::BatchWritten).await
    }

    async fn commit(self) -> Result<(), Fault> {
        let unknown = || Fault::Unknown("the connection was lost".to_owned());
        let (world, process) = (self.rows.world.clone(), self.rows.process);
        self.enter().await?;
        if world.pass(Point::CommitSent, process).await {
            self.lose(false);
            return Err(unknown());
        }
        let lost = {
            let mut state = world.state();
            let State { dice, faults, .. } = &mut *state;
            dice.one_in(faults.losses).then(|| dice.one_in(2))
        };
        let applied = world.pass(Point::CommitLostApplied, process).await;
        let unapplied = world.pass(Point::CommitLostUnapplied, process).await;
        if let Some(commit) = applied.then_some(true).or(unapplied.then_some(false)).or(lost) {
            // The database commits it, or does not, a while later.
            self.with(|_| ()).map_err(|_| unknown())?;
            self.lose(commit);
            return Err(unknown());
        }
        let passed = {
            let mut state = world.state();
            let open = state.db.open.get(&self.tx).filter(|tx| !tx.is_orphan).ok_or_else(unknown)?;
            let mut passed = vec![Point::CommittedUnanswered];
            passed.extend(passed_by(&state, open));
            state.end(self.tx, true);
            passed
        };
        for point in passed {
            if world.pass(point, process).await {
                return Err(unknown());
            }
        }
        world.moment().await;
        Ok(())
    }
}

/// What a commit is about.
fn passed_by(state: &State, tx: &Tx) -> Vec<Point> {
    let before = |row: &LeaseRow| state.db.tables.leases.get(&(row.account, row.writer, row.class));
    let granted = |row: &LeaseRow| row.granted > before(row).map_or(0, |old| old.granted);
    let returned = |row: &LeaseRow| row.epoch == 0 && before(row).is_some_and(|old| old.epoch != 0);
    let recalls =
        |row: &AccountRow| row.recall_need > state.db.tables.accounts.get(&row.key).map_or(0, |old| old.recall_need);
    let mut passed = Vec::new();
    if tx.rows.leases.values().any(granted) {
        passed.push(Point::GrantCommitted);
    }
    if tx.rows.leases.values().any(returned) {
        passed.push(Point::ReturnCommitted);
    }
    if tx.rows.accounts.values().any(recalls) {
        passed.push(Point::RecallMarked);
    }
    if tx.rows.holds.keys().any(|hold| !state.db.tables.holds.contains_key(hold)) {
        passed.push(Point::ReserveCommitted);
    }
    passed
}

impl SimBatch {
    /// Writes what a batch decided. Whoever writes a row that he has not locked, or a value that the tables do not take, is
    /// found out.
    fn put(&self, writes: &Writes) -> Result<(), Fault> {
        let mut state = self.rows.world.state();
        let State { db, .. } = &mut *state;
        let mut unlocked = Vec::new();
        let mut check = |lock: &Lock, is_there: bool| {
            if is_there && !db.is_locked(lock, self.tx) {
                unlocked.push(format!("{lock:?}"));
            }
        };
        for event in &writes.decided {
            check(&Lock::Event(event.key.clone()), true);
        }
        for key in &writes.dropped {
            check(&Lock::Event(key.clone()), true);
        }
        for (key, _) in &writes.refunded {
            check(&Lock::Event(key.clone()), true);
        }
        for hold in &writes.holds {
            check(&Lock::Hold(hold.hold), db.tables.holds.contains_key(&hold.hold));
        }
        for lease in &writes.leases {
            let key = (lease.account, lease.writer, lease.class);
            check(&Lock::Lease(key), db.tables.leases.contains_key(&key));
        }
        for account in &writes.accounts {
            check(&Lock::Account(account.key), true);
        }
        let refunded_locks: Vec<Lock> = writes.refunded.iter().map(|(key, _)| Lock::Event(key.clone())).collect();
        refunded_locks.iter().for_each(|lock| db.mark_written(lock));
        let overdrawn = |lease: &LeaseRow| lease.settled > lease.granted && !db.drops_check;
        let bad_lease = writes.leases.iter().find(|l| l.settled < 0 || overdrawn(l) || l.forfeited < 0);
        let bad_account =
            writes.accounts.iter().find(|a| a.reserved < 0 || a.leased < 0 || a.forfeited < 0 || a.recall_need < 0);
        let bad = bad_lease.map(|row| format!("{row:?}")).or(bad_account.map(|row| format!("{row:?}")));
        let tables = &db.tables;
        let Some(tx) = db.open.get_mut(&self.tx).filter(|tx| !tx.is_orphan) else { return Err(cut()) };
        if bad.is_none() {
            for event in &writes.decided {
                tx.rows.events.insert(event.key.clone(), event.clone());
            }
            for key in &writes.dropped {
                tx.rows.events.remove(key);
                tx.gone_events.insert(key.clone());
            }
            for (key, charges) in &writes.refunded {
                let stored = tx.rows.events.get(key).or_else(|| tables.events.get(key)).cloned();
                if let Some(row) = stored {
                    tx.rows.events.insert(key.clone(), EventRow { charges: charges.clone(), ..row });
                }
            }
            tx.rows.holds.extend(writes.holds.iter().map(|row| (row.hold, row.clone())));
            let leases = writes.leases.iter().map(|row| ((row.account, row.writer, row.class), row.clone()));
            tx.rows.leases.extend(leases);
            for row in &writes.accounts {
                let Some(old) = tables.accounts.get(&row.key) else { continue };
                let (limit, shown_limit, revision) = (old.limit, old.shown_limit, old.revision);
                let row = AccountRow { limit, shown_limit, revision, settled: 0, ..row.clone() };
                tx.rows.accounts.insert(row.key, row);
            }
        }
        // Of those that inserted the same key without waiting only the last has it locked: what follows is to be found.
        if let Some(lock) = unlocked.first().filter(|_| !state.db.forgets_to_wait) {
            state.violated(format!("a row is written that was not locked: {lock}"));
        }
        match bad {
            Some(bad) => {
                state.violated(format!("a check of the tables was violated: {bad}"));
                Err(Fault::Poison(bad))
            }
            None => Ok(()),
        }
    }
}

impl Rows for SimRows {
    type Batch = SimBatch;

    async fn begin(&self) -> Result<SimBatch, Fault> {
        self.enter().await?;
        let tx = self.world.state().db.begin(self.process);
        Ok(SimBatch { rows: self.clone(), tx, is_batch: false })
    }

    async fn register(&self, writer: WriterRow) -> Result<(), Fault> {
        let process = self.process;
        self.once(Lock::Writer(writer.writer), |state, _| {
            state.oracle.writers.insert(writer.writer, process);
            state.db.tables.writers.entry(writer.writer).or_insert(writer).batch_no = writer.batch_no;
        })
        .await
    }

    async fn resolve(&self, writer: Uuid, batch_no: i64) -> Result<Fate, Fault> {
        if self.world.pass(Point::ResolveBefore, self.process).await {
            return Err(cut());
        }
        self.once(Lock::Writer(writer), |state, _| {
            if let Some(row) = state.db.tables.writers.get_mut(&writer).filter(|row| row.batch_no == batch_no - 1) {
                (row.batch_no, row.beat) = (batch_no + 1, row.beat + 1);
            }
        })
        .await?;
        self.enter().await?;
        let row = self.world.state().db.tables.writers.get(&writer).copied();
        self.world.state().note(|| format!("{} asks for batch {batch_no}: {row:?}", self.process));
        Ok(match row {
            None => Fate::Gone,
            Some(row) if row.batch_no == batch_no => Fate::Committed,
            Some(_) => Fate::Dead,
        })
    }

    async fn writers(&self) -> Result<Vec<WriterRow>, Fault> {
        self.enter().await?;
        Ok(self.world.state().db.tables.writers.values().copied().collect())
    }

    async fn bury(&self, writer: Uuid, beat: i64) -> Result<bool, Fault> {
        self.once(Lock::Writer(writer), |state, _| {
            let tables = &mut state.db.tables;
            let is_open = tables.leases.iter().any(|(key, row)| key.1 == writer && row.epoch != 0);
            let dies = !is_open && tables.writers.get(&writer).is_some_and(|row| row.beat == beat);
            if dies {
                tables.writers.remove(&writer);
            }
            dies
        })
        .await
    }

    async fn recalled(&self, writers: &[Uuid]) -> Result<Vec<AccountKey>, Fault> {
        self.enter().await?;
        let state = self.world.state();
        let tables = &state.db.tables;
        let open = tables.leases.iter().filter(|(key, row)| writers.contains(&key.1) && row.epoch != 0);
        let mut accounts: Vec<AccountKey> = open.map(|(key, _)| key.0).collect();
        accounts.dedup();
        accounts.retain(|key| tables.accounts.get(key).is_some_and(|row| row.recall_need > 0));
        Ok(accounts)
    }

    async fn tell(&self, signal: Signal, accounts: &[AccountKey]) {
        self.world.moment().await;
        let is_sent = {
            let mut state = self.world.state();
            let State { dice, faults, .. } = &mut *state;
            let is_sent = !dice.one_in(faults.lost_notices);
            if is_sent {
                state.signal(signal, accounts);
            }
            is_sent
        };
        if signal == Signal::Recall && self.world.pass(Point::RecallNotified, self.process).await && is_sent {
            self.world.state().take_signal_back();
        }
    }
}
