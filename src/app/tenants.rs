//! Tenants: creation, changes, life and end.

use std::collections::HashMap;

use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey, check_etag};
use super::usage::accounts::apply_limits;
use super::usage::{UsageView, known_metrics, of_counted};
use crate::ctx::{Caller, Ctx, TenantCtx};
use crate::domain::catalogue::Catalogue;
use crate::domain::host::HostClaim;
use crate::domain::id::{MembershipId, TenantId, UserId};
use crate::domain::membership::{MemberStatus, Membership};
use crate::domain::name::{Email, Slug};
use crate::domain::role::RoleNames;
use crate::domain::subscription::Subscription;
use crate::domain::tenant::{Flags, Suspension, Tenant, TenantStatus};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::jobs::{self, JobKind};
pub use crate::store::system::TenantFilter;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{
    InTenant, InTenantAsUser, OnPlatform, Scope, Scoped, memberships, scoped::RunsIn, system, tenants, users,
};
use crate::time::Timestamp;

/// One of a person's tenants.
pub struct MyTenant {
    /// The tenant, with the person's place in it.
    pub row: system::MyTenant,
    /// Usage of the metrics that were asked for.
    pub usage: Vec<UsageView>,
    /// Whether calls go there when nothing names a tenant.
    pub default: bool,
}

impl App {
    /// Inserts a new tenant with its owner.
    pub(super) async fn insert_owned<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        catalogue: &Catalogue,
        (tenant, owner): (&Tenant, UserId),
    ) -> Result<(), Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        self.insert_tenant(tx, ctx, catalogue, tenant).await?;
        let top = catalogue.definition.roles.top();
        let member = new_membership(ctx, owner, RoleNames::one(top.name.clone()));
        memberships::insert(tx, &member, &top.name).await
    }

    /// Inserts a new tenant and schedules what time will bring.
    pub(super) async fn insert_tenant<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        catalogue: &Catalogue,
        tenant: &Tenant,
    ) -> Result<(), Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        tenants::insert(tx, tenant, ctx.now).await?;
        let look = tenant.next_look(&catalogue.definition.notice_days, ctx.now);
        if look.is_some() {
            jobs::schedule(tx, JobKind::Tenant, tenant.tenant_id.0, look).await?;
        }
        Ok(())
    }

    /// Locks the tenant and brings it up to date: what time alone has brought is written down first, with an audit row of
    /// its own, so that it is not taken for the caller's doing.
    pub(super) async fn lock_settled<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        catalogue: &Catalogue,
    ) -> Result<Tenant, Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        let written = tenants::lock(tx).await?;
        let mut settled = written.clone().settled(catalogue, ctx.now);
        if settled != written {
            let audit = self.write_tenant(tx, ctx, catalogue, (&written, &mut settled)).await?;
            tx.note(&ctx.as_system(SETTLE), audit).await?;
        }
        Ok(settled)
    }

    /// Writes a tenant over `before`, which was read under its lock, and schedules what time will bring; what changed, for
    /// the audit log.
    pub(super) async fn write_tenant<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        catalogue: &Catalogue,
        (before, after): (&Tenant, &mut Tenant),
    ) -> Result<Audit, Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        // What comes back, undeleted or resumed, may have boundaries behind it.
        *after = after.clone().settled(catalogue, ctx.now);
        after.updated_at = ctx.now;
        let audit = tenants::update(tx, before, after, ctx.now).await?;
        if before.subscription.of != after.subscription.of {
            apply_limits(tx, (after, catalogue), None, ctx.now).await?;
        }
        let look = |tenant: &Tenant| tenant.next_look(&catalogue.definition.notice_days, ctx.now);
        if look(before) != look(after) {
            jobs::schedule(tx, JobKind::Tenant, after.tenant_id.0, look(after)).await?;
        }
        if before.purge_at != after.purge_at {
            jobs::schedule(tx, JobKind::Purge, after.tenant_id.0, after.purge_at).await?;
        }
        Ok(audit)
    }

    /// Creates a tenant. A person becomes its owner themselves; an operator names the owner.
    ///
    /// # Errors
    /// `SlugTaken`, `UserUnknown`, `RateExceeded`.
    pub async fn create_tenant(
        &self,
        ctx: &Ctx,
        (display_name, slug): (String, Slug),
        owner: Option<&Email>,
        plan: &str,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        let owner_id = match (ctx.caller.person(), owner) {
            (Some(person), None) => person.user.user_id,
            (Some(_), Some(_)) => {
                return Err(Error::field("owner_email", "is for operators; you become owner yourself"));
            }
            (None, None) => return Err(Error::field("owner_email", "must name the owner")),
            (None, Some(email)) => self.store.find_account(email).await?.ok_or(Error::UserUnknown)?.user.user_id,
        };
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let subscription = first_subscription(ctx, &catalogue, plan)?;
        let tenant_id = TenantId(ctx.new_id());
        let caller = UserId(ctx.caller.principal().unwrap_or_default());
        let mut open = match self.begin(ctx, None, InTenantAsUser(tenant_id, caller), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let tenant = new_tenant(ctx, tenant_id, (display_name, slug), subscription);
        self.insert_owned(&mut open.tx, ctx, &catalogue, (&tenant, owner_id)).await?;
        if caller == owner_id {
            users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
        }
        let audit = Audit::of(tenant_id.0)
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str())
            .set("plan", tenant.subscription.of.plan.as_str())
            .set("owner", owner_id.to_string());
        self.finish(open, ctx, audit, tenant).await
    }

    /// Changes the name that people see.
    ///
    /// # Errors
    /// `EtagMismatch`.
    pub async fn update_tenant(
        &self,
        t: &TenantCtx,
        display_name: String,
        sent_etag: &str,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        self.change_tenant(t, sent_etag, key, |tenant| {
            tenant.display_name = display_name;
            Ok(())
        })
        .await
    }

    /// Closes the tenant.
    ///
    /// # Errors
    /// `WrongState`.
    pub async fn suspend_tenant(
        &self,
        t: &TenantCtx,
        reason: String,
        key: Option<RequestKey>,
    ) -> Result<Tenant, Error> {
        let by = t.ctx.caller.suspends_as();
        self.change_tenant(t, "", key, |tenant| tenant.suspend(Suspension { reason, by })).await
    }

    /// Opens the tenant again.
    ///
    /// # Errors
    /// `WrongState`, `SuspendedByOperator`.
    pub async fn activate_tenant(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let by = t.ctx.caller.suspends_as();
        let now = t.ctx.now;
        self.change_tenant(t, "", key, |tenant| tenant.activate(by, now)).await
    }

    /// Deletes the tenant softly.
    ///
    /// # Errors
    /// `EtagMismatch`, `WrongState`.
    pub async fn delete_tenant(&self, t: &TenantCtx, etag: &str, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let now = t.ctx.now;
        self.change_tenant(t, etag, key, |tenant| tenant.delete(now)).await
    }

    /// Takes a deletion back.
    ///
    /// # Errors
    /// `TenantNotDeleted`.
    pub async fn undelete_tenant(&self, t: &TenantCtx, key: Option<RequestKey>) -> Result<Tenant, Error> {
        let now = t.ctx.now;
        self.change_tenant(t, "", key, |tenant| tenant.undelete(now)).await
    }

    /// Applies a rule to the tenant under its lock.
    pub(super) async fn change_tenant(
        &self,
        t: &TenantCtx,
        sent_etag: &str,
        key: Option<RequestKey>,
        rule: impl FnOnce(&mut Tenant) -> Result<(), Error> + Send,
    ) -> Result<Tenant, Error> {
        let tenant_id = t.tenant_id();
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let (before, _) = self.lock_tenant(&mut open.tx, t).await?;
        check_etag(sent_etag, before.version)?;
        let mut after = before.clone();
        rule(&mut after)?;
        let audit = self.write_tenant(&mut open.tx, &t.ctx, &t.catalogue, (&before, &mut after)).await?;
        self.finish(open, &t.ctx, audit, after).await
    }

    /// A person's tenants after one of them, oldest first.
    ///
    /// # Errors
    /// `CallerKindRefused` without a person, `MetricUnknown`.
    pub async fn list_my_tenants(
        &self,
        ctx: &Ctx,
        active_only: bool,
        metrics: &[String],
        page: (Uuid, i64),
    ) -> Result<Vec<MyTenant>, Error> {
        let person = ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))?;
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        known_metrics(&catalogue, metrics)?;
        let default = self.fallback(person, ctx.now).await?;
        let user_id = person.user.user_id;
        let meant = |row: &system::MyTenant| {
            !active_only || matches!(row.tenant.status(ctx.now), TenantStatus::Trial | TenantStatus::Active)
        };
        let mut page = Filling::new(page);
        while let Some(span) = page.next() {
            let rows = self.store.list_tenants_of(user_id, active_only, span, ctx.now).await?;
            let settle =
                |row: system::MyTenant| system::MyTenant { tenant: row.tenant.settled(&catalogue, ctx.now), ..row };
            page.take(rows.into_iter().map(settle), |row| row.tenant.tenant_id.0, meant);
        }
        let rows = page.found;
        let overrides = self.store.list_limit_overrides_of(user_id, &rows).await?;
        // Usage is for those who may read it: not for suspended members, nor by way of a key that may not.
        let key_may = ctx.caller.key().is_none_or(|key| key.permissions.contains("usage.read"));
        let metrics = if key_may { metrics } else { &[] };
        let used = match metrics {
            [] => HashMap::new(),
            _ => self.store.list_used_of(person.user.user_id, &rows, ctx.now).await?,
        };
        let mine = |row: system::MyTenant| {
            let id = row.tenant.tenant_id;
            let used = |metric: &String| used.get(&(id, metric.clone())).copied();
            let shown = if row.active { metrics } else { &[] };
            let limit = |metric: &str| {
                let own = overrides.get(&(id, metric.to_owned())).filter(|limit| limit.holds(ctx.now));
                catalogue.effective_limit(&row.tenant.subscription.of, metric, own)
            };
            let view = |metric: &String| of_counted(&catalogue, metric, limit(metric).as_ref(), used(metric));
            let usage = shown.iter().map(view).collect();
            MyTenant { usage, default: default == Some(id), row }
        };
        Ok(rows.into_iter().map(mine).collect())
    }

    /// All tenants after one of them, oldest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_tenants(
        &self,
        ctx: &Ctx,
        filter: &TenantFilter,
        page: (Uuid, i64),
    ) -> Result<Vec<Tenant>, Error> {
        let catalogue = self.plane.catalogues.newest(&self.store).await?;
        let meant = |tenant: &Tenant| {
            let status = tenant.status(ctx.now);
            let of_status = filter.status.map_or(status != TenantStatus::Deleted, |wanted| status == wanted);
            of_status && (filter.plan.is_empty() || filter.plan == tenant.subscription.of.plan)
        };
        let mut page = Filling::new(page);
        while let Some(span) = page.next() {
            let rows = self.store.list_tenants(filter, span, ctx.now).await?;
            let settled = rows.into_iter().map(|tenant| tenant.settled(&catalogue, ctx.now));
            page.take(settled, |tenant| tenant.tenant_id.0, meant);
        }
        Ok(page.found)
    }

    /// Why a slug cannot be had; none when it can.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn check_slug(&self, text: &str) -> Result<Option<&'static str>, Error> {
        let slug = match Slug::choose(text) {
            Ok(slug) => slug,
            Err(problem) => return Ok(Some(problem)),
        };
        Ok(self.store.is_slug_held(&slug).await?.then_some("is taken"))
    }

    /// The tenant of a slug or host, for its public part.
    ///
    /// # Errors
    /// `TenantNotFound`, also for a deleted one.
    pub async fn resolve_tenant(&self, claim: &HostClaim, now: Timestamp) -> Result<Tenant, Error> {
        let id = self.plane.look_at_rows().find_by_host(claim, now).await?.ok_or(Error::TenantNotFound)?;
        let tenant = self.store.find_tenant(id).await?.map(|(tenant, _)| tenant);
        tenant.filter(|tenant| tenant.deleted_at.is_none()).ok_or(Error::TenantNotFound)
    }

    /// Writes down that an operator looked at a tenant, before they see it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn note_operator_read(&self, ctx: &Ctx, tenant: Option<TenantId>) -> Result<(), Error> {
        let Caller::Operator(_) = ctx.caller else { return Ok(()) };
        match tenant {
            Some(tenant) => self.store.write(InTenant(tenant)).await?.commit(ctx, Audit::default()).await,
            None => self.store.write(OnPlatform).await?.commit(ctx, Audit::default()).await,
        }
    }
}

/// The method of audit rows about what time alone has brought.
const SETTLE: &str = "System/SettleTenant";

/// A tenant that does not exist yet.
pub(super) fn new_tenant(
    ctx: &Ctx,
    tenant_id: TenantId,
    (display_name, slug): (String, Slug),
    subscription: Subscription,
) -> Tenant {
    Tenant {
        tenant_id,
        slug,
        display_name,
        suspension: None,
        pending: false,
        flags: Flags::default(),
        subscription,
        external_id: None,
        version: 1,
        roles_version: 0,
        created_at: ctx.now,
        updated_at: ctx.now,
        deleted_at: None,
        purge_at: None,
    }
}

/// The subscription of a new tenant; to the catalogue's default plan when none is named. People choose among plans that
/// are self-service.
///
/// # Errors
/// `PlanUnknown`.
pub(super) fn first_subscription(ctx: &Ctx, catalogue: &Catalogue, plan: &str) -> Result<Subscription, Error> {
    let trusted = ctx.caller.speaks_for_platform();
    let name = if plan.is_empty() { &catalogue.definition.default_plan } else { plan };
    let found = catalogue
        .newest(name)
        .filter(|(_, plan)| trusted || name == catalogue.definition.default_plan || plan.self_service);
    let (of, plan) = found.ok_or_else(|| Error::PlanUnknown(name.to_owned()))?;
    Ok(Subscription::begin((of, plan), None, None, trusted, ctx.now))
}

/// A page that is filled by reading on until enough items are meant, or there are no more. The filter of the rows is asked
/// again here, because time may have changed what they say.
struct Filling<T> {
    after: Uuid,
    limit: i64,
    more: bool,
    found: Vec<T>,
}

impl<T> Filling<T> {
    fn new((after, limit): (Uuid, i64)) -> Self {
        Self { after, limit, more: true, found: Vec::new() }
    }

    /// How many are wanted.
    fn wanted(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(0)
    }

    /// What to read next; none when there is enough.
    fn next(&self) -> Option<(Uuid, i64)> {
        (self.more && self.found.len() < self.wanted()).then_some((self.after, self.limit))
    }

    /// Takes what was read.
    fn take(&mut self, read: impl Iterator<Item = T>, id: impl Fn(&T) -> Uuid, meant: impl Fn(&T) -> bool) {
        let mut count = 0;
        for item in read {
            count += 1;
            self.after = id(&item);
            if self.found.len() < self.wanted() && meant(&item) {
                self.found.push(item);
            }
        }
        self.more = count == self.wanted();
    }
}

/// A membership that begins now.
pub(super) fn new_membership(ctx: &Ctx, user_id: UserId, roles: RoleNames) -> Membership {
    Membership {
        membership_id: MembershipId(ctx.new_id()),
        user_id,
        roles,
        status: MemberStatus::Active,
        version: 1,
        joined_at: ctx.now,
        updated_at: ctx.now,
        last_active_at: None,
    }
}
