//! Single sign-on, where it could give somebody too much: accounts that others made, roles beyond whoever connected the
//! provider, tenants that are closed, invitations that say something else.

use serde_json::json;
use tenantry::rpc::v1;
use tonic::Code;

use crate::auto_join::{prove, sign_up};
use crate::harness::{Bed, PASSWORD, Person, Tenant, assert_refused, on_both_engines, unique};
use crate::mfa;
use crate::oidc::{self, connected, connection, crooked, proven, providers, sign_in, somebody, with};

on_both_engines! {
    an_account_that_nobody_has_proven_is_the_addresss_from_then_on
    an_account_that_was_proven_stays_as_it_is
    nobody_signs_in_or_is_given_a_role_beyond_who_connected_the_provider
    a_connection_goes_on_when_the_role_of_its_maker_is_gone
}

fn address(person: &serde_json::Value) -> String {
    person["email"].as_str().expect("an address").to_owned()
}

async fn roles_of(t: &Bed, token: &str) -> Vec<String> {
    t.with_token(token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner().roles
}

async fn own_role(t: &Bed, tenant: &Tenant, name: &str, permissions: &[&str]) {
    let role = v1::CreateRoleRequest {
        name: name.to_owned(),
        rank: 5,
        permissions: permissions.iter().map(|&permission| permission.to_owned()).collect(),
        ..Default::default()
    };
    t.with_token(&tenant.owner.token).members.create_role(role).await.expect("a role");
}

async fn set(t: &Bed, by: &Person, connection: v1::SsoConnection) -> Result<v1::SsoConnection, tonic::Status> {
    let request = v1::SetSsoConnectionRequest {
        connection: Some(connection),
        client_secret: oidc::SECRET.to_owned(),
        ..Default::default()
    };
    let done = t.with_token(&by.token).tenants.set_sso_connection(request).await?;
    Ok(done.into_inner().connection.expect("a connection"))
}

async fn an_account_that_nobody_has_proven_is_the_addresss_from_then_on(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    // Somebody else signs up with her address, sees to it that they come back in many ways, and waits.
    let waiting = sign_up(t, &address(&ada)).await;
    t.join(&acme, &waiting, "member").await;
    let waiting = t.login(&waiting, &acme.id).await;
    let key = crate::api_keys::personal(t, &waiting, &["*"]).await.secret;
    let ask = v1::RequestEmailVerificationRequest::default();
    t.with_token(&waiting.token).auth.request_email_verification(ask).await.expect("asks");
    let login = v1::LoginRequest { email: waiting.email.clone(), password: PASSWORD.to_owned(), ..Default::default() };
    let known = t.anonymous().auth.login(login.clone()).await.expect("signs in").into_inner().device_token;
    mfa::enable(t, &waiting).await;
    let half = t.anonymous().auth.login(login.clone()).await.expect("waits").into_inner();
    assert!(half.access_token.is_none(), "{half:?}");

    let done = sign_in(t, &acme.id, &ada).await.expect("signs in").into_inner();
    assert_eq!((done.user.unwrap().user_id, done.joined), (waiting.id.clone(), false));
    let mine = done.access_token.unwrap().token;
    assert_eq!(roles_of(t, &mine).await, ["member"]);

    let me = v1::WhoAmIRequest {};
    let told = t.with_token(&waiting.token).auth.who_am_i(me).await;
    assert_refused(told, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let refresh = v1::RefreshTokenRequest { refresh_token: waiting.refresh.clone() };
    assert_refused(t.anonymous().auth.refresh_token(refresh).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    assert_refused(t.with_key(&key).auth.who_am_i(me).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    for device_token in [String::new(), known] {
        let login = v1::LoginRequest { device_token, ..login.clone() };
        assert_refused(t.anonymous().auth.login(login).await, Code::Unauthenticated, "PASSWORD_WRONG");
    }
    for left in [
        "select user_id from credential where user_id = $1",
        "select user_id from device where user_id = $1",
        "select user_id from mail_link where user_id = $1",
        "select user_id from totp where user_id = $1",
        "select user_id from recovery_code where user_id = $1",
        "select user_id from mfa_challenge where user_id = $1",
    ] {
        assert!(t.rows::<(uuid::Uuid,)>(left, &waiting.id).await.is_empty(), "{left}");
    }
    let taken = t.audit(&acme.id).await.into_iter().filter(|row| row.action == "System/TakeOverAccount").count();
    assert_eq!(taken, 1);
    // Once: now it is hers.
    let again = oidc::token(t, &acme.id, &ada).await;
    assert_eq!(roles_of(t, &mine).await, roles_of(t, &again).await);
}

async fn an_account_that_was_proven_stays_as_it_is(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    let before = sign_up(t, &address(&ada)).await;
    prove(t, &before).await;
    t.join(&acme, &before, "member").await;
    let before = t.login(&before, &acme.id).await;
    let key = crate::api_keys::personal(t, &before, &["*"]).await.secret;
    let done = sign_in(t, &acme.id, &ada).await.expect("signs in").into_inner();
    assert_eq!(done.user.unwrap().user_id, before.id);
    assert_eq!(roles_of(t, &before.token).await, ["member"]);
    t.with_key(&key).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("the key is good");
    t.login(&before, &acme.id).await;
}

async fn nobody_signs_in_or_is_given_a_role_beyond_who_connected_the_provider(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    // Lower than an administrator, and allowed what they are not.
    own_role(t, &acme, "treasurer", &["billing.manage"]).await;
    let admin = t.member(&acme, "admin").await;
    let by_group = v1::SsoConnection {
        group_claim: "groups".to_owned(),
        group_roles: vec![v1::GroupRole { group: "staff".to_owned(), role: "member".to_owned() }],
        ..connection(&crooked(), "us")
    };
    let to_treasurer = |issuer: &v1::SsoConnection| v1::SsoConnection {
        group_roles: vec![v1::GroupRole { group: "money".to_owned(), role: "treasurer".to_owned() }],
        ..issuer.clone()
    };
    let told = set(t, &admin, to_treasurer(&by_group)).await.map(tonic::Response::new);
    assert_refused(told, Code::PermissionDenied, "PERMISSION_MISSING");
    let made = set(t, &admin, by_group.clone()).await.expect("connects");
    assert_eq!(made.highest_role, "admin");
    // The administrator's own provider says that they are the treasurer.
    let cash = sign_up(t, &format!("{}@{domain}", unique("cash"))).await;
    prove(t, &cash).await;
    t.join(&acme, &cash, "treasurer").await;
    let claims = with(&somebody(&domain), json!({ "email": cash.email }));
    assert_refused(sign_in(t, &acme.id, &claims).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
    // An owner's connection gives it, and serves them, as long as the owner might have given it.
    set(t, &acme.owner, to_treasurer(&by_group)).await.expect("connects");
    sign_in(t, &acme.id, &claims).await.expect("signs in");
    let ada = with(&somebody(&domain), json!({ "groups": ["money"] }));
    assert_eq!(roles_of(t, &oidc::token(t, &acme.id, &ada).await).await, ["treasurer"]);
    set(t, &admin, by_group).await.expect("the administrator changes it");
    for person in [&claims, &ada] {
        assert_refused(sign_in(t, &acme.id, person).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
    }
}

async fn a_connection_goes_on_when_the_role_of_its_maker_is_gone(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    own_role(t, &acme, "keeper", &["settings.read", "settings.update"]).await;
    own_role(t, &acme, "guest", &[]).await;
    own_role(t, &acme, "staff", &[]).await;
    let update = v1::UpdateRoleRequest {
        name: "keeper".to_owned(),
        rank: 15,
        update_mask: Some(prost_types::FieldMask { paths: vec!["rank".to_owned()] }),
        ..Default::default()
    };
    let mut owner = t.with_token(&acme.owner.token).members;
    owner.update_role(update.clone()).await.expect("moves");
    let keeper = t.member(&acme, "keeper").await;
    let group_roles = vec![v1::GroupRole { group: "staff".to_owned(), role: "staff".to_owned() }];
    let to_guest = v1::SsoConnection {
        default_role: "guest".to_owned(),
        group_claim: "groups".to_owned(),
        group_roles,
        ..connection(providers(), "rs256")
    };
    let made = set(t, &keeper, to_guest).await.expect("connects");
    assert_eq!(made.highest_role, "keeper");
    let delete = |name: &str, replacement: &str| v1::DeleteRoleRequest {
        name: name.to_owned(),
        replacement: replacement.to_owned(),
        ..Default::default()
    };
    // What people get by signing in stays.
    for name in ["guest", "staff"] {
        for replacement in ["", "viewer"] {
            let told = owner.delete_role(delete(name, replacement)).await;
            assert_refused(told, Code::FailedPrecondition, "ROLE_IN_USE");
        }
    }
    // The maker's own goes up, and goes; what the connection may do stays what it was.
    owner.update_role(v1::UpdateRoleRequest { rank: 45, ..update }).await.expect("moves up");
    let ada = somebody(&domain);
    assert_eq!(roles_of(t, &oidc::token(t, &acme.id, &ada).await).await, ["guest"]);
    let manager = sign_up(t, &format!("{}@{domain}", unique("boss"))).await;
    prove(t, &manager).await;
    t.join(&acme, &manager, "admin").await;
    let boss = with(&somebody(&domain), json!({ "email": manager.email }));
    assert_refused(sign_in(t, &acme.id, &boss).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
    owner.delete_role(delete("keeper", "viewer")).await.expect("goes");
    assert_eq!(roles_of(t, &oidc::token(t, &acme.id, &ada).await).await, ["guest"]);
    assert_refused(sign_in(t, &acme.id, &boss).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
}
