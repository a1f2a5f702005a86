//! When things were last used or active, noted in memory with each call and written some time later: to the minute, and at
//! most once a minute each. What a crash loses is a minute's worth; the next call notes it again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use tokio::sync::MutexGuard;

use crate::time::Timestamp;

/// How many are kept until they are written; further ones are noted at a later call.
const BOUND: usize = 65_536;

/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// What is not written yet.
pub struct Noted<K> {
    open: Mutex<HashMap<K, Timestamp>>,
    /// Held while it is written, so that a stop does not lose what is in hand.
    writing: tokio::sync::Mutex<()>,
}

impl<K> Default for Noted<K> {
    fn default() -> Self {
        Self { open: Mutex::default(), writing: tokio::sync::Mutex::default() }
    }
}

impl<K: Copy + Eq + Hash> Noted<K> {
    /// Notes that it is in use now, unless what is written says so already.
    pub(super) fn note(&self, key: K, written: Option<Timestamp>, now: Timestamp) {
        let minute = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(MINUTE));
        if written.is_some_and(|at| at >= minute) {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < BOUND || open.contains_key(&key) {
            open.insert(key, minute);
        }
    }

    /// What was noted since the last time, to be written while the guard is held.
    pub(super) async fn take(&self) -> (HashMap<K, Timestamp>, MutexGuard<'_, ()>) {
        let writing = self.writing.lock().await;
        (std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner)), writing)
    }
}
