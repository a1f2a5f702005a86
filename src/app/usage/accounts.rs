//! Accounts: which of them an amount is charged to, opened when a period begins.
//!
//! An open period is never redrawn: a time zone, an anchor or a metric's period that changes draws the next one. A limit that
//! changes holds from the commit of its change on: it takes back what leases hold under the old one. What time alone changes (an
//! override that ends, a plan that follows another) is noticed by whoever asks next, so that no missed job matters; so are
//! limits of single members and keys, of which a tenant may have thousands.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use super::people::People;
use super::rates::Overrides;
use super::{Of, Who};
use crate::app::App;
use crate::ctx::Ctx;
use crate::decide::memory::{AsOf, recall};
use crate::decide::quota::rates::Rates;
use crate::decide::quota::timer::SystemTimer;
use crate::decide::quota::{Engine, Micros, Timer};
use crate::domain::catalogue::{Catalogue, MetricKind, MetricPeriod};
use crate::domain::entitlement::LimitOverride;
use crate::domain::gcra::Share;
use crate::domain::id::TenantId;
use crate::domain::period::{Calendar, Period};
use crate::domain::plan::{Cycle, Limit, PlanRef};
use crate::domain::quota::{AccountKey, Scope};
use crate::domain::tenant::Tenant;
use crate::entropy;
use crate::error::Error;
use crate::store::marks::Tag;
use crate::store::quota::accounts::{self, Account, LimitWish, Owner};
use crate::store::quota::{QuotaRows, Rows, Signal};
use crate::store::scoped::{self, RunsIn};
use crate::store::tx::{OfTenant, Statement};
use crate::store::{InTenant, Scoped, TenantTx, entitlements, settings, tenants};
use crate::time::Timestamp;

/// Percents of a limit of which owners are told unless the tenant says otherwise.
pub(super) const THRESHOLDS: [i64; 2] = [80, 100];

/// How long after it was cut off the server listens to others again.
const HEAR_AGAIN: Duration = Duration::from_millis(250);

/// Accounts that are remembered; what was asked for once goes first.
const REMEMBERED: usize = 200_000;

/// The quota engine, and the accounts that are known to be open.
pub struct Quota {
    /// What decides.
    pub engine: Arc<Engine<QuotaRows, SystemTimer>>,
    /// Who is known to be of which tenant.
    pub(super) people: People,
    /// What is used of rates here.
    pub(super) rates: Rates,
    /// Other limits of rates than the plan's, as they were last looked up.
    pub(in crate::app) overrides: Overrides,
    /// Whether no other server can be on the same rows.
    alone: bool,
    timer: SystemTimer,
    /// Books are added up for one caller at a time: that takes a connection of the commit lanes for as long.
    pub(super) verifying: Semaphore,
    opened: Cache<(TenantId, String, Owner), Arc<Opened>>,
}

/// An account that is open.
#[derive(Debug)]
pub struct Opened {
    /// Which.
    pub key: AccountKey,
    /// Its metric.
    pub metric: Arc<str>,
    period: Period,
    /// The plan that its limit is of.
    of: PlanRef,
    /// When the limit was read: an override that comes later has an end of its own.
    as_of: AsOf,
    /// When its limit is to be looked at anew.
    until: Option<Timestamp>,
}

impl Opened {
    fn holds(&self, of: &PlanRef, now: Timestamp) -> bool {
        self.period.holds(now) && self.of == *of && self.until.is_none_or(|until| now < until)
    }
}

impl Quota {
    /// An engine that nobody has asked anything yet.
    #[must_use]
    pub fn new(engine: Arc<Engine<QuotaRows, SystemTimer>>, timer: SystemTimer, alone: bool) -> Self {
        let (people, rates, overrides) = (People::default(), Rates::default(), Overrides::default());
        let (verifying, opened) = (Semaphore::new(1), Cache::new(REMEMBERED));
        Self { engine, people, rates, overrides, alone, timer, verifying, opened }
    }

    /// The part of every rate that this server enforces. On SQLite the rows may speak of a server that is gone.
    pub(super) fn share(&self) -> Share {
        if self.alone { Share::WHOLE } else { Share::equal(self.engine.servers()) }
    }

    /// The instant after a while, on the engine's clock.
    pub(super) fn deadline(&self, after: Duration) -> Micros {
        self.timer.now() + u64::try_from(after.as_micros()).unwrap_or(u64::MAX / 2)
    }
}

/// Hears what other servers say of leases, for as long as the server runs.
pub async fn hear<R: Rows, T: Timer>(rows: &QuotaRows, engine: &Engine<R, T>) {
    loop {
        match rows.listen().await {
            Ok(None) => return,
            Ok(Some(mut listener)) => {
                while let Ok((signal, accounts)) = listener.next().await {
                    match signal {
                        Signal::Recall => engine.recall(&accounts),
                        Signal::Returned => engine.returned(&accounts),
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "other servers cannot be heard"),
        }
        tokio::time::sleep(HEAR_AGAIN).await;
    }
}

/// Has leases that were taken back by changes of limits and gauges looked after at once, wherever they were: of what was
/// forfeited with them, whoever made promises knows how much was promised, and gives back the rest.
pub async fn recall_fenced<R: Rows, T: Timer>(rows: &QuotaRows, engine: &Engine<R, T>) {
    loop {
        let accounts = rows.0.recalls.next().await;
        engine.recall(&accounts);
        rows.tell(Signal::Recall, &accounts).await;
    }
}

impl App {
    /// The accounts that an amount of a metric is charged to: the tenant's, and the member's and key's where the plan limits
    /// each of those.
    pub(super) async fn accounts_of(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        metric: &str,
        who: Who,
    ) -> Result<Vec<Arc<Opened>>, Error> {
        let mut opened = Vec::with_capacity(1);
        for owner in owners(of, metric, who) {
            let key = (of.0.tenant_id, metric.to_owned(), owner);
            let is_old = |account: &Arc<Opened>| {
                !account.holds(&of.0.subscription.of, ctx.now) || !self.plane.memory.is_current(&account.as_of)
            };
            let open = || Box::pin(async move { self.open_account(ctx, of, metric, owner).await.map(Arc::new) });
            opened.push(recall(&self.quota.opened, &key, is_old, open).await?);
        }
        Ok(opened)
    }

    /// Opens an account, or gives the one that is open the limit that holds now.
    async fn open_account(&self, ctx: &Ctx, of: Of<'_>, metric: &str, owner: Owner) -> Result<Opened, Error> {
        let tenant_id = of.0.tenant_id;
        let as_of = self.plane.memory.now(Tag::tenant(tenant_id));
        let mut newest = None;
        let (mut tx, tenant, catalogue) = loop {
            let catalogue = newest.as_deref().unwrap_or(of.1);
            let mut tx = self.store.write(InTenant(tenant_id)).await?;
            let tenant = tenants::share(&mut tx).await?.settled(catalogue, ctx.now);
            // The tenant may have been moved to a plan of a newer catalogue than the call came in with. A plan that there is
            // not allows nothing.
            if newest.is_some() || catalogue.plan(&tenant.subscription.of).is_some() {
                break (tx, tenant, catalogue);
            }
            drop(tx);
            newest = Some(self.plane.catalogues.newest(&self.store).await?);
        };
        // The call may have waited while an override ended, and others noticed.
        let now = self.clock.now().max(ctx.now);
        let wish = wish(&mut tx, (&tenant, catalogue), metric, owner, now).await?;
        let last = accounts::find_last(&mut tx, metric, owner).await?;
        // Members' and keys' accounts run with the tenant's, which is opened first.
        let leading = match owner {
            Owner::TENANT => None,
            _ => accounts::find_last(&mut tx, metric, Owner::TENANT).await?,
        };
        let leading = leading.as_ref().or(last.as_ref());
        let period = period_of(&mut tx, (&tenant, catalogue), metric, leading, ctx.now).await?;
        let account = if let Some(account) = last.filter(|last| last.period == period) {
            if !wish.is_of(&account) {
                accounts::set_limits(&mut tx, vec![(account.clone(), wish.clone())]).await?;
            }
            account
        } else {
            super::retention::ensure(&mut tx, ctx.now).await?;
            super::monthly::ensure(&mut tx, (&tenant, catalogue), ctx.now).await?;
            accounts::insert(&mut tx, (entropy::id(ctx.now), metric, owner), period, &wish).await?;
            let opened = accounts::find_last(&mut tx, metric, owner).await?;
            opened.ok_or_else(|| Error::internal("an account that was opened is not there"))?
        };
        tx.commit_unaudited(ctx.now).await?;
        let (of, until) = (tenant.subscription.of, wish.until);
        Ok(Opened { key: account.row.key, metric: account.row.metric, period: account.period, of, as_of, until })
    }
}

/// Gives the open accounts of a tenant the limits that hold now; of one metric, or of all. In the transaction that changes
/// them, under the tenant's lock. Not when the catalogue does not know the tenant's plan: it may be older, and whoever asks
/// next looks at the newest.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn apply_limits<S: scoped::Scope>(
    tx: &mut Scoped<S>,
    of: Of<'_>,
    metric: Option<&str>,
    now: Timestamp,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if of.1.plan(&of.0.subscription.of).is_none() {
        return Ok(());
    }
    let mut changes = Vec::new();
    for account in accounts::list_open(tx, Owner::TENANT, now).await? {
        let name = account.row.metric.clone();
        if metric.is_some_and(|metric| *metric != *name) || !of.1.definition.metrics.contains_key(&*name) {
            continue;
        }
        let wish = wish(tx, of, &name, Owner::TENANT, now).await?;
        if !wish.is_of(&account) {
            changes.push((account, wish));
        }
    }
    accounts::set_limits(tx, changes).await
}

/// Whose accounts an amount is charged to.
pub(super) fn owners((tenant, catalogue): Of<'_>, metric: &str, who: Who) -> impl Iterator<Item = Owner> {
    let limit = catalogue.limit(&tenant.subscription.of, metric).unwrap_or_default();
    let member = who.member.filter(|_| limit.per_member.is_some());
    let key = who.api_key.filter(|_| limit.per_key.is_some());
    let member = member.map(|id| Owner { scope: Scope::Member, id: id.0 });
    let key = key.map(|id| Owner { scope: Scope::Key, id: id.0 });
    [Some(Owner::TENANT), member, key].into_iter().flatten()
}

/// The limit of an account as it holds now.
pub(super) async fn wish<S: scoped::Scope>(
    tx: &mut Scoped<S>,
    (tenant, catalogue): Of<'_>,
    metric: &str,
    owner: Owner,
    now: Timestamp,
) -> Result<LimitWish, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let own = if owner == Owner::TENANT { entitlements::find_limit(tx, metric, now).await? } else { None };
    let limit = owner_limit((tenant, catalogue), metric, owner, own.as_ref());
    // Only what the tenant as a whole uses is told of.
    let thresholds = if owner == Owner::TENANT { thresholds(tx, metric).await? } else { Vec::new() };
    Ok(LimitWish {
        admits: limit.as_ref().map(Limit::admits),
        shown: limit.map(|limit| limit.limit),
        until: own.and_then(|own| own.expires_at),
        by_override: own.is_some(),
        thresholds,
    })
}

/// The limit of an owner; none is unlimited. An override is of the tenant as a whole.
pub(super) fn owner_limit(
    (tenant, catalogue): Of<'_>,
    metric: &str,
    owner: Owner,
    own: Option<&LimitOverride>,
) -> Option<Limit> {
    let of = &tenant.subscription.of;
    let planned = catalogue.limit(of, metric);
    match owner.scope {
        Scope::Tenant => catalogue.effective_limit(of, metric, own),
        Scope::Member => planned.and_then(|planned| planned.below(planned.per_member)),
        Scope::Key => planned.and_then(|planned| planned.below(planned.per_key)),
    }
}

/// The percents of which the tenant wants to be told.
pub(super) async fn thresholds<S: scoped::Scope>(tx: &mut Scoped<S>, metric: &str) -> Result<Vec<i64>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    Ok(crate::store::usage::find_thresholds(tx, metric).await?.unwrap_or_else(|| THRESHOLDS.to_vec()))
}

/// The period of a metric that an instant is in, in the tenant's own time, after the last one that was opened.
pub(super) async fn period_of(
    tx: &mut TenantTx,
    (tenant, catalogue): Of<'_>,
    metric: &str,
    last: Option<&Account>,
    now: Timestamp,
) -> Result<Period, Error> {
    if let Some(last) = last.filter(|last| last.period.holds(now)) {
        return Ok(last.period);
    }
    let calendar = calendar(tx, tenant, catalogue).await?;
    let kind = metric_period(catalogue, metric);
    Ok(Period::following(last.map(|last| last.period), kind, &calendar, now))
}

/// Over which span a metric runs: what is held rather than counted has no end.
pub(super) fn metric_period(catalogue: &Catalogue, metric: &str) -> MetricPeriod {
    match catalogue.definition.metrics.get(metric) {
        Some(metric) if metric.kind == MetricKind::Counter => metric.period,
        _ => MetricPeriod::Lifetime,
    }
}

/// What decides where a tenant's periods begin.
pub(super) async fn calendar(tx: &mut TenantTx, tenant: &Tenant, catalogue: &Catalogue) -> Result<Calendar, Error> {
    let (own, _) = settings::find(tx).await?;
    let holds = own.over(&catalogue.definition.settings);
    let zone = holds.time_zone.as_deref().and_then(|name| name.parse().ok()).unwrap_or(chrono_tz::UTC);
    let subscription = &tenant.subscription;
    let anchor = subscription.anchor.unwrap_or(tenant.created_at);
    Ok(Calendar { zone, anchor, cycle: subscription.anchor.and(subscription.cycle).unwrap_or(Cycle::Month) })
}
