//! Single sign-on, where it could give somebody too much: accounts that others made, roles beyond whoever connected the
//! provider, tenants that are closed, invitations that say something else.

use serde_json::json;
use tenantry::rpc::v1;
use tonic::Code;

use crate::auto_join::sign_up;
use crate::harness::{Bed, CATALOGUE, Engine, PASSWORD, Person, Tenant, assert_refused, on_both_engines, unique};
use crate::links::prove;
use crate::mfa;
use crate::oidc::{self, connect, connected, connection, crooked, proven, providers, sign_in, somebody, with};

on_both_engines! {
    an_account_that_nobody_has_proven_is_the_addresss_from_then_on
    an_account_that_was_proven_stays_as_it_is
    nobody_signs_in_or_is_given_a_role_beyond_who_connected_the_provider
    a_connection_goes_on_when_the_role_of_its_maker_is_gone
    nobody_joins_a_tenant_that_is_closed
    roles_stay_as_they_are_when_nothing_is_said_of_groups
    who_is_invited_joins_as_what_the_invitation_says
    a_key_of_a_members_own_is_as_good_as_the_sign_in_that_made_it
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

async fn nobody_joins_a_tenant_that_is_closed(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let (ada, bob) = (somebody(&domain), somebody(&domain));
    sign_in(t, &acme.id, &ada).await.expect("joins");
    let flags = |on| v1::SetTenantFlagsRequest { tenant: acme.id.clone(), maintenance: Some(on), ..Default::default() };
    let mut operator = t.operator().tenants;
    operator.set_tenant_flags(flags(true)).await.expect("begins");
    assert_refused(sign_in(t, &acme.id, &bob).await, Code::Unavailable, "TENANT_IN_MAINTENANCE");
    operator.set_tenant_flags(flags(false)).await.expect("ends");
    let suspend =
        v1::SuspendTenantRequest { tenant: acme.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.suspend_tenant(suspend).await.expect("suspends");
    assert_refused(sign_in(t, &acme.id, &bob).await, Code::FailedPrecondition, "WRONG_STATE");
    // A member signs in as ever; what they may do in it then is another question.
    sign_in(t, &acme.id, &ada).await.expect("signs in");
    // Nothing of the refused one was left behind.
    sign_up(t, &address(&bob)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_joins_when_the_plan_has_no_single_sign_on_any_more() {
    let catalogue = CATALOGUE.replace("[plans.free.limits]", "[features]\nsso = \"\"\n[plans.free.limits]");
    let t = Bed::of_product(Engine::Sqlite, &catalogue).await;
    let acme = t.tenant("acme").await;
    let domain = proven(&t, &acme).await;
    let switch = |enabled| v1::SetFeatureRequest {
        tenant: acme.id.clone(),
        feature: "sso".to_owned(),
        value: Some(v1::set_feature_request::Value::Enabled(enabled)),
        r#override: true,
        ..Default::default()
    };
    t.operator().tenants.set_feature(switch(true)).await.expect("grants it");
    connect(&t, &acme, connection(providers(), "rs256")).await;
    let ada = somebody(&domain);
    sign_in(&t, &acme.id, &ada).await.expect("joins");
    t.operator().tenants.set_feature(switch(false)).await.expect("takes it away");
    let told = sign_in(&t, &acme.id, &somebody(&domain)).await;
    assert_refused(told, Code::FailedPrecondition, "FEATURE_NOT_IN_PLAN");
    sign_in(&t, &acme.id, &ada).await.expect("a member signs in");
}

async fn roles_stay_as_they_are_when_nothing_is_said_of_groups(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    let by_group = v1::SsoConnection {
        group_claim: "groups".to_owned(),
        group_roles: vec![v1::GroupRole { group: "heads".to_owned(), role: "manager".to_owned() }],
        ..connection(&crooked(), "us")
    };
    connect(t, &acme, by_group).await;
    let ada = somebody(&domain);
    for (said, role) in [
        (json!({}), "viewer"),
        (json!({ "groups": ["heads"] }), "manager"),
        (json!({}), "manager"),
        (json!({ "groups": null }), "manager"),
        (json!({ "at_userinfo": { "groups": ["others"] } }), "viewer"),
        (json!({ "at_userinfo": { "groups": "heads" } }), "manager"),
        (json!({ "groups": [], "at_userinfo": { "groups": "heads" } }), "viewer"),
    ] {
        let token = oidc::token(t, &acme.id, &with(&ada, said.clone())).await;
        assert_eq!(roles_of(t, &token).await, [role], "{said}");
    }
}

async fn who_is_invited_joins_as_what_the_invitation_says(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    own_role(t, &acme, "treasurer", &["billing.manage"]).await;
    let admin = t.member(&acme, "admin").await;
    set(t, &admin, connection(providers(), "rs256")).await.expect("connects");
    let invite = async |by: &Person, person: &serde_json::Value, role: &str| {
        let request =
            v1::InviteMemberRequest { email: address(person), roles: vec![role.to_owned()], ..Default::default() };
        t.with_token(&by.token).members.invite_member(request).await.expect("invites");
    };
    let colleague = t.member(&acme, "admin").await;
    let all: Vec<_> = (0..4).map(|_| somebody(&domain)).collect();
    invite(&acme.owner, &all[0], "manager").await;
    // What whoever connected the provider could not have given, is not given by signing in.
    invite(&acme.owner, &all[1], "treasurer").await;
    invite(&acme.owner, &all[2], "owner").await;
    // Nobody answers for this one any more.
    invite(&colleague, &all[3], "manager").await;
    let remove = v1::RemoveMemberRequest { user_id: colleague.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.expect("removes");
    for (person, role) in all.iter().zip(["manager", "viewer", "viewer", "viewer"]) {
        assert_eq!(roles_of(t, &oidc::token(t, &acme.id, person).await).await, [role]);
    }
    let pending = v1::ListInvitationsRequest { status: v1::InvitationStatus::Pending.into(), ..Default::default() };
    let left = t.with_token(&acme.owner.token).members.list_invitations(pending).await.unwrap().into_inner();
    assert!(left.invitations.is_empty(), "each holds one seat: {left:?}");
}

async fn a_key_of_a_members_own_is_as_good_as_the_sign_in_that_made_it(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let token = oidc::token(t, &acme.id, &somebody(&domain)).await;
    let vouched = Person { token, ..acme.owner.clone() };
    let vouched = crate::api_keys::personal(t, &vouched, &["*"]).await.secret;
    let bob = t.member(&acme, "member").await;
    let by_password = crate::api_keys::personal(t, &bob, &["*"]).await.secret;
    let of_owner = crate::api_keys::personal(t, &acme.owner, &["*"]).await.secret;
    let enter = async |key: &str| t.with_key(key).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    for key in [&vouched, &by_password, &of_owner] {
        enter(key).await.expect("enters");
    }
    t.operator().tenants.update_settings(mfa::require(&acme, true)).await.expect("asks for a second step");
    enter(&vouched).await.expect("the provider answers for it");
    assert_refused(enter(&by_password).await, Code::PermissionDenied, "MFA_REQUIRED");
    t.operator().tenants.update_settings(mfa::require(&acme, false)).await.expect("does not");
    connect(t, &acme, v1::SsoConnection { required: true, ..connection(providers(), "rs256") }).await;
    enter(&vouched).await.expect("by the same connection");
    enter(&of_owner).await.expect("owners break the glass");
    assert_refused(enter(&by_password).await, Code::PermissionDenied, "SSO_REQUIRED");
    // It ends with the connection, and comes back with no other.
    connect(t, &acme, connection(providers(), "es256")).await;
    assert_refused(enter(&vouched).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    enter(&by_password).await.expect("not required any more");
    let end = v1::DeleteSsoConnectionRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.delete_sso_connection(end).await.expect("ends");
    assert_refused(enter(&vouched).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
}
