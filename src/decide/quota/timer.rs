//! The engine's clocks on a real machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Micros, Timer};
use crate::entropy;
use crate::time::{Clock, Timestamp};

/// Tokio's timers, and the server's clock for the calendar.
#[derive(Clone)]
pub struct SystemTimer {
    start: Instant,
    clock: Arc<dyn Clock>,
}

impl SystemTimer {
    /// Beginning now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { start: Instant::now(), clock }
    }
}

impl Timer for SystemTimer {
    fn now(&self) -> Micros {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    fn id(&self) -> Uuid {
        entropy::id(self.clock.now())
    }

    async fn sleep_until(&self, at: Micros) {
        tokio::time::sleep_until(self.start + Duration::from_micros(at)).await;
    }
}
