//! Sessions: their refreshing.

use tonic::Request;

use crate::error::Error;
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
