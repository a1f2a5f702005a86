//! Sign-in through a tenant's own identity provider.

use tonic::Request;

use super::device;
use crate::app::sso::SsoCallback;
use crate::domain::name::TenantName;
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

/// Bytes of what a provider sends the browser back with.
const LONGEST: usize = 4096;

pub(super) async fn begin_sso(
    s: &Services,
    request: Request<v1::BeginSsoRequest>,
) -> Result<v1::BeginSsoResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let tenant = f.read("tenant", TenantName::parse(&m.tenant));
    let uri = f.read("redirect_uri", bounded(&m.redirect_uri, 1));
    let hint = f.read("login_hint", bounded(&m.login_hint, 0));
    let (Some(tenant), Some(()), Some(())) = (tenant, uri, hint) else { return Err(f.refuse()) };
    let begun = s.0.app.begin_sso(&ctx, &tenant, &m.redirect_uri, (&m.login_hint, m.prove_again)).await?;
    Ok(v1::BeginSsoResponse {
        authorization_url: begun.authorization_url,
        binding_token: begun.binding_token.expose().clone(),
    })
}

pub(super) async fn complete_sso(
    s: &Services,
    request: Request<v1::CompleteSsoRequest>,
) -> Result<v1::CompleteSsoResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let read = [
        f.read("code", bounded(&m.code, 1)),
        f.read("state", bounded(&m.state, 1)),
        f.read("iss", bounded(&m.iss, 0)),
        f.read("binding_token", bounded(&m.binding_token, 1)),
    ];
    let device = device(&mut f, m.device.as_ref());
    let (true, Some(device)) = (read.iter().all(Option::is_some), device) else { return Err(f.refuse()) };
    let back = SsoCallback {
        code: Secret::new(m.code),
        state: m.state,
        issuer: m.iss,
        binding_token: Secret::new(m.binding_token),
        remember: m.remember_me,
        device,
    };
    let done = s.0.app.complete_sso(&ctx, &back).await?;
    Ok(v1::CompleteSsoResponse {
        user: Some(convert::user(&done.user)),
        access_token: Some(convert::access_token(&done.tokens.session, &done.tokens.access)),
        refresh_token: Some(convert::refresh_token(&done.tokens)),
        joined: done.joined,
    })
}

fn bounded(text: &str, least: usize) -> Result<(), &'static str> {
    match text.len() {
        length if length < least => Err("must be said"),
        ..=LONGEST => Ok(()),
        _ => Err("must be at most 4096 bytes"),
    }
}
