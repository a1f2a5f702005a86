//! Who the caller is.

use tonic::Request;

use crate::ctx::{Caller, Ctx};
use crate::error::Error;
use crate::rpc::{Services, convert, v1};

pub(super) async fn who_am_i(s: &Services, request: Request<v1::WhoAmIRequest>) -> Result<v1::WhoAmIResponse, Error> {
    let (ctx, t, _, v1::WhoAmIRequest {}) = s.0.open(request).await?;
    let key = ctx.caller.key();
    let permissions = match &t {
        Some(t) => t.permissions.names(),
        None => key.map(|key| key.permissions.names()).unwrap_or_default(),
    };
    Ok(v1::WhoAmIResponse {
        kind: kind(&ctx).into(),
        user: ctx.caller.user().map(convert::user),
        key: key.map(convert::platform_key),
        tenant: t.as_ref().map(|t| convert::tenant(&t.tenant, ctx.now)),
        roles: t.as_ref().and_then(|t| t.member.as_ref()).map(|member| member.roles.texts()).unwrap_or_default(),
        permissions,
        api_key: ctx.caller.api_key().map(|key| convert::api_key(key, ctx.now)),
    })
}

fn kind(ctx: &Ctx) -> v1::CallerKind {
    match ctx.caller {
        Caller::Anonymous => v1::CallerKind::Anonymous,
        Caller::User(_) | Caller::Named(_) => v1::CallerKind::User,
        Caller::Service(_) | Caller::Delegated(..) => v1::CallerKind::Service,
        Caller::Operator(_) => v1::CallerKind::Operator,
        Caller::Key(_) => v1::CallerKind::ApiKey,
        Caller::Personal(..) => v1::CallerKind::PersonalKey,
        Caller::System => v1::CallerKind::System,
    }
}
