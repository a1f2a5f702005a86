//! What was used over time, by whom, who is told of it, and whether the books agree.

use std::sync::Arc;

use prost_types::Timestamp as ProtoTimestamp;
use tonic::Request;
use uuid::Uuid;

use crate::app::App;
use crate::app::usage::reports::{GroupBy, SumRow, TopTenant, UsageQuestion};
use crate::app::usage::thresholds::Thresholds;
use crate::app::usage::verify::{Finding, Rule, ToVerify, Verified};
use crate::ctx::Caller;
use crate::domain::bucket::Granularity;
use crate::domain::name::TenantName;
use crate::domain::period::Period;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::stream::{Answers, Source, Turns, answer};
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

/// The times that may be asked for.
pub(super) const TIMES: (Timestamp, Timestamp) =
    (Timestamp::from_micros(0), Timestamp::from_micros(4_102_444_800_000_000));

pub(super) async fn query_usage(
    s: &Services,
    request: Request<v1::QueryUsageRequest>,
) -> Result<v1::QueryUsageResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let from = f.time("start_time", m.start_time.as_ref(), TIMES);
    let to = f.time("end_time", m.end_time.as_ref(), TIMES);
    let granularity = match v1::UsageGranularity::try_from(m.granularity) {
        Ok(v1::UsageGranularity::QuarterHour) => Ok(Granularity::QuarterHour),
        Ok(v1::UsageGranularity::Hour) => Ok(Granularity::Hour),
        Ok(v1::UsageGranularity::Day | v1::UsageGranularity::Unspecified) => Ok(Granularity::Day),
        Ok(v1::UsageGranularity::Month) => Ok(Granularity::Month),
        Err(_) => Err("must be one of the granularities that there are"),
    };
    let granularity = f.read("granularity", granularity);
    let metrics = f.metrics(&m.metrics);
    let by = group_by(&mut f, &m.group_by);
    let (Some(from), Some(to), Some(granularity), Some(()), Some(by)) = (from, to, granularity, metrics, by) else {
        return Err(f.refuse());
    };
    let found = s.0.app.query_usage(&t, &UsageQuestion { from, to, granularity, metrics: m.metrics, by }).await?;
    let span = |span: &Period| v1::UsageSpan {
        start_time: Some(convert::time(span.start)),
        end_time: Some(convert::time(span.end)),
    };
    let total = |(metric, (events, amount)): (String, (i64, i64))| v1::UsageTotal { metric, events, amount };
    Ok(v1::QueryUsageResponse {
        spans: found.spans.iter().map(span).collect(),
        sums: found.sums.into_iter().map(sum).collect(),
        totals: found.totals.into_iter().map(total).collect(),
        time_zone: found.zone.name().to_owned(),
    })
}

fn group_by(f: &mut Fields, list: &[i32]) -> Option<GroupBy> {
    let mut by = GroupBy::default();
    let mut named = Vec::new();
    for (i, number) in list.iter().enumerate().take(10) {
        let field = format!("group_by[{i}]");
        let side = match v1::UsageDimension::try_from(*number) {
            Ok(v1::UsageDimension::Metric) => Ok(None),
            Ok(v1::UsageDimension::Member) => Ok(Some(&mut by.member)),
            Ok(v1::UsageDimension::ApiKey) => Ok(Some(&mut by.api_key)),
            Ok(v1::UsageDimension::Endpoint) => Ok(Some(&mut by.endpoint)),
            Ok(v1::UsageDimension::Method) => Ok(Some(&mut by.method)),
            Ok(v1::UsageDimension::Status) => Ok(Some(&mut by.status)),
            Ok(v1::UsageDimension::Unspecified) | Err(_) => Err("must be one of the dimensions that there are"),
        };
        if let Some(side) = f.read(&field, side)? {
            *side = true;
        }
        f.read(&field, if named.contains(number) { Err("must name each once") } else { Ok(()) })?;
        named.push(*number);
    }
    f.read("group_by", if list.len() <= 6 { Ok(by) } else { Err("must name each once") })
}

fn sum(row: SumRow) -> v1::UsageSum {
    v1::UsageSum {
        span: i32::try_from(row.span).unwrap_or(0),
        metric: row.metric,
        user_id: id(row.member_id),
        api_key_id: id(row.api_key_id),
        endpoint: row.endpoint,
        method: row.method,
        status_code: i32::try_from(row.status).unwrap_or(0),
        events: row.events,
        amount: row.amount,
    }
}

/// An id; empty for none.
fn id(id: Uuid) -> String {
    if id.is_nil() { String::new() } else { id.to_string() }
}

pub(super) async fn get_thresholds(
    s: &Services,
    request: Request<v1::GetThresholdsRequest>,
) -> Result<v1::GetThresholdsResponse, Error> {
    let (t, _) = s.0.enter(request).await?;
    let all = s.0.app.get_thresholds(&t).await?;
    Ok(v1::GetThresholdsResponse { thresholds: all.into_iter().map(thresholds).collect() })
}

pub(super) async fn set_thresholds(
    s: &Services,
    request: Request<v1::SetThresholdsRequest>,
) -> Result<v1::SetThresholdsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let metric = f.metric("metric", &m.metric);
    let sound = m.percents.len() <= 10
        && m.percents.iter().all(|percent| (1..=1000).contains(percent))
        && m.percents.windows(2).all(|pair| pair[0] < pair[1]);
    let sound = if sound { Ok(()) } else { Err("must be at most 10, rising, each 1 to 1000") };
    let sound = f.read("percents", sound);
    let (Some(key), Some(()), Some(())) = (key, metric, sound) else { return Err(f.refuse()) };
    let percents = m.percents.iter().map(|percent| i64::from(*percent)).collect();
    let done = s.0.app.set_thresholds(&t, &m.metric, percents, key).await?;
    Ok(v1::SetThresholdsResponse { thresholds: Some(thresholds(done)) })
}

fn thresholds(found: Thresholds) -> v1::Thresholds {
    let percents = found.percents.into_iter().map(|percent| i32::try_from(percent).unwrap_or(0)).collect();
    v1::Thresholds { metric: found.metric, percents, is_default: found.is_default }
}

pub(super) async fn top_tenants(
    s: &Services,
    request: Request<v1::TopTenantsRequest>,
) -> Result<v1::TopTenantsResponse, Error> {
    let (_, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let metric = f.metric("metric", &m.metric);
    let limit = match m.limit {
        ..0 => Err("must not be negative"),
        0 => Ok(50),
        limit => Ok(i64::from(limit.min(1000))),
    };
    let (Some(()), Some(limit)) = (metric, f.read("limit", limit)) else { return Err(f.refuse()) };
    let top = s.0.app.top_tenants(&m.metric, limit).await?;
    Ok(v1::TopTenantsResponse { tenants: top.into_iter().map(top_tenant).collect() })
}

fn top_tenant(top: TopTenant) -> v1::TopTenant {
    let time = |at: Option<Timestamp>| -> Option<ProtoTimestamp> { at.map(convert::time) };
    v1::TopTenant {
        tenant_id: top.tenant.to_string(),
        slug: top.slug,
        display_name: top.display_name,
        used: top.used,
        limit: top.limit,
        period_start_time: time(top.period.map(|period| period.start)),
        reset_time: time(top.period.map(|period| period.end)),
    }
}

pub(super) async fn verify_usage(
    s: &Services,
    request: Request<v1::VerifyUsageRequest>,
) -> Result<Answers<v1::VerifyUsageResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (ctx, _, _, m) = s.0.open(request).await?;
    let name = match m.tenant.as_str() {
        "" => None,
        text => Some(TenantName::parse(text).map_err(|problem| Error::field("tenant", problem))?),
    };
    let left = s.0.app.begin_verify(name.as_ref()).await?;
    let request_id = ctx.request_id;
    Ok(answer(turns, request_id, Verify { app: s.0.app.clone(), caller: ctx.caller, left }))
}

/// The books of one tenant after the other.
struct Verify {
    app: Arc<App>,
    caller: Caller,
    left: ToVerify,
}

impl Source for Verify {
    type Message = v1::VerifyUsageResponse;

    async fn next(&mut self) -> Result<Option<Vec<Self::Message>>, Error> {
        self.app.plane.still_live(&self.caller, self.app.clock.now()).await?;
        Ok(self.app.verify_next(&mut self.left).await?.map(|found| vec![verified(&found)]))
    }
}

fn verified(found: &Verified) -> v1::VerifyUsageResponse {
    v1::VerifyUsageResponse {
        tenant_id: found.tenant.to_string(),
        accounts: found.accounts,
        events: found.events,
        findings: found.findings.iter().map(finding).collect(),
    }
}

fn finding(finding: &Finding) -> v1::UsageFinding {
    let rule = match finding.rule {
        Rule::Leased => v1::UsageRule::Leased,
        Rule::Forfeited => v1::UsageRule::Forfeited,
        Rule::Reserved => v1::UsageRule::Reserved,
        Rule::Counted => v1::UsageRule::Counted,
        Rule::Settled => v1::UsageRule::Settled,
        Rule::Account => v1::UsageRule::Account,
        Rule::RollupEvents => v1::UsageRule::RollupEvents,
        Rule::RollupAmount => v1::UsageRule::RollupAmount,
    };
    v1::UsageFinding {
        rule: rule.into(),
        account_id: finding.account.map(id).unwrap_or_default(),
        metric: finding.metric.clone(),
        scope: finding.scope.map_or(v1::UsageScope::Unspecified, convert::scope).into(),
        scope_id: id(finding.scope_id),
        time: finding.time.map(convert::time),
        told: finding.told,
        summed: finding.summed,
    }
}
