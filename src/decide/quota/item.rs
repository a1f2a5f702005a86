//! What is asked of the engine, and what it answers.

use std::sync::Arc;

use uuid::Uuid;

use super::Micros;
use crate::domain::quota::{Charge, Details, EventKey, EventKind, EventRow, HoldKind, HoldRow, HoldState};
use crate::time::Timestamp;

/// What is to be done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Use amounts: all or none, or of each metric what there is.
    Consume {
        /// Whether each metric is decided for itself.
        best_effort: bool,
    },
    /// Set amounts aside.
    Reserve(NewHold),
    /// Count what happened already, whatever the limit.
    Record,
    /// Lower a gauge, to zero at most.
    Lower,
    /// Give back what an event has used.
    Refund {
        /// The event's key.
        of: Arc<str>,
        /// Amounts by metric; all that is left when empty.
        amounts: Vec<(Arc<str>, i64)>,
    },
    /// Use what was set aside, or less; the rest is given back.
    Commit {
        /// The reservation.
        hold: NamedHold,
        /// Amounts by metric; all when empty.
        amounts: Vec<(Arc<str>, i64)>,
    },
    /// Give back what was set aside.
    Release(NamedHold),
    /// Set aside for longer.
    Extend {
        /// The reservation or slot.
        hold: NamedHold,
        /// Until when.
        expires_at: Timestamp,
    },
}

/// A reservation or slot as a caller names it. What is none of the kind, or not theirs, is not there for them.
#[derive(Debug, Clone, Copy)]
pub struct NamedHold {
    /// Its id.
    pub id: Uuid,
    /// What it must be.
    pub kind: HoldKind,
    /// Who must have opened it; none is anybody.
    pub opened_by: Option<Uuid>,
}

/// A reservation or slot to be opened.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Its id.
    pub hold: Uuid,
    /// What it is.
    pub kind: HoldKind,
    /// Who holds it, in the caller's words.
    pub holder: Box<str>,
    /// Who opens it.
    pub opened_by: Uuid,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its event.
    pub key: EventKey,
    /// Whether the key is the caller's, so that the decision is remembered, a refusal too.
    pub is_keyed: bool,
    /// SHA-256 of what is asked.
    pub payload_hash: [u8; 32],
    /// What to do.
    pub action: Action,
    /// On which accounts; none where the rows tell.
    pub charges: Vec<Charge>,
    /// Whether it may be answered before it is committed.
    pub leased: bool,
    /// When it arrived: the instant of its decision.
    pub at: Timestamp,
    /// When it happened.
    pub event_at: Timestamp,
    /// What else its event says.
    pub details: Arc<Details>,
    /// Until when an answer is of use.
    pub deadline: Micros,
}

impl Item {
    /// The event that is written for it; none for what only changes a hold.
    pub(super) fn event(&self) -> Option<EventRow> {
        let (kind, subject) = match &self.action {
            Action::Consume { .. } => (EventKind::Consume, String::new()),
            Action::Reserve(new) => (EventKind::Reserve, new.hold.to_string()),
            Action::Record => (EventKind::Record, String::new()),
            Action::Lower => (EventKind::Set, String::new()),
            Action::Refund { of, .. } => (EventKind::Refund, of.to_string()),
            Action::Commit { hold, .. } => (EventKind::Commit, hold.id.to_string()),
            Action::Release(_) | Action::Extend { .. } => return None,
        };
        Some(EventRow {
            key: self.key.clone(),
            payload_hash: self.payload_hash,
            admitted: true,
            kind,
            leased: self.leased,
            charges: self.charges.clone(),
            decided_at: self.at,
            event_at: self.event_at,
            details: self.details.clone(),
            subject: subject.into(),
        })
    }

    /// What the caller is told of its charges.
    pub(super) fn told(&self, promised: bool, hold: Option<HoldRow>) -> Told {
        Told { charges: self.charges.clone(), promised, is_repetition: false, hold }
    }

    /// Whether it takes units from accounts that it names.
    pub(super) const fn takes(&self) -> bool {
        matches!(self.action, Action::Consume { .. } | Action::Record | Action::Reserve(_))
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What was charged where, and where that leaves the account. An amount of 0 was refused.
    pub charges: Vec<Charge>,
    /// Whether it was answered before it was committed.
    pub promised: bool,
    /// Whether it is the answer to an earlier request with the same key.
    pub is_repetition: bool,
    /// The hold, when there is one.
    pub hold: Option<HoldRow>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Admitted(Told),
    /// The quota is used up. Charges say where the accounts stand.
    Refused(Vec<Charge>),
    /// The key was used for something else.
    Conflict,
    /// There is no such event or hold.
    NotFound,
    /// The hold has ended otherwise.
    Closed(HoldState),
    /// More than there is to give back or to commit: of which metric, and how much is left.
    Beyond(Arc<str>, i64),
    /// The sum of a metric would leave the range of amounts.
    OutOfRange(Arc<str>),
    /// Units are out of reach and did not come back in time.
    Contended,
    /// Too much waits already.
    Overloaded,
    /// The database does not answer, or the outcome is not known yet: the same again tells.
    Away(String),
    /// The database does not take it.
    Broken(String),
}

impl Outcome {
    /// What an event that is stored tells who asks again.
    pub(super) fn stored(row: &EventRow, hold: Option<HoldRow>) -> Self {
        if row.admitted {
            Self::Admitted(Told { charges: row.charges.clone(), promised: false, is_repetition: true, hold })
        } else {
            Self::Refused(row.charges.clone())
        }
    }
}
