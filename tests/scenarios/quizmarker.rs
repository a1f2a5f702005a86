//! quizmarker: organisations with a monthly cap on quizzes.

use chrono::TimeDelta;
use tenantry::domain::period::Period;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;

use super::{billed, deleted_and_purged, limit, seen};
use crate::harness::{Bed, amounts, assert_refused, on_both_engines, unique};

on_both_engines! {
    an_organisation_lives_from_its_first_quiz_to_its_end
}

fn quizzes(amount: i64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { amounts: amounts(&[("quizzes", amount)]), ..Default::default() }
}

async fn an_organisation_lives_from_its_first_quiz_to_its_end(t: &Bed) {
    let t = &Bed::of_product(t.engine, include_str!("quizmarker.toml")).await;
    // Creator becomes owner; at most five an hour.
    let ann = t.person("ann").await;
    let mut clients = t.with_token(&ann.token);
    let mut first = None;
    for _ in 0..5 {
        let slug = unique("school");
        let create = v1::CreateTenantRequest { display_name: slug.clone(), slug, ..Default::default() };
        let created = clients.tenants.create_tenant(create).await.unwrap().into_inner().tenant.unwrap();
        first.get_or_insert(created);
    }
    let sixth = v1::CreateTenantRequest { display_name: "x".to_owned(), slug: unique("school"), ..Default::default() };
    assert_refused(clients.tenants.create_tenant(sixth).await, Code::ResourceExhausted, "RATE_EXCEEDED");
    let school = first.unwrap();
    // In many organisations, one of which is the default: the one that was chosen last.
    let to = school.tenant_id.clone();
    let choose = v1::SwitchTenantRequest { to_tenant: to, keep_as_default: true, ..Default::default() };
    clients.auth.switch_tenant(choose).await.unwrap();
    let ann = t.login(&ann, "").await;
    let me = t.with_token(&ann.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.tenant.unwrap().tenant_id, school.tenant_id);
    let school = crate::harness::Tenant { id: school.tenant_id, slug: school.slug, owner: ann };

    // Roles: admin adds members, the owner role only by an owner; nobody removes the owner or themselves.
    let admin = t.member(&school, "admin").await;
    let bob = t.person("bob").await;
    let add = |role: &str| v1::AddMemberRequest {
        email: bob.email.clone(),
        roles: Some(role.to_owned()).into_iter().filter(|role| !role.is_empty()).collect(),
        ..Default::default()
    };
    let mut as_admin = t.with_token(&admin.token);
    assert_refused(as_admin.members.add_member(add("owner")).await, Code::PermissionDenied, "RANK_TOO_LOW");
    as_admin.members.add_member(add("")).await.expect("as a member, the default");
    let remove = |id: &str| v1::RemoveMemberRequest { user_id: id.to_owned(), ..Default::default() };
    let owner = as_admin.members.remove_member(remove(&school.owner.id)).await;
    assert_refused(owner, Code::PermissionDenied, "RANK_TOO_LOW");
    let oneself = as_admin.members.remove_member(remove(&admin.id)).await;
    assert_refused(oneself, Code::InvalidArgument, "FIELDS_INVALID");

    // A quiz over the cap is refused before any work is done.
    let bob = t.login(&bob, &school.id).await;
    let mut as_bob = t.with_token(&bob.token);
    as_bob.usage.consume(quizzes(10)).await.expect("the free plan's ten");
    assert_refused(as_bob.usage.consume(quizzes(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    // Upgraded by the product's backend, which has seen the payment: at once.
    let change = v1::ChangePlanRequest { tenant: school.id.clone(), plan: "pro".to_owned(), ..Default::default() };
    let backend = t.service_key(&["billing.manage"]).await;
    t.with_key(&backend).tenants.change_plan(change).await.unwrap();
    assert!(billed(t, &school.id, v1::BillingEventKind::Paid).await.applied);
    as_bob.usage.consume(quizzes(90)).await.expect("a hundred in all");
    assert_refused(as_bob.usage.consume(quizzes(1)).await, Code::ResourceExhausted, "QUOTA_EXCEEDED");

    // List my organisations: with member count and quizzes this month.
    let mine = v1::ListMyTenantsRequest { metrics: vec!["quizzes".to_owned()], ..Default::default() };
    let mine = as_bob.tenants.list_my_tenants(mine).await.unwrap().into_inner().tenants;
    assert_eq!((mine.len(), mine[0].member_count, mine[0].usage[0].used), (1, 3, 100));
    assert_eq!(mine[0].usage[0].limit, Some(100));

    // The active flag: only the owner changes it.
    let off = v1::SuspendTenantRequest { reason: "summer holidays".to_owned(), ..Default::default() };
    let refused = as_admin.tenants.suspend_tenant(off.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut as_owner = t.with_token(&school.owner.token);
    as_owner.tenants.suspend_tenant(off).await.unwrap();
    let active = v1::ListMyTenantsRequest { active_only: true, ..Default::default() };
    let mine = as_bob.tenants.list_my_tenants(active).await.unwrap().into_inner().tenants;
    assert!(mine.is_empty());
    as_owner.tenants.activate_tenant(v1::ActivateTenantRequest::default()).await.unwrap();

    // A new month, a new cap, without a job that could be missed.
    let month = Period::month_of(t.clock.now());
    t.clock.advance(month.end.since(t.clock.now()) + TimeDelta::minutes(1));
    assert_eq!(limit(t, &school.id, "quizzes").await.used, Some(0));
    let bob = t.login(&bob, &school.id).await;
    t.with_token(&bob.token).usage.consume(quizzes(1)).await.expect("a new month");
    assert_eq!(seen(t, &school.id).await.plan, "pro");
    deleted_and_purged(t, &school).await;
}
