//! Rates: decided here in memory, before anything is written, each server by its share (`domain/gcra.rs` says how far
//! several together may be off). Nothing of them is kept, so there is nothing to repeat, refund or report.
//!
//! A limit that changes holds at once for what comes then: what was used stays used, up to all of a lower burst.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use super::accounts::{owner_limit, owners};
use super::views::{UsageView, blank};
use super::{Amounts, Of, Who};
use crate::app::App;
use crate::decide::quota::rates::{Part, RateKey, Said};
use crate::domain::catalogue::{Catalogue, MetricKind};
use crate::domain::entitlement::{LimitOverride, Source};
use crate::domain::gcra::{Share, TooFast};
use crate::domain::id::TenantId;
use crate::domain::period::FAR;
use crate::error::{Error, RateShortage};
use crate::store::quota::accounts::Owner;
use crate::store::{InTenant, entitlements};
use crate::time::Timestamp;

/// How old what is known of an override may be: so long it takes until other servers go by a new one.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(1);

/// Overrides that are remembered; more are looked up again.
const REMEMBERED: usize = 200_000;

/// An override, or that there is none, and when it was looked up.
type Looked = (Option<LimitOverride>, Timestamp);

/// Other limits of rates than the plan's.
#[derive(Debug, Default)]
pub struct Overrides(Mutex<HashMap<(TenantId, String), Looked>>);

impl Overrides {
    /// What is known, if it is new enough.
    fn find(&self, key: &(TenantId, String), now: Timestamp) -> Option<Looked> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = known.get(key).copied()?;
        let age = now.since(looked.1);
        (age >= TimeDelta::zero() && age < LOOK_AGAIN).then_some(looked)
    }

    fn remember(&self, key: (TenantId, String), looked: Looked) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, looked);
    }

    /// Makes the next one who asks look it up.
    pub(in crate::app) fn forget(&self, tenant: TenantId, metric: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(tenant, metric.to_owned()));
    }
}

/// A rate that an amount has to go through: where it stands, and the amount where there is a limit.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    view: UsageView,
    part: Option<Part>,
}

/// What was said of rates.
#[derive(Debug)]
pub(super) struct Rated {
    /// Where they stand.
    pub(super) views: Vec<UsageView>,
    /// What does not go through.
    pub(super) short: Vec<RateShortage>,
    /// What was charged.
    taken: Vec<Part>,
    /// As which share, and when.
    share: Share,
    at: Timestamp,
}

/// Whether a metric is a rate.
pub(super) fn is_rate(catalogue: &Catalogue, metric: &str) -> bool {
    catalogue.definition.metrics.get(metric).is_some_and(|known| known.kind == MetricKind::Rate)
}

/// The rates that an amount of a metric has to go through: the tenant's, and the member's and key's where the plan limits
/// each of those.
pub(super) fn asked(of: Of<'_>, (metric, amount): (&str, i64), who: Who, own: Option<&LimitOverride>) -> Vec<Asked> {
    let one = |owner: Owner| {
        let limit = owner_limit(of, metric, owner, own);
        let is_own = owner == Owner::TENANT && own.is_some();
        let view = UsageView {
            burst: limit.map(|limit| limit.at_once()),
            source: if is_own { Source::Override } else { Source::Plan },
            scope: owner.scope.number(),
            ..blank(of.1, metric, limit.as_ref(), None)
        };
        let key = RateKey { tenant: of.0.tenant_id, metric: metric.into(), scope: owner.scope, id: owner.id };
        Asked { view, part: limit.map(|limit| Part { key, rate: limit.rate(), amount }) }
    };
    owners(of, metric, who).map(one).collect()
}

/// What of this has limits.
fn parts(asked: &[Asked]) -> Vec<Part> {
    asked.iter().filter_map(|asked| asked.part.clone()).collect()
}

impl Rated {
    const fn new(share: Share, at: Timestamp) -> Self {
        Self { views: Vec::new(), short: Vec::new(), taken: Vec::new(), share, at }
    }

    /// Whether any metric goes through.
    pub(super) fn has_admitted(&self) -> bool {
        self.views.iter().any(|view| self.short.iter().all(|short| short.metric != view.metric))
    }

    fn add(&mut self, asked: &[Asked], said: &[Said]) {
        let mut said = said.iter();
        for Asked { view, part } in asked {
            let mut view = view.clone();
            if let Some(part) = part
                && let Some(said) = said.next()
            {
                stand(&mut view, said);
                self.short.extend(said.refused.map(|refused| shortage(part, said.used, refused)));
            }
            self.views.push(view);
        }
    }
}

/// Shows what is used, and when all of it has come back.
fn stand(view: &mut UsageView, said: &Said) {
    view.used = said.used;
    view.resets_at = (said.used > 0).then_some(said.room.full_at);
}

fn shortage(part: &Part, used: i64, refused: TooFast) -> RateShortage {
    let wait = match refused {
        TooFast::Wait(wait) => Some(wait),
        TooFast::Never => None,
    };
    let (burst, per_minute) = (part.rate.burst, part.rate.per_minute);
    RateShortage { metric: part.key.metric.to_string(), amount: part.amount, used, burst, per_minute, wait }
}

impl RateShortage {
    /// When the amount goes through; none is never.
    #[must_use]
    pub fn passes_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.wait.map(|wait| now.after(wait).min(FAR))
    }
}

impl App {
    /// Charges amounts of rates: all or none, or with `each` of every metric for itself.
    pub(super) async fn take_rates(
        &self,
        of: Of<'_>,
        (amounts, who): (&Amounts, Who),
        each: bool,
        now: Timestamp,
    ) -> Result<Rated, Error> {
        let mut all = Vec::new();
        for (metric, amount) in amounts {
            let own = self.override_of(of.0.tenant_id, metric, now).await?;
            all.extend(asked(of, (metric, *amount), who, own.as_ref()));
        }
        let mut rated = Rated::new(self.quota.share(), now);
        for group in all.chunk_by(|a, b| !each || a.view.metric == b.view.metric) {
            let parts = parts(group);
            let said = self.quota.rates.take(&parts, rated.share, now);
            rated.add(group, &said);
            if said.iter().all(|said| said.refused.is_none()) {
                rated.taken.extend(parts);
            }
        }
        Ok(rated)
    }

    /// What would be said of amounts, each for itself; charges nothing.
    pub(super) fn peek_rates(&self, asked: &[Asked], now: Timestamp) -> Rated {
        let mut rated = Rated::new(self.quota.share(), now);
        let said = self.quota.rates.peek(&parts(asked), rated.share, now);
        rated.add(asked, &said);
        rated
    }

    /// Gives back what was charged, because nothing else was, and shows what is used without it.
    pub(super) fn give_back_rates(&self, rated: &mut Rated) {
        let now = self.clock.now();
        for part in std::mem::take(&mut rated.taken) {
            let said = self.quota.rates.give_back(&part, rated.share, rated.at, now);
            let of_part =
                |view: &&mut UsageView| *view.metric == *part.key.metric && view.scope == part.key.scope.number();
            if let Some(view) = rated.views.iter_mut().find(of_part) {
                stand(view, &said);
            }
        }
    }

    async fn override_of(
        &self,
        tenant: TenantId,
        metric: &str,
        now: Timestamp,
    ) -> Result<Option<LimitOverride>, Error> {
        let key = (tenant, metric.to_owned());
        if let Some((own, _)) = self.quota.overrides.find(&key, now) {
            return Ok(own.filter(|own| own.holds(now)));
        }
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let own = entitlements::find_limit(&mut tx, metric, now).await?;
        self.quota.overrides.remember(key, (own, now));
        Ok(own)
    }
}
