//! Where metrics stand: read from rows, and shown. Exact to what is committed; what this server has promised and not yet
//! committed is milliseconds behind.

use serde::{Deserialize, Serialize};

use super::accounts::{metric_period, period_of};
use super::rates::{asked, is_rate};
use super::{Amounts, Of, Who, consumable, known_metrics};
use crate::app::App;
use crate::app::seats::seats_held;
use crate::ctx::Ctx;
use crate::domain::catalogue::{Catalogue, MEMBERS, MetricKind};
use crate::domain::entitlement::Source;
use crate::domain::period::Period;
use crate::domain::plan::Limit;
use crate::domain::quota::{Charge, Scope};
use crate::error::{Error, RateShortage, Shortage};
use crate::store::quota::accounts::{self, Account, Owner};
use crate::store::{InTenant, TenantTx, entitlements};
use crate::time::Timestamp;

/// Where a metric stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UsageView {
    /// Its name.
    pub metric: String,
    /// Its base unit.
    pub unit: String,
    /// Used in the period; of what is held rather than counted, held now.
    pub used: i64,
    /// Set aside by reservations and slots.
    pub reserved: i64,
    /// The limit; none is unlimited.
    pub limit: Option<i64>,
    /// When the period began; none for what has no periods.
    pub period_start: Option<Timestamp>,
    /// When the next one begins; none for what has no periods.
    pub resets_at: Option<Timestamp>,
    /// Where the limit comes from.
    pub source: Source,
    /// Whose account it is: the tenant's, a member's or a key's.
    pub scope: i64,
    /// Rises with each change of the limit.
    pub revision: i64,
    /// What it counts.
    pub kind: MetricKind,
    /// Of a rate: how many at once; none is unlimited, and of all else.
    #[serde(default)]
    pub burst: Option<i64>,
}

impl UsageView {
    /// What is left, of a rate at once; none is unlimited.
    #[must_use]
    pub fn remaining(&self) -> Option<i64> {
        self.most().map(|most| (most - self.used - self.reserved).max(0))
    }

    /// What used is a part of: the limit, or the burst of a rate.
    fn most(&self) -> Option<i64> {
        self.burst.or(self.limit)
    }

    /// How much of the limit is used, in percent, rounded down; none is unlimited.
    #[must_use]
    pub fn percent(&self) -> Option<i64> {
        let limit = self.most()?;
        let used = i128::from(self.used) + i128::from(self.reserved);
        let percent = if limit == 0 { 100 } else { used * 100 / i128::from(limit) };
        i64::try_from(percent).ok()
    }
}

/// A metric as the catalogue has it, with nothing used.
pub(super) fn blank(catalogue: &Catalogue, metric: &str, limit: Option<&Limit>, period: Option<Period>) -> UsageView {
    let known = catalogue.definition.metrics.get(metric);
    let seats = || MEMBERS.to_owned();
    UsageView {
        metric: metric.to_owned(),
        unit: known.map_or_else(seats, |known| known.unit.clone()),
        used: 0,
        reserved: 0,
        limit: limit.map(|limit| limit.limit),
        period_start: period.map(|period| period.start),
        resets_at: period.map(|period| period.end),
        source: Source::Plan,
        scope: Scope::Tenant.number(),
        revision: 0,
        kind: known.map_or(MetricKind::Gauge, |known| known.kind),
        burst: None,
    }
}

/// A period that has ends; none for what runs for ever.
fn shown(catalogue: &Catalogue, metric: &str, period: Period) -> Option<Period> {
    let counts = metric_period(catalogue, metric) != crate::domain::catalogue::MetricPeriod::Lifetime;
    counts.then_some(period)
}

/// What was charged, as the caller sees it: the tenant's accounts first.
pub(super) fn told(catalogue: &Catalogue, charges: &[Charge]) -> Vec<UsageView> {
    let view = |charge: &Charge| {
        let s = charge.standing;
        let period = Period { start: Timestamp::from_micros(s.starts_at), end: Timestamp::from_micros(s.resets_at) };
        let limit = s.limit.map(|limit| Limit { limit, ..Limit::default() });
        UsageView {
            used: s.used,
            reserved: s.reserved,
            scope: charge.account.scope.number(),
            revision: s.revision,
            ..blank(catalogue, &charge.metric, limit.as_ref(), shown(catalogue, &charge.metric, period))
        }
    };
    let mut views: Vec<UsageView> = charges.iter().map(view).collect();
    views.sort_by_key(|view| -view.scope);
    views
}

/// Views of several kinds, in the order of [`told`].
pub(super) fn merged(mut views: Vec<UsageView>, more: Vec<UsageView>) -> Vec<UsageView> {
    views.extend(more);
    views.sort_by(|a, b| (-a.scope, &a.metric).cmp(&(-b.scope, &b.metric)));
    views
}

/// A metric with what was used of it in its period, if anything was.
pub(in crate::app) fn of_counted(
    catalogue: &Catalogue,
    metric: &str,
    limit: Option<&Limit>,
    used: Option<(Period, i64)>,
) -> UsageView {
    let period = used.and_then(|(period, _)| shown(catalogue, metric, period));
    UsageView { used: used.map_or(0, |(_, used)| used), ..blank(catalogue, metric, limit, period) }
}

/// The limit that holds for a tenant; none is unlimited. And whether an override gave it.
pub(in crate::app) async fn limit_of(
    tx: &mut TenantTx,
    (tenant, catalogue): Of<'_>,
    metric: &str,
    now: Timestamp,
) -> Result<(Option<Limit>, Source), Error> {
    let own = entitlements::find_limit(tx, metric, now).await?;
    let source = if own.is_some() { Source::Override } else { Source::Plan };
    Ok((catalogue.effective_limit(&tenant.subscription.of, metric, own.as_ref()), source))
}

/// What the tenant uses of a metric now; none for rates, which are not kept.
pub(in crate::app) async fn used_of(
    tx: &mut TenantTx,
    of: Of<'_>,
    metric: &str,
    now: Timestamp,
) -> Result<Option<UsageView>, Error> {
    let (limit, source) = limit_of(tx, of, metric, now).await?;
    if metric == MEMBERS {
        let used = seats_held(tx, now).await?;
        return Ok(Some(UsageView { used, source, ..blank(of.1, metric, limit.as_ref(), None) }));
    }
    if is_rate(of.1, metric) {
        return Ok(None);
    }
    let last = accounts::find_last(tx, metric, Owner::TENANT).await?;
    let period = period_of(tx, of, metric, last.as_ref(), now).await?;
    let account = last.filter(|account| account.period == period);
    let empty = blank(of.1, metric, limit.as_ref(), shown(of.1, metric, period));
    Ok(Some(UsageView { source, ..of_account(empty, account.as_ref()) }))
}

fn of_account(blank: UsageView, account: Option<&Account>) -> UsageView {
    let Some(account) = account else { return blank };
    let row = &account.row;
    UsageView { used: row.used(), reserved: row.reserved, revision: row.revision, ..blank }
}

/// What is left.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Where the metrics stand.
    pub usage: Vec<UsageView>,
    /// What falls short.
    pub shortages: Vec<Shortage>,
    /// What does not go through its rate now.
    pub too_fast: Vec<RateShortage>,
}

impl App {
    /// Whether amounts are there now; consumes nothing. Gives where the metrics stand and what falls short.
    ///
    /// # Errors
    /// `MetricUnknown`, `MemberNotFound`, `KeyNotFound`.
    pub async fn check_quota(&self, ctx: &Ctx, of: Of<'_>, amounts: &Amounts, who: Who) -> Result<Checked, Error> {
        consumable(of.1, amounts.keys())?;
        let who = self.known(of.0.tenant_id, who).await?;
        let mut tx = self.store.read(InTenant(of.0.tenant_id)).await?;
        let (mut views, mut shortages, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        for (metric, amount) in amounts {
            if is_rate(of.1, metric) {
                let own = entitlements::find_limit(&mut tx, metric, ctx.now).await?;
                rates.extend(asked(of, (metric, *amount), who, own.as_ref()));
                continue;
            }
            for owner in super::accounts::owners(of, metric, who) {
                let wish = super::accounts::wish(&mut tx, of, metric, owner, ctx.now).await?;
                let last = accounts::find_last(&mut tx, metric, owner).await?;
                let period = period_of(&mut tx, of, metric, last.as_ref(), ctx.now).await?;
                let account = last.filter(|account| account.period == period);
                let limit = wish.shown.map(|limit| Limit { limit, ..Limit::default() });
                let source = if wish.by_override { Source::Override } else { Source::Plan };
                let empty = blank(of.1, metric, limit.as_ref(), shown(of.1, metric, period));
                let view = of_account(UsageView { source, scope: owner.scope.number(), ..empty }, account.as_ref());
                let forfeited = account.as_ref().map_or(0, |account| account.row.forfeited);
                let taken = view.used + view.reserved + forfeited;
                if let Some(limit) = wish.shown
                    && wish.admits.is_some_and(|admits| taken.saturating_add(*amount) > admits)
                {
                    let (metric, amount) = (metric.clone(), *amount);
                    shortages.push(Shortage { metric, amount, used: taken, limit, resets_at: period.end });
                }
                views.push(view);
            }
        }
        let limited = self.peek_rates(&rates, ctx.now);
        Ok(Checked { usage: merged(views, limited.views), shortages, too_fast: limited.short })
    }

    /// Where metrics stand; all of the catalogue, seats among them, when none are named.
    ///
    /// # Errors
    /// `MetricUnknown`.
    pub async fn get_usage(&self, ctx: &Ctx, of: Of<'_>, metrics: &[String]) -> Result<Vec<UsageView>, Error> {
        known_metrics(of.1, metrics.iter().filter(|name| *name != MEMBERS))?;
        let all: Vec<String>;
        let metrics = if metrics.is_empty() {
            all = of.1.definition.metrics.keys().cloned().chain([MEMBERS.to_owned()]).collect();
            &all
        } else {
            metrics
        };
        let mut tx = self.store.read(InTenant(of.0.tenant_id)).await?;
        let mut views = Vec::with_capacity(metrics.len());
        for metric in metrics {
            if let Some(view) = used_of(&mut tx, of, metric, ctx.now).await? {
                views.push(view);
                continue;
            }
            let own = entitlements::find_limit(&mut tx, metric, ctx.now).await?;
            let rate = asked(of, (metric, 0), Who::default(), own.as_ref());
            views.extend(self.peek_rates(&rate, ctx.now).views);
        }
        Ok(views)
    }
}
