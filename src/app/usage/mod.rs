//! Usage: what is consumed, set aside and recorded against the limits of a tenant, and where metrics stand. Here requests
//! become items of the quota engine (`decide/quota`), which decides and writes them, and its outcomes become answers. Rates
//! are decided before that, in memory (`rates.rs`).

pub mod accounts;
pub mod events;
pub mod holds;
mod monthly;
mod people;
pub mod rates;
pub mod record;
pub mod reports;
mod retention;
pub mod thresholds;
pub mod verify;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::App;
use crate::ctx::{Caller, Ctx};
use crate::decide::quota::{Action, Item, Outcome, Told};
use crate::domain::catalogue::{Catalogue, MEMBERS, MetricKind};
use crate::domain::id::{ApiKeyId, TenantId, UserId};
use crate::domain::quota::{Charge, Details, EventKey, Standing};
use crate::domain::secret::sha256;
use crate::domain::tenant::Tenant;
use crate::entropy;
use crate::error::{Error, RateShortage, Shortage};
use crate::time::Timestamp;

use rates::is_rate;
pub use views::{Checked, UsageView};
pub(super) use views::{of_counted, used_of};

/// How long a request waits for units that are leased elsewhere: longer than it takes to take them back from a server that
/// is gone.
const PATIENCE: Duration = Duration::from_secs(4);

/// What keys of the server's own begin with; callers' may not.
pub const OWN_KEYS: &str = "tenantry:";

/// Which methods are for rates, as the end of a sentence that begins with one.
const OF_RATES: &str = "a rate: Consume and CheckQuota are for those, and what is used of them comes back by itself";

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
    /// Of whom of these a call speaks that is not made by them. Keys are the tenant's: whoever repeats a call with the same
    /// words repeats it.
    fn named_by(self, caller: &Caller) -> Self {
        let own = Self::of(caller);
        Self {
            member: self.member.filter(|_| own.member.is_none()),
            api_key: self.api_key.filter(|_| own.api_key.is_none()),
        }
    }

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
    /// Of that, what did not go through its rate.
    pub too_fast: Vec<RateShortage>,
    /// Whether it was answered before it was committed.
    pub promised: bool,
}

/// The tenant of a call, with the catalogue that holds for it.
pub type Of<'a> = (&'a Tenant, &'a Catalogue);

impl App {
    /// Consumes amounts: all or none, or of each metric what there is. With a key, a repetition gets the first answer, a
    /// refusal too; but one for a rate, of which nothing is kept.
    ///
    /// # Errors
    /// `QuotaExceeded`, `TooFast`, `MetricUnknown`, `IdempotencyKeyReused`, `QuotaContended`, `Overloaded`.
    pub async fn consume(&self, ctx: &Ctx, of: Of<'_>, mut what: Consumption) -> Result<Consumed, Error> {
        let each = what.best_effort;
        consumable(of.1, what.amounts.keys())?;
        let who = self.known(of.0.tenant_id, what.who).await?;
        let rest: &[&[u8]] = if each { &[b"best effort"] } else { &[] };
        // Nobody compares the payload of what has no key.
        let hash = what.key.as_ref().map_or([0; 32], |_| payload_hash(&what.amounts, who.named_by(&ctx.caller), rest));
        let (limited, counted): (Amounts, Amounts) =
            std::mem::take(&mut what.amounts).into_iter().partition(|(metric, _)| is_rate(of.1, metric));
        let item =
            if counted.is_empty() { None } else { Some(self.consumption(ctx, of, what, (&counted, who, hash)).await?) };
        // Rates first: what they refuse has no need of the rows.
        let mut rated = self.take_rates(of, (&limited, who), each, ctx.now).await?;
        let is_refused = !rated.short.is_empty() && !(each && (item.is_some() || rated.has_admitted()));
        let outcome = match item {
            None if is_refused => return Err(Error::TooFast(rated.short)),
            None => return Ok(Consumed { usage: rated.views, too_fast: rated.short, ..Consumed::default() }),
            // What was answered before is answered the same, however fast it is asked again.
            Some(item) if is_refused => match self.answered_before(&item).await? {
                Some(outcome) => outcome,
                None => return Err(Error::TooFast(rated.short)),
            },
            Some(item) => {
                let outcome = self.quota.engine.submit(item).await;
                if gives_back(&outcome, each) {
                    self.give_back_rates(&mut rated);
                }
                outcome
            }
        };
        // What fits no counter may still have gone through a rate.
        let told = match outcome {
            Outcome::Refused(charges) if each && rated.has_admitted() => {
                Told { charges, promised: false, is_repetition: false, hold: None }
            }
            outcome => told(outcome, &counted)?,
        };
        let refused = |charge: &&Charge| charge.amount == 0;
        let shortages = shortages(told.charges.iter().filter(refused), &counted);
        let usage = views::merged(views::told(of.1, &told.charges), rated.views);
        // All or none, whoever has a first answer has all of it.
        let too_fast = if each { rated.short } else { Vec::new() };
        Ok(Consumed { usage, shortages, too_fast, promised: told.promised })
    }

    /// An item of what is counted.
    async fn consumption(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        what: Consumption,
        (counted, who, payload_hash): (&Amounts, Who, [u8; 32]),
    ) -> Result<Item, Error> {
        Ok(Item {
            key: event_key(of.0.tenant_id, what.key.as_deref(), ctx.now),
            is_keyed: what.key.is_some(),
            payload_hash,
            action: Action::Consume { best_effort: what.best_effort },
            charges: self.charges(ctx, of, counted, who).await?,
            leased: what.leased,
            at: ctx.now,
            event_at: what.event_at.unwrap_or(ctx.now),
            details: Arc::new(details(what.details, who)),
            deadline: self.quota.deadline(PATIENCE),
        })
    }

    /// What an item was answered before, if it was.
    async fn answered_before(&self, item: &Item) -> Result<Option<Outcome>, Error> {
        if !item.is_keyed {
            return Ok(None);
        }
        self.quota.engine.repeated(item).await.map_err(|fault| Error::DatabaseUnavailable(format!("{fault:?}").into()))
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
        Outcome::OutOfRange(metric) => {
            Error::field("amounts", format!("must keep the sum of `{metric}` in a period below 2^62"))
        }
        Outcome::Contended => Error::QuotaContended,
        Outcome::Overloaded => Error::Overloaded,
        Outcome::Away(reason) => Error::DatabaseUnavailable(reason.into()),
        Outcome::Broken(reason) => Error::Internal(reason.into()),
    })
}

/// Whether what went through rates is given back because nothing was charged with it. Not when that is not known: it comes
/// back by itself. What each decides for itself is charged for itself, a repetition too.
const fn gives_back(outcome: &Outcome, each: bool) -> bool {
    match outcome {
        Outcome::Admitted(told) => told.is_repetition && !each,
        Outcome::Refused(_) => !each,
        Outcome::Away(_) => false,
        _ => true,
    }
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

/// Checks that all these metrics can be consumed: counters, gauges and rates, but not the seats, which members take.
fn consumable<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    names.into_iter().try_for_each(|name| if is_rate(catalogue, name) { Ok(()) } else { countable(catalogue, [name]) })
}

/// Checks that all these metrics are counted: counters and gauges.
fn countable<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        known_metrics(catalogue, [name])?;
        no_rates(catalogue, [name])?;
        let wrong = match catalogue.definition.metrics.get(name).map(|metric| metric.kind) {
            _ if name == MEMBERS => "are the seats: members take them as they join",
            Some(MetricKind::Concurrency) => "bounds what runs at the same time: AcquireSlot takes it",
            _ => continue,
        };
        return Err(Error::field("amounts", format!("must be counters or gauges; `{name}` {wrong}")));
    }
    Ok(())
}

/// Checks that none of these metrics is a rate.
fn no_rates<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    match names.into_iter().find(|name| is_rate(catalogue, name)) {
        Some(name) => Err(Error::field("amounts", format!("must not have `{name}`, {OF_RATES}"))),
        None => Ok(()),
    }
}

/// What identifies a payload: its metrics and amounts in order, for whom they are, and what else the request says. Each part
/// with its length, so that no two payloads are the same bytes.
fn payload_hash(amounts: &Amounts, who: Who, rest: &[&[u8]]) -> [u8; 32] {
    let member = who.member.map_or(Uuid::nil(), |id| id.0);
    let api_key = who.api_key.map_or(Uuid::nil(), |id| id.0);
    let mut bytes = [*member.as_bytes(), *api_key.as_bytes()].concat();
    let mut add = |part: &[u8]| {
        bytes.extend(part.len().to_be_bytes());
        bytes.extend(part);
    };
    for (metric, amount) in amounts {
        add(metric.as_bytes());
        add(&amount.to_be_bytes());
    }
    for part in rest {
        add(part);
    }
    sha256(&bytes)
}
