//! Answers that are streams: a page is read when the one before has been taken, so memory is flat however long a stream is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::Instrument as _;
use uuid::Uuid;

use super::Services;
use super::front::Turn;
use super::status::{REQUEST_ID, status};
use crate::error::Error;

/// How long a stream waits for its reader to take a message, and how long it may go on.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const LONGEST: Duration = Duration::from_hours(1);

/// What streams of answers are.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How many streams go on at once: a small part of all turns, so that slow readers of long answers stop nobody else; and a
/// quarter of that for each who calls, so that nobody has them all.
pub struct Streams {
    turns: Arc<Semaphore>,
    each: usize,
    held: Mutex<HashMap<Uuid, usize>>,
}

impl Streams {
    /// So many at once.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(count));
        Arc::new(Self { turns, each: count.div_ceil(4), held: Mutex::default() })
    }

    /// A turn for somebody.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(super) fn take(self: &Arc<Self>, of: Option<Uuid>) -> Result<StreamTurn, Error> {
        let turn = self.turns.clone().try_acquire_owned().map_err(|_| Error::Overloaded)?;
        if let Some(of) = of {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let held = held.entry(of).or_default();
            if *held >= self.each {
                return Err(Error::Overloaded);
            }
            *held += 1;
        }
        Ok(StreamTurn { streams: self.clone(), of, _turn: turn })
    }
}

/// A turn for a stream, given back when it ends.
pub(super) struct StreamTurn {
    streams: Arc<Streams>,
    of: Option<Uuid>,
    _turn: OwnedSemaphorePermit,
}

impl Drop for StreamTurn {
    fn drop(&mut self) {
        let Some(of) = self.of else { return };
        let mut held = self.streams.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = held.entry(of) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What a stream keeps from others for as long as it goes on.
pub(super) struct Turns {
    _turns: (Option<Turn>, StreamTurn),
}

impl Turns {
    /// A turn for a stream of answers; to be taken before anything else.
    ///
    /// # Errors
    /// `Overloaded`.
    pub(super) fn take<R>(s: &Services, request: &Request<R>) -> Result<Self, Error> {
        Ok(Self { _turns: (request.extensions().get::<Turn>().cloned(), s.0.stream_turn(request)?) })
    }
}

/// Where messages come from.
pub(super) trait Source: Send + 'static {
    /// A message.
    type Message: Send + 'static;
    /// The next messages; none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Self::Message>>, Error>> + Send;
}

/// Answers with what a source gives, until its end, an error, or a reader who does not read.
pub(super) fn answer<S: Source>(turns: Turns, request_id: Uuid, mut source: S) -> Answers<S::Message> {
    let (out, answers) = mpsc::channel(1);
    let work = async move {
        let _turns = turns;
        let end = Instant::now() + LONGEST;
        loop {
            let messages = match source.next().await {
                Ok(Some(_)) if Instant::now() > end => Err(Error::DeadlineExceeded),
                messages => messages,
            };
            let messages = match messages {
                Ok(Some(messages)) => messages,
                Ok(None) => return,
                Err(error) => {
                    let _ = out.send(Err(status(&error))).await;
                    return;
                }
            };
            for message in messages {
                let patience = end.min(Instant::now() + PATIENCE);
                if !matches!(tokio::time::timeout_at(patience, out.send(Ok(message))).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    };
    tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
    Box::pin(ReceiverStream::new(answers))
}
