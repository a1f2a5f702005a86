//! Tenants: creation, changes, and finding them by name.

use prost_types::FieldMask;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines, request_id, unique, wrong_fields};

on_both_engines! {
    whoever_creates_a_tenant_owns_it
    an_operator_names_the_owner
    wrong_fields_and_taken_slugs_create_nothing
    members_operators_and_services_see_a_tenant
    only_masked_fields_change
    an_update_needs_the_etag_that_was_read
    a_slug_is_free_taken_or_unfit
    a_sign_in_page_finds_a_tenant_by_slug_or_host
}

fn create(slug: &str) -> v1::CreateTenantRequest {
    v1::CreateTenantRequest { display_name: "Acme Inc".to_owned(), slug: slug.to_owned(), ..Default::default() }
}

fn rename(name: &str) -> v1::UpdateTenantRequest {
    v1::UpdateTenantRequest {
        update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
        display_name: name.to_owned(),
        ..Default::default()
    }
}

async fn whoever_creates_a_tenant_owns_it(t: &Bed) {
    let ann = t.person("ann").await;
    let slug = unique("acme");
    let mut clients = t.with_token(&ann.token);
    let tenant = clients.tenants.create_tenant(create(&slug)).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((tenant.slug.as_str(), tenant.display_name.as_str()), (slug.as_str(), "Acme Inc"));
    assert_eq!((tenant.status(), tenant.plan.as_str()), (v1::TenantStatus::Active, "free"));
    assert!(tenant.delete_time.is_none() && tenant.purge_time.is_none() && !tenant.etag.is_empty());
    // It is their default, so their old token, which names none, works in it.
    let me = clients.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.tenant.unwrap(), me.roles.join(" ").as_str()), (tenant, "owner"));
    let asked = v1::CreateTenantRequest { owner_email: ann.email, ..create(&unique("acme")) };
    assert_eq!(wrong_fields(clients.tenants.create_tenant(asked).await), ["owner_email"]);
}

async fn an_operator_names_the_owner(t: &Bed) {
    let ann = t.person("ann").await;
    let slug = unique("acme");
    let mut operator = t.operator();
    assert_eq!(wrong_fields(operator.tenants.create_tenant(create(&slug)).await), ["owner_email"]);
    let nobody = format!("{}@example.com", unique("nobody"));
    let asked = v1::CreateTenantRequest { owner_email: nobody, ..create(&slug) };
    assert_refused(operator.tenants.create_tenant(asked).await, Code::NotFound, "USER_UNKNOWN");
    let asked = v1::CreateTenantRequest { owner_email: ann.email.to_uppercase(), ..create(&slug) };
    let tenant = operator.tenants.create_tenant(asked).await.unwrap().into_inner().tenant.unwrap();
    let ann = t.login(&ann, &tenant.tenant_id).await;
    let me = t.with_token(&ann.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.roles, ["owner"]);
}

async fn wrong_fields_and_taken_slugs_create_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut clients = t.with_token(&t.person("ann").await.token);
    assert_refused(clients.tenants.create_tenant(create(&acme.slug)).await, Code::AlreadyExists, "SLUG_TAKEN");
    let asked = v1::CreateTenantRequest {
        request_id: "no".to_owned(),
        display_name: "x".repeat(201),
        slug: "UPPER".to_owned(),
        owner_email: "no".to_owned(),
        plan: "No Plan".to_owned(),
    };
    let wrong = wrong_fields(clients.tenants.create_tenant(asked).await);
    assert_eq!(wrong, ["request_id", "display_name", "slug", "owner_email", "plan"]);
    let mine = clients.tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap().into_inner();
    assert!(mine.tenants.is_empty());
}

async fn members_operators_and_services_see_a_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let viewer = t.member(&acme, "viewer").await;
    let by = |tenant: &str| v1::GetTenantRequest { tenant: tenant.to_owned() };
    let own = t.with_token(&viewer.token).tenants.get_tenant(by("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(own.tenant_id, acme.id);
    let service = t.service_key(&["tenant.read"]).await;
    for mut clients in [t.with_token(&viewer.token), t.operator(), t.with_key(&service)] {
        for name in [&acme.id, &acme.slug] {
            let seen = clients.tenants.get_tenant(by(name)).await.unwrap().into_inner().tenant.unwrap();
            assert_eq!(seen, own);
        }
    }
    let other = t.with_token(&viewer.token).tenants.get_tenant(by(&globex.id)).await;
    assert_refused(other, Code::InvalidArgument, "TENANT_CONFLICT");
    assert_refused(t.operator().tenants.get_tenant(by("")).await, Code::InvalidArgument, "TENANT_MISSING");
    assert_refused(t.operator().tenants.get_tenant(by(&request_id())).await, Code::NotFound, "TENANT_NOT_FOUND");
}

async fn only_masked_fields_change(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let none = v1::UpdateTenantRequest { update_mask: None, ..rename("Unmasked") };
    let changed = owner.tenants.update_tenant(none).await.expect("what is given changes").into_inner();
    assert_eq!(changed.tenant.unwrap().display_name, "Unmasked");
    for path in ["slug", "status", "plan", "displayName", ""] {
        let mask = FieldMask { paths: vec!["display_name".to_owned(), path.to_owned()] };
        let asked = v1::UpdateTenantRequest { update_mask: Some(mask), ..rename("New") };
        assert_eq!(wrong_fields(owner.tenants.update_tenant(asked).await), ["update_mask"], "{path}");
    }
    for name in ["", "  ", "a\u{7}b"] {
        assert_eq!(wrong_fields(owner.tenants.update_tenant(rename(name)).await), ["display_name"]);
    }
    let all = v1::UpdateTenantRequest { update_mask: Some(FieldMask { paths: vec!["*".to_owned()] }), ..rename("All") };
    let changed = owner.tenants.update_tenant(all).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((changed.display_name.as_str(), changed.slug.as_str()), ("All", acme.slug.as_str()));
    let changed = owner.tenants.update_tenant(rename(" Ümläut & Söhne ")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(changed.display_name, "Ümläut & Söhne");
    let manager = t.member(&acme, "manager").await;
    let refused = t.with_token(&manager.token).tenants.update_tenant(rename("Mine")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn an_update_needs_the_etag_that_was_read(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let read = owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap();
    let with = |etag: &str, name: &str| v1::UpdateTenantRequest { etag: etag.to_owned(), ..rename(name) };
    let first = owner.tenants.update_tenant(with(&read.etag, "First")).await.unwrap().into_inner().tenant.unwrap();
    assert_ne!(first.etag, read.etag);
    for stale in [read.etag.as_str(), "*", "v2", "nonsense"] {
        let refused = owner.tenants.update_tenant(with(stale, "Second")).await;
        assert_refused(refused, Code::Aborted, "ETAG_MISMATCH");
    }
    let delete = v1::DeleteTenantRequest { etag: read.etag, ..Default::default() };
    assert_refused(owner.tenants.delete_tenant(delete).await, Code::Aborted, "ETAG_MISMATCH");
    let now = owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(now, first);
    owner.tenants.update_tenant(with(&now.etag, "Second")).await.expect("the etag is right");
}

async fn a_slug_is_free_taken_or_unfit(t: &Bed) {
    let acme = t.tenant("acme").await;
    let free = unique("free");
    let mut anybody = t.anonymous();
    let long = "x".repeat(64);
    let cases = [
        (free.as_str(), ""),
        (&acme.slug, "taken"),
        ("admin", "reserved"),
        ("ab", "3 to 63"),
        (&long, "3 to 63"),
        ("Acme", "lower-case"),
        ("-acme", "begin and end"),
        ("xn--acme", "hyphens"),
        ("12345", "digits"),
        ("0192d3a4-5b6c-7d8e-9f00-112233445566", "UUID"),
    ];
    for (slug, problem) in cases {
        let asked = v1::CheckSlugRequest { slug: slug.to_owned() };
        let told = anybody.tenants.check_slug(asked).await.unwrap().into_inner();
        assert_eq!(told.available, problem.is_empty(), "{slug}");
        assert!(told.problem.contains(problem) && told.available == told.problem.is_empty(), "{slug}: {told:?}");
    }
}

async fn a_sign_in_page_finds_a_tenant_by_slug_or_host(t: &Bed) {
    use v1::resolve_tenant_request::By;
    let acme = t.tenant("acme").await;
    let mut anybody = t.anonymous();
    let ask = |by: By| v1::ResolveTenantRequest { by: Some(by) };
    let host = format!("{}.tenantry.test", acme.slug);
    let loud = format!("{}.Tenantry.TEST.:8443", acme.slug.to_uppercase());
    for by in [By::Slug(acme.slug.clone()), By::Host(host.clone()), By::Host(loud)] {
        let found = anybody.tenants.resolve_tenant(ask(by)).await.unwrap().into_inner();
        assert_eq!((found.tenant_id, found.slug), (acme.id.clone(), acme.slug.clone()));
    }
    let elsewhere = format!("{}.example.com", acme.slug);
    let deep = format!("www.{host}");
    for by in [By::Slug(unique("none")), By::Host(elsewhere), By::Host(deep), By::Host("tenantry.test".to_owned())] {
        let missing = anybody.tenants.resolve_tenant(ask(by)).await;
        assert_refused(missing, Code::NotFound, "TENANT_NOT_FOUND");
    }
    let nothing = anybody.tenants.resolve_tenant(v1::ResolveTenantRequest { by: None }).await;
    assert_eq!(wrong_fields(nothing), ["by"]);
    // While suspended people still sign in; a deleted tenant is gone from here.
    let suspend =
        v1::SuspendTenantRequest { tenant: acme.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    t.operator().tenants.suspend_tenant(suspend).await.unwrap();
    anybody.tenants.resolve_tenant(ask(By::Slug(acme.slug.clone()))).await.expect("suspended ones are found");
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    t.operator().tenants.delete_tenant(delete).await.unwrap();
    for by in [By::Slug(acme.slug.clone()), By::Host(host)] {
        assert_refused(anybody.tenants.resolve_tenant(ask(by)).await, Code::NotFound, "TENANT_NOT_FOUND");
    }
}
