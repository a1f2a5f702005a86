//! What opens by a link in a mail.

use tonic::Request;

use super::accounts::person;
use super::device;
use crate::app::sign_up::Confirmation;
use crate::domain::name::{Email, Slug};
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, convert, v1};

pub(super) async fn request_password_reset(
    s: &Services,
    request: Request<v1::RequestPasswordResetRequest>,
) -> Result<v1::RequestPasswordResetResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(email) = f.read("email", Email::parse(&m.email)) else { return Err(f.refuse()) };
    s.0.app.request_password_reset(&ctx, &email).await?;
    Ok(v1::RequestPasswordResetResponse {})
}

pub(super) async fn reset_password(
    s: &Services,
    request: Request<v1::ResetPasswordRequest>,
) -> Result<v1::ResetPasswordResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    s.0.app.reset_password(&ctx, &m.token, Secret::new(m.new_password)).await?;
    Ok(v1::ResetPasswordResponse {})
}

pub(super) async fn request_email_verification(
    s: &Services,
    request: Request<v1::RequestEmailVerificationRequest>,
) -> Result<v1::RequestEmailVerificationResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let Some(key) = f.request_key(&m.request_id, &m, &s.0.app.master) else { return Err(f.refuse()) };
    s.0.app.request_email_verification(&ctx, person(&ctx)?, key).await?;
    Ok(v1::RequestEmailVerificationResponse {})
}

pub(super) async fn verify_email(
    s: &Services,
    request: Request<v1::VerifyEmailRequest>,
) -> Result<v1::VerifyEmailResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let user = s.0.app.verify_email(&ctx, &m.token).await?;
    Ok(v1::VerifyEmailResponse { user: Some(convert::user(&user)) })
}

pub(super) async fn change_email(
    s: &Services,
    request: Request<v1::ChangeEmailRequest>,
) -> Result<v1::ChangeEmailResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let person = person(&ctx)?;
    let password = std::mem::take(&mut m.password);
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    let new = match Email::parse(&m.new_email) {
        Ok(email) if email == person.user.email => Err("is the address of now"),
        other => other,
    };
    let new = f.read("new_email", new);
    f.typed_password("password", &password);
    let (Some(key), Some(new), true) = (key, new, f.is_clean()) else { return Err(f.refuse()) };
    let password = (!password.is_empty()).then(|| Secret::new(password));
    s.0.app.change_email(&ctx, person, (&new, password), key).await?;
    Ok(v1::ChangeEmailResponse {})
}

pub(super) async fn confirm_sign_up(
    s: &Services,
    request: Request<v1::ConfirmSignUpRequest>,
) -> Result<v1::ConfirmSignUpResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let slug = match m.slug.as_str() {
        "" => Some(None),
        text => f.read("slug", Slug::choose(text)).map(Some),
    };
    let device = device(&mut f, m.device.as_ref());
    let (Some(slug), Some(device)) = (slug, device) else { return Err(f.refuse()) };
    let with = Confirmation { token: m.token, slug, remember: m.remember_me, device };
    let (user, tenant, tokens) = s.0.app.confirm_sign_up(&ctx, with).await?;
    Ok(v1::ConfirmSignUpResponse {
        user: Some(convert::user(&user)),
        tenant: tenant.as_ref().map(|tenant| convert::tenant(tenant, ctx.now)),
        access_token: Some(convert::access_token(&tokens.session, &tokens.access)),
        refresh_token: Some(convert::refresh_token(&tokens)),
    })
}
