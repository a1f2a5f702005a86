//! What has changed, for services that keep copies: the change feed as it is, narrowed to what a caller may see.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::App;
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::cursor::Cursor;
use crate::domain::id::TenantId;
use crate::error::Error;
use crate::store::feed::{FeedRow, Poll};

/// How long a watcher waits for further changes after one, so that many commits are one look.
const COLLECT: Duration = Duration::from_millis(20);

/// Looks into the feed for callers, a few at a time: decisions read rows by the same connections.
#[derive(Debug)]
pub struct FeedLooks(Semaphore);

impl Default for FeedLooks {
    fn default() -> Self {
        Self(Semaphore::new(4))
    }
}

/// What is to be told.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    /// Of one tenant only.
    pub tenant: Option<TenantId>,
    /// Of these kinds only, by their numbers in the feed; of all when empty.
    pub kinds: Vec<i16>,
}

impl ChangeFilter {
    fn wants(&self, row: &FeedRow) -> bool {
        self.tenant.is_none_or(|tenant| row.tenant_id == Some(tenant.0))
            && (self.kinds.is_empty() || self.kinds.contains(&row.kind))
    }
}

/// Something that is different now.
#[derive(Debug, Clone)]
pub struct Changed {
    /// What kind of thing, by its number in the feed.
    pub kind: i16,
    /// Whose; none for what is of no tenant.
    pub tenant: Option<Uuid>,
    /// The person that it is about.
    pub user: Option<Uuid>,
    /// What it is about besides.
    pub resource: Option<Uuid>,
}

/// What was found after a cursor.
#[derive(Debug, Clone)]
pub struct Changes {
    /// In order.
    pub changes: Vec<Changed>,
    /// Where to go on.
    pub cursor: Cursor,
    /// Whether there is more already.
    pub more: bool,
}

/// Somebody who is told of changes as they come.
pub struct Watch {
    ctx: Ctx,
    t: Option<TenantCtx>,
    filter: ChangeFilter,
    cursor: Cursor,
    heartbeat: Duration,
    /// When it was last asked whether they still may.
    asked: Instant,
    /// Whether there is something to say in any case.
    due: bool,
}

impl Changed {
    fn of(row: &FeedRow) -> Self {
        Self { kind: row.kind, tenant: row.tenant_id, user: row.user(), resource: row.resource() }
    }
}

impl App {
    /// What has changed after a cursor; nothing, and where to go on from now, without one.
    ///
    /// # Errors
    /// `CursorLost`, `DatabaseUnavailable`.
    pub async fn list_changes(&self, filter: &ChangeFilter, after: Option<Cursor>) -> Result<Changes, Error> {
        // No place in any history.
        let nowhere = Cursor { seq: -1, nonce: 0 };
        let look = self.feed_looks.0.acquire().await;
        let polled = self.store.poll_feed(after.unwrap_or(nowhere)).await?;
        drop(look);
        match (polled, after) {
            (Poll::Page { rows, cursor, more }, _) => {
                let changes = rows.iter().filter(|row| filter.wants(row)).map(Changed::of).collect();
                Ok(Changes { changes, cursor, more })
            }
            (Poll::CursorLost(head), None) => Ok(Changes { changes: Vec::new(), cursor: head, more: false }),
            (Poll::CursorLost(head), Some(_)) => Err(Error::CursorLost(head.text())),
            (Poll::Standby, _) => {
                Err(Error::DatabaseUnavailable("the database is a standby: what it says may be old".into()))
            }
        }
    }

    /// Begins to watch: from a cursor, else from now.
    ///
    /// # Errors
    /// As `list_changes`.
    pub async fn watch_changes(
        &self,
        (ctx, t): (Ctx, Option<TenantCtx>),
        filter: ChangeFilter,
        after: Option<Cursor>,
        heartbeat: Duration,
    ) -> Result<Watch, Error> {
        let cursor = match after {
            Some(cursor) => cursor,
            None => self.list_changes(&filter, None).await?.cursor,
        };
        Ok(Watch { ctx, t, filter, cursor, heartbeat, asked: Instant::now(), due: true })
    }

    /// The next changes, or none when it is time for a sign of life.
    ///
    /// # Errors
    /// As `list_changes`; `DatabaseUnavailable` also when this server does not keep up with the feed; what the gate would refuse
    /// with when the watcher may watch no more.
    pub async fn next_changes(&self, watch: &mut Watch) -> Result<Changes, Error> {
        let memory = &self.plane.memory;
        let end = Instant::now() + watch.heartbeat;
        loop {
            if !memory.is_fresh() {
                return Err(Error::DatabaseUnavailable("the change feed could not be read for too long".into()));
            }
            if watch.asked.elapsed() >= memory.max_staleness() / 2 {
                watch.asked = Instant::now();
                self.still_watches(watch).await?;
            }
            let found = self.list_changes(&watch.filter, Some(watch.cursor)).await?;
            watch.cursor = found.cursor;
            if !found.changes.is_empty() || Instant::now() >= end || std::mem::take(&mut watch.due) {
                return Ok(found);
            }
            if found.more {
                continue;
            }
            let asks = watch.asked + memory.max_staleness() / 2;
            let passed = async {
                memory.passes(watch.cursor.seq).await;
                tokio::time::sleep(COLLECT).await;
            };
            let _ = tokio::time::timeout_at(end.min(asks), passed).await;
        }
    }

    async fn still_watches(&self, watch: &Watch) -> Result<(), Error> {
        match &watch.t {
            Some(t) => self.still_allowed(t).await,
            None => self.plane.still_live(&watch.ctx.caller, self.clock.now()).await,
        }
    }
}
