//! The servers of a schedule: the engine itself, on the clock, the dice and the rows of the world.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry::decide::quota::{Engine, Item, Outcome, Settings};
use tenantry::store::quota::Signal;
use tokio::sync::oneshot;

use crate::faults::Point;
use crate::rows::SimRows;
use crate::world::{Process, SLOTS, SimTimer, World, slot};

pub(crate) type SimEngine = Engine<SimRows, SimTimer>;

/// Spans as in production, five times shorter, so that schedules are short.
pub(crate) const TTL: u64 = 600_000;

/// The settings of a schedule's servers.
pub(crate) const fn settings(lanes: usize) -> Settings {
    Settings {
        lanes,
        batch: 500,
        queue: 1_000,
        hot_rate: 0,
        beat: 100_000,
        ttl: TTL,
        promise_window: 200_000,
        idle_return: 400_000,
        look: 50_000,
        recall_rest: 20_000,
        forget: 12_000_000,
    }
}

#[derive(Default)]
struct Server {
    process: Process,
    engine: Option<Arc<SimEngine>>,
}

/// The servers.
pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    settings: Settings,
    servers: Mutex<Vec<Server>>,
}

impl Cluster {
    /// Servers that start.
    pub(crate) fn start(world: &Arc<World>, count: usize, settings: Settings) -> Arc<Self> {
        let servers = Mutex::new((0..count).map(|_| Server::default()).collect());
        let cluster = Arc::new(Self { world: world.clone(), settings, servers });
        for number in 0..count {
            cluster.start_server(number);
        }
        cluster
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.servers().len()
    }

    /// Starts a server, as a process of its own.
    pub(crate) fn start_server(self: &Arc<Self>, number: usize) {
        let process = {
            let mut servers = self.servers();
            let server = &mut servers[number];
            server.process = if server.process == 0 { number + 1 } else { server.process + SLOTS };
            server.engine = None;
            server.process
        };
        let cluster = self.clone();
        self.world.listen(process);
        self.world.spawn(process, async move { cluster.serve(number, process).await });
    }

    async fn serve(self: Arc<Self>, number: usize, process: Process) {
        let world = &self.world;
        let rows = SimRows { world: world.clone(), process };
        let engine: Arc<SimEngine> = Engine::new(rows, SimTimer(world.clone()), self.settings);
        while engine.open().await.is_err() {
            world.sleep(10_000).await;
        }
        for lane in 0..self.settings.lanes {
            let engine = engine.clone();
            world.spawn(process, async move { engine.run_lane(lane).await });
        }
        let (waiting, keeper) = (engine.clone(), engine.clone());
        world.spawn(process, async move { waiting.run_waiting().await });
        world.spawn(process, async move { keeper.run_keeper().await });
        if let Some(server) = self.servers().get_mut(number).filter(|server| server.process == process) {
            server.engine = Some(engine.clone());
        }
        world.state().note(|| format!("{process} serves"));
        loop {
            let (signal, accounts) = world.next_signal(process).await;
            world.moment().await;
            match signal {
                Signal::Recall => engine.recall(&accounts),
                Signal::Returned => engine.returned(&accounts),
            }
        }
    }

    /// The process that a server is now.
    pub(crate) fn process(&self, number: usize) -> Process {
        self.servers()[number].process
    }

    /// The engine of a server that serves.
    pub(crate) fn engine(&self, number: usize) -> Option<(Process, Arc<SimEngine>)> {
        let servers = self.servers();
        let server = &servers[number];
        let is_dead = self.world.state().dead.contains(&server.process);
        Some((server.process, server.engine.clone().filter(|_| !is_dead)?))
    }

    /// Ends a server as `kill -9` does.
    pub(crate) fn kill(&self, number: usize) {
        self.world.kill(self.process(number));
    }

    /// Starts servers that ended, a while later; until nothing goes wrong any more.
    pub(crate) async fn revive(self: Arc<Self>) {
        loop {
            let process = self.world.next_death().await;
            let number = slot(process);
            if self.process(number) != process {
                continue;
            }
            let engine = self.servers()[number].engine.take();
            drop(engine);
            let span = self.world.state().dice.below(2 * TTL);
            self.world.sleep(span).await;
            self.start_server(number);
        }
    }

    /// Waits until every server serves.
    pub(crate) async fn all_serve(&self) {
        while (0..self.count()).any(|number| self.engine(number).is_none()) {
            self.world.sleep(5_000).await;
        }
    }

    /// Sends a request to a server; none when no answer came back, because the server is not there or has ended, or the
    /// connection to it has.
    pub(crate) async fn ask(&self, number: usize, item: Item) -> Option<Outcome> {
        let (process, engine) = self.engine(number)?;
        let (tell, told) = oneshot::channel();
        let world = self.world.clone();
        self.world.spawn(process, async move {
            let attempt = world.state().arrived(&item);
            let deadline = item.deadline;
            let mut answer = engine.begin(item.clone());
            let at_once = answer.try_recv().ok();
            if let Some(Outcome::Admitted(yes)) = &at_once
                && yes.promised
            {
                world.state().promised(process, &item);
            }
            if world.pass(Point::ArriveHeld, process).await {
                return;
            }
            let outcome = if let Some(outcome) = at_once {
                outcome
            } else {
                tokio::select! {
                    biased;
                    told = &mut answer => told.unwrap_or_else(|_| Outcome::Away("the server stopped".to_owned())),
                    () = world.sleep_until(deadline) => Outcome::Away("too late".to_owned()),
                }
            };
            world.state().answered(attempt, &item, &outcome);
            let is_promise = matches!(&outcome, Outcome::Admitted(yes) if yes.promised);
            if !world.pass(if is_promise { Point::PromiseAnswered } else { Point::AckHalf }, process).await {
                let _ = tell.send(outcome);
            }
        });
        told.await.ok()
    }

    /// Stops all servers, as operators do.
    pub(crate) async fn stop(&self) {
        for number in 0..self.count() {
            if let Some((_, engine)) = self.engine(number) {
                engine.stop().await;
            }
        }
    }
}
