//! `AuthService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod accounts;
mod api_keys;
mod authorize;
mod authorize_stream;
mod identity;
mod impersonation;
mod introspect;
mod links;
mod mfa;
mod passwords;
mod platform_keys;
mod sessions;
mod sign_in;
mod signing_keys;
mod sso;

use chrono::TimeDelta;
use tonic::{Request, Response, Status, Streaming};

pub(super) use self::sessions::session_id;
use super::fields::Fields;
use super::status::respond;
use super::stream::Answers;
use super::{Services, v1};
use crate::app::mfa::Code;
use crate::ctx::{Ctx, SignedIn};
use crate::domain::api_key::{LONGEST_OVERLAP, OVERLAP};
use crate::domain::name::TenantName;
use crate::domain::secret::Secret;
use crate::domain::session::Device;
use crate::error::Error;

super::served! { v1::auth_service_server::AuthService:
    sign_up(SignUpRequest) -> SignUpResponse = sign_in;
    confirm_sign_up(ConfirmSignUpRequest) -> ConfirmSignUpResponse = links;
    login(LoginRequest) -> LoginResponse = sign_in;
    complete_mfa(CompleteMfaRequest) -> CompleteMfaResponse = mfa;
    reauthenticate(ReauthenticateRequest) -> ReauthenticateResponse = mfa;
    get_mfa_status(GetMfaStatusRequest) -> GetMfaStatusResponse = mfa;
    begin_totp_enrollment(BeginTotpEnrollmentRequest) -> BeginTotpEnrollmentResponse = mfa;
    confirm_totp(ConfirmTotpRequest) -> ConfirmTotpResponse = mfa;
    regenerate_recovery_codes(RegenerateRecoveryCodesRequest) -> RegenerateRecoveryCodesResponse = mfa;
    disable_mfa(DisableMfaRequest) -> DisableMfaResponse = mfa;
    reset_mfa(ResetMfaRequest) -> ResetMfaResponse = mfa;
    refresh_token(RefreshTokenRequest) -> RefreshTokenResponse = sessions;
    switch_tenant(SwitchTenantRequest) -> SwitchTenantResponse = sign_in;
    logout(LogoutRequest) -> LogoutResponse = sessions;
    list_sessions(ListSessionsRequest) -> ListSessionsResponse = sessions;
    revoke_session(RevokeSessionRequest) -> RevokeSessionResponse = sessions;
    revoke_all_sessions(RevokeAllSessionsRequest) -> RevokeAllSessionsResponse = sessions;
    introspect_token(IntrospectTokenRequest) -> IntrospectTokenResponse = introspect;
    get_jwks(GetJwksRequest) -> GetJwksResponse = signing_keys;
    list_signing_keys(ListSigningKeysRequest) -> ListSigningKeysResponse = signing_keys;
    rotate_signing_key(RotateSigningKeyRequest) -> RotateSigningKeyResponse = signing_keys;
    revoke_signing_key(RevokeSigningKeyRequest) -> RevokeSigningKeyResponse = signing_keys;
    begin_sso(BeginSsoRequest) -> BeginSsoResponse = sso;
    complete_sso(CompleteSsoRequest) -> CompleteSsoResponse = sso;
    impersonate_member(ImpersonateMemberRequest) -> ImpersonateMemberResponse = impersonation;
    list_impersonations(ListImpersonationsRequest) -> ListImpersonationsResponse = impersonation;
    end_impersonation(EndImpersonationRequest) -> EndImpersonationResponse = impersonation;
    change_password(ChangePasswordRequest) -> ChangePasswordResponse = passwords;
    request_password_reset(RequestPasswordResetRequest) -> RequestPasswordResetResponse = links;
    reset_password(ResetPasswordRequest) -> ResetPasswordResponse = links;
    request_email_verification(RequestEmailVerificationRequest) -> RequestEmailVerificationResponse = links;
    verify_email(VerifyEmailRequest) -> VerifyEmailResponse = links;
    change_email(ChangeEmailRequest) -> ChangeEmailResponse = links;
    get_account(GetAccountRequest) -> GetAccountResponse = accounts;
    update_account(UpdateAccountRequest) -> UpdateAccountResponse = accounts;
    delete_account(DeleteAccountRequest) -> DeleteAccountResponse = accounts;
    disable_account(DisableAccountRequest) -> DisableAccountResponse = accounts;
    enable_account(EnableAccountRequest) -> EnableAccountResponse = accounts;
    who_am_i(WhoAmIRequest) -> WhoAmIResponse = identity;
    create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse = api_keys;
    list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse = api_keys;
    update_api_key(UpdateApiKeyRequest) -> UpdateApiKeyResponse = api_keys;
    rotate_api_key(RotateApiKeyRequest) -> RotateApiKeyResponse = api_keys;
    revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse = api_keys;
    create_personal_key(CreatePersonalKeyRequest) -> CreatePersonalKeyResponse = api_keys;
    list_personal_keys(ListPersonalKeysRequest) -> ListPersonalKeysResponse = api_keys;
    rotate_personal_key(RotatePersonalKeyRequest) -> RotatePersonalKeyResponse = api_keys;
    revoke_personal_key(RevokePersonalKeyRequest) -> RevokePersonalKeyResponse = api_keys;
    create_service_key(CreateServiceKeyRequest) -> CreateServiceKeyResponse = platform_keys;
    create_operator_key(CreateOperatorKeyRequest) -> CreateOperatorKeyResponse = platform_keys;
    list_platform_keys(ListPlatformKeysRequest) -> ListPlatformKeysResponse = platform_keys;
    rotate_platform_key(RotatePlatformKeyRequest) -> RotatePlatformKeyResponse = platform_keys;
    revoke_platform_key(RevokePlatformKeyRequest) -> RevokePlatformKeyResponse = platform_keys;
    authorize(AuthorizeRequest) -> AuthorizeResponse = authorize;
    batch_authorize(BatchAuthorizeRequest) -> BatchAuthorizeResponse = authorize;
    test_permissions(TestPermissionsRequest) -> TestPermissionsResponse = authorize;
    {
        type AuthorizeStreamStream = Answers<v1::AuthorizeStreamResponse>;

        async fn authorize_stream(
            &self,
            request: Request<Streaming<v1::AuthorizeStreamRequest>>,
        ) -> Result<Response<Self::AuthorizeStreamStream>, Status> {
            Box::pin(respond(authorize_stream::authorize_stream(self, request))).await
        }
    }
}

/// For how long the secret before a rotation stays good.
fn overlap(f: &mut Fields, duration: Option<&prost_types::Duration>) -> Option<TimeDelta> {
    let Some(duration) = duration else { return Some(OVERLAP) };
    f.span("overlap", duration, (TimeDelta::zero(), LONGEST_OVERLAP), "must be 0 to 30 days")
}

/// The second step, which must be there.
fn code(f: &mut Fields, code: Option<v1::MfaCode>) -> Option<Code> {
    let code = optional_code(f, code)?;
    f.read("code", code.ok_or("must be there"))
}

/// The second step, if it is there. Whatever stands in it is compared, and wrong is wrong; only what is far too long is told.
#[expect(clippy::option_option, reason = "whether it could be read, and then whether it was there")]
fn optional_code(f: &mut Fields, code: Option<v1::MfaCode>) -> Option<Option<Code>> {
    let short = |text: String| if text.len() <= 64 { Ok(Secret::new(text)) } else { Err("is longer than any code") };
    let code = match code.and_then(|code| code.code) {
        None => Ok(None),
        Some(v1::mfa_code::Code::Totp(text)) => short(text).map(|text| Some(Code::Totp(text))),
        Some(v1::mfa_code::Code::RecoveryCode(text)) => short(text).map(|text| Some(Code::Recovery(text))),
    };
    f.read("code", code)
}

/// The person who has signed in and calls.
fn person(ctx: &Ctx) -> Result<&SignedIn, Error> {
    ctx.caller.person().ok_or(Error::CallerKindRefused(ctx.caller.kind()))
}

/// A tenant's id or slug; none when empty.
#[expect(clippy::option_option, reason = "whether it could be read, and then whether it was there")]
fn optional_tenant(f: &mut Fields, field: &str, text: &str) -> Option<Option<TenantName>> {
    if text.is_empty() {
        return Some(None);
    }
    f.read(field, TenantName::parse(text)).map(Some)
}

/// What the caller tells of the device that somebody signs in on.
pub(super) fn device(f: &mut Fields, device: Option<&v1::Device>) -> Option<Device> {
    let Some(device) = device else { return Some(Device::default()) };
    let display_name = f.text("device.display_name", &device.display_name, 100);
    let user_agent = f.text("device.user_agent", &device.user_agent, 500);
    Some(Device { display_name: display_name?, user_agent: user_agent? })
}
