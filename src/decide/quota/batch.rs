//! One batch: the transaction that claims events, checks fences, locks rows, decides, and writes. Section 4.1 of the
//! protocol, whose steps the comments number.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::item::{Action, NamedHold, Outcome, Told};
use super::ledger::{Entry, Op};
use super::mutant::{self, Mutant};
use crate::domain::bucket::Bucket;
use crate::domain::id::TenantId;
use crate::domain::quota::{
    AccountKey, AccountRow, Book, Charge, Class, Details, EventKey, EventKind, EventRow, HoldRow, HoldState, LeaseRow,
    Standing, Verdict,
};
use crate::store::quota::{Batch, Fault, RollupRow, Writes};
use crate::time::Timestamp;

/// What is to become of an item once its batch is committed.
#[derive(Debug, Clone)]
pub(super) enum Planned {
    /// It was written: what its leases backed is used.
    Settled(Outcome),
    /// What is stored under its key is this, with this payload: not always the item's own.
    Stored(Outcome, [u8; 32]),
    /// It is answered, and nothing of it is written.
    Unsettled(Outcome),
    /// It waits for units.
    Waits,
    /// It is tried again.
    Again,
}

/// What a lease was granted.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) lease: (AccountKey, Class),
    /// Epoch and amount; none when the row was open with another epoch than was known.
    pub(super) grant: Option<(i64, i64)>,
}

/// What follows when the batch is committed.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// By item.
    pub(super) planned: Vec<Planned>,
    /// Leases whose fence was broken, with the epoch that was held to be theirs.
    pub(super) broken: Vec<((AccountKey, Class), i64)>,
    pub(super) granted: Vec<Granted>,
    pub(super) returned: Vec<(AccountKey, Class)>,
    /// Accounts of which what was forfeited was given back, but for so much.
    pub(super) absolved: Vec<(AccountKey, i64)>,
    /// Accounts that units are wanted of.
    pub(super) recalled: Vec<AccountKey>,
    /// Where accounts stand.
    pub(super) standings: Vec<(AccountKey, Standing)>,
}

/// The lane that runs a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runner {
    pub(super) writer: Uuid,
    pub(super) shard: i64,
    pub(super) now: Timestamp,
}

/// An item in its batch.
struct Case<'e> {
    entry: &'e Entry,
    event: Option<EventRow>,
    /// What backs each charge and stands.
    held: Vec<Option<Class>>,
    /// Whether a promise lost what backed it.
    late: bool,
    planned: Option<Planned>,
}

/// Runs everything of a batch but its beginning and commit.
pub(super) async fn run<B: Batch>(batch: &mut B, runner: Runner, entries: &[Entry], ops: &[Op]) -> Result<Plan, Fault> {
    let case = |entry| Case::new(entry);
    let mut cases: Vec<Case<'_>> = entries.iter().map(case).collect();
    // 2 and 3: keys, then what was stored under those that were taken.
    let stored = claim(batch, &mut cases).await?;
    // 4: events that are refunded, and holds.
    let events = lock_targets(batch, &cases).await?;
    let holds = lock_holds(batch, &cases, &stored).await?;
    repeat(&mut cases, &stored, &holds);
    // 5: the lane's own leases, and whether their fences stand.
    let leases = lock_leases(batch, runner.writer, &cases, ops).await?;
    let broken = check_fences(&mut cases, &leases);
    // 6: accounts.
    let keys = accounts_of(&cases, ops, &events, &holds);
    let keys: Vec<AccountKey> = keys.into_iter().collect();
    let accounts = if keys.is_empty() { Vec::new() } else { batch.lock_accounts(&keys).await? };
    let book = Book::new(accounts, leases);
    let mut decider = Decider { book, events, holds, writes: Writes::default(), rollups: BTreeMap::new() };
    let returned = decider.decide(&mut cases, ops, runner.now);
    let absolved = decider.absolve(ops);
    let granted = decider.grant(runner.writer, ops);
    let notices = decider.book.finish();
    // 7 and 8: what is other than was claimed, leases, accounts, roll-ups.
    let Decider { book, mut writes, rollups, .. } = decider;
    writes.notices = notices;
    writes.accounts = book.written_accounts().cloned().collect();
    writes.leases = book.written_leases().cloned().collect();
    writes.rollups = rollups.into_values().collect();
    batch.write(runner.writer, runner.shard, runner.now, &writes).await?;
    let standings = book.accounts().filter_map(|row| Some((row.key, book.standing(&row.key)?))).collect();
    let recalled = book.recalled().collect();
    let planned = cases.into_iter().map(|case| case.planned.unwrap_or(Planned::Again)).collect();
    Ok(Plan { planned, broken, granted, returned, absolved, recalled, standings })
}

impl<'e> Case<'e> {
    fn new(entry: &'e Entry) -> Self {
        let held = entry.held.iter().map(|held| held.map(|held| held.class)).collect();
        Self { entry, event: entry.item.event(), held, late: false, planned: None }
    }

    const fn is_open(&self) -> bool {
        self.planned.is_none()
    }

    /// The charges that no lease backs.
    fn direct(&self) -> impl Iterator<Item = &Charge> {
        let charges = self.entry.item.charges.iter().zip(&self.held);
        charges.filter(|(_, held)| held.is_none()).map(|(charge, _)| charge)
    }
}

async fn claim<B: Batch>(batch: &mut B, cases: &mut [Case<'_>]) -> Result<HashMap<EventKey, EventRow>, Fault> {
    let mut events: Vec<&EventRow> = cases.iter().filter_map(|case| case.event.as_ref()).collect();
    if events.is_empty() {
        return Ok(HashMap::new());
    }
    if !mutant::is(Mutant::UnsortedKeys) {
        events.sort_by(|a, b| a.key.cmp(&b.key));
    }
    let taken = batch.claim(&events).await?;
    if taken.is_empty() {
        return Ok(HashMap::new());
    }
    let stored = batch.find_events(&taken).await?;
    let stored: HashMap<EventKey, EventRow> = stored.into_iter().map(|event| (event.key.clone(), event)).collect();
    let taken: HashSet<EventKey> = taken.into_iter().collect();
    for case in cases.iter_mut() {
        let Some(event) = &case.event else { continue };
        // Taken a moment ago and gone now: tried again.
        if taken.contains(&event.key) && !stored.contains_key(&event.key) {
            case.planned = Some(Planned::Again);
        }
    }
    Ok(stored)
}

/// Answers items whose key was taken with what is stored; who asked for something else is told so later.
fn repeat(cases: &mut [Case<'_>], stored: &HashMap<EventKey, EventRow>, holds: &Holds) {
    for case in cases.iter_mut().filter(|case| case.is_open()) {
        let Some(row) = case.event.as_ref().and_then(|event| stored.get(&event.key)) else { continue };
        let hold = hold_id(row).and_then(|id| holds.get(&(row.key.tenant, id))).cloned();
        case.planned = Some(Planned::Stored(Outcome::stored(row, hold), row.payload_hash));
    }
}

/// The hold that an event opened or ended.
fn hold_id(row: &EventRow) -> Option<Uuid> {
    matches!(row.kind, EventKind::Reserve | EventKind::Commit).then(|| row.subject.parse().ok())?
}

async fn lock_targets<B: Batch>(batch: &mut B, cases: &[Case<'_>]) -> Result<HashMap<EventKey, EventRow>, Fault> {
    let target = |case: &Case<'_>| match &case.entry.item.action {
        Action::Refund { of, .. } => Some(EventKey { tenant: case.entry.item.key.tenant, key: of.clone() }),
        _ => None,
    };
    let keys: BTreeSet<EventKey> = cases.iter().filter(|case| case.is_open()).filter_map(target).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let keys: Vec<EventKey> = keys.into_iter().collect();
    let rows = batch.lock_events(&keys).await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
}

async fn lock_holds<B: Batch>(
    batch: &mut B,
    cases: &[Case<'_>],
    stored: &HashMap<EventKey, EventRow>,
) -> Result<Holds, Fault> {
    let wanted = |case: &Case<'_>| {
        let id = match &case.entry.item.action {
            Action::Commit { hold, .. } | Action::Release(hold) | Action::Extend { hold, .. } => Some(hold.id),
            _ => case.event.as_ref().and_then(|event| stored.get(&event.key)).and_then(hold_id),
        };
        id.map(|id| (case.entry.item.key.tenant, id))
    };
    let keys: BTreeSet<_> = cases.iter().filter(|case| case.is_open()).filter_map(wanted).collect();
    if keys.is_empty() {
        return Ok(Holds::new());
    }
    let keys: Vec<_> = keys.into_iter().collect();
    let rows = batch.lock_holds(&keys).await?;
    Ok(rows.into_iter().map(|row| ((row.tenant, row.hold), row)).collect())
}

async fn lock_leases<B: Batch>(
    batch: &mut B,
    writer: Uuid,
    cases: &[Case<'_>],
    ops: &[Op],
) -> Result<Vec<LeaseRow>, Fault> {
    let mut keys: BTreeSet<(AccountKey, Class)> = ops.iter().map(Op::lease).collect();
    for case in cases.iter().filter(|case| case.is_open()) {
        for (charge, held) in case.entry.item.charges.iter().zip(&case.held) {
            // A promise that lost what backed it uses up what its lane forfeited.
            let class = if case.entry.promised { Some(Class::Leased) } else { *held };
            keys.extend(class.map(|class| (charge.account, class)));
        }
    }
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = keys.into_iter().collect();
    batch.lock_leases(writer, &keys).await
}

/// Takes what leases back away from items when the lease is not the one that they knew, or has too little left.
fn check_fences(cases: &mut [Case<'_>], leases: &[LeaseRow]) -> Vec<((AccountKey, Class), i64)> {
    let mut sums: BTreeMap<(AccountKey, Class, i64), i64> = BTreeMap::new();
    for case in cases.iter().filter(|case| case.is_open()) {
        for (charge, held) in case.entry.item.charges.iter().zip(&case.entry.held) {
            if let Some(held) = held {
                *sums.entry((charge.account, held.class, held.epoch)).or_default() += charge.amount;
            }
        }
    }
    let stands = |(account, class, epoch): &(AccountKey, Class, i64), sum: i64| {
        let row = leases.iter().find(|row| row.account == *account && row.class == *class);
        row.is_some_and(|row| {
            // Either guard alone keeps the limit; both are kept.
            let neither = cfg!(feature = "broken-fence") || mutant::is(Mutant::BothGuards);
            let knows = neither || mutant::is(Mutant::EpochGuard) || row.epoch == *epoch;
            let has = neither || mutant::is(Mutant::AmountGuard) || row.granted - row.settled >= sum;
            knows && has
        })
    };
    let broken: BTreeSet<_> = sums.iter().filter(|(key, sum)| !stands(key, **sum)).map(|(key, _)| *key).collect();
    for case in cases.iter_mut().filter(|case| case.is_open()) {
        for ((charge, was), held) in case.entry.item.charges.iter().zip(&case.entry.held).zip(&mut case.held) {
            if was.is_some_and(|was| broken.contains(&(charge.account, was.class, was.epoch))) {
                *held = None;
            }
        }
        case.late = case.entry.promised && case.held.iter().any(Option::is_none);
    }
    broken.into_iter().map(|(account, class, epoch)| ((account, class), epoch)).collect()
}

/// The accounts whose rows decide something.
fn accounts_of(
    cases: &[Case<'_>],
    ops: &[Op],
    events: &HashMap<EventKey, EventRow>,
    holds: &Holds,
) -> BTreeSet<AccountKey> {
    let mut keys: BTreeSet<AccountKey> = ops.iter().map(|op| op.lease().0).collect();
    for case in cases.iter().filter(|case| case.is_open()) {
        keys.extend(case.direct().map(|charge| charge.account));
        match &case.entry.item.action {
            Action::Refund { of, .. } => {
                let target = EventKey { tenant: case.entry.item.key.tenant, key: of.clone() };
                keys.extend(events.get(&target).into_iter().flat_map(|row| &row.charges).map(|c| c.account));
            }
            Action::Commit { hold, .. } | Action::Release(hold) => {
                let hold = (case.entry.item.key.tenant, hold.id);
                keys.extend(holds.get(&hold).into_iter().flat_map(|row| &row.charges).map(|c| c.account));
            }
            _ => {}
        }
    }
    keys
}

/// Decides the items of a batch on its locked rows.
struct Decider {
    book: Book,
    events: HashMap<EventKey, EventRow>,
    holds: Holds,
    writes: Writes,
    rollups: BTreeMap<RollupKey, RollupRow>,
}

/// Holds that are locked. An id alone is none: a tenant that names another's finds nothing.
type Holds = HashMap<(TenantId, Uuid), HoldRow>;

/// Amounts by account.
type Parts = Vec<(AccountKey, i64)>;

type RollupKey = (Uuid, Timestamp, Arc<str>, Option<Uuid>, Option<Uuid>, Box<str>, Box<str>, i64);

impl Decider {
    /// Promises and records first, then what gives units back, then what takes some: in another order a refusal could be
    /// given that no instant justifies.
    /// Gives the leases that were returned.
    fn decide(&mut self, cases: &mut [Case<'_>], ops: &[Op], now: Timestamp) -> Vec<(AccountKey, Class)> {
        let fresh: HashSet<EventKey> = cases
            .iter()
            .filter(|case| case.is_open())
            .filter_map(|case| case.event.as_ref().map(|e| e.key.clone()))
            .collect();
        for case in cases.iter_mut().filter(|case| case.is_open()) {
            if case.late || matches!(case.entry.item.action, Action::Record) {
                case.planned = Some(self.count(case));
            }
        }
        if mutant::is(Mutant::FreesAfterTakes) {
            for case in cases.iter_mut().filter(|case| case.is_open() && case.entry.item.takes()) {
                case.planned = Some(self.take(case, now));
            }
        }
        // Nothing of this batch is backed by them: they were settled before they were given back.
        let mut returned = Vec::new();
        for op in ops {
            let Op::Return { account, class, spent } = *op else { continue };
            self.book.give_back(&account, class, spent);
            returned.push((account, class));
        }
        for case in cases.iter_mut().filter(|case| case.is_open()) {
            case.planned = match &case.entry.item.action {
                Action::Lower => Some(self.lower(case)),
                Action::Refund { of, amounts } => {
                    let target = EventKey { tenant: case.entry.item.key.tenant, key: of.clone() };
                    Some(if target == case.entry.item.key {
                        // The claim is its own: there was no such event.
                        self.unwritten(case, Outcome::NotFound)
                    } else if fresh.contains(&target) {
                        // What is decided in this batch is given back in a later one.
                        self.drop_claim(case);
                        Planned::Waits
                    } else {
                        self.refund(case, &target, amounts)
                    })
                }
                Action::Commit { hold, amounts } => Some(self.commit(case, hold, amounts, now)),
                Action::Release(hold) => Some(self.release(case, hold, now)),
                Action::Extend { hold, expires_at } => Some(self.extend(case, hold, *expires_at)),
                _ => None,
            };
        }
        for case in cases.iter_mut().filter(|case| case.is_open()) {
            case.planned = Some(self.take(case, now));
        }
        returned
    }

    /// Counts what cannot be refused.
    fn count(&mut self, case: &mut Case<'_>) -> Planned {
        let charges = case.entry.item.charges.clone();
        if case.direct().any(|charge| self.book.account(&charge.account).is_none()) {
            return self.unwritten(case, Outcome::Broken("its account is gone".to_owned()));
        }
        if let Some(beyond) = case.direct().find(|charge| !self.book.can_force(&charge.account, charge.amount)) {
            return self.unwritten(case, Outcome::OutOfRange(beyond.metric.clone()));
        }
        for (charge, held) in charges.iter().zip(&case.held) {
            match held {
                Some(class) => self.book.settle(&charge.account, *class, charge.amount),
                None => self.book.force(&charge.account, charge.amount, case.entry.promised),
            }
        }
        self.admit(case, charges, None)
    }

    /// Takes units, as used or as set aside.
    fn take(&mut self, case: &mut Case<'_>, now: Timestamp) -> Planned {
        let item = &case.entry.item;
        let parts: Vec<(AccountKey, i64)> = case.direct().map(|c| (c.account, c.amount)).collect();
        let best_effort = matches!(item.action, Action::Consume { best_effort: true });
        let reserve = matches!(item.action, Action::Reserve(_));
        let mut charges = item.charges.clone();
        if best_effort {
            return self.take_each(case, charges);
        }
        match self.book.take(&parts, reserve) {
            Verdict::Admitted => {
                for (charge, held) in charges.iter_mut().zip(&case.held) {
                    if let Some(class) = held {
                        self.book.settle(&charge.account, *class, charge.amount);
                    }
                }
                let hold = if let Action::Reserve(new) = &item.action {
                    let row = HoldRow {
                        tenant: item.key.tenant,
                        hold: new.hold,
                        kind: new.kind,
                        key: item.key.key.clone(),
                        state: HoldState::Held,
                        charges: charges.clone(),
                        actual: Vec::new(),
                        holder: new.holder.clone(),
                        opened_by: new.opened_by,
                        expires_at: new.expires_at,
                        created_at: now,
                        ended_at: None,
                    };
                    self.writes.holds.push(row.clone());
                    Some(row)
                } else {
                    None
                };
                self.admit(case, charges, hold)
            }
            Verdict::Refused => {
                for charge in &mut charges {
                    charge.amount = 0;
                }
                self.refuse(case, charges)
            }
            Verdict::Undecided => {
                self.drop_claim(case);
                Planned::Waits
            }
        }
    }

    /// Takes each metric for itself: those that there is room for, and 0 of the rest. A metric's accounts of tenant, member and
    /// key go together. No lease backs such items.
    fn take_each(&mut self, case: &mut Case<'_>, mut charges: Vec<Charge>) -> Planned {
        let metrics: BTreeSet<Arc<str>> = charges.iter().map(|charge| charge.metric.clone()).collect();
        let parts_of = |metric: &Arc<str>| -> Parts {
            case.direct().filter(|c| c.metric == *metric).map(|c| (c.account, c.amount)).collect()
        };
        let weighed: Vec<(Arc<str>, Parts)> =
            metrics.into_iter().map(|metric| (metric.clone(), parts_of(&metric))).collect();
        if weighed.iter().any(|(_, parts)| self.book.weigh(parts) == Verdict::Undecided) {
            for (_, parts) in &weighed {
                if self.book.weigh(parts) == Verdict::Undecided {
                    self.book.take(parts, false);
                }
            }
            self.drop_claim(case);
            return Planned::Waits;
        }
        let mut any = false;
        for (metric, parts) in &weighed {
            let admitted = self.book.take(parts, false) == Verdict::Admitted;
            any |= admitted;
            if !admitted {
                charges.iter_mut().filter(|c| c.metric == *metric).for_each(|charge| charge.amount = 0);
            }
        }
        if any { self.admit(case, charges, None) } else { self.refuse(case, charges) }
    }

    /// Lowers a gauge: never below what is there, so never below zero.
    fn lower(&mut self, case: &mut Case<'_>) -> Planned {
        let mut charges = case.entry.item.charges.clone();
        for charge in &mut charges {
            let used = self.book.account(&charge.account).map_or(0, AccountRow::used);
            let lowered = (-charge.amount).min(used.max(0));
            self.book.free(&charge.account, lowered);
            charge.amount = -lowered;
        }
        self.admit(case, charges, None)
    }

    fn refund(&mut self, case: &mut Case<'_>, target: &EventKey, amounts: &[(Arc<str>, i64)]) -> Planned {
        let Some(mut row) = self.events.get(target).filter(|row| row.admitted && row.kind.counts()).cloned() else {
            return self.unwritten(case, Outcome::NotFound);
        };
        let wanted = |charge: &Charge| match amounts {
            [] => Some(charge.amount - charge.refunded),
            some => some.iter().find(|(metric, _)| *metric == charge.metric).map(|(_, amount)| *amount),
        };
        if let Some((metric, _)) = amounts.iter().find(|(metric, _)| !row.charges.iter().any(|c| c.metric == *metric)) {
            return self.unwritten(case, Outcome::Beyond(metric.clone(), 0));
        }
        let beyond = |charge: &&Charge| wanted(charge).is_some_and(|amount| amount > charge.amount - charge.refunded);
        if let Some(charge) = row.charges.iter().find(beyond) {
            let outcome = Outcome::Beyond(charge.metric.clone(), charge.amount - charge.refunded);
            return self.unwritten(case, outcome);
        }
        let mut charges = Vec::new();
        for charge in &mut row.charges {
            let Some(amount) = wanted(charge).filter(|amount| *amount > 0) else { continue };
            charge.refunded += amount;
            // A gauge that was set or lowered since has given it back already.
            let used = self.book.account(&charge.account).map_or(0, AccountRow::used);
            let freed = amount.min(used.max(0));
            self.book.free(&charge.account, freed);
            charges.push(Charge { amount: -freed, refunded: 0, ..charge.clone() });
        }
        self.writes.refunded.retain(|(key, _)| key != target);
        self.writes.refunded.push((target.clone(), row.charges.clone()));
        let details = row.details.clone();
        self.events.insert(target.clone(), row);
        if let Some(event) = &mut case.event {
            // Grouped as what it takes back, so that groups add up.
            event.details = details;
        }
        self.admit(case, charges, None)
    }

    /// A hold that is there for the caller.
    fn hold_of(&self, case: &Case<'_>, named: &NamedHold) -> Option<HoldRow> {
        let is_theirs = |row: &&HoldRow| named.opened_by.is_none_or(|id| row.opened_by == id);
        let found = self.holds.get(&(case.entry.item.key.tenant, named.id));
        found.filter(|row| row.kind == named.kind).filter(is_theirs).cloned()
    }

    fn commit(
        &mut self,
        case: &mut Case<'_>,
        hold: &NamedHold,
        amounts: &[(Arc<str>, i64)],
        now: Timestamp,
    ) -> Planned {
        let Some(mut row) = self.hold_of(case, hold) else { return self.unwritten(case, Outcome::NotFound) };
        if row.state != HoldState::Held {
            return self.unwritten(case, Outcome::Closed(row.state));
        }
        let actual = |charge: &Charge| match amounts {
            [] => charge.amount,
            some => some.iter().find(|(metric, _)| *metric == charge.metric).map_or(0, |(_, amount)| *amount),
        };
        if let Some((metric, _)) = amounts.iter().find(|(metric, _)| !row.charges.iter().any(|c| c.metric == *metric)) {
            return self.unwritten(case, Outcome::Beyond(metric.clone(), 0));
        }
        if let Some(charge) = row.charges.iter().find(|charge| actual(charge) > charge.amount) {
            return self.unwritten(case, Outcome::Beyond(charge.metric.clone(), charge.amount));
        }
        let mut charges = row.charges.clone();
        for charge in &mut charges {
            let used = actual(charge);
            self.book.unreserve(&charge.account, charge.amount);
            self.book.free(&charge.account, -used);
            charge.amount = used;
        }
        (row.state, row.ended_at, row.actual) = (HoldState::Committed, Some(now), charges.clone());
        self.put_hold(row.clone());
        self.admit(case, charges, Some(row))
    }

    fn release(&mut self, case: &Case<'_>, hold: &NamedHold, now: Timestamp) -> Planned {
        let Some(mut row) = self.hold_of(case, hold) else { return Planned::Unsettled(Outcome::NotFound) };
        match row.state {
            HoldState::Held => {
                for charge in &row.charges {
                    self.book.unreserve(&charge.account, charge.amount);
                }
                (row.state, row.ended_at) = (HoldState::Released, Some(now));
                self.put_hold(row.clone());
            }
            HoldState::Released => {}
            other => return Planned::Unsettled(Outcome::Closed(other)),
        }
        Planned::Unsettled(admitted(Vec::new(), Some(row)))
    }

    fn extend(&mut self, case: &Case<'_>, hold: &NamedHold, expires_at: Timestamp) -> Planned {
        let Some(mut row) = self.hold_of(case, hold) else { return Planned::Unsettled(Outcome::NotFound) };
        if row.state != HoldState::Held {
            return Planned::Unsettled(Outcome::Closed(row.state));
        }
        // A heartbeat that comes late shortens nothing.
        row.expires_at = row.expires_at.max(expires_at);
        self.put_hold(row.clone());
        Planned::Unsettled(admitted(Vec::new(), Some(row)))
    }

    fn put_hold(&mut self, row: HoldRow) {
        self.writes.holds.retain(|other| (other.tenant, other.hold) != (row.tenant, row.hold));
        self.writes.holds.push(row.clone());
        self.holds.insert((row.tenant, row.hold), row);
    }

    // ---- what becomes of the claim -------------------------------------------------------------------------------

    /// Keeps the event: with what was decided, where that is other than was claimed and somebody may ask.
    fn admit(&mut self, case: &mut Case<'_>, mut charges: Vec<Charge>, hold: Option<HoldRow>) -> Planned {
        self.stand(&mut charges);
        if let Some(event) = &mut case.event {
            self.roll_up(event, &charges);
            let rows_tell = event.charges.len() != charges.len()
                || event.charges.iter().zip(&charges).any(|(a, b)| (a.account, a.amount) != (b.account, b.amount));
            if rows_tell || (case.entry.item.is_keyed && event.charges != charges) || event.kind == EventKind::Refund {
                event.charges.clone_from(&charges);
                self.writes.decided.push(event.clone());
            }
        }
        Planned::Settled(admitted(charges, hold))
    }

    fn refuse(&mut self, case: &mut Case<'_>, mut charges: Vec<Charge>) -> Planned {
        self.stand(&mut charges);
        match &mut case.event {
            Some(event) if case.entry.item.is_keyed && !mutant::is(Mutant::RefusalUnrecorded) => {
                event.admitted = false;
                event.charges.clone_from(&charges);
                self.writes.decided.push(event.clone());
                let hash = case.entry.item.payload_hash;
                Planned::Stored(Outcome::Refused(charges), hash)
            }
            _ => self.unwritten(case, Outcome::Refused(charges)),
        }
    }

    fn unwritten(&mut self, case: &Case<'_>, outcome: Outcome) -> Planned {
        self.drop_claim(case);
        Planned::Unsettled(outcome)
    }

    fn drop_claim(&mut self, case: &Case<'_>) {
        self.writes.dropped.extend(case.event.as_ref().map(|event| event.key.clone()));
    }

    /// Where accounts that were locked stand; of others the item knows what its lane knows.
    fn stand(&self, charges: &mut [Charge]) {
        for charge in charges {
            if let Some(standing) = self.book.standing(&charge.account) {
                charge.standing = standing;
            }
        }
    }

    /// Adds an event to the roll-ups: the tenant's amounts, since those of members and keys are among them.
    fn roll_up(&mut self, event: &EventRow, charges: &[Charge]) {
        if !event.kind.counts() {
            return;
        }
        let bucket = Bucket::of(event.event_at).start();
        let of_tenant =
            charges.iter().filter(|c| c.account.scope == crate::domain::quota::Scope::Tenant && c.amount != 0);
        for charge in of_tenant {
            let d = &event.details;
            let key = (
                event.key.tenant.0,
                bucket,
                charge.metric.clone(),
                d.member,
                d.api_key,
                d.endpoint.clone(),
                d.method.clone(),
                d.status,
            );
            let row = self.rollups.entry(key).or_insert_with(|| RollupRow {
                tenant: event.key.tenant,
                bucket,
                metric: charge.metric.clone(),
                details: Arc::new(Details { latency_us: 0, attributes: Box::default(), ..Details::clone(d) }),
                events: 0,
                amount: 0,
            });
            row.events += 1;
            row.amount += charge.amount;
        }
    }

    /// Gives back what was forfeited and is not owed, after what uses it up.
    fn absolve(&mut self, ops: &[Op]) -> Vec<(AccountKey, i64)> {
        let mut absolved = Vec::new();
        for op in ops {
            let Op::Absolve { account, known, owed } = *op else { continue };
            if self.book.absolve(&account, known, owed) {
                absolved.push((account, owed));
            }
        }
        absolved
    }

    /// Leases, after everything that is decided.
    fn grant(&mut self, writer: Uuid, ops: &[Op]) -> Vec<Granted> {
        let mut granted = Vec::new();
        for op in ops {
            let Op::Grant { account, class, wanted, known } = *op else { continue };
            let grant = match self.book.account(&account) {
                Some(_) => self.book.grant(LeaseRow::closed(account, writer, class), wanted, known),
                None => None,
            };
            granted.push(Granted { lease: (account, class), grant });
        }
        granted
    }
}

fn admitted(charges: Vec<Charge>, hold: Option<HoldRow>) -> Outcome {
    Outcome::Admitted(Told { charges, promised: false, is_repetition: false, hold })
}
