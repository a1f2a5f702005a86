//! When members were last active: noted in memory with each call, written some time later, once a minute and member at
//! most. It changes no version, leaves no audit row and no row in the feed, because nobody decides by it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use super::App;
use crate::domain::id::{MembershipId, TenantId};
use crate::domain::membership::Membership;
use crate::error::Error;
use crate::store::{InTenant, memberships};
use crate::time::Timestamp;

/// How exact it is.
const RESOLUTION: TimeDelta = TimeDelta::minutes(1);

/// How many members are kept until they are written; further ones are noted at a later call of theirs.
const BOUND: usize = 65_536;

/// Members who were active and are not written down yet.
#[derive(Default)]
pub struct Activity {
    open: Mutex<HashMap<TenantId, HashMap<MembershipId, Timestamp>>>,
    /// Held while they are written, so that a stop does not lose those in hand.
    writing: tokio::sync::Mutex<()>,
}

impl Activity {
    /// Notes a call of a member, as their row was read for it.
    pub fn note(&self, tenant: TenantId, member: &Membership, now: Timestamp) {
        if member.last_active_at.is_some_and(|at| now.since(at) < RESOLUTION) {
            return;
        }
        let minute = Timestamp::from_micros(now.seconds().div_euclid(60).saturating_mul(60_000_000));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= BOUND && !open.contains_key(&tenant) {
            return;
        }
        let members = open.entry(tenant).or_default();
        if members.len() < BOUND || members.contains_key(&member.membership_id) {
            members.insert(member.membership_id, minute);
        }
    }

    fn take(&self) -> HashMap<TenantId, HashMap<MembershipId, Timestamp>> {
        std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl App {
    /// Writes down who was active. What cannot be written, because the database is away, is lost: the next call notes it
    /// again.
    pub async fn write_activity(&self) {
        let _writing = self.activity.writing.lock().await;
        for (tenant, members) in self.activity.take() {
            if let Err(error) = self.write_active(tenant, &members).await {
                tracing::warn!(%error, "when members were last active could not be written");
                return;
            }
        }
    }

    async fn write_active(&self, tenant: TenantId, members: &HashMap<MembershipId, Timestamp>) -> Result<(), Error> {
        let mut tx = self.store.write(InTenant(tenant)).await?;
        // In one order, so that two servers never wait for one another.
        let mut members: Vec<_> = members.iter().collect();
        members.sort();
        for (member, at) in members {
            memberships::note_active(&mut tx, *member, *at).await?;
        }
        tx.commit_unaudited(self.clock.now()).await
    }
}
