//! Usage: what is consumed, set aside and recorded against the limits of a tenant, and where metrics stand. Here requests
//! become items of the quota engine (`decide/quota`), which decides and writes them, and its outcomes become answers.

pub mod accounts;
pub mod events;
pub mod holds;
mod monthly;
mod people;
pub mod record;
pub mod reports;
mod retention;
pub mod thresholds;
pub mod verify;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::App;
use crate::ctx::{Caller, Ctx};
use crate::decide::quota::{Action, Item, Outcome, Told};
use crate::domain::catalogue::{Catalogue, MEMBERS, Metric, MetricKind};
use crate::domain::id::{ApiKeyId, TenantId, UserId};
use crate::domain::quota::{Charge, Details, EventKey, Standing};
use crate::domain::secret::sha256;
use crate::domain::tenant::Tenant;
use crate::entropy;
use crate::error::{Error, Shortage};
use crate::time::Timestamp;

pub use views::UsageView;
pub(super) use views::{of_counted, used_of};

/// How long a request waits for units that are leased elsewhere: longer than it takes to take them back from a server that
/// is gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// What keys of the server's own begin with; callers' may not.
pub const OWN_KEYS: &str = "tenantry:";

/// Amounts by metric.
pub type Amounts = BTreeMap<String, i64>;

/// Whose usage it is, besides the tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Who {
    /// The person.
    pub member: Option<UserId>,
    /// The key.
    pub api_key: Option<ApiKeyId>,
}

impl Who {
    /// The person or key that makes a call.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        Self { member: caller.user().map(|user| user.user_id), api_key: caller.api_key().map(|key| key.api_key_id) }
    }
}

/// What is to be consumed, and how.
#[derive(Debug, Clone, Default)]
pub struct Consumption {
    /// How much of what.
    pub amounts: Amounts,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// Whether each metric is decided for itself.
    pub best_effort: bool,
    /// Whether the answer may come before the commit.
    pub leased: bool,
    /// By whom.
    pub who: Who,
    /// What its event says.
    pub details: Details,
    /// When it happened, if not now.
    pub event_at: Option<Timestamp>,
}

/// What was consumed.
#[derive(Debug, Clone, Default)]
pub struct Consumed {
    /// Where the metrics stand.
    pub usage: Vec<UsageView>,
    /// What fell short, when each metric was decided for itself.
    pub shortages: Vec<Shortage>,
    /// Whether it was answered before it was committed.
    pub promised: bool,
}

/// The tenant of a call, with the catalogue that holds for it.
pub type Of<'a> = (&'a Tenant, &'a Catalogue);

impl App {
    /// Consumes amounts: all or none, or of each metric what there is. With a key, a repetition gets the first answer, a
    /// refusal too.
    ///
    /// # Errors
    /// `QuotaExceeded`, `MetricUnknown`, `IdempotencyKeyReused`, `QuotaContended`, `Overloaded`.
    pub async fn consume(&self, ctx: &Ctx, of: Of<'_>, what: Consumption) -> Result<Consumed, Error> {
        consumable(of.1, what.amounts.keys())?;
        let who = self.known(of.0.tenant_id, what.who).await?;
        let charges = self.charges(ctx, of, &what.amounts, who).await?;
        let mut payload_hash = payload_hash(&what.amounts);
        if what.best_effort {
            payload_hash = sha256(&[&payload_hash[..], b"best effort"].concat());
        }
        let item = Item {
            key: event_key(of.0.tenant_id, what.key.as_deref(), ctx.now),
            is_keyed: what.key.is_some(),
            payload_hash,
            action: Action::Consume { best_effort: what.best_effort },
            charges,
            leased: what.leased,
            at: ctx.now,
            event_at: what.event_at.unwrap_or(ctx.now),
            details: Arc::new(details(what.details, who)),
            deadline: self.quota.deadline(PATIENCE),
        };
        let told = told(self.quota.engine.submit(item).await, &what.amounts)?;
        let refused = |charge: &&Charge| charge.amount == 0;
        let shortages = shortages(told.charges.iter().filter(refused), &what.amounts);
        Ok(Consumed { usage: views::told(of.1, &told.charges), shortages, promised: told.promised })
    }

    /// Amounts as charges on the accounts that count them.
    async fn charges(&self, ctx: &Ctx, of: Of<'_>, amounts: &Amounts, who: Who) -> Result<Vec<Charge>, Error> {
        let mut charges = Vec::with_capacity(amounts.len());
        for (metric, amount) in amounts {
            for account in self.accounts_of(ctx, of, metric, who).await? {
                charges.push(Charge {
                    metric: account.metric.clone(),
                    account: account.key,
                    amount: *amount,
                    refunded: 0,
                    standing: Standing::default(),
                });
            }
        }
        Ok(charges)
    }
}

/// The key of an event: the caller's, or a new one.
fn event_key(tenant: TenantId, key: Option<&str>, now: Timestamp) -> EventKey {
    let key = key.map_or_else(|| format!("{OWN_KEYS}{}", entropy::id(now).simple()).into(), Arc::from);
    EventKey { tenant, key }
}

/// Details with the person and key in them.
fn details(details: Details, who: Who) -> Details {
    Details { member: who.member.map(|id| id.0), api_key: who.api_key.map(|id| id.0), ..details }
}

/// What an outcome is to the caller.
fn told(outcome: Outcome, amounts: &Amounts) -> Result<Told, Error> {
    Err(match outcome {
        Outcome::Admitted(told) => return Ok(told),
        Outcome::Refused(charges) => Error::QuotaExceeded(shortages(charges.iter(), amounts)),
        Outcome::Conflict => Error::IdempotencyKeyReused,
        Outcome::NotFound => Error::UsageEventNotFound,
        Outcome::Closed(state) => Error::HoldClosed(state.as_str()),
        Outcome::Beyond(metric, left) => Error::BeyondAmount { metric: metric.to_string(), left },
        Outcome::Contended => Error::QuotaContended,
        Outcome::Overloaded => Error::Overloaded,
        Outcome::Away(reason) => Error::DatabaseUnavailable(reason.into()),
        Outcome::Broken(reason) => Error::Internal(reason.into()),
    })
}

/// Which of these charges fell short: those that the amount does not fit into, and all when none of them tells why.
fn shortages<'a>(charges: impl Iterator<Item = &'a Charge> + Clone, amounts: &Amounts) -> Vec<Shortage> {
    let shortage = |charge: &Charge| {
        let amount = amounts.get(&*charge.metric).copied().unwrap_or(0);
        let standing = charge.standing;
        let limit = standing.limit?;
        let used = standing.used + standing.reserved;
        let resets_at = Timestamp::from_micros(standing.resets_at);
        Some(Shortage { metric: charge.metric.to_string(), amount, used, limit, resets_at })
    };
    let all: Vec<Shortage> = charges.filter_map(shortage).collect();
    let short: Vec<Shortage> = all.iter().filter(|s| s.used.saturating_add(s.amount) > s.limit).cloned().collect();
    if short.is_empty() { all } else { short }
}

/// Checks that the catalogue has all these metrics.
pub(super) fn known_metrics<'a>(
    catalogue: &Catalogue,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<(), Error> {
    match names.into_iter().find(|name| !catalogue.definition.metrics.contains_key(*name)) {
        // It travels back in a header, and clients take only so much of those.
        Some(unknown) => Err(Error::MetricUnknown(unknown.chars().take(64).collect())),
        None => Ok(()),
    }
}

/// Checks that all these metrics can be consumed: counters and gauges, but not the seats, which members take.
fn consumable<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        known_metrics(catalogue, [name])?;
        let counts = |metric: &Metric| matches!(metric.kind, MetricKind::Counter | MetricKind::Gauge);
        if name == MEMBERS || !catalogue.definition.metrics.get(name).is_some_and(counts) {
            return Err(Error::field("amounts", format!("`{name}` is no counter and no gauge: it cannot be consumed")));
        }
    }
    Ok(())
}

/// What identifies a payload: its metrics and amounts, in order.
fn payload_hash(amounts: &Amounts) -> [u8; 32] {
    let lines: Vec<String> = amounts.iter().map(|(metric, amount)| format!("{metric}={amount}")).collect();
    sha256(lines.join(";").as_bytes())
}
