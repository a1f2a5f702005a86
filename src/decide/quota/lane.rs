//! A commit lane at work: takes what is there, commits it, answers; and when a commit is not answered, finds out.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::batch::{self, Plan, Planned, Runner};
use super::item::Outcome;
use super::ledger::{Entry, Op, Work};
use super::mutant::{self, Mutant};
use super::{Engine, Micros, Timer};
use crate::store::quota::{Batch, Fate, Fault, Rows, Signal};

/// How long after the database did not answer it is tried again.
const PAUSE: u64 = 20_000;

/// How often a batch that stands in somebody's way is tried again before its items are failed.
const TRIES: u32 = 50;

/// Why a batch was not committed.
enum Stop {
    /// It will never be: the same again.
    Failed(Fault),
    /// The writer was declared dead.
    Lost,
    /// Whether it was is not known; this is what follows if so.
    Unknown(Box<Plan>),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl<R: Rows, T: Timer> Engine<R, T> {
    /// Runs a lane until the engine has stopped.
    pub async fn run_lane(&self, lane: usize) {
        loop {
            let work = self.ledger().take(lane, self.timer.now());
            match work {
                Work::Batch(entries, ops) => self.commit(lane, entries, ops).await,
                Work::Rest(until) => tokio::select! {
                    biased;
                    () = self.lanes[lane].notified() => {}
                    () = self.timer.sleep_until(until) => {}
                },
                Work::Stop => break,
            }
        }
        let (writer, _) = self.ledger().writer(lane);
        if let Ok(writers) = self.rows.writers().await
            && let Some(own) = writers.iter().find(|row| row.writer == writer)
        {
            let _ = self.rows.bury(writer, own.beat).await;
        }
        self.stopped.add_permits(1);
        self.keeper.notify_one();
    }

    /// Commits items and operations, in halves when the database does not take one of them.
    async fn commit(&self, lane: usize, entries: Vec<Entry>, ops: Vec<Op>) {
        let mut batches = vec![(entries, ops)];
        while let Some((entries, ops)) = batches.pop() {
            let Some((mut entries, ops)) = self.commit_whole(lane, entries, ops).await else { continue };
            if entries.len() <= 1 {
                metrics::counter!("tenantry_quota_poison_total").increment(1);
                // Operations alone that the database does not take are given up: leases are looked through again.
                if let Some(entry) = entries.pop() {
                    self.ledger().spoil(lane, entry);
                    batches.push((Vec::new(), ops));
                }
                continue;
            }
            let second = entries.split_off(entries.len() / 2);
            batches.push((second, ops));
            batches.push((entries, Vec::new()));
        }
    }

    /// Commits a batch, however often that takes. Gives it back when the database does not take one of its values.
    async fn commit_whole(
        &self,
        lane: usize,
        mut entries: Vec<Entry>,
        mut ops: Vec<Op>,
    ) -> Option<(Vec<Entry>, Vec<Op>)> {
        let mut tries = 0;
        loop {
            let (writer, batch_no) = self.ledger().writer(lane);
            let began = self.timer.now();
            match self.attempt(lane, &mut entries, &ops).await {
                Ok(plan) => {
                    metrics::histogram!("tenantry_quota_commit_seconds").record(seconds(self.timer.now() - began));
                    self.booked(lane, entries, plan).await;
                    return None;
                }
                Err(Stop::Failed(Fault::Poison(reason))) => {
                    tracing::warn!(reason, items = entries.len(), "a batch was refused by the database");
                    return Some((entries, ops));
                }
                Err(Stop::Failed(Fault::Retry(_))) if tries < TRIES => tries += 1,
                Err(Stop::Failed(Fault::Away(reason) | Fault::Retry(reason) | Fault::Unknown(reason))) => {
                    tracing::debug!(reason, "a batch could not be committed");
                    let now = self.timer.now();
                    let told = Outcome::Away(reason);
                    self.ledger().fail(lane, &mut entries, &told, now);
                    self.timer.sleep_until(now + PAUSE).await;
                }
                Err(Stop::Lost) => {
                    self.enter_again(lane).await;
                    ops.clear();
                }
                Err(Stop::Unknown(plan)) => match self.fate(writer, batch_no).await {
                    Fate::Committed => {
                        self.booked(lane, entries, *plan).await;
                        return None;
                    }
                    Fate::Dead => self.ledger().skip(lane),
                    Fate::Gone => {
                        self.enter_again(lane).await;
                        ops.clear();
                    }
                },
            }
        }
    }

    async fn attempt(&self, lane: usize, entries: &mut [Entry], ops: &[Op]) -> Result<Plan, Stop> {
        let (writer, batch_no) = self.ledger().writer(lane);
        let shard = i64::try_from(lane).unwrap_or(0);
        let runner = Runner { writer, shard, now: self.timer.wall() };
        let mut batch = self.rows.begin().await?;
        if !batch.beat(writer, batch_no).await? {
            return Err(Stop::Lost);
        }
        if entries.is_empty() && ops.is_empty() {
            return committed(batch.commit().await, Plan::default());
        }
        let plan = batch::run(&mut batch, runner, entries, ops).await?;
        if cfg!(feature = "broken-ack") {
            answer_early(entries, &plan);
        }
        committed(batch.commit().await, plan)
    }

    /// What became of a batch, asked until somebody knows.
    async fn fate(&self, writer: Uuid, batch_no: i64) -> Fate {
        if mutant::is(Mutant::UnknownIsCommitted) {
            return Fate::Committed;
        }
        if mutant::is(Mutant::UnknownIsAborted) {
            return Fate::Dead;
        }
        loop {
            match self.rows.resolve(writer, batch_no).await {
                Ok(fate) => {
                    let outcome = match fate {
                        Fate::Committed => "committed",
                        Fate::Dead => "dead",
                        Fate::Gone => "gone",
                    };
                    metrics::counter!("tenantry_quota_unknown_commits_total", "outcome" => outcome).increment(1);
                    return fate;
                }
                Err(_) => self.timer.sleep_until(self.timer.now() + PAUSE).await,
            }
        }
    }

    /// Enters a lane anew after it was declared dead, however long that takes. Its leases are closed: what they backed is
    /// found out by the fence, and what was promised of them uses up what they forfeited.
    async fn enter_again(&self, lane: usize) {
        self.ledger().skip(lane);
        while self.enter(lane).await.is_err() {
            self.timer.sleep_until(self.timer.now() + PAUSE).await;
        }
    }

    /// Enters a committed batch, and tells whom it concerns.
    async fn booked(&self, lane: usize, entries: Vec<Entry>, plan: Plan) {
        metrics::counter!("tenantry_quota_commits_total").increment(1);
        #[expect(clippy::cast_precision_loss, reason = "a histogram is of floats; batches are small")]
        metrics::histogram!("tenantry_quota_batch_items").record(entries.len() as f64);
        metrics::counter!("tenantry_quota_broken_leases_total").increment(plan.broken.len() as u64);
        let mut items: BTreeMap<&str, u64> = BTreeMap::new();
        for (entry, planned) in entries.iter().zip(&plan.planned) {
            *items.entry(decided(entry, planned)).or_default() += 1;
        }
        for (decided, count) in items {
            metrics::counter!("tenantry_quota_items_total", "decided" => decided).increment(count);
        }
        let recalled = plan.recalled.clone();
        let returned: Vec<_> = plan.returned.iter().map(|(account, _)| *account).collect();
        let again = plan.planned.iter().any(|planned| matches!(planned, Planned::Again));
        let waits = self.ledger().finish(lane, entries, plan, self.timer.now());
        if waits {
            self.keeper.notify_one();
        }
        if again || !recalled.is_empty() || !returned.is_empty() {
            self.lanes.iter().for_each(tokio::sync::Notify::notify_one);
        }
        if !recalled.is_empty() {
            self.rows.tell(Signal::Recall, &recalled).await;
        }
        if !returned.is_empty() {
            self.rows.tell(Signal::Returned, &returned).await;
        }
    }
}

/// How an item came to its answer, for the metrics.
fn decided(entry: &Entry, planned: &Planned) -> &'static str {
    match planned {
        Planned::Settled(_) if entry.held.iter().all(Option::is_some) => "leased",
        Planned::Settled(_) => "direct",
        Planned::Stored(Outcome::Admitted(_), _) => "repeated",
        Planned::Stored(..) | Planned::Unsettled(Outcome::Refused(_)) => "refused",
        Planned::Unsettled(_) => "unwritten",
        Planned::Waits => "waits",
        Planned::Again => "again",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a histogram is of floats; commits are short")]
fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

/// What follows a commit.
fn committed(told: Result<(), Fault>, plan: Plan) -> Result<Plan, Stop> {
    match told {
        Ok(()) => Ok(plan),
        Err(Fault::Unknown(_)) => Err(Stop::Unknown(Box::new(plan))),
        Err(fault) => Err(Stop::Failed(fault)),
    }
}

/// For the tests of the tests: a build that answers before the commit, which the history checker must catch.
fn answer_early(entries: &mut [Entry], plan: &Plan) {
    for (entry, planned) in entries.iter_mut().zip(&plan.planned) {
        if let Planned::Settled(outcome) = planned
            && let Some(answer) = entry.answer.take()
        {
            let _ = answer.send(outcome.clone());
        }
    }
}
