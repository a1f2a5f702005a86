//! `AuthService`: which file serves which method. Each function decodes, calls the use case and encodes.

mod authorize;
mod identity;
mod impersonation;
mod service_keys;
mod sign_in;
mod sso;

use super::fields::Fields;
use super::{Services, v1};
use crate::domain::membership::Membership;
use crate::domain::name::TenantName;

super::served! { v1::auth_service_server::AuthService:
    sign_up(SignUpRequest) -> SignUpResponse = sign_in;
    login(LoginRequest) -> LoginResponse = sign_in;
    switch_tenant(SwitchTenantRequest) -> SwitchTenantResponse = sign_in;
    begin_sso(BeginSsoRequest) -> BeginSsoResponse = sso;
    complete_sso(CompleteSsoRequest) -> CompleteSsoResponse = sso;
    impersonate_member(ImpersonateMemberRequest) -> ImpersonateMemberResponse = impersonation;
    list_impersonations(ListImpersonationsRequest) -> ListImpersonationsResponse = impersonation;
    end_impersonation(EndImpersonationRequest) -> EndImpersonationResponse = impersonation;
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
