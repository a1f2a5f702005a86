//! The world of a schedule: one thread, a clock that jumps, tasks that run in an order that the dice choose, servers that
//! are killed, stopped and cut off. Nothing in here knows what the tasks do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tenantry::decide::quota::{Micros, Timer};
use tenantry::domain::quota::AccountKey;
use tenantry::store::quota::Signal;
use tenantry::time::Timestamp;
use uuid::{Builder, Uuid};

use crate::database::{Database, IDLE_IN_TRANSACTION};
use crate::dice::Dice;
use crate::faults::{Act, Faults, Point};
use crate::oracle::Oracle;

/// The process that a task belongs to; 0 is the test's own. A server that is started again is another one.
pub(crate) type Process = usize;

/// How many servers there are at most: a process is its server's number plus a multiple of this, plus one.
pub(crate) const SLOTS: usize = 8;

/// The server that a process is a run of.
pub(crate) const fn slot(process: Process) -> usize {
    (process + SLOTS - 1) % SLOTS
}

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks that may go on.
#[derive(Default)]
struct Ready(Mutex<Vec<usize>>);

struct Flag {
    task: usize,
    is_ready: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            locked(&self.ready.0).push(self.task);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server is told and has not heard yet.
type Heard = VecDeque<(Signal, Vec<AccountKey>)>;

/// Everything that tasks share.
pub(crate) struct State {
    pub(crate) now: Micros,
    pub(crate) dice: Dice,
    pub(crate) db: Database,
    pub(crate) oracle: Oracle,
    pub(crate) faults: Faults,
    /// The first thing that should not be.
    pub(crate) violation: Option<String>,
    timers: BTreeMap<(Micros, u64), Waker>,
    count: u64,
    spawned: Vec<(Process, Task)>,
    killed: Vec<Process>,
    pub(crate) dead: BTreeSet<Process>,
    stopped: BTreeSet<Process>,
    /// When the last of those that were stopped went on.
    pub(crate) continued: Micros,
    /// Processes that were killed and that nobody has looked at.
    deaths: (VecDeque<Process>, Option<Waker>),
    signals: BTreeMap<Process, (Heard, Option<Waker>)>,
    /// Whether somebody writes down what happens.
    pub(crate) trace: bool,
}

impl State {
    /// Notes what should not be; the schedule ends with the first.
    pub(crate) fn violated(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note(|| format!("VIOLATION {what}{}", self.db.state_of_locks()));
        self.violation.get_or_insert(what);
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9} {}", self.now, what());
        }
    }

    pub(crate) fn is_anybody_stopped(&self) -> bool {
        self.stopped.iter().any(|process| !self.dead.contains(process))
    }

    /// Whether a server that has ended, or was declared dead, holds units.
    pub(crate) fn is_anything_stranded(&self) -> bool {
        let of_dead = |process: &Process| self.dead.contains(process);
        let is_dead = |writer: &Uuid| self.oracle.writers.get(writer).is_some_and(of_dead);
        self.db.tables.leases.values().any(|row| row.epoch != 0 && is_dead(&row.writer))
            || self.db.tables.writers.keys().any(is_dead)
    }

    /// Whether units that a process holds can be had back from it now.
    pub(crate) fn is_reachable(&self, process: Process) -> bool {
        !self.dead.contains(&process) && !self.stopped.contains(&process)
    }

    pub(crate) fn id(&mut self) -> Uuid {
        let (a, b) = (self.dice.roll(), self.dice.roll());
        Builder::from_random_bytes(((u128::from(a) << 64) | u128::from(b)).to_be_bytes()).into_uuid()
    }

    /// A signal for every server; whether it comes is up to the listeners.
    pub(crate) fn signal(&mut self, signal: Signal, accounts: &[AccountKey]) {
        for (queue, waker) in self.signals.values_mut() {
            queue.push_back((signal, accounts.to_vec()));
            waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// The last signal is lost nevertheless: nobody has run since, so nobody has heard it.
    pub(crate) fn take_signal_back(&mut self) {
        for (queue, _) in self.signals.values_mut() {
            queue.pop_back();
        }
    }
}

/// The world.
pub(crate) struct World {
    state: Mutex<State>,
    ready: Arc<Ready>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let state = State {
            now: 1_000_000,
            dice: Dice::new(seed),
            db: Database::default(),
            oracle: Oracle::default(),
            faults,
            violation: None,
            timers: BTreeMap::new(),
            count: 0,
            spawned: Vec::new(),
            killed: Vec::new(),
            dead: BTreeSet::new(),
            stopped: BTreeSet::new(),
            continued: 0,
            deaths: (VecDeque::new(), None),
            signals: BTreeMap::new(),
            trace: std::env::var_os("TENANTRY_TRACE").is_some(),
        };
        Arc::new(Self { state: Mutex::new(state), ready: Arc::default() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(crate) fn now(&self) -> Micros {
        self.state().now
    }

    /// Has a task run as part of a process.
    pub(crate) fn spawn(&self, process: Process, task: impl Future<Output = ()> + Send + 'static) {
        self.state().spawned.push((process, Box::pin(task)));
    }

    /// Ends a process as `kill -9` does: nothing of it runs again.
    pub(crate) fn kill(&self, process: Process) {
        let mut state = self.state();
        if !state.dead.insert(process) {
            return;
        }
        state.note(|| format!("kill {process}"));
        state.killed.push(process);
        state.signals.remove(&process);
        state.deaths.0.push_back(process);
        state.deaths.1.take().into_iter().for_each(Waker::wake);
        state.judge();
    }

    /// Stops a process as SIGSTOP does, for a while. The database ends its transactions when they have been idle for long.
    pub(crate) fn stop(self: &Arc<Self>, process: Process, span: Micros) {
        {
            let mut state = self.state();
            if state.dead.contains(&process) || !state.stopped.insert(process) {
                return;
            }
            state.note(|| format!("stop {process} for {span}"));
            state.judge();
        }
        let world = self.clone();
        self.spawn(0, async move {
            world.sleep(span.min(IDLE_IN_TRANSACTION)).await;
            if span > IDLE_IN_TRANSACTION {
                world.state().end_transactions_of(process);
                world.sleep(span - IDLE_IN_TRANSACTION).await;
            }
            let mut state = world.state();
            state.stopped.remove(&process);
            state.continued = state.now;
            state.note(|| format!("continue {process}"));
        });
    }

    /// The next process that was killed.
    pub(crate) async fn next_death(&self) -> Process {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            state.deaths.1 = Some(cx.waker().clone());
            state.deaths.0.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Listens for signals from now on.
    pub(crate) fn listen(&self, process: Process) {
        self.state().signals.insert(process, (VecDeque::new(), None));
    }

    /// The next signal for a process.
    pub(crate) async fn next_signal(&self, process: Process) -> (Signal, Vec<AccountKey>) {
        std::future::poll_fn(|cx| {
            let mut state = self.state();
            let Some((queue, waker)) = state.signals.get_mut(&process) else { return Poll::Pending };
            *waker = Some(cx.waker().clone());
            queue.pop_front().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Lets others go first.
    pub(crate) async fn yields(&self) {
        let mut again = true;
        std::future::poll_fn(move |cx| {
            if std::mem::take(&mut again) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// A moment: others may go first, now and then the clock moves.
    pub(crate) async fn moment(self: &Arc<Self>) {
        let span = {
            let mut state = self.state();
            match state.dice.below(8) {
                0 | 1 => 1 + state.dice.below(1_500),
                2..=4 => 0,
                _ => return,
            }
        };
        if span == 0 { self.yields().await } else { self.sleep(span).await }
    }

    pub(crate) fn sleep(self: &Arc<Self>, span: Micros) -> Sleep {
        self.sleep_until(self.now() + span)
    }

    pub(crate) fn sleep_until(self: &Arc<Self>, at: Micros) -> Sleep {
        Sleep { world: self.clone(), at, timer: None }
    }

    /// What a point on the way does to the process that passes it. True when its connection is cut there.
    pub(crate) async fn pass(self: &Arc<Self>, point: Point, process: Process) -> bool {
        let act = {
            let mut state = self.state();
            let state = &mut *state;
            state.faults.at(point, process)
        };
        match act {
            None => false,
            Some(Act::Cut) => true,
            Some(Act::Kill) if process == 0 => true,
            Some(Act::Kill) => {
                self.state().note(|| format!("at {point:?}"));
                self.kill(process);
                std::future::pending().await
            }
            Some(Act::Stop(span)) => {
                self.state().note(|| format!("at {point:?}"));
                if process == 0 {
                    self.sleep(span).await;
                } else {
                    self.stop(process, span);
                    self.yields().await;
                }
                false
            }
            Some(Act::Gate(gate)) => {
                self.state().note(|| format!("{process} waits at {point:?}"));
                self.state().faults.reached.insert(gate);
                while !self.state().faults.opened.contains(&gate) {
                    self.sleep(500).await;
                }
                false
            }
        }
    }

    /// Runs everything until the test's own story ends. The error is what should not be.
    pub(crate) fn run(self: &Arc<Self>, story: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        let told = self.run_tasks(story);
        // Tasks that never began know the world, and the world them.
        let rest = std::mem::take(&mut self.state().spawned);
        drop(rest);
        told
    }

    fn run_tasks(self: &Arc<Self>, story: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        self.spawn(0, async move {
            story.await;
            over.store(true, Ordering::Relaxed);
        });
        let mut tasks: Vec<Option<(Process, Task, Arc<Flag>)>> = Vec::new();
        loop {
            let (spawned, killed, violation) = {
                let mut state = self.state();
                let state = &mut *state;
                (std::mem::take(&mut state.spawned), std::mem::take(&mut state.killed), state.violation.clone())
            };
            for (process, task) in spawned {
                let flag = Flag { task: tasks.len(), is_ready: AtomicBool::new(true), ready: self.ready.clone() };
                locked(&self.ready.0).push(tasks.len());
                tasks.push(Some((process, task, Arc::new(flag))));
            }
            for process in killed {
                tasks.iter_mut().filter(|task| task.as_ref().is_some_and(|(of, _, _)| *of == process)).for_each(
                    |task| {
                        *task = None;
                    },
                );
            }
            if let Some(violation) = violation {
                return Err(violation);
            }
            if is_over.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(number) = self.choose(&tasks)? else { continue };
            let Some((_, task, flag)) = &mut tasks[number] else { continue };
            flag.is_ready.store(false, Ordering::Relaxed);
            let waker = Waker::from(flag.clone());
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[number] = None;
            }
        }
    }

    /// A task that may run, as the dice say; none when the clock had to move first.
    fn choose(&self, tasks: &[Option<(Process, Task, Arc<Flag>)>]) -> Result<Option<usize>, String> {
        let mut state = self.state();
        let mut ready = locked(&self.ready.0);
        ready.retain(|number| tasks[*number].is_some());
        if state.stopped.is_empty() && !ready.is_empty() {
            let at = state.dice.index(ready.len());
            return Ok(Some(ready.swap_remove(at)));
        }
        let runs =
            |at: &usize| tasks[ready[*at]].as_ref().is_some_and(|(process, _, _)| !state.stopped.contains(process));
        let can_run: Vec<usize> = (0..ready.len()).filter(runs).collect();
        if !can_run.is_empty() {
            let at = can_run[state.dice.index(can_run.len())];
            return Ok(Some(ready.swap_remove(at)));
        }
        drop(ready);
        let Some((&(at, _), _)) = state.timers.first_key_value() else {
            return Err("nothing can run, and nothing will".to_owned());
        };
        if at > 300_000_000 {
            return Err("it takes too long".to_owned());
        }
        state.now = state.now.max(at);
        while let Some(entry) = state.timers.first_entry()
            && entry.key().0 <= at
        {
            entry.remove().wake();
        }
        Ok(None)
    }
}

/// Waits for an instant.
pub(crate) struct Sleep {
    world: Arc<World>,
    at: Micros,
    timer: Option<(Micros, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut state = world.state();
        if state.now >= self.at {
            return Poll::Ready(());
        }
        let at = self.at;
        let key = *self.timer.get_or_insert_with(|| {
            state.count += 1;
            (at, state.count)
        });
        state.timers.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.world.state().timers.remove(&key);
        }
    }
}

/// The clocks and dice of a server.
#[derive(Clone)]
pub(crate) struct SimTimer(pub(crate) Arc<World>);

impl Timer for SimTimer {
    fn now(&self) -> Micros {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        wall(self.0.now())
    }

    fn id(&self) -> Uuid {
        self.0.state().id()
    }

    fn sleep_until(&self, at: Micros) -> impl Future<Output = ()> + Send {
        self.0.sleep_until(at)
    }
}

/// The calendar at an instant of the clock.
pub(crate) fn wall(now: Micros) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(now).unwrap_or(0))
}
