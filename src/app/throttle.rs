//! Throttling of attempts at passwords and of requests for mail, before anything expensive is done for them. The same for
//! addresses that nobody has: an address is counted by its MAC, whether it has an account or not.

use std::net::IpAddr;

use chrono::TimeDelta;

use super::App;
use super::mutation::network;
use crate::domain::name::Email;
use crate::domain::throttle::{AttemptLimits, Counted};
use crate::error::Error;
use crate::store::attempts::{self, Subject};
use crate::store::{OnPlatform, Scope, Scoped, rates};
use crate::time::Timestamp;

/// How often somebody has mail sent to one address.
pub const MAIL_LIMITS: AttemptLimits =
    AttemptLimits { per_source: 5, total: 20, window: TimeDelta::hours(1), interval: TimeDelta::minutes(5) };

/// The longest window of a rate in a catalogue.
const LONGEST_RATE: TimeDelta = TimeDelta::days(31);

/// What is attempted: each kind has counters of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempted {
    /// To guess a password.
    Password,
    /// To have mail sent.
    Mail,
    /// To have an invitation sent to somebody else.
    Invitation,
}

impl Attempted {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Mail => "mail",
            Self::Invitation => "invitation",
        }
    }
}

/// From where an attempt comes.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// A device on which the account has signed in before, by the SHA-256 of its token.
    Device(&'a [u8; 32]),
    /// Anywhere else.
    Network(Option<IpAddr>),
}

/// An attempt that was let through and counted.
pub struct Attempt {
    own: Subject,
    total: Option<Subject>,
    at: Timestamp,
    before: Counted,
}

impl Attempt {
    /// Whether stricter limits would have let it through as well.
    #[must_use]
    pub fn is_within(&self, limits: AttemptLimits) -> bool {
        self.before.clone().take(limits, self.at).is_ok()
    }
}

impl App {
    /// Counts an attempt at something of an address, before it is made: so that of any number at once no more are made than
    /// may be.
    ///
    /// # Errors
    /// `TooManyAttempts`; nothing is counted then, and nothing was written.
    pub async fn take_attempt(
        &self,
        attempted: Attempted,
        (email, from): (&Email, Origin<'_>),
        limits: AttemptLimits,
        now: Timestamp,
    ) -> Result<Attempt, Error> {
        let (own, total) = self.subjects(attempted, (email, from));
        // A flood of attempts that are refused costs reads, not writes.
        let mut tx = self.store.read(OnPlatform).await?;
        let mut counted = Counted { own: attempts::find(&mut tx, &own).await?, total: None };
        if let Some(total) = &total {
            counted.total = Some(attempts::find(&mut tx, total).await?);
        }
        drop(tx);
        counted.take(limits, now).map_err(|retry_after| refused(attempted, retry_after))?;

        let mut tx = self.store.write(OnPlatform).await?;
        let attempt = self.take_attempt_in(&mut tx, attempted, (email, from), limits, now).await?;
        tx.commit_unaudited(now).await?;
        Ok(attempt)
    }

    /// `take_attempt` in the transaction of what is attempted: counted only if that happens.
    ///
    /// # Errors
    /// `TooManyAttempts`.
    pub(super) async fn take_attempt_in<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        attempted: Attempted,
        (email, from): (&Email, Origin<'_>),
        limits: AttemptLimits,
        now: Timestamp,
    ) -> Result<Attempt, Error> {
        let (own, total) = self.subjects(attempted, (email, from));
        // Always in this order.
        let of_total = match &total {
            Some(total) => Some(attempts::lock(tx, total, now).await?),
            None => None,
        };
        let before = Counted { own: attempts::lock(tx, &own, now).await?, total: of_total };
        let mut counted = before.clone();
        counted.take(limits, now).map_err(|retry_after| refused(attempted, retry_after))?;
        attempts::put(tx, &own, &counted.own, now).await?;
        if let (Some(subject), Some(hits)) = (&total, &counted.total) {
            attempts::put(tx, subject, hits, now).await?;
        }
        Ok(Attempt { own, total, at: now, before })
    }

    /// Whose attempts count together: those from where this one comes, and all at the address.
    fn subjects(&self, attempted: Attempted, (email, from): (&Email, Origin<'_>)) -> (Subject, Option<Subject>) {
        let subject = |parts: &[&[u8]]| {
            let parts = [&[attempted.as_str().as_bytes(), email.as_str().as_bytes()], parts].concat();
            self.master.mac("attempt", &parts)
        };
        match from {
            Origin::Device(digest) => (subject(&[b"device", digest]), None),
            Origin::Network(source) => {
                let network = source.map_or_else(|| "unknown".to_owned(), network);
                (subject(&[b"network", network.as_bytes()]), Some(subject(&[b"total"])))
            }
        }
    }

    /// Takes an attempt back that was counted and not made.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn take_back(&self, attempt: &Attempt, now: Timestamp) -> Result<(), Error> {
        self.uncount(attempt, |own| remove(own, attempt.at), now).await
    }

    /// Forgets the attempts from where one came that turned out to be the account's own; of the total only itself.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn forgive(&self, attempt: &Attempt, now: Timestamp) -> Result<(), Error> {
        self.uncount(attempt, Vec::clear, now).await
    }

    async fn uncount(
        &self,
        attempt: &Attempt,
        change: impl FnOnce(&mut Vec<Timestamp>) + Send,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut tx = self.store.write(OnPlatform).await?;
        if let Some(total) = &attempt.total {
            let mut hits = attempts::lock(&mut tx, total, now).await?;
            remove(&mut hits, attempt.at);
            attempts::put(&mut tx, total, &hits, now).await?;
        }
        let mut own = attempts::lock(&mut tx, &attempt.own, now).await?;
        change(&mut own);
        attempts::put(&mut tx, &attempt.own, &own, now).await?;
        tx.commit_unaudited(now).await
    }

    /// Clears away counters, of attempts and of calls, that nobody has added to for so long that they count nothing any more.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn forget_attempts(&self) -> Result<(), Error> {
        let now = self.clock.now();
        // Longer than the windows of today, which may have been others yesterday.
        let before = now.after(-(self.attempts.window.max(TimeDelta::hours(24))));
        loop {
            let mut tx = self.store.write(OnPlatform).await?;
            let gone = attempts::forget(&mut tx, before, 500).await?;
            let calls = rates::forget(&mut tx, now.after(-LONGEST_RATE), 500).await?;
            tx.commit_unaudited(now).await?;
            if gone < 500 && calls < 500 {
                return Ok(());
            }
        }
    }
}

fn refused(attempted: Attempted, retry_after: TimeDelta) -> Error {
    metrics::counter!("tenantry_attempts_refused_total", "attempted" => attempted.as_str()).increment(1);
    Error::TooManyAttempts { retry_after }
}

fn remove(hits: &mut Vec<Timestamp>, at: Timestamp) {
    if let Some(place) = hits.iter().position(|hit| *hit == at) {
        hits.remove(place);
    }
}
