//! The connection with an identity provider: who makes it, what is in it, and what ends with it.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, CATALOGUE, Engine, assert_refused, on_both_engines, request_id, wrong_fields};
use crate::oidc::{self, SECRET, connect, connected, connection, crooked, providers, somebody};

on_both_engines! {
    a_connection_is_made_changed_and_ended
    wrong_fields_of_a_connection_are_named
    a_connection_gives_no_role_above_ones_own
    the_secret_of_a_client_is_nowhere_in_the_clear_and_goes_to_no_other
    a_connection_is_for_those_who_may_change_settings
    sessions_end_with_the_connection_that_they_came_through
    a_provider_is_tried_before_it_is_relied_on
    ;
    alone
    a_connection_wants_a_recent_sign_in
}

fn set(connection: v1::SsoConnection) -> v1::SetSsoConnectionRequest {
    v1::SetSsoConnectionRequest { connection: Some(connection), ..Default::default() }
}

fn get() -> v1::GetSsoConnectionRequest {
    v1::GetSsoConnectionRequest::default()
}

async fn a_connection_is_made_changed_and_ended(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    assert_refused(owner.get_sso_connection(get()).await, Code::NotFound, "SSO_NOT_CONFIGURED");
    let request = v1::SetSsoConnectionRequest {
        request_id: request_id(),
        client_secret: SECRET.to_owned(),
        ..set(connection("https://idp.example.com", "us"))
    };
    let made = owner.set_sso_connection(request.clone()).await.unwrap().into_inner().connection.unwrap();
    assert!(made.has_client_secret && !made.required);
    assert_eq!((made.etag.as_str(), made.highest_role.as_str()), ("\"v1\"", "owner"));
    assert_eq!(made.scopes, ["email", "profile"]);
    assert_eq!(owner.set_sso_connection(request).await.unwrap().into_inner().connection.unwrap(), made);
    assert_eq!(owner.get_sso_connection(get()).await.unwrap().into_inner().connection.unwrap(), made);
    let stale = v1::SetSsoConnectionRequest { etag: "\"v7\"".to_owned(), ..set(made.clone()) };
    assert_refused(owner.set_sso_connection(stale).await, Code::Aborted, "ETAG_MISMATCH");
    let change = v1::SetSsoConnectionRequest {
        etag: made.etag.clone(),
        ..set(v1::SsoConnection { required: true, ..made.clone() })
    };
    let changed = owner.set_sso_connection(change).await.unwrap().into_inner().connection.unwrap();
    assert!(changed.required && changed.has_client_secret, "the secret stays: {changed:?}");
    owner.delete_sso_connection(v1::DeleteSsoConnectionRequest::default()).await.unwrap();
    assert_refused(owner.get_sso_connection(get()).await, Code::NotFound, "SSO_NOT_CONFIGURED");
    let again = owner.delete_sso_connection(v1::DeleteSsoConnectionRequest::default()).await;
    assert_refused(again, Code::NotFound, "SSO_NOT_CONFIGURED");
}

async fn wrong_fields_of_a_connection_are_named(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let good = connection("https://idp.example.com", "us");
    let group = |group: &str, role: &str| v1::GroupRole { group: group.to_owned(), role: role.to_owned() };
    let issuer = |text: &str| v1::SsoConnection { issuer: text.to_owned(), ..good.clone() };
    let redirect = |text: &str| v1::SsoConnection { redirect_uris: vec![text.to_owned()], ..good.clone() };
    let cases = [
        (issuer(""), "connection.issuer"),
        (issuer("idp.example.com"), "connection.issuer"),
        (issuer("http://idp.example.com"), "connection.issuer"),
        (issuer("https://idp.example.com?x=y"), "connection.issuer"),
        (issuer("https://u:p@idp.example.com"), "connection.issuer"),
        (v1::SsoConnection { client_id: String::new(), ..good.clone() }, "connection.client_id"),
        (v1::SsoConnection { redirect_uris: Vec::new(), ..good.clone() }, "connection.redirect_uris"),
        (redirect("javascript:alert(1)"), "connection.redirect_uris[0]"),
        (redirect("http://app.example.com/"), "connection.redirect_uris[0]"),
        (redirect("https://app.example.com/#here"), "connection.redirect_uris[0]"),
        (v1::SsoConnection { scopes: vec!["a b".to_owned()], ..good.clone() }, "connection.scopes[0]"),
        (v1::SsoConnection { scopes: vec!["a".to_owned(); 11], ..good.clone() }, "connection.scopes"),
        (v1::SsoConnection { domains: vec!["-".to_owned()], ..good.clone() }, "connection.domains[0]"),
        (v1::SsoConnection { default_role: "boss".to_owned(), ..good.clone() }, "connection.default_role"),
        (v1::SsoConnection { group_roles: vec![group("x", "member")], ..good.clone() }, "connection.group_claim"),
        (
            v1::SsoConnection { group_claim: "g".to_owned(), group_roles: vec![group("", "member")], ..good.clone() },
            "connection.group_roles[0].group",
        ),
        (
            v1::SsoConnection { group_claim: "g".to_owned(), group_roles: vec![group("x", "boss")], ..good.clone() },
            "connection.group_roles[0].role",
        ),
    ];
    for (wrong, field) in cases {
        assert_eq!(wrong_fields(owner.set_sso_connection(set(wrong.clone())).await), [field], "{wrong:?}");
    }
    let all = wrong_fields(owner.set_sso_connection(v1::SetSsoConnectionRequest::default()).await);
    assert_eq!(all, ["connection.issuer", "connection.client_id", "connection.redirect_uris"]);
}

async fn a_connection_gives_no_role_above_ones_own(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let mut admin = t.with_token(&admin.token).tenants;
    let by_default = |role: &str| {
        set(v1::SsoConnection { default_role: role.to_owned(), ..connection("https://idp.example.com", "us") })
    };
    let by_group = |role: &str| {
        let group_roles = vec![v1::GroupRole { group: "g".to_owned(), role: role.to_owned() }];
        let connection = connection("https://idp.example.com", "us");
        set(v1::SsoConnection { group_claim: "groups".to_owned(), group_roles, ..connection })
    };
    // The top role not even by an owner: nobody is made one by a provider.
    for mut clients in [admin.clone(), t.with_token(&acme.owner.token).tenants, t.operator().tenants] {
        for request in [by_default("owner"), by_group("owner")] {
            let request = v1::SetSsoConnectionRequest { tenant: acme.id.clone(), ..request };
            assert_eq!(wrong_fields(clients.set_sso_connection(request).await), ["connection"]);
        }
    }
    let narrow = t.service_key(&["settings.*", "members.read"]).await;
    let request = v1::SetSsoConnectionRequest { tenant: acme.id.clone(), ..by_default("manager") };
    let told = t.with_key(&narrow).tenants.set_sso_connection(request).await;
    assert_refused(told, Code::PermissionDenied, "RANK_TOO_LOW");
    let made = admin.set_sso_connection(by_group("admin")).await.expect("one's own").into_inner();
    assert_eq!(made.connection.unwrap().highest_role, "admin");
}

async fn the_secret_of_a_client_is_nowhere_in_the_clear_and_goes_to_no_other(t: &Bed) {
    let acme = t.tenant("acme").await;
    connect(t, &acme, connection(providers(), "rs256")).await;
    let sql = "select sealed from sso_connection where tenant_id = $1";
    let sealed = async || -> Option<Vec<u8>> { t.rows::<(Option<Vec<u8>>,)>(sql, &acme.id).await.remove(0).0 };
    let first = sealed().await.expect("a secret");
    assert!(!String::from_utf8_lossy(&first).contains(SECRET));
    for row in t.audit(&acme.id).await {
        assert!(!row.changes.contains(SECRET), "{row:?}");
    }
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.set_sso_connection(set(connection(providers(), "rs256"))).await.unwrap();
    assert_eq!(sealed().await, Some(first), "the same client keeps it");
    for other in [connection(providers(), "es256"), connection(&crooked(), "es256")] {
        let made = owner.set_sso_connection(set(other)).await.unwrap().into_inner().connection.unwrap();
        assert!(!made.has_client_secret && sealed().await.is_none(), "another one is not sent it");
    }
}

async fn a_connection_is_for_those_who_may_change_settings(t: &Bed) {
    let acme = t.tenant("acme").await;
    let manager = t.member(&acme, "manager").await;
    let mut manager = t.with_token(&manager.token).tenants;
    let told = manager.set_sso_connection(set(connection("https://idp.example.com", "us"))).await;
    assert_refused(told, Code::PermissionDenied, "PERMISSION_MISSING");
    let told = manager.delete_sso_connection(v1::DeleteSsoConnectionRequest::default()).await;
    assert_refused(told, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_refused(manager.get_sso_connection(get()).await, Code::NotFound, "SSO_NOT_CONFIGURED");
    let viewer = t.member(&acme, "viewer").await;
    let told = t.with_token(&viewer.token).tenants.get_sso_connection(get()).await;
    assert_refused(told, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn sessions_end_with_the_connection_that_they_came_through(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let enter = async |token: &str| t.with_token(token).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    let ada = somebody(&domain);
    let first = oidc::token(t, &acme.id, &ada).await;
    connect(t, &acme, v1::SsoConnection { required: true, ..connection(providers(), "rs256") }).await;
    enter(&first).await.expect("the same provider and client: the same connection");
    connect(t, &acme, connection(providers(), "es256")).await;
    assert_refused(enter(&first).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    let second = oidc::token(t, &acme.id, &ada).await;
    enter(&second).await.expect("through the new one");
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.delete_sso_connection(v1::DeleteSsoConnectionRequest::default()).await.unwrap();
    assert_refused(enter(&second).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
    connect(t, &acme, connection(providers(), "es256")).await;
    assert_refused(enter(&second).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

async fn a_provider_is_tried_before_it_is_relied_on(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let mut test = async |issuer: &str| {
        let request = v1::TestSsoConnectionRequest { issuer: issuer.to_owned(), ..Default::default() };
        owner.test_sso_connection(request).await
    };
    assert_refused(test("").await, Code::NotFound, "SSO_NOT_CONFIGURED");
    let good = test(providers()).await.unwrap().into_inner();
    assert_eq!((good.reachable, good.keys, good.problem.as_str()), (true, 2, ""));
    let down = test("http://127.0.0.1:1").await.unwrap().into_inner();
    assert!(!down.reachable && down.problem.contains("no answer"), "{down:?}");
    // It answers, and calls itself otherwise.
    let other = test(&providers().replace("127.0.0.1", "localhost")).await.unwrap().into_inner();
    assert!(!other.reachable && other.problem.contains("another issuer"), "{other:?}");
    assert_eq!(wrong_fields(test("https://user@idp.example.com").await), ["issuer"]);
    connect(t, &acme, connection(providers(), "rs256")).await;
    assert!(test("").await.unwrap().into_inner().reachable);
}

async fn a_connection_wants_a_recent_sign_in(t: Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    t.clock.advance(TimeDelta::minutes(4));
    // A token of a fresh session is not a fresh sign-in when the old one was exchanged for it.
    let admin = t.login(&admin, &acme.id).await;
    let set_it = set(connection("https://idp.example.com", "us"));
    t.with_token(&admin.token).tenants.set_sso_connection(set_it).await.expect("just signed in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_catalogue_sells_it_the_plan_must_include_it() {
    let catalogue = CATALOGUE.replace(
        "[plans.free.limits]",
        "[features]\nsso = \"\"\nother = \"\"\n[plans.free]\nfeatures = [\"other\"]\n[plans.free.limits]",
    );
    let t = Bed::of_product(Engine::Sqlite, &catalogue).await;
    let acme = t.tenant("acme").await;
    let request = set(connection("https://idp.example.com", "us"));
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let told = owner.set_sso_connection(request.clone()).await;
    assert_refused(told, Code::FailedPrecondition, "FEATURE_NOT_IN_PLAN");
    let switch = v1::SetFeatureRequest {
        tenant: acme.id.clone(),
        feature: "sso".to_owned(),
        value: Some(v1::set_feature_request::Value::Enabled(true)),
        r#override: true,
        ..Default::default()
    };
    t.operator().tenants.set_feature(switch).await.expect("an operator grants it");
    owner.set_sso_connection(request).await.expect("now");
}
