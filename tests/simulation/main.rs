//! A deterministic simulation of the quota engine: the very code that servers run, on a clock, a scheduler and rows of its
//! own, from one seed. Servers are killed, stopped and cut off at every boundary between two steps; the properties of the
//! model of the protocol are checked at each commit and each answer.
//!
//! `TENANTRY_SCHEDULES` says how many schedules are run, `TENANTRY_SEED` with which seed the first one is; with
//! `TENANTRY_TRACE` a schedule says what happens in it.
#![expect(
    clippy::needless_for_each,
    clippy::needless_pass_by_value,
    reason = "steps of a schedule read best in a line"
)]

mod clients;
mod cluster;
mod crashes;
mod database;
mod dice;
mod faults;
mod keys;
#[cfg(feature = "mutants")]
mod mutants;
mod operator;
mod oracle;
mod points;
mod rows;
mod schedule;
mod stage;
mod units;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use schedule::{Rules, Seen};

/// So many violations are told, and then the run ends.
const SHOWN: usize = 10;

/// In so many schedules everything happens that a client may be told.
const ALL_HAPPENS: u64 = 50_000;

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a schedule; a panic in it is a violation too.
fn outcome_of(seed: u64, rules: Rules) -> Result<Seen, String> {
    catch_unwind(AssertUnwindSafe(|| schedule::run(seed, rules))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

#[test]
fn no_schedule_breaks_a_guarantee() {
    let (count, first) = (number_from("TENANTRY_SCHEDULES", 100_000), number_from("TENANTRY_SEED", 1));
    let began = Instant::now();
    let (next, violations) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let run = || {
        let mut counted = Seen::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return counted;
            }
            match outcome_of(seed, Rules::default()) {
                Ok(more) => more.into_iter().for_each(|(what, n)| *counted.entry(what).or_default() += n),
                Err(what) => {
                    let mut violations = violations.lock().expect("nobody panics with it");
                    violations.push(format!("TENANTRY_SEED={seed} TENANTRY_SCHEDULES=1: {what}"));
                    if violations.len() >= SHOWN {
                        next.store(first + count, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    let counted: Vec<Seen> = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a schedule is caught when it panics")).collect()
    });
    let violations = violations.into_inner().expect("nobody panics with it");
    assert!(violations.is_empty(), "after {:.1?}:\n{}", began.elapsed(), violations.join("\n"));
    let mut all = Seen::new();
    counted.into_iter().flatten().for_each(|(what, n)| *all.entry(what).or_default() += n);
    if count >= ALL_HAPPENS {
        for what in ["promised", "contended", "conflict", "repeated", "refused"] {
            assert!(all.get(what).is_some_and(|n| *n > 0), "nothing was {what}: {all:?}");
        }
    }
    println!("{count} schedules from seed {first} in {:.1?}: {all:?}", began.elapsed());
}
