//! Recording after the fact, and corrections.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::time::timeout_at;
use tonic::{Request, Streaming};

use super::consume::details;
use crate::app::usage::record::GaugeChange;
use crate::app::usage::{Consumption, Who};
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::catalogue::MAX_AMOUNT;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::front::Deadline;
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

/// How long a stream waits for the next event: it has a turn that others wait for.
const IDLE: Duration = Duration::from_mins(1);

/// How long before it is given up a stream ends by itself; of a short one, half of its time.
const MARGIN: Duration = Duration::from_secs(10);

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
    let _turn = s.0.stream_turn(&request)?;
    let end = request.extensions().get::<Deadline>().map_or_else(Instant::now, end_of);
    let entered = tokio::time::timeout(IDLE, s.0.enter_stream(request)).await;
    let (mut t, first, mut events) = entered.map_err(|_| Error::DeadlineExceeded)??;
    let mut first = first.map(|first| first.event.unwrap_or_default());
    let mut told = v1::StreamUsageResponse::default();
    let mut looked = Instant::now();
    loop {
        let (some, more) = collect(first.take(), &mut events, end).await?;
        t.ctx.now = s.0.app.clock.now().max(t.ctx.now);
        // Asked anew is all that the gate asks: no right outlives its end by more than in other calls.
        if looked.elapsed() >= s.0.app.plane.memory.max_staleness() {
            looked = Instant::now();
            s.0.app.still_allowed(&t).await?;
            let found = s.0.app.plane.find_settled(t.tenant_id(), t.ctx.now).await?;
            (t.tenant, t.catalogue) = found.ok_or(Error::TenantNotFound)?;
        }
        take(s, &t, some, &mut told).await;
        if !more {
            return Ok(told);
        }
    }
}

/// When a stream ends by itself, so that what was recorded is told before the call is given up.
fn end_of(deadline: &Deadline) -> Instant {
    let now = Instant::now();
    let left = deadline.0.saturating_duration_since(now);
    now + left.saturating_sub(MARGIN.min(left / 2))
}

/// The events that have come: at least one, unless the client has ended, or the stream's time has, or nothing comes; and
/// whether there may be more.
async fn collect(
    first: Option<v1::UsageEvent>,
    events: &mut Streaming<v1::StreamUsageRequest>,
    last: Instant,
) -> Result<(Vec<v1::UsageEvent>, bool), Error> {
    let broken = |status: tonic::Status| Error::BodyMalformed(status.message().chars().take(200).collect());
    let mut some: Vec<v1::UsageEvent> = first.into_iter().collect();
    if some.is_empty() {
        let until = last.min(Instant::now() + IDLE);
        let Ok(next) = timeout_at(until.into(), events.message()).await else { return Ok((some, false)) };
        let Some(next) = next.map_err(broken)? else { return Ok((some, false)) };
        some.push(next.event.unwrap_or_default());
    }
    let end = Instant::now() + LINGER;
    while some.len() < AT_ONCE {
        match timeout_at(end.into(), events.message()).await {
            Ok(Ok(Some(next))) => some.push(next.event.unwrap_or_default()),
            Ok(Ok(None)) => return Ok((some, false)),
            Ok(Err(status)) => return Err(broken(status)),
            Err(_) => break,
        }
    }
    Ok((some, Instant::now() < last))
}

async fn take(s: &Services, t: &TenantCtx, some: Vec<v1::UsageEvent>, told: &mut v1::StreamUsageResponse) {
    let first = told.recorded + told.refused;
    let events = some.into_iter().map(|event| read(&t.ctx, event)).collect();
    let results = s.0.app.record(&t.ctx, (&t.tenant, &t.catalogue), events).await;
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
