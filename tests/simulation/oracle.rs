//! What must hold, checked at each commit and each answer: the properties of the model of the protocol (S1 to S5, the bound
//! of the leased class), and what the conservation check of the real database proves from its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenantry::decide::quota::{Action, Item, Micros, Outcome};
use tenantry::domain::quota::{
    AccountKey, AccountRow, Class, EventKey, EventKind, EventRow, HoldState, Scope, UNLIMITED,
};
use uuid::Uuid;

use crate::cluster::TTL;
use crate::database::Tx;
use crate::world::{Process, State};

/// One sending of a request to one server.
#[derive(Debug)]
struct Attempt {
    key: EventKey,
    hash: [u8; 32],
    arrived: Micros,
    parts: Vec<(AccountKey, Arc<str>, i64)>,
    /// Accounts that, at some instant since it arrived, had no room for it that any reachable unit could make.
    just: BTreeSet<AccountKey>,
}

/// What is known besides the rows.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    attempts: Vec<Attempt>,
    /// Of writers, also of those that are gone.
    pub(crate) writers: BTreeMap<Uuid, Process>,
    /// What was promised and is not stored, and by whom.
    promises: BTreeMap<EventKey, (Process, Vec<(AccountKey, i64)>)>,
    /// All keys that were promised.
    promised: BTreeSet<EventKey>,
    /// What was said yes to, by key.
    yes: BTreeMap<EventKey, Vec<(AccountKey, i64)>>,
    /// Limits, at their highest.
    pub(crate) highest_limit: BTreeMap<AccountKey, i64>,
    /// By how much what is counted whatever the limit went beyond it.
    overage: BTreeMap<AccountKey, i64>,
    /// Accounts that something else than consuming has touched, so that yes and limit cannot be compared by themselves.
    pub(crate) is_mixed: bool,
    /// What was seen, for the count at the end.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

fn parts(item: &Item) -> Vec<(AccountKey, Arc<str>, i64)> {
    item.charges.iter().map(|charge| (charge.account, charge.metric.clone(), charge.amount)).collect()
}

impl State {
    /// A request reaches a server. Gives the number of the attempt.
    pub(crate) fn arrived(&mut self, item: &Item) -> usize {
        self.oracle.is_mixed |= !matches!(item.action, Action::Consume { .. });
        self.oracle.attempts.push(Attempt {
            key: item.key.clone(),
            hash: item.payload_hash,
            arrived: self.now,
            parts: parts(item),
            just: BTreeSet::new(),
        });
        self.judge();
        self.oracle.attempts.len() - 1
    }

    /// The ghost of S5: notes, for what has not been answered, the accounts that have no room for it now, whatever came
    /// back from servers that can be reached.
    pub(crate) fn judge(&mut self) {
        let mut free = BTreeMap::new();
        for (key, row) in &self.db.tables.accounts {
            let of_account = self.db.tables.leases.values().filter(|lease| lease.account == *key);
            let (mut settled, mut stuck) = (0, 0);
            for lease in of_account {
                settled += lease.settled;
                let holder = self.oracle.writers.get(&lease.writer);
                if holder.is_none_or(|process| !self.is_reachable(*process)) {
                    stuck += lease.granted - lease.settled;
                }
            }
            free.insert(*key, row.limit - row.committed - settled - row.reserved - row.forfeited - stuck);
        }
        for (process, parts) in self.oracle.promises.values() {
            if self.dead.contains(process) {
                continue;
            }
            for (account, amount) in parts {
                free.entry(*account).and_modify(|free| *free -= amount);
            }
        }
        for attempt in &mut self.oracle.attempts {
            for (account, _, amount) in &attempt.parts {
                if free.get(account).is_none_or(|free| free < amount) {
                    attempt.just.insert(*account);
                }
            }
        }
    }

    /// A yes before the commit.
    pub(crate) fn promised(&mut self, process: Process, item: &Item) {
        self.see("promised");
        let amounts: Vec<_> = item.charges.iter().map(|charge| (charge.account, charge.amount)).collect();
        self.oracle.promised.insert(item.key.clone());
        if self.db.tables.events.get(&item.key).is_none_or(|row| !row.admitted) {
            self.oracle.yes.insert(item.key.clone(), amounts.clone());
            self.oracle.promises.insert(item.key.clone(), (process, amounts));
        }
        self.judge();
    }

    /// Whether a server that lives has promised what it has not written.
    pub(crate) fn is_anything_promised(&self) -> bool {
        self.oracle.promises.values().any(|(process, _)| !self.dead.contains(process))
    }

    /// Whether something is forfeited of the leases of a server that lives.
    pub(crate) fn may_anything_come_back(&self) -> bool {
        let lives = |writer| self.oracle.writers.get(writer).is_some_and(|process| !self.dead.contains(process));
        self.db.tables.leases.values().any(|lease| lease.forfeited > 0 && lives(&lease.writer))
    }

    pub(crate) fn see(&mut self, what: &'static str) {
        *self.oracle.seen.entry(what).or_default() += 1;
    }

    /// No commit makes the sum of an account larger than its limit, or larger than it was, but by what is forced (S4); and
    /// where a commit admits something, what is used and set aside is within the limit of that instant (S1).
    pub(crate) fn before_commit(&mut self, tx: &Tx) {
        let mut forced: BTreeMap<AccountKey, i64> = BTreeMap::new();
        let mut admitting: BTreeSet<AccountKey> = BTreeSet::new();
        for event in tx.rows.events.values().filter(|event| event.admitted) {
            let is_new = !self.db.tables.events.contains_key(&event.key);
            let is_promised = event.kind == EventKind::Consume && self.oracle.promised.contains(&event.key);
            let is_forced = is_promised || matches!(event.kind, EventKind::Record | EventKind::Set);
            let takes = matches!(event.kind, EventKind::Consume | EventKind::Reserve);
            for charge in event.charges.iter().filter(|charge| is_new && charge.amount > 0) {
                if is_forced {
                    *forced.entry(charge.account).or_default() += charge.amount;
                } else if takes {
                    admitting.insert(charge.account);
                }
            }
            if is_new && event.kind == EventKind::Consume {
                let amounts = event.charges.iter().map(|charge| (charge.account, charge.amount)).collect();
                self.oracle.yes.insert(event.key.clone(), amounts);
            }
            self.oracle.promises.remove(&event.key);
        }
        for row in tx.rows.accounts.values() {
            let sum = |of: &AccountRow| of.limit - of.available();
            let before = self.db.tables.accounts.get(&row.key).map_or(0, sum);
            let beyond = sum(row) - row.limit.max(before);
            if beyond > forced.get(&row.key).copied().unwrap_or(0) {
                self.violated(format!(
                    "S4: a commit grew {} of {before} to {} beyond {}",
                    row.metric,
                    sum(row),
                    row.limit
                ));
            }
            if beyond > 0 {
                *self.oracle.overage.entry(row.key).or_default() += beyond;
            }
        }
        for account in admitting {
            let Some(row) = tx.rows.accounts.get(&account).or_else(|| self.db.tables.accounts.get(&account)) else {
                continue;
            };
            let leases = self.db.tables.leases.iter().filter(|(key, _)| key.0 == account);
            let stay = leases.filter(|(key, _)| !tx.rows.leases.contains_key(*key));
            let written = tx.rows.leases.iter().filter(|(key, _)| key.0 == account);
            let settled: i64 = stay.chain(written).map(|(_, lease)| lease.settled).sum();
            let (taken, limit) = (row.committed + settled + row.reserved, row.limit);
            let overage = self.oracle.overage.get(&account).copied().unwrap_or(0);
            if taken > limit + overage {
                let what = format!("S1: a commit admits {} up to {taken} of {limit}, {overage} forced", row.metric);
                self.violated(what);
            }
        }
    }

    /// What must hold of the rows after each commit.
    pub(crate) fn after_commit(&mut self, tx: &Tx) {
        self.judge();
        for event in tx.rows.events.values().filter(|event| !event.admitted) {
            let of_key = |one: &&Attempt| one.key == event.key && one.hash == event.payload_hash;
            if !self.oracle.attempts.iter().filter(of_key).any(|one| !one.just.is_empty()) {
                self.violated(format!("S5: {} was refused while units were reachable", event.key.key));
            }
        }
        if let Err(what) = self.conserved() {
            self.violated(what);
        }
    }

    /// What the conservation check of the real database proves.
    fn conserved(&self) -> Result<(), String> {
        let tables = &self.db.tables;
        let counting = || tables.events.values().filter(|event| event.admitted && event.kind.counts());
        for (key, row) in &tables.accounts {
            let (mut granted, mut settled, mut forfeited) = (0, 0, 0);
            for lease in tables.leases.values().filter(|lease| lease.account == *key) {
                granted += lease.granted;
                settled += lease.settled;
                forfeited += lease.forfeited;
                if lease.settled > lease.granted {
                    return Err(format!("S4: more settled than granted: {lease:?}"));
                }
            }
            let charged = |event: &EventRow| -> i64 {
                event.charges.iter().filter(|charge| charge.account == *key).map(|charge| charge.amount).sum()
            };
            let used: i64 = counting().map(charged).sum();
            let held = tables.holds.values().filter(|hold| hold.state == HoldState::Held);
            let of_account = held.flat_map(|hold| &hold.charges).filter(|charge| charge.account == *key);
            let reserved: i64 = of_account.map(|charge| charge.amount).sum();
            for (what, is, should) in [
                ("leased", row.leased, granted),
                ("forfeited", row.forfeited, forfeited),
                ("used", row.committed + settled, used),
                ("reserved", row.reserved, reserved),
            ] {
                if is != should {
                    return Err(format!("S4: {what} of {} {:?} is {is} and should be {should}", row.metric, key.scope));
                }
            }
        }
        let mut rollups: BTreeMap<Arc<str>, (i64, i64)> = BTreeMap::new();
        for ((_, _, metric, _), (events, amount)) in &tables.rollups {
            let sum = rollups.entry(metric.clone()).or_default();
            (sum.0, sum.1) = (sum.0 + events, sum.1 + amount);
        }
        let mut counted: BTreeMap<Arc<str>, (i64, i64)> = BTreeMap::new();
        let of_tenant = counting().flat_map(|event| &event.charges);
        for charge in of_tenant.filter(|c| c.account.scope == Scope::Tenant && c.amount != 0) {
            let sum = counted.entry(charge.metric.clone()).or_default();
            (sum.0, sum.1) = (sum.0 + 1, sum.1 + charge.amount);
        }
        if rollups != counted {
            return Err(format!("roll-ups are {rollups:?} and should be {counted:?}"));
        }
        Ok(())
    }

    /// What must hold of an answer when it is given (S2, S3, S5).
    pub(crate) fn answered(&mut self, attempt: usize, item: &Item, outcome: &Outcome) {
        let wrong = self.wrong_about(attempt, item, outcome);
        self.note(|| format!("{:?} {:?} {outcome:?}", item.key.key, item.action));
        if let Some(wrong) = wrong {
            self.violated(format!("{wrong}: {:?} {:?} was told {outcome:?}", item.key.key, item.action));
        }
    }

    fn wrong_about(&mut self, attempt: usize, item: &Item, outcome: &Outcome) -> Option<String> {
        let stored = self.db.tables.events.get(&item.key).cloned();
        let same = stored.as_ref().filter(|row| row.payload_hash == item.payload_hash);
        let writes = !matches!(item.action, Action::Release(_) | Action::Extend { .. });
        self.see(match outcome {
            Outcome::Admitted(told) if told.is_repetition => "repeated",
            Outcome::Admitted(_) => "admitted",
            Outcome::Refused(_) => "refused",
            Outcome::Conflict => "conflict",
            Outcome::NotFound => "not found",
            Outcome::Closed(_) => "closed",
            Outcome::Beyond(..) => "beyond",
            Outcome::OutOfRange(_) => "out of range",
            Outcome::Contended => "contended",
            Outcome::Overloaded => "overloaded",
            Outcome::Away(_) => "away",
            Outcome::Broken(_) => "broken",
        });
        match outcome {
            Outcome::Admitted(told) if told.promised => None,
            Outcome::Admitted(told) if writes => {
                let Some(row) = same.filter(|row| row.admitted) else {
                    return Some(format!("S2: what is stored is {stored:?}"));
                };
                let strip = |charges: &[tenantry::domain::quota::Charge]| -> Vec<_> {
                    charges.iter().map(|c| (c.account, c.amount, c.standing)).collect()
                };
                let is_promised = self.oracle.promised.contains(&item.key);
                if item.is_keyed && !is_promised && strip(&row.charges) != strip(&told.charges) {
                    return Some(format!("S3: what is stored is {:?}", row.charges));
                }
                // Of each metric what there is: what was not given must have been out of reach.
                let attempt = &self.oracle.attempts[attempt];
                let none = told.charges.iter().filter(|charge| charge.amount == 0 && !told.is_repetition);
                for charge in none {
                    let of_metric = |(account, metric, amount): &(AccountKey, Arc<str>, i64)| {
                        *amount > 0 && *metric == charge.metric && attempt.just.contains(account)
                    };
                    let asked = attempt.parts.iter().any(|(_, metric, amount)| *metric == charge.metric && *amount > 0);
                    if asked && !attempt.parts.iter().any(of_metric) {
                        return Some("S5: there was room for a metric".to_owned());
                    }
                }
                None
            }
            Outcome::Admitted(_) => None,
            Outcome::Refused(_) if item.is_keyed => {
                same.is_none_or(|row| row.admitted).then(|| format!("S2: what is stored is {stored:?}"))
            }
            Outcome::Refused(_) => {
                let attempt = &self.oracle.attempts[attempt];
                if attempt.just.is_empty() {
                    return Some("S5: units were reachable".to_owned());
                }
                stored.map(|row| format!("S2: what is stored is {row:?}"))
            }
            Outcome::Conflict => {
                let is_other = stored.as_ref().is_some_and(|row| row.payload_hash != item.payload_hash);
                (!is_other).then(|| format!("S3: what is stored is {stored:?}"))
            }
            Outcome::NotFound | Outcome::Closed(_) | Outcome::Beyond(..) => {
                let of_others = matches!(
                    item.action,
                    Action::Refund { .. } | Action::Commit { .. } | Action::Release(_) | Action::Extend { .. }
                );
                (!of_others).then(|| "that is no answer to it".to_owned())
            }
            Outcome::OutOfRange(_) => {
                let is_great = item.charges.iter().any(|c| c.amount == UNLIMITED);
                (!is_great).then(|| "nothing comes near the end of the range".to_owned())
            }
            Outcome::Broken(_) => (!item.key.key.contains('\0')).then(|| "there is nothing wrong with it".to_owned()),
            Outcome::Contended | Outcome::Overloaded | Outcome::Away(_) => {
                let waited = self.now.saturating_sub(self.oracle.attempts[attempt].arrived);
                (self.faults.is_calm && waited >= 4 * TTL).then(|| "L1: nothing is wrong".to_owned())
            }
        }
    }

    /// How much of an account can be used by somebody who waits long enough, and whether more may come: from holds that end,
    /// or from leases that are out above the limit since something was forced.
    pub(crate) fn left(&self, account: AccountKey) -> (i64, bool) {
        let tables = &self.db.tables;
        let Some(row) = tables.accounts.get(&account) else { return (0, false) };
        let mut left = row.reachable();
        for lease in tables.leases.values().filter(|lease| lease.account == account) {
            left -= lease.settled;
            let holder = self.oracle.writers.get(&lease.writer);
            if lease.class == Class::Leased && holder.is_none_or(|process| !self.is_reachable(*process)) {
                left -= lease.granted - lease.settled;
            }
        }
        let is_held = tables.holds.values().any(|hold| hold.state == HoldState::Held);
        (left, is_held || self.oracle.overage.contains_key(&account))
    }

    /// What must hold at the end: nothing admitted was more than there was (S1, and the bound of the leased class).
    pub(crate) fn at_the_end(&mut self) {
        let mut wrong = Vec::new();
        let state = &*self;
        for (key, row) in &state.db.tables.accounts {
            let limit = state.oracle.highest_limit.get(key).copied().unwrap_or(row.limit);
            let overage = state.oracle.overage.get(key).copied().unwrap_or(0);
            if row.committed + row.reserved > limit + overage {
                wrong.push(format!("S1: {} of {limit} used, {overage} of it forced", row.committed + row.reserved));
            }
            let yes = state.oracle.yes.values().flatten().filter(|(account, _)| account == key);
            let yes: i64 = yes.map(|(_, amount)| amount).sum();
            if !state.oracle.is_mixed && yes > limit {
                wrong.push(format!("LEASED: {yes} of {limit} were said yes to"));
            }
        }
        wrong.into_iter().for_each(|what| self.violated(what));
    }
}
