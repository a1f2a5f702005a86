//! `AuthService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod accounts;
mod authorize;
mod identity;
mod links;
mod passwords;
mod service_keys;
mod sessions;
mod sign_in;

use super::fields::Fields;
use super::{Services, v1};
use crate::domain::membership::Membership;
use crate::domain::name::TenantName;
use crate::domain::session::Device;

super::served! { v1::auth_service_server::AuthService:
    sign_up(SignUpRequest) -> SignUpResponse = sign_in;
    confirm_sign_up(ConfirmSignUpRequest) -> ConfirmSignUpResponse = links;
    login(LoginRequest) -> LoginResponse = sign_in;
    refresh_token(RefreshTokenRequest) -> RefreshTokenResponse = sessions;
    switch_tenant(SwitchTenantRequest) -> SwitchTenantResponse = sign_in;
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
    create_service_key(CreateServiceKeyRequest) -> CreateServiceKeyResponse = service_keys;
    authorize(AuthorizeRequest) -> AuthorizeResponse = authorize;
}

fn role(member: &Membership) -> String {
    member.role.as_str().to_owned()
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
fn device(f: &mut Fields, device: Option<&v1::Device>) -> Option<Device> {
    let Some(device) = device else { return Some(Device::default()) };
    let display_name = f.text("device.display_name", &device.display_name, 100);
    let user_agent = f.text("device.user_agent", &device.user_agent, 500);
    Some(Device { display_name: display_name?, user_agent: user_agent? })
}
