//! Consuming, and what is left.

use std::collections::HashMap;
use std::fmt::Display;

use chrono::TimeDelta;
use tonic::Request;
use uuid::Uuid;

use crate::app::usage::{Consumption, Who};
use crate::ctx::Ctx;
use crate::domain::id::{ApiKeyId, UserId};
use crate::domain::quota::Details;
use crate::error::{Error, RateShortage, Shortage};
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

pub(super) async fn consume(s: &Services, request: Request<v1::ConsumeRequest>) -> Result<v1::ConsumeResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let amounts = f.amounts(&m.amounts, 1);
    let key = f.idempotency_key(&m.idempotency_key);
    let level = match v1::AckLevel::try_from(m.ack_level) {
        Ok(v1::AckLevel::CheckOnly) => Err("must be DURABLE or LEASED; CheckQuota consumes nothing"),
        Ok(level) => Ok(level),
        Err(_) => Err("must be one of the levels that there are"),
    };
    let level = f.read("ack_level", level);
    let details = details(&mut f, "details.", m.details);
    let (Some(amounts), Some(key), Some(level), Some((details, named))) = (amounts, key, level, details) else {
        return Err(f.refuse());
    };
    let what = Consumption {
        amounts,
        key,
        best_effort: m.best_effort,
        leased: level == v1::AckLevel::Leased,
        who: Who::named(&t.ctx, named, "details.")?,
        details,
        event_at: None,
    };
    let consumed = s.0.app.consume(&t.ctx, (&t.tenant, &t.catalogue), what).await?;
    let level = if consumed.promised { v1::AckLevel::Leased } else { v1::AckLevel::Durable };
    Ok(v1::ConsumeResponse {
        usage: consumed.usage.iter().map(convert::usage).collect(),
        shortages: shortages(&consumed.shortages, &consumed.too_fast, t.ctx.now),
        ack_level: level.into(),
    })
}

pub(super) async fn check_quota(
    s: &Services,
    request: Request<v1::CheckQuotaRequest>,
) -> Result<v1::CheckQuotaResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let amounts = f.amounts(&m.amounts, 1);
    let (Some(amounts), Some((_, named))) = (amounts, details(&mut f, "details.", m.details)) else {
        return Err(f.refuse());
    };
    let who = Who::named(&t.ctx, named, "details.")?;
    let checked = s.0.app.check_quota(&t.ctx, (&t.tenant, &t.catalogue), &amounts, who).await?;
    let shortages = shortages(&checked.shortages, &checked.too_fast, t.ctx.now);
    Ok(v1::CheckQuotaResponse {
        allowed: shortages.is_empty(),
        usage: checked.usage.iter().map(convert::usage).collect(),
        shortages,
    })
}

pub(super) async fn get_usage(
    s: &Services,
    request: Request<v1::GetUsageRequest>,
) -> Result<v1::GetUsageResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    if m.metrics.len() > 100 || m.metrics.iter().any(|metric| metric.len() > 64) {
        return Err(Error::field("metrics", "must be at most 100 names of metrics"));
    }
    let usage = s.0.app.get_usage(&t.ctx, (&t.tenant, &t.catalogue), &m.metrics).await?;
    Ok(v1::GetUsageResponse { usage: usage.iter().map(convert::usage).collect() })
}

fn shortages(counted: &[Shortage], rates: &[RateShortage], now: Timestamp) -> Vec<v1::Shortage> {
    let of_counted = |short: &Shortage| v1::Shortage {
        metric: short.metric.clone(),
        amount: short.amount,
        used: short.used,
        limit: short.limit,
        reset_time: Some(convert::time(short.resets_at)),
    };
    let of_rate = |short: &RateShortage| v1::Shortage {
        metric: short.metric.clone(),
        amount: short.amount,
        used: short.used,
        limit: short.burst,
        reset_time: short.passes_at(now).map(convert::time),
    };
    counted.iter().map(of_counted).chain(rates.iter().map(of_rate)).collect()
}

/// What an event says, and whom it names. Bounded here, so that the engine's batches are.
pub(super) fn details(f: &mut Fields, at: &str, message: Option<v1::UsageDetails>) -> Option<(Details, Who)> {
    let m = message.unwrap_or_default();
    let member = id(f, &format_args!("{at}user_id"), &m.user_id);
    let key = id(f, &format_args!("{at}api_key_id"), &m.api_key_id);
    let endpoint = f.text(&format_args!("{at}endpoint"), &m.endpoint, 128);
    let method = f.text(&format_args!("{at}method"), &m.method, 16);
    let status =
        if (0..=999).contains(&m.status_code) { Ok(i64::from(m.status_code)) } else { Err("must be 0 to 999") };
    let status = f.read(&format_args!("{at}status_code"), status);
    let latency = match &m.latency {
        None => Some(TimeDelta::zero()),
        Some(latency) => {
            let bounds = (TimeDelta::zero(), TimeDelta::days(1));
            f.span(&format_args!("{at}latency"), latency, bounds, "must be 0 to one day")
        }
    };
    let attributes = f.read(&format_args!("{at}attributes"), attributes(&m.attributes));
    let details = Details {
        member: None,
        api_key: None,
        endpoint: endpoint?.into(),
        method: method?.into(),
        status: status?,
        latency_us: latency?.num_microseconds().unwrap_or(0),
        attributes: attributes?.into(),
    };
    Some((details, Who { member: member?.map(UserId), api_key: key?.map(ApiKeyId) }))
}

/// Whom a request names by fields of its own.
pub(super) fn named(f: &mut Fields, ctx: &Ctx, user: &str, key: &str) -> Option<Result<Who, Error>> {
    let (member, api_key) = (id(f, "user_id", user), id(f, "api_key_id", key));
    let who = Who { member: member?.map(UserId), api_key: api_key?.map(ApiKeyId) };
    Some(Who::named(ctx, who, ""))
}

#[expect(clippy::option_option, reason = "whether a field could be read, and then whether it was there")]
fn id(f: &mut Fields, field: &(impl Display + ?Sized), text: &str) -> Option<Option<Uuid>> {
    if text.is_empty() {
        return Some(None);
    }
    f.read(field, Uuid::try_parse(text).map_err(|_| "must be an id, a UUID")).map(Some)
}

/// Attributes as a JSON object; empty when there are none.
fn attributes(all: &HashMap<String, String>) -> Result<String, &'static str> {
    if all.is_empty() {
        return Ok(String::new());
    }
    let sound =
        |text: &str, least, most| (least..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if all.len() > 20 || all.iter().any(|(key, value)| !sound(key, 1, 64) || !sound(value, 0, 256)) {
        return Err(
            "must be at most 20, with keys of 1 to 64 and values of up to 256 characters, none of them control",
        );
    }
    let sorted: std::collections::BTreeMap<&String, &String> = all.iter().collect();
    serde_json::to_string(&sorted).map_err(|_| "cannot be written")
}
