//! What goes wrong in a round. Whatever was stopped goes on in the end.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::spawn_blocking;

use crate::cluster::Stop;
use crate::dice::Dice;
use crate::fleet::{Fleet, SERVERS};
use crate::record::Micros;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A server is killed, and started again so many milliseconds later.
    Kill { server: usize, back: u64 },
    /// A server stands still for so many milliseconds: beyond 3,000 its leases are taken from it.
    Stop { server: usize, span: u64 },
    /// The same, and it never goes on: another takes its place.
    StopAndKill { server: usize, span: u64 },
    /// PostgreSQL is told to end, and started again.
    Database { how: Stop, back: u64 },
    /// PostgreSQL crashes, and these servers with it or so many microseconds later.
    PowerCut { servers: [bool; SERVERS], later: u64 },
    /// Every connection of the commit lanes is cut.
    Cut,
}

/// How PostgreSQL is used by one fault at a time.
#[derive(Debug, Default)]
pub(crate) struct DatabaseTurn(tokio::sync::Mutex<()>);

/// What goes wrong in a round, and after how many milliseconds.
pub(crate) fn plan(dice: &mut Dice) -> Vec<(u64, Fault)> {
    let count = dice.pick(&[0, 1, 1, 1, 2, 2, 2, 3]);
    (0..count).map(|_| (300 + dice.below(1_500), fault(dice))).collect()
}

fn fault(dice: &mut Dice) -> Fault {
    let server = dice.index(SERVERS);
    let back = dice.below(800);
    match dice.below(16) {
        0..3 => Fault::Kill { server, back },
        3..7 => Fault::Stop { server, span: 3_600 + dice.below(1_200) },
        7 => Fault::Stop { server, span: 200 + dice.below(2_600) },
        8 => Fault::StopAndKill { server, span: 3_600 + dice.below(600) },
        9 => Fault::Database { how: Stop::Fast, back },
        10 => Fault::Database { how: Stop::Immediate, back },
        11..15 => {
            let mut servers = [(); SERVERS].map(|()| dice.one_in(2));
            servers[server] = true;
            Fault::PowerCut { servers, later: dice.pick(&[0, 0, 500, 5_000, 50_000]) }
        }
        _ => Fault::Cut,
    }
}

impl Fault {
    /// Has it happen, and waits until it is over. Gives when it began.
    pub(crate) async fn happen(self, fleet: &Arc<Fleet>, turn: &DatabaseTurn) -> Micros {
        match self {
            Self::Kill { server, back } => {
                let _turn = fleet.turns[server].lock().await;
                let began = fleet.clock.now();
                fleet.kill(server);
                pause(back).await;
                fleet.revive(server).await;
                began
            }
            Self::Stop { server, span } => {
                let _turn = fleet.turns[server].lock().await;
                let began = fleet.clock.now();
                fleet.signal(server, "STOP");
                pause(span).await;
                fleet.signal(server, "CONT");
                began
            }
            Self::StopAndKill { server, span } => {
                let _turn = fleet.turns[server].lock().await;
                let began = fleet.clock.now();
                fleet.signal(server, "STOP");
                pause(span).await;
                fleet.kill(server);
                fleet.revive(server).await;
                began
            }
            Self::Database { how, back } => {
                let _turn = turn.0.lock().await;
                let began = fleet.clock.now();
                stop_database(fleet, how).await;
                pause(back).await;
                start_database(fleet).await;
                began
            }
            Self::PowerCut { servers, later } => {
                let hit: Vec<usize> = (0..SERVERS).filter(|server| servers[*server]).collect();
                // In one order, so that two of these do not wait for each other.
                let mut turns = Vec::new();
                for server in &hit {
                    turns.push(fleet.turns[*server].lock().await);
                }
                let _turn = turn.0.lock().await;
                let began = fleet.clock.now();
                stop_database(fleet, Stop::Immediate).await;
                tokio::time::sleep(Duration::from_micros(later)).await;
                for server in &hit {
                    fleet.kill(*server);
                }
                start_database(fleet).await;
                join_all(hit.into_iter().map(|server| fleet.revive(server))).await;
                began
            }
            Self::Cut => {
                let _turn = turn.0.lock().await;
                let began = fleet.clock.now();
                let mut admin = fleet.administrator().await;
                let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tenantry_meter'";
                sqlx::raw_sql(cut).execute(&mut admin).await.expect("cuts");
                began
            }
        }
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn stop_database(fleet: &Arc<Fleet>, how: Stop) {
    let fleet = fleet.clone();
    spawn_blocking(move || fleet.stop_database(how)).await.expect("stops");
}

async fn start_database(fleet: &Arc<Fleet>) {
    let fleet = fleet.clone();
    spawn_blocking(move || fleet.start_database()).await.expect("starts");
}
