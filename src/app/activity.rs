//! When members were last active. It changes no version, leaves no audit row and no row in the feed: what is decided by it,
//! whether they have been here at all, is asked of the row itself.

use std::collections::HashMap;

use super::App;
use super::noted::Noted;
use crate::domain::id::{MembershipId, TenantId};
use crate::domain::membership::Membership;
use crate::error::Error;
use crate::store::{InTenant, memberships};
use crate::time::Timestamp;

/// Members who were active and are not written down yet.
pub type Activity = Noted<(TenantId, MembershipId)>;

impl Activity {
    /// Notes a call of a member, as their row was read for it.
    pub fn note_member(&self, tenant: TenantId, member: &Membership, now: Timestamp) {
        self.note((tenant, member.membership_id), member.last_active_at, now);
    }
}

impl App {
    /// Writes down who was active. What cannot be written, because the database is away, is lost: a call in the
    /// next minute notes it again.
    pub async fn write_activity(&self) {
        let (taken, _writing) = self.activity.take().await;
        let mut by_tenant: HashMap<TenantId, Vec<(MembershipId, Timestamp)>> = HashMap::new();
        for ((tenant, member), at) in taken {
            by_tenant.entry(tenant).or_default().push((member, at));
        }
        for (tenant, members) in by_tenant {
            if let Err(error) = self.write_active(tenant, members).await {
                tracing::warn!(%error, "when members were last active could not be written");
                return;
            }
        }
    }

    async fn write_active(&self, tenant: TenantId, mut members: Vec<(MembershipId, Timestamp)>) -> Result<(), Error> {
        let mut tx = self.store.write(InTenant(tenant)).await?;
        // In one order, so that two servers never wait for one another.
        members.sort();
        for (member, at) in members {
            memberships::note_active(&mut tx, member, at).await?;
        }
        tx.commit_unaudited(self.clock.now()).await
    }
}
