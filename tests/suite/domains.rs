//! Custom domains: proven by a record in a real name server, they lead to their tenant; and only then.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use http::HeaderMap;
use tenantry::rpc::v1;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::dns::{Says, name_server};
use crate::harness::{
    Bed, Clients, Engine, Tenant, assert_refused, on_both_engines, refusal, request_id, unique, until, wrong_fields,
};
use crate::raw::{self, headers};

on_both_engines! {
    a_domain_is_added_with_the_record_that_proves_it
    a_record_that_is_there_proves_the_domain
    what_the_dns_does_not_show_proves_nothing
    a_name_server_that_fails_is_told_apart_and_waited_for_only_so_long
    a_domain_is_one_tenants_and_whoever_proves_it_first_has_it
    two_that_prove_a_domain_at_once_do_not_both_get_it
    a_removed_domain_leads_nowhere_and_is_free
    a_domain_that_was_added_again_needs_its_new_record
    a_domain_that_was_added_again_while_it_was_looked_at_is_another
    domains_that_cannot_be_a_tenants_are_refused
    fifty_domains_are_enough
    a_repeated_call_gets_the_first_answer
    domains_are_for_those_who_may_manage_them
    a_call_to_a_proven_domain_is_in_its_tenant
    a_domain_that_nobody_has_proven_names_nobody
    a_sign_in_page_finds_a_tenant_by_its_domain;
    alone
    a_pending_domain_is_proven_by_itself_once_its_record_is_there
    a_domain_stays_for_three_days_without_its_record
    a_silent_name_server_takes_no_domain_away
}

const GET_TENANT: &str = "/tenantry.v1.TenantService/GetTenant";

type Answer<T> = Result<Response<T>, Status>;

/// A domain that no other test has.
fn domain_name() -> String {
    format!("{}.example.org", unique("d"))
}

async fn add(c: &mut Clients, domain: &str) -> Answer<v1::AddDomainResponse> {
    c.tenants.add_domain(v1::AddDomainRequest { domain: domain.to_owned(), ..Default::default() }).await
}

async fn verify(c: &mut Clients, domain: &str) -> Answer<v1::VerifyDomainResponse> {
    c.tenants.verify_domain(v1::VerifyDomainRequest { domain: domain.to_owned(), ..Default::default() }).await
}

async fn remove(c: &mut Clients, domain: &str) -> Answer<v1::RemoveDomainResponse> {
    c.tenants.remove_domain(v1::RemoveDomainRequest { domain: domain.to_owned(), ..Default::default() }).await
}

/// Adds a domain and publishes its record.
async fn publish(c: &mut Clients, domain: &str) -> v1::Domain {
    let added = add(c, domain).await.expect("adds").into_inner().domain.unwrap();
    name_server().publish(&added.txt_name, &[&added.txt_value]);
    added
}

/// Proves a domain for a tenant.
async fn proven(t: &Bed, tenant: &Tenant, domain: &str) -> v1::Domain {
    let mut owner = t.with_token(&tenant.owner.token);
    publish(&mut owner, domain).await;
    verify(&mut owner, domain).await.expect("is proven").into_inner().domain.unwrap()
}

/// The only domain of a tenant, by the operator, whose key outlives tokens.
async fn only(t: &Bed, tenant: &Tenant) -> v1::Domain {
    let request = v1::ListDomainsRequest { tenant: tenant.id.clone() };
    let mut domains = t.operator().tenants.list_domains(request).await.expect("lists").into_inner().domains;
    assert_eq!(domains.len(), 1, "{domains:?}");
    domains.remove(0)
}

/// To whom a host leads.
async fn leads_to(t: &Bed, host: &str) -> Option<String> {
    let by = Some(v1::resolve_tenant_request::By::Host(host.to_owned()));
    match t.anonymous().tenants.resolve_tenant(v1::ResolveTenantRequest { by }).await {
        Ok(found) => Some(found.into_inner().tenant_id),
        Err(status) => {
            assert_eq!(refusal::<()>(Err(status)), (Code::NotFound, "TENANT_NOT_FOUND".to_owned()));
            None
        }
    }
}

async fn a_domain_is_added_with_the_record_that_proves_it(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    let added = add(&mut owner, &format!("{}.", name.to_uppercase())).await.unwrap().into_inner().domain.unwrap();
    assert_eq!((added.domain.as_str(), added.status()), (name.as_str(), v1::DomainStatus::Pending));
    assert_eq!(added.txt_name, format!("_tenantry-challenge.{name}"));
    assert!(added.txt_value.starts_with("tenantry-verification=") && added.txt_value.len() == 22 + 43);
    assert!(added.verify_time.is_none() && added.check_time.is_none() && added.next_check_time.is_some());
    let again = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    assert_eq!(again, added, "added again, it says the same");
    assert_eq!(only(t, &acme).await, added);
    // Adding proves nothing and keeps nobody out; each has a record of their own.
    let other = add(&mut t.with_token(&globex.owner.token), &name).await.unwrap().into_inner().domain.unwrap();
    assert_ne!(other.txt_value, added.txt_value);
    assert_eq!(leads_to(t, &name).await, None);
}

async fn a_record_that_is_there_proves_the_domain(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    let added = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    let long = "x".repeat(300);
    name_server().publish(&added.txt_name, &["v=spf1 -all", &long, &added.txt_value, "another"]);
    let seen = verify(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    assert_eq!((seen.status(), seen.problem.as_str()), (v1::DomainStatus::Verified, ""));
    assert!(seen.verify_time.is_some() && seen.check_time == seen.verify_time);
    let (next, last) = (seen.next_check_time.unwrap().seconds, seen.check_time.unwrap().seconds);
    assert_eq!(next - last, 24 * 3600, "from now on every day");
    assert_eq!(only(t, &acme).await, seen);
    assert_eq!(leads_to(t, &name).await.as_deref(), Some(acme.id.as_str()));
    verify(&mut owner, &name).await.expect("asked again, it is looked at again");
    let rows = t.audit(&acme.id).await;
    let proven = rows.iter().find(|row| row.action == "TenantService/VerifyDomain").expect("a row");
    assert!(proven.changes.contains(&name) && proven.changes.contains("verified"), "{}", proven.changes);
}

async fn what_the_dns_does_not_show_proves_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    assert_refused(verify(&mut owner, &name).await, Code::NotFound, "DOMAIN_NOT_FOUND");
    let added = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    let (value, at) = (added.txt_value.as_str(), added.txt_name.as_str());
    let almost = [
        (vec![], "there is no TXT record"),
        (vec!["v=spf1 -all"], "holds another value"),
        (vec![&value[1..], &value[..value.len() - 1]], "none of the 2 TXT records"),
    ];
    for (texts, problem) in almost {
        if texts.is_empty() {
            name_server().remove(at);
        } else {
            name_server().publish(at, &texts);
        }
        let status = verify(&mut owner, &name).await.expect_err("is not proven");
        let info = status.get_details_error_info().unwrap();
        assert!(info.metadata["problem"].contains(problem), "{info:?}");
        assert_eq!(refusal::<()>(Err(status)), (Code::FailedPrecondition, "DOMAIN_NOT_VERIFIED".to_owned()));
        let seen = only(t, &acme).await;
        assert_eq!(seen.status(), v1::DomainStatus::Pending);
        assert!(seen.problem.contains(problem) && seen.check_time.is_some(), "{seen:?}");
    }
    // The record of the domain itself, or of one below it, is another one.
    name_server().publish(&name, &[value]);
    name_server().publish(&format!("www.{at}"), &[value]);
    assert_refused(verify(&mut owner, &name).await, Code::FailedPrecondition, "DOMAIN_NOT_VERIFIED");
    assert_eq!(leads_to(t, &name).await, None);
}

async fn a_name_server_that_fails_is_told_apart_and_waited_for_only_so_long(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    for says in [Says::Failure, Says::Silence] {
        let name = domain_name();
        let added = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
        name_server().set(&added.txt_name, says.clone());
        let began = Instant::now();
        let key = request_id();
        let asked = v1::VerifyDomainRequest { domain: name.clone(), request_id: key, ..Default::default() };
        let refused = owner.tenants.verify_domain(asked.clone()).await;
        assert_refused(refused, Code::Unavailable, "DNS_UNAVAILABLE");
        assert!(began.elapsed() < Duration::from_secs(8), "{says:?}: {:?}", began.elapsed());
        let seen = only(t, &acme).await;
        assert!(seen.status() == v1::DomainStatus::Pending && seen.check_time.is_none(), "{seen:?}");
        assert!(seen.problem.contains("name server"), "{seen:?}");
        // A failure is not kept: the same call works when the name server does.
        name_server().publish(&added.txt_name, &[&added.txt_value]);
        owner.tenants.verify_domain(asked).await.expect("is proven");
        remove(&mut owner, &name).await.unwrap();
    }
}

async fn a_domain_is_one_tenants_and_whoever_proves_it_first_has_it(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let (mut first, mut second) = (t.with_token(&acme.owner.token), t.with_token(&globex.owner.token));
    let name = domain_name();
    let one = add(&mut first, &name).await.unwrap().into_inner().domain.unwrap();
    let two = add(&mut second, &name).await.unwrap().into_inner().domain.unwrap();
    name_server().publish(&one.txt_name, &[&two.txt_value]);
    assert_refused(verify(&mut first, &name).await, Code::FailedPrecondition, "DOMAIN_NOT_VERIFIED");
    name_server().publish(&one.txt_name, &[&one.txt_value, &two.txt_value]);
    verify(&mut second, &name).await.expect("is proven");
    assert_refused(verify(&mut first, &name).await, Code::AlreadyExists, "DOMAIN_TAKEN");
    let seen = only(t, &acme).await;
    assert_eq!(seen.status(), v1::DomainStatus::Pending);
    assert!(seen.problem.contains("another tenant"), "{seen:?}");
    assert!(!seen.problem.contains(&globex.id) && !seen.problem.contains(&globex.slug));
    assert_eq!(leads_to(t, &name).await.as_deref(), Some(globex.id.as_str()));
    // Who comes later is told before they publish anything.
    let late = t.tenant("late").await;
    assert_refused(add(&mut t.with_token(&late.owner.token), &name).await, Code::AlreadyExists, "DOMAIN_TAKEN");
}

async fn two_that_prove_a_domain_at_once_do_not_both_get_it(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    for _ in 0..5 {
        let name = domain_name();
        let (mut first, mut second) = (t.with_token(&acme.owner.token), t.with_token(&globex.owner.token));
        let one = add(&mut first, &name).await.unwrap().into_inner().domain.unwrap();
        let two = add(&mut second, &name).await.unwrap().into_inner().domain.unwrap();
        name_server().publish(&one.txt_name, &[&one.txt_value, &two.txt_value]);
        let (one, two) = tokio::join!(verify(&mut first, &name), verify(&mut second, &name));
        let (winner, loser) = if one.is_ok() { (&acme, two) } else { (&globex, one) };
        assert_refused(loser, Code::AlreadyExists, "DOMAIN_TAKEN");
        assert_eq!(leads_to(t, &name).await.as_deref(), Some(winner.id.as_str()));
    }
}

async fn a_removed_domain_leads_nowhere_and_is_free(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let name = domain_name();
    proven(t, &acme, &name).await;
    assert_eq!(leads_to(t, &name).await.as_deref(), Some(acme.id.as_str()));
    let mut owner = t.with_token(&acme.owner.token);
    assert_refused(remove(&mut owner, &domain_name()).await, Code::NotFound, "DOMAIN_NOT_FOUND");
    let foreign = remove(&mut t.with_token(&globex.owner.token), &name).await;
    assert_refused(foreign, Code::NotFound, "DOMAIN_NOT_FOUND");
    remove(&mut owner, &name).await.expect("is removed");
    assert_refused(remove(&mut owner, &name).await, Code::NotFound, "DOMAIN_NOT_FOUND");
    assert_eq!(leads_to(t, &name).await, None);
    proven(t, &globex, &name).await;
    assert_eq!(leads_to(t, &name).await.as_deref(), Some(globex.id.as_str()));
}

async fn a_domain_that_was_added_again_needs_its_new_record(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    let first = proven(t, &acme, &name).await;
    remove(&mut owner, &name).await.unwrap();
    let second = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    assert_ne!(second.txt_value, first.txt_value);
    assert_refused(verify(&mut owner, &name).await, Code::FailedPrecondition, "DOMAIN_NOT_VERIFIED");
}

async fn a_domain_that_was_added_again_while_it_was_looked_at_is_another(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    let first = add(&mut owner, &name).await.unwrap().into_inner().domain.unwrap();
    // Silent at first, so that the look takes until its second try.
    name_server().set(&first.txt_name, Says::Silence);
    let looking = tokio::spawn({
        let (mut owner, name) = (owner.clone(), name.clone());
        async move { verify(&mut owner, &name).await }
    });
    until("is asked", async || name_server().was_asked(&first.txt_name)).await;
    remove(&mut owner, &name).await.unwrap();
    add(&mut owner, &name).await.unwrap();
    name_server().publish(&first.txt_name, &[&first.txt_value]);
    assert_refused(looking.await.unwrap(), Code::NotFound, "DOMAIN_NOT_FOUND");
    assert_eq!(only(t, &acme).await.status(), v1::DomainStatus::Pending);
    assert_eq!(leads_to(t, &name).await, None);
}

async fn domains_that_cannot_be_a_tenants_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    for bad in [
        "",
        "localhost",
        "gmail.com",
        "mail.Outlook.com.",
        "tenantry.test",
        "shop.tenantry.test",
        "127.0.0.1",
        "b\u{fc}cher.example",
        "https://acme.example",
        "acme.example:443",
        "a_b.example",
        "*.example.org",
    ] {
        assert_eq!(wrong_fields(add(&mut owner, bad).await), ["domain"], "{bad}");
    }
    for bad in ["", "localhost"] {
        assert_eq!(wrong_fields(verify(&mut owner, bad).await), ["domain"]);
        assert_eq!(wrong_fields(remove(&mut owner, bad).await), ["domain"]);
    }
}

async fn fifty_domains_are_enough(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let names: Vec<String> = (0..50).map(|i| format!("n{i}.{}", domain_name())).collect();
    for name in &names {
        add(&mut owner, name).await.expect("adds");
    }
    assert_eq!(wrong_fields(add(&mut owner, &domain_name()).await), ["domain"]);
    add(&mut owner, &names[0]).await.expect("is there already");
    remove(&mut owner, &names[0]).await.unwrap();
    add(&mut owner, &domain_name()).await.expect("there is room again");
}

async fn a_repeated_call_gets_the_first_answer(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let name = domain_name();
    let of = |request_id: String| (name.clone(), request_id);
    let (domain, key) = of(request_id());
    let asked = v1::AddDomainRequest { domain, request_id: key, ..Default::default() };
    let added = owner.tenants.add_domain(asked.clone()).await.unwrap().into_inner();
    let domain = added.domain.clone().unwrap();
    name_server().publish(&domain.txt_name, &[&domain.txt_value]);
    let (domain, key) = of(request_id());
    let look = v1::VerifyDomainRequest { domain, request_id: key, ..Default::default() };
    let proven = owner.tenants.verify_domain(look.clone()).await.unwrap().into_inner();
    let (domain, key) = of(request_id());
    let end = v1::RemoveDomainRequest { domain, request_id: key, ..Default::default() };
    owner.tenants.remove_domain(end.clone()).await.unwrap();
    owner.tenants.remove_domain(end).await.expect("again");
    // Also when what was answered is over, and without asking the DNS.
    assert_eq!(owner.tenants.verify_domain(look).await.unwrap().into_inner(), proven);
    assert_eq!(owner.tenants.add_domain(asked).await.unwrap().into_inner(), added);
    let left = owner.tenants.list_domains(v1::ListDomainsRequest::default()).await.unwrap().into_inner();
    assert!(left.domains.is_empty());
}

async fn domains_are_for_those_who_may_manage_them(t: &Bed) {
    let acme = t.tenant("acme").await;
    let name = domain_name();
    proven(t, &acme, &name).await;
    for (role, may) in [("admin", true), ("manager", false), ("viewer", false)] {
        let mut member = t.with_token(&t.member(&acme, role).await.token);
        let seen = member.tenants.list_domains(v1::ListDomainsRequest::default()).await.unwrap().into_inner();
        assert_eq!(seen.domains.len(), 1);
        if may {
            verify(&mut member, &name).await.expect("may");
            continue;
        }
        for refused in [
            refusal(add(&mut member, &domain_name()).await),
            refusal(verify(&mut member, &name).await),
            refusal(remove(&mut member, &name).await),
        ] {
            assert_eq!(refused, (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()), "{role}");
        }
    }
}

/// A connection whose `:authority` is this host.
fn channel_to(t: &Bed, host: &str) -> Channel {
    let endpoint = Endpoint::from_shared(t.address.clone()).expect("an address");
    endpoint.origin(format!("http://{host}").parse().expect("an origin")).connect_lazy()
}

/// What a person is told who asks for a tenant at a host.
async fn at(t: &Bed, host: &str, map: &HeaderMap) -> (Code, String) {
    raw::told(&raw::call(&channel_to(t, host), GET_TENANT, map, b"").await)
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

fn ok() -> (Code, String) {
    (Code::Ok, String::new())
}

fn absent() -> (Code, String) {
    (Code::NotFound, "TENANT_NOT_FOUND".to_owned())
}

fn conflict() -> (Code, String) {
    (Code::InvalidArgument, "TENANT_CONFLICT".to_owned())
}

async fn a_call_to_a_proven_domain_is_in_its_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let (guest, stranger) = (t.person("guest").await, t.person("stranger").await);
    t.join(&acme, &guest, "viewer").await;
    t.join(&globex, &guest, "viewer").await;
    let name = domain_name();
    assert_eq!(at(t, &name, &bearer(&guest.token)).await, absent(), "before it is proven");
    proven(t, &acme, &name).await;
    for host in [name.clone(), format!("{name}:8443"), name.to_uppercase(), format!("{name}.")] {
        assert_eq!(at(t, &host, &bearer(&guest.token)).await, ok(), "{host}");
        assert_eq!(at(t, &host, &bearer(&acme.owner.token)).await, ok(), "{host}");
        assert_eq!(at(t, &host, &bearer(&stranger.token)).await, absent(), "{host}");
        assert_eq!(at(t, &host, &bearer(&globex.owner.token)).await, conflict(), "{host}");
    }
    // It is that tenant and no other.
    let body = raw::call(&channel_to(t, &name), GET_TENANT, &bearer(&guest.token), b"").await.unwrap().into_inner();
    let seen: v1::GetTenantResponse = prost::Message::decode(&body[..]).unwrap();
    assert_eq!(seen.tenant.unwrap().tenant_id, acme.id);
    // Below it is another domain.
    assert_eq!(at(t, &format!("www.{name}"), &bearer(&guest.token)).await, absent());
    remove(&mut t.with_token(&acme.owner.token), &name).await.unwrap();
    assert_eq!(at(t, &name, &bearer(&guest.token)).await, absent());
}

async fn a_domain_that_nobody_has_proven_names_nobody(t: &Bed) {
    let acme = t.tenant("acme").await;
    let guest = t.person("guest").await;
    t.join(&acme, &guest, "viewer").await;
    let pending = domain_name();
    add(&mut t.with_token(&acme.owner.token), &pending).await.unwrap();
    for host in [pending.as_str(), &domain_name(), "example.com", "eviltenantry.test", "a_b.example.com", "1.2.3"] {
        assert_eq!(at(t, host, &bearer(&guest.token)).await, absent(), "{host}");
        assert_eq!(at(t, host, &bearer(&acme.owner.token)).await, conflict(), "{host}");
    }
}

async fn a_sign_in_page_finds_a_tenant_by_its_domain(t: &Bed) {
    let acme = t.tenant("acme").await;
    let name = domain_name();
    proven(t, &acme, &name).await;
    for host in [name.clone(), format!("{}.:443", name.to_uppercase())] {
        assert_eq!(leads_to(t, &host).await.as_deref(), Some(acme.id.as_str()), "{host}");
    }
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
    assert_eq!(leads_to(t, &name).await, None, "a deleted tenant is gone from here");
    let undelete = v1::UndeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.undelete_tenant(undelete).await.unwrap();
    assert_eq!(leads_to(t, &name).await.as_deref(), Some(acme.id.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_default_tenant_nor_an_untrusted_header_speaks_for_a_domain() {
    let flags = ["--trusted-proxies=127.0.0.1", "--default-tenant=the-default", "--api-hosts=api.example.net"];
    let t = Bed::private(Engine::Sqlite, &flags).await;
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let guest = t.person("guest").await;
    let request = v1::CreateTenantRequest {
        display_name: "Default".to_owned(),
        slug: "the-default".to_owned(),
        owner_email: other.owner.email.clone(),
        ..Default::default()
    };
    let default = t.operator().tenants.create_tenant(request).await.unwrap().into_inner().tenant.unwrap();
    let default = Tenant { id: default.tenant_id, slug: default.slug, owner: other.owner.clone() };
    for tenant in [&acme, &default, &other] {
        t.join(tenant, &guest, "viewer").await;
    }
    let name = domain_name();
    proven(&t, &acme, &name).await;
    let forwarded = |host: &str| {
        let mut map = bearer(&guest.token);
        map.insert("x-forwarded-host", host.parse().unwrap());
        map
    };
    let tenant_at = async |host: &str, map: HeaderMap| {
        let answer = raw::call(&channel_to(&t, host), GET_TENANT, &map, b"").await;
        let told = raw::told(&answer);
        let seen = answer.ok().map(|body| {
            let seen: v1::GetTenantResponse = prost::Message::decode(&body.into_inner()[..]).unwrap();
            seen.tenant.unwrap().tenant_id
        });
        (told, seen)
    };
    let (default, acme) = (Some(default.id.clone()), Some(acme.id.clone()));
    for own in ["tenantry.test", "api.example.net", "API.example.net.:8443", "localhost", "127.0.0.1", "[::1]:50051"] {
        assert_eq!(tenant_at(own, bearer(&guest.token)).await, (ok(), default.clone()), "{own}");
        assert_eq!(tenant_at("absent.example.org", forwarded(own)).await, (ok(), default.clone()), "{own}");
    }
    assert_eq!(tenant_at("tenantry.test", forwarded(&name)).await, (ok(), acme.clone()));
    assert_eq!(tenant_at(&name, bearer(&guest.token)).await, (ok(), acme));
    for unknown in [domain_name(), format!("www.{name}"), "www.api.example.net".to_owned()] {
        assert_eq!(tenant_at(&unknown, bearer(&guest.token)).await, (absent(), None), "{unknown}");
        assert_eq!(tenant_at(&name, forwarded(&unknown)).await, (absent(), None), "{unknown}");
    }
    // The server's own names are nobody's to prove.
    let mut owner = t.with_token(&other.owner.token);
    assert_eq!(wrong_fields(add(&mut owner, "www.api.example.net").await), ["domain"]);
}

async fn a_pending_domain_is_proven_by_itself_once_its_record_is_there(t: Bed) {
    let acme = t.tenant("acme").await;
    let name = domain_name();
    publish(&mut t.with_token(&acme.owner.token), &name).await;
    t.run_jobs().await;
    assert_eq!(only(&t, &acme).await.status(), v1::DomainStatus::Pending, "not before its time");
    t.clock.advance(TimeDelta::minutes(61));
    t.run_jobs().await;
    until("is proven", async || only(&t, &acme).await.status() == v1::DomainStatus::Verified).await;
    assert_eq!(leads_to(&t, &name).await.as_deref(), Some(acme.id.as_str()));
    let log = t.audit(&acme.id).await;
    let row = log.iter().find(|row| row.action == "System/RecheckDomain").expect("the server's own doing");
    assert_eq!((row.actor_kind, row.actor_id), (5, None));

    // One that never gets its record is let be after three days.
    let late = domain_name();
    let operator = |domain: &str| v1::AddDomainRequest {
        tenant: acme.id.clone(),
        domain: domain.to_owned(),
        ..Default::default()
    };
    let second = t.operator().tenants.add_domain(operator(&late)).await.unwrap().into_inner().domain.unwrap();
    t.clock.advance(TimeDelta::days(4));
    let of = async |name: &str| {
        let request = v1::ListDomainsRequest { tenant: acme.id.clone() };
        let all = t.operator().tenants.list_domains(request).await.unwrap().into_inner().domains;
        all.into_iter().find(|domain| domain.domain == name).unwrap()
    };
    until("is let be", async || of(&late).await.next_check_time.is_none()).await;
    assert_eq!(of(&late).await.status(), v1::DomainStatus::Pending);
    name_server().publish(&second.txt_name, &[&second.txt_value]);
    t.clock.advance(TimeDelta::days(1));
    t.run_jobs().await;
    assert_eq!(of(&late).await.status(), v1::DomainStatus::Pending);
    let asked = v1::VerifyDomainRequest { tenant: acme.id.clone(), domain: late, ..Default::default() };
    t.operator().tenants.verify_domain(asked).await.expect("somebody asks");
}

/// Moves the clock, and waits until the server has looked at the tenant's domain.
async fn later(t: &Bed, tenant: &Tenant, by: TimeDelta) -> v1::Domain {
    let before = only(t, tenant).await;
    t.clock.advance(by);
    t.run_jobs().await;
    until("was looked at", async || {
        let now = only(t, tenant).await;
        (now.check_time, now.next_check_time) != (before.check_time, before.next_check_time)
    })
    .await;
    only(t, tenant).await
}

async fn a_domain_stays_for_three_days_without_its_record(t: Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let name = domain_name();
    let domain = proven(&t, &acme, &name).await;
    let day = TimeDelta::hours(24) + TimeDelta::minutes(1);
    let leads = async || leads_to(&t, &name).await;
    let (to_acme, to_globex) = (Some(acme.id.clone()), Some(globex.id.clone()));

    let seen = later(&t, &acme, day).await;
    assert_eq!((seen.status(), seen.problem.as_str()), (v1::DomainStatus::Verified, ""));
    // Gone for two days: known, and still the tenant's.
    name_server().remove(&domain.txt_name);
    let seen = later(&t, &acme, day).await;
    assert!(seen.problem.contains("no TXT record"), "{seen:?}");
    let seen = later(&t, &acme, day * 2).await;
    assert_eq!((seen.status(), leads().await), (v1::DomainStatus::Verified, to_acme.clone()));
    // Back again: the three days begin anew with the next time it is missed.
    name_server().publish(&domain.txt_name, &[&domain.txt_value]);
    let seen = later(&t, &acme, TimeDelta::minutes(61)).await;
    assert_eq!((seen.status(), seen.problem.as_str()), (v1::DomainStatus::Verified, ""));
    name_server().remove(&domain.txt_name);
    later(&t, &acme, day).await;
    let seen = later(&t, &acme, day * 2).await;
    assert_eq!((seen.status(), leads().await), (v1::DomainStatus::Verified, to_acme));
    // Gone for three days: nobody's.
    let seen = later(&t, &acme, day).await;
    assert_eq!((seen.status(), seen.next_check_time), (v1::DomainStatus::Lapsed, None));
    assert_eq!(leads().await, None);
    // Another may have it; then it does not come back.
    let add = v1::AddDomainRequest { tenant: globex.id.clone(), domain: name.clone(), ..Default::default() };
    let other = t.operator().tenants.add_domain(add).await.unwrap().into_inner().domain.unwrap();
    name_server().publish(&domain.txt_name, &[&domain.txt_value, &other.txt_value]);
    let verify = |tenant: &Tenant| v1::VerifyDomainRequest {
        tenant: tenant.id.clone(),
        domain: name.clone(),
        ..Default::default()
    };
    t.operator().tenants.verify_domain(verify(&globex)).await.expect("is proven by another");
    assert_refused(t.operator().tenants.verify_domain(verify(&acme)).await, Code::AlreadyExists, "DOMAIN_TAKEN");
    assert_eq!(leads().await, to_globex);
    assert_eq!(only(&t, &acme).await.status(), v1::DomainStatus::Lapsed);
    let log = t.audit(&acme.id).await;
    assert!(log.iter().any(|row| row.action == "System/RecheckDomain" && row.changes.contains("lapsed")));
}

async fn a_silent_name_server_takes_no_domain_away(t: Bed) {
    let acme = t.tenant("acme").await;
    let name = domain_name();
    let domain = proven(&t, &acme, &name).await;
    name_server().set(&domain.txt_name, Says::Failure);
    let first = later(&t, &acme, TimeDelta::hours(25)).await;
    assert_eq!(first.check_time, domain.check_time, "nothing was seen");
    for _ in 0..5 {
        let seen = later(&t, &acme, TimeDelta::hours(24)).await;
        assert_eq!(seen.status(), v1::DomainStatus::Verified);
        assert!(seen.problem.contains("name server"), "{seen:?}");
    }
    assert_eq!(leads_to(&t, &name).await, Some(acme.id.clone()));
    name_server().publish(&domain.txt_name, &[&domain.txt_value]);
    let seen = later(&t, &acme, TimeDelta::minutes(61)).await;
    assert_eq!((seen.status(), seen.problem.as_str()), (v1::DomainStatus::Verified, ""));
}
