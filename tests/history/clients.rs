//! Clients of a tenant: each asks one thing after the other of any server, and repeats what it got no answer to at another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;

use crate::calls::{Patience, ask};
use crate::dice::Dice;
use crate::fleet::{Fleet, SERVERS};
use crate::record::{Amounts, Attempt, Call, METRICS, Raise, Told, What};

/// How often a call without an answer is repeated.
const REPEATED: usize = 4;

/// Reservations that nobody ends within a round.
const LONG: i64 = 3600;

/// A client.
pub(crate) struct Client {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) dice: Dice,
    pub(crate) calls: Vec<Call>,
    /// How many keys it has given out.
    keys: usize,
    /// Events that were admitted for certain, and of which nothing was given back.
    refundable: Vec<(String, Amounts)>,
    /// What is set aside: the reservation and its amounts.
    held: Vec<(String, Amounts)>,
}

impl Client {
    pub(crate) fn new(fleet: Arc<Fleet>, tenant: String, name: String, dice: Dice) -> Self {
        let (calls, refundable, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { fleet, tenant, name, dice, calls, keys: 0, refundable, held }
    }

    /// Asks until told to stop; everything that it asked.
    pub(crate) async fn run(mut self, over: Arc<AtomicBool>) -> Vec<Call> {
        while !over.load(Ordering::Relaxed) {
            self.step().await;
        }
        self.calls
    }

    /// A new call of the client's.
    pub(crate) fn begin(&mut self, what: What) -> Call {
        self.keys += 1;
        Call { key: format!("{}-{}", self.name, self.keys), what, attempts: Vec::new() }
    }

    async fn step(&mut self) {
        let calls = if self.dice.one_in(4) { self.burst().await } else { vec![self.single().await] };
        let refused = calls.iter().any(Call::is_refused);
        for call in calls {
            if let What::Consume { amounts, keyed: true, .. } = &call.what
                && call.is_durable()
            {
                self.refundable.push((call.key.clone(), amounts.clone()));
            }
            if let What::Reserve { amounts, .. } = &call.what
                && let Some(Told::Yes { hold: Some(hold), .. }) = call.first(Attempt::is_yes).map(|a| &a.told)
            {
                self.held.push((hold.clone(), amounts.clone()));
            }
            self.calls.push(call);
        }
        // Who is refused does not hammer.
        let pause = self.dice.below(if refused { 20_000 } else { 4_000 });
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }

    /// Many calls at once of one server: for so many it leases.
    async fn burst(&mut self) -> Vec<Call> {
        let (server, patience) = (self.dice.index(SERVERS), self.patience());
        let (amounts, leased) = (self.amounts(false), self.dice.one_in(3));
        let count = self.dice.between(6, 16);
        let what = What::Consume { amounts, leased, keyed: true };
        let mut calls: Vec<Call> = (0..count).map(|_| self.begin(what.clone())).collect();
        let asked = calls.iter().map(|call| ask(&self.fleet, server, &self.tenant, &call.key, &call.what, patience));
        let attempts = join_all(asked).await;
        for (call, attempt) in calls.iter_mut().zip(attempts) {
            call.attempts.push(attempt);
        }
        for call in &mut calls {
            self.repeat(call, server).await;
        }
        calls
    }

    /// A call; sometimes it is made at two servers at once.
    async fn single(&mut self) -> Call {
        let what = self.choose();
        let mut call = self.begin(what);
        let (server, patience) = (self.dice.index(SERVERS), self.patience());
        let (twice, other) = (self.dice.one_in(20), self.other(server));
        let first = ask(&self.fleet, server, &self.tenant, &call.key, &call.what, patience);
        if twice && call.may_be_repeated() {
            let second = ask(&self.fleet, other, &self.tenant, &call.key, &call.what, patience);
            let (first, second) = tokio::join!(first, second);
            call.attempts.extend([first, second]);
        } else {
            call.attempts.push(first.await);
        }
        self.repeat(&mut call, server).await;
        call
    }

    /// Asks other servers for as long as there is no answer; and sometimes for no reason.
    async fn repeat(&mut self, call: &mut Call, mut server: usize) {
        if !call.may_be_repeated() {
            return;
        }
        let mut for_no_reason = self.dice.one_in(8);
        for _ in 0..REPEATED {
            if call.attempts.iter().all(|attempt| matches!(attempt.told, Told::Unknown(_))) {
                tokio::time::sleep(Duration::from_millis(self.dice.below(200))).await;
            } else if !std::mem::take(&mut for_no_reason) {
                return;
            }
            server = self.other(server);
            let patience = self.patience();
            call.attempts.push(ask(&self.fleet, server, &self.tenant, &call.key, &call.what, patience).await);
        }
    }

    /// Another server than this one.
    fn other(&mut self, server: usize) -> usize {
        (server + 1 + self.dice.index(SERVERS - 1)) % SERVERS
    }

    fn choose(&mut self) -> What {
        match self.dice.below(100) {
            0..45 => What::Consume { amounts: self.amounts(false), leased: false, keyed: true },
            45..63 => What::Consume { amounts: self.amounts(false), leased: true, keyed: true },
            63..73 => What::Consume { amounts: self.amounts(true), leased: false, keyed: true },
            73..78 => What::Consume { amounts: self.amounts(true), leased: true, keyed: true },
            78..83 => What::Consume { amounts: self.amounts(false), leased: false, keyed: false },
            83..90 if !self.refundable.is_empty() => {
                let (of, amounts) = self.refundable.swap_remove(self.dice.index(self.refundable.len()));
                // All of one metric, or a part of it; what has several may have one refunded.
                let some: Vec<_> = amounts.into_iter().collect();
                let (metric, amount) = some[self.dice.index(some.len())];
                What::Refund { of, amounts: [(metric, self.dice.between(1, amount))].into() }
            }
            90..95 if !self.held.is_empty() => {
                let (hold, reserved) = self.held.swap_remove(self.dice.index(self.held.len()));
                if self.dice.one_in(3) {
                    return What::Release { hold, reserved };
                }
                let amounts = reserved.iter().map(|(metric, most)| (*metric, self.dice.between(1, *most))).collect();
                What::Commit { hold, reserved, amounts }
            }
            _ => {
                let seconds = if self.dice.one_in(6) { 1 } else { LONG };
                let both = self.dice.one_in(3);
                What::Reserve { amounts: self.amounts(both), seconds }
            }
        }
    }

    fn amounts(&mut self, both: bool) -> Amounts {
        let one = self.dice.pick(&METRICS);
        let metrics = METRICS.into_iter().filter(|metric| both || *metric == one);
        metrics.map(|metric| (metric, self.dice.between(1, 3))).collect()
    }

    fn patience(&mut self) -> Patience {
        let at_most = self.dice.pick(&[400, 1_000, 2_500, 6_000]);
        Patience { at_most: Duration::from_millis(at_most), is_told: self.dice.one_in(2) }
    }
}

/// Raises the limits of a tenant now and then. When nobody knows whether a change was made there is no further one: late, it
/// would lower the limit.
pub(crate) async fn raise(
    fleet: Arc<Fleet>,
    mut raises: Vec<Raise>,
    tenant: String,
    mut dice: Dice,
    over: Arc<AtomicBool>,
) -> Vec<Raise> {
    for _ in 0..dice.below(4) {
        tokio::time::sleep(Duration::from_millis(400 + dice.below(1_500))).await;
        let metric = dice.pick(&METRICS);
        let of_metric = || raises.iter().filter(|raise| raise.metric == metric);
        if over.load(Ordering::Relaxed) || of_metric().any(|raise| raise.received.is_none()) {
            continue;
        }
        let limit = of_metric().map(|raise| raise.limit).max().unwrap_or(0) + dice.between(1, 120);
        let server = dice.index(SERVERS);
        let sent = fleet.clock.now();
        let change = fleet.set_limit(server, &tenant, metric, limit);
        let done = matches!(tokio::time::timeout(Duration::from_secs(5), change).await, Ok(Ok(())));
        let received = done.then(|| fleet.clock.now());
        raises.push(Raise { metric, limit, sent, received });
    }
    raises
}
