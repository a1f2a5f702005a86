//! What clients asked and were told, and when, on one clock: the history that is checked.

use std::collections::BTreeMap;
use std::time::Instant;

/// Microseconds since the test began.
pub(crate) type Micros = u64;

/// How much of which metric.
pub(crate) type Amounts = BTreeMap<&'static str, i64>;

/// The metrics of the product. Their periods never end: what is counted stays counted.
pub(crate) const METRICS: [&str; 2] = ["calls", "tokens"];

/// So many requests of a call are told.
const SHOWN: usize = 8;

/// The one clock of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    pub(crate) fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Without `keyed` the key stands in the event's endpoint, and the call is never repeated.
    Consume {
        amounts: Amounts,
        leased: bool,
        keyed: bool,
    },
    Reserve {
        amounts: Amounts,
        seconds: i64,
    },
    /// Uses of a reservation.
    Commit {
        hold: String,
        reserved: Amounts,
        amounts: Amounts,
    },
    Release {
        hold: String,
        reserved: Amounts,
    },
    /// Gives back of an event that was admitted for certain.
    Refund {
        of: String,
        amounts: Amounts,
    },
}

impl What {
    /// Its amounts of a metric; 0 for none.
    pub(crate) fn amount(&self, metric: &str) -> i64 {
        match self {
            Self::Consume { amounts, .. }
            | Self::Reserve { amounts, .. }
            | Self::Commit { amounts, .. }
            | Self::Refund { amounts, .. } => amounts.get(metric).copied().unwrap_or(0),
            Self::Release { .. } => 0,
        }
    }
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Admitted or done.
    Yes {
        /// Whether it was answered before it was committed.
        promised: bool,
        /// What a repetition must be told as well.
        text: String,
        /// The reservation.
        hold: Option<String>,
    },
    /// There is no quota left.
    No(String),
    /// Nothing, or that it is not known.
    Unknown(String),
    /// Something that nobody expects.
    Odd(String),
}

/// One request of a call.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) server: usize,
    /// Which process of that server: it counts its starts.
    pub(crate) life: u32,
    pub(crate) sent: Micros,
    pub(crate) received: Micros,
    pub(crate) told: Told,
}

impl Attempt {
    pub(crate) const fn is_yes(&self) -> bool {
        matches!(self.told, Told::Yes { .. })
    }

    pub(crate) const fn is_promise(&self) -> bool {
        matches!(self.told, Told::Yes { promised: true, .. })
    }

    pub(crate) const fn is_no(&self) -> bool {
        matches!(self.told, Told::No(_))
    }
}

/// A call with all its requests: the repetitions have the same key.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) key: String,
    pub(crate) what: What,
    pub(crate) attempts: Vec<Attempt>,
}

impl Call {
    /// Without a key a repetition would count again.
    pub(crate) const fn may_be_repeated(&self) -> bool {
        !matches!(self.what, What::Consume { keyed: false, .. })
    }

    /// When anything of it can have begun.
    pub(crate) fn begun(&self) -> Micros {
        self.attempts.iter().map(|attempt| attempt.sent).min().unwrap_or(Micros::MAX)
    }

    /// When somebody first knew that it was done.
    pub(crate) fn done(&self) -> Option<Micros> {
        self.first(Attempt::is_yes).map(|attempt| attempt.received)
    }

    /// The first answer of a kind.
    pub(crate) fn first(&self, is_it: impl Fn(&Attempt) -> bool) -> Option<&Attempt> {
        self.attempts.iter().filter(|attempt| is_it(attempt)).min_by_key(|attempt| attempt.received)
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.is_yes() && !attempt.is_promise())
    }

    pub(crate) fn is_promised(&self) -> bool {
        self.attempts.iter().any(Attempt::is_promise)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.attempts.iter().any(Attempt::is_no)
    }

    /// All of it, for people.
    pub(crate) fn tell(&self) -> String {
        let attempt = |a: &Attempt| {
            let (sent, received) = (seconds(a.sent), seconds(a.received));
            format!("\n    {sent} to {received} at server {} (start {}): {:?}", a.server, a.life, a.told)
        };
        let shown: String = self.attempts.iter().take(SHOWN).map(attempt).collect();
        let more = self.attempts.len().saturating_sub(SHOWN);
        format!("{} {:?}{shown}\n    and {more} more", self.key, self.what)
    }
}

/// A limit that was raised.
#[derive(Debug, Clone)]
pub(crate) struct Raise {
    pub(crate) metric: &'static str,
    pub(crate) limit: i64,
    pub(crate) sent: Micros,
    /// When it holds for certain; none when nobody knows.
    pub(crate) received: Option<Micros>,
}

/// Everything that happened to a tenant.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) tenant: String,
    pub(crate) calls: Vec<Call>,
    /// By metric the first one is the limit that it began with.
    pub(crate) raises: Vec<Raise>,
}

/// An instant as it is printed.
pub(crate) fn seconds(at: Micros) -> String {
    format!("{}.{:06} s", at / 1_000_000, at % 1_000_000)
}
