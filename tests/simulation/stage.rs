//! A scripted schedule: servers, and what a test has happen to them. Each script is played with several seeds, so that
//! what the script leaves open happens in many orders.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tenantry::decide::quota::{Outcome, Settings};
use tenantry::domain::quota::{AccountKey, AccountRow, EventRow, Scope};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clients::{Account, Ask, TENANT, account};
use crate::cluster::{Cluster, settings};
use crate::faults::{Act, Armed, Faults, Point};
use crate::operator::{Lowering, set_limit};
use crate::schedule::peace;
use crate::world::World;

/// With how many seeds a script is played.
const SEEDS: u64 = 40;

/// What a script has.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: Arc<Cluster>,
    gates: Arc<AtomicU32>,
}

/// An account when its limit has been lowered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lowered {
    pub(crate) used: i64,
    pub(crate) leased: i64,
    /// Whether there ever was a lease.
    pub(crate) granted: bool,
}

/// Plays a script on so many servers with one lane each, and looks at what is left when all is over.
pub(crate) fn play<F>(servers: usize, script: impl Fn(Stage) -> F)
where
    F: Future<Output = Vec<Account>> + Send + 'static,
{
    play_with(servers, settings(1), script);
}

/// The same with other settings.
pub(crate) fn play_with<F>(servers: usize, settings: Settings, script: impl Fn(Stage) -> F)
where
    F: Future<Output = Vec<Account>> + Send + 'static,
{
    for seed in 1..=SEEDS {
        if let Err(violation) = played(seed, servers, settings, &script) {
            panic!("seed {seed}: {violation}");
        }
    }
}

/// Plays a script once.
pub(crate) fn played<F>(
    seed: u64,
    servers: usize,
    settings: Settings,
    script: impl Fn(Stage) -> F,
) -> Result<(), String>
where
    F: Future<Output = Vec<Account>> + Send + 'static,
{
    let world = World::new(seed, Faults::default());
    let cluster = Cluster::start(&world, servers, settings);
    let stage = Stage { world: world.clone(), cluster: cluster.clone(), gates: Arc::default() };
    let story = script(stage.clone());
    world.run(async move {
        stage.cluster.all_serve().await;
        stage.world.spawn(0, stage.cluster.clone().revive());
        let accounts = story.await;
        peace(&stage.world, &stage.cluster, &accounts).await;
    })
}

impl Stage {
    /// Enters a tenant's account.
    pub(crate) fn account(&self, metric: &str, limit: i64) -> Account {
        let number = metric.bytes().fold(0, |sum: u128, byte| sum * 31 + u128::from(byte));
        account(&self.world, number, Scope::Tenant, metric, limit)
    }

    /// Has something happen at a server when it comes by a point.
    pub(crate) fn arm(&self, server: usize, point: Point, act: Act) {
        self.world.state().faults.armed.push(Armed { point, server: Some(server), skip: 0, act });
    }

    /// Has a server wait at a point. Gives the gate.
    pub(crate) fn gate(&self, server: usize, point: Point) -> u32 {
        let gate = self.gates.fetch_add(1, Ordering::Relaxed);
        self.arm(server, point, Act::Gate(gate));
        gate
    }

    /// Waits until a server waits at the gate.
    pub(crate) async fn reached(&self, gate: u32) {
        while !self.world.state().faults.reached.contains(&gate) {
            self.world.sleep(500).await;
        }
    }

    pub(crate) fn open(&self, gate: u32) {
        self.world.state().faults.opened.insert(gate);
    }

    /// Lets so much time pass.
    pub(crate) async fn pass(&self, span: u64) {
        self.world.sleep(span).await;
    }

    /// Asks a server, and waits for the answer.
    pub(crate) async fn ask(&self, server: usize, ask: Ask) -> Option<Outcome> {
        let item = ask.item(&self.world);
        self.cluster.ask(server, item).await
    }

    /// Asks a server; the answer comes.
    pub(crate) fn begin(&self, server: usize, ask: Ask) -> oneshot::Receiver<Option<Outcome>> {
        let (tell, told) = oneshot::channel();
        let stage = self.clone();
        self.world.spawn(0, async move {
            let _ = tell.send(stage.ask(server, ask).await);
        });
        told
    }

    /// The same, and goes on when the server has it.
    pub(crate) async fn sent(&self, server: usize, ask: Ask) -> oneshot::Receiver<Option<Outcome>> {
        let told = self.begin(server, ask);
        self.pass(1_000).await;
        told
    }

    /// Lowers the limit of an account; gives where that leaves it.
    pub(crate) fn lower(&self, account: &Account, limit: i64) -> oneshot::Receiver<Lowered> {
        let (tell, told) = oneshot::channel();
        let (stage, key) = (self.clone(), account.key);
        self.world.spawn(0, async move {
            set_limit(&stage.world, key, limit, Lowering::AsItShould).await;
            let row = stage.row(key);
            let _ = tell.send(Lowered { used: stage.used(key), leased: row.leased, granted: row.next_epoch > 1 });
        });
        told
    }

    /// Has a server lease some of an account: with a limit of 20 it then holds 8, and 1 is used.
    pub(crate) async fn warm(&self, server: usize, account: &Account) {
        let ask = Ask::consume(&format!("warm {server} {}", account.metric), &[(account, 1)]);
        assert!(is_yes(self.ask(server, ask).await), "there is room for 1");
        assert!(self.row(account.key).leased > 0, "an account that is asked of is leased");
    }

    /// The same, for promises.
    pub(crate) async fn warm_promises(&self, server: usize, account: &Account) {
        let ask = Ask::consume(&format!("promise {server} {}", account.metric), &[(account, 1)]).leased();
        assert!(is_yes(self.ask(server, ask).await), "there is room for 1");
        assert!(self.row(account.key).leased > 0, "an account that promises are asked of is leased");
    }

    pub(crate) fn row(&self, key: AccountKey) -> AccountRow {
        self.world.state().db.tables.accounts[&key].clone()
    }

    /// The writers of a server.
    pub(crate) fn writers_of(&self, server: usize) -> Vec<Uuid> {
        let process = self.cluster.process(server);
        let state = self.world.state();
        state
            .db
            .tables
            .writers
            .keys()
            .filter(|writer| state.oracle.writers.get(writer) == Some(&process))
            .copied()
            .collect()
    }

    /// How many batches a server's only lane has committed.
    pub(crate) fn batch_no(&self, server: usize) -> i64 {
        let writer = self.writers_of(server)[0];
        self.world.state().db.tables.writers[&writer].batch_no
    }

    /// Used, with what leases have settled.
    pub(crate) fn used(&self, key: AccountKey) -> i64 {
        let settled: i64 = {
            let state = self.world.state();
            state.db.tables.leases.values().filter(|lease| lease.account == key).map(|lease| lease.settled).sum()
        };
        self.row(key).committed + settled
    }

    /// What is stored under a key.
    pub(crate) fn event(&self, key: &str) -> Option<EventRow> {
        let state = self.world.state();
        let of_key = |row: &&EventRow| row.key.tenant == TENANT && &*row.key.key == key;
        state.db.tables.events.values().find(of_key).cloned()
    }
}

pub(crate) fn is_yes(told: Option<Outcome>) -> bool {
    matches!(told, Some(Outcome::Admitted(_)))
}

pub(crate) fn is_no(told: Option<Outcome>) -> bool {
    matches!(told, Some(Outcome::Refused(_)))
}

/// The answer to what was begun.
pub(crate) async fn told(answer: oneshot::Receiver<Option<Outcome>>) -> Option<Outcome> {
    answer.await.ok().flatten()
}
