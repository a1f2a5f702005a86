//! For whom usage is: a member or key that a call names must be the tenant's. Those who have left count: what they did is
//! told late.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::Who;
use crate::app::App;
use crate::ctx::{Caller, Ctx};
use crate::domain::id::TenantId;
use crate::error::Error;
use crate::store::{InTenant, api_keys, memberships};

/// Members and keys that are remembered.
const REMEMBERED: usize = 200_000;

/// Members and keys that are known to be, or to have been, of a tenant.
#[derive(Debug, Default)]
pub(super) struct People(Mutex<HashSet<(TenantId, Uuid)>>);

impl People {
    fn has(&self, tenant: TenantId, id: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(tenant, id))
    }

    fn add(&self, tenant: TenantId, id: Uuid) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((tenant, id));
    }
}

impl Who {
    /// For whom a call is that may name somebody: members and their keys speak for themselves.
    ///
    /// # Errors
    /// `FieldsInvalid` when somebody else is named.
    pub fn named(ctx: &Ctx, named: Self, field: &str) -> Result<Self, Error> {
        let own = Self::of(&ctx.caller);
        if own.member.zip(named.member).is_some_and(|(own, named)| own != named) {
            return Err(Error::field(
                format!("{field}user_id"),
                "must be empty or your own: others speak for themselves",
            ));
        }
        let is_key = matches!(ctx.caller, Caller::Key(_) | Caller::Personal(..));
        if is_key && own.api_key.zip(named.api_key).is_some_and(|(own, named)| own != named) {
            return Err(Error::field(format!("{field}api_key_id"), "must be empty or the key that makes the call"));
        }
        Ok(Self { member: own.member.or(named.member), api_key: own.api_key.or(named.api_key) })
    }
}

impl App {
    /// The same, once it is clear that both are the tenant's.
    pub(super) async fn known(&self, tenant: TenantId, who: Who) -> Result<Who, Error> {
        let people = &self.quota.people;
        let member = who.member.filter(|id| !people.has(tenant, id.0));
        let key = who.api_key.filter(|id| !people.has(tenant, id.0));
        if member.is_none() && key.is_none() {
            return Ok(who);
        }
        let mut tx = self.store.read(InTenant(tenant)).await?;
        if let Some(member) = member {
            if !memberships::was_ever(&mut tx, member).await? {
                return Err(Error::MemberNotFound);
            }
            people.add(tenant, member.0);
        }
        if let Some(key) = key {
            if !api_keys::was_ever(&mut tx, key).await? {
                return Err(Error::KeyNotFound);
            }
            people.add(tenant, key.0);
        }
        Ok(who)
    }
}
