//! What was used, and whether the books agree.

use std::sync::Arc;

use tonic::Request;
use uuid::Uuid;

use crate::app::App;
use crate::app::usage::verify::{Finding, Rule, ToVerify, Verified};
use crate::domain::name::TenantName;
use crate::error::Error;
use crate::rpc::stream::{Answers, Source, Turns, answer};
use crate::rpc::{Services, convert, v1};

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
    Ok(answer(turns, ctx.request_id, Verify { app: s.0.app.clone(), left }))
}

/// The books of one tenant after the other.
struct Verify {
    app: Arc<App>,
    left: ToVerify,
}

impl Source for Verify {
    type Message = v1::VerifyUsageResponse;

    async fn next(&mut self) -> Result<Option<Vec<Self::Message>>, Error> {
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
    let id = |id: Uuid| if id.is_nil() { String::new() } else { id.to_string() };
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
