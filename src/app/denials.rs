//! Refusals of callers who said who they are, for the audit logs: one row for all that are alike within a minute, written
//! later, so that a flood of refused calls does not become a flood of writes. They go into the platform's log and into the
//! log of the caller's own tenant, never of the tenant that was tried: that would tell its admins who tried.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::App;
use crate::ctx::Ctx;
use crate::decide::tenant::Claims;
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::error::Error;
use crate::store::audit::{Audit, DENIED};
use crate::store::{InTenant, OnPlatform};

/// How many different refusals are kept until they are written; further ones are only counted in a metric.
const BOUND: usize = 4096;

/// How many different refusals are told apart for one caller in a minute; then tenants are not told apart any more.
const CLAIMED: usize = 32;

/// Refusals that are not written yet.
#[derive(Default)]
pub struct Denials {
    open: Mutex<HashMap<Key, Denial>>,
    /// Held while refusals are written, so that a stop does not lose those in hand.
    writing: tokio::sync::Mutex<()>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    caller: Option<Uuid>,
    method: &'static str,
    claimed: String,
    reason: &'static str,
    minute: i64,
}

impl Key {
    /// Whether both are one caller's in the same minute.
    fn is_by_the_caller_of(&self, other: &Self) -> bool {
        (self.caller, self.minute) == (other.caller, other.minute)
    }
}

struct Denial {
    first: Ctx,
    count: u64,
}

impl Denials {
    /// Notes a refusal of the gate; others are not of interest here.
    pub fn note(&self, ctx: &Ctx, claims: &Claims, error: &Error) {
        let Some(reason) = denial(error) else { return };
        let mut key = Key {
            caller: ctx.caller.principal(),
            method: ctx.method,
            claimed: claimed(claims),
            reason,
            minute: ctx.now.seconds().div_euclid(60),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(&key) && open.keys().filter(|other| other.is_by_the_caller_of(&key)).count() >= CLAIMED {
            "(others)".clone_into(&mut key.claimed);
        }
        if open.len() >= BOUND && !open.contains_key(&key) {
            metrics::counter!("tenantry_denials_not_audited_total").increment(1);
            return;
        }
        open.entry(key).or_insert_with(|| Denial { first: ctx.clone(), count: 0 }).count += 1;
    }

    fn take(&self) -> HashMap<Key, Denial> {
        std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl App {
    /// Writes the refusals that were noted. While the database is away they are lost, and said so in the log.
    pub async fn write_denials(&self) {
        let _writing = self.denials.writing.lock().await;
        let taken = self.denials.take();
        let count = taken.len();
        for (written, (key, denial)) in taken.into_iter().enumerate() {
            if let Err(error) = self.write_denial(&key, &denial).await {
                let lost = count - written;
                tracing::warn!(%error, lost, "refusals could not be written into the audit log");
                return;
            }
        }
    }

    async fn write_denial(&self, key: &Key, denial: &Denial) -> Result<(), Error> {
        // Rows are in the log in the order of their times: an export that has passed a minute finds none that is older.
        let ctx = &Ctx { now: self.clock.now(), ..denial.first.clone() };
        let audit = || {
            Audit::default()
                .set(DENIED, key.reason)
                .set("first_at", denial.first.now.to_string())
                .set("claimed_tenant", key.claimed.as_str())
                .set("count", denial.count)
        };
        self.store.write(OnPlatform).await?.commit(ctx, audit()).await?;
        if let Some(home) = self.home(ctx).await? {
            self.store.write(InTenant(home)).await?.commit(ctx, audit()).await?;
        }
        Ok(())
    }

    /// The caller's own tenant, if they still are a member of it.
    async fn home(&self, ctx: &Ctx) -> Result<Option<TenantId>, Error> {
        if let Some(key) = ctx.caller.api_key() {
            return Ok(Some(key.tenant_id));
        }
        let Some(person) = ctx.caller.person() else { return Ok(None) };
        let Some(tenant) = person.token_tenant.or(person.default_tenant) else { return Ok(None) };
        Ok(self.store.find_membership(tenant, person.user.user_id).await?.found.map(|_| tenant))
    }
}

/// The name of a refusal that says "you may not"; none for all other errors.
const fn denial(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::CallerKindRefused(_) => "caller kind",
        Error::PermissionMissing(_) => "permission",
        Error::OperatorScopeMissing(_) => "operator scope",
        Error::MemberSuspended => "member suspended",
        Error::TenantSuspended { .. } => "tenant suspended",
        Error::TenantDeleted(_) => "tenant deleted",
        Error::RecentLoginRequired => "recent login",
        Error::MfaRequired => "second step",
        Error::SsoRequired => "sso required",
        Error::SessionBound => "session bound",
        Error::Impersonated => "impersonated",
        Error::TenantNotFound => "tenant not found",
        Error::TenantConflict => "tenant conflict",
        _ => return None,
    })
}

/// The tenant that the call named, as text; a slug or id is public or random, so it is no secret.
fn claimed(claims: &Claims) -> String {
    let name = |name: &TenantName| match name {
        TenantName::Id(id) => id.to_string(),
        TenantName::Slug(slug) => slug.as_str().to_owned(),
    };
    claims.request.as_ref().or(claims.header.as_ref()).map(name).unwrap_or_default()
}
