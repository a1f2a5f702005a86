//! Sessions of members.

use tonic::Request;

use crate::error::Error;
use crate::rpc::auth::session_id;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::{Services, convert, v1};

pub(super) async fn list_member_sessions(
    s: &Services,
    request: Request<v1::ListMemberSessionsRequest>,
) -> Result<v1::ListMemberSessionsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(user) = f.user_id("user_id", &m.user_id) else { return Err(f.refuse()) };
    let filter = v1::ListMemberSessionsRequest { user_id: user.to_string(), ..Default::default() };
    let master = &s.0.app.master;
    let page = Page::read(master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &filter)?;
    let mut sessions = s.0.app.list_member_sessions(&t, user, page.span()).await?;
    let next_page_token = page.cut(master, &mut sessions, |shown| shown.session.session_id.0);
    let current = t.ctx.caller.person().map(|person| person.session.session_id);
    let sessions = sessions.iter().map(|shown| convert::session(shown, current)).collect();
    Ok(v1::ListMemberSessionsResponse { sessions, next_page_token })
}

pub(super) async fn revoke_member_sessions(
    s: &Services,
    request: Request<v1::RevokeMemberSessionsRequest>,
) -> Result<v1::RevokeMemberSessionsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let user = f.user_id("user_id", &m.user_id);
    let session = match m.session_id.as_str() {
        "" => Some(None),
        text => f.read("session_id", session_id(text)).map(Some),
    };
    let (Some(key), Some(user), Some(session)) = (key, user, session) else { return Err(f.refuse()) };
    s.0.app.revoke_member_sessions(&t, user, session, key).await?;
    Ok(v1::RevokeMemberSessionsResponse {})
}
