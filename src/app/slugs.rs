//! The tenant's name in URLs: another one, and for how long the old one still leads there.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::id::TenantId;
use crate::domain::name::Slug;
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::slugs::{self, Alias};
use crate::store::{InTenant, TenantTx};
use crate::time::Timestamp;

/// How long an earlier slug leads to the tenant.
const ALIAS_FOR: TimeDelta = TimeDelta::days(30);

/// How many earlier slugs a tenant may hold at once, so that nobody hoards them.
const MAX_ALIASES: usize = 5;

/// A tenant with its new slug.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangedSlug {
    /// The tenant.
    pub tenant: Tenant,
    /// Until when the old slug leads to it as well.
    pub alias_until: Timestamp,
}

impl App {
    /// Gives the tenant another slug: one that nobody has, or one that was its own not long ago.
    ///
    /// # Errors
    /// `FieldsInvalid`, `SlugTaken`, `EtagMismatch`.
    pub async fn change_slug(
        &self,
        t: &TenantCtx,
        slug: Slug,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<ChangedSlug, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        check_etag(sent_etag, before.version)?;
        if before.slug == slug {
            return Err(Error::field("slug", "is the tenant's slug already"));
        }
        let alias_until = t.ctx.now.after(ALIAS_FOR);
        swap(&mut open.tx, tenant_id, (&before.slug, &slug), t.ctx.now, alias_until).await?;
        let mut after = Tenant { slug, ..before.clone() };
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?;
        self.finish(open, &t.ctx, audit, ChangedSlug { tenant: after, alias_until }).await
    }

    /// Lets earlier slugs go that lead to the tenant no more, so that others can have them.
    pub(super) async fn drop_aliases(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let mut tx = self.store.write(InTenant(TenantId(job.subject))).await?;
        let left = slugs::delete_expired(&mut tx, ctx.now).await?;
        jobs::finish(&mut tx, job, left.first().map(|alias| alias.until)).await?;
        tx.commit_unaudited(ctx.now).await
    }
}

/// Takes the new slug and makes the old one an earlier one.
async fn swap(
    tx: &mut TenantTx,
    tenant_id: TenantId,
    (old, new): (&Slug, &Slug),
    now: Timestamp,
    alias_until: Timestamp,
) -> Result<(), Error> {
    let mut held = slugs::delete_expired(tx, now).await?;
    held.retain(|alias| alias.slug != *new);
    if let (Some(Alias { until, .. }), true) = (held.first(), held.len() >= MAX_ALIASES) {
        let told = format!("cannot change before {until}: {MAX_ALIASES} earlier slugs lead to the tenant until then");
        return Err(Error::field("slug", told));
    }
    slugs::take(tx, new).await?;
    slugs::retire(tx, old, alias_until).await?;
    let next = held.first().map_or(alias_until, |alias| alias.until);
    jobs::schedule(tx, JobKind::SlugAlias, tenant_id.0, Some(next)).await
}
