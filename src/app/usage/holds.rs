//! Reservations and slots: amounts that are set aside until somebody says what becomes of them, or their time is over. One
//! mechanism, two names: a reservation is of an amount that is not known yet, a slot of something that runs.

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use super::{
    Amounts, OF_RATES, OWN_KEYS, Of, PATIENCE, UsageView, Who, countable, details, event_key, is_rate, no_rates,
    payload_hash, told, views,
};
use crate::app::App;
use crate::ctx::{Caller, Ctx};
use crate::decide::quota::{Action, Item, NamedHold, NewHold, Outcome, Told};
use crate::domain::catalogue::{Catalogue, MetricKind};
use crate::domain::id::TenantId;
use crate::domain::quota::{Details, EventKey, HoldKind, HoldRow, HoldState};
use crate::entropy;
use crate::error::Error;
use crate::store::InTenant;
use crate::store::quota::find_opening;

/// What is to be set aside.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How much of what.
    pub amounts: Amounts,
    /// For how long.
    pub ttl: TimeDelta,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// For whom.
    pub who: Who,
    /// Who will hold it, in the caller's words.
    pub holder: String,
}

/// What was set aside, or became of it.
#[derive(Debug, Clone)]
pub struct Hold {
    /// The hold.
    pub row: HoldRow,
    /// Where the metrics stand.
    pub usage: Vec<UsageView>,
}

impl App {
    /// Sets amounts of counters and gauges aside.
    ///
    /// # Errors
    /// As `consume`.
    pub async fn reserve(&self, ctx: &Ctx, of: Of<'_>, wish: Wish) -> Result<Hold, Error> {
        countable(of.1, wish.amounts.keys())?;
        self.hold(ctx, of, HoldKind::Reservation, wish).await
    }

    /// Takes a slot of a metric that bounds what runs at the same time.
    ///
    /// # Errors
    /// As `consume`.
    pub async fn acquire_slot(&self, ctx: &Ctx, of: Of<'_>, wish: Wish) -> Result<Hold, Error> {
        runs_at_once(of.1, wish.amounts.keys())?;
        self.hold(ctx, of, HoldKind::Slot, wish).await
    }

    async fn hold(&self, ctx: &Ctx, of: Of<'_>, kind: HoldKind, wish: Wish) -> Result<Hold, Error> {
        let who = self.known(of.0.tenant_id, wish.who).await?;
        let ttl = wish.ttl.num_microseconds().unwrap_or(i64::MAX);
        let rest = [&kind.number().to_be_bytes()[..], &ttl.to_be_bytes(), wish.holder.as_bytes()];
        let hash = payload_hash(&wish.amounts, who.named_by(&ctx.caller), &rest);
        let new = NewHold {
            hold: entropy::id(ctx.now),
            kind,
            holder: wish.holder.into(),
            opened_by: opener(&ctx.caller),
            expires_at: ctx.now.after(wish.ttl),
        };
        let item = Item {
            key: event_key(of.0.tenant_id, wish.key.as_deref(), ctx.now),
            is_keyed: wish.key.is_some(),
            payload_hash: hash,
            action: Action::Reserve(new),
            charges: self.charges(ctx, of, &wish.amounts, who).await?,
            leased: false,
            at: ctx.now,
            event_at: ctx.now,
            details: Arc::new(details(Details::default(), who)),
            deadline: self.quota.deadline(PATIENCE),
        };
        held(of.1, told(self.quota.engine.submit(item).await, &wish.amounts)?)
    }

    /// Uses what a reservation set aside; all of it when no amounts are named.
    ///
    /// # Errors
    /// `HoldNotFound`, `HoldClosed`, `BeyondAmount`.
    pub async fn commit_reservation(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        hold: Uuid,
        amounts: &Amounts,
    ) -> Result<Hold, Error> {
        no_rates(of.1, amounts.keys())?;
        let named_hold = NamedHold { id: hold, kind: HoldKind::Reservation, opened_by: only_by(&ctx.caller) };
        // The engine asks this too, of the locked row, but not of a repetition: that goes by the key alone, and would tell a
        // stranger that somebody has committed it. What is asked here never changes.
        let opening = find_opening(&mut self.store.read(InTenant(of.0.tenant_id)).await?, hold).await?;
        let is_theirs = |by: Uuid| named_hold.opened_by.is_none_or(|id| id == by);
        let opening = opening.filter(|found| found.kind == named_hold.kind && is_theirs(found.opened_by));
        let opening = opening.ok_or(Error::HoldNotFound)?;
        let named = amounts.iter().map(|(metric, amount)| (Arc::from(metric.as_str()), *amount)).collect();
        let action = Action::Commit { hold: named_hold, amounts: named };
        let item = Item {
            // Whoever repeats it finds the first commit by this key.
            key: EventKey { tenant: of.0.tenant_id, key: format!("{OWN_KEYS}commit:{}", hold.simple()).into() },
            is_keyed: true,
            payload_hash: payload_hash(amounts, Who::default(), &[]),
            // It is used by whoever it was set aside for.
            details: Arc::new(Details { member: opening.member, api_key: opening.api_key, ..Details::default() }),
            ..self.change(ctx, of.0.tenant_id, action)
        };
        let told = match self.quota.engine.submit(item).await {
            // Committed, with other amounts.
            Outcome::Conflict => return Err(Error::HoldClosed(HoldState::Committed.as_str())),
            other => self::told(other, amounts).map_err(of_hold)?,
        };
        held(of.1, told)
    }

    /// Gives back what a hold set aside.
    ///
    /// # Errors
    /// `HoldNotFound`, `HoldClosed`.
    pub async fn release_hold(&self, ctx: &Ctx, of: Of<'_>, (kind, id): (HoldKind, Uuid)) -> Result<HoldRow, Error> {
        let action = Action::Release(NamedHold { id, kind, opened_by: only_by(&ctx.caller) });
        let item = self.change(ctx, of.0.tenant_id, action);
        let told = told(self.quota.engine.submit(item).await, &Amounts::new()).map_err(of_hold)?;
        told.hold.ok_or(Error::HoldNotFound)
    }

    /// Keeps holds for longer, each for itself.
    ///
    /// # Errors
    /// None; in the results `HoldNotFound`, `HoldClosed`.
    pub async fn extend_holds(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        (kind, ids): (HoldKind, &[Uuid]),
        ttl: TimeDelta,
    ) -> Vec<Result<HoldRow, Error>> {
        let (opened_by, expires_at) = (only_by(&ctx.caller), ctx.now.after(ttl));
        let item = |id: &Uuid| {
            let hold = NamedHold { id: *id, kind, opened_by };
            self.change(ctx, of.0.tenant_id, Action::Extend { hold, expires_at })
        };
        let outcomes = self.submit_all(ids.iter().map(item).collect()).await;
        let result = |outcome| told(outcome, &Amounts::new()).map_err(of_hold)?.hold.ok_or(Error::HoldNotFound);
        outcomes.into_iter().map(result).collect()
    }

    /// An item that changes what there is.
    fn change(&self, ctx: &Ctx, tenant: TenantId, action: Action) -> Item {
        Item {
            key: event_key(tenant, None, ctx.now),
            is_keyed: false,
            payload_hash: [0; 32],
            action,
            charges: Vec::new(),
            leased: false,
            at: ctx.now,
            event_at: ctx.now,
            details: Arc::new(details(Details::default(), Who::of(&ctx.caller))),
            deadline: self.quota.deadline(PATIENCE),
        }
    }
}

/// Who opens a hold.
fn opener(caller: &Caller) -> Uuid {
    caller.principal().unwrap_or_default()
}

/// Who must have opened a hold that a caller may touch; anybody for services and operators.
fn only_by(caller: &Caller) -> Option<Uuid> {
    if caller.speaks_for_platform() { None } else { Some(opener(caller)) }
}

fn held(catalogue: &Catalogue, told: Told) -> Result<Hold, Error> {
    let usage = views::told(catalogue, &told.charges);
    told.hold.map(|row| Hold { row, usage }).ok_or(Error::HoldNotFound)
}

/// What is not found is a hold here.
fn of_hold(error: Error) -> Error {
    match error {
        Error::UsageEventNotFound => Error::HoldNotFound,
        other => other,
    }
}

/// Checks that all these metrics bound what runs at the same time.
fn runs_at_once<'a>(catalogue: &Catalogue, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        super::known_metrics(catalogue, [name])?;
        if catalogue.definition.metrics.get(name).is_none_or(|metric| metric.kind != MetricKind::Concurrency) {
            let right = if is_rate(catalogue, name) {
                format!("this is {OF_RATES}")
            } else {
                "Consume and Reserve are for counters and gauges".to_owned()
            };
            return Err(Error::field(
                "metric",
                format!("must be of kind concurrency, and `{name}` has no slots; {right}"),
            ));
        }
    }
    Ok(())
}
