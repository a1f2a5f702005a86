//! Limits over time: nobody is admitted where there was certainly no room, and nobody refused where there certainly was.
//!
//! What was used at an instant is known between two bounds. The most: everything that was admitted and may have begun, less
//! what was certainly given back; with the most that was forfeited at any time: a server that was taken for dead gives back
//! what it had not promised when it goes on. The least: what callers were told of, less what may have been given back.

use std::cmp::Reverse;
use std::fmt::Write as _;

use crate::record::{Attempt, Call, History, METRICS, Micros, What, seconds};
use crate::rows::Rows;

/// How a bound changes at an instant.
type Step = (Micros, i64);

/// What does not hold.
pub(crate) fn violations(history: &History, rows: &Rows) -> Vec<String> {
    let mut wrong: Vec<String> = METRICS.iter().filter_map(|metric| exceeded(history, metric)).collect();
    let most = METRICS.map(|metric| (metric, missing_at_most(history, rows, metric)));
    wrong.extend(history.calls.iter().filter_map(|call| refused_for_nothing(call, &most)));
    wrong
}

fn sorted(mut steps: Vec<Step>) -> Vec<Step> {
    // What adds comes first: each bound is then on its safe side between two steps of one instant.
    steps.sort_by_key(|(at, change)| (*at, Reverse(*change)));
    steps
}

/// The most that may be used, less the limit that certainly held: below zero so much is free for certain.
fn missing_at_most(history: &History, rows: &Rows, metric: &str) -> Vec<Step> {
    let mut steps = vec![(0, rows.account(metric).most_forfeited)];
    let mut limit = 0;
    for raise in history.raises.iter().filter(|raise| raise.metric == metric) {
        if let Some(received) = raise.received {
            steps.push((received, limit - raise.limit));
            limit = raise.limit;
        }
    }
    for call in &history.calls {
        let admitted = call.is_admitted(rows);
        match &call.what {
            What::Consume { .. } | What::Reserve { .. } if admitted => {
                steps.push((call.begun(), call.what.amount(metric)));
            }
            What::Commit { reserved, .. } | What::Release { reserved, .. } => {
                let back = reserved.get(metric).copied().unwrap_or(0) - call.what.amount(metric);
                steps.extend(call.done().map(|at| (at, -back)));
            }
            What::Refund { .. } => steps.extend(call.done().map(|at| (at, -call.what.amount(metric)))),
            _ => {}
        }
    }
    sorted(steps)
}

/// Says so when there was room for a call from its beginning to its refusal.
fn refused_for_nothing(call: &Call, most: &[(&str, Vec<Step>)]) -> Option<String> {
    let refused = call.first(Attempt::is_no)?.received;
    let begun = call.begun();
    let mut told = String::new();
    for (metric, steps) in most {
        let wanted = call.what.amount(metric);
        if wanted == 0 {
            continue;
        }
        let mut missing = 0;
        let mut most: Option<i64> = None;
        for (at, change) in steps {
            if *at >= begun {
                most = most.max(Some(missing));
            }
            if *at > refused {
                break;
            }
            missing += change;
        }
        let most = most.max(Some(missing)).unwrap_or(0);
        if most + wanted > 0 {
            return None;
        }
        let _ = write!(told, " {metric}: at least {} were free all the time and {wanted} wanted;", -most);
    }
    let (begun, refused) = (seconds(begun), seconds(refused));
    Some(format!("REFUSED FOR NOTHING: from {begun} to {refused}{told}\n  {}", call.tell()))
}

/// Says so when more was certainly used than a limit that can have held.
fn exceeded(history: &History, metric: &str) -> Option<String> {
    let mut steps = Vec::new();
    let mut limit = 0;
    for raise in history.raises.iter().filter(|raise| raise.metric == metric) {
        steps.push((raise.sent, limit - raise.limit));
        limit = raise.limit;
    }
    for call in &history.calls {
        let amount = call.what.amount(metric);
        match &call.what {
            What::Consume { .. } | What::Commit { .. } => steps.extend(call.done().map(|at| (at, amount))),
            What::Refund { .. } => steps.push((call.begun(), -amount)),
            What::Reserve { .. } | What::Release { .. } => {}
        }
    }
    // Here what gives back comes first.
    steps.sort_unstable();
    let mut above = 0;
    for (at, change) in steps {
        above += change;
        if above > 0 {
            let at = seconds(at);
            return Some(format!("LIMIT: at {at} callers had been told of {above} {metric} more than there are"));
        }
    }
    None
}

#[test]
fn a_refusal_is_wrong_when_there_was_room_all_the_time() {
    use crate::record::{Raise, Told};
    use crate::rows::Event;

    let call = |key: &str, what: What, sent: Micros, received: Micros, yes: bool| {
        let told =
            if yes { Told::Yes { promised: false, text: String::new(), hold: None } } else { Told::No(String::new()) };
        Call { key: key.to_owned(), what, attempts: vec![Attempt { server: 0, life: 1, sent, received, told }] }
    };
    let consume = |amount| What::Consume { amounts: [("calls", amount)].into(), leased: false, keyed: true };
    let refund = What::Refund { of: "a".to_owned(), amounts: [("calls", 3)].into() };
    let found = |calls: Vec<Call>| {
        let event = Event { admitted: true, kind: 1, charges: [].into(), row: String::new() };
        let there = calls.iter().filter(|call| !call.is_refused()).map(|call| (call.key.clone(), event.clone()));
        let rows = Rows { events: there.collect(), ..Rows::default() };
        let limit = Raise { metric: "calls", limit: 5, sent: 0, received: Some(0) };
        violations(&History { tenant: String::new(), calls, raises: vec![limit] }, &rows).len()
    };
    let used = call("a", consume(3), 10, 20, true);
    assert_eq!(found(vec![used.clone(), call("b", consume(3), 30, 40, false)]), 0);
    assert_eq!(found(vec![used.clone(), call("b", consume(2), 30, 40, false)]), 1);
    // What may have begun before the refusal excuses it, and what begins after it does not.
    let late = |sent| call("c", consume(1), sent, 60, true);
    assert_eq!(found(vec![used.clone(), late(39), call("b", consume(2), 30, 40, false)]), 0);
    assert_eq!(found(vec![used.clone(), late(41), call("b", consume(2), 30, 40, false)]), 1);
    // What was given back during the call excuses it, too; what was given back before it does not.
    let back = call("r", refund, 22, 35, true);
    assert_eq!(found(vec![used.clone(), back.clone(), call("b", consume(3), 30, 40, false)]), 0);
    assert_eq!(found(vec![used.clone(), back, call("b", consume(3), 36, 40, false)]), 1);
    // Two more than there are, told to callers.
    assert_eq!(found(vec![used, call("d", consume(4), 30, 40, true)]), 1);
}
