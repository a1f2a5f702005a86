//! Tenants: creation, changes, life and end.

use std::collections::HashMap;

use uuid::Uuid;

use super::App;
use super::members::recheck;
use super::mutation::{Begun, RequestKey, check_etag};
use super::usage::UsageView;
use crate::ctx::{Caller, Ctx, TenantCtx};
use crate::domain::id::{MembershipId, TenantId, UserId};
use crate::domain::membership::{MemberStatus, Membership};
use crate::domain::name::{Email, Slug, TenantName};
use crate::domain::period::Period;
use crate::domain::role::Role;
use crate::domain::tenant::{Suspension, Tenant};
use crate::error::Error;
use crate::store::audit::Audit;
pub use crate::store::system::TenantFilter;
use crate::store::tx::{OfTenant, Statement};
use crate::store::{
    InTenant, InTenantAsUser, OnPlatform, Scope, Scoped, memberships, scoped::RunsIn, system, tenants, users,
};

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
    /// A tenant that does not exist yet, on the catalogue's default plan.
    pub(super) fn new_tenant(&self, ctx: &Ctx, tenant_id: TenantId, display_name: String, slug: Slug) -> Tenant {
        Tenant {
            tenant_id,
            slug,
            display_name,
            suspension: None,
            plan: self.catalogue.default_plan.clone(),
            version: 1,
            created_at: ctx.now,
            updated_at: ctx.now,
            deleted_at: None,
            purge_at: None,
        }
    }

    /// Inserts a new tenant with its owner.
    pub(super) async fn insert_owned<S: Scope>(
        &self,
        tx: &mut Scoped<S>,
        ctx: &Ctx,
        tenant: &Tenant,
        owner: UserId,
    ) -> Result<(), Error>
    where
        Statement<OfTenant>: RunsIn<S>,
    {
        tenants::insert(tx, tenant).await?;
        let member = new_membership(ctx, owner, Role::TOP);
        memberships::insert(tx, &member).await
    }

    /// Creates a tenant. A person becomes its owner themselves; an operator names the owner.
    ///
    /// # Errors
    /// `SlugTaken`, `UserUnknown`, `RateExceeded`.
    pub async fn create_tenant(
        &self,
        ctx: &Ctx,
        display_name: String,
        slug: Slug,
        owner: Option<&Email>,
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
        let tenant_id = TenantId(ctx.new_id());
        let caller = UserId(ctx.caller.principal().unwrap_or_default());
        let mut open = match self.begin(ctx, None, InTenantAsUser(tenant_id, caller), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let tenant = self.new_tenant(ctx, tenant_id, display_name, slug);
        self.insert_owned(&mut open.tx, ctx, &tenant, owner_id).await?;
        if caller == owner_id {
            users::set_first_default_tenant(&mut open.tx, tenant_id, ctx.now).await?;
        }
        let audit = Audit::of(tenant_id.0)
            .set("slug", tenant.slug.as_str())
            .set("display_name", tenant.display_name.as_str())
            .set("plan", tenant.plan.as_str())
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
        self.change_tenant(t, "", key, |tenant| tenant.activate(by)).await
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
    async fn change_tenant(
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
        let before = tenants::lock(&mut open.tx).await?;
        recheck(&mut open.tx, t, &before).await?;
        check_etag(sent_etag, before.version)?;
        let mut after = before.clone();
        rule(&mut after)?;
        after.updated_at = t.ctx.now;
        let audit = tenants::update(&mut open.tx, &before, &mut after).await?;
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
        (after, limit): (Uuid, i64),
    ) -> Result<Vec<MyTenant>, Error> {
        let person = ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))?;
        self.known_metrics(metrics)?;
        let default = self.fallback(person).await?;
        let rows = self.store.list_tenants_of(person.user.user_id, active_only, (after, limit), ctx.now).await?;
        let period = Period::month_of(ctx.now);
        // Usage is for those who may read it: not for suspended members, nor by way of a key that may not.
        let key_may = ctx.caller.key().is_none_or(|key| key.permissions.contains("usage.read"));
        let metrics = if key_may { metrics } else { &[] };
        let used = match metrics {
            [] => HashMap::new(),
            _ => self.store.list_used_of(person.user.user_id, &rows, period).await?,
        };
        let mine = |row: system::MyTenant| {
            let id = row.tenant.tenant_id;
            let used = |metric: &String| used.get(&(id, metric.clone())).copied().unwrap_or(0);
            let shown = if row.active { metrics } else { &[] };
            let usage = shown.iter().map(|metric| self.view(&row.tenant, metric, used(metric), period)).collect();
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
        self.store.list_tenants(filter, page, ctx.now).await
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
        Ok(self.store.find_slug(&slug).await?.map(|_| "is taken"))
    }

    /// The tenant of a slug or host, for its public part.
    ///
    /// # Errors
    /// `TenantNotFound`, also for a deleted one.
    pub async fn resolve_tenant(&self, name: &TenantName) -> Result<Tenant, Error> {
        let id = self.plane.find(name).await?.ok_or(Error::TenantNotFound)?;
        let tenant = self.store.find_tenant(id).await?;
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

/// A membership that begins now.
pub(super) fn new_membership(ctx: &Ctx, user_id: UserId, role: Role) -> Membership {
    Membership {
        membership_id: MembershipId(ctx.new_id()),
        user_id,
        role,
        status: MemberStatus::Active,
        version: 1,
        joined_at: ctx.now,
        updated_at: ctx.now,
    }
}
