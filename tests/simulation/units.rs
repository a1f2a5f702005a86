//! Cases of section 11 of the protocol that are about units: 6, 8 to 10, 12, 13, 20 and 21.

use std::sync::Arc;

use tenantry::decide::quota::{Action, NamedHold, NewHold, Outcome, Settings};
use tenantry::domain::quota::HoldKind;
use uuid::Uuid;

use crate::clients::{Account, Ask};
use crate::cluster::{TTL, settings};
use crate::faults::{Act, Armed, Point};
use crate::operator::{Lowering, set_limit};
use crate::stage::{Stage, is_no, is_yes, play, play_with, told};
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
        let lowered = stage.lower(&calls, 12);
        stage.pass(20_000).await;
        gates.into_iter().for_each(|gate| stage.open(gate));
        let when_lowered = lowered.await.expect("it is lowered");
        for answer in answers {
            let answer = told(answer).await;
            assert!(is_yes(answer.clone()) || is_no(answer));
        }
        assert!(stage.used(calls.key) <= when_lowered.used.max(12), "nothing came on top: {when_lowered:?}");
        vec![calls]
    });
}

/// 8, with the first grant of a lease that its lowering cannot see.
#[test]
fn a_lease_that_is_granted_while_the_limit_is_lowered_is_closed_when_that_is_answered() {
    play(1, async |stage| {
        let calls = stage.account("calls", 60);
        let gate = stage.gate(0, Point::BatchAccountsLocked);
        let first = stage.begin(0, Ask::consume("first", &[(&calls, 1)]));
        stage.reached(gate).await;
        let mut lowered = stage.lower(&calls, 5);
        stage.pass(20_000).await;
        assert!(lowered.try_recv().is_err(), "it waits for the account");
        stage.open(gate);
        let when_lowered = lowered.await.expect("it is lowered");
        assert!(when_lowered.granted, "meanwhile there was one");
        assert_eq!((when_lowered.leased, when_lowered.used), (0, 1));
        assert!(is_yes(told(first).await));
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
        let hold = NamedHold { id: HOLD, kind: HoldKind::Reservation, opened_by: None };
        let commit = Action::Commit { hold, amounts };
        let commit = stage.sent(0, Ask::consume("commit", &[]).doing(commit)).await;
        stage.open(gate);
        assert!(is_yes(told(before).await));
        assert!(is_yes(told(commit).await));
        assert!(is_yes(told(consumer).await));
        vec![calls, other]
    });
}

/// Rule 7 of section 0 of the protocol: whichever came first.
#[test]
fn what_a_refund_gives_back_is_there_for_all_consumers_in_the_same_batch() {
    play(1, refund_among_consumers);
}

/// Two consumers that have room together only with what is refunded in their batch.
pub(crate) async fn refund_among_consumers(stage: Stage) -> Vec<Account> {
    let (calls, other) = (stage.account("calls", 10), stage.account("other", 10));
    assert!(is_yes(stage.ask(0, Ask::consume("past", &[(&calls, 4)])).await));
    let gate = stage.gate(0, Point::BatchBegin);
    let mut answers = vec![stage.begin(0, Ask::consume("before", &[(&other, 1)]))];
    stage.reached(gate).await;
    answers.push(stage.sent(0, Ask::consume("six", &[(&calls, 6)])).await);
    answers.push(stage.sent(0, Ask::consume("four", &[(&calls, 4)])).await);
    let refund = Action::Refund { of: "past".into(), amounts: Vec::new() };
    answers.push(stage.sent(0, Ask::consume("refund", &[]).doing(refund)).await);
    stage.open(gate);
    for answer in answers {
        assert!(is_yes(told(answer).await));
    }
    assert_eq!(stage.used(calls.key), 10);
    vec![calls, other]
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

/// 13, with more given back than is folded.
#[test]
fn what_is_given_back_before_it_is_folded_leaves_less_than_nothing_there_for_a_moment() {
    play(2, async |stage| {
        let (calls, other) = (stage.account("calls", 20), stage.account("other", 20));
        stage.warm(0, &calls).await;
        // Three in one batch, so that nothing of them is folded before the server stands still.
        let gate = stage.gate(0, Point::BatchBegin);
        let before = stage.begin(0, Ask::consume("before", &[(&other, 1)]));
        stage.reached(gate).await;
        let keys = ["a", "b", "c"];
        let answers = keys.map(|key| stage.begin(0, Ask::consume(key, &[(&calls, 1)])));
        stage.pass(1_000).await;
        let act = Act::Stop(TTL / 2);
        let armed = Armed { point: Point::CommittedUnanswered, server: Some(0), skip: 1, act };
        stage.world.state().faults.armed.push(armed);
        stage.open(gate);
        while stage.event("c").is_none() {
            stage.pass(500).await;
        }
        for key in keys {
            let refund = Action::Refund { of: key.into(), amounts: Vec::new() };
            assert!(is_yes(stage.ask(1, Ask::consume(&format!("refund {key}"), &[]).doing(refund)).await));
        }
        assert_eq!(stage.row(calls.key).committed, -2, "one is folded, and three were given back");
        assert_eq!(stage.used(calls.key), 1);
        for answer in [before].into_iter().chain(answers) {
            assert!(is_yes(told(answer).await));
        }
        stage.pass(TTL).await;
        assert_eq!((stage.row(calls.key).committed, stage.used(calls.key)), (1, 1), "when it is folded too");
        vec![calls, other]
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

/// 20, when the account of the next period is opened while the last item of the old one is decided on its row.
#[test]
fn an_item_that_is_decided_when_the_next_period_is_opened_counts_in_its_own() {
    play(2, async |stage| {
        let old = stage.account("calls of May", 20);
        let gate = stage.gate(0, Point::BatchAccountsLocked);
        let last = stage.begin(0, Ask::consume("last", &[(&old, 2)]));
        stage.reached(gate).await;
        let new = stage.account("calls of June", 20);
        assert!(is_yes(stage.ask(1, Ask::consume("first", &[(&new, 3)])).await));
        let next = stage.sent(0, Ask::consume("next", &[(&new, 4)])).await;
        assert_eq!((stage.used(old.key), stage.used(new.key)), (0, 3));
        stage.open(gate);
        for answer in [last, next] {
            assert!(is_yes(told(answer).await));
        }
        assert_eq!((stage.used(old.key), stage.used(new.key)), (2, 7));
        vec![old, new]
    });
}

/// Back-pressure.
#[test]
fn what_comes_when_too_much_waits_already_is_sent_away_and_nothing_is_written_of_it() {
    play_with(1, Settings { queue: 3, ..settings(1) }, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm(0, &calls).await;
        let gate = stage.gate(0, Point::BatchBegin);
        let mut answers = vec![stage.begin(0, Ask::consume("under way", &[(&calls, 1)]))];
        stage.reached(gate).await;
        for number in 0..3 {
            answers.push(stage.sent(0, Ask::consume(&format!("queued {number}"), &[(&calls, 1)])).await);
        }
        let one_more = Ask::consume("one more", &[(&calls, 1)]);
        assert_eq!(stage.ask(0, one_more.clone()).await, Some(Outcome::Overloaded));
        stage.open(gate);
        for answer in answers {
            assert!(is_yes(told(answer).await));
        }
        assert_eq!((stage.event("one more"), stage.used(calls.key)), (None, 5));
        assert!(is_yes(stage.ask(0, one_more).await), "nor is it remembered");
        vec![calls]
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
