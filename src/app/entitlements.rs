//! Entitlements: limits and features as they hold for a tenant now, and what operators and tenants change of them.

use super::App;
use crate::ctx::TenantCtx;
use crate::domain::plan::Limit;
use crate::error::Error;
use crate::store::{TenantTx, entitlements};

impl App {
    /// The limit of a metric that holds for the tenant of a call; none is unlimited.
    pub(super) async fn limit_of(
        &self,
        tx: &mut TenantTx,
        t: &TenantCtx,
        metric: &str,
    ) -> Result<Option<Limit>, Error> {
        let own = entitlements::find_limit(tx, metric, t.ctx.now).await?;
        Ok(t.catalogue.effective_limit(&t.tenant.subscription.of, metric, own.as_ref()))
    }
}
