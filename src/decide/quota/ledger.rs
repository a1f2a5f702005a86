//! What a server has in memory of quotas: leases with what is left of them, requests on their way, requests that wait for
//! units. No time passes in here and nothing is awaited: one lock guards all of it.

mod demand;
mod lane;

use std::collections::HashMap;

use tokio::sync::oneshot;
use uuid::Uuid;

use self::demand::{Demand, span};
use self::lane::Lane;
use super::batch::{Plan, Planned};
use super::item::{Action, Item, Outcome, Told};
use super::mutant::{self, Mutant};
use super::{Micros, Settings};
use crate::domain::quota::{AccountKey, Class, EventKey, Standing};

/// A part of an item that a lease of its lane backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) class: Class,
    pub(super) epoch: i64,
}

/// An item on its way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) item: Item,
    /// What backs each charge; none is decided on the account's row.
    pub(super) held: Vec<Option<Held>>,
    /// Whether it was answered before its commit.
    pub(super) promised: bool,
    pub(super) answer: Option<oneshot::Sender<Outcome>>,
    /// How often it was put back.
    pub(super) tries: u32,
}

/// What a lane does with one of its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Fold, then top up by as much, if the lease is still the one with the known epoch.
    Grant { account: AccountKey, class: Class, wanted: i64, known: i64 },
    /// Close and return, but for what promises spent that are not written.
    Return { account: AccountKey, class: Class, spent: i64 },
    /// Give back what was forfeited of leases that were closed from outside, but for what is owed: promised and not written.
    /// If the lease is still the one with the known epoch.
    Absolve { account: AccountKey, known: i64, owed: i64 },
}

impl Op {
    pub(super) const fn lease(&self) -> (AccountKey, Class) {
        match self {
            Self::Grant { account, class, .. } | Self::Return { account, class, .. } => (*account, *class),
            Self::Absolve { account, .. } => (*account, Class::Leased),
        }
    }
}

#[derive(Debug, Default)]
struct Account {
    demand: Demand,
    /// Where it stood when its row was last seen, with what was admitted here since.
    view: Option<Standing>,
    touched: Micros,
    /// Somebody waited for its units lately: no lease is asked for before.
    recalled_until: Micros,
}

/// A request that came while one with the same key was on its way.
#[derive(Debug)]
struct Follower {
    payload_hash: [u8; 32],
    answer: oneshot::Sender<Outcome>,
}

/// Those that came while an item was on its way.
#[derive(Debug, Default)]
struct Leader {
    /// Whether it is a promise: it will be there, whatever comes.
    promised: bool,
    followers: Vec<Follower>,
}

/// Everything in memory.
#[derive(Debug)]
pub(super) struct Ledger {
    settings: Settings,
    accounts: HashMap<AccountKey, Account>,
    inflight: HashMap<EventKey, Leader>,
    lanes: Vec<Lane>,
    /// Items that wait for units, and when they are decided again.
    waiting: Vec<(Micros, Entry)>,
    stopping: bool,
}

/// What a lane is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// A batch; an empty one is a sign of life.
    Batch(Vec<Entry>, Vec<Op>),
    /// Nothing before this instant.
    Rest(Micros),
    /// Everything is settled and returned.
    Stop,
}

impl Ledger {
    pub(super) fn new(settings: Settings, writers: Vec<Uuid>) -> Self {
        let lanes = writers.into_iter().map(|writer| Lane { writer, ..Lane::default() }).collect();
        let (accounts, inflight) = (HashMap::new(), HashMap::new());
        Self { settings, accounts, inflight, lanes, waiting: Vec::new(), stopping: false }
    }

    /// A lane's writer was entered; what it held before is gone.
    pub(super) fn enter(&mut self, lane: usize, now: Micros) {
        let lane = &mut self.lanes[lane];
        lane.reached = Some(now);
        lane.drop_leases();
        lane.drop_ops();
    }

    pub(super) fn writers(&self) -> Vec<Uuid> {
        self.lanes.iter().map(|lane| lane.writer).collect()
    }

    /// A lane's writer, and the number of its next batch.
    pub(super) fn writer(&self, lane: usize) -> (Uuid, i64) {
        (self.lanes[lane].writer, self.lanes[lane].batch_no + 1)
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// No more requests; what is there is settled, and everything leased returned.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.look_now();
    }

    fn look_now(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.look_at = 0);
    }

    // ---- arriving ------------------------------------------------------------------------------------------------

    /// Takes an item in; its answer comes through `answer`, at once when it is a promise. Gives the lane that has it; none
    /// when it was refused, or is behind another of the same key.
    pub(super) fn arrive(&mut self, item: Item, answer: oneshot::Sender<Outcome>, now: Micros) -> Option<usize> {
        if self.stopping {
            let _ = answer.send(Outcome::Away("the server is stopping".to_owned()));
            return None;
        }
        if item.is_keyed
            && let Some(leader) = self.inflight.get_mut(&item.key)
        {
            leader.followers.push(Follower { payload_hash: item.payload_hash, answer });
            return None;
        }
        let queued: usize = self.lanes.iter().map(|lane| lane.queue.len()).sum();
        if queued + self.waiting.len() >= self.settings.queue {
            let _ = answer.send(Outcome::Overloaded);
            return None;
        }
        if item.is_keyed {
            self.inflight.insert(item.key.clone(), Leader::default());
        }
        let held = vec![None; item.charges.len()];
        Some(self.enqueue(Entry { held, item, promised: false, answer: Some(answer), tries: 0 }, now))
    }

    /// Puts an item into a lane, backed by the lane's leases as far as they go, and gives the lane. Backed by the leased class
    /// it is a promise or nothing: only whole items are answered before their commit.
    fn enqueue(&mut self, mut entry: Entry, now: Micros) -> usize {
        let takes = matches!(entry.item.action, Action::Consume { best_effort: false } | Action::Record);
        for charge in &entry.item.charges {
            let account = self.accounts.entry(charge.account).or_default();
            account.touched = now;
            if takes && entry.tries == 0 {
                account.demand.count(charge.amount, now);
            }
        }
        let class = if entry.item.leased { Class::Leased } else { Class::Durable };
        let lane = self.choose(&entry.item, class, takes);
        if takes {
            let whole = self.lanes[lane].covers(&entry.item, class);
            let promises = class == Class::Leased && whole && (entry.promised || self.may_promise(lane, now));
            if promises {
                self.hold(&mut entry, lane, class, now);
                entry.promised = true;
                if entry.item.is_keyed
                    && let Some(leader) = self.inflight.get_mut(&entry.item.key)
                {
                    leader.promised = true;
                }
                if let Some(answer) = entry.answer.take() {
                    let _ = answer.send(Outcome::Admitted(entry.item.told(true, None)));
                }
            } else if !entry.promised {
                self.hold(&mut entry, lane, Class::Durable, now);
            }
            self.ask_for_leases(&entry.item, lane, class, now);
        }
        self.lanes[lane].queue.push_back(entry);
        lane
    }

    /// The lane for an item: one that has leases for all of it, else the one with the least to do.
    fn choose(&self, item: &Item, class: Class, takes: bool) -> usize {
        let load = |number: &usize| {
            let lane = &self.lanes[*number];
            (!(takes && lane.covers(item, class)), lane.queue.len(), lane.at_work)
        };
        (0..self.lanes.len()).min_by_key(load).unwrap_or(0)
    }

    /// A server that has not reached the database for a while may have been declared dead.
    fn may_promise(&self, lane: usize, now: Micros) -> bool {
        self.lanes[lane].reached.is_some_and(|at| now.saturating_sub(at) < self.settings.promise_window)
    }

    fn hold(&mut self, entry: &mut Entry, lane: usize, class: Class, now: Micros) {
        for (charge, held) in entry.item.charges.iter_mut().zip(&mut entry.held) {
            let Some(lease) = self.lanes[lane].leases.get_mut(&(charge.account, class)) else { continue };
            if lease.closing || lease.free < charge.amount || held.is_some() {
                continue;
            }
            lease.free -= charge.amount;
            lease.pending += charge.amount;
            lease.used_at = now;
            *held = Some(Held { class, epoch: lease.epoch });
            if let Some(view) = self.accounts.get_mut(&charge.account).and_then(|account| account.view.as_mut()) {
                view.used += charge.amount;
                charge.standing = *view;
            }
        }
    }

    /// Asks for leases, or for more of them, on accounts that much is asked of.
    fn ask_for_leases(&mut self, item: &Item, lane: usize, class: Class, now: Micros) {
        let lanes = i64::try_from(self.lanes.len()).unwrap_or(1);
        let lane = &mut self.lanes[lane];
        for charge in &item.charges {
            let Some(account) = self.accounts.get(&charge.account) else { continue };
            let cold = class == Class::Durable && account.demand.requests() < self.settings.hot_rate;
            if cold || account.recalled_until > now {
                continue;
            }
            let key = (charge.account, class);
            let wanted = account.demand.units_in(span(class)) / lanes;
            let wanted = wanted.max(charge.amount.saturating_mul(8));
            let (free, closing) = lane.leases.get(&key).map_or((0, false), |lease| (lease.free, lease.closing));
            if !closing && free < wanted / 2 {
                let wanted = wanted - free;
                lane.ops.entry(key).or_insert(Op::Grant { account: charge.account, class, wanted, known: 0 });
            }
        }
    }

    // ---- a lane's work -------------------------------------------------------------------------------------------

    /// What a lane is to do now.
    pub(super) fn take(&mut self, number: usize, now: Micros) -> Work {
        let (stopping, settings) = (self.stopping, self.settings);
        let waiting = !self.waiting.is_empty();
        let lane = &mut self.lanes[number];
        lane.at_work = false;
        if lane.look_at <= now {
            lane.look_after_leases(stopping, &settings, now);
        }
        if lane.is_idle() {
            if stopping && !waiting && lane.owns_nothing() {
                return Work::Stop;
            }
            let beat = lane.reached.map_or(now, |at| at + settings.beat);
            if beat > now {
                return Work::Rest(beat.min(lane.look_at).max(now + 1));
            }
        }
        lane.at_work = true;
        let count = lane.queue.len().min(settings.batch);
        let entries: Vec<Entry> = lane.queue.drain(..count).collect();
        let ops = lane.take_ops(&entries);
        Work::Batch(entries, ops)
    }

    /// Books a batch that was committed, and answers. Gives whether something came to wait.
    pub(super) fn finish(&mut self, number: usize, entries: Vec<Entry>, plan: Plan, now: Micros) -> bool {
        let lane = &mut self.lanes[number];
        lane.batch_no += 1;
        lane.reached = Some(now);
        for (key, epoch) in &plan.broken {
            lane.drop_lease(*key, *epoch);
        }
        for granted in &plan.granted {
            lane.granted(granted.lease, granted.grant, now);
        }
        for key in &plan.returned {
            lane.remove_lease(*key);
        }
        for (account, owed) in &plan.absolved {
            lane.absolved(account, *owed);
        }
        let returned: Vec<AccountKey> = plan.returned.iter().map(|(account, _)| *account).collect();
        let waited = self.waiting.len();
        for (entry, planned) in entries.into_iter().zip(plan.planned) {
            self.settle(number, entry, planned, now);
        }
        let waits = self.waiting.len() > waited;
        for (key, standing) in &plan.standings {
            let pending: i64 = self.lanes.iter().map(|lane| lane.pending(key)).sum();
            let view = Standing { used: standing.used + pending, ..*standing };
            self.accounts.entry(*key).or_default().view = Some(view);
        }
        self.recall(&plan.recalled, now);
        self.returned(&returned, now);
        waits
    }

    fn settle(&mut self, number: usize, mut entry: Entry, planned: Planned, now: Micros) {
        let planned = if self.may_find_more(&entry, &planned) { Planned::Waits } else { planned };
        match planned {
            Planned::Settled(outcome) => {
                self.lanes[number].settled(&mut entry);
                let stored = entry.item.payload_hash;
                self.answer(entry, outcome, Some(stored));
            }
            Planned::Stored(outcome, stored) => {
                // A promise whose key was refused elsewhere was made nevertheless: its units are spent.
                let spent = entry.promised && matches!(outcome, Outcome::Refused(_));
                self.lanes[number].give_back(&mut entry, !spent);
                self.answer(entry, outcome, Some(stored));
            }
            Planned::Unsettled(outcome) => {
                let reuse = !entry.promised;
                self.lanes[number].give_back(&mut entry, reuse);
                self.answer(entry, outcome, None);
            }
            Planned::Waits => {
                if !mutant::is(Mutant::WaitersHold) {
                    self.lanes[number].give_back(&mut entry, true);
                }
                if entry.answer.as_ref().is_none_or(oneshot::Sender::is_closed) && !self.is_followed(&entry) {
                    // Nobody is there any more, and nothing was written.
                    self.inflight.remove(&entry.item.key);
                    return;
                }
                let wake = now + (5_000 << entry.tries.min(3));
                entry.tries += 1;
                self.waiting.push((wake, entry));
            }
            // What backs a promise must not back anything else.
            Planned::Again if entry.promised => self.lanes[number].queue.push_back(entry),
            Planned::Again if entry.item.deadline <= now => {
                self.lanes[number].give_back(&mut entry, true);
                self.answer(entry, Outcome::Contended, None);
            }
            Planned::Again => {
                self.lanes[number].give_back(&mut entry, true);
                entry.tries += 1;
                self.enqueue(entry, now);
            }
        }
    }

    /// Whether the event that is to be given back was not found because it is a promise that is on its way.
    fn may_find_more(&self, entry: &Entry, planned: &Planned) -> bool {
        let (Action::Refund { of, .. }, Planned::Unsettled(Outcome::NotFound)) = (&entry.item.action, planned) else {
            return false;
        };
        let of = EventKey { tenant: entry.item.key.tenant, key: of.clone() };
        self.inflight.get(&of).is_some_and(|leader| leader.promised)
    }

    fn is_followed(&self, entry: &Entry) -> bool {
        let leader = self.inflight.get(&entry.item.key);
        leader.is_some_and(|leader| leader.followers.iter().any(|one| !one.answer.is_closed()))
    }

    /// Answers an item and those of the same key, each compared with what was stored and not with another: another server's
    /// may have been first. When nothing was stored there is no answer for those that ask for something else.
    fn answer(&mut self, entry: Entry, outcome: Outcome, stored: Option<[u8; 32]>) {
        let leader = if entry.item.is_keyed { self.inflight.remove(&entry.item.key) } else { None };
        for follower in leader.into_iter().flat_map(|leader| leader.followers) {
            let of_leader = mutant::is(Mutant::FollowerOfLeader);
            let hash = stored.filter(|_| !of_leader).unwrap_or(entry.item.payload_hash);
            let told = if follower.payload_hash == hash {
                repeated(outcome.clone())
            } else if stored.is_some() {
                Outcome::Conflict
            } else {
                Outcome::Away("the same key was being used for something else: ask again".to_owned())
            };
            let _ = follower.answer.send(told);
        }
        if let Some(answer) = entry.answer {
            let is_other = stored.is_some_and(|hash| hash != entry.item.payload_hash);
            let _ = answer.send(if is_other { Outcome::Conflict } else { outcome });
        }
    }

    /// Leaves out the number of a batch that will never be committed, and the one by which its row says so.
    pub(super) fn skip(&mut self, number: usize) {
        self.lanes[number].batch_no += 2;
    }

    /// Answers an item that the database does not take.
    pub(super) fn spoil(&mut self, number: usize, mut entry: Entry) {
        if entry.promised {
            tracing::error!(key = %entry.item.key.key, "what was promised cannot be written");
        }
        let reuse = !entry.promised;
        self.lanes[number].give_back(&mut entry, reuse);
        self.answer(entry, Outcome::Broken("the database does not take it".to_owned()), None);
    }

    /// Fails items whose time is over and that were not written; promises stay.
    pub(super) fn fail(&mut self, number: usize, entries: &mut Vec<Entry>, outcome: &Outcome, now: Micros) {
        let (failed, kept): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(entries).into_iter().partition(|entry| !entry.promised && entry.item.deadline <= now);
        *entries = kept;
        for mut entry in failed {
            self.lanes[number].give_back(&mut entry, true);
            self.answer(entry, outcome.clone(), None);
        }
    }

    // ---- waiting -------------------------------------------------------------------------------------------------

    /// Leases on these accounts are wanted back: they close as soon as they are settled.
    pub(super) fn recall(&mut self, accounts: &[AccountKey], now: Micros) {
        for key in accounts {
            self.accounts.entry(*key).or_default().recalled_until = now + self.settings.recall_rest;
            for lane in &mut self.lanes {
                for class in [Class::Durable, Class::Leased] {
                    lane.close((*key, class));
                }
            }
        }
    }

    /// Units of these accounts came back: who waits for them is decided again. Gives whether anybody was woken.
    pub(super) fn returned(&mut self, accounts: &[AccountKey], now: Micros) -> bool {
        if accounts.is_empty() {
            return false;
        }
        let waits_for = |entry: &Entry| entry.item.charges.iter().any(|charge| accounts.contains(&charge.account));
        self.wake_if(|_, entry| waits_for(entry), now)
    }

    /// Decides again whose time has come, and answers whose deadline has; when to look next.
    pub(super) fn wake(&mut self, now: Micros) -> (bool, Micros) {
        let mut late = Vec::new();
        let mut kept = Vec::new();
        for (at, entry) in self.waiting.drain(..) {
            if entry.item.deadline <= now { late.push(entry) } else { kept.push((at, entry)) }
        }
        self.waiting = kept;
        for entry in late {
            metrics::counter!("tenantry_quota_contended_total").increment(1);
            self.answer(entry, Outcome::Contended, None);
        }
        let woken = self.wake_if(|at, _| at <= now, now);
        let next = self.waiting.iter().map(|(at, entry)| (*at).min(entry.item.deadline)).min();
        (woken, next.unwrap_or(now + self.settings.look))
    }

    fn wake_if(&mut self, is_due: impl Fn(Micros, &Entry) -> bool, now: Micros) -> bool {
        let all = std::mem::take(&mut self.waiting);
        let (due, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, entry)| is_due(*at, entry));
        self.waiting = rest;
        let woken = !due.is_empty();
        for (_, entry) in due {
            self.enqueue(entry, now);
        }
        woken
    }

    /// Says how much is leased here, and how many requests wait, for the metrics.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub(super) fn gauge(&self) {
        let leased: i64 = self.lanes.iter().map(Lane::leased).sum();
        metrics::gauge!("tenantry_quota_leased_units").set(leased as f64);
        metrics::gauge!("tenantry_quota_waiting_items").set(self.waiting.len() as f64);
        metrics::gauge!("tenantry_quota_accounts").set(self.accounts.len() as f64);
    }

    /// Forgets accounts that nobody asked of for a while.
    pub(super) fn forget_idle(&mut self, now: Micros) {
        let before = now.saturating_sub(self.settings.forget);
        self.accounts.retain(|_, account| account.touched >= before);
    }
}

/// An outcome as a repetition is told it.
fn repeated(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Admitted(told) => Outcome::Admitted(Told { is_repetition: true, promised: false, ..told }),
        other => other,
    }
}
