//! Cases of section 11 of the protocol that are about units: 6, 8 to 10, 12, 13, 20 and 21.

use std::sync::Arc;

use tenantry::decide::quota::{Action, NewHold, Outcome};
use tenantry::domain::quota::HoldKind;
use uuid::Uuid;

use crate::clients::Ask;
use crate::cluster::TTL;
use crate::faults::Point;
use crate::operator::{Lowering, set_limit};
use crate::stage::{is_no, is_yes, play, told};
use crate::world::wall;

const HOLD: Uuid = Uuid::from_u128(77);

fn reserve() -> Action {
    Action::Reserve(NewHold {
        hold: HOLD,
        kind: HoldKind::Reservation,
        holder: "job".into(),
        opened_by: Uuid::nil(),
        expires_at: wall(100_000_000),
    })
}

/// 6.
#[test]
fn what_a_lease_backed_is_decided_again_when_the_lease_was_closed_meanwhile() {
    for (limit, room) in [(1, false), (4, true)] {
        play(1, move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.warm(0, &calls).await;
            let gate = stage.gate(0, Point::BatchClaimed);
            let item = stage.begin(0, Ask::consume("k", &[(&calls, 3)]));
            stage.reached(gate).await;
            set_limit(&stage.world, calls.key, limit, Lowering::AsItShould).await;
            stage.open(gate);
            let answer = told(item).await;
            assert_eq!((is_yes(answer.clone()), is_no(answer)), (room, !room));
            assert_eq!(stage.used(calls.key), if room { 4 } else { 1 });
            vec![calls]
        });
    }
}

/// 8. The checks of the simulation say that nothing was settled above the limit that was lowered.
#[test]
fn a_limit_is_lowered_below_what_is_leased_while_batches_and_grants_are_under_way() {
    play(3, async |stage| {
        let calls = stage.account("calls", 60);
        let mut answers = Vec::new();
        for server in 0..3 {
            stage.warm(server, &calls).await;
        }
        for number in 0..12 {
            answers.push(stage.begin(number % 3, Ask::consume(&format!("k{number}"), &[(&calls, 2)])));
        }
        let gates = [stage.gate(0, Point::BatchClaimed), stage.gate(1, Point::BatchLeasesLocked)];
        for number in 12..24 {
            answers.push(stage.begin(number % 3, Ask::consume(&format!("k{number}"), &[(&calls, 2)])));
        }
        stage.reached(gates[0]).await;
        let (world, key) = (stage.world.clone(), calls.key);
        stage.world.spawn(0, async move { set_limit(&world, key, 12, Lowering::AsItShould).await });
        stage.pass(20_000).await;
        gates.into_iter().for_each(|gate| stage.open(gate));
        for answer in answers {
            let answer = told(answer).await;
            assert!(is_yes(answer.clone()) || is_no(answer));
        }
        vec![calls]
    });
}

/// 9.
#[test]
fn units_that_another_server_leases_are_called_back_before_anybody_is_refused() {
    for notices_are_lost in [false, true] {
        play(2, move |stage| async move {
            let calls = stage.account("calls", 20);
            stage.world.state().faults.lost_notices = u64::from(notices_are_lost);
            stage.warm(0, &calls).await;
            assert!(is_yes(stage.ask(1, Ask::consume("all", &[(&calls, 19)])).await));
            assert!(is_no(stage.ask(1, Ask::consume("more", &[(&calls, 1)])).await));
            vec![calls]
        });
    }
}

/// 9, when nobody gives them back.
#[test]
fn units_of_a_server_that_is_stopped_are_had_when_its_time_is_over_and_nobody_is_refused_before() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        stage.world.stop(stage.cluster.process(0), 4 * TTL);
        let early = stage.ask(1, Ask::consume("early", &[(&calls, 19)]).within(TTL / 3)).await;
        assert!(matches!(early, Some(Outcome::Contended | Outcome::Away(_))), "not {early:?}");
        assert!(stage.event("early").is_none(), "nothing is written of it");
        assert!(is_yes(stage.ask(1, Ask::consume("late", &[(&calls, 19)]).within(3 * TTL)).await));
        vec![calls]
    });
}

/// 10.
#[test]
fn requests_for_two_metrics_that_two_servers_lease_crosswise_both_finish() {
    play(2, async |stage| {
        let (calls, tokens) = (stage.account("calls", 20), stage.account("tokens", 20));
        stage.warm(0, &calls).await;
        stage.warm(1, &tokens).await;
        let first = stage.begin(0, Ask::consume("first", &[(&calls, 7), (&tokens, 12)]));
        let second = stage.begin(1, Ask::consume("second", &[(&calls, 12), (&tokens, 7)]));
        assert!(is_yes(told(first).await));
        assert!(is_yes(told(second).await));
        vec![calls, tokens]
    });
}

/// 12.
#[test]
fn what_a_commit_of_less_gives_back_is_there_for_a_consumer_in_the_same_batch() {
    play(1, async |stage| {
        let (calls, other) = (stage.account("calls", 10), stage.account("other", 10));
        assert!(is_yes(stage.ask(0, Ask::consume("hold", &[(&calls, 10)]).doing(reserve())).await));
        let gate = stage.gate(0, Point::BatchBegin);
        let before = stage.begin(0, Ask::consume("before", &[(&other, 1)]));
        stage.reached(gate).await;
        let consumer = stage.sent(0, Ask::consume("k", &[(&calls, 6)])).await;
        let amounts: Vec<(Arc<str>, i64)> = vec![("calls".into(), 4)];
        let commit = Action::Commit { hold: HOLD, amounts, opened_by: None };
        let commit = stage.sent(0, Ask::consume("commit", &[]).doing(commit)).await;
        stage.open(gate);
        assert!(is_yes(told(before).await));
        assert!(is_yes(told(commit).await));
        assert!(is_yes(told(consumer).await));
        vec![calls, other]
    });
}

/// 13.
#[test]
fn a_refund_before_its_event_is_folded_counts_once_and_not_beyond_the_amount() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        assert!(is_yes(stage.ask(0, Ask::consume("k", &[(&calls, 5)])).await));
        let refund = |amount: i64| {
            let amounts: Vec<(Arc<str>, i64)> = vec![("calls".into(), amount)];
            Action::Refund { of: "k".into(), amounts }
        };
        let first = Ask::consume("refund", &[]).doing(refund(3));
        assert!(is_yes(stage.ask(1, first.clone()).await));
        let Some(Outcome::Admitted(again)) = stage.ask(0, first).await else { panic!("the same answer again") };
        assert!(again.is_repetition);
        let beyond = stage.ask(1, Ask::consume("beyond", &[]).doing(refund(3))).await;
        assert_eq!(beyond, Some(Outcome::Beyond("calls".into(), 2)));
        assert_eq!(stage.used(calls.key), 3);
        vec![calls]
    });
}

/// 20, the half of it that is the engine's: an item keeps its period. That an account is opened once while the plan changes
/// is a matter of the store, and is tested on the real databases.
#[test]
fn an_item_on_its_way_when_the_period_ends_counts_in_the_period_that_it_came_in() {
    play(2, async |stage| {
        let (old, new) = (stage.account("calls of May", 20), stage.account("calls of June", 20));
        stage.warm(0, &old).await;
        let gate = stage.gate(0, Point::BatchClaimed);
        let last = stage.begin(0, Ask::consume("last", &[(&old, 2)]));
        stage.reached(gate).await;
        assert!(is_yes(stage.ask(1, Ask::consume("first", &[(&new, 3)])).await));
        let next = stage.sent(0, Ask::consume("next", &[(&new, 4)])).await;
        stage.open(gate);
        assert!(is_yes(told(last).await));
        assert!(is_yes(told(next).await));
        assert_eq!((stage.used(old.key), stage.used(new.key)), (3, 7));
        stage.pass(4 * TTL).await;
        assert_eq!(stage.row(old.key).leased, 0, "what nobody asks of is given back");
        vec![old, new]
    });
}

/// 21. That nothing is left leased is looked at when every schedule ends; here with items on their way, and waiting.
#[test]
fn a_server_that_stops_settles_and_returns_everything() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        let waits = stage.sent(1, Ask::consume("waits", &[(&calls, 15)])).await;
        let on_its_way = stage.sent(0, Ask::consume("k", &[(&calls, 2)])).await;
        let (_, engine) = stage.cluster.engine(0).expect("it serves");
        engine.stop().await;
        assert!(is_yes(told(on_its_way).await));
        assert!(is_yes(told(waits).await));
        let refused = stage.ask(0, Ask::consume("late", &[(&calls, 1)])).await;
        assert!(matches!(refused, Some(Outcome::Away(_))), "not {refused:?}");
        stage.cluster.kill(0);
        vec![calls]
    });
}
