//! What a token is good for.

use tonic::Request;

use crate::error::Error;
use crate::rpc::{Services, v1};

pub(super) async fn introspect_token(
    s: &Services,
    request: Request<v1::IntrospectTokenRequest>,
) -> Result<v1::IntrospectTokenResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let Some(told) = s.0.app.introspect_token(&ctx, &m.token).await? else {
        return Ok(v1::IntrospectTokenResponse::default());
    };
    Ok(v1::IntrospectTokenResponse {
        active: true,
        sub: told.user.user_id.to_string(),
        sid: told.session.session_id.to_string(),
        tid: told.tenant.map(|tenant| tenant.to_string()).unwrap_or_default(),
        exp: told.expires_at.seconds(),
        auth_time: told.auth_time.seconds(),
        token_type: if told.refresh { "refresh_token" } else { "access_token" }.to_owned(),
        username: told.user.email.as_str().to_owned(),
        aal: i32::try_from(told.session.aal).unwrap_or(0),
    })
}
