//! Sign-up, sign-in, and the choice of the tenant to work in.

use tonic::Request;

use super::{device, optional_tenant};
use crate::app::sign_in::{Credentials, Login, NewAccount};
use crate::app::sign_up::SignUpMode;
use crate::domain::name::{Email, Slug, TenantName, display_name};
use crate::domain::password;
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn sign_up(s: &Services, request: Request<v1::SignUpRequest>) -> Result<v1::SignUpResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let secret = std::mem::take(&mut m.password);
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let email = f.read("email", Email::parse(&m.email));
    let name = f.read("display_name", display_name(&m.display_name));
    let password = f.read("password", password::check(&secret, &[&m.email, &m.display_name]));
    let tenant = match &m.tenant {
        None => Some(None),
        Some(tenant) => {
            let name = f.read("tenant.display_name", display_name(&tenant.display_name));
            let slug = f.read("tenant.slug", Slug::choose(&tenant.slug));
            name.zip(slug).map(Some)
        }
    };
    let device = device(&mut f, m.device.as_ref());
    let (Some(key), Some(email), Some(display_name), Some(()), Some(tenant), Some(device)) =
        (key, email, name, password, tenant, device)
    else {
        return Err(f.refuse());
    };
    let password = Secret::new(secret);
    let new = NewAccount { email, password, display_name, tenant, remember: m.remember_me, device };
    if s.0.app.sign_up_mode == SignUpMode::Confirm {
        s.0.app.ask_to_sign_up(&ctx, new, key).await?;
        return Ok(v1::SignUpResponse { confirmation_sent: true, ..Default::default() });
    }
    let (user, tenant, tokens) = s.0.app.sign_up(&ctx, new, key).await?;
    Ok(v1::SignUpResponse {
        user: Some(convert::user(&user)),
        tenant: tenant.as_ref().map(|tenant| convert::tenant(tenant, ctx.now)),
        access_token: Some(convert::access_token(&tokens.session, &tokens.access)),
        refresh_token: Some(convert::refresh_token(&tokens)),
        confirmation_sent: false,
    })
}

pub(super) async fn login(s: &Services, request: Request<v1::LoginRequest>) -> Result<v1::LoginResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let email = f.read("email", Email::parse(&m.email));
    let password = f.typed_password("password", &m.password);
    let new = match m.new_password.as_str() {
        "" => Ok(()),
        same if same == m.password => Err("is the password of now; choose another"),
        text => password::check(text, &[&m.email]),
    };
    let new = f.read("new_password", new);
    let known = f.device_token(&m.device_token);
    let tenant = optional_tenant(&mut f, "tenant", &m.tenant);
    let device = device(&mut f, m.device.as_ref());
    let (Some(email), Some(()), Some(()), Some(()), Some(tenant), Some(device)) =
        (email, password, new, known, tenant, device)
    else {
        return Err(f.refuse());
    };
    let password = Secret::new(m.password);
    let new_password = (!m.new_password.is_empty()).then(|| Secret::new(m.new_password));
    let (device_token, remember) = (m.device_token, m.remember_me);
    let with = Credentials { email, password, new_password, tenant, device_token, remember, device };
    let done = match s.0.app.login(&ctx, with).await? {
        Login::Done(done) => done,
        Login::Waits(challenge, until) => {
            let token = challenge.text.expose().clone();
            let mfa_challenge = Some(v1::MfaChallenge { token, expire_time: Some(convert::time(until)) });
            return Ok(v1::LoginResponse { mfa_challenge, ..v1::LoginResponse::default() });
        }
    };
    Ok(v1::LoginResponse {
        mfa_challenge: None,
        user: Some(convert::user(&done.user)),
        access_token: Some(convert::access_token(&done.tokens.session, &done.tokens.access)),
        refresh_token: Some(convert::refresh_token(&done.tokens)),
        device_token: done.device_token.expose().clone(),
    })
}

pub(super) async fn switch_tenant(
    s: &Services,
    request: Request<v1::SwitchTenantRequest>,
) -> Result<v1::SwitchTenantResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let to = f.read("to_tenant", TenantName::parse(&m.to_tenant));
    let (Some(key), Some(to)) = (key, to) else { return Err(f.refuse()) };
    let person = ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))?;
    let (session, token) = s.0.app.switch_tenant(&ctx, person, (&to, m.keep_as_default), key).await?;
    Ok(v1::SwitchTenantResponse { access_token: Some(convert::access_token(&session, &token)) })
}
