//! What happens to the first server that comes by a point.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use tokio::sync::watch;

use crate::points::Point;
use crate::wire::Wire;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// The process ends, as with `kill -9`.
    Kill,
    /// It stands still, as with SIGSTOP, until all that it held has been taken from it.
    Stop,
    /// Its connections to the database end, all at once.
    Cut,
}

/// A trap for one server, whichever comes first.
pub(crate) struct Trap {
    pub(crate) point: Point,
    pub(crate) act: Act,
    is_set: AtomicBool,
    /// Whether a commit is still to be lost, so that somebody asks what became of it.
    loses: AtomicBool,
    /// The server that is in it.
    caught: watch::Sender<Option<usize>>,
    gate: (mpsc::SyncSender<()>, Mutex<mpsc::Receiver<()>>),
}

impl Trap {
    pub(crate) fn new(point: Point, act: Act) -> Self {
        let (open, wait) = mpsc::sync_channel(1);
        Self {
            point,
            act,
            is_set: AtomicBool::new(false),
            loses: AtomicBool::new(false),
            caught: watch::Sender::new(None),
            gate: (open, Mutex::new(wait)),
        }
    }

    pub(crate) fn set(&self) {
        self.loses.store(self.point == Point::ResolveBefore, Ordering::SeqCst);
        self.is_set.store(true, Ordering::SeqCst);
    }

    /// Waits until a server is in it; gives which.
    pub(crate) async fn caught(&self) -> usize {
        let mut caught = self.caught.subscribe();
        let slot = caught.wait_for(Option::is_some).await.expect("a trap outlives those who look at it");
        slot.expect("it was waited for")
    }

    /// Lets a server that stands still go on.
    pub(crate) fn open(&self) {
        let _ = self.gate.0.send(());
    }

    /// Comes by a point, on the thread of a server; tells whether its connections were cut.
    pub(crate) async fn pass(&self, point: Point, slot: usize, wire: Option<&Wire>) -> bool {
        if point != self.point || !self.is_set.swap(false, Ordering::SeqCst) {
            return false;
        }
        self.caught.send_replace(Some(slot));
        match self.act {
            Act::Kill => std::future::pending().await,
            Act::Stop => {
                // The thread is the whole server's.
                let gate = self.gate.1.lock().unwrap_or_else(PoisonError::into_inner);
                gate.recv().expect("somebody opens the gate");
                false
            }
            Act::Cut => {
                if let Some(wire) = wire {
                    wire.cut().await;
                }
                true
            }
        }
    }

    /// Whether the answer to a commit is to be lost, and if so whether it is to happen.
    pub(crate) fn loses(&self) -> Option<bool> {
        match self.point {
            Point::CommitLostApplied if self.is_set.load(Ordering::SeqCst) => Some(true),
            Point::CommitLostUnapplied if self.is_set.load(Ordering::SeqCst) => Some(false),
            // Both ways are asked about.
            _ => self.loses.swap(false, Ordering::SeqCst).then_some(self.act != Act::Stop),
        }
    }
}
