//! One schedule: servers, clients, limits that change, what goes wrong; then peace, and what must hold in peace.

use std::sync::{Arc, Mutex};

use tenantry::decide::quota::Outcome;
use tenantry::domain::quota::Scope;
use tokio::sync::oneshot;

use crate::clients::{Account, Ask, Known, Mix, account, client};
use crate::cluster::{Cluster, TTL, settings};
use crate::dice::Dice;
use crate::faults::{Act, Armed, Faults, Point};
use crate::operator::{Lowering, set_gauge, set_limit};
use crate::world::World;

/// What was seen in schedules, by name.
pub(crate) type Seen = std::collections::BTreeMap<&'static str, u64>;

/// What a schedule may be told besides its seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) lowering: Lowering,
    pub(crate) waits_for_keys: bool,
    /// Whether the tables check that no more is settled than was granted: a guard of its own.
    pub(crate) checks_leases: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { lowering: Lowering::AsItShould, waits_for_keys: true, checks_leases: true }
    }
}

/// Runs the schedule of a seed. The error is what should not be.
pub(crate) fn run(seed: u64, rules: Rules) -> Result<Seen, String> {
    run_with(seed, rules, None).map(|(seen, _)| seen)
}

/// The same with a fault of the caller's instead of random ones; gives the points too where something happened.
pub(crate) fn run_with(seed: u64, rules: Rules, fault: Option<Armed>) -> Result<(Seen, Vec<Point>), String> {
    let mut dice = Dice::new(seed);
    let mut faults = Faults::random(&mut dice, TTL);
    if let Some(fault) = fault {
        faults = Faults { armed: vec![fault], ..Faults::default() };
        match fault.point {
            // What these points need to be come by.
            Point::ResolveBefore => faults.losses = 4,
            Point::ReclaimLeaseLocked => {
                faults.armed.push(Armed { point: Point::GrantCommitted, server: Some(0), skip: 0, act: Act::Kill });
            }
            _ => {}
        }
    }
    let world = World::new(dice.roll(), faults);
    world.state().db.forgets_to_wait = !rules.waits_for_keys;
    world.state().db.drops_check = !rules.checks_leases;
    let told = world.run(story(world.clone(), dice, rules));
    let state = world.state();
    for point in &state.faults.happened {
        state.note(|| format!("{point:?} happened"));
    }
    told.map(|()| (state.oracle.seen.clone(), state.faults.happened.clone()))
}

async fn story(world: Arc<World>, mut dice: Dice, rules: Rules) {
    let (servers, lanes) = (1 + dice.index(3), 1 + dice.index(2));
    let largest = dice.between(1, 4);
    let limit = |dice: &mut Dice| dice.pick(&[1, 2, 3, 5, 10, 14, 20, 30, 60]);
    let mut accounts = vec![account(&world, 1, Scope::Tenant, "calls", limit(&mut dice))];
    if dice.one_in(2) {
        accounts.insert(0, account(&world, 2, Scope::Member, "calls", limit(&mut dice)));
    }
    if dice.one_in(2) {
        accounts.push(account(&world, 3, Scope::Tenant, "tokens", limit(&mut dice)));
    }
    let mix = Mix {
        accounts: accounts.clone(),
        is_pure: dice.one_in(3),
        leased: dice.pick(&[0, 1, 2, 4]),
        largest,
        pace: dice.pick(&[0, 2_000, 20_000]),
    };
    let cluster = Cluster::start(&world, servers, settings(lanes));
    world.spawn(0, cluster.clone().revive());
    let known = Arc::new(Mutex::new(Known::default()));
    let mut over = Vec::new();
    let mut left = 3 + dice.below(8);
    while left > 0 {
        let requests = 1 + dice.below(left);
        left -= requests;
        let (tell, told) = oneshot::channel();
        over.push(told);
        let task = client(cluster.clone(), mix.clone(), known.clone(), requests);
        world.spawn(0, async move {
            task.await;
            let _ = tell.send(());
        });
    }
    if !mix.is_pure && dice.one_in(2) {
        let (tell, told) = oneshot::channel();
        over.push(told);
        let (world, accounts) = (world.clone(), accounts.clone());
        let mut dice = dice.clone();
        world.clone().spawn(0, async move {
            for _ in 0..=dice.below(3) {
                world.sleep(dice.below(40_000)).await;
                let account = &accounts[dice.index(accounts.len())];
                match dice.below(4) {
                    0 => set_gauge(&world, account.key, dice.between(0, 8)).await,
                    _ => set_limit(&world, account.key, limit(&mut dice), rules.lowering).await,
                }
            }
            let _ = tell.send(());
        });
    }
    for one in over {
        let _ = one.await;
    }
    peace(&world, &cluster, &accounts).await;
}

/// L1, made stronger: once nothing goes wrong any more, everything that is left can be used, and no more; and when servers
/// stop they leave nothing leased.
pub(crate) async fn peace(world: &Arc<World>, cluster: &Arc<Cluster>, accounts: &[Account]) {
    world.state().faults.heal();
    cluster.all_serve().await;
    while world.state().is_anybody_stopped() {
        world.sleep(TTL / 8).await;
    }
    // Others may be about to take back what a server had leased that goes on: promises of it are then forfeited.
    let over = world.state().continued + TTL / 2;
    world.sleep_until(over).await;
    // What clients did not wait for is decided meanwhile.
    world.sleep(TTL / 8).await;
    if world.state().is_anything_promised() {
        // What was promised and cannot be written any more is forfeited when its lease is returned.
        world.sleep(TTL).await;
    }
    if world.state().may_anything_come_back() {
        // A server that goes on gives back what was forfeited of its leases and not promised, once it finds them closed.
        world.sleep(2 * TTL).await;
    }
    for account in accounts {
        let number = world.state().dice.index(cluster.count());
        let name = format!("probe {:?} {}", account.key.scope, account.metric);
        let (free, more) = world.state().left(account.key);
        if free > 0 {
            let ask = Ask::consume(&format!("{name} all"), &[(account, free)]).within(20 * TTL);
            let told = cluster.ask(number, ask.item(world)).await;
            if !matches!(told, Some(Outcome::Admitted(_))) {
                let mut state = world.state();
                let row = &state.db.tables.accounts[&account.key];
                let what = format!("L1: {free} are left, and {told:?} was the answer: {row:?}");
                state.violated(what);
            }
        }
        if !more {
            let ask = Ask::consume(&format!("{name} one more"), &[(account, 1)]).within(20 * TTL);
            let told = cluster.ask(number, ask.item(world)).await;
            if !matches!(told, Some(Outcome::Refused(_))) {
                let mut state = world.state();
                let row = &state.db.tables.accounts[&account.key];
                let property = if matches!(told, Some(Outcome::Admitted(_))) { "S1" } else { "L1" };
                let what = format!("{property}: nothing is left, and {told:?} was the answer: {row:?}");
                state.violated(what);
            }
        }
    }
    let until = world.now() + 20 * TTL;
    let (tell, mut stopped) = oneshot::channel();
    let all = cluster.clone();
    // What servers that have ended had leased is taken back by those that run.
    while world.now() < until && world.state().is_anything_stranded() {
        world.sleep(TTL / 8).await;
    }
    world.spawn(0, async move {
        all.stop().await;
        let _ = tell.send(());
    });
    tokio::select! {
        _ = &mut stopped => {}
        () = world.sleep(20 * TTL) => world.state().violated("L1: a server does not stop"),
    }
    let mut state = world.state();
    let leased = state.db.tables.accounts.values().any(|row| row.leased != 0);
    let writers = state.db.tables.writers.len();
    if leased || writers > 0 {
        let what = format!("L1: leases were left: {:?}, {writers} writers", state.db.tables.leases);
        state.violated(what);
    }
    state.at_the_end();
}
