//! What looks after units that are not where they are wanted: leases that others wait for, leases of servers that are gone,
//! holds that nobody ended, items that wait.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::mutant::{self, Mutant};
use super::{Engine, Micros, Timer};
use crate::domain::quota::{AccountKey, Book, HoldState, LeaseRow};
use crate::store::quota::{Batch, Fault, Rows, Signal, WriterRow, Writes};

/// Rows that a reclaim or sweep takes at once.
const AT_ONCE: i64 = 200;

impl<R: Rows, T: Timer> Engine<R, T> {
    /// Wakes items that wait, until the lanes have stopped: until then one may come to wait.
    pub async fn run_waiting(&self) {
        loop {
            let (woken, next, over) = {
                let mut ledger = self.ledger();
                let (woken, next) = ledger.wake(self.timer.now());
                (woken, next, self.stopped.available_permits() >= self.settings.lanes)
            };
            if woken {
                self.lanes.iter().for_each(tokio::sync::Notify::notify_one);
            }
            if over {
                return;
            }
            tokio::select! {
                biased;
                () = self.keeper.notified() => {}
                () = self.timer.sleep_until(next) => {}
            }
        }
    }

    /// Looks after leases and holds, until the engine stops.
    pub async fn run_keeper(&self) {
        let mut seen = HashMap::new();
        let mut rounds: u32 = 0;
        while !self.ledger().is_stopping() {
            // A failure is no more than a round that did nothing: the next one does it.
            if let Err(fault) = self.keep(&mut seen, rounds).await {
                tracing::debug!(?fault, "leases and holds could not be looked after");
            }
            rounds = rounds.wrapping_add(1);
            self.timer.sleep_until(self.timer.now() + self.settings.look).await;
        }
    }

    async fn keep(&self, seen: &mut HashMap<Uuid, (i64, Micros)>, round: u32) -> Result<(), Fault> {
        let own = self.ledger().writers();
        // Should a notice have been lost.
        let recalled = self.rows.recalled(&own).await?;
        if !recalled.is_empty() {
            self.recall(&recalled);
        }
        if round.is_multiple_of(2) {
            self.reclaim_dead(seen, &own).await?;
        }
        if round.is_multiple_of(4) {
            self.expire_holds().await?;
            let mut ledger = self.ledger();
            ledger.forget_idle(self.timer.now());
            ledger.gauge();
        }
        Ok(())
    }

    /// Takes back what writers hold whose beat stands still. Each server judges by its own clock how long it has; who is
    /// wrong about it costs the other a decision on rows, and no unit.
    async fn reclaim_dead(&self, seen: &mut HashMap<Uuid, (i64, Micros)>, own: &[Uuid]) -> Result<(), Fault> {
        let now = self.timer.now();
        let writers = self.rows.writers().await?;
        seen.retain(|writer, _| writers.iter().any(|row| row.writer == *writer));
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        for row in writers.iter().filter(|row| !own.contains(&row.writer)) {
            let last = seen.entry(row.writer).or_insert((row.beat, now));
            if last.0 != row.beat {
                *last = (row.beat, now);
            }
            let side = if now.saturating_sub(last.1) < self.settings.ttl { &mut living } else { &mut dead };
            side.push(row);
        }
        self.count_servers(living);
        for row in dead {
            self.reclaim(row).await?;
        }
        Ok(())
    }

    async fn reclaim(&self, row: &WriterRow) -> Result<(), Fault> {
        loop {
            let mut batch = self.rows.begin().await?;
            let mut leases = batch.lock_leases_of(row.writer, AT_ONCE).await?;
            if mutant::is(Mutant::ReclaimAccountFirst) {
                let keys: Vec<_> = leases.iter().map(|row| (row.account, row.class)).collect();
                let accounts: Vec<AccountKey> = keys.iter().map(|(account, _)| *account).collect();
                batch = self.rows.begin().await?;
                batch.lock_accounts(&accounts).await?;
                leases = batch.lock_leases(row.writer, &keys).await?;
            }
            if leases.is_empty() {
                drop(batch);
                if self.rows.bury(row.writer, row.beat).await? {
                    tracing::info!(writer = %row.writer, "what a server that is gone had leased was taken back");
                }
                return Ok(());
            }
            let accounts = self.fence(batch, row.writer, leases).await?;
            metrics::counter!("tenantry_quota_reclaimed_total").increment(1);
            self.returned(&accounts);
            self.rows.tell(Signal::Returned, &accounts).await;
        }
    }

    async fn fence(
        &self,
        mut batch: R::Batch,
        writer: Uuid,
        mut leases: Vec<LeaseRow>,
    ) -> Result<Vec<AccountKey>, Fault> {
        let keys: Vec<_> = leases.iter().map(|row| (row.account, row.class)).collect();
        let accounts: BTreeSet<AccountKey> = leases.iter().map(|row| row.account).collect();
        let accounts: Vec<AccountKey> = accounts.into_iter().collect();
        let rows = batch.lock_accounts(&accounts).await?;
        if mutant::is(Mutant::ReclaimForgetsSettled) {
            for row in &mut leases {
                row.settled = 0;
            }
        }
        let mut book = Book::new(rows, leases);
        for (account, class) in keys {
            if mutant::is(Mutant::ForfeitsUncounted) {
                book.give_back(&account, class, 0);
            }
            book.fence(&account, class);
        }
        let fenced = Writes {
            leases: book.written_leases().cloned().collect(),
            accounts: book.written_accounts().cloned().collect(),
            ..Writes::default()
        };
        batch.write(writer, 0, self.timer.wall(), &fenced).await?;
        batch.commit().await?;
        Ok(accounts)
    }

    /// Ends holds whose time is over: what they set aside is there again.
    async fn expire_holds(&self) -> Result<(), Fault> {
        loop {
            let now = self.timer.wall();
            let mut batch = self.rows.begin().await?;
            let mut holds = batch.lock_due_holds(now, AT_ONCE).await?;
            if holds.is_empty() {
                return Ok(());
            }
            let accounts: BTreeSet<AccountKey> =
                holds.iter().flat_map(|hold| &hold.charges).map(|charge| charge.account).collect();
            let accounts: Vec<AccountKey> = accounts.into_iter().collect();
            let mut book = Book::new(batch.lock_accounts(&accounts).await?, Vec::new());
            for hold in &mut holds {
                for charge in &hold.charges {
                    book.unreserve(&charge.account, charge.amount);
                }
                (hold.state, hold.ended_at) = (HoldState::Expired, Some(now));
            }
            let more = i64::try_from(holds.len()).is_ok_and(|count| count == AT_ONCE);
            let accounts_written = book.written_accounts().cloned().collect();
            let writes = Writes { holds, accounts: accounts_written, ..Writes::default() };
            batch.write(Uuid::nil(), 0, now, &writes).await?;
            batch.commit().await?;
            self.returned(&accounts);
            self.rows.tell(Signal::Returned, &accounts).await;
            if !more {
                return Ok(());
            }
        }
    }
}
