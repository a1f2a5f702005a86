//! Recording after the fact, and corrections: events that are never refused for quota, refunds, gauges that are set.

use std::sync::Arc;

use super::{
    Amounts, Consumption, OF_RATES, OWN_KEYS, Of, PATIENCE, UsageView, countable, details, event_key, is_rate,
    no_rates, payload_hash, told, views,
};
use crate::app::App;
use crate::ctx::Ctx;
use crate::decide::quota::{Action, Item, Outcome};
use crate::domain::catalogue::{Catalogue, MEMBERS, MetricKind};
use crate::domain::quota::{Charge, Details, EventKey, EventKind, EventRow};
use crate::entropy;
use crate::error::Error;
use crate::store::quota::accounts::{self, Level, Owner};
use crate::store::quota::{insert_event, insert_rollup, notices};
use crate::store::{InTenant, tenants};

/// What a gauge is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaugeChange {
    /// To this level, unless a later set was there.
    Set {
        /// The level.
        value: i64,
        /// Rises with each set at its source.
        sequence: Option<i64>,
    },
    /// Lower by so much, to 0 at most.
    Lower(i64),
}

impl App {
    /// Has items decided side by side; their outcomes, in order.
    pub(super) async fn submit_all(&self, items: Vec<Item>) -> Vec<Outcome> {
        let answers: Vec<_> = items.into_iter().map(|item| self.quota.engine.begin(item)).collect();
        let mut outcomes = Vec::with_capacity(answers.len());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for answer in answers {
            let told = tokio::time::timeout_at(deadline, answer).await;
            let late =
                || Outcome::Away("it was not committed in time: the same again tells what became of it".to_owned());
            outcomes.push(told.ok().and_then(Result::ok).unwrap_or_else(late));
        }
        outcomes
    }

    /// Records events, each for itself; whether there was one with its key before.
    ///
    /// # Errors
    /// None; in the results `MetricUnknown`, `MemberNotFound`, `KeyNotFound`, `IdempotencyKeyReused`, `Overloaded`.
    pub async fn record(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        events: Vec<Result<Consumption, Error>>,
    ) -> Vec<Result<bool, Error>> {
        let mut results: Vec<Option<Result<bool, Error>>> = Vec::with_capacity(events.len());
        let mut items = Vec::with_capacity(events.len());
        for event in events {
            let item = match event {
                Ok(event) => self.recorded(ctx, of, event).await,
                Err(refused) => Err(refused),
            };
            match item {
                Ok(item) => {
                    items.push(item);
                    results.push(None);
                }
                Err(refused) => results.push(Some(Err(refused))),
            }
        }
        let none = Amounts::new();
        let mut outcomes = self.submit_all(items).await.into_iter();
        let result = |known: Option<Result<bool, Error>>| {
            known.unwrap_or_else(|| {
                let outcome = outcomes.next().unwrap_or(Outcome::Overloaded);
                told(outcome, &none).map(|told| told.is_repetition)
            })
        };
        results.into_iter().map(result).collect()
    }

    async fn recorded(&self, ctx: &Ctx, of: Of<'_>, event: Consumption) -> Result<Item, Error> {
        countable(of.1, event.amounts.keys())?;
        let who = self.known(of.0.tenant_id, event.who).await?;
        let charges = self.charges(ctx, of, &event.amounts, who).await?;
        let hash = match &event.key {
            // What else the event says is part of what its key stands for.
            Some(_) => {
                let at = event.event_at.map_or(i64::MIN, crate::time::Timestamp::micros).to_be_bytes();
                let rest = [&b"record"[..], &at, &said(&event.details)];
                payload_hash(&event.amounts, who.named_by(&ctx.caller), &rest)
            }
            None => [0; 32],
        };
        Ok(Item {
            key: event_key(of.0.tenant_id, event.key.as_deref(), ctx.now),
            is_keyed: event.key.is_some(),
            payload_hash: hash,
            action: Action::Record,
            charges,
            leased: false,
            at: ctx.now,
            event_at: event.event_at.unwrap_or(ctx.now),
            details: Arc::new(details(event.details, who)),
            deadline: self.quota.deadline(PATIENCE),
        })
    }

    /// Gives back what an event has used; all that is left of it when no amounts are named.
    ///
    /// # Errors
    /// `UsageEventNotFound`, `BeyondAmount`, `IdempotencyKeyReused`.
    pub async fn refund(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        event: &str,
        amounts: &Amounts,
        key: Option<&str>,
    ) -> Result<Vec<UsageView>, Error> {
        no_rates(of.1, amounts.keys())?;
        let named = amounts.iter().map(|(metric, amount)| (Arc::from(metric.as_str()), *amount)).collect();
        let item = Item {
            key: event_key(of.0.tenant_id, key, ctx.now),
            is_keyed: key.is_some(),
            payload_hash: payload_hash(amounts, super::Who::default(), &[b"refund", event.as_bytes()]),
            action: Action::Refund { of: event.into(), amounts: named },
            charges: Vec::new(),
            leased: false,
            at: ctx.now,
            event_at: ctx.now,
            details: Arc::default(),
            deadline: self.quota.deadline(PATIENCE),
        };
        let told = told(self.quota.engine.submit(item).await, amounts)?;
        Ok(views::told(of.1, &told.charges))
    }

    /// Sets or lowers a gauge. Gives where it stands, and whether it was set: not when a later set was there.
    ///
    /// # Errors
    /// `MetricUnknown`, `FieldsInvalid` for what is no gauge.
    pub async fn set_gauge(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        metric: &str,
        change: GaugeChange,
        key: Option<&str>,
    ) -> Result<(UsageView, bool), Error> {
        is_gauge(of.1, metric)?;
        match change {
            GaugeChange::Set { value, sequence } => self.set_level(ctx, of, metric, value, sequence).await,
            GaugeChange::Lower(by) => self.lower(ctx, of, metric, by, key).await,
        }
    }

    async fn lower(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        metric: &str,
        by: i64,
        key: Option<&str>,
    ) -> Result<(UsageView, bool), Error> {
        let amounts: Amounts = [(metric.to_owned(), -by)].into();
        let item = Item {
            key: event_key(of.0.tenant_id, key, ctx.now),
            is_keyed: key.is_some(),
            payload_hash: payload_hash(&amounts, super::Who::default(), &[b"lower"]),
            action: Action::Lower,
            charges: self.charges(ctx, of, &amounts, super::Who::default()).await?,
            leased: false,
            at: ctx.now,
            event_at: ctx.now,
            details: Arc::default(),
            deadline: self.quota.deadline(PATIENCE),
        };
        let told = told(self.quota.engine.submit(item).await, &amounts)?;
        let view = views::told(of.1, &told.charges).into_iter().next();
        view.map(|view| (view, true)).ok_or_else(|| Error::internal("a gauge was lowered and stands nowhere"))
    }

    /// In a transaction of the tenant's own: it takes back every lease of the account.
    async fn set_level(
        &self,
        ctx: &Ctx,
        of: Of<'_>,
        metric: &str,
        value: i64,
        sequence: Option<i64>,
    ) -> Result<(UsageView, bool), Error> {
        let opened = self.accounts_of(ctx, of, metric, super::Who::default()).await?;
        let account = opened.first().ok_or_else(|| Error::internal("a gauge has no account"))?;
        let mut tx = self.store.write(InTenant(of.0.tenant_id)).await?;
        tenants::share(&mut tx).await?;
        let set = accounts::set_level(&mut tx, account.key, value, sequence).await?;
        if let Some(Level { before, after, reached }) = &set {
            let charge = Charge {
                metric: account.metric.clone(),
                account: account.key,
                amount: value - before,
                refunded: 0,
                standing: after.standing(),
            };
            let key = format!("{OWN_KEYS}{}", entropy::id(ctx.now).simple()).into();
            let event = EventRow {
                key: EventKey { tenant: of.0.tenant_id, key },
                payload_hash: [0; 32],
                admitted: true,
                kind: EventKind::Set,
                leased: false,
                charges: vec![charge],
                decided_at: ctx.now,
                event_at: ctx.now,
                details: Arc::new(Details::default()),
                subject: Box::default(),
            };
            insert_event(&mut tx, &event).await?;
            insert_rollup(&mut tx, metric, value - before, ctx.now).await?;
            notices::insert(&mut tx, reached, ctx.now).await?;
        }
        let last = accounts::find_last(&mut tx, metric, Owner::TENANT).await?;
        tx.commit_unaudited(ctx.now).await?;
        let last = last.ok_or_else(|| Error::internal("a gauge was set and stands nowhere"))?;
        let charge = Charge {
            metric: account.metric.clone(),
            account: account.key,
            amount: 0,
            refunded: 0,
            standing: last.row.standing(),
        };
        let view = views::told(of.1, &[charge]).into_iter().next();
        view.map(|view| (view, set.is_some())).ok_or_else(|| Error::internal("a gauge was set and stands nowhere"))
    }
}

/// What an event says, for its hash.
fn said(details: &Details) -> Vec<u8> {
    serde_json::to_vec(details).unwrap_or_default()
}

fn is_gauge(catalogue: &Catalogue, metric: &str) -> Result<(), Error> {
    super::known_metrics(catalogue, [&metric.to_owned()])?;
    let gauge = catalogue.definition.metrics.get(metric).is_some_and(|known| known.kind == MetricKind::Gauge);
    if metric == MEMBERS || !gauge {
        let wrong = if is_rate(catalogue, metric) { format!("; this is {OF_RATES}") } else { String::new() };
        return Err(Error::field("metric", format!("must be a gauge of the catalogue{wrong}")));
    }
    Ok(())
}
