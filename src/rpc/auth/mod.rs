//! `AuthService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod api_keys;
mod authorize;
mod identity;
mod impersonation;
mod platform_keys;
mod sessions;
mod sign_in;
mod sso;

use chrono::TimeDelta;

use super::fields::Fields;
use super::{Services, v1};
use crate::domain::api_key::{LONGEST_OVERLAP, OVERLAP};
use crate::domain::name::TenantName;
use crate::domain::session::Device;

super::served! { v1::auth_service_server::AuthService:
    sign_up(SignUpRequest) -> SignUpResponse = sign_in;
    login(LoginRequest) -> LoginResponse = sign_in;
    refresh_token(RefreshTokenRequest) -> RefreshTokenResponse = sessions;
    switch_tenant(SwitchTenantRequest) -> SwitchTenantResponse = sign_in;
    begin_sso(BeginSsoRequest) -> BeginSsoResponse = sso;
    complete_sso(CompleteSsoRequest) -> CompleteSsoResponse = sso;
    impersonate_member(ImpersonateMemberRequest) -> ImpersonateMemberResponse = impersonation;
    list_impersonations(ListImpersonationsRequest) -> ListImpersonationsResponse = impersonation;
    end_impersonation(EndImpersonationRequest) -> EndImpersonationResponse = impersonation;
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
}

/// For how long the secret before a rotation stays good.
fn overlap(f: &mut Fields, duration: Option<&prost_types::Duration>) -> Option<TimeDelta> {
    let Some(duration) = duration else { return Some(OVERLAP) };
    let nanos = u32::try_from(duration.nanos).ok();
    let span = nanos.and_then(|nanos| TimeDelta::new(duration.seconds, nanos));
    let bounded = span.filter(|span| (TimeDelta::zero()..=LONGEST_OVERLAP).contains(span));
    f.read("overlap", bounded.ok_or("must be 0 to 30 days"))
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
