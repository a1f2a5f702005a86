//! Clients: requests of all kinds, repeated at other servers, with other payloads, at the same time.

use std::sync::{Arc, Mutex, PoisonError};

use tenantry::decide::quota::{Action, Item, NamedHold, NewHold, Outcome};
use tenantry::domain::id::TenantId;
use tenantry::domain::quota::{
    AccountKey, AccountRow, Charge, Details, EventKey, HoldKind, Scope, Standing, UNLIMITED,
};
use tenantry::time::Timestamp;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::world::{World, wall};

pub(crate) const TENANT: TenantId = TenantId(Uuid::from_u128(7));

/// An account of the schedules.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) key: AccountKey,
    pub(crate) metric: Arc<str>,
}

/// Enters an account. A limit below zero is none.
pub(crate) fn account(world: &World, number: u128, scope: Scope, metric: &str, limit: i64) -> Account {
    let key = AccountKey { scope, tenant: TENANT, account: Uuid::from_u128(number) };
    let metric: Arc<str> = metric.into();
    let limit = if limit < 0 { UNLIMITED } else { limit };
    let row = AccountRow {
        key,
        metric: metric.clone(),
        period_start: Timestamp::from_micros(0),
        period_end: Timestamp::from_micros(i64::MAX / 2),
        limit,
        shown_limit: (limit < UNLIMITED).then_some(limit),
        revision: 1,
        committed: 0,
        reserved: 0,
        leased: 0,
        forfeited: 0,
        recall_need: 0,
        next_epoch: 1,
        thresholds: vec![50, 100],
        told_percent: 0,
        settled: 0,
    };
    let mut state = world.state();
    state.db.tables.accounts.insert(key, row);
    state.oracle.highest_limit.insert(key, limit);
    Account { key, metric }
}

/// A request, as `request` makes it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) key: String,
    pub(crate) is_keyed: bool,
    pub(crate) action: Action,
    pub(crate) charges: Vec<(Account, i64)>,
    pub(crate) leased: bool,
    /// How long the client waits.
    pub(crate) patience: u64,
}

impl Ask {
    /// Uses amounts.
    pub(crate) fn consume(key: &str, charges: &[(&Account, i64)]) -> Self {
        Self {
            key: key.to_owned(),
            is_keyed: true,
            action: Action::Consume { best_effort: false },
            charges: charges.iter().map(|(account, amount)| ((*account).clone(), *amount)).collect(),
            leased: false,
            patience: 5_000_000,
        }
    }

    /// The same, doing something else.
    pub(crate) fn doing(self, action: Action) -> Self {
        Self { action, ..self }
    }

    pub(crate) fn leased(self) -> Self {
        Self { leased: true, ..self }
    }

    pub(crate) fn within(self, patience: u64) -> Self {
        Self { patience, ..self }
    }

    /// As the engine is asked, now.
    pub(crate) fn item(&self, world: &World) -> Item {
        let now = world.now();
        let charge = |(account, amount): &(Account, i64)| Charge {
            metric: account.metric.clone(),
            account: account.key,
            amount: *amount,
            refunded: 0,
            standing: Standing::default(),
        };
        let charges: Vec<Charge> = self.charges.iter().map(charge).collect();
        // What the program hashes with SHA-256 to tell payloads apart.
        let mut hash = [0_u8; 32];
        let text = format!("{:?} {:?}", self.action, self.charges);
        for (at, byte) in text.bytes().enumerate() {
            hash[at % 32] = byte.wrapping_add(hash[at % 32].rotate_left(3)).wrapping_mul(31);
        }
        Item {
            key: EventKey { tenant: TENANT, key: self.key.as_str().into() },
            is_keyed: self.is_keyed,
            payload_hash: hash,
            action: self.action.clone(),
            charges,
            leased: self.leased,
            at: wall(now),
            event_at: wall(now),
            details: Arc::new(Details::default()),
            deadline: now + self.patience,
        }
    }
}

/// What clients of a schedule do.
#[derive(Debug, Clone)]
pub(crate) struct Mix {
    pub(crate) accounts: Vec<Account>,
    /// Only Consume.
    pub(crate) is_pure: bool,
    /// One in so many is LEASED.
    pub(crate) leased: u64,
    pub(crate) largest: i64,
    /// Mean time between the requests of a client.
    pub(crate) pace: u64,
}

/// What clients know of each other: what was asked so far, and holds that were opened.
#[derive(Default)]
pub(crate) struct Known {
    asked: Vec<Ask>,
    holds: Vec<Uuid>,
    count: u64,
}

/// One client: so many requests, one after another; what was not answered is sent again, elsewhere.
pub(crate) async fn client(cluster: Arc<Cluster>, mix: Mix, known: Arc<Mutex<Known>>, requests: u64) {
    for _ in 0..requests {
        let pause = cluster.world.state().dice.below(2 * mix.pace + 1);
        cluster.world.sleep(pause).await;
        let ask = {
            let mut state = cluster.world.state();
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            next(&mut state.dice, &mix, &mut known)
        };
        for _ in 0..4 {
            let number = cluster.world.state().dice.index(cluster.count());
            let item = ask.item(&cluster.world);
            match cluster.ask(number, item).await {
                Some(Outcome::Contended | Outcome::Away(_) | Outcome::Overloaded) | None if ask.is_keyed => {}
                _ => break,
            }
            let pause = cluster.world.state().dice.below(50_000);
            cluster.world.sleep(pause).await;
        }
    }
}

fn next(dice: &mut Dice, mix: &Mix, known: &mut Known) -> Ask {
    known.count += 1;
    if !known.asked.is_empty() && dice.one_in(6) {
        // Once more, and sometimes with something else in it.
        let mut again = dice.pick(&(0..known.asked.len()).collect::<Vec<_>>());
        again = known.asked.len() - 1 - again.min(known.asked.len() - 1);
        let mut ask = known.asked[again].clone();
        if dice.one_in(3)
            && let Some(first) = ask.charges.first_mut()
        {
            first.1 += 1;
        }
        return ask;
    }
    let mut charges: Vec<(Account, i64)> = Vec::new();
    let amount = if dice.one_in(3) { dice.between(1, mix.largest) } else { 1 };
    for account in &mix.accounts {
        if charges.is_empty() || dice.one_in(3) {
            charges.push((account.clone(), amount));
        }
    }
    if dice.one_in(4) && charges.len() > 1 {
        charges.remove(0);
    }
    let poison = if dice.one_in(60) { "\0" } else { "" };
    let mut ask = Ask {
        key: format!("k{}{poison}", known.count),
        is_keyed: !dice.one_in(3),
        action: Action::Consume { best_effort: dice.one_in(6) },
        charges,
        leased: dice.one_in(mix.leased),
        patience: if dice.one_in(8) { 20_000 } else { 4_000_000 },
    };
    if !mix.is_pure && dice.one_in(2) {
        ask.leased = false;
        special(dice, known, &mut ask);
    }
    if ask.is_keyed {
        known.asked.push(ask.clone());
    }
    ask
}

/// Makes something else than Consume of a request.
fn special(dice: &mut Dice, known: &mut Known, ask: &mut Ask) {
    let opened_by = Uuid::from_u128(3);
    let hold = known.holds.last().copied();
    let amounts: Vec<(Arc<str>, i64)> =
        if dice.one_in(2) { Vec::new() } else { vec![(ask.charges[0].0.metric.clone(), 1)] };
    ask.action = match dice.below(7) {
        0 | 1 => {
            let hold = Uuid::from_u128(1_000 + u128::from(known.count));
            known.holds.push(hold);
            ask.is_keyed = true;
            Action::Reserve(NewHold {
                hold,
                kind: HoldKind::Reservation,
                holder: "job".into(),
                opened_by,
                expires_at: wall(dice.below(3_000_000)),
            })
        }
        2 => Action::Record,
        3 => {
            ask.charges.truncate(1);
            ask.charges[0].1 = -ask.charges[0].1;
            Action::Lower
        }
        4 => {
            let of = known.asked.last().map_or("nobody", |ask| ask.key.as_str()).into();
            ask.charges.clear();
            Action::Refund { of, amounts }
        }
        _ => {
            let Some(hold) = hold else { return };
            ask.charges.clear();
            let named = |opened_by| NamedHold { id: hold, kind: HoldKind::Reservation, opened_by };
            match dice.below(4) {
                0 | 1 => Action::Commit { hold: named(None), amounts },
                2 => Action::Release(named(Some(opened_by))),
                _ => Action::Extend { hold: named(None), expires_at: wall(4_000_000) },
            }
        }
    };
}
