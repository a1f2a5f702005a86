//! Cases of section 11 of the protocol in which something dies, stands still or is lost: 9, 14, 16 to 19 and 23; and each
//! point with each fault. What cannot be shown here: 17 with the real idle timeout, and 22, the same on SQLite, which are
//! for the tests on the real databases; 7, both guards removed, is in `mutants.rs`.

use tenantry::decide::quota::{Outcome, Settings};
use tenantry::domain::quota::Scope;

use crate::clients::{Ask, account};
use crate::cluster::{TTL, settings};
use crate::database::IDLE_IN_TRANSACTION;
use crate::faults::{Act, Armed, POINTS, Point};
use crate::schedule::{Rules, run_with};
use crate::stage::{is_yes, play, play_with, played, told};

/// 14, of a server that dies.
#[test]
fn what_a_dead_server_promised_is_not_given_to_anybody_else() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm_promises(0, &calls).await;
        let gate = stage.gate(0, Point::BatchBegin);
        assert!(is_yes(stage.ask(0, Ask::consume("lost", &[(&calls, 3)]).leased()).await));
        stage.reached(gate).await;
        stage.cluster.kill(0);
        assert!(is_yes(stage.ask(1, Ask::consume("rest", &[(&calls, 9)]).within(4 * TTL)).await));
        stage.pass(4 * TTL).await;
        let row = stage.row(calls.key);
        assert!(row.forfeited >= 3, "the promise and what was left of its lease: {row:?}");
        assert!(stage.event("lost").is_none());
        vec![calls]
    });
}

/// 14, of a server that stands still.
#[test]
fn a_promise_of_a_server_that_was_declared_dead_uses_up_what_was_forfeited_for_it() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm_promises(0, &calls).await;
        let (leased, used) = (stage.row(calls.key).leased, stage.used(calls.key));
        let gate = stage.gate(0, Point::BatchBegin);
        assert!(is_yes(stage.ask(0, Ask::consume("late", &[(&calls, 3)]).leased()).await));
        stage.reached(gate).await;
        stage.world.stop(stage.cluster.process(0), 4 * TTL);
        stage.open(gate);
        stage.pass(3 * TTL).await;
        assert_eq!(stage.row(calls.key).forfeited, leased, "all of its lease");
        stage.pass(2 * TTL).await;
        assert!(stage.event("late").is_some_and(|row| row.admitted));
        // It goes on: what it had promised is written, and what it had not is there again.
        assert_eq!((stage.row(calls.key).forfeited, stage.used(calls.key)), (0, 3 + used));
        vec![calls]
    });
}

/// 16.
#[test]
fn a_commit_that_is_not_answered_strands_nothing_that_it_granted() {
    for point in [Point::CommitLostApplied, Point::CommitLostUnapplied] {
        play(2, move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.arm(0, point, Act::Cut);
            stage.warm(0, &calls).await;
            assert!(is_yes(stage.ask(1, Ask::consume("all", &[(&calls, 19)])).await));
            vec![calls]
        });
    }
}

/// 16, when asking what became of it is not answered either.
#[test]
fn what_became_of_a_commit_is_told_the_same_however_often_it_is_asked() {
    for point in [Point::CommitLostApplied, Point::CommitLostUnapplied] {
        play(1, move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.arm(0, point, Act::Cut);
            let item = stage.begin(0, Ask::consume("k", &[(&calls, 2)]));
            while !stage.world.state().faults.happened.contains(&point) {
                stage.pass(100).await;
            }
            stage.world.state().faults.cuts = 3;
            stage.pass(150_000).await;
            stage.world.state().faults.cuts = 0;
            assert!(is_yes(told(item).await));
            vec![calls]
        });
    }
}

/// Whoever does not hear the answer asks again.
#[test]
fn who_is_cut_off_before_the_answer_is_told_it_when_he_asks_again() {
    for (point, leased) in [(Point::ArriveHeld, false), (Point::AckHalf, false), (Point::PromiseAnswered, true)] {
        play(1, move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.warm_promises(0, &calls).await;
            stage.arm(0, point, Act::Cut);
            let ask = Ask { leased, ..Ask::consume("k", &[(&calls, 3)]) };
            assert_eq!(stage.ask(0, ask.clone()).await, None, "he is cut off at {point:?}");
            assert!(is_yes(stage.ask(0, ask).await));
            stage.pass(50_000).await;
            assert_eq!(stage.used(calls.key), 4, "once");
            vec![calls]
        });
    }
}

/// 9, when each connection is lost on which units are asked for: the holder looks by itself now and then.
#[test]
fn units_come_back_although_the_connection_is_lost_on_which_they_are_asked_for() {
    const LOOK: u64 = 300_000;
    play_with(2, Settings { look: LOOK, ..settings(1) }, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        for _ in 0..50 {
            stage.arm(1, Point::RecallNotified, Act::Cut);
        }
        let began = stage.world.now();
        assert!(is_yes(stage.ask(1, Ask::consume("all", &[(&calls, 19)])).await));
        assert!(stage.world.now() - began > LOOK / 3, "nobody was told");
        vec![calls]
    });
}

/// 17, with the simulation's own idle timeout.
#[test]
fn others_wait_for_a_server_that_stands_still_in_a_transaction_no_longer_than_the_timeout() {
    play(2, async |stage| {
        let calls = stage.account("calls", 1_000);
        stage.arm(0, Point::BatchAccountsLocked, Act::Stop(3 * TTL));
        let stopped = stage.begin(0, Ask::consume("stopped", &[(&calls, 1)]).within(6 * TTL));
        stage.pass(30_000).await;
        let began = stage.world.now();
        assert!(is_yes(stage.ask(1, Ask::consume("other", &[(&calls, 1)])).await));
        assert!(stage.world.now() - began < IDLE_IN_TRANSACTION + 50_000);
        assert!(is_yes(told(stopped).await));
        vec![calls]
    });
}

/// 18.
#[test]
fn what_a_server_had_leased_before_it_was_started_again_is_taken_back_once() {
    play(1, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        let before: Vec<_> = stage.world.state().db.tables.writers.keys().copied().collect();
        stage.cluster.kill(0);
        stage.cluster.all_serve().await;
        let after: Vec<_> = stage.world.state().db.tables.writers.keys().copied().collect();
        assert!(after.len() > before.len(), "it is another writer");
        assert!(is_yes(stage.ask(0, Ask::consume("all", &[(&calls, 19)]).within(4 * TTL)).await));
        vec![calls]
    });
}

/// 18, when several servers see that it has died.
#[test]
fn what_a_dead_server_had_leased_is_taken_back_by_one_of_those_who_want_to() {
    play(3, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        let dead: Vec<_> = stage.writers_of(0);
        let gates = [0, 1, 2].map(|server| stage.gate(server, Point::ReclaimLeaseLocked));
        stage.cluster.kill(0);
        let reached = || gates.iter().filter(|gate| stage.world.state().faults.reached.contains(gate)).count();
        while reached() == 0 {
            stage.pass(500).await;
        }
        // By then the others want to as well.
        stage.pass(4 * TTL).await;
        assert_eq!(reached(), 1, "while one takes it back nobody else does");
        assert!(stage.row(calls.key).leased > 0);
        gates.into_iter().for_each(|gate| stage.open(gate));
        stage.pass(TTL).await;
        assert_eq!(reached(), 1, "nor afterwards");
        assert_eq!((stage.row(calls.key).leased, stage.used(calls.key)), (0, 1));
        assert!(dead.iter().all(|writer| !stage.world.state().db.tables.writers.contains_key(writer)));
        vec![calls]
    });
}

/// 19.
#[test]
fn that_somebody_waits_is_forgotten_when_he_has_died_and_something_was_decided() {
    play(2, async |stage| {
        let calls = stage.account("calls", 40);
        stage.warm(0, &calls).await;
        stage.arm(1, Point::RecallMarked, Act::Kill);
        let waits = stage.ask(1, Ask::consume("waits", &[(&calls, 35)])).await;
        assert_eq!(waits, None, "it has died");
        assert_eq!(stage.row(calls.key).recall_need, 35);
        // Until the lease is back what is asked of it goes on.
        for number in 0..20 {
            stage.pass(10_000).await;
            assert!(is_yes(stage.ask(0, Ask::consume(&format!("k{number}"), &[(&calls, 1)])).await));
        }
        assert_eq!(stage.row(calls.key).recall_need, 0);
        assert!(stage.row(calls.key).leased > 0, "and leases are granted again");
        vec![calls]
    });
}

/// 23. The check runs at each commit of each schedule: here it is shown to find what it looks for.
#[test]
fn the_conservation_check_finds_a_unit_too_many() {
    let spoil = |what: fn(&mut tenantry::domain::quota::AccountRow)| {
        played(1, 1, settings(1), move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.warm(0, &calls).await;
            if let Some(row) = stage.world.state().db.tables.accounts.get_mut(&calls.key) {
                what(row);
            }
            assert!(is_yes(stage.ask(0, Ask::consume("k", &[(&calls, 1)])).await));
            vec![calls]
        })
    };
    for (name, what) in [
        ("used", (|row| row.committed += 1) as fn(&mut tenantry::domain::quota::AccountRow)),
        ("leased", |row| row.leased += 1),
        ("reserved", |row| row.reserved += 1),
        ("forfeited", |row| row.forfeited += 1),
    ] {
        let found = spoil(what).expect_err("it is found");
        assert!(found.contains(name), "not {name}: {found}");
    }
}

/// Counted on one account and not on the other would be half a record.
#[test]
fn a_record_on_an_account_that_is_gone_counts_nowhere() {
    play(1, async |stage| {
        let calls = stage.account("calls", 20);
        let gone = account(&stage.world, 99, Scope::Member, "calls", 20);
        stage.world.state().db.tables.accounts.remove(&gone.key);
        let record = tenantry::decide::quota::Action::Record;
        let told = stage.ask(0, Ask::consume("bad\0?", &[]).doing(record.clone())).await;
        assert!(matches!(told, Some(Outcome::Broken(_))));
        let item = Ask::consume("half", &[(&calls, 2), (&gone, 2)]).doing(record).item(&stage.world);
        let (_, engine) = stage.cluster.engine(0).expect("it serves");
        assert!(matches!(engine.begin(item).await, Ok(Outcome::Broken(_))));
        assert_eq!(stage.used(calls.key), 0);
        vec![calls]
    });
}

/// Every point with a kill, a stop past the time to live and a cut, in random schedules.
#[test]
fn each_point_is_survived_with_each_fault() {
    const ENOUGH: usize = 5;
    for point in POINTS {
        for act in [Act::Kill, Act::Stop(2 * TTL), Act::Cut] {
            let mut happened = 0;
            for seed in 1..=10_000 {
                let armed = Armed { point, server: None, skip: seed % 4, act };
                match run_with(seed, Rules::default(), Some(armed)) {
                    Ok((_, points)) => happened += usize::from(points.contains(&point)),
                    Err(what) => panic!("{act:?} at {point:?} with seed {seed}: {what}"),
                }
                if happened >= ENOUGH {
                    break;
                }
            }
            assert_eq!(happened, ENOUGH, "{act:?} at {point:?} hardly ever happens");
        }
    }
}
