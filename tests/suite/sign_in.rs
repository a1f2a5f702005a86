//! Sign-up and sign-in.

use tenantry::rpc::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Bed, PASSWORD, assert_refused, on_both_engines, request_id, unique, wrong_fields};

on_both_engines! {
    an_account_alone_has_no_tenant
    an_account_with_a_tenant_owns_it_and_works_in_it
    every_field_that_is_wrong_is_named
    a_weak_password_is_refused
    an_address_has_one_account
    a_taken_slug_leaves_nothing_half_made
    a_repeated_sign_up_is_the_first_one
    a_repeated_sign_up_wants_the_password
    sign_in_gives_a_token_for_the_default_tenant
    wrong_password_and_unknown_address_look_alike
    sign_in_names_a_tenant_by_id_or_slug
    a_known_device_keeps_its_token
}

fn sign_up(slug: Option<&str>) -> v1::SignUpRequest {
    v1::SignUpRequest {
        email: format!("{}@example.com", unique("ann")),
        password: PASSWORD.to_owned(),
        display_name: "Ann".to_owned(),
        tenant: slug.map(|slug| v1::NewTenant { display_name: slug.to_owned(), slug: slug.to_owned() }),
        ..Default::default()
    }
}

fn login(email: &str, password: &str) -> v1::LoginRequest {
    v1::LoginRequest { email: email.to_owned(), password: password.to_owned(), ..Default::default() }
}

async fn an_account_alone_has_no_tenant(t: &Bed) {
    let asked = v1::SignUpRequest { email: format!("{}@Example.COM", unique("ANN")), ..sign_up(None) };
    let done = t.anonymous().auth.sign_up(asked.clone()).await.unwrap().into_inner();
    assert_eq!(done.user.unwrap().email, asked.email.to_lowercase());
    assert!(done.tenant.is_none());
    let token = done.access_token.unwrap();
    assert_eq!(token.tenant_id, "");
    assert_eq!(token.expires_in.unwrap().seconds, 300);
    let me = t.with_token(&token.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert!(me.tenant.is_none() && me.permissions.is_empty() && me.roles.is_empty());
    let left = t.with_token(&token.token).members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(left, Code::InvalidArgument, "TENANT_MISSING");
}

async fn an_account_with_a_tenant_owns_it_and_works_in_it(t: &Bed) {
    let slug = unique("acme");
    let done = t.anonymous().auth.sign_up(sign_up(Some(&slug))).await.unwrap().into_inner();
    let (tenant, token) = (done.tenant.unwrap(), done.access_token.unwrap());
    assert_eq!((tenant.slug.as_str(), tenant.plan.as_str()), (slug.as_str(), "free"));
    assert_eq!(tenant.status(), v1::TenantStatus::Active);
    assert_eq!(token.tenant_id, tenant.tenant_id);
    let me = t.with_token(&token.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.tenant.unwrap(), tenant);
    assert_eq!(me.roles, ["owner"]);
    // It is the default from now on.
    let email = done.user.unwrap().email;
    let again = t.anonymous().auth.login(login(&email, PASSWORD)).await.unwrap().into_inner();
    assert_eq!(again.access_token.unwrap().tenant_id, tenant.tenant_id);
}

async fn every_field_that_is_wrong_is_named(t: &Bed) {
    let asked = v1::SignUpRequest {
        request_id: "1".to_owned(),
        email: "ann".to_owned(),
        password: "short".to_owned(),
        display_name: " ".to_owned(),
        tenant: Some(v1::NewTenant { display_name: String::new(), slug: "admin".to_owned() }),
        device: Some(v1::Device { display_name: "x".repeat(101), user_agent: "\u{7}".to_owned() }),
        ..Default::default()
    };
    let wrong = wrong_fields(t.anonymous().auth.sign_up(asked).await);
    let of_device = ["device.display_name", "device.user_agent"];
    let all = ["request_id", "email", "display_name", "password", "tenant.display_name", "tenant.slug"];
    let all = [&all[..], &of_device[..]].concat();
    assert_eq!(wrong, all);
}

async fn a_weak_password_is_refused(t: &Bed) {
    let base = sign_up(None);
    let local = base.email.split_once('@').unwrap().0.to_owned();
    for weak in ["seven77", "Password1", "zzzzzzzzz", &local, &"x1".repeat(65), ""] {
        let asked = v1::SignUpRequest { password: (*weak).to_owned(), ..base.clone() };
        assert_eq!(wrong_fields(t.anonymous().auth.sign_up(asked).await), ["password"], "{weak}");
    }
    t.anonymous().auth.sign_up(base).await.expect("the address is still free");
}

async fn an_address_has_one_account(t: &Bed) {
    let first = sign_up(None);
    t.anonymous().auth.sign_up(first.clone()).await.unwrap();
    let slug = unique("second");
    let second = v1::SignUpRequest { email: first.email.to_uppercase(), ..sign_up(Some(&slug)) };
    assert_refused(t.anonymous().auth.sign_up(second).await, Code::AlreadyExists, "EMAIL_TAKEN");
    let check = t.anonymous().tenants.check_slug(v1::CheckSlugRequest { slug }).await.unwrap().into_inner();
    assert!(check.available, "the refused sign-up kept its slug");
}

async fn a_taken_slug_leaves_nothing_half_made(t: &Bed) {
    let acme = t.tenant("acme").await;
    let asked = v1::SignUpRequest { request_id: request_id(), ..sign_up(Some(&acme.slug)) };
    assert_refused(t.anonymous().auth.sign_up(asked.clone()).await, Code::AlreadyExists, "SLUG_TAKEN");
    assert_refused(
        t.anonymous().auth.login(login(&asked.email, PASSWORD)).await,
        Code::Unauthenticated,
        "PASSWORD_WRONG",
    );
    // Neither the address nor the request_id is used up.
    let free = unique("free");
    let tenant = Some(v1::NewTenant { display_name: free.clone(), slug: free });
    t.anonymous().auth.sign_up(v1::SignUpRequest { tenant, ..asked }).await.expect("signs up");
}

async fn a_repeated_sign_up_is_the_first_one(t: &Bed) {
    let slug = unique("acme");
    let asked = v1::SignUpRequest { request_id: request_id(), ..sign_up(Some(&slug)) };
    let first = t.anonymous().auth.sign_up(asked.clone()).await.unwrap().into_inner();
    let again = t.anonymous().auth.sign_up(asked.clone()).await.unwrap().into_inner();
    assert_eq!((&first.user, &first.tenant), (&again.user, &again.tenant));
    let (one, two) = (first.access_token.unwrap(), again.access_token.unwrap());
    assert_eq!((one.session_id, one.tenant_id), (two.session_id, two.tenant_id));
    t.with_token(&two.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("the second token is good");
    let other = v1::SignUpRequest { display_name: "Bob".to_owned(), ..asked };
    assert_refused(t.anonymous().auth.sign_up(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

async fn sign_in_gives_a_token_for_the_default_tenant(t: &Bed) {
    let acme = t.tenant("acme").await;
    let done = t.anonymous().auth.login(login(&acme.owner.email.to_uppercase(), PASSWORD)).await.unwrap().into_inner();
    assert_eq!(done.user.unwrap().user_id, acme.owner.id);
    let token = done.access_token.unwrap();
    assert_eq!(token.tenant_id, acme.id);
    let me = t.with_token(&token.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.user.unwrap().user_id, acme.owner.id);
}

async fn wrong_password_and_unknown_address_look_alike(t: &Bed) {
    let ann = t.person("ann").await;
    let wrong = t.anonymous().auth.login(login(&ann.email, "not her password")).await.unwrap_err();
    let unknown = t.anonymous().auth.login(login("nobody@example.com", "not her password")).await.unwrap_err();
    assert_eq!((wrong.code(), wrong.message()), (unknown.code(), unknown.message()));
    assert_eq!(wrong.details(), unknown.details());
    assert_eq!(wrong.get_details_error_info().unwrap().reason, "PASSWORD_WRONG");
    let empty = t.anonymous().auth.login(login(&ann.email, "")).await;
    assert_refused(empty, Code::Unauthenticated, "PASSWORD_WRONG");
    // A tenant that is named does not tell more.
    let acme = t.tenant("acme").await;
    let named = v1::LoginRequest { tenant: acme.slug, ..login(&ann.email, "not her password") };
    assert_eq!(t.anonymous().auth.login(named).await.unwrap_err().details(), wrong.details());
}

async fn sign_in_names_a_tenant_by_id_or_slug(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    for name in [&globex.id, &globex.slug] {
        let asked = v1::LoginRequest { tenant: name.clone(), ..login(&acme.owner.email, PASSWORD) };
        let done = t.anonymous().auth.login(asked).await.unwrap().into_inner();
        assert_eq!(done.access_token.unwrap().tenant_id, globex.id);
    }
    let stranger = unique("nobodys");
    for name in [&acme.id, &acme.slug, &request_id(), &stranger] {
        let asked = v1::LoginRequest { tenant: name.clone(), ..login(&globex.owner.email, PASSWORD) };
        assert_refused(t.anonymous().auth.login(asked).await, Code::NotFound, "TENANT_NOT_FOUND");
    }
    let asked = v1::LoginRequest { tenant: "No Tenant".to_owned(), ..login(&acme.owner.email, PASSWORD) };
    assert_eq!(wrong_fields(t.anonymous().auth.login(asked).await), ["tenant"]);
}

async fn a_known_device_keeps_its_token(t: &Bed) {
    let (ann, bob) = (t.person("ann").await, t.person("bob").await);
    let first = t.anonymous().auth.login(login(&ann.email, PASSWORD)).await.unwrap().into_inner().device_token;
    assert!(!first.is_empty());
    let with = |email: &str| v1::LoginRequest { device_token: first.clone(), ..login(email, PASSWORD) };
    let again = t.anonymous().auth.login(with(&ann.email)).await.unwrap().into_inner();
    assert_eq!(again.device_token, first);
    let other = t.anonymous().auth.login(login(&ann.email, PASSWORD)).await.unwrap().into_inner();
    assert_ne!(other.device_token, first);
    // Somebody else's token is as good as none.
    let bobs = t.anonymous().auth.login(with(&bob.email)).await.unwrap().into_inner();
    assert_ne!(bobs.device_token, first);
    assert_refused(
        t.with_token(&first).auth.who_am_i(v1::WhoAmIRequest {}).await,
        Code::Unauthenticated,
        "CREDENTIAL_INVALID",
    );
}

/// The answer is a sign-in, so to know the request is not enough.
async fn a_repeated_sign_up_wants_the_password(t: &Bed) {
    let first = v1::SignUpRequest { request_id: request_id(), ..sign_up(None) };
    t.anonymous().auth.sign_up(first.clone()).await.expect("signs up");
    let guessed = v1::SignUpRequest { password: "another password".to_owned(), ..first.clone() };
    let refused = t.anonymous().auth.sign_up(guessed).await;
    assert_refused(refused, Code::InvalidArgument, "REQUEST_ID_REUSED");
    t.anonymous().auth.sign_up(first).await.expect("the first answer again");
}
