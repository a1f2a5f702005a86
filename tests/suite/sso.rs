//! Single sign-on: who comes in through a tenant's own identity provider, as whom, and where to.

use chrono::TimeDelta;
use serde_json::json;
use tenantry::rpc::access::{TenantRule, Who};
use tenantry::rpc::v1;
use tonic::Code;

use crate::auto_join;
use crate::harness::{Bed, Clients, Headers, Person, assert_refused, on_both_engines, refusal, wrong_fields};
use crate::oidc::{
    self, begin, browse, callback, complete, connect, connected, connection, crooked, proven, providers, sign_in,
    somebody, with,
};
use crate::raw::{self, headers};

on_both_engines! {
    somebody_signs_in_through_the_tenants_provider_and_is_known_again
    providers_sign_with_rsa_or_with_elliptic_curves
    a_state_is_good_once
    a_sign_in_ends_in_the_browser_where_it_began
    a_sign_in_ends_with_the_connection_that_it_began_with
    a_code_is_good_in_its_own_sign_in_only
    what_a_provider_says_must_hold
    a_provider_that_changes_its_keys_goes_on
    a_provider_that_does_not_answer_is_told_apart
    an_answer_in_another_providers_name_is_refused
    an_address_counts_only_when_it_is_verified_and_of_the_tenants_own_domain
    somebody_who_has_an_account_is_known_by_their_address
    another_tenants_provider_says_nothing_here
    nobody_joins_when_all_seats_are_taken
    who_was_removed_does_not_come_back_by_signing_in
    roles_follow_groups_at_each_sign_in
    nobody_comes_back_above_who_connected_the_provider
    such_a_session_opens_its_tenant_and_nothing_else
    a_tenant_that_requires_it_is_entered_through_its_provider_only
    a_tenant_without_a_provider_looks_like_none
    ;
    alone
    a_sign_in_takes_ten_minutes_at_most
    sign_ins_through_a_provider_end_no_other_sessions
}

async fn who(t: &Bed, token: &str) -> v1::WhoAmIResponse {
    t.with_token(token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner()
}

async fn somebody_signs_in_through_the_tenants_provider_and_is_known_again(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    let first = sign_in(t, &acme.slug, &ada).await.expect("signs in").into_inner();
    let user = first.user.unwrap();
    assert_eq!(user.email, ada["email"]);
    assert_eq!(user.display_name, "Ada Lovelace");
    assert!(first.joined);
    let token = first.access_token.unwrap();
    assert_eq!(token.tenant_id, acme.id);
    let me = who(t, &token.token).await;
    assert_eq!((me.roles, me.tenant.unwrap().tenant_id), (vec!["viewer".to_owned()], acme.id.clone()));

    // From now on the provider's own name for her counts, whatever her address is there.
    let moved = with(&ada, json!({ "email": "ada@elsewhere.example", "email_verified": false }));
    let again = sign_in(t, &acme.id, &moved).await.expect("signs in again").into_inner();
    assert_eq!((again.user.unwrap(), again.joined), (user, false));
    let audit = t.audit(&acme.id).await;
    let joins: Vec<_> = audit.iter().filter(|row| row.action == "System/JoinBySso").collect();
    assert_eq!(joins.len(), 1);
    assert_eq!(audit.iter().filter(|row| row.action == "AuthService/CompleteSso").count(), 2);
    // She has no password: nobody signs in as her with one.
    let login = v1::LoginRequest {
        email: ada["email"].as_str().unwrap().to_owned(),
        password: crate::harness::PASSWORD.to_owned(),
        ..Default::default()
    };
    assert_refused(t.anonymous().auth.login(login).await, Code::Unauthenticated, "PASSWORD_WRONG");
}

async fn providers_sign_with_rsa_or_with_elliptic_curves(t: &Bed) {
    for client in ["rs256", "es256"] {
        let acme = t.tenant("acme").await;
        let domain = proven(t, &acme).await;
        connect(t, &acme, connection(providers(), client)).await;
        sign_in(t, &acme.id, &somebody(&domain)).await.unwrap_or_else(|status| panic!("{client}: {status:?}"));
    }
}

async fn a_state_is_good_once(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let begun = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
    let request = callback(&browse(&begun.url).await, &begun.binding);
    complete(t, request.clone()).await.expect("signs in");
    assert_refused(complete(t, request).await, Code::Unauthenticated, "SSO_STATE_INVALID");

    // Also when nothing came of it the first time.
    let begun = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
    let request = callback(&browse(&begun.url).await, &begun.binding);
    let wrong = v1::CompleteSsoRequest { code: "no code of anybody".to_owned(), ..request.clone() };
    assert_refused(complete(t, wrong).await, Code::Unauthenticated, "SSO_REFUSED");
    assert_refused(complete(t, request).await, Code::Unauthenticated, "SSO_STATE_INVALID");
}

async fn a_sign_in_ends_in_the_browser_where_it_began(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let begun = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
    let other = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
    let request = callback(&browse(&begun.url).await, &begun.binding);
    let mut bent = request.state.clone().into_bytes();
    bent[40] = if bent[40] == b'A' { b'B' } else { b'A' };
    let bent = String::from_utf8(bent).unwrap();
    for wrong in [
        v1::CompleteSsoRequest { binding_token: other.binding, ..request.clone() },
        v1::CompleteSsoRequest { binding_token: "tnb_nothing".to_owned(), ..request.clone() },
        v1::CompleteSsoRequest { state: bent, ..request.clone() },
        v1::CompleteSsoRequest { state: "x".to_owned(), ..request.clone() },
        v1::CompleteSsoRequest { state: request.state[..60].to_owned(), ..request.clone() },
    ] {
        assert_refused(complete(t, wrong).await, Code::Unauthenticated, "SSO_STATE_INVALID");
    }
    complete(t, request).await.expect("the right one is still good");
}

/// Also when the next connection is with the same provider: what was begun was asked for by another one.
async fn a_sign_in_ends_with_the_connection_that_it_began_with(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let begun = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
    let request = callback(&browse(&begun.url).await, &begun.binding);
    let mut owner = t.with_token(&acme.owner.token).tenants;
    owner.delete_sso_connection(v1::DeleteSsoConnectionRequest::default()).await.expect("goes");
    assert_refused(complete(t, request.clone()).await, Code::NotFound, "SSO_NOT_CONFIGURED");
    connect(t, &acme, connection(providers(), "rs256")).await;
    assert_refused(complete(t, request).await, Code::Unauthenticated, "SSO_STATE_INVALID");
    sign_in(t, &acme.id, &somebody(&domain)).await.expect("the new one lets people in");
}

async fn a_code_is_good_in_its_own_sign_in_only(t: &Bed) {
    let ((acme, domain), (globex, _)) = (connected(t, "acme").await, connected(t, "globex").await);
    let ada = somebody(&domain);
    // A code that was got elsewhere, put into one's own sign-in: of the same tenant, and of another at the same provider.
    for tenant in [&acme, &globex] {
        let theirs = begin(t, &acme.id, &ada).await.unwrap();
        let mine = begin(t, &tenant.id, &ada).await.unwrap();
        let stolen = callback(&browse(&theirs.url).await, &theirs.binding);
        let own = callback(&browse(&mine.url).await, &mine.binding);
        let injected = v1::CompleteSsoRequest { code: stolen.code, ..own };
        assert_refused(complete(t, injected).await, Code::Unauthenticated, "SSO_REFUSED");
    }
}

async fn what_a_provider_says_must_hold(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    connect(t, &acme, connection(&crooked(), "us")).await;
    sign_in(t, &acme.id, &somebody(&domain)).await.expect("what holds is taken");
    for wrong in ["nonce", "no nonce", "issuer", "audience", "expired", "future", "none", "hs256", "key", "tampered"] {
        let told = refusal(sign_in(t, &acme.id, &with(&somebody(&domain), json!({ "wrong": wrong }))).await);
        assert_eq!(told, (Code::Unauthenticated, "SSO_REFUSED".to_owned()), "{wrong}");
    }
    for (name, subject) in [("empty", String::new()), ("long", "x".repeat(300))] {
        let told = refusal(sign_in(t, &acme.id, &with(&somebody(&domain), json!({ "sub": subject }))).await);
        assert_eq!(told, (Code::Unauthenticated, "SSO_REFUSED".to_owned()), "{name}");
    }
}

async fn a_provider_that_changes_its_keys_goes_on(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    connect(t, &acme, connection(&crooked(), "us")).await;
    sign_in(t, &acme.id, &somebody(&domain)).await.expect("the keys are looked at");
    let rotated = with(&somebody(&domain), json!({ "wrong": "rotated" }));
    sign_in(t, &acme.id, &rotated).await.expect("the new ones are looked at");
}

async fn a_provider_that_does_not_answer_is_told_apart(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    // Nobody listens at port 1; there is no provider at an address of the certified one.
    for issuer in ["http://127.0.0.1:1".to_owned(), format!("{}/nothing", providers())] {
        connect(t, &acme, connection(&issuer, "us")).await;
        let told = begin(t, &acme.id, &somebody(&domain)).await.map(|_| tonic::Response::new(()));
        assert_refused(told, Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE");
    }
    connect(t, &acme, connection(&crooked(), "us")).await;
    let endless = with(&somebody(&domain), json!({ "wrong": "endless" }));
    assert_refused(sign_in(t, &acme.id, &endless).await, Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE");
    // Neither is anybody followed to where a provider points.
    let redirect = with(&somebody(&domain), json!({ "wrong": "redirect" }));
    assert_refused(sign_in(t, &acme.id, &redirect).await, Code::Unavailable, "SSO_PROVIDER_UNAVAILABLE");
}

async fn an_answer_in_another_providers_name_is_refused(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    for issuer in ["", "https://another.example.com", "https://127.0.0.1"] {
        let begun = begin(t, &acme.id, &somebody(&domain)).await.unwrap();
        let request = callback(&browse(&begun.url).await, &begun.binding);
        assert_eq!(request.iss, providers(), "the provider says who it is");
        let request = v1::CompleteSsoRequest { iss: issuer.to_owned(), ..request };
        assert_refused(complete(t, request).await, Code::Unauthenticated, "SSO_REFUSED");
    }
}

async fn an_address_counts_only_when_it_is_verified_and_of_the_tenants_own_domain(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let (globex, theirs) = connected(t, "globex").await;
    let ada = somebody(&domain);
    for claims in [
        json!({ "email_verified": false }),
        json!({ "email_verified": null }),
        json!({ "email": null }),
        json!({ "email": "no address" }),
        json!({ "email": format!("ada@{theirs}") }),
        json!({ "email": format!("ada@sub.{domain}") }),
        json!({ "email": globex.owner.email }),
        json!({ "email": acme.owner.email }),
    ] {
        let told = refusal(sign_in(t, &acme.id, &with(&ada, claims.clone())).await);
        assert_eq!(told, (Code::PermissionDenied, "SSO_ADDRESS_REFUSED".to_owned()), "{claims}");
    }
    sign_in(t, &acme.id, &ada).await.expect("and in the end the right one");
    // A domain that the connection leaves out, and one that is not proven any more.
    let narrow =
        v1::SsoConnection { domains: vec!["other.example.org".to_owned()], ..connection(providers(), "rs256") };
    connect(t, &acme, narrow).await;
    let told = sign_in(t, &acme.id, &somebody(&domain)).await;
    assert_refused(told, Code::PermissionDenied, "SSO_ADDRESS_REFUSED");
    connect(t, &acme, connection(providers(), "rs256")).await;
    let remove = v1::RemoveDomainRequest { domain: domain.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).tenants.remove_domain(remove).await.unwrap();
    let told = sign_in(t, &acme.id, &somebody(&domain)).await;
    assert_refused(told, Code::PermissionDenied, "SSO_ADDRESS_REFUSED");
}

/// Signs somebody up with a password, at this address, and proves it.
async fn sign_up(t: &Bed, email: &str) -> Person {
    let person = auto_join::sign_up(t, email).await;
    crate::links::prove(t, &person).await;
    person
}

async fn somebody_who_has_an_account_is_known_by_their_address(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    let before = sign_up(t, ada["email"].as_str().unwrap()).await;
    t.join(&acme, &before, "member").await;
    let done = sign_in(t, &acme.id, &ada).await.expect("signs in").into_inner();
    let user = done.user.unwrap();
    assert_eq!((user.user_id, user.display_name.as_str(), done.joined), (before.id.clone(), "Ada", false));
    assert_eq!(who(t, &done.access_token.unwrap().token).await.roles, ["member"]);
    // The password is still the person's own, and opens all that it did.
    t.login(&before, &acme.id).await;
}

async fn another_tenants_provider_says_nothing_here(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    sign_in(t, &acme.id, &ada).await.expect("signs in");
    // The same provider, subject and all, at another tenant: nobody that it knows, and no address that it may vouch for.
    let (globex, _) = connected(t, "globex").await;
    assert_refused(sign_in(t, &globex.id, &ada).await, Code::PermissionDenied, "SSO_ADDRESS_REFUSED");
}

async fn nobody_joins_when_all_seats_are_taken(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let (ada, bob) = (somebody(&domain), somebody(&domain));
    sign_in(t, &acme.id, &ada).await.expect("joins");
    t.set_seats(&acme, 2).await;
    assert_refused(sign_in(t, &acme.id, &bob).await, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    sign_in(t, &acme.id, &ada).await.expect("who has a seat signs in");
    // Nothing of the refused one was left behind.
    sign_up(t, bob["email"].as_str().unwrap()).await;
    t.set_seats(&acme, 3).await;
    // Many at once for the one seat that is left: one joins.
    let many: Vec<_> = (0..8).map(|_| somebody(&domain)).collect();
    let all = many.iter().map(|person| sign_in(t, &acme.id, person));
    let all = futures::future::join_all(all).await;
    assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refused in all.into_iter().filter(Result::is_err) {
        assert_refused(refused, Code::ResourceExhausted, "SEATS_EXHAUSTED");
    }
}

async fn who_was_removed_does_not_come_back_by_signing_in(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let ada = somebody(&domain);
    let done = sign_in(t, &acme.id, &ada).await.unwrap().into_inner();
    let (user_id, token) = (done.user.unwrap().user_id, done.access_token.unwrap().token);
    let mut owner = t.with_token(&acme.owner.token).members;
    let remove = v1::RemoveMemberRequest { user_id: user_id.clone(), ..Default::default() };
    owner.remove_member(remove).await.expect("removes");
    let gone = t.with_token(&token).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(gone, Code::NotFound, "TENANT_NOT_FOUND");
    assert_refused(sign_in(t, &acme.id, &ada).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
    let email = ada["email"].as_str().unwrap().to_owned();
    owner.add_member(v1::AddMemberRequest { email, ..Default::default() }).await.expect("is added again");
    sign_in(t, &acme.id, &ada).await.expect("and signs in again");
}

async fn roles_follow_groups_at_each_sign_in(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    let mapped = |group: &str, role: &str| v1::GroupRole { group: group.to_owned(), role: role.to_owned() };
    let groups = v1::SsoConnection {
        scopes: ["email", "profile", "groups"].map(ToOwned::to_owned).to_vec(),
        group_claim: "groups".to_owned(),
        group_roles: vec![mapped("staff", "member"), mapped("heads", "manager")],
        ..connection(providers(), "rs256")
    };
    connect(t, &acme, groups).await;
    let ada = somebody(&domain);
    for (groups, role) in [
        (json!(["staff"]), "member"),
        (json!(["staff", "heads", "others"]), "manager"),
        (json!(["others"]), "viewer"),
        (json!("heads"), "manager"),
        (json!([]), "viewer"),
    ] {
        let token = oidc::token(t, &acme.id, &with(&ada, json!({ "groups": groups }))).await;
        assert_eq!(who(t, &token).await.roles, [role], "{groups}");
    }
    let changes = t.audit(&acme.id).await.into_iter().filter(|row| row.action == "System/FollowGroups").count();
    assert_eq!(changes, 4);
    // An owner stays one, whatever groups say.
    let owner = sign_up(t, &format!("{}@{domain}", crate::harness::unique("boss"))).await;
    t.join(&acme, &owner, "owner").await;
    let boss = with(&somebody(&domain), json!({ "email": owner.email, "groups": ["staff"] }));
    assert_eq!(who(t, &oidc::token(t, &acme.id, &boss).await).await.roles, ["owner"]);
}

async fn nobody_comes_back_above_who_connected_the_provider(t: &Bed) {
    let acme = t.tenant("acme").await;
    let domain = proven(t, &acme).await;
    let owner = sign_up(t, &format!("{}@{domain}", crate::harness::unique("boss"))).await;
    t.join(&acme, &owner, "owner").await;
    let admin = t.member(&acme, "admin").await;
    // An administrator connects a provider of their own, which says that they are the owner.
    let request = v1::SetSsoConnectionRequest { connection: Some(connection(&crooked(), "us")), ..Default::default() };
    let made = t.with_token(&admin.token).tenants.set_sso_connection(request).await.expect("connects").into_inner();
    assert_eq!(made.connection.unwrap().highest_role, "admin");
    let boss = with(&somebody(&domain), json!({ "email": owner.email }));
    assert_refused(sign_in(t, &acme.id, &boss).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
    // Neither later, once they are known there.
    connect(t, &acme, connection(providers(), "rs256")).await;
    sign_in(t, &acme.id, &boss).await.expect("whom the operator's connection lets in");
    let request =
        v1::SetSsoConnectionRequest { connection: Some(connection(providers(), "rs256")), ..Default::default() };
    t.with_token(&admin.token).tenants.set_sso_connection(request).await.expect("changes");
    assert_refused(sign_in(t, &acme.id, &boss).await, Code::PermissionDenied, "SSO_MEMBER_REFUSED");
}

async fn such_a_session_opens_its_tenant_and_nothing_else(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let (globex, nobodys) = (t.tenant("globex").await, t.tenant("other").await);
    let ada = somebody(&domain);
    let person = sign_up(t, ada["email"].as_str().unwrap()).await;
    for tenant in [&acme, &globex] {
        t.join(tenant, &person, "owner").await;
    }
    let token = oidc::token(t, &acme.id, &ada).await;
    let bearer = format!("Bearer {token}");
    let key = t.service_key(&["*"]).await;
    let channel = t.channel();
    // Whether the other tenant is theirs, somebody else's or nobody's: no call into it, by whatever way, and no difference.
    let absent = crate::harness::request_id();
    for method in raw::methods_of_members() {
        let mut seen = Vec::new();
        for tenant in [&globex.id, &nobodys.id, &absent] {
            let by_header = headers(&[("authorization", &bearer), ("x-tenant-id", tenant)]);
            let by_service = headers(&[("x-api-key", &key), ("x-on-behalf-of", &token)]);
            let body = raw::request(&method, &[("tenant", tenant.as_str())]);
            let answers = [
                raw::call(&channel, &raw::path(&method), &by_header, &[]).await,
                raw::call(&channel, &raw::path(&method), &headers(&[("authorization", &bearer)]), &body).await,
                raw::call(&channel, &raw::path(&method), &by_service, &body).await,
            ];
            seen.push(answers.map(|answer| raw::told(&answer).1));
        }
        assert!(seen.iter().flatten().all(|reason| reason == "TENANT_CONFLICT"), "{}: {seen:?}", method.full_name());
    }
    // Nothing of the account, which is not the tenant's, but its own end.
    for method in raw::methods() {
        let access = raw::access(&method);
        if access.who != Who::SignedIn || access.tenant != TenantRule::None || method.name() == "Logout" {
            continue;
        }
        let body = raw::request(&method, &[("to_tenant", &globex.id)]);
        let answer = raw::call(&channel, &raw::path(&method), &headers(&[("authorization", &bearer)]), &body).await;
        let bound = raw::told(&answer).1 == "SESSION_BOUND";
        assert_eq!(bound, !access.allow_bound, "{}: {answer:?}", method.full_name());
    }
    let ask = v1::AuthorizeRequest { permissions: vec!["tenant.read".to_owned()], ..Default::default() };
    let decision = t.with_token(&token).auth.authorize(ask).await.unwrap().into_inner();
    assert!(decision.allowed, "{decision:?}");
    // The person's own sign-in still opens both.
    for tenant in [&acme, &globex] {
        t.login(&person, &tenant.id).await;
    }
}

async fn a_tenant_that_requires_it_is_entered_through_its_provider_only(t: &Bed) {
    let (acme, domain) = connected(t, "acme").await;
    let globex = t.tenant("globex").await;
    let ada = somebody(&domain);
    let person = sign_up(t, ada["email"].as_str().unwrap()).await;
    t.join(&acme, &person, "admin").await;
    t.join(&globex, &person, "member").await;
    let there = t.login(&person, &acme.id).await;
    t.with_token(&there.token).tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("not required yet");

    let required = v1::SsoConnection { required: true, ..connection(providers(), "rs256") };
    connect(t, &acme, required).await;
    let refused = t.with_token(&there.token).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "SSO_REQUIRED");
    let switch = v1::SwitchTenantRequest { to_tenant: acme.id.clone(), ..Default::default() };
    let here = t.login(&person, &globex.id).await;
    assert_refused(t.with_token(&here.token).auth.switch_tenant(switch).await, Code::PermissionDenied, "SSO_REQUIRED");
    let service = Headers::default().and("x-api-key", &t.service_key(&["*"]).await).and("x-on-behalf-of", &there.token);
    let delegated = Clients::new(t.channel(), service).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(delegated, Code::PermissionDenied, "SSO_REQUIRED");
    let ask = v1::AuthorizeRequest { permissions: vec!["tenant.read".to_owned()], ..Default::default() };
    let decision = t.with_token(&there.token).auth.authorize(ask).await.unwrap().into_inner();
    let reasons: Vec<_> = decision.reasons.iter().map(|reason| reason.reason.as_str()).collect();
    assert_eq!((decision.allowed, reasons), (false, vec!["SSO_REQUIRED"]));

    let token = oidc::token(t, &acme.id, &ada).await;
    assert_eq!(who(t, &token).await.roles, ["admin"]);
    // The glass that is broken when the provider fails: owners come in by password.
    t.with_token(&acme.owner.token)
        .tenants
        .get_tenant(v1::GetTenantRequest::default())
        .await
        .expect("the owner enters");
    // Elsewhere the password is as good as ever.
    t.with_token(&here.token).tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("another tenant");
}

async fn a_tenant_without_a_provider_looks_like_none(t: &Bed) {
    let (acme, _) = connected(t, "acme").await;
    let bare = t.tenant("bare").await;
    let nobody = json!({ "sub": "x" });
    let mut seen = Vec::new();
    for tenant in [bare.id, bare.slug, crate::harness::request_id(), crate::harness::unique("absent")] {
        let status = begin(t, &tenant, &nobody).await.map(|_| ()).expect_err("a refusal");
        seen.push((status.code(), status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(
        refusal::<()>(Err(begin(t, &crate::harness::request_id(), &nobody).await.err().unwrap())).1,
        "SSO_NOT_CONFIGURED"
    );
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
    let elsewhere =
        v1::BeginSsoRequest { tenant: acme.id, redirect_uri: format!("{}/", oidc::REDIRECT), ..Default::default() };
    assert_eq!(wrong_fields(t.anonymous().auth.begin_sso(elsewhere).await), ["redirect_uri"]);
}

async fn a_sign_in_takes_ten_minutes_at_most(t: Bed) {
    let (acme, domain) = connected(&t, "acme").await;
    let in_time = begin(&t, &acme.id, &somebody(&domain)).await.unwrap();
    t.clock.advance(TimeDelta::minutes(9));
    complete(&t, callback(&browse(&in_time.url).await, &in_time.binding)).await.expect("in time");
    let late = begin(&t, &acme.id, &somebody(&domain)).await.unwrap();
    let late = callback(&browse(&late.url).await, &late.binding);
    t.clock.advance(TimeDelta::seconds(601));
    assert_refused(complete(&t, late).await, Code::Unauthenticated, "SSO_STATE_INVALID");
}

async fn sign_ins_through_a_provider_end_no_other_sessions(t: Bed) {
    let t = Bed::private(t.engine, &["--max-sessions=2"]).await;
    let (acme, domain) = connected(&t, "acme").await;
    let ada = somebody(&domain);
    let person = sign_up(&t, ada["email"].as_str().unwrap()).await;
    t.join(&acme, &person, "viewer").await;
    let own = t.login(&person, "").await;
    let mut bound = Vec::new();
    for _ in 0..3 {
        bound.push(oidc::token(&t, &acme.id, &ada).await);
    }
    for token in [&person.token, &own.token, &bound[1], &bound[2]] {
        who(&t, token).await;
    }
    let first = t.with_token(&bound[0]).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(first, Code::Unauthenticated, "CREDENTIAL_INVALID");
    t.login(&person, "").await;
    who(&t, &bound[1]).await;
}
