//! Slugs: a tenant may take another one, and the old one leads to it for a while.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Clients, Tenant, assert_refused, on_both_engines, request_id, unique, until, wrong_fields};
use crate::raw::{self, headers};

on_both_engines! {
    both_slugs_lead_to_the_tenant
    a_slug_that_is_taken_reserved_or_ones_own_is_refused
    a_tenant_takes_its_old_slug_back
    five_old_slugs_are_enough
    a_change_needs_the_etag_that_was_read
    a_repeated_change_gets_the_first_answer
    two_that_take_a_slug_at_once_do_not_both_get_it
    slugs_are_for_those_who_may_manage_domains;
    alone
    an_old_slug_leads_on_for_thirty_days_and_is_free_then
}

async fn change(c: &mut Clients, slug: &str) -> Result<Response<v1::ChangeSlugResponse>, Status> {
    c.tenants.change_slug(v1::ChangeSlugRequest { slug: slug.to_owned(), ..Default::default() }).await
}

/// To whom a slug leads.
async fn leads_to(t: &Bed, slug: &str) -> Option<String> {
    let by = Some(v1::resolve_tenant_request::By::Slug(slug.to_owned()));
    let found = t.anonymous().tenants.resolve_tenant(v1::ResolveTenantRequest { by }).await;
    found.ok().map(|found| found.into_inner().tenant_id)
}

async fn is_free(t: &Bed, slug: &str) -> bool {
    let asked = v1::CheckSlugRequest { slug: slug.to_owned() };
    t.anonymous().tenants.check_slug(asked).await.unwrap().into_inner().available
}

async fn both_slugs_lead_to_the_tenant(t: &Bed) {
    let acme = t.tenant("acme").await;
    let new = unique("renamed");
    let changed = change(&mut t.with_token(&acme.owner.token), &new).await.unwrap().into_inner();
    let tenant = changed.tenant.unwrap();
    assert_eq!((tenant.slug.as_str(), tenant.tenant_id.as_str()), (new.as_str(), acme.id.as_str()));
    let until = changed.alias_expire_time.unwrap().seconds;
    assert!((until - tenant.update_time.unwrap().seconds - 30 * 24 * 3600).abs() <= 1);
    for slug in [&acme.slug, &new] {
        assert_eq!(leads_to(t, slug).await.as_deref(), Some(acme.id.as_str()));
        assert!(!is_free(t, slug).await);
        // By request, header and host; for its own people and for operators.
        let named = v1::GetTenantRequest { tenant: slug.clone() };
        for mut clients in [t.with_token(&acme.owner.token), t.operator()] {
            let seen = clients.tenants.get_tenant(named.clone()).await.expect("leads there").into_inner();
            assert_eq!(seen.tenant.unwrap().slug, new);
        }
        let owner = headers(&[("authorization", &format!("Bearer {}", acme.owner.token)), ("x-tenant-id", slug)]);
        let answer = raw::call(&t.channel(), "/tenantry.v1.TenantService/GetTenant", &owner, b"").await;
        assert_eq!(raw::told(&answer).0, Code::Ok, "{slug}");
        let by = Some(v1::resolve_tenant_request::By::Host(format!("{slug}.tenantry.test")));
        let found = t.anonymous().tenants.resolve_tenant(v1::ResolveTenantRequest { by }).await.unwrap();
        assert_eq!(found.into_inner().slug, new, "the name that it has now");
        t.login(&acme.owner, slug).await;
    }
    let log = t.audit(&acme.id).await;
    let row = log.iter().find(|row| row.action == "TenantService/ChangeSlug").expect("a row");
    assert!(row.changes.contains(&acme.slug) && row.changes.contains(&new), "{}", row.changes);
}

async fn a_slug_that_is_taken_reserved_or_ones_own_is_refused(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut owner = t.with_token(&acme.owner.token);
    for bad in ["", "admin", "ab", "Acme", "xn--acme", &acme.slug] {
        assert_eq!(wrong_fields(change(&mut owner, bad).await), ["slug"], "{bad}");
    }
    assert_refused(change(&mut owner, &globex.slug).await, Code::AlreadyExists, "SLUG_TAKEN");
    // Nor is an earlier slug of another to be had.
    change(&mut t.with_token(&globex.owner.token), &unique("globex")).await.unwrap();
    assert_refused(change(&mut owner, &globex.slug).await, Code::AlreadyExists, "SLUG_TAKEN");
    assert_eq!(leads_to(t, &globex.slug).await, Some(globex.id));
}

async fn a_tenant_takes_its_old_slug_back(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let new = unique("renamed");
    for _ in 0..4 {
        for slug in [&new, &acme.slug] {
            let changed = change(&mut owner, slug).await.expect("changes").into_inner();
            assert_eq!(changed.tenant.unwrap().slug, *slug);
        }
    }
    for slug in [&new, &acme.slug] {
        assert_eq!(leads_to(t, slug).await.as_deref(), Some(acme.id.as_str()));
    }
}

async fn five_old_slugs_are_enough(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    for _ in 0..5 {
        change(&mut owner, &unique("next")).await.expect("changes");
    }
    assert_eq!(wrong_fields(change(&mut owner, &unique("next")).await), ["slug"]);
    change(&mut owner, &acme.slug).await.expect("back to an old one is not one more");
    assert_eq!(leads_to(t, &acme.slug).await, Some(acme.id));
}

async fn a_change_needs_the_etag_that_was_read(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let read = owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap();
    let with =
        |etag: &str| v1::ChangeSlugRequest { slug: unique("renamed"), etag: etag.to_owned(), ..Default::default() };
    let changed = owner.tenants.change_slug(with(&read.etag)).await.unwrap().into_inner().tenant.unwrap();
    assert_ne!(changed.etag, read.etag);
    assert_refused(owner.tenants.change_slug(with(&read.etag)).await, Code::Aborted, "ETAG_MISMATCH");
    let now = owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(now, changed);
}

async fn a_repeated_change_gets_the_first_answer(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let first = v1::ChangeSlugRequest { slug: unique("one"), request_id: request_id(), ..Default::default() };
    let answer = owner.tenants.change_slug(first.clone()).await.unwrap().into_inner();
    let last = unique("two");
    change(&mut owner, &last).await.unwrap();
    assert_eq!(owner.tenants.change_slug(first).await.unwrap().into_inner(), answer);
    let now = owner.tenants.get_tenant(v1::GetTenantRequest::default()).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(now.slug, last, "and nothing changed");
}

async fn two_that_take_a_slug_at_once_do_not_both_get_it(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let (mut one, mut two) = (t.with_token(&acme.owner.token), t.with_token(&globex.owner.token));
    let slug = unique("wanted");
    let (first, second) = tokio::join!(change(&mut one, &slug), change(&mut two, &slug));
    let (winner, loser): (&Tenant, _) = if first.is_ok() { (&acme, second) } else { (&globex, first) };
    assert_refused(loser, Code::AlreadyExists, "SLUG_TAKEN");
    assert_eq!(leads_to(t, &slug).await.as_ref(), Some(&winner.id));
    let loser = if winner.id == acme.id { &globex } else { &acme };
    assert_eq!(leads_to(t, &loser.slug).await.as_ref(), Some(&loser.id), "keeps its own");
}

async fn slugs_are_for_those_who_may_manage_domains(t: &Bed) {
    let acme = t.tenant("acme").await;
    let manager = t.member(&acme, "manager").await;
    let refused = change(&mut t.with_token(&manager.token), &unique("mine")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let admin = t.member(&acme, "admin").await;
    change(&mut t.with_token(&admin.token), &unique("ours")).await.expect("may");
}

async fn an_old_slug_leads_on_for_thirty_days_and_is_free_then(t: Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let new = unique("renamed");
    change(&mut t.with_token(&acme.owner.token), &new).await.unwrap();
    t.clock.advance(TimeDelta::days(29));
    t.run_jobs().await;
    assert_eq!(leads_to(&t, &acme.slug).await.as_deref(), Some(acme.id.as_str()));
    t.clock.advance(TimeDelta::hours(25));
    assert_eq!(leads_to(&t, &acme.slug).await, None, "whether or not a job has come round");
    let gone = v1::GetTenantRequest { tenant: acme.slug.clone() };
    assert_refused(t.operator().tenants.get_tenant(gone).await, Code::NotFound, "TENANT_NOT_FOUND");
    assert_eq!(leads_to(&t, &new).await, Some(acme.id));
    t.run_jobs().await;
    until("is free", async || is_free(&t, &acme.slug).await).await;
    let asked = v1::ChangeSlugRequest { tenant: globex.id.clone(), slug: acme.slug.clone(), ..Default::default() };
    t.operator().tenants.change_slug(asked).await.expect("another takes it");
    assert_eq!(leads_to(&t, &acme.slug).await, Some(globex.id));
}
