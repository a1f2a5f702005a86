//! For whom usage is: a member or key that a call names must be the tenant's. Those who have left count: what they did is
//! told late.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::Who;
use crate::app::App;
use crate::ctx::{Caller, Ctx};
use crate::domain::id::TenantId;
use crate::domain::quota::Scope;
use crate::error::Error;
use crate::store::{InTenant, api_keys, memberships};

/// Members and keys that are remembered.
const REMEMBERED: usize = 200_000;

/// A member or key of a tenant.
type Person = (TenantId, Scope, Uuid);

/// Members and keys that are known to be, or to have been, of a tenant.
#[derive(Debug, Default)]
pub(super) struct People(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the memory, when they were read.
    generation: u64,
    people: HashSet<Person>,
}

impl People {
    fn has(&self, generation: u64, person: &Person) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.generation == generation && known.people.contains(person)
    }

    fn add(&self, generation: u64, person: Person) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation || known.people.len() >= REMEMBERED {
            known.people.clear();
            known.generation = generation;
        }
        known.people.insert(person);
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
        let (people, generation) = (&self.quota.people, self.plane.memory.generation());
        let member = who.member.filter(|id| !people.has(generation, &(tenant, Scope::Member, id.0)));
        let key = who.api_key.filter(|id| !people.has(generation, &(tenant, Scope::Key, id.0)));
        if member.is_none() && key.is_none() {
            return Ok(who);
        }
        let mut tx = self.store.read(InTenant(tenant)).await?;
        if let Some(member) = member {
            if !memberships::was_ever(&mut tx, member).await? {
                return Err(Error::MemberNotFound);
            }
            people.add(generation, (tenant, Scope::Member, member.0));
        }
        if let Some(key) = key {
            if !api_keys::was_ever(&mut tx, key).await? {
                return Err(Error::KeyNotFound);
            }
            people.add(generation, (tenant, Scope::Key, key.0));
        }
        Ok(who)
    }
}
