//! A round: tenants with new accounts, clients that ask for them, faults; then healing, and the checks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use tokio::task::JoinSet;

use crate::checks::{self, Evidence};
use crate::clients::{self, Client};
use crate::dice::Dice;
use crate::drain::{books, healed, is_unwritten};
use crate::faults::{self, DatabaseTurn, Fault};
use crate::fleet::Fleet;
use crate::record::{Attempt, Call, History, METRICS, Micros, Raise, Told, seconds};
use crate::room;
use crate::rows::Rows;

/// Tenants of a round, and clients of each.
const TENANTS: usize = 2;
const CLIENTS: u64 = 8;

/// How long clients ask at least.
const LOAD: Duration = Duration::from_secs(3);

/// How long a promise may take to be written once everything is well again.
const WRITTEN: Duration = Duration::from_secs(10);

/// What happened in a round.
pub(crate) struct Summary {
    seed: u64,
    disk: u64,
    faults: Vec<(Micros, Fault)>,
    calls: [usize; 6],
    took: Duration,
    pub(crate) wrong: Vec<String>,
}

/// Runs a round.
pub(crate) async fn run(fleet: &Arc<Fleet>, seed: u64) -> Summary {
    let begun = Instant::now();
    let mut dice = Dice::new(seed);
    let faults = faults::plan(&mut dice);
    // Who loses power while commits take long loses most.
    let power = faults.iter().any(|(_, fault)| matches!(fault, Fault::PowerCut { .. }));
    let disk = dice.pick(if power { &[10_000, 40_000] } else { &[0, 0, 3_000, 10_000][..] });
    fleet.set_disk(disk).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        tenants.push(open(fleet, seed, number, &mut dice).await);
    }
    let (mut asking, mut raising) = (JoinSet::new(), JoinSet::new());
    for (number, (tenant, raises)) in tenants.iter().enumerate() {
        for client in 0..CLIENTS {
            let name = format!("{number}-{client}");
            let client = Client::new(fleet.clone(), tenant.clone(), name, Dice::new(dice.roll()));
            let over = over.clone();
            asking.spawn(async move { (number, client.run(over).await) });
        }
        let raise = clients::raise(fleet.clone(), raises.clone(), tenant.clone(), Dice::new(dice.roll()), over.clone());
        raising.spawn(async move { (number, raise.await) });
    }
    let mut summary = Summary { seed, disk, faults: happen(fleet, faults).await, ..Summary::new() };
    over.store(true, Ordering::Relaxed);
    let mut histories: Vec<History> = Vec::new();
    histories.extend(tenants.iter().map(|(id, _)| History { tenant: id.clone(), calls: vec![], raises: vec![] }));
    while let Some(asked) = asking.join_next().await {
        let (number, calls) = asked.expect("a client");
        histories[number].calls.extend(calls);
    }
    while let Some(raised) = raising.join_next().await {
        let (number, raises) = raised.expect("who raises limits");
        histories[number].raises = raises;
    }
    summary.count(&histories);
    summary.wrong = judged(fleet, histories, &mut dice, &summary.faults).await;
    summary.took = begun.elapsed();
    summary
}

/// Makes a tenant with limits of its own.
async fn open(fleet: &Fleet, seed: u64, number: usize, dice: &mut Dice) -> (String, Vec<Raise>) {
    let slug = format!("t{number}-{seed}-{}", fleet.clock.now());
    let tenant = fleet.tenant(&slug).await.expect("a tenant");
    let mut raises = Vec::new();
    for metric in METRICS {
        let limit = dice.pick(&[40, 80, 150, 250]) + dice.between(0, 40);
        let sent = fleet.clock.now();
        fleet.set_limit(0, &tenant, metric, limit).await.expect("a limit");
        raises.push(Raise { metric, limit, sent, received: Some(fleet.clock.now()) });
    }
    (tenant, raises)
}

/// Has the faults happen, and waits until they are over and clients have asked for a while.
async fn happen(fleet: &Arc<Fleet>, faults: Vec<(u64, Fault)>) -> Vec<(Micros, Fault)> {
    let turn = DatabaseTurn::default();
    let all = faults.into_iter().map(|(after, fault)| {
        let turn = &turn;
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            (fault.happen(fleet, turn).await, fault)
        }
    });
    let (happened, ()) = tokio::join!(join_all(all), tokio::time::sleep(LOAD));
    happened
}

/// Heals, drains, and checks everything.
async fn judged(
    fleet: &Arc<Fleet>,
    mut histories: Vec<History>,
    dice: &mut Dice,
    faults: &[(Micros, Fault)],
) -> Vec<String> {
    let tenants: Vec<String> = histories.iter().map(|history| history.tenant.clone()).collect();
    let mut wrong = Vec::new();
    if let Err(what) = healed(fleet, &tenants).await {
        wrong.push(what);
    }
    let drains = tenants.iter().map(|tenant| {
        let name = "drain".to_owned();
        Client::new(fleet.clone(), tenant.clone(), name, Dice::new(dice.roll())).drain()
    });
    for (history, (calls, odd)) in histories.iter_mut().zip(join_all(drains).await) {
        history.calls.extend(calls);
        wrong.extend(odd);
    }
    if let Err(what) = try_join_all(tenants.iter().map(|tenant| books(fleet, tenant))).await {
        wrong.push(what);
    }
    let first_fault = faults.iter().map(|(at, _)| *at).min();
    for history in &histories {
        let rows = read(fleet, history).await;
        wrong.extend(checks::violations(&Evidence::new(fleet, history, &rows, first_fault)));
        wrong.extend(room::violations(history, &rows));
    }
    wrong
}

/// The rows, once everything is written that servers which live have promised.
async fn read(fleet: &Fleet, history: &History) -> Rows {
    let mut admin = fleet.administrator().await;
    let begun = Instant::now();
    loop {
        let rows = Rows::read(&mut admin, &history.tenant).await.expect("reads");
        let unwritten = |call: &Call| is_unwritten(fleet, call, call.event(&rows).is_some());
        if !history.calls.iter().any(unwritten) || begun.elapsed() > WRITTEN {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Summary {
    const fn new() -> Self {
        Self { seed: 0, disk: 0, faults: Vec::new(), calls: [0; 6], took: Duration::ZERO, wrong: Vec::new() }
    }

    fn count(&mut self, histories: &[History]) {
        let calls = || histories.iter().flat_map(|history| &history.calls);
        let contended = |a: &Attempt| a.told == Told::Unknown("QUOTA_CONTENDED".to_owned());
        self.calls = [
            calls().map(|call| call.attempts.len()).sum(),
            calls().filter(|call| call.done().is_some()).count(),
            calls().filter(|call| call.is_promised()).count(),
            calls().filter(|call| call.is_refused()).count(),
            calls().flat_map(|call| &call.attempts).filter(|a| matches!(a.told, Told::Unknown(_))).count(),
            calls().flat_map(|call| &call.attempts).filter(|a| contended(a)).count(),
        ];
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [requests, admitted, promised, refused, unknown, contended] = self.calls;
        write!(
            f,
            "seed {}: {requests} requests, {admitted} admitted ({promised} by promise), {refused} refused, {unknown} \
             unknown ({contended} contended), disk +{} us, {:.1?}; faults:",
            self.seed, self.disk, self.took
        )?;
        for (at, fault) in &self.faults {
            write!(f, " {fault:?} at {};", seconds(*at))?;
        }
        if self.faults.is_empty() { write!(f, " none") } else { Ok(()) }
    }
}
