//! Accounts: which of them an amount is charged to, opened when a period begins.
//!
//! An open period is never redrawn: a time zone, an anchor or a metric's period that changes draws the next one. A limit that
//! changes holds from the commit of its change on. What time alone changes (an override that ends, a plan that follows
//! another) is noticed by whoever asks next, so that no missed job matters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::people::People;
use super::{Of, Who};
use crate::app::App;
use crate::ctx::Ctx;
use crate::decide::quota::timer::SystemTimer;
use crate::decide::quota::{Engine, Micros, Timer};
use crate::domain::catalogue::{Catalogue, MetricKind, MetricPeriod};
use crate::domain::id::TenantId;
use crate::domain::period::{Calendar, Period};
use crate::domain::plan::{Cycle, Limit, PlanRef};
use crate::domain::quota::{AccountKey, Scope};
use crate::domain::tenant::Tenant;
use crate::entropy;
use crate::error::Error;
use crate::store::quota::accounts::{self, Account, LimitWish, Owner};
use crate::store::quota::{QuotaRows, Signal};
use crate::store::{InTenant, Store, TenantTx, entitlements, settings, tenants};
use crate::time::Timestamp;

/// Percents of a limit of which owners are told unless the tenant says otherwise.
pub(super) const THRESHOLDS: [i64; 2] = [80, 100];

/// How long after it was cut off the server listens to others again.
const HEAR_AGAIN: Duration = Duration::from_millis(250);

/// Accounts that are remembered; more are looked up again.
const REMEMBERED: usize = 200_000;

/// The quota engine, and the accounts that are known to be open.
pub struct Quota {
    /// What decides.
    pub engine: Arc<Engine<QuotaRows, SystemTimer>>,
    /// Who is known to be of which tenant.
    pub(super) people: People,
    timer: SystemTimer,
    opened: Mutex<HashMap<(TenantId, String, Owner), Arc<Opened>>>,
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
    pub fn new(engine: Arc<Engine<QuotaRows, SystemTimer>>, timer: SystemTimer) -> Self {
        Self { engine, people: People::default(), timer, opened: Mutex::default() }
    }

    /// The instant after a while, on the engine's clock.
    pub(super) fn deadline(&self, after: Duration) -> Micros {
        self.timer.now() + u64::try_from(after.as_micros()).unwrap_or(u64::MAX / 2)
    }

    /// Hears what other servers say of leases, for as long as the server runs.
    pub async fn hear(&self, store: &Arc<Store>) {
        let rows = QuotaRows(store.clone());
        loop {
            match rows.listen().await {
                Ok(None) => return,
                Ok(Some(mut listener)) => {
                    while let Ok((signal, accounts)) = listener.next().await {
                        match signal {
                            Signal::Recall => self.engine.recall(&accounts),
                            Signal::Returned => self.engine.returned(&accounts),
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "other servers cannot be heard"),
            }
            tokio::time::sleep(HEAR_AGAIN).await;
        }
    }

    fn find(&self, key: &(TenantId, String, Owner), of: &PlanRef, now: Timestamp) -> Option<Arc<Opened>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.get(key).filter(|account| account.holds(of, now)).cloned()
    }

    fn remember(&self, key: (TenantId, String, Owner), account: Arc<Opened>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= REMEMBERED {
            opened.clear();
        }
        opened.insert(key, account);
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
            if let Some(account) = self.quota.find(&key, &of.0.subscription.of, ctx.now) {
                opened.push(account);
                continue;
            }
            let account = Arc::new(self.open_account(ctx, of, metric, owner).await?);
            self.quota.remember(key, account.clone());
            opened.push(account);
        }
        Ok(opened)
    }

    /// Opens an account, or gives the one that is open the limit that holds now.
    async fn open_account(&self, ctx: &Ctx, of: Of<'_>, metric: &str, owner: Owner) -> Result<Opened, Error> {
        let (tenant_id, catalogue) = (of.0.tenant_id, of.1);
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        let tenant = tenants::share(&mut tx).await?.settled(catalogue, ctx.now);
        let wish = wish(&mut tx, (&tenant, catalogue), metric, owner, ctx.now).await?;
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
                accounts::set_limit(&mut tx, &account, &wish).await?;
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
        Ok(Opened { key: account.row.key, metric: account.row.metric, period: account.period, of, until })
    }
}

/// Gives the open accounts of a tenant the limits that hold now; of one metric, or of all. In the transaction that changes
/// them, under the tenant's lock.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn apply_limits(tx: &mut TenantTx, of: Of<'_>, metric: Option<&str>, now: Timestamp) -> Result<(), Error> {
    for account in accounts::list_open(tx, Owner::TENANT, now).await? {
        let name = account.row.metric.clone();
        if metric.is_some_and(|metric| *metric != *name) || !of.1.definition.metrics.contains_key(&*name) {
            continue;
        }
        let wish = wish(tx, of, &name, Owner::TENANT, now).await?;
        if !wish.is_of(&account) {
            accounts::set_limit(tx, &account, &wish).await?;
        }
    }
    Ok(())
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
pub(super) async fn wish(
    tx: &mut TenantTx,
    (tenant, catalogue): Of<'_>,
    metric: &str,
    owner: Owner,
    now: Timestamp,
) -> Result<LimitWish, Error> {
    let of = &tenant.subscription.of;
    let planned = catalogue.limit(of, metric);
    let (limit, own) = match owner.scope {
        Scope::Tenant => {
            let own = entitlements::find_limit(tx, metric, now).await?;
            (catalogue.effective_limit(of, metric, own.as_ref()), own)
        }
        Scope::Member => (below(planned, planned.and_then(|limit| limit.per_member)), None),
        Scope::Key => (below(planned, planned.and_then(|limit| limit.per_key)), None),
    };
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

/// A limit below the tenant's, with the same grace.
fn below(planned: Option<Limit>, own: Option<i64>) -> Option<Limit> {
    own.map(|limit| Limit { limit, ..planned.unwrap_or_default() })
}

/// The percents of which the tenant wants to be told.
pub(super) async fn thresholds(tx: &mut TenantTx, metric: &str) -> Result<Vec<i64>, Error> {
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
    let span = metric_period(catalogue, metric);
    let natural = Period::at(span, &calendar, now);
    let period = Period::following(last.map(|last| last.period), natural, now);
    if period.end.since(period.start) >= natural.end.since(natural.start) / 2 {
        return Ok(period);
    }
    // A remainder that a change has left belongs to the period after it: whoever changes the time zone to and fro gets no
    // more limits than there are periods.
    Ok(Period { end: Period::at(span, &calendar, natural.end).end, ..period })
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
