//! Recording after the fact, and corrections.

use std::time::Duration;

use chrono::TimeDelta;
use tonic::{Request, Streaming};

use super::consume::details;
use crate::app::usage::record::GaugeChange;
use crate::app::usage::{Consumption, Who};
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::catalogue::MAX_AMOUNT;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::status::reason;
use crate::rpc::{Services, convert, v1};

/// How old events may be, and how far ahead of the server's clock.
const OLDEST: TimeDelta = TimeDelta::days(90);
const AHEAD: TimeDelta = TimeDelta::minutes(10);

/// Events of a stream that are taken at once.
const AT_ONCE: usize = 500;

/// How long a stream collects events before it records those that have come.
const LINGER: Duration = Duration::from_millis(20);

/// Refusals of a stream that are told.
const TOLD: usize = 1000;

/// How often it is looked whether a stream's credential is still good.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(5);

pub(super) async fn refund(s: &Services, request: Request<v1::RefundRequest>) -> Result<v1::RefundResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let ok = (1..=128).contains(&m.event_key.len()) && m.event_key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    f.read("event_key", if ok { Ok(()) } else { Err("must be the key of an event") });
    let amounts = f.amounts(&m.amounts, 0);
    let key = f.idempotency_key(&m.idempotency_key);
    let (Some(amounts), Some(key), true) = (amounts, key, f.is_clean()) else { return Err(f.refuse()) };
    let of = (&t.tenant, &*t.catalogue);
    let usage = s.0.app.refund(&t.ctx, of, &m.event_key, &amounts, key.as_deref()).await?;
    Ok(v1::RefundResponse { usage: usage.iter().map(convert::usage).collect() })
}

pub(super) async fn set_gauge(
    s: &Services,
    request: Request<v1::SetGaugeRequest>,
) -> Result<v1::SetGaugeResponse, Error> {
    use v1::set_gauge_request::Change;
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    f.read("metric", if (1..=64).contains(&m.metric.len()) { Ok(()) } else { Err("must name a metric") });
    let key = f.idempotency_key(&m.idempotency_key);
    let change = match m.change {
        Some(Change::Value(value)) if (0..=MAX_AMOUNT).contains(&value) => {
            Some(GaugeChange::Set { value, sequence: m.sequence })
        }
        Some(Change::Value(_)) => f.read("value", Err("must be 0 to 2^53")),
        Some(Change::LowerBy(by)) if (1..=MAX_AMOUNT).contains(&by) => Some(GaugeChange::Lower(by)),
        Some(Change::LowerBy(_)) => f.read("lower_by", Err("must be 1 to 2^53")),
        None => f.read("value", Err("or lower_by must be there")),
    };
    let by = matches!(change, Some(GaugeChange::Lower(_)));
    let fits = if by && m.sequence.is_some() { Err("is for value") } else { Ok(()) };
    f.read("sequence", fits);
    let fits =
        if !by && !m.idempotency_key.is_empty() { Err("is for lower_by; value has its sequence") } else { Ok(()) };
    f.read("idempotency_key", fits);
    let (Some(change), Some(key), true) = (change, key, f.is_clean()) else { return Err(f.refuse()) };
    let of = (&t.tenant, &*t.catalogue);
    let (usage, applied) = s.0.app.set_gauge(&t.ctx, of, &m.metric, change, key.as_deref()).await?;
    Ok(v1::SetGaugeResponse { usage: Some(convert::usage(&usage)), applied })
}

pub(super) async fn record_usage(
    s: &Services,
    request: Request<v1::RecordUsageRequest>,
) -> Result<v1::RecordUsageResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    if !(1..=1000).contains(&m.events.len()) {
        return Err(Error::field("events", "must be 1 to 1,000"));
    }
    let events = m.events.into_iter().map(|event| read(&t.ctx, event)).collect();
    let results = s.0.app.record(&t.ctx, (&t.tenant, &t.catalogue), events).await;
    Ok(v1::RecordUsageResponse { results: results.iter().map(result).collect() })
}

pub(super) async fn stream_usage(
    s: &Services,
    request: Request<Streaming<v1::StreamUsageRequest>>,
) -> Result<v1::StreamUsageResponse, Error> {
    let _turn = s.0.stream_turn()?;
    let (t, first, mut events) = s.0.enter_stream(request).await?;
    let mut first = first.map(|first| first.event.unwrap_or_default());
    let mut told = v1::StreamUsageResponse::default();
    let (mut now, mut looked) = (t.ctx.now, t.ctx.now);
    loop {
        let (some, more) = collect(first.take(), &mut events).await?;
        now = s.0.app.clock.now().max(now);
        if now.since(looked) >= LOOK_AGAIN {
            looked = now;
            s.0.app.plane.still_live(&t.ctx.caller, now).await?;
        }
        take(s, &t, Ctx { now, ..t.ctx.clone() }, some, &mut told).await;
        if !more {
            return Ok(told);
        }
    }
}

/// The events that have come: at least one, unless the client has ended, and whether there may be more.
async fn collect(
    first: Option<v1::UsageEvent>,
    events: &mut Streaming<v1::StreamUsageRequest>,
) -> Result<(Vec<v1::UsageEvent>, bool), Error> {
    let broken = |status: tonic::Status| Error::BodyMalformed(status.message().chars().take(200).collect());
    let mut some: Vec<v1::UsageEvent> = first.into_iter().collect();
    if some.is_empty() {
        let Some(next) = events.message().await.map_err(broken)? else { return Ok((some, false)) };
        some.push(next.event.unwrap_or_default());
    }
    let end = tokio::time::Instant::now() + LINGER;
    while some.len() < AT_ONCE {
        match tokio::time::timeout_at(end, events.message()).await {
            Ok(Ok(Some(next))) => some.push(next.event.unwrap_or_default()),
            Ok(Ok(None)) => return Ok((some, false)),
            Ok(Err(status)) => return Err(broken(status)),
            Err(_) => break,
        }
    }
    Ok((some, true))
}

async fn take(s: &Services, t: &TenantCtx, ctx: Ctx, some: Vec<v1::UsageEvent>, told: &mut v1::StreamUsageResponse) {
    let first = told.recorded + told.refused;
    let events = some.into_iter().map(|event| read(&ctx, event)).collect();
    let results = s.0.app.record(&ctx, (&t.tenant, &t.catalogue), events).await;
    for (index, outcome) in (first..).zip(&results) {
        if outcome.is_ok() {
            told.recorded += 1;
            continue;
        }
        told.refused += 1;
        if told.refusals.len() < TOLD {
            told.refusals.push(v1::RefusedEvent { index, result: Some(result(outcome)) });
        }
    }
}

fn read(ctx: &Ctx, event: v1::UsageEvent) -> Result<Consumption, Error> {
    let mut f = Fields::default();
    let amounts = f.amounts(&event.amounts, 1);
    let key = f.idempotency_key(&event.idempotency_key);
    let bounds = (ctx.now.after(-OLDEST), ctx.now.after(AHEAD));
    let event_at = f.time("event_time", event.event_time.as_ref(), bounds);
    let details = details(&mut f, "details.", event.details);
    let (Some(amounts), Some(key), Some(event_at), Some((details, named))) = (amounts, key, event_at, details) else {
        return Err(f.refuse());
    };
    let who = Who::named(ctx, named, "details.")?;
    Ok(Consumption { amounts, key, who, details, event_at, ..Consumption::default() })
}

fn result(outcome: &Result<bool, Error>) -> v1::RecordResult {
    match outcome {
        Ok(already_recorded) => v1::RecordResult { already_recorded: *already_recorded, ..v1::RecordResult::default() },
        Err(error) => {
            v1::RecordResult { reason: reason(error).to_owned(), message: error.to_string(), already_recorded: false }
        }
    }
}
