//! When things were last used or active, noted in memory with each call and written some time later: to the minute, and at
//! most once a minute each. What a crash loses is a minute's worth; a call in the next one notes it again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::MutexGuard;

use crate::time::Timestamp;

/// How many are kept until they are written; further ones are noted at a later call.
const BOUND: usize = 65_536;

/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// What was noted.
struct Kept<K> {
    /// What is not written yet.
    open: HashMap<K, Timestamp>,
    /// What was taken to be written, until the next minute: rows that are kept in memory do not tell.
    taken: HashMap<K, Timestamp>,
}

/// What is not written yet.
pub struct Noted<K> {
    kept: Mutex<Kept<K>>,
    /// Held while it is written, so that a stop does not lose what is in hand.
    writing: tokio::sync::Mutex<()>,
}

impl<K> Default for Noted<K> {
    fn default() -> Self {
        let kept = Kept { open: HashMap::new(), taken: HashMap::new() };
        Self { kept: Mutex::new(kept), writing: tokio::sync::Mutex::default() }
    }
}

impl<K: Copy + Eq + Hash> Noted<K> {
    /// Notes that it is in use now, unless what is written says so already.
    pub(super) fn note(&self, key: K, written: Option<Timestamp>, now: Timestamp) {
        let minute = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(MINUTE));
        if written.is_some_and(|at| at >= minute) {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = kept.taken.get(&key).is_some_and(|at| *at >= minute);
        if !is_taken && (kept.open.len() < BOUND || kept.open.contains_key(&key)) {
            kept.open.insert(key, minute);
        }
    }

    /// What was noted since the last time, to be written while the guard is held.
    pub(super) async fn take(&self) -> (HashMap<K, Timestamp>, MutexGuard<'_, ()>) {
        let writing = self.writing.lock().await;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let open = std::mem::take(&mut kept.open);
        if let Some(newest) = open.values().max() {
            kept.taken.retain(|_, at| *at >= *newest);
        }
        kept.taken.extend(open.iter().map(|(key, at)| (*key, *at)));
        (open, writing)
    }
}
