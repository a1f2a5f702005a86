//! Reading the audit logs: a tenant's, by its admins and by operators, and the platform's, by operators.

use chrono::TimeDelta;
use uuid::Uuid;

use super::App;
use crate::ctx::TenantCtx;
use crate::error::Error;
use crate::store::InTenant;
use crate::store::audit;
pub use crate::store::audit::{AuditFilter, AuditRow};

/// Rows on a page of an export.
const PAGE: i64 = 200;

/// How long a call may take whose row is not there yet: an export ends before it, so that none is passed over.
const SETTLES: TimeDelta = TimeDelta::seconds(60);

impl App {
    /// A page of the tenant's log before an event, the newest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_audit_events(
        &self,
        t: &TenantCtx,
        filter: &AuditFilter,
        (before, limit): (Uuid, i64),
    ) -> Result<Vec<AuditRow>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        audit::list_before(&mut tx, filter, before, limit).await
    }

    /// A page of the platform's log before an event, the newest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_platform_audit_events(
        &self,
        filter: &AuditFilter,
        (before, limit): (Uuid, i64),
    ) -> Result<Vec<AuditRow>, Error> {
        self.store.list_platform_audit(filter, before, limit).await
    }

    /// The next events of an export after one of them, the oldest first; empty at the end. Asked anew each time is whether
    /// the caller may.
    ///
    /// # Errors
    /// What the gate would refuse with; `DatabaseUnavailable`.
    pub async fn next_audit_events(
        &self,
        t: &TenantCtx,
        filter: &AuditFilter,
        after: Uuid,
    ) -> Result<Vec<AuditRow>, Error> {
        self.still_allowed(t).await?;
        let settled = self.clock.now().after(-SETTLES);
        let filter = AuditFilter { until: filter.until.min(settled), ..filter.clone() };
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        audit::list_after(&mut tx, &filter, after, PAGE).await
    }
}
