//! The quota engine: decides in memory what leases back, settles at the group commit.
//!
//! A request becomes an [`Item`] and joins the queue of a commit lane (`ledger.rs`), backed by the lane's leases as far as
//! they go. The lane (`lane.rs`) takes up to 500 items and commits them as one transaction (`batch.rs`): claims their keys,
//! checks that its leases still stand, decides the rest on locked accounts, writes. Only then are callers answered, except
//! those that asked for a promise and got one. What there is no room for while leases are out waits until they are back;
//! what nobody returns is reclaimed (`keeper.rs`).
//!
//! Durability and fence are the same commit, so that an acknowledged admission cannot exceed a limit whatever clocks, pauses
//! or partitions do; clocks only decide how soon stranded units come back. How it was checked stands in the simulation,
//! which runs this very code on a clock, a scheduler and rows of its own.

mod batch;
mod item;
mod keeper;
mod lane;
mod ledger;
pub mod mutant;
pub mod rates;
pub mod timer;

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

pub use item::{Action, Item, NamedHold, NewHold, Outcome, Told};
use ledger::Ledger;

use crate::domain::quota::{AccountKey, EventRow};
use crate::store::quota::{Batch, Fault, Rows, WriterRow};
use crate::time::Timestamp;

/// Microseconds on a clock of this process that never steps back. None of its uses matters for a limit.
pub type Micros = u64;

/// How long after an item's deadline its answer may come: whoever waits for units is told at the deadline that those are out
/// of reach, once the batch that they may be in is over. That is known; of what is not committed by then nothing is.
const LAST_WORD: Micros = 250_000;

/// The engine's clocks, dice and timers.
pub trait Timer: Send + Sync + 'static {
    /// Now, on the clock that never steps back.
    fn now(&self) -> Micros;
    /// Now, on the calendar.
    fn wall(&self) -> Timestamp;
    /// A new id.
    fn id(&self) -> Uuid;
    /// Waits until an instant.
    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send;
}

/// Sizes and spans.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Commit lanes.
    pub lanes: usize,
    /// Items in a batch at most.
    pub batch: usize,
    /// Items that may be under way or waiting.
    pub queue: usize,
    /// Requests a second from which an account is worth a lease.
    pub hot_rate: i64,
    /// How often an idle lane shows that it lives.
    pub beat: Micros,
    /// How long a writer's beat may stand still before its leases are taken from it.
    pub ttl: Micros,
    /// How long after it last reached the database a lane makes promises.
    pub promise_window: Micros,
    /// How long a lease may be idle.
    pub idle_return: Micros,
    /// How often leases, waiting items and due holds are looked through.
    pub look: Micros,
    /// For how long after a recall no lease is asked for.
    pub recall_rest: Micros,
    /// How long an account that nobody asks of is remembered.
    pub forget: Micros,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: 2,
            batch: 500,
            queue: 10_000,
            hot_rate: 50,
            beat: 500_000,
            ttl: 3_000_000,
            promise_window: 1_000_000,
            idle_return: 2_000_000,
            look: 250_000,
            recall_rest: 100_000,
            forget: 60_000_000,
        }
    }
}

/// The engine of one server.
pub struct Engine<R, T> {
    rows: R,
    timer: T,
    settings: Settings,
    process: Uuid,
    ledger: Mutex<Ledger>,
    /// One a lane: there is work.
    lanes: Vec<Notify>,
    /// Somebody waits for units.
    keeper: Notify,
    stopped: tokio::sync::Semaphore,
    /// Servers that live, as far as their beats tell.
    servers: AtomicU32,
}

impl<R: Rows, T: Timer> Engine<R, T> {
    /// An engine at rest; its lanes and keeper are futures that the caller runs.
    pub fn new(rows: R, timer: T, settings: Settings) -> Arc<Self> {
        let process = timer.id();
        let writers = (0..settings.lanes).map(|_| timer.id()).collect();
        let lanes = (0..settings.lanes).map(|_| Notify::new()).collect();
        Arc::new(Self {
            rows,
            timer,
            settings,
            process,
            ledger: Mutex::new(Ledger::new(settings, writers)),
            lanes,
            keeper: Notify::new(),
            stopped: tokio::sync::Semaphore::new(0),
            servers: AtomicU32::new(1),
        })
    }

    /// Enters the lanes as new writers. Nothing is accepted that could not be committed.
    ///
    /// # Errors
    /// That the database does not answer.
    pub async fn open(&self) -> Result<(), Fault> {
        for lane in 0..self.settings.lanes {
            self.enter(lane).await?;
        }
        Ok(())
    }

    /// Counts who else is written down and may live, so that a server that starts takes no more of a rate than its share.
    ///
    /// # Errors
    /// That the database does not answer.
    pub async fn meet(&self) -> Result<(), Fault> {
        self.count_servers(&self.rows.writers().await?);
        Ok(())
    }

    /// How many servers share what is not leased: this one, and those whose writers beat.
    #[must_use]
    pub fn servers(&self) -> u32 {
        self.servers.load(Ordering::Relaxed)
    }

    /// Counts the processes of writers that live.
    fn count_servers<'a>(&self, living: impl IntoIterator<Item = &'a WriterRow>) {
        let mut processes: HashSet<Uuid> = living.into_iter().map(|row| row.process).collect();
        processes.insert(self.process);
        self.servers.store(u32::try_from(processes.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// What an item would be answered if it was decided before; none when it was not. Of what is under way nothing is known.
    ///
    /// # Errors
    /// That the database does not answer.
    pub async fn repeated(&self, item: &Item) -> Result<Option<Outcome>, Fault> {
        let mut batch = self.rows.begin().await?;
        let stored = batch.find_events(std::slice::from_ref(&item.key)).await?.pop();
        let is_same = |row: &EventRow| row.payload_hash == item.payload_hash;
        Ok(stored.map(|row| if is_same(&row) { Outcome::stored(&row, None) } else { Outcome::Conflict }))
    }

    /// How many lanes it has.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.settings.lanes
    }

    /// Enters a lane's writer; again under the same id when it was declared dead, so that it has at hand what it forfeited.
    async fn enter(&self, lane: usize) -> Result<(), Fault> {
        let (writer, next) = self.ledger().writer(lane);
        self.rows.register(WriterRow { writer, process: self.process, batch_no: next - 1, beat: 0 }).await?;
        self.ledger().enter(lane, self.timer.now());
        Ok(())
    }

    /// Has an item decided; waits for the answer until the item's deadline.
    pub async fn submit(&self, item: Item) -> Outcome {
        let deadline = item.deadline;
        let mut answer = self.begin(item);
        tokio::select! {
            biased;
            told = &mut answer => told.unwrap_or_else(|_| Outcome::Away("the server stopped".to_owned())),
            () = self.timer.sleep_until(deadline + LAST_WORD) => {
                Outcome::Away("it was not committed in time: the same again tells what became of it".to_owned())
            }
        }
    }

    /// Takes an item in; its answer comes. Whoever submits many does not wait for each.
    pub fn begin(&self, item: Item) -> oneshot::Receiver<Outcome> {
        let (answer, told) = oneshot::channel();
        let lane = self.ledger().arrive(item, answer, self.timer.now());
        if let Some(lane) = lane {
            self.lanes[lane].notify_one();
        }
        told
    }

    /// No more requests; returns when everything is settled, and everything leased given back.
    pub async fn stop(&self) {
        self.ledger().stop();
        self.lanes.iter().for_each(Notify::notify_one);
        self.keeper.notify_one();
        let all = u32::try_from(self.settings.lanes).unwrap_or(u32::MAX);
        let _ = self.stopped.acquire_many(all).await;
    }

    /// Others say that leases on these accounts are wanted back.
    pub fn recall(&self, accounts: &[AccountKey]) {
        self.ledger().recall(accounts, self.timer.now());
        self.lanes.iter().for_each(Notify::notify_one);
    }

    /// Others say that leases on these accounts came back.
    pub fn returned(&self, accounts: &[AccountKey]) {
        if self.ledger().returned(accounts, self.timer.now()) {
            self.lanes.iter().for_each(Notify::notify_one);
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // What panicked while it had the lock had changed nothing by halves: nothing in there waits or fails.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
