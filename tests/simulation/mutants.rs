//! The tests of the test: an engine that is broken in one of the ways of section 9 of the protocol is found out within so
//! many schedules. `make mutants` runs them.

use tenantry::decide::quota::mutant::{Mutant, break_engines};

use crate::cluster::settings;
use crate::keys::crossed_keys;
use crate::operator::Lowering;
use crate::outcome_of;
use crate::schedule::Rules;
use crate::stage::played;
use crate::units::refund_among_consumers;

/// Within so many schedules each is found.
const SCHEDULES: u64 = 20_000;

fn is_found(name: &str, mutant: Option<Mutant>, rules: Rules, by: &[&str]) {
    break_engines(mutant);
    let found = (1..=SCHEDULES).find_map(|seed| Some((seed, outcome_of(seed, rules).err()?)));
    break_engines(None);
    let Some((seed, what)) = found else { panic!("{name} is not found in {SCHEDULES} schedules") };
    println!("{name}: schedule {seed}, {}", what.chars().take(90).collect::<String>());
    assert!(by.iter().any(|property| what.contains(property)), "{name} is found by something else: {what}");
}

fn is_found_in_script(name: &str, mutant: Mutant, by: &str, script: impl Fn(u64) -> Result<(), String>) {
    break_engines(Some(mutant));
    let found = (1..=100).find_map(|seed| Some((seed, script(seed).err()?)));
    break_engines(None);
    let (seed, what) = found.expect("it is found");
    println!("{name}: seed {seed} of the script");
    assert!(what.contains(by), "{name} is found by something else: {what}");
}

macro_rules! found {
    ($($name:ident: $mutant:ident by $by:expr;)*) => {$(
        #[test]
        fn $name() {
            is_found(stringify!($mutant), Some(Mutant::$mutant), Rules::default(), &$by);
        }
    )*};
}

found! {
    an_engine_that_forgets_refusals_is_found: RefusalUnrecorded by ["S2", "S3"];
    an_engine_whose_waiters_hold_units_is_found: WaitersHold by ["L1"];
    an_engine_that_returns_leases_undrained_is_found: ReturnUndrained by ["S1", "S4", "a check of the tables"];
    an_engine_that_takes_an_unknown_commit_as_done_is_found: UnknownIsCommitted by ["S2"];
    an_engine_that_takes_an_unknown_commit_as_not_done_is_found: UnknownIsAborted by ["L1"];
    an_engine_whose_reclaim_forgets_what_was_settled_is_found: ReclaimForgetsSettled by ["S4"];
    an_engine_whose_reclaim_locks_accounts_first_is_found: ReclaimAccountFirst by ["deadlock"];
    an_engine_that_does_not_count_forfeits_is_found: ForfeitsUncounted by ["LEASED", "S1"];
    an_engine_that_compares_followers_with_their_leader_is_found: FollowerOfLeader by ["S2", "S3"];
}

/// Random schedules hardly ever bring the same keys to two servers at once in opposite orders: here a script does.
#[test]
fn an_engine_that_claims_keys_unsorted_is_found() {
    is_found_in_script("UnsortedKeys", Mutant::UnsortedKeys, "deadlock", |seed| {
        played(seed, 2, settings(1), crossed_keys)
    });
}

/// The same of what makes room for others in its own batch.
#[test]
fn an_engine_that_frees_after_it_takes_is_found() {
    is_found_in_script("FreesAfterTakes", Mutant::FreesAfterTakes, "S5", |seed| {
        played(seed, 1, settings(1), refund_among_consumers)
    });
}

#[test]
fn a_lowering_that_breaks_its_rules_is_found() {
    for (lowering, by) in
        [(Lowering::WithoutFencing, "S1"), (Lowering::WithoutSumCheck, "S1"), (Lowering::AccountFirst, "deadlock")]
    {
        is_found(&format!("{lowering:?}"), None, Rules { lowering, ..Rules::default() }, &[by]);
    }
}

#[test]
fn a_database_that_does_not_wait_for_uncommitted_keys_is_found() {
    is_found(
        "no wait for keys",
        None,
        Rules { waits_for_keys: false, ..Rules::default() },
        &["S2", "S3", "S4", "roll-ups"],
    );
}

/// 7, on tables that do not check that a lease settles no more than it was granted, which is a guard too.
#[test]
fn an_engine_without_both_guards_is_found() {
    let rules = Rules { checks_leases: false, ..Rules::default() };
    is_found("BothGuards", Some(Mutant::BothGuards), rules, &["S1", "S4"]);
}

/// 7, the other half: each of the two keeps every limit alone, without the check of the tables as well. That the schedules
/// are not too tame for this to mean something is said by the engine without both. What a server knows of its leases may come
/// to differ from their rows without the epoch (L1).
#[test]
fn an_engine_without_one_of_two_guards_keeps_the_limit() {
    let rules = Rules { checks_leases: false, ..Rules::default() };
    for mutant in [Mutant::EpochGuard, Mutant::AmountGuard] {
        break_engines(Some(mutant));
        for what in (1..=SCHEDULES / 4).filter_map(|seed| outcome_of(seed, rules).err()) {
            assert!(mutant == Mutant::EpochGuard && what.starts_with("L1"), "{mutant:?}: {what}");
        }
        break_engines(None);
    }
}
