//! Histories of real servers: three processes on one PostgreSQL, clients that consume, reserve and refund and repeat what they
//! got no answer to at another server, while servers are killed and stopped and PostgreSQL is restarted. Afterwards what
//! callers were told is compared with the rows: no limit was exceeded, nothing acknowledged was lost or counted twice, nothing
//! refused was counted, nobody was refused while there was room, and repetitions were told the same.
//!
//! `TENANTRY_HISTORY_ROUNDS` says how many rounds are run, `TENANTRY_HISTORY_SEED` with which seed the first one is; the next
//! ones follow. A seed draws what is asked and what goes wrong, not how the machine interleaves it: what a round has found may
//! take some more rounds of the same seed to be found again.
//!
//! A build with one of the features `broken-fence`, `broken-ack` and `broken-recall` passes when it is found out.
#![expect(clippy::disallowed_methods, reason = "tests look at databases, and break them, with SQL of their own")]

mod calls;
mod checks;
mod clients;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../simulation/dice.rs"]
mod dice;
mod drain;
mod faults;
mod fleet;
mod record;
mod room;
mod round;
mod rows;

use std::sync::Arc;
use std::time::Instant;

use fleet::Fleet;

/// How many violations of a round are told.
const SHOWN: usize = 5;

/// Rounds in every run of the tests.
const ROUNDS: u64 = 20;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The way in which this build is broken, and by which checks that must be found.
fn broken() -> Option<(&'static str, &'static [&'static str])> {
    if cfg!(feature = "broken-fence") {
        Some(("broken-fence", &["LIMIT", "BOOKS", "SUMS", "DRAIN"]))
    } else if cfg!(feature = "broken-ack") {
        // What was acknowledged and is not there yet is also not found by whoever goes on with it.
        Some(("broken-ack", &["LOST", "SAME", "ODD"]))
    } else if cfg!(feature = "broken-recall") {
        Some(("broken-recall", &["REFUSED FOR NOTHING", "DRAIN"]))
    } else {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_history_breaks_a_guarantee() {
    let first = number_from("TENANTRY_HISTORY_SEED").unwrap_or(1);
    let rounds = number_from("TENANTRY_HISTORY_ROUNDS").unwrap_or(ROUNDS);
    let begun = Instant::now();
    println!("TENANTRY_HISTORY_SEED={first} TENANTRY_HISTORY_ROUNDS={rounds}");
    let mut fleet = Arc::new(Fleet::start().await);
    for round in 1..=rounds {
        let summary = round::run(&fleet, first + round - 1).await;
        println!("round {round}: {summary}");
        if summary.wrong.is_empty() {
            continue;
        }
        let wrong = &summary.wrong;
        let shown = wrong[..wrong.len().min(SHOWN)].join("\n");
        if let Some((name, by)) = broken()
            && wrong.iter().any(|what| by.iter().any(|check| what.starts_with(check)))
        {
            println!("{name} is found in round {round}: {shown}");
            return;
        }
        let logs = Arc::get_mut(&mut fleet).map_or_else(String::new, Fleet::keep);
        panic!("{} violations with {summary}\n{shown}\nwhat the servers wrote is in {logs}", wrong.len());
    }
    if let Some((name, _)) = broken() {
        panic!("{name} is not found in {rounds} rounds");
    }
    println!("{rounds} rounds from seed {first} in {:.1?}", begun.elapsed());
}
