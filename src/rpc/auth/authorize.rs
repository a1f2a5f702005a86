//! The whole decision in one call.

use tonic::Request;

use super::optional_tenant;
use crate::app::authorize::Question;
use crate::domain::role::is_permission;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn authorize(
    s: &Services,
    request: Request<v1::AuthorizeRequest>,
) -> Result<v1::AuthorizeResponse, Error> {
    let (ctx, _, claims, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let tenant = optional_tenant(&mut f, "tenant", &m.tenant);
    let count = if m.permissions.len() <= 100 { Ok(()) } else { Err("must be at most 100") };
    f.read("permissions", count);
    for (i, permission) in m.permissions.iter().take(100).enumerate() {
        let one = if is_permission(permission, false) { Ok(()) } else { Err("must read noun.verb") };
        f.read(&format!("permissions[{i}]"), one);
    }
    let amounts = f.amounts(&m.amounts, 0);
    let idempotency_key = f.idempotency_key(&m.idempotency_key);
    let level = match v1::AckLevel::try_from(m.ack_level) {
        Ok(level) => Ok(level),
        Err(_) => Err("must be one of the levels that there are"),
    };
    let level = f.read("ack_level", level);
    let (Some(tenant), Some(amounts), Some(idempotency_key), Some(level)) = (tenant, amounts, idempotency_key, level)
    else {
        return Err(f.refuse());
    };
    if !f.is_clean() {
        return Err(f.refuse());
    }
    let subject_token = (!m.subject_token.is_empty()).then_some(m.subject_token);
    let subject_api_key = (!m.subject_api_key.is_empty()).then_some(m.subject_api_key);
    let question = Question {
        tenant,
        claims,
        subject_token,
        subject_api_key,
        permissions: m.permissions,
        amounts,
        consume: level != v1::AckLevel::CheckOnly,
        leased: level == v1::AckLevel::Leased,
        idempotency_key,
    };
    let decision = s.0.app.authorize(&ctx, question).await?;
    let standing = decision.standing.as_ref();
    Ok(v1::AuthorizeResponse {
        allowed: decision.reasons.is_empty(),
        reasons: decision.reasons.iter().flat_map(convert::deny_reasons).collect(),
        user: decision.user.as_ref().map(convert::user),
        tenant: standing.map(|s| convert::tenant(&s.tenant, ctx.now)),
        roles: standing.and_then(|s| s.member.as_ref()).map(|member| member.roles.texts()).unwrap_or_default(),
        usage: decision.usage.iter().map(convert::usage).collect(),
        api_key: decision.api_key.as_ref().map(|key| convert::api_key(key, ctx.now)),
    })
}
