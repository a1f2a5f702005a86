//! Limits and features.

use chrono::TimeDelta;
use prost_types::Timestamp as ProtoTimestamp;
use tonic::Request;

use crate::app::entitlements::{FeatureChange, FeatureView, LimitView};
use crate::domain::catalogue::{MAX_AMOUNT, MetricKind, is_name};
use crate::domain::entitlement::LimitOverride;
use crate::error::Error;
use crate::rpc::convert::time;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

pub(super) async fn list_limits(
    s: &Services,
    request: Request<v1::ListLimitsRequest>,
) -> Result<v1::ListLimitsResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let limits = s.0.app.list_limits(&t).await?;
    Ok(v1::ListLimitsResponse { limits: limits.iter().map(limit).collect() })
}

pub(super) async fn set_limit_override(
    s: &Services,
    request: Request<v1::SetLimitOverrideRequest>,
) -> Result<v1::SetLimitOverrideResponse, Error> {
    use v1::set_limit_override_request::Value;
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let metric = f.read("metric", if is_name(&m.metric) { Ok(()) } else { Err("must name a metric") });
    let expires_at = future(&mut f, m.expire_time.as_ref(), t.ctx.now);
    let value = match m.value {
        Some(Value::Limit(limit)) if (0..=MAX_AMOUNT).contains(&limit) => Some(Some(Some(limit))),
        Some(Value::Limit(_)) => f.read("limit", Err("must be 0 to 2^53")),
        Some(Value::Unlimited(true)) => Some(Some(None)),
        Some(Value::Unlimited(false)) => f.read("unlimited", Err("must be true when it is sent")),
        Some(Value::Remove(true)) => Some(None),
        Some(Value::Remove(false)) => f.read("remove", Err("must be true when it is sent")),
        None => f.read("limit", Err("must be sent, or else `unlimited` or `remove`")),
    };
    if value == Some(None) && m.expire_time.is_some() {
        f.read::<()>("expire_time", Err("is for an override that is set"));
    }
    let reason = f.read("reason", short_text(&m.reason));
    let (Some(key), Some(()), Some(expires_at), Some(value), Some(reason)) = (key, metric, expires_at, value, reason)
    else {
        return Err(f.refuse());
    };
    if !f.is_clean() {
        return Err(f.refuse());
    }
    let own = value.map(|limit| LimitOverride { limit, expires_at });
    let done = s.0.app.set_limit_override(&t, &m.metric, own, reason, key).await?;
    Ok(v1::SetLimitOverrideResponse { limit: Some(limit(&done)) })
}

pub(super) async fn list_features(
    s: &Services,
    request: Request<v1::ListFeaturesRequest>,
) -> Result<v1::ListFeaturesResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let features = s.0.app.list_features(&t).await?;
    Ok(v1::ListFeaturesResponse { features: features.iter().map(feature).collect() })
}

pub(super) async fn set_feature(
    s: &Services,
    request: Request<v1::SetFeatureRequest>,
) -> Result<v1::SetFeatureResponse, Error> {
    use v1::set_feature_request::Value;
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let name = f.read("feature", if is_name(&m.feature) { Ok(()) } else { Err("must name a feature") });
    let expires_at = future(&mut f, m.expire_time.as_ref(), t.ctx.now);
    let enabled = match m.value {
        Some(Value::Enabled(enabled)) => Some(Some(enabled)),
        Some(Value::Remove(true)) => Some(None),
        Some(Value::Remove(false)) => f.read("remove", Err("must be true when it is sent")),
        None => f.read("enabled", Err("must be sent, or else `remove`")),
    };
    let (Some(key), Some(()), Some(expires_at), Some(enabled)) = (key, name, expires_at, enabled) else {
        return Err(f.refuse());
    };
    let change = FeatureChange { enabled, by_override: m.r#override, expires_at };
    let done = s.0.app.set_feature(&t, &m.feature, change, key).await?;
    Ok(v1::SetFeatureResponse { feature: Some(feature(&done)) })
}

/// When an override ends: ahead, and no more than ten years; none when absent.
#[expect(clippy::option_option, reason = "whether a field could be read, and then whether it was there")]
fn future(f: &mut Fields, at: Option<&ProtoTimestamp>, now: Timestamp) -> Option<Option<Timestamp>> {
    let Some(at) = at else { return Some(None) };
    let micros = (0..1_000_000_000).contains(&at.nanos).then(|| at.seconds.checked_mul(1_000_000)).flatten();
    let at = micros.and_then(|micros| micros.checked_add(i64::from(at.nanos / 1000))).map(Timestamp::from_micros);
    let ahead = at.filter(|at| *at > now && *at <= now.after(TimeDelta::days(3660)));
    f.read("expire_time", ahead.ok_or("must lie ahead, at most ten years")).map(Some)
}

/// At most 200 characters, none of them a control character.
fn short_text(text: &str) -> Result<&str, &'static str> {
    let text = text.trim();
    if text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err("must be at most 200 characters long, without control characters");
    }
    Ok(text)
}

const fn kind(kind: MetricKind) -> v1::MetricKind {
    match kind {
        MetricKind::Counter => v1::MetricKind::Counter,
        MetricKind::Gauge => v1::MetricKind::Gauge,
        MetricKind::Concurrency => v1::MetricKind::Concurrency,
        MetricKind::Rate => v1::MetricKind::Rate,
    }
}

fn limit(view: &LimitView) -> v1::Limit {
    v1::Limit {
        metric: view.metric.clone(),
        kind: kind(view.kind).into(),
        unit: view.unit.clone(),
        limit: view.limit,
        used: view.used,
        remaining: view.remaining(),
        reset_time: view.resets_at.map(time),
        source: convert::source(view.source).into(),
        expire_time: view.expires_at.map(time),
        plan_limit: view.plan_limit,
        soft_percent: view.soft_percent.into(),
        burst: view.burst,
    }
}

fn feature(view: &FeatureView) -> v1::Feature {
    v1::Feature {
        feature: view.feature.clone(),
        description: view.description.clone(),
        enabled: view.enabled,
        source: convert::source(view.source).into(),
        expire_time: view.expires_at.map(time),
        in_plan: view.in_plan,
    }
}
