//! Rates in memory: what each tenant, member and key has used of a rate at this server and what has not come back yet.
//! Nothing of it is kept: a server that starts has used nothing.
//!
//! The table is bounded. What has come back wholly is taken out as others come; when as many as there may be are still in use,
//! the one that is whole again soonest is forgotten: whose it is may use at most so much more as had not come back yet.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::domain::gcra::{Gcra, Rate, Room, Share, TooFast};
use crate::domain::id::TenantId;
use crate::domain::quota::Scope;
use crate::time::Timestamp;

#[cfg(test)]
mod tests;

/// Whose use of which metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The metric.
    pub metric: Arc<str>,
    /// Whether it is the tenant's, a member's or a key's.
    pub scope: Scope,
    /// The member or key; nil of a tenant.
    pub id: Uuid,
}

/// An amount, and the rate that it has to go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whose.
    pub key: RateKey,
    /// As it holds now.
    pub rate: Rate,
    /// How much.
    pub amount: i64,
}

/// What was said about an amount, and what is used then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Why it does not go through, if it does not.
    pub refused: Option<TooFast>,
    /// What is left.
    pub room: Room,
    /// So much of the whole burst is used.
    pub used: i64,
}

struct Entry {
    gcra: Gcra,
    rate: Rate,
    /// When it is whole again, as the index has it.
    full_at: Timestamp,
}

#[derive(Default)]
struct Table {
    entries: HashMap<RateKey, Entry>,
    /// The same by when they are whole again.
    index: BTreeSet<(Timestamp, RateKey)>,
}

/// The rates that are in use at this server.
pub struct Rates {
    table: Mutex<Table>,
    most: usize,
}

/// Rates in use that are remembered: some 50 MB.
const REMEMBERED: usize = 200_000;

impl Default for Rates {
    fn default() -> Self {
        Self::bounded(REMEMBERED)
    }
}

impl Rates {
    /// A table of at most so many entries.
    #[must_use]
    pub fn bounded(most: usize) -> Self {
        Self { table: Mutex::default(), most }
    }

    /// Charges all parts, or none when one of them does not go through. One answer a part.
    pub fn take(&self, parts: &[Part], share: Share, now: Timestamp) -> Vec<Said> {
        let mut table = self.table();
        let mut said: Vec<Said> = parts.iter().map(|part| table.look(part, share, now)).collect();
        if said.iter().all(|said| said.refused.is_none()) {
            for (part, said) in parts.iter().zip(&mut said) {
                *said = table.charge(part, share, now);
            }
            table.bound(self.most, now);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is of floats; the table is bounded")]
        metrics::gauge!("tenantry_rate_entries").set(table.entries.len() as f64);
        for said in &said {
            let outcome = if said.refused.is_some() { "refused" } else { "admitted" };
            metrics::counter!("tenantry_rate_decisions_total", "outcome" => outcome).increment(1);
        }
        said
    }

    /// What would be said of each; charges nothing.
    #[must_use]
    pub fn peek(&self, parts: &[Part], share: Share, now: Timestamp) -> Vec<Said> {
        let table = self.table();
        parts.iter().map(|part| table.look(part, share, now)).collect()
    }

    /// Gives back what was charged at `then`; says what is used without it.
    pub fn give_back(&self, part: &Part, share: Share, then: Timestamp, now: Timestamp) -> Said {
        let mut table = self.table();
        let mut gcra = table.find(part);
        gcra.give_back(part.rate, share, part.amount, then, now);
        let room = gcra.room(part.rate, share, now);
        // What is not there any more has come back already.
        if table.entries.contains_key(&part.key) {
            table.put(part, gcra, room.full_at);
        }
        Said { refused: None, room, used: gcra.used(part.rate, now) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // What panicked while it had the lock had changed nothing by halves that matters: an entry may be missing.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// What an entry has used, as it counts under the rate that holds now.
    fn find(&self, part: &Part) -> Gcra {
        match self.entries.get(&part.key) {
            Some(entry) if part.rate.burst < entry.rate.burst => entry.gcra.lowered(part.rate),
            Some(entry) => entry.gcra,
            None => Gcra::UNUSED,
        }
    }

    fn look(&self, part: &Part, share: Share, now: Timestamp) -> Said {
        let gcra = self.find(part);
        let (refused, room) = match gcra.peek(part.rate, share, part.amount, now) {
            Ok(_) => (None, gcra.room(part.rate, share, now)),
            Err(refused) => (Some(refused), gcra.room(part.rate, share, now)),
        };
        Said { refused, room, used: gcra.used(part.rate, now) }
    }

    fn charge(&mut self, part: &Part, share: Share, now: Timestamp) -> Said {
        let mut gcra = self.find(part);
        let refused = gcra.decide(part.rate, share, part.amount, now).err();
        let room = gcra.room(part.rate, share, now);
        self.put(part, gcra, room.full_at);
        Said { refused, room, used: gcra.used(part.rate, now) }
    }

    fn put(&mut self, part: &Part, gcra: Gcra, full_at: Timestamp) {
        if let Some(last) = self.entries.insert(part.key.clone(), Entry { gcra, rate: part.rate, full_at }) {
            self.index.remove(&(last.full_at, part.key.clone()));
        }
        self.index.insert((full_at, part.key.clone()));
    }

    /// Takes out what is whole again, a few at a time, and what is too much.
    fn bound(&mut self, most: usize, now: Timestamp) {
        for _ in 0..4 {
            match self.index.first() {
                Some((full_at, _)) if *full_at <= now => self.remove_first(),
                _ => break,
            }
        }
        while self.entries.len() > most {
            self.remove_first();
            metrics::counter!("tenantry_rate_evictions_total").increment(1);
        }
    }

    fn remove_first(&mut self) {
        if let Some((_, key)) = self.index.pop_first() {
            self.entries.remove(&key);
        }
    }
}
