//! Seats: how many people a tenant may hold. Every path that can take one asks here, after its change and under the tenant's
//! lock, so that the count is exact however many calls race.

use crate::domain::catalogue::{Catalogue, MEMBERS};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{Scope, Scoped, entitlements, memberships, scoped::RunsIn};
use crate::time::Timestamp;

/// Refuses when more seats are held than there are.
///
/// # Errors
/// `SeatsExhausted`.
pub(super) async fn check_seats<S: Scope>(
    tx: &mut Scoped<S>,
    catalogue: &Catalogue,
    tenant: &Tenant,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let own = entitlements::find_limit(tx, MEMBERS, now).await?;
    match catalogue.effective_limit(&tenant.subscription.of, MEMBERS, own.as_ref()) {
        Some(seats) if seats_held(tx).await? > seats.limit => Err(Error::SeatsExhausted { seats: seats.limit }),
        _ => Ok(()),
    }
}

/// How many seats are held. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub(super) async fn seats_held<S: Scope>(tx: &mut Scoped<S>) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    memberships::count_active(tx).await
}
