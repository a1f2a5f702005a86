//! Cases of section 11 of the protocol that are about keys: 1 to 5, 11 and 15.

use tenantry::decide::quota::{Action, Outcome};
use tenantry::domain::quota::UNLIMITED;

use crate::clients::{Account, Ask};
use crate::cluster::TTL;
use crate::faults::Point;
use crate::operator::{Lowering, set_limit};
use crate::stage::{Stage, is_no, is_yes, play, told};

/// 1.
#[test]
fn a_retry_elsewhere_while_the_first_is_not_committed_gets_its_answer() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        let gate = stage.gate(0, Point::BatchClaimed);
        let first = stage.begin(0, Ask::consume("k", &[(&calls, 3)]));
        stage.reached(gate).await;
        let second = stage.begin(1, Ask::consume("k", &[(&calls, 3)]));
        stage.pass(20_000).await;
        stage.open(gate);
        let (Some(Outcome::Admitted(first)), Some(Outcome::Admitted(second))) = (told(first).await, told(second).await)
        else {
            panic!("both are told that it was admitted");
        };
        assert_eq!(first.charges, second.charges, "and where that left the account");
        assert!(second.is_repetition && !first.is_repetition, "one of them charged it");
        assert_eq!(stage.used(calls.key), 3);
        vec![calls]
    });
}

/// 2.
#[test]
fn an_attempt_that_arrives_after_its_retry_was_refused_is_refused() {
    play(2, async |stage| {
        let calls = stage.account("calls", 1);
        assert!(is_no(stage.ask(1, Ask::consume("k", &[(&calls, 2)])).await));
        set_limit(&stage.world, calls.key, 20, Lowering::AsItShould).await;
        assert!(is_no(stage.ask(0, Ask::consume("k", &[(&calls, 2)])).await), "the first answer holds");
        assert!(is_yes(stage.ask(0, Ask::consume("other", &[(&calls, 2)])).await), "there is room for another");
        vec![calls]
    });
}

/// 3, of an item on its way: here, at another server, and stored.
#[test]
fn the_same_key_with_another_payload_is_a_conflict_wherever_the_first_is() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        let gate = stage.gate(0, Point::BatchClaimed);
        let first = stage.begin(0, Ask::consume("k", &[(&calls, 3)]));
        stage.reached(gate).await;
        let here = stage.begin(0, Ask::consume("k", &[(&calls, 4)]));
        let there = stage.begin(1, Ask::consume("k", &[(&calls, 5)]));
        stage.pass(20_000).await;
        stage.open(gate);
        assert!(is_yes(told(first).await));
        assert_eq!(told(here).await, Some(Outcome::Conflict));
        assert_eq!(told(there).await, Some(Outcome::Conflict));
        assert_eq!(stage.ask(1, Ask::consume("k", &[(&calls, 6)])).await, Some(Outcome::Conflict));
        assert_eq!(stage.used(calls.key), 3, "nothing else was charged");
        vec![calls]
    });
}

/// 3, when another server's payload wins.
#[test]
fn a_follower_whose_payload_won_elsewhere_is_told_yes_and_its_leader_of_the_conflict() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        let gate = stage.gate(0, Point::BatchBegin);
        let leader = stage.begin(0, Ask::consume("k", &[(&calls, 3)]));
        stage.reached(gate).await;
        let follower = stage.sent(0, Ask::consume("k", &[(&calls, 4)])).await;
        assert!(is_yes(stage.ask(1, Ask::consume("k", &[(&calls, 4)])).await));
        stage.open(gate);
        assert_eq!(told(leader).await, Some(Outcome::Conflict));
        assert!(is_yes(told(follower).await));
        assert_eq!(stage.used(calls.key), 4);
        vec![calls]
    });
}

/// 3, when nothing is stored.
#[test]
fn a_follower_that_asks_for_something_else_is_not_told_the_answer_of_its_leader() {
    play(1, async |stage| {
        let calls = stage.account("calls", 20);
        let gate = stage.gate(0, Point::BatchBegin);
        let refund = Action::Refund { of: "nobody".into(), amounts: Vec::new() };
        let leader = stage.begin(0, Ask::consume("k", &[]).doing(refund));
        stage.reached(gate).await;
        let follower = stage.sent(0, Ask::consume("k", &[(&calls, 4)])).await;
        stage.open(gate);
        assert_eq!(told(leader).await, Some(Outcome::NotFound));
        assert!(matches!(told(follower).await, Some(Outcome::Away(_))));
        vec![calls]
    });
}

/// 4.
#[test]
fn crossed_keys_in_two_batches_do_not_deadlock() {
    play(2, crossed_keys);
}

/// Two servers get the same two keys, in opposite orders, into one batch each.
pub(crate) async fn crossed_keys(stage: Stage) -> Vec<Account> {
    let calls = stage.account("calls", 20);
    let gates = [stage.gate(0, Point::BatchBegin), stage.gate(1, Point::BatchBegin)];
    let mut answers = Vec::new();
    for (server, gate) in gates.into_iter().enumerate() {
        answers.push(stage.begin(server, Ask::consume(&format!("before {server}"), &[(&calls, 1)])));
        stage.reached(gate).await;
    }
    for (server, key) in [(0, "b"), (1, "a"), (0, "a"), (1, "b")] {
        answers.push(stage.sent(server, Ask::consume(key, &[(&calls, 1)])).await);
    }
    gates.into_iter().for_each(|gate| stage.open(gate));
    for answer in answers {
        assert!(is_yes(told(answer).await));
    }
    assert_eq!(stage.used(calls.key), 4);
    vec![calls]
}

/// 5.
#[test]
fn items_that_the_database_does_not_take_leave_the_rest_of_their_batch_alone() {
    play(1, async |stage| {
        let (calls, tokens) = (stage.account("calls", 2_000), stage.account("tokens", -1));
        assert!(is_yes(stage.ask(0, Ask::consume("a token", &[(&tokens, 1)])).await));
        assert_eq!(stage.row(tokens.key).committed, 1);
        let gate = stage.gate(0, Point::BatchBegin);
        let before = stage.begin(0, Ask::consume("before", &[(&calls, 1)]));
        stage.reached(gate).await;
        let batch_no = stage.batch_no(0);
        let good = |number| stage.begin(0, Ask::consume(&format!("good {number}"), &[(&calls, 1)]));
        let mut answers: Vec<_> = (0..200).map(good).collect();
        let zero = stage.begin(0, Ask::consume("bad\0", &[(&calls, 1)]));
        let too_much = stage.begin(0, Ask::consume("too much", &[(&tokens, UNLIMITED)]).doing(Action::Record));
        answers.extend((200..498).map(good));
        stage.pass(1_000).await;
        stage.open(gate);
        assert!(is_yes(told(before).await));
        assert!(matches!(told(zero).await, Some(Outcome::Broken(_))));
        assert!(matches!(told(too_much).await, Some(Outcome::OutOfRange(_))));
        for answer in answers {
            assert!(is_yes(told(answer).await));
        }
        assert_eq!((stage.used(calls.key), stage.used(tokens.key)), (499, 1));
        let commits = stage.batch_no(0) - batch_no;
        assert!(commits <= 14, "one, then nine halves of what was left, and little else: {commits}");
        vec![calls]
    });
}

/// 5, of a promise: its lease is returned nevertheless, and who asks with its key is answered.
#[test]
fn a_promise_that_the_database_does_not_take_holds_nothing_up() {
    play(1, async |stage| {
        let calls = stage.account("calls", 20);
        stage.warm_promises(0, &calls).await;
        assert!(is_yes(stage.ask(0, Ask::consume("bad\0", &[(&calls, 1)]).leased()).await));
        stage.pass(10_000).await;
        let again = stage.ask(0, Ask::consume("bad\0", &[(&calls, 1)])).await;
        assert!(matches!(again, Some(Outcome::Broken(_))), "not {again:?}");
        // What was promised is nobody's any more.
        stage.pass(TTL).await;
        assert_eq!(stage.row(calls.key).forfeited, 1);
        vec![calls]
    });
}

/// 11.
#[test]
fn units_that_a_duplicate_holds_for_a_moment_are_not_refused_to_others() {
    play(2, async |stage| {
        let calls = stage.account("calls", 20);
        assert!(is_yes(stage.ask(1, Ask::consume("k", &[(&calls, 1)])).await));
        stage.warm(0, &calls).await;
        let gate = stage.gate(0, Point::BatchBegin);
        let duplicate = stage.begin(0, Ask::consume("k", &[(&calls, 1)]));
        stage.reached(gate).await;
        let other = stage.begin(1, Ask::consume("all", &[(&calls, 18)]));
        stage.pass(50_000).await;
        stage.open(gate);
        assert!(is_yes(told(duplicate).await));
        assert!(is_yes(told(other).await), "all that is left");
        vec![calls]
    });
}

/// 15.
#[test]
fn what_was_promised_for_a_key_that_is_stored_as_refused_is_not_given_to_anybody_else() {
    play(2, async |stage| {
        let calls = stage.account("calls", 1);
        assert!(is_no(stage.ask(1, Ask::consume("k", &[(&calls, 2)])).await));
        set_limit(&stage.world, calls.key, 20, Lowering::AsItShould).await;
        stage.warm_promises(0, &calls).await;
        assert!(
            is_yes(stage.ask(0, Ask::consume("k", &[(&calls, 2)]).leased()).await),
            "nobody here knows of the refusal"
        );
        stage.pass(5_000).await;
        assert!(stage.event("k").is_some_and(|row| !row.admitted));
        // All that is left; more than that is refused as soon as the lease is back.
        assert!(is_no(stage.ask(1, Ask::consume("too much", &[(&calls, 18)])).await));
        assert!(is_yes(stage.ask(1, Ask::consume("the rest", &[(&calls, 17)])).await));
        assert_eq!(stage.row(calls.key).forfeited, 2);
        vec![calls]
    });
}

/// Each waits for the event of the other, and there is none.
#[test]
fn refunds_of_each_other_come_to_an_end() {
    play(1, async |stage| {
        let calls = stage.account("calls", 20);
        let refund = |key: &str, of: &str| {
            let nothing: [(&Account, i64); 0] = [];
            Ask::consume(key, &nothing).doing(Action::Refund { of: of.into(), amounts: Vec::new() }).within(300_000)
        };
        let own = stage.ask(0, refund("own", "own")).await;
        assert_eq!(own, Some(Outcome::NotFound), "the claim of the refund is no event");
        let (one, other) = (stage.begin(0, refund("one", "other")), stage.begin(0, refund("other", "one")));
        for answer in [told(one).await, told(other).await] {
            let is_over = matches!(answer, Some(Outcome::NotFound | Outcome::Contended | Outcome::Away(_)));
            assert!(is_over, "{answer:?}");
        }
        // Whoever comes while it is being given up waits behind it.
        stage.pass(100_000).await;
        assert!(is_yes(stage.ask(0, Ask::consume("one", &[(&calls, 3)])).await), "the key is free");
        vec![calls]
    });
}
