//! `AuthService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod authorize;
mod identity;
mod service_keys;
mod sign_in;

use super::fields::Fields;
use super::{Services, v1};
use crate::domain::name::TenantName;

super::served! { v1::auth_service_server::AuthService:
    sign_up(SignUpRequest) -> SignUpResponse = sign_in;
    login(LoginRequest) -> LoginResponse = sign_in;
    switch_tenant(SwitchTenantRequest) -> SwitchTenantResponse = sign_in;
    who_am_i(WhoAmIRequest) -> WhoAmIResponse = identity;
    create_service_key(CreateServiceKeyRequest) -> CreateServiceKeyResponse = service_keys;
    authorize(AuthorizeRequest) -> AuthorizeResponse = authorize;
}

/// A tenant's id or slug; none when empty.
#[expect(clippy::option_option, reason = "whether it could be read, and then whether it was there")]
fn optional_tenant(f: &mut Fields, field: &str, text: &str) -> Option<Option<TenantName>> {
    if text.is_empty() {
        return Some(None);
    }
    f.read(field, TenantName::parse(text)).map(Some)
}
