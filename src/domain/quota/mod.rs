//! Quotas: accounts, leases, events and holds as values, and the rules by which a batch of requests is decided on locked
//! rows (`book.rs`). Pure; how batches are made and committed is the engine's business (`decide/quota`), and how rows are
//! read and written the store's.
//!
//! Used is `committed` plus what open leases have settled. What may be given out is `limit - committed - reserved - leased -
//! forfeited`: a lease counts whole as long as it is out.

mod book;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::id::TenantId;
use crate::time::Timestamp;

pub use book::{Book, Verdict};

/// Where an unlimited metric ends: far from the overflow of `bigint`, whatever is added once more.
pub const UNLIMITED: i64 = 1 << 62;

/// Whose account it is. The order is that in which rows are locked: those that many requests share come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// An API key's.
    Key,
    /// A member's.
    Member,
    /// The tenant's.
    Tenant,
}

impl Scope {
    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Key => 0,
            Self::Member => 1,
            Self::Tenant => 2,
        }
    }

    /// The scope with this number; the tenant's for one that nobody knows.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        match number {
            0 => Self::Key,
            1 => Self::Member,
            _ => Self::Tenant,
        }
    }
}

/// An account; sorts in the order in which rows are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// Whose it is.
    pub scope: Scope,
    /// The tenant.
    pub tenant: TenantId,
    /// The account.
    pub account: Uuid,
}

/// An account's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Which.
    pub key: AccountKey,
    /// The metric that it counts.
    pub metric: Arc<str>,
    /// When its period began.
    pub period_start: Timestamp,
    /// When its period ends.
    pub period_end: Timestamp,
    /// Up to where amounts are admitted; [`UNLIMITED`].
    pub limit: i64,
    /// The limit as people know it, without grace; none is unlimited.
    pub shown_limit: Option<i64>,
    /// Rises with each change of the limit.
    pub revision: i64,
    /// Used, as far as it is folded in. Below zero for a moment when more was refunded.
    pub committed: i64,
    /// What holds have set aside.
    pub reserved: i64,
    /// What leases were granted, settled or not.
    pub leased: i64,
    /// What was promised by leases that ended early, and may have been used.
    pub forfeited: i64,
    /// The largest amount that somebody waits for; no lease is granted while it stands.
    pub recall_need: i64,
    /// The epoch of the next lease that is opened.
    pub next_epoch: i64,
    /// Percents of the limit that somebody is told of, rising.
    pub thresholds: Vec<i64>,
    /// The highest of them that was reached.
    pub told_percent: i64,
    /// What open leases have settled, as it was read together with the row.
    pub settled: i64,
}

impl AccountRow {
    /// What may be given out now.
    #[must_use]
    pub const fn available(&self) -> i64 {
        self.limit - self.committed - self.reserved - self.leased - self.forfeited
    }

    /// What could be given out if every lease came back unused: more than this no recall can bring.
    #[must_use]
    pub const fn reachable(&self) -> i64 {
        self.limit - self.committed - self.reserved - self.forfeited
    }

    /// What was used.
    #[must_use]
    pub const fn used(&self) -> i64 {
        self.committed + self.settled
    }

    /// How much of a limit is used; none of no limit.
    fn percent_of(&self, limit: Option<i64>) -> Option<i128> {
        let limit = limit.filter(|limit| *limit > 0)?;
        Some(i128::from(self.used()) * 100 / i128::from(limit))
    }

    /// Notes the thresholds that are reached and that nobody was told of.
    pub fn reach(&mut self) -> Vec<Notice> {
        let (Some(percent), Some(limit)) = (self.percent_of(self.shown_limit), self.shown_limit) else {
            return Vec::new();
        };
        let is_reached = |at: &&i64| **at > self.told_percent && i128::from(**at) <= percent;
        let notice = |at: &i64| Notice {
            account: self.key,
            metric: self.metric.clone(),
            percent: *at,
            used: self.used(),
            limit,
            period_end: self.period_end,
        };
        let reached: Vec<Notice> = self.thresholds.iter().filter(is_reached).map(notice).collect();
        self.told_percent = reached.iter().map(|notice| notice.percent).fold(self.told_percent, i64::max);
        reached
    }

    /// Up to which percent thresholds were told and are still reached under this limit: those above it may be told again when
    /// it is another one. Without that nobody would ever hear again of a metric that has only one period.
    #[must_use]
    pub fn still_told(&self, limit: Option<i64>) -> i64 {
        if limit == self.shown_limit {
            return self.told_percent;
        }
        let percent = self.percent_of(limit).unwrap_or(0).clamp(0, i128::from(self.told_percent));
        i64::try_from(percent).unwrap_or(self.told_percent)
    }

    /// Where it stands.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        Standing {
            used: self.used(),
            reserved: self.reserved,
            limit: self.shown_limit,
            starts_at: self.period_start.micros(),
            resets_at: self.period_end.micros(),
            revision: self.revision,
        }
    }
}

/// Which promise a lease backs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Answers after the commit.
    Durable,
    /// Answers before it; what such a lease has not settled when it ends early is forfeited.
    Leased,
}

impl Class {
    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Durable => 0,
            Self::Leased => 1,
        }
    }

    /// The class with this number.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        if number == 0 { Self::Durable } else { Self::Leased }
    }
}

/// What a commit lane holds of an account. Closed: epoch, granted and settled are 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Of which account.
    pub account: AccountKey,
    /// Whose.
    pub writer: Uuid,
    /// Of which class.
    pub class: Class,
    /// Never used twice for an account.
    pub epoch: i64,
    /// How much was taken out of the account.
    pub granted: i64,
    /// How much of it was used.
    pub settled: i64,
    /// What earlier leases of this row left behind unsettled.
    pub forfeited: i64,
}

impl LeaseRow {
    /// A closed one.
    #[must_use]
    pub const fn closed(account: AccountKey, writer: Uuid, class: Class) -> Self {
        Self { account, writer, class, epoch: 0, granted: 0, settled: 0, forfeited: 0 }
    }

    /// Closes it: what it settled is folded into its account, the rest goes back there, but for what is forfeited: up to so
    /// much.
    pub fn close(&mut self, account: &mut AccountRow, forfeit: i64) {
        account.committed += self.settled;
        account.settled -= self.settled;
        account.leased -= self.granted;
        let forfeited = forfeit.min(self.granted - self.settled);
        self.forfeited += forfeited;
        account.forfeited += forfeited;
        (self.epoch, self.granted, self.settled) = (0, 0, 0);
    }
}

/// Where an account stood right after a decision; kept with the event, so that a repetition is told the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Used.
    pub used: i64,
    /// Set aside.
    pub reserved: i64,
    /// The limit as people know it; none is unlimited.
    pub limit: Option<i64>,
    /// When the period began, in microseconds.
    pub starts_at: i64,
    /// When the next period begins, in microseconds.
    pub resets_at: i64,
    /// The revision of the limit.
    pub revision: i64,
}

/// An amount of one metric on one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The metric.
    pub metric: Arc<str>,
    /// The account.
    pub account: AccountKey,
    /// How much. Below zero for what gives back.
    pub amount: i64,
    /// How much of it was refunded since.
    pub refunded: i64,
    /// Where the account stood.
    pub standing: Standing,
}

/// As it is written in rows: metric, account, scope, amount, refunded, used, reserved, limit, `starts_at`, `resets_at`,
/// revision.
type Line = (Arc<str>, Uuid, i64, i64, i64, i64, i64, Option<i64>, i64, i64, i64);

/// Charges as they are written in rows.
#[must_use]
pub fn charges_text(charges: &[Charge]) -> String {
    let line = |c: &Charge| -> Line {
        let s = &c.standing;
        let (account, scope) = (c.account.account, c.account.scope.number());
        let period = (s.starts_at, s.resets_at);
        let (metric, limit) = (c.metric.clone(), s.limit);
        (metric, account, scope, c.amount, c.refunded, s.used, s.reserved, limit, period.0, period.1, s.revision)
    };
    let lines: Vec<Line> = charges.iter().map(line).collect();
    serde_json::to_string(&lines).unwrap_or_default()
}

/// Reads charges that [`charges_text`] wrote; none in rows of the version before, which wrote amounts by metric.
#[must_use]
pub fn read_charges(tenant: TenantId, text: &str) -> Vec<Charge> {
    let lines: Vec<Line> = serde_json::from_str(text).unwrap_or_default();
    let charge = |line: Line| {
        let (metric, account, scope, amount, refunded, used, reserved, limit, starts_at, resets_at, revision) = line;
        Charge {
            metric,
            account: AccountKey { scope: Scope::of(scope), tenant, account },
            amount,
            refunded,
            standing: Standing { used, reserved, limit, starts_at, resets_at, revision },
        }
    };
    lines.into_iter().map(charge).collect()
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Consumed within limits.
    Consume,
    /// Set aside; what is committed of it is an event of its own.
    Reserve,
    /// Recorded after the fact.
    Record,
    /// Given back.
    Refund,
    /// Used of what was set aside.
    Commit,
    /// The level of a gauge was set or lowered.
    Set,
}

impl EventKind {
    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Consume => 1,
            Self::Reserve => 2,
            Self::Record => 3,
            Self::Refund => 4,
            Self::Commit => 5,
            Self::Set => 6,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        match number {
            2 => Self::Reserve,
            3 => Self::Record,
            4 => Self::Refund,
            5 => Self::Commit,
            6 => Self::Set,
            _ => Self::Consume,
        }
    }

    /// Its name in exports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Reserve => "reserve",
            Self::Record => "record",
            Self::Refund => "refund",
            Self::Commit => "commit",
            Self::Set => "set",
        }
    }

    /// Whether its charges count as used.
    #[must_use]
    pub const fn counts(self) -> bool {
        !matches!(self, Self::Reserve)
    }
}

/// An event, by its tenant and key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The caller's idempotency key, or one of the server's.
    pub key: Arc<str>,
}

/// What an event says besides amounts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Details {
    /// The person.
    pub member: Option<Uuid>,
    /// The key.
    pub api_key: Option<Uuid>,
    /// What was called.
    pub endpoint: Box<str>,
    /// How.
    pub method: Box<str>,
    /// What it answered.
    pub status: i64,
    /// How long it took, in microseconds.
    pub latency_us: i64,
    /// JSON object; empty when there are none.
    pub attributes: Box<str>,
}

/// What was stored of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Which.
    pub key: EventKey,
    /// SHA-256 of what was asked.
    pub payload_hash: [u8; 32],
    /// Whether it was admitted.
    pub admitted: bool,
    /// What it is.
    pub kind: EventKind,
    /// Whether it was answered before it was committed.
    pub leased: bool,
    /// What was charged, or, of what was refused, where the accounts stood.
    pub charges: Vec<Charge>,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// When it happened.
    pub event_at: Timestamp,
    /// What else it says.
    pub details: Arc<Details>,
    /// What it is about: the key of a refunded event, the id of a hold.
    pub subject: Box<str>,
}

/// What a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldKind {
    /// Of an amount that is not known yet.
    Reservation,
    /// Of something that runs.
    Slot,
}

impl HoldKind {
    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Reservation => 1,
            Self::Slot => 2,
        }
    }

    /// By its number in rows.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        if number == 2 { Self::Slot } else { Self::Reservation }
    }
}

/// Where a hold stands. The state decides, not the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Its units are set aside.
    Held,
    /// They, or some of them, were used.
    Committed,
    /// They were given back.
    Released,
    /// They were given back because nobody asked for them in time.
    Expired,
}

impl HoldState {
    /// Its number in rows.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Held => 1,
            Self::Committed => 2,
            Self::Released => 3,
            Self::Expired => 4,
        }
    }

    /// Its name in refusals.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    /// The state with this number.
    #[must_use]
    pub const fn of(number: i64) -> Self {
        match number {
            1 => Self::Held,
            2 => Self::Committed,
            3 => Self::Released,
            _ => Self::Expired,
        }
    }
}

/// A reservation or slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRow {
    /// The tenant.
    pub tenant: TenantId,
    /// Which.
    pub hold: Uuid,
    /// What it is.
    pub kind: HoldKind,
    /// Of the event that opened it.
    pub key: Arc<str>,
    /// Where it stands.
    pub state: HoldState,
    /// What it sets aside.
    pub charges: Vec<Charge>,
    /// What was committed of it.
    pub actual: Vec<Charge>,
    /// Who holds it, in the caller's words.
    pub holder: Box<str>,
    /// Who opened it: a person or key.
    pub opened_by: Uuid,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A threshold that an account has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which account.
    pub account: AccountKey,
    /// Its metric.
    pub metric: Arc<str>,
    /// The percent that was reached.
    pub percent: i64,
    /// Used.
    pub used: i64,
    /// The limit.
    pub limit: i64,
    /// When the next period begins.
    pub period_end: Timestamp,
}
