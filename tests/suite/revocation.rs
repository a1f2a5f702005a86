//! What is taken from somebody is gone with the answer that says so at the server that was asked, and as soon as it has
//! heard of it at another one on the same rows. One table: how each credential is had, and what ends it.

use std::pin::Pin;

use prost_types::FieldMask;
use tenantry::rpc::v1;
use tonic::{Code, Status};

use crate::harness::{Bed, Clients, Engine, Headers, PASSWORD, Person, Tenant, on_both_engines, refusal, until};
use crate::impersonation::in_place;
use crate::links::token_of;
use crate::oidc::{self, connected, somebody};
use crate::session_ends::session_of;

on_both_engines! {
    ;
    alone
    what_is_revoked_is_refused_with_the_answer_and_then_at_every_server
}

/// What a credential is tried with.
#[derive(Clone, Copy)]
enum Call {
    /// A call that needs nothing but a credential.
    Who,
    /// A call that needs a tenant and a permission.
    Settings,
}

/// Something that works until it is revoked.
struct Old {
    what: &'static str,
    headers: Headers,
    call: Call,
    /// A refresh token that goes with it, where there is one.
    refresh: Option<String>,
    revoke: Pin<Box<dyn Future<Output = ()> + Send>>,
    wanted: (Code, &'static str),
}

const INVALID: (Code, &str) = (Code::Unauthenticated, "CREDENTIAL_INVALID");

const fn denied(reason: &'static str) -> (Code, &'static str) {
    (Code::PermissionDenied, reason)
}

impl Old {
    fn new(
        what: &'static str,
        headers: Headers,
        call: Call,
        wanted: (Code, &'static str),
        revoke: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { what, headers, call, refresh: None, revoke: Box::pin(revoke), wanted }
    }

    /// A person's access token, tried in its tenant.
    fn token(
        what: &'static str,
        person: &Person,
        wanted: (Code, &'static str),
        revoke: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let headers = Headers::default().and("authorization", &format!("Bearer {}", person.token));
        Self::new(what, headers, Call::Settings, wanted, revoke)
    }

    /// A whole session: the refresh token goes as well.
    fn session(what: &'static str, person: &Person, revoke: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { refresh: Some(person.refresh.clone()), ..Self::token(what, person, INVALID, revoke) }
    }

    async fn works_at(&self, server: &Bed) -> Result<(), (Code, String)> {
        let mut clients = Clients::new(server.channel(), self.headers.clone());
        let refused = |status: Status| refusal::<()>(Err(status));
        match self.call {
            Call::Who => clients.auth.who_am_i(v1::WhoAmIRequest {}).await.map(drop).map_err(refused),
            Call::Settings => {
                let get = v1::GetSettingsRequest::default();
                clients.tenants.get_settings(get).await.map(drop).map_err(refused)
            }
        }
    }
}

/// Makes a call that must work, as something to be done later.
macro_rules! later {
    ($clients:expr, $service:ident, $method:ident, $request:expr) => {{
        let (mut clients, request) = ($clients, $request);
        async move { drop(clients.$service.$method(request).await.expect(stringify!($method))) }
    }};
}

fn in_tenant(person: &Person, tenant: &Tenant) -> (String, String) {
    (tenant.id.clone(), person.id.clone())
}

/// What ends sessions.
async fn sessions(t: &Bed) -> Vec<Old> {
    let acme = t.tenant("acme").await;
    let mut olds = Vec::new();
    let ann = t.member(&acme, "manager").await;
    let logout = later!(t.with_token(&ann.token), auth, logout, v1::LogoutRequest::default());
    olds.push(Old::session("Logout", &ann, logout));
    let (bob, phone) = {
        let bob = t.member(&acme, "manager").await;
        (t.login(&bob, &acme.id).await, bob)
    };
    let session_id = session_of(t, &phone).await.session_id;
    let revoke = v1::RevokeSessionRequest { session_id, ..Default::default() };
    olds.push(Old::session("RevokeSession", &phone, later!(t.with_token(&bob.token), auth, revoke_session, revoke)));
    let cai = t.member(&acme, "manager").await;
    let all = later!(t.with_token(&cai.token), auth, revoke_all_sessions, v1::RevokeAllSessionsRequest::default());
    olds.push(Old::session("RevokeAllSessions", &cai, all));
    let dee = t.member(&acme, "manager").await;
    let (tenant, user_id) = in_tenant(&dee, &acme);
    let end = v1::RevokeMemberSessionsRequest { tenant, user_id, ..Default::default() };
    let end = later!(t.with_token(&acme.owner.token), members, revoke_member_sessions, end);
    olds.push(Old::token("RevokeMemberSessions", &dee, denied("SESSION_ENDED"), end));
    // In a session that the call is not made in: its own lives on.
    let eve = t.member(&acme, "manager").await;
    let here = t.login(&eve, &acme.id).await;
    let change = v1::ChangePasswordRequest {
        old_password: PASSWORD.to_owned(),
        new_password: "another passphrase entirely".to_owned(),
        ..Default::default()
    };
    let change = later!(t.with_token(&here.token), auth, change_password, change);
    olds.push(Old::session("ChangePassword", &eve, change));
    let fay = t.member(&acme, "manager").await;
    let forgot = v1::RequestPasswordResetRequest { email: fay.email.clone() };
    t.anonymous().auth.request_password_reset(forgot).await.expect("a letter");
    let token = token_of(&t.mail_to(&fay.email, "token=").await);
    let reset = v1::ResetPasswordRequest { token, new_password: "another passphrase entirely".to_owned() };
    olds.push(Old::session("ResetPassword", &fay, later!(t.anonymous(), auth, reset_password, reset)));
    let gil = t.member(&acme, "manager").await;
    let disable = v1::DisableAccountRequest { user_id: gil.id.clone(), ..Default::default() };
    olds.push(Old::session("DisableAccount", &gil, later!(t.operator(), auth, disable_account, disable)));
    let hal = t.member(&acme, "manager").await;
    let delete = v1::DeleteAccountRequest { confirm_email: hal.email.clone(), ..Default::default() };
    olds.push(Old::session("DeleteAccount", &hal, later!(t.with_token(&hal.token), auth, delete_account, delete)));
    let kai = t.member(&acme, "manager").await;
    let (token, id) = in_place(t, &acme, &kai.id).await;
    let end = v1::EndImpersonationRequest { impersonation_id: id, ..Default::default() };
    let end = later!(t.with_token(&acme.owner.token), auth, end_impersonation, end);
    olds.push(Old::token("EndImpersonation", &Person { token, ..kai }, INVALID, end));
    olds
}

/// What ends a place in a tenant, or makes it a lesser one.
async fn places(t: &Bed) -> Vec<Old> {
    let acme = t.tenant("acme").await;
    let mut olds = Vec::new();
    let gone = (Code::NotFound, "TENANT_NOT_FOUND");
    let ann = t.member(&acme, "manager").await;
    let (tenant, user_id) = in_tenant(&ann, &acme);
    let remove = v1::RemoveMemberRequest { tenant, user_id, ..Default::default() };
    let remove = later!(t.with_token(&acme.owner.token), members, remove_member, remove);
    olds.push(Old::token("RemoveMember", &ann, gone, remove));
    let bob = t.member(&acme, "manager").await;
    let (tenant, user_id) = in_tenant(&bob, &acme);
    let suspend = v1::SuspendMemberRequest { tenant, user_id, ..Default::default() };
    let suspend = later!(t.with_token(&acme.owner.token), members, suspend_member, suspend);
    olds.push(Old::token("SuspendMember", &bob, denied("MEMBER_SUSPENDED"), suspend));
    let cai = t.member(&acme, "manager").await;
    let leave = later!(t.with_token(&cai.token), members, leave_tenant, v1::LeaveTenantRequest::default());
    olds.push(Old::token("LeaveTenant", &cai, gone, leave));
    let dee = t.member(&acme, "manager").await;
    let (tenant, user_id) = in_tenant(&dee, &acme);
    let lower = v1::UpdateMemberRoleRequest { tenant, user_id, roles: vec!["viewer".to_owned()], ..Default::default() };
    let lower = later!(t.with_token(&acme.owner.token), members, update_member_role, lower);
    olds.push(Old::token("UpdateMemberRole", &dee, denied("PERMISSION_MISSING"), lower));
    let role = v1::CreateRoleRequest {
        name: "host".to_owned(),
        rank: 25,
        permissions: vec!["settings.read".to_owned()],
        ..Default::default()
    };
    t.with_token(&acme.owner.token).members.create_role(role).await.expect("a role");
    let eve = t.member(&acme, "host").await;
    let less = v1::UpdateRoleRequest {
        name: "host".to_owned(),
        permissions: vec!["members.read".to_owned()],
        update_mask: Some(FieldMask { paths: vec!["permissions".to_owned()] }),
        ..Default::default()
    };
    let less = later!(t.with_token(&acme.owner.token), members, update_role, less);
    olds.push(Old::token("UpdateRole", &eve, denied("PERMISSION_MISSING"), less));
    let globex = t.tenant("globex").await;
    let heir = t.member(&globex, "viewer").await;
    let transfer = v1::TransferOwnershipRequest {
        new_owner_id: heir.id,
        own_roles: vec!["viewer".to_owned()],
        ..Default::default()
    };
    let transfer = later!(t.with_token(&globex.owner.token), members, transfer_ownership, transfer);
    olds.push(Old::token("TransferOwnership", &globex.owner, denied("PERMISSION_MISSING"), transfer));
    olds
}

/// What ends a tenant, or shuts it for some.
async fn tenants(t: &Bed) -> Vec<Old> {
    let mut olds = Vec::new();
    let [shut, ended, over] = [t.tenant("shut").await, t.tenant("ended").await, t.tenant("over").await];
    let suspend = v1::SuspendTenantRequest { tenant: shut.id, reason: "unpaid".to_owned(), ..Default::default() };
    let suspend = later!(t.operator(), tenants, suspend_tenant, suspend);
    olds.push(Old::token("SuspendTenant", &shut.owner, denied("TENANT_SUSPENDED"), suspend));
    let delete = v1::DeleteTenantRequest { tenant: ended.id, ..Default::default() };
    let delete = later!(t.operator(), tenants, delete_tenant, delete);
    olds.push(Old::token("DeleteTenant", &ended.owner, denied("TENANT_DELETED"), delete));
    let cancel = v1::CancelSubscriptionRequest { tenant: over.id, ..Default::default() };
    let cancel = later!(t.operator(), tenants, cancel_subscription, cancel);
    olds.push(Old::token("CancelSubscription", &over.owner, denied("TENANT_CANCELLED"), cancel));

    let (acme, domain) = connected(t, "acme").await;
    let role = v1::UpdateMemberRoleRequest { roles: vec!["manager".to_owned()], ..Default::default() };
    for what in ["RemoveMember of SSO", "SetSsoConnection", "DeleteSsoConnection"] {
        let done = oidc::sign_in(t, &acme.id, &somebody(&domain)).await.expect("signs in").into_inner();
        let (user_id, token) = (done.user.expect("a user").user_id, done.access_token.expect("a token").token);
        let mut owner = t.with_token(&acme.owner.token);
        let raise = v1::UpdateMemberRoleRequest { user_id: user_id.clone(), ..role.clone() };
        owner.members.update_member_role(raise).await.expect("is a manager");
        let person = Person { token, id: user_id.clone(), ..acme.owner.clone() };
        match what {
            "RemoveMember of SSO" => {
                let remove = v1::RemoveMemberRequest { user_id, ..Default::default() };
                let remove = later!(owner, members, remove_member, remove);
                olds.push(Old::token(what, &person, (Code::NotFound, "TENANT_NOT_FOUND"), remove));
            }
            "SetSsoConnection" => {
                // A password is no longer enough.
                let ida = t.member(&acme, "manager").await;
                let connection = v1::SsoConnection { required: true, ..oidc::connection(oidc::providers(), "rs256") };
                let set = v1::SetSsoConnectionRequest { connection: Some(connection), ..Default::default() };
                olds.push(Old::token(
                    what,
                    &ida,
                    denied("SSO_REQUIRED"),
                    later!(owner, tenants, set_sso_connection, set),
                ));
            }
            _ => {
                let delete = v1::DeleteSsoConnectionRequest::default();
                olds.push(Old::token(what, &person, INVALID, later!(owner, tenants, delete_sso_connection, delete)));
            }
        }
    }
    olds
}

/// What ends keys.
async fn keys(t: &Bed) -> Vec<Old> {
    let acme = t.tenant("acme").await;
    let mut olds = Vec::new();
    let holding = |secret: &str| Headers::default().and("x-api-key", secret);
    let mut owner = t.with_token(&acme.owner.token);
    let wish = v1::CreateApiKeyRequest {
        display_name: "nightly".to_owned(),
        permissions: vec!["settings.read".to_owned()],
        ..Default::default()
    };
    let mine = v1::CreatePersonalKeyRequest {
        display_name: "mine".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let made = owner.auth.create_api_key(wish.clone()).await.expect("a key").into_inner();
    let api_key_id = made.key.expect("a key").api_key_id;
    let revoke = v1::RevokeApiKeyRequest { api_key_id, ..Default::default() };
    let revoke = later!(owner.clone(), auth, revoke_api_key, revoke);
    olds.push(Old::new("RevokeApiKey", holding(&made.secret), Call::Settings, INVALID, revoke));
    let made = owner.auth.create_api_key(wish).await.expect("a key").into_inner();
    let rotate = v1::RotateApiKeyRequest {
        api_key_id: made.key.expect("a key").api_key_id,
        overlap: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    let rotate = later!(owner.clone(), auth, rotate_api_key, rotate);
    olds.push(Old::new("RotateApiKey", holding(&made.secret), Call::Settings, INVALID, rotate));
    let made = owner.auth.create_personal_key(mine.clone()).await.expect("a key").into_inner();
    let api_key_id = made.key.expect("a key").api_key_id;
    let revoke = v1::RevokePersonalKeyRequest { api_key_id, ..Default::default() };
    let revoke = later!(owner.clone(), auth, revoke_personal_key, revoke);
    olds.push(Old::new("RevokePersonalKey", holding(&made.secret), Call::Settings, INVALID, revoke));
    let ann = t.member(&acme, "manager").await;
    let made = t.with_token(&ann.token).auth.create_personal_key(mine).await.expect("a key").into_inner();
    let remove = v1::RemoveMemberRequest { user_id: ann.id, ..Default::default() };
    let remove = later!(owner.clone(), members, remove_member, remove);
    olds.push(Old::new("RemoveMember of a key", holding(&made.secret), Call::Settings, INVALID, remove));

    let mut operator = t.operator();
    let platform = |key_id: String| v1::RevokePlatformKeyRequest { key_id, ..Default::default() };
    let wish = v1::CreateServiceKeyRequest { display_name: "a service".to_owned(), ..Default::default() };
    let wish = v1::CreateServiceKeyRequest { permissions: vec!["*".to_owned()], ..wish };
    let made = operator.auth.create_service_key(wish).await.expect("a key").into_inner();
    let bob = t.member(&acme, "manager").await;
    let delegated = holding(&made.secret).and("x-on-behalf-of", &bob.token);
    let revoke = later!(operator.clone(), auth, revoke_platform_key, platform(made.key.expect("a key").key_id));
    olds.push(Old::new("RevokePlatformKey of a service", delegated, Call::Settings, INVALID, revoke));
    let wish = v1::CreateOperatorKeyRequest {
        display_name: "support".to_owned(),
        scope: v1::OperatorScope::Support.into(),
        ..Default::default()
    };
    let made = operator.auth.create_operator_key(wish).await.expect("a key").into_inner();
    let revoke = later!(operator.clone(), auth, revoke_platform_key, platform(made.key.expect("a key").key_id));
    olds.push(Old::new("RevokePlatformKey of an operator", holding(&made.secret), Call::Who, INVALID, revoke));

    // What was passed on by a service ends with the person's session as well.
    let cai = t.member(&acme, "manager").await;
    let headers = holding(&t.service_key(&["*"]).await).and("x-on-behalf-of", &cai.token);
    let logout = later!(t.with_token(&cai.token), auth, logout, v1::LogoutRequest::default());
    olds.push(Old::new("Logout of who is passed on", headers, Call::Settings, INVALID, logout));
    // Last, for all tokens of until now go with it.
    let dee = t.member(&acme, "manager").await;
    let keys = operator.auth.list_signing_keys(v1::ListSigningKeysRequest::default()).await.expect("keys").into_inner();
    let current = keys.keys.into_iter().find(|key| key.state() == v1::SigningKeyState::Current).expect("one signs");
    let revoke = v1::RevokeSigningKeyRequest { kid: current.kid, ..Default::default() };
    let revoke = later!(operator.clone(), auth, revoke_signing_key, revoke);
    olds.push(Old::token("RevokeSigningKey", &dee, INVALID, revoke));
    olds
}

async fn what_is_revoked_is_refused_with_the_answer_and_then_at_every_server(t: Bed) {
    let second = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let servers: Vec<&Bed> = [Some(&t), second.as_ref()].into_iter().flatten().collect();
    let all = [sessions(&t).await, places(&t).await, tenants(&t).await, keys(&t).await];
    for mut old in all.into_iter().flatten() {
        for server in &servers {
            assert_eq!(old.works_at(server).await, Ok(()), "{} comes later", old.what);
        }
        std::mem::replace(&mut old.revoke, Box::pin(async {})).await;
        for (number, server) in servers.iter().enumerate() {
            // The other server has to hear of it first.
            until(old.what, async || number == 0 || old.works_at(server).await.is_err()).await;
            let (code, reason) = old.works_at(server).await.expect_err(old.what);
            assert_eq!((code, reason.as_str()), old.wanted, "{}", old.what);
            if let Some(refresh) = &old.refresh {
                let refused = crate::refresh::refresh(server, refresh).await.expect_err(old.what);
                assert_eq!(refused.code(), Code::Unauthenticated, "{}", old.what);
            }
        }
    }
    if let Some(second) = second {
        second.stop().await;
    }
}
