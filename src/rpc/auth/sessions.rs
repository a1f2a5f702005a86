//! Sessions: their refreshing, which there are, and their end.

use tonic::Request;
use uuid::Uuid;

use crate::ctx::{Ctx, SignedIn};
use crate::domain::id::SessionId;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn refresh_token(
    s: &Services,
    request: Request<v1::RefreshTokenRequest>,
) -> Result<v1::RefreshTokenResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let tokens = s.0.app.refresh_token(&ctx, &m.refresh_token).await?;
    Ok(v1::RefreshTokenResponse {
        access_token: Some(convert::access_token(&tokens.session, &tokens.access)),
        refresh_token: Some(convert::refresh_token(&tokens)),
    })
}

pub(super) async fn logout(s: &Services, request: Request<v1::LogoutRequest>) -> Result<v1::LogoutResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    s.0.app.logout(&ctx, person(&ctx)?, key).await?;
    Ok(v1::LogoutResponse {})
}

pub(super) async fn list_sessions(
    s: &Services,
    request: Request<v1::ListSessionsRequest>,
) -> Result<v1::ListSessionsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let master = &s.0.app.master;
    let filter = v1::ListSessionsRequest::default();
    let page = Page::read(master, &ctx, None, (m.page_size, &m.page_token), &filter)?;
    let person = person(&ctx)?;
    let mut sessions = s.0.app.list_sessions(&ctx, person, page.span()).await?;
    let next_page_token = page.cut(master, &mut sessions, |shown| shown.session.session_id.0);
    let current = person.session.session_id;
    let sessions = sessions.iter().map(|shown| convert::session(shown, Some(current))).collect();
    Ok(v1::ListSessionsResponse { sessions, next_page_token })
}

pub(super) async fn revoke_session(
    s: &Services,
    request: Request<v1::RevokeSessionRequest>,
) -> Result<v1::RevokeSessionResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let session = f.read("session_id", session_id(&m.session_id));
    let (Some(key), Some(session)) = (key, session) else { return Err(f.refuse()) };
    s.0.app.revoke_session(&ctx, person(&ctx)?, session, key).await?;
    Ok(v1::RevokeSessionResponse {})
}

pub(super) async fn revoke_all_sessions(
    s: &Services,
    request: Request<v1::RevokeAllSessionsRequest>,
) -> Result<v1::RevokeAllSessionsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let revoked = s.0.app.revoke_all_sessions(&ctx, person(&ctx)?, m.except_current, key).await?;
    Ok(v1::RevokeAllSessionsResponse { revoked: i32::try_from(revoked).unwrap_or(i32::MAX) })
}

/// A session's id.
pub(in crate::rpc) fn session_id(text: &str) -> Result<SessionId, &'static str> {
    Uuid::try_parse(text).map(SessionId).map_err(|_| "must be a session's id, a UUID")
}

fn person(ctx: &Ctx) -> Result<&SignedIn, Error> {
    ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))
}
