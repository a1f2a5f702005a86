//! What was recorded of calls that take and give back seats, and what follows from it: how many can have been held, and how
//! many must have been, at each instant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::{Code, Response, Status};

use crate::harness::refusal;

/// Why a call did nothing that waited in vain for a lock.
pub(super) const AWAY: &str = "DATABASE_UNAVAILABLE";

/// Why a sign-in through a provider did nothing while too many waited for it.
const BUSY: &str = "OVERLOADED";

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many more seats are held after it; fewer, when it is negative.
    Held(i64),
    /// There were too few seats for it.
    Refused,
    /// There are so many seats after it.
    Limit(i64),
    /// More were held than it would have left.
    TooFew(i64),
}

/// A call, by a clock that only counts: when it was sent, when its answer was there, and what became of it.
#[derive(Debug)]
pub(super) struct Event {
    sent: usize,
    answered: usize,
    what: &'static str,
    outcome: Outcome,
}

/// Whoever records.
#[derive(Clone, Default)]
pub(super) struct Recorder {
    clock: Arc<AtomicUsize>,
    events: Arc<Mutex<Vec<Event>>>,
}

/// The answer to a call, or the reason why it was refused, which must not be one of ours.
pub(super) fn answered<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Result<T, String> {
    answer.map(Response::into_inner).map_err(|status| {
        let (code, reason) = refusal::<T>(Err(status));
        assert!(!matches!(code, Code::Internal | Code::Unknown), "{code} {reason}");
        reason
    })
}

/// The answer to a call that is made again for as long as it waits in vain for a lock: with its `request_id` that is
/// harmless. Dozens wait for one tenant here, and a call waits two seconds at most.
pub(super) async fn patiently<T: std::fmt::Debug>(
    mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
) -> Result<T, String> {
    for _ in 0..20 {
        match call().await {
            Err(status) if status.code() == Code::Unavailable => {}
            answer => return answered(answer),
        }
    }
    panic!("never had its turn")
}

impl Recorder {
    fn tick(&self) -> usize {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a call that takes so many seats, or gives them back, and notes what became of it. Nothing but a want of seats
    /// may refuse it; one that waited in vain did nothing.
    pub(super) async fn seats<T>(
        &self,
        what: &'static str,
        effect: i64,
        call: impl Future<Output = Result<T, String>>,
    ) -> Option<T> {
        self.all(what, async { call.await.map(|done| (vec![Ok(effect)], done)) }).await
    }

    /// `seats` for a call of several parts, each of which says what became of it.
    pub(super) async fn all<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<(Vec<Result<i64, String>>, T), String>>,
    ) -> Option<T> {
        let (sent, answer, answered) = (self.tick(), call.await, self.tick());
        let (parts, done) = match answer {
            Ok((parts, done)) => (parts, Some(done)),
            Err(reason) => (vec![Err(reason)], None),
        };
        for part in parts {
            if part.as_ref().is_err_and(|reason| reason == AWAY || reason == BUSY) {
                continue;
            }
            let outcome = part.map_or_else(
                |reason| {
                    assert_eq!(reason, "SEATS_EXHAUSTED", "{what}");
                    Outcome::Refused
                },
                Outcome::Held,
            );
            self.events.lock().expect("lock").push(Event { sent, answered, what, outcome });
        }
        done
    }

    /// Makes a call that changes how many seats there are. Only one may be under way at a time. Whether it worked.
    pub(super) async fn limit<T>(&self, seats: i64, call: impl Future<Output = Result<T, String>>) -> bool {
        let (sent, answer, answered) = (self.tick(), call.await, self.tick());
        let worked = answer.is_ok();
        let refused = |reason: String| {
            assert_eq!(reason, "PLAN_EXCEEDED");
            Outcome::TooFew(seats)
        };
        let outcome = answer.map_or_else(refused, |_| Outcome::Limit(seats));
        self.events.lock().expect("lock").push(Event { sent, answered, what: "plan", outcome });
        worked
    }

    /// The history, from so many seats held and so many that there are.
    pub(super) fn history(&self, held: i64, limit: i64) -> History {
        let events = std::mem::take(&mut *self.events.lock().expect("lock"));
        History::new(events, self.tick() + 1, held, limit)
    }
}

/// A history. Each call took effect at some instant between its sending and its answer, unknown which.
pub(super) struct History {
    events: Vec<Event>,
    /// The most that can have been held at each instant: what was sent is taken, what is not answered is not given back.
    most: Vec<i64>,
    /// The least: what was sent is given back, what is not answered is not taken.
    least: Vec<i64>,
    /// How many seats there can have been at each instant, at least and at most.
    limits: Vec<(i64, i64)>,
}

impl History {
    fn new(events: Vec<Event>, instants: usize, held: i64, limit: i64) -> Self {
        let (mut most, mut least) = (vec![0; instants], vec![0; instants]);
        let mut limits = vec![(limit, limit); instants];
        let mut changes: Vec<&Event> = Vec::new();
        for event in &events {
            match event.outcome {
                Outcome::Held(effect) => {
                    let (sooner, later) = if effect > 0 { (&mut most, &mut least) } else { (&mut least, &mut most) };
                    sooner[event.sent] += effect;
                    later[event.answered] += effect;
                }
                Outcome::Limit(_) => changes.push(event),
                Outcome::Refused | Outcome::TooFew(_) => {}
            }
        }
        changes.sort_by_key(|event| event.sent);
        for change in changes {
            let Outcome::Limit(limit) = change.outcome else { continue };
            for (least, most) in &mut limits[change.sent..change.answered] {
                (*least, *most) = (limit.min(*least), limit.max(*most));
            }
            limits[change.answered..].fill((limit, limit));
        }
        for counts in [&mut most, &mut least] {
            counts[0] += held;
            for at in 1..counts.len() {
                counts[at] += counts[at - 1];
            }
        }
        Self { events, most, least, limits }
    }

    /// Holds each call against what it may have met; what is wrong.
    pub(super) fn judge(&self) -> Result<(), String> {
        for (at, (_, limit)) in self.limits.iter().enumerate() {
            if self.least[at] > *limit {
                return Err(format!("at {at} {} of {limit} seats were held", self.least[at]));
            }
        }
        let wrong = self.events.iter().find(|event| {
            let mut under_way = event.sent..event.answered;
            match event.outcome {
                Outcome::Refused => !under_way.any(|at| self.most[at] >= self.limits[at].0),
                Outcome::TooFew(seats) => !under_way.any(|at| self.most[at] > seats),
                Outcome::Held(_) | Outcome::Limit(_) => false,
            }
        });
        wrong.map_or(Ok(()), |event| Err(format!("refused while there were seats: {event:?}")))
    }

    /// How many more are held at the end.
    pub(super) fn held_more(&self) -> i64 {
        let effects = self.events.iter().map(|event| if let Outcome::Held(n) = event.outcome { n } else { 0 });
        effects.sum()
    }

    /// How often each call worked, and how often it did not.
    pub(super) fn tally(&self) -> BTreeMap<&'static str, (usize, usize)> {
        let mut tally: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for event in &self.events {
            let (worked, refused) = tally.entry(event.what).or_default();
            *(if matches!(event.outcome, Outcome::Held(_) | Outcome::Limit(_)) { worked } else { refused }) += 1;
        }
        tally
    }
}

/// The judge is no pushover: what must not have happened is seen.
#[test]
fn a_wrong_history_is_seen() {
    let event = |sent, answered, outcome| Event { sent, answered, what: "x", outcome };
    let judged = |events: Vec<Event>, held| History::new(events, 20, held, 2).judge().is_ok();
    assert!(judged(vec![event(0, 1, Outcome::Held(1)), event(2, 3, Outcome::Refused)], 1));
    assert!(judged(vec![event(0, 5, Outcome::Held(1)), event(2, 3, Outcome::Refused)], 1), "may have been full");
    assert!(!judged(vec![event(0, 1, Outcome::Refused), event(2, 3, Outcome::Held(1))], 1), "refused too early");
    assert!(!judged(vec![event(0, 1, Outcome::Held(1)), event(2, 3, Outcome::Held(1))], 1), "one too many");
    let given_back = event(2, 5, Outcome::Held(-1));
    assert!(judged(vec![given_back, event(3, 4, Outcome::Held(1))], 2), "may have been given back before");
    assert!(!judged(vec![event(4, 5, Outcome::Held(-1)), event(2, 3, Outcome::Held(1))], 2), "taken too early");
    assert!(!judged(vec![event(0, 1, Outcome::Held(-1)), event(2, 3, Outcome::Refused)], 2), "given back by then");
    assert!(judged(vec![event(0, 1, Outcome::Limit(1)), event(2, 3, Outcome::Refused)], 1));
    assert!(!judged(vec![event(0, 1, Outcome::Limit(1)), event(2, 3, Outcome::Held(1))], 1), "more than there are");
    assert!(judged(vec![event(0, 1, Outcome::TooFew(1))], 2) && !judged(vec![event(0, 1, Outcome::TooFew(1))], 1));
}
