//! Rows of tenants: the organisation with its subscription, in one row, so that one lock and one version cover both.

use uuid::Uuid;

use super::audit::Audit;
use super::dialect::{LOCK_TENANT, SHARE_TENANT};
use super::feed::Change;
use super::scoped::{RunsIn, Scope, Scoped, TenantTx};
use super::slugs;
use super::tx::{OfTenant, Statement, Value, statements};
use crate::domain::id::TenantId;
use crate::domain::name::Slug;
use crate::domain::plan::{Cycle, PlanRef};
use crate::domain::subscription::{NextPlan, ProviderIds, Subscription, SubscriptionStatus};
use crate::domain::tenant::{Flags, SuspendedBy, Suspension, Tenant, TenantStatus};
use crate::error::Error;
use crate::time::Timestamp;

/// The columns that a `TenantRow` reads, by name, after the prefix of their table: a prepared `select *` fails when a
/// migration adds one.
macro_rules! tenant_columns {
    () => {
        $crate::store::tenants::tenant_columns!("")
    };
    ($of:literal) => {
        $crate::store::tenants::tenant_columns!(@list $of tenant_id slug display_name suspend_reason suspended_by version roles_version created_at updated_at deleted_at purge_at pending verified demo maintenance external_id plan plan_version subscription_status cycle price currency anchor_at period_start period_end paid_until trial_end grace_end cancel_at_period_end next_plan next_plan_version next_cycle paused_at cancelled_at provider_customer provider_subscription provider_payment_method billed_at)
    };
    (@list $of:literal $first:ident $($rest:ident)*) => {
        concat!($of, stringify!($first) $(, ", ", $of, stringify!($rest))*)
    };
}
pub(super) use tenant_columns;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into tenant (tenant_id, display_name, status, suspend_reason, suspended_by, deleted_at, purge_at,
                             updated_at, pending, verified, demo, maintenance, plan, plan_version,
                             subscription_status, cycle, price, currency, anchor_at, period_start, period_end,
                             paid_until, trial_end, grace_end, cancel_at_period_end, next_plan, next_plan_version,
                             next_cycle, paused_at, cancelled_at, provider_customer, provider_subscription,
                             provider_payment_method, billed_at, settle_at, slug, external_id, version, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                 $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39)",
    );
    INSERT_EXTERNAL_ID: OfTenant = Statement::new(
        "insert into tenant_external_id (tenant_id, external_id)
         values ($1, $2)
         on conflict (external_id) do nothing",
    );
    UPDATE: OfTenant = Statement::new(
        "update tenant
         set display_name = $2, status = $3, suspend_reason = $4, suspended_by = $5, deleted_at = $6, purge_at = $7,
             updated_at = $8, pending = $9, verified = $10, demo = $11, maintenance = $12, plan = $13,
             plan_version = $14, subscription_status = $15, cycle = $16, price = $17, currency = $18, anchor_at = $19,
             period_start = $20, period_end = $21, paid_until = $22, trial_end = $23, grace_end = $24,
             cancel_at_period_end = $25, next_plan = $26, next_plan_version = $27, next_cycle = $28, paused_at = $29,
             cancelled_at = $30, provider_customer = $31, provider_subscription = $32, provider_payment_method = $33,
             billed_at = $34, settle_at = $35, slug = $36, version = version + 1
         where tenant_id = $1 and version = $37",
    );
    NOTE_STATUS: OfTenant = Statement::new(
        "update tenant
         set status = $2, settle_at = $3
         where tenant_id = $1",
    );
}

/// A tenant's row, as both the tenant's own transactions and the system's reads get it.
#[derive(sqlx::FromRow)]
pub(super) struct TenantRow {
    tenant_id: Uuid,
    slug: String,
    display_name: String,
    suspend_reason: Option<String>,
    suspended_by: Option<i64>,
    version: i64,
    roles_version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    purge_at: Option<Timestamp>,
    pending: i64,
    verified: i64,
    demo: i64,
    maintenance: i64,
    external_id: Option<String>,
    #[sqlx(flatten)]
    subscription: SubscriptionRow,
}

#[derive(sqlx::FromRow)]
struct SubscriptionRow {
    plan: String,
    plan_version: i64,
    subscription_status: i64,
    cycle: Option<i64>,
    price: i64,
    currency: String,
    anchor_at: Option<Timestamp>,
    period_start: Option<Timestamp>,
    period_end: Option<Timestamp>,
    paid_until: Option<Timestamp>,
    trial_end: Option<Timestamp>,
    grace_end: Option<Timestamp>,
    cancel_at_period_end: i64,
    next_plan: Option<String>,
    next_plan_version: Option<i64>,
    next_cycle: Option<i64>,
    paused_at: Option<Timestamp>,
    cancelled_at: Option<Timestamp>,
    provider_customer: String,
    provider_subscription: String,
    provider_payment_method: String,
    billed_at: Option<Timestamp>,
}

impl TryFrom<TenantRow> for Tenant {
    type Error = Error;

    fn try_from(row: TenantRow) -> Result<Self, Error> {
        let by = |number| if number == 4 { SuspendedBy::Operator } else { SuspendedBy::Member };
        Ok(Self {
            tenant_id: TenantId(row.tenant_id),
            slug: Slug::parse(&row.slug).map_err(|_| Error::internal("a tenant's row holds no slug"))?,
            display_name: row.display_name,
            suspension: row
                .suspended_by
                .map(|number| Suspension { reason: row.suspend_reason.unwrap_or_default(), by: by(number) }),
            pending: row.pending != 0,
            flags: Flags { verified: row.verified != 0, demo: row.demo != 0, maintenance: row.maintenance != 0 },
            subscription: row.subscription.try_into()?,
            external_id: row.external_id,
            version: row.version,
            roles_version: row.roles_version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            purge_at: row.purge_at,
        })
    }
}

impl TryFrom<SubscriptionRow> for Subscription {
    type Error = Error;

    fn try_from(row: SubscriptionRow) -> Result<Self, Error> {
        let next = row.next_plan.map(|plan| NextPlan {
            of: PlanRef { plan, version: row.next_plan_version.unwrap_or(1) },
            cycle: row.next_cycle.and_then(cycle),
        });
        Ok(Self {
            of: PlanRef { plan: row.plan, version: row.plan_version },
            status: match row.subscription_status {
                1 => SubscriptionStatus::Trialing,
                2 => SubscriptionStatus::Active,
                3 => SubscriptionStatus::PastDue,
                4 => SubscriptionStatus::Paused,
                5 => SubscriptionStatus::Cancelled,
                _ => return Err(Error::internal("a tenant's row holds no status of a subscription")),
            },
            cycle: row.cycle.and_then(cycle),
            price: row.price,
            currency: row.currency,
            anchor: row.anchor_at,
            period_start: row.period_start,
            period_end: row.period_end,
            paid_until: row.paid_until,
            trial_end: row.trial_end,
            grace_end: row.grace_end,
            cancel_at_period_end: row.cancel_at_period_end != 0,
            next,
            paused_at: row.paused_at,
            cancelled_at: row.cancelled_at,
            provider: ProviderIds {
                customer: row.provider_customer,
                subscription: row.provider_subscription,
                payment_method: row.provider_payment_method,
            },
            billed_at: row.billed_at,
        })
    }
}

const fn cycle(number: i64) -> Option<Cycle> {
    match number {
        1 => Some(Cycle::Month),
        2 => Some(Cycle::Year),
        _ => None,
    }
}

/// The number of a cycle; as in catalogue.proto.
fn cycle_number(cycle: Cycle) -> i64 {
    match cycle {
        Cycle::Month => 1,
        Cycle::Year => 2,
    }
}

/// The number of a tenant's status; as in access.proto.
pub(super) const fn status_number(status: TenantStatus) -> i64 {
    match status {
        TenantStatus::Pending => 1,
        TenantStatus::Trial => 2,
        TenantStatus::Active => 3,
        TenantStatus::Suspended => 4,
        TenantStatus::Cancelled => 5,
        TenantStatus::Deleted => 6,
    }
}

/// What changes in a tenant's row, from `$2` on. Status and `settle_at` are for lists and jobs: the truth is computed.
fn columns(tenant: &Tenant, now: Timestamp) -> Vec<Value<'_>> {
    let suspension = tenant.suspension.as_ref();
    let by = |s: &Suspension| if s.by == SuspendedBy::Operator { 4_i64 } else { 2 };
    let s = &tenant.subscription;
    let status: i64 = match s.status {
        SubscriptionStatus::Trialing => 1,
        SubscriptionStatus::Active => 2,
        SubscriptionStatus::PastDue => 3,
        SubscriptionStatus::Paused => 4,
        SubscriptionStatus::Cancelled => 5,
    };
    vec![
        tenant.display_name.as_str().into(),
        status_number(tenant.status(now)).into(),
        suspension.map(|s| s.reason.as_str()).into(),
        suspension.map(by).into(),
        tenant.deleted_at.into(),
        tenant.purge_at.into(),
        tenant.updated_at.into(),
        i64::from(tenant.pending).into(),
        i64::from(tenant.flags.verified).into(),
        i64::from(tenant.flags.demo).into(),
        i64::from(tenant.flags.maintenance).into(),
        s.of.plan.as_str().into(),
        s.of.version.into(),
        status.into(),
        s.cycle.map(cycle_number).into(),
        s.price.into(),
        s.currency.as_str().into(),
        s.anchor.into(),
        s.period_start.into(),
        s.period_end.into(),
        s.paid_until.into(),
        s.trial_end.into(),
        s.grace_end.into(),
        i64::from(s.cancel_at_period_end).into(),
        s.next.as_ref().map(|next| next.of.plan.as_str()).into(),
        s.next.as_ref().map(|next| next.of.version).into(),
        s.next.as_ref().and_then(|next| next.cycle).map(cycle_number).into(),
        s.paused_at.into(),
        s.cancelled_at.into(),
        s.provider.customer.as_str().into(),
        s.provider.subscription.as_str().into(),
        s.provider.payment_method.as_str().into(),
        s.billed_at.into(),
        tenant.next_boundary(now).into(),
        tenant.slug.as_str().into(),
    ]
}

/// Inserts a new tenant with its slug and external id.
///
/// # Errors
/// `SlugTaken`, `ExternalIdTaken`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, tenant: &Tenant, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let mut args = columns(tenant, now);
    args.push(tenant.external_id.as_deref().into());
    args.push(tenant.version.into());
    args.push(tenant.created_at.into());
    tx.execute(&INSERT, &args).await?;
    tx.changed(Change::Tenant(tenant.tenant_id));
    slugs::insert(tx, &tenant.slug).await?;
    if let Some(external_id) = &tenant.external_id
        && tx.execute(&INSERT_EXTERNAL_ID, &[external_id.as_str().into()]).await? == 0
    {
        return Err(Error::ExternalIdTaken);
    }
    Ok(())
}

/// Reads the tenant and keeps everybody else from changing it, or its members, until the transaction ends. As it is
/// written: what time has brought since is for `settled` to say.
///
/// # Errors
/// `TenantNotFound`.
pub async fn lock<S: Scope>(tx: &mut Scoped<S>) -> Result<Tenant, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let row: Option<TenantRow> = tx.optional(&LOCK_TENANT, &[]).await?;
    row.ok_or(Error::TenantNotFound)?.try_into()
}

/// Reads the tenant and keeps its plan and limits from changing; several may do so at once.
///
/// # Errors
/// `TenantNotFound`.
pub async fn share(tx: &mut TenantTx) -> Result<Tenant, Error> {
    let row: Option<TenantRow> = tx.optional(&SHARE_TENANT, &[]).await?;
    row.ok_or(Error::TenantNotFound)?.try_into()
}

/// Writes the changed tenant over `before`, which was read under its lock, and brings its version up to date.
///
/// # Errors
/// `EtagMismatch` when the row is not `before` any more.
pub async fn update<S: Scope>(
    tx: &mut Scoped<S>,
    before: &Tenant,
    after: &mut Tenant,
    now: Timestamp,
) -> Result<Audit, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let mut args = columns(after, now);
    args.push(before.version.into());
    if tx.execute(&UPDATE, &args).await? == 0 {
        return Err(Error::EtagMismatch);
    }
    after.version = before.version + 1;
    tx.changed(Change::Tenant(after.tenant_id));
    Ok(differences(before, after, now))
}

/// Writes what lists and jobs go by, when time alone has changed it and nothing else. Not a new version.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn note_status<S: Scope>(tx: &mut Scoped<S>, tenant: &Tenant, now: Timestamp) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [status_number(tenant.status(now)).into(), tenant.next_boundary(now).into()];
    tx.execute(&NOTE_STATUS, &args).await.map(|_| ())
}

/// What the audit log says of a change.
fn differences(before: &Tenant, after: &Tenant, now: Timestamp) -> Audit {
    let reason = |t: &Tenant| t.suspension.as_ref().map(|s| s.reason.clone());
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let (was, is) = (&before.subscription, &after.subscription);
    let next = |s: &Subscription| s.next.as_ref().map(|next| next.of.plan.clone());
    Audit::of(after.tenant_id.0)
        .field("display_name", before.display_name.as_str(), after.display_name.as_str())
        .field("slug", before.slug.as_str(), after.slug.as_str())
        .field("status", before.status(now).as_str(), after.status(now).as_str())
        .field("suspend_reason", reason(before), reason(after))
        .field("pending", before.pending, after.pending)
        .field("verified", before.flags.verified, after.flags.verified)
        .field("demo", before.flags.demo, after.flags.demo)
        .field("maintenance", before.flags.maintenance, after.flags.maintenance)
        .field("plan", was.of.plan.as_str(), is.of.plan.as_str())
        .field("plan_version", was.of.version, is.of.version)
        .field("subscription_status", was.status.as_str(), is.status.as_str())
        .field("price", was.price, is.price)
        .field("period_end", time(was.period_end), time(is.period_end))
        .field("paid_until", time(was.paid_until), time(is.paid_until))
        .field("trial_end", time(was.trial_end), time(is.trial_end))
        .field("grace_end", time(was.grace_end), time(is.grace_end))
        .field("cancel_at_period_end", was.cancel_at_period_end, is.cancel_at_period_end)
        .field("next_plan", next(was), next(is))
}
