//! An operator in a member's place.

use tonic::Request;
use uuid::Uuid;

use crate::app::impersonation::Impersonating;
use crate::domain::id::SessionId;
use crate::domain::impersonation::{Impersonation, LONGEST, SHORTEST, USUAL};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn impersonate_member(
    s: &Services,
    request: Request<v1::ImpersonateMemberRequest>,
) -> Result<v1::ImpersonateMemberResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = f.user_id("user_id", &m.user_id);
    let reason = f.text("reason", &m.reason, 500);
    let said = if m.reason.trim().is_empty() { Err("must say why") } else { Ok(()) };
    let said = f.read("reason", said);
    let ttl = f.ttl("ttl", m.ttl.as_ref()).map(|ttl| ttl.unwrap_or(USUAL));
    let bounded = ttl.filter(|ttl| (SHORTEST..=LONGEST).contains(ttl)).ok_or("must be a minute to an hour");
    let ttl = ttl.and_then(|_| f.read("ttl", bounded));
    let (Some(key), Some(user), Some(reason), Some(()), Some(ttl)) = (key, user, reason, said, ttl) else {
        return Err(f.refuse());
    };
    let Impersonating { impersonation, session, token, expires_in } =
        s.0.app.impersonate_member(&t, user, reason, ttl, key).await?;
    Ok(v1::ImpersonateMemberResponse {
        impersonation: Some(message(&impersonation)),
        access_token: Some(v1::AccessToken {
            token: token.expose().clone(),
            expires_in: Some(prost_types::Duration { seconds: expires_in, nanos: 0 }),
            tenant_id: t.tenant_id().to_string(),
            session_id: session.session_id.to_string(),
        }),
    })
}

pub(super) async fn list_impersonations(
    s: &Services,
    request: Request<v1::ListImpersonationsRequest>,
) -> Result<v1::ListImpersonationsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let filter = v1::ListImpersonationsRequest::default();
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut list = s.0.app.list_impersonations(&t, page.span_down()).await?;
    let next_page_token = page.cut(master, &mut list, |one| one.session_id.0);
    Ok(v1::ListImpersonationsResponse { impersonations: list.iter().map(message).collect(), next_page_token })
}

pub(super) async fn end_impersonation(
    s: &Services,
    request: Request<v1::EndImpersonationRequest>,
) -> Result<v1::EndImpersonationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let id = Uuid::try_parse(&m.impersonation_id).map(SessionId).map_err(|_| "must be an impersonation's id, a UUID");
    let id = f.read("impersonation_id", id);
    let (Some(key), Some(id)) = (key, id) else { return Err(f.refuse()) };
    let ended = s.0.app.end_impersonation(&t, id, key).await?;
    Ok(v1::EndImpersonationResponse { impersonation: Some(message(&ended)) })
}

fn message(one: &Impersonation) -> v1::Impersonation {
    v1::Impersonation {
        impersonation_id: one.session_id.to_string(),
        user_id: one.user_id.to_string(),
        operator_name: one.operator_name.clone(),
        reason: one.reason.clone(),
        start_time: Some(convert::time(one.started_at)),
        expire_time: Some(convert::time(one.expires_at)),
        end_time: one.ended_at.map(convert::time),
    }
}
