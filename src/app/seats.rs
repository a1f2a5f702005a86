//! Seats: how many people a tenant may hold. Active members hold one, and so do invitations that are pending. Every path that
//! can take one asks here, after its change and under the tenant's lock, so that the count is exact however many calls race.

use crate::domain::catalogue::{Catalogue, MEMBERS};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{Scope, Scoped, entitlements, invitations, memberships, scoped::RunsIn};
use crate::time::Timestamp;

/// The seats of a tenant, counted under its lock.
pub(super) struct Seats {
    /// How many there are; none is as many as wanted.
    limit: Option<i64>,
    held: i64,
}

impl Seats {
    /// Counts.
    pub(super) async fn count<S: Scope>(
        tx: &mut Scoped<S>,
        catalogue: &Catalogue,
        tenant: &Tenant,
        now: Timestamp,
    ) -> Result<Self, Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        let own = entitlements::find_limit(tx, MEMBERS, now).await?;
        let limit = catalogue.effective_limit(&tenant.subscription.of, MEMBERS, own.as_ref());
        Ok(Self { limit: limit.map(|limit| limit.limit), held: seats_held(tx, now).await? })
    }

    /// Whether one more can be taken.
    pub(super) fn left(&self) -> Result<(), Error> {
        self.at_most(1)
    }

    /// Notes that one was taken.
    pub(super) fn take(&mut self) {
        self.held += 1;
    }

    fn at_most(&self, more: i64) -> Result<(), Error> {
        match self.limit {
            Some(seats) if self.held + more > seats => Err(Error::SeatsExhausted { seats }),
            _ => Ok(()),
        }
    }
}

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
    Seats::count(tx, catalogue, tenant, now).await?.at_most(0)
}

/// How many seats are held. Means something under the tenant's lock only.
///
/// # Errors
/// `DatabaseUnavailable`.
pub(super) async fn seats_held<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<i64, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    Ok(memberships::count_active(tx).await? + invitations::count_pending(tx, now).await?)
}
