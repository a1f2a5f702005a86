//! The second step of sign-ins.

use tonic::Request;

use super::{code, device, optional_code, person};
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn complete_mfa(
    s: &Services,
    request: Request<v1::CompleteMfaRequest>,
) -> Result<v1::CompleteMfaResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let code = code(&mut f, m.code);
    let (Some(code), Some(())) = (code, f.device_token(&m.device_token)) else { return Err(f.refuse()) };
    let done = s.0.app.complete_mfa(&ctx, &m.challenge_token, &code, &m.device_token).await?;
    Ok(v1::CompleteMfaResponse {
        user: Some(convert::user(&done.user)),
        access_token: Some(convert::access_token(&done.tokens.session, &done.tokens.access)),
        refresh_token: Some(convert::refresh_token(&done.tokens)),
        device_token: done.device_token.expose().clone(),
    })
}

pub(super) async fn reauthenticate(
    s: &Services,
    request: Request<v1::ReauthenticateRequest>,
) -> Result<v1::ReauthenticateResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let password = match m.password.as_str() {
        "" => f.read("password", Err("must be the account's password")),
        text => f.typed_password("password", text),
    };
    let code = optional_code(&mut f, m.code);
    let device = device(&mut f, m.device.as_ref());
    let (Some(()), Some(code), Some(device)) = (password, code, device) else { return Err(f.refuse()) };
    let (person, password) = (person(&ctx)?, Secret::new(m.password));
    let tokens = s.0.app.reauthenticate(&ctx, person, password, code.as_ref(), device).await?;
    Ok(v1::ReauthenticateResponse {
        access_token: Some(convert::access_token(&tokens.session, &tokens.access)),
        refresh_token: Some(convert::refresh_token(&tokens)),
    })
}

pub(super) async fn get_mfa_status(
    s: &Services,
    request: Request<v1::GetMfaStatusRequest>,
) -> Result<v1::GetMfaStatusResponse, Error> {
    let (ctx, _, _, v1::GetMfaStatusRequest {}) = s.0.open(request).await?;
    let person = person(&ctx)?;
    let status = s.0.app.mfa_status(person.user.user_id).await?;
    Ok(v1::GetMfaStatusResponse {
        enabled: status.since.is_some(),
        enable_time: status.since.map(convert::time),
        recovery_codes_left: i32::try_from(status.codes_left).unwrap_or(i32::MAX),
        session_aal: i32::try_from(person.session.aal).unwrap_or(1),
    })
}

pub(super) async fn begin_totp_enrollment(
    s: &Services,
    request: Request<v1::BeginTotpEnrollmentRequest>,
) -> Result<v1::BeginTotpEnrollmentResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let done = s.0.app.begin_totp(&ctx, person(&ctx)?, key).await?;
    Ok(v1::BeginTotpEnrollmentResponse {
        secret: done.secret.expose().clone(),
        otpauth_uri: done.uri.expose().clone(),
        qr_png: done.qr.expose().clone(),
    })
}

pub(super) async fn confirm_totp(
    s: &Services,
    request: Request<v1::ConfirmTotpRequest>,
) -> Result<v1::ConfirmTotpResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let code = Secret::new(std::mem::take(&mut m.code));
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    let codes = s.0.app.confirm_totp(&ctx, person(&ctx)?, &code, key).await?;
    Ok(v1::ConfirmTotpResponse { recovery_codes: texts(&codes) })
}

pub(super) async fn regenerate_recovery_codes(
    s: &Services,
    request: Request<v1::RegenerateRecoveryCodesRequest>,
) -> Result<v1::RegenerateRecoveryCodesResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let code = code(&mut f, m.code.take());
    let (Some(key), Some(code)) = (f.request_key(&m.request_id, &m, &s.0.app.master), code) else {
        return Err(f.refuse());
    };
    let codes = s.0.app.regenerate_recovery_codes(&ctx, person(&ctx)?, &code, key).await?;
    Ok(v1::RegenerateRecoveryCodesResponse { recovery_codes: texts(&codes) })
}

pub(super) async fn disable_mfa(
    s: &Services,
    request: Request<v1::DisableMfaRequest>,
) -> Result<v1::DisableMfaResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let code = code(&mut f, m.code.take());
    let (Some(key), Some(code)) = (f.request_key(&m.request_id, &m, &s.0.app.master), code) else {
        return Err(f.refuse());
    };
    s.0.app.disable_mfa(&ctx, person(&ctx)?, &code, key).await?;
    Ok(v1::DisableMfaResponse {})
}

pub(super) async fn reset_mfa(
    s: &Services,
    request: Request<v1::ResetMfaRequest>,
) -> Result<v1::ResetMfaResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let (Some(key), Some(user)) = (key, f.user_id("user_id", &m.user_id)) else { return Err(f.refuse()) };
    s.0.app.reset_mfa(&t, user, key).await?;
    Ok(v1::ResetMfaResponse {})
}

fn texts(codes: &[Secret<String>]) -> Vec<String> {
    codes.iter().map(|code| code.expose().clone()).collect()
}
