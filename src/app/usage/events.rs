//! Single events: page by page as somebody looks at them, and all of them for whoever takes them along.

use super::known_metrics;
use crate::app::App;
use crate::ctx::{Caller, TenantCtx};
use crate::error::Error;
use crate::store::InTenant;
use crate::store::audit::Audit;
use crate::store::quota::reports::list_events;
pub use crate::store::quota::reports::{EventFilter, EventPlace, KeptEvent};
use crate::time::Timestamp;

/// Events in one message of an export.
const PAGE: i64 = 500;

/// Before all events.
const FIRST: Timestamp = Timestamp::from_micros(0);

/// After all events.
const LAST: Timestamp = Timestamp::from_micros(253_402_300_799_999_999);

impl App {
    /// Events beyond a place; from the first on when there is none.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn list_usage_events(
        &self,
        t: &TenantCtx,
        filter: &EventFilter,
        (place, oldest_first): (Option<EventPlace>, bool),
        limit: i64,
    ) -> Result<Vec<KeptEvent>, Error> {
        known_metrics(&t.catalogue, Some(&filter.metric).filter(|metric| !metric.is_empty()))?;
        let at = if oldest_first { FIRST } else { LAST };
        let place = place.unwrap_or(EventPlace { at, key: String::new() });
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        list_events(&mut tx, filter, (&place, oldest_first), limit).await
    }

    /// Begins an export, and writes down who takes the data along.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn begin_usage_export(&self, t: &TenantCtx, filter: &EventFilter) -> Result<(), Error> {
        known_metrics(&t.catalogue, Some(&filter.metric).filter(|metric| !metric.is_empty()))?;
        // What operators look at is in the log by itself.
        if !matches!(t.ctx.caller, Caller::Operator(_)) {
            let tx = self.store.write(InTenant(t.tenant_id())).await?;
            tx.commit(&t.ctx, Audit::of(t.tenant_id().0).set("export", "usage")).await?;
        }
        Ok(())
    }

    /// The next events of an export, the oldest first; none at the end. Asked anew each time is whether the caller may.
    ///
    /// # Errors
    /// What the gate would refuse with; `DatabaseUnavailable`.
    pub async fn next_usage_events(
        &self,
        t: &TenantCtx,
        filter: &EventFilter,
        place: Option<EventPlace>,
    ) -> Result<Vec<KeptEvent>, Error> {
        self.still_allowed(t).await?;
        self.list_usage_events(t, filter, (place, true), PAGE).await
    }
}
