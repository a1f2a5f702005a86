//! Whether answers and rows agree: what was acknowledged is there once and with the right amounts, what was refused is not,
//! and repetitions were told the same.

use std::collections::{HashMap, HashSet};

use crate::fleet::Fleet;
use crate::record::{Amounts, Attempt, Call, History, METRICS, Micros, Told, What, seconds};
use crate::rows::{Event, Rows};

/// How long after its answer a promise may still be unwritten, whatever goes wrong besides.
const UNWRITTEN: Micros = 10_000_000;

/// What a check needs.
pub(crate) struct Evidence<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) history: &'a History,
    pub(crate) rows: &'a Rows,
    /// When the first fault of the round began: from then on leases may have been fenced.
    pub(crate) first_fault: Option<Micros>,
    /// Refunds that were admitted, by the key of what was refunded: one at most.
    refunds: HashMap<&'a str, &'a Call>,
}

/// What does not hold.
pub(crate) fn violations(e: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for call in &e.history.calls {
        let told = [odd(call), e.presence(call), e.answers(call)];
        wrong.extend(told.into_iter().flatten().map(|what| format!("{what}\n  {}\n  {}", call.tell(), e.shown(call))));
    }
    wrong.extend(e.strangers());
    wrong.extend(METRICS.iter().filter_map(|metric| e.sums(metric)));
    wrong
}

impl Call {
    /// Its event's row; that of a call without a key stands under a key of the server's.
    pub(crate) fn event<'r>(&self, rows: &'r Rows) -> Option<&'r Event> {
        match &self.what {
            What::Consume { keyed: false, .. } => {
                rows.unkeyed.get(&self.key).and_then(|keys| rows.events.get(keys.first()?))
            }
            What::Commit { hold, .. } => rows.events.get(&format!("tenantry:commit:{}", hold.replace('-', ""))),
            What::Release { .. } => None,
            _ => rows.events.get(&self.key),
        }
    }

    /// Whether the rows say that it was admitted.
    pub(crate) fn is_admitted(&self, rows: &Rows) -> bool {
        self.event(rows).is_some_and(|event| event.admitted)
    }
}

/// An answer that nobody expects; a reservation may have ended by itself, and a promise of which something is to be given
/// back may have been lost.
fn odd(call: &Call) -> Option<String> {
    let told = call.attempts.iter().find_map(|attempt| match &attempt.told {
        Told::Odd(told) => Some(told),
        _ => None,
    })?;
    let ends = matches!(call.what, What::Commit { .. } | What::Release { .. });
    let ended = ends && told.starts_with("HOLD_CLOSED");
    (!ended).then(|| format!("ODD: an answer that nobody expects: {told}"))
}

impl<'a> Evidence<'a> {
    pub(crate) fn new(fleet: &'a Fleet, history: &'a History, rows: &'a Rows, first_fault: Option<Micros>) -> Self {
        let admitted = history.calls.iter().filter(|call| call.is_admitted(rows));
        let refund = |call: &'a Call| match &call.what {
            What::Refund { of, .. } => Some((of.as_str(), call)),
            _ => None,
        };
        Self { fleet, history, rows, first_fault, refunds: admitted.filter_map(refund).collect() }
    }

    fn shown(&self, call: &Call) -> String {
        let row = call.event(self.rows).map_or("no row", |event| event.row.as_str());
        let hold = match &call.what {
            What::Commit { hold, .. } | What::Release { hold, .. } => self.rows.holds.get(hold),
            _ => None,
        };
        let death = |a: &Attempt| self.fleet.death(a.server, a.life).map(|at| (a.server, a.life, seconds(at)));
        let deaths: Vec<_> = call.attempts.iter().filter_map(death).collect();
        format!("{row}; {hold:?}; killed: {deaths:?}")
    }

    /// Whether what stands in the rows is what callers were told.
    fn presence(&self, call: &Call) -> Option<String> {
        let event = call.event(self.rows);
        if let What::Release { hold, .. } = &call.what {
            let state = self.rows.holds.get(hold).map(|hold| hold.state);
            return (call.is_durable() && state != Some(3)).then(|| "ONCE: what was released is not".to_owned());
        }
        if let What::Consume { keyed: false, .. } = &call.what {
            let times = self.rows.unkeyed.get(&call.key).map_or(0, Vec::len);
            if times > 1 {
                return Some(format!("ONCE: it is there {times} times"));
            }
        }
        let admitted = event.is_some_and(|event| event.admitted);
        if call.is_durable() && !admitted {
            return Some("LOST: what was acknowledged is not there".to_owned());
        }
        if call.is_promised() && !admitted {
            return self.broken_promise(call, event);
        }
        if call.is_refused() && admitted && !call.is_promised() {
            return Some("REFUSED: what was refused is there".to_owned());
        }
        if call.is_refused() && event.is_none() && !matches!(call.what, What::Consume { keyed: false, .. }) {
            return Some("REFUSED: a refusal is not remembered".to_owned());
        }
        let event = event?;
        self.amounts(call, event)
    }

    /// A promise may be lost only with the process that made it, or, when a lease was fenced, be decided otherwise elsewhere.
    fn broken_promise(&self, call: &Call, event: Option<&Event>) -> Option<String> {
        if event.is_some() {
            // It is stored as refused: somebody else was asked.
            let refused_at = call.first(Attempt::is_no).map_or(Micros::MAX, |attempt| attempt.received);
            let fenced = self.first_fault.is_some_and(|at| at <= refused_at);
            let elsewhere = call.attempts.len() > 1;
            return ((!fenced || !elsewhere) && !promised_after_refusal(call))
                .then(|| "PROMISE: a promise is stored as refused".to_owned());
        }
        let excused = call.attempts.iter().filter(|attempt| attempt.is_promise()).all(|attempt| {
            let death = self.fleet.death(attempt.server, attempt.life);
            death.is_some_and(|at| at < attempt.received + UNWRITTEN)
        });
        (!excused).then(|| "PROMISE: a promise is lost, and its server was not".to_owned())
    }

    fn amounts(&self, call: &Call, event: &Event) -> Option<String> {
        let (kind, sign) = match &call.what {
            What::Consume { .. } => (1, 1),
            What::Reserve { .. } => (2, 1),
            What::Refund { .. } => (4, -1),
            What::Commit { .. } => (5, 1),
            What::Release { .. } => return None,
        };
        if event.kind != kind {
            return Some(format!("AMOUNTS: its event is of kind {} and not {kind}", event.kind));
        }
        let refund = self.refunds.get(call.key.as_str());
        for metric in METRICS {
            let asked = if event.admitted { sign * call.what.amount(metric) } else { 0 };
            let refunded = refund.map_or(0, |refund| refund.what.amount(metric));
            let found = event.charges.get(metric).copied().unwrap_or_default();
            if found != (asked, refunded) {
                let asked = (asked, refunded);
                return Some(format!("AMOUNTS: {metric} with its refund is {found:?}, and {asked:?} was asked for"));
            }
        }
        self.reservation(call, event)
    }

    /// Whether a reservation stands where its answers say.
    fn reservation(&self, call: &Call, event: &Event) -> Option<String> {
        let are = |charges: &HashMap<String, (i64, i64)>, amounts: &Amounts| {
            amounts.iter().all(|(metric, amount)| charges.get(*metric).map(|charge| charge.0) == Some(*amount))
        };
        match &call.what {
            What::Commit { hold, amounts, .. } => {
                let there = self.rows.holds.get(hold).is_some_and(|hold| hold.state == 2 && are(&hold.actual, amounts));
                (event.admitted && !there).then(|| "ONCE: what was committed is not".to_owned())
            }
            What::Reserve { amounts, seconds } => {
                let told = |attempt: &Attempt| match &attempt.told {
                    Told::Yes { hold, .. } => hold.clone(),
                    _ => None,
                };
                let id = call.attempts.iter().find_map(told)?;
                let Some(hold) = self.rows.holds.get(&id) else {
                    return Some("LOST: what was reserved is not there".to_owned());
                };
                if !are(&hold.charges, amounts) {
                    return Some("AMOUNTS: other amounts are reserved".to_owned());
                }
                (hold.state == 4 && *seconds > 60).then(|| "ONCE: a reservation expired too early".to_owned())
            }
            _ => None,
        }
    }

    /// Whether a repetition was told the same.
    fn answers(&self, call: &Call) -> Option<String> {
        if let (true, Some(refusal)) = (call.is_promised() || call.is_durable(), call.first(Attempt::is_no)) {
            // A promise can be repeated for as long as no lease of its accounts was fenced.
            let only_promised = !call.is_durable();
            let fenced = self.first_fault.is_some_and(|at| at <= refusal.received);
            if !(only_promised && (fenced || promised_after_refusal(call))) {
                return Some("SAME: the same key was admitted and refused".to_owned());
            }
        }
        let durable = call.attempts.iter().filter_map(|attempt| match &attempt.told {
            Told::Yes { promised: false, text, .. } => Some(text),
            _ => None,
        });
        let refusals = call.attempts.iter().filter_map(|attempt| match &attempt.told {
            Told::No(text) => Some(text),
            _ => None,
        });
        let differ = |mut texts: Vec<&String>| {
            texts.sort_unstable();
            texts.dedup();
            texts.len() > 1
        };
        (differ(durable.collect()) || differ(refusals.collect()))
            .then(|| "SAME: a repetition was told something else".to_owned())
    }

    /// Rows that nobody asked for.
    fn strangers(&self) -> Vec<String> {
        let keys: HashSet<&str> = self.history.calls.iter().map(|call| call.key.as_str()).collect();
        let unkeyed = self.rows.unkeyed.iter().filter(|(key, _)| keys.contains(key.as_str()));
        let own: HashSet<&String> = unkeyed.flat_map(|(_, rows)| rows).collect();
        let is_known = |key: &String, event: &Event| {
            let of_hold = event.kind == 5 && key.starts_with("tenantry:commit:");
            keys.contains(key.as_str()) || own.contains(key) || of_hold
        };
        let strangers = self.rows.events.iter().filter(|(key, event)| !is_known(key, event));
        strangers.map(|(_, event)| format!("ONCE: an event that nobody asked for: {}", event.row)).collect()
    }

    /// Whether an account has what its events charged, and no more than its limit.
    fn sums(&self, metric: &str) -> Option<String> {
        let account = self.rows.account(metric);
        let counted = self.rows.events.values().filter(|event| event.admitted && event.kind != 2);
        let used: i64 = counted.filter_map(|event| event.charges.get(metric)).map(|charge| charge.0).sum();
        let held = self.rows.holds.values().filter(|hold| hold.state == 1);
        let reserved: i64 = held.filter_map(|hold| hold.charges.get(metric)).map(|charge| charge.0).sum();
        if used != account.used() || reserved != account.reserved {
            return Some(format!("SUMS: events have used {used}, reservations hold {reserved}: {account:?}"));
        }
        if account.committed + account.reserved + account.leased + account.forfeited > account.limit_value {
            return Some(format!("LIMIT: {metric} is above its limit: {account:?}"));
        }
        None
    }
}

/// Whether promises came only after a refusal had been received: they look no key up, and whoever was refused is to ask with
/// a new one.
fn promised_after_refusal(call: &Call) -> bool {
    call.first(Attempt::is_no).is_some_and(|refusal| {
        call.attempts.iter().filter(|attempt| attempt.is_promise()).all(|promise| promise.sent >= refusal.received)
    })
}
