//! Lists of tenants: one's own, and the operator's.

use std::collections::BTreeSet;

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, amounts, assert_refused, on_both_engines, unique, wrong_fields};

on_both_engines! {
    my_tenants_come_page_by_page_each_once
    my_tenants_tell_my_place_in_them
    my_tenants_tell_usage_when_asked
    active_only_leaves_out_where_i_cannot_work
    an_operator_lists_by_prefix_status_and_plan
    a_page_token_belongs_to_its_list
}

async fn my_tenants_come_page_by_page_each_once(t: &Bed) {
    let ann = t.person("ann").await;
    let mut mine = BTreeSet::new();
    for _ in 0..5 {
        let tenant = t.tenant("acme").await;
        t.join(&tenant, &ann, "member").await;
        mine.insert(tenant.id);
    }
    let mut clients = t.with_token(&ann.token);
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let asked = v1::ListMyTenantsRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = clients.tenants.list_my_tenants(asked).await.unwrap().into_inner();
        pages.push(page.tenants.into_iter().map(|my| my.tenant.unwrap().tenant_id).collect::<Vec<_>>());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    let seen: BTreeSet<String> = pages.concat().into_iter().collect();
    assert_eq!(seen, mine);
    assert_eq!(wrong_fields(clients.tenants.list_my_tenants(page_size(-1)).await), ["page_size"]);
    let all = clients.tenants.list_my_tenants(page_size(100_000)).await.unwrap().into_inner();
    assert_eq!((all.tenants.len(), all.next_page_token.as_str()), (5, ""));
}

fn page_size(page_size: i32) -> v1::ListMyTenantsRequest {
    v1::ListMyTenantsRequest { page_size, ..Default::default() }
}

async fn my_tenants_tell_my_place_in_them(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    let third = t.member(&globex, "member").await;
    let suspend =
        v1::SuspendMemberRequest { tenant: globex.id.clone(), user_id: acme.owner.id.clone(), ..Default::default() };
    t.operator().members.suspend_member(suspend).await.unwrap();
    let leave = v1::LeaveTenantRequest::default();
    t.with_token(&third.token).members.leave_tenant(leave).await.unwrap();
    let mut clients = t.with_token(&acme.owner.token);
    let mine = clients.tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap().into_inner();
    let told = |id: &str| mine.tenants.iter().find(|my| my.tenant.as_ref().unwrap().tenant_id == id).unwrap();
    let (a, g) = (told(&acme.id), told(&globex.id));
    assert_eq!((a.roles.join(" ").as_str(), a.member_status(), a.member_count), ("owner", v1::MemberStatus::Active, 1));
    // Suspended members count, those who left do not.
    assert_eq!(
        (g.roles.join(" ").as_str(), g.member_status(), g.member_count),
        ("viewer", v1::MemberStatus::Suspended, 2)
    );
    assert!(a.default && !g.default && a.usage.is_empty());
}

async fn my_tenants_tell_usage_when_asked(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let consume = v1::ConsumeRequest { amounts: amounts(&[("quizzes", 7)]), ..Default::default() };
    owner.usage.consume(consume).await.unwrap();
    let ask = |metrics: &[&str]| v1::ListMyTenantsRequest {
        metrics: metrics.iter().map(|&m| m.to_owned()).collect(),
        ..Default::default()
    };
    let mine = owner.tenants.list_my_tenants(ask(&["tokens", "quizzes"])).await.unwrap().into_inner();
    let usage: Vec<_> = mine.tenants[0].usage.iter().map(|u| (u.metric.as_str(), u.used, u.limit)).collect();
    assert_eq!(usage, [("tokens", 0, Some(1000)), ("quizzes", 7, Some(100))]);
    let unknown = owner.tenants.list_my_tenants(ask(&["unknown"])).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
    assert_eq!(wrong_fields(owner.tenants.list_my_tenants(ask(&["quizzes"; 11])).await), ["metrics"]);
}

async fn active_only_leaves_out_where_i_cannot_work(t: &Bed) {
    let [acme, closed, gone, out] =
        [t.tenant("acme").await, t.tenant("closed").await, t.tenant("gone").await, t.tenant("out").await];
    for tenant in [&closed, &gone, &out] {
        t.join(tenant, &acme.owner, "member").await;
    }
    let mut operator = t.operator();
    let close = v1::SuspendTenantRequest { tenant: closed.id.clone(), reason: "x".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(close).await.unwrap();
    let delete = v1::DeleteTenantRequest { tenant: gone.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(delete).await.unwrap();
    let suspend =
        v1::SuspendMemberRequest { tenant: out.id.clone(), user_id: acme.owner.id.clone(), ..Default::default() };
    operator.members.suspend_member(suspend).await.unwrap();
    let mut clients = t.with_token(&acme.owner.token);
    for (active_only, count) in [(false, 4), (true, 1)] {
        let asked = v1::ListMyTenantsRequest { active_only, ..Default::default() };
        let mine = clients.tenants.list_my_tenants(asked).await.unwrap().into_inner();
        assert_eq!(mine.tenants.len(), count);
    }
}

async fn an_operator_lists_by_prefix_status_and_plan(t: &Bed) {
    // A prefix of this test's own, so that the tenants of others do not matter.
    let prefix = unique("list");
    let mut ids = Vec::new();
    for name in ["one", "two", "three", "four"] {
        ids.push(t.tenant(&format!("{prefix}-{name}")).await.id);
    }
    let mut operator = t.operator();
    let close = v1::SuspendTenantRequest { tenant: ids[1].clone(), reason: "x".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(close).await.unwrap();
    let delete = v1::DeleteTenantRequest { tenant: ids[2].clone(), ..Default::default() };
    operator.tenants.delete_tenant(delete).await.unwrap();
    t.execute("update tenant set plan = 'pro' where tenant_id = $1", &ids[3]).await;
    let cases = [
        (v1::TenantStatus::Unspecified, "", vec![0, 1, 3]),
        (v1::TenantStatus::Active, "", vec![0, 3]),
        (v1::TenantStatus::Suspended, "", vec![1]),
        (v1::TenantStatus::Deleted, "", vec![2]),
        (v1::TenantStatus::Unspecified, "free", vec![0, 1]),
        (v1::TenantStatus::Active, "pro", vec![3]),
        (v1::TenantStatus::Active, "nothing", vec![]),
    ];
    for (status, plan, expected) in cases {
        let (mut seen, mut token) = (BTreeSet::new(), String::new());
        loop {
            let asked = v1::ListTenantsRequest {
                status: status.into(),
                plan: plan.to_owned(),
                slug_prefix: prefix.clone(),
                page_size: 1,
                page_token: token,
            };
            let page = operator.tenants.list_tenants(asked).await.unwrap().into_inner();
            assert!(page.tenants.len() <= 1);
            for tenant in page.tenants {
                assert!(seen.insert(tenant.tenant_id), "twice");
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let expected: BTreeSet<String> = expected.into_iter().map(|i: usize| ids[i].clone()).collect();
        assert_eq!(seen, expected, "{status:?} {plan}");
    }
    let bad = v1::ListTenantsRequest { status: 99, slug_prefix: "A%".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(operator.tenants.list_tenants(bad).await), ["status", "slug_prefix"]);
    let acme = t.tenant("acme").await;
    let refused = t.with_token(&acme.owner.token).tenants.list_tenants(v1::ListTenantsRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

async fn a_page_token_belongs_to_its_list(t: &Bed) {
    let [acme, globex] = [t.tenant("acme").await, t.tenant("globex").await];
    t.join(&globex, &acme.owner, "member").await;
    t.join(&acme, &globex.owner, "member").await;
    let mut clients = t.with_token(&acme.owner.token);
    let page = clients.tenants.list_my_tenants(page_size(1)).await.unwrap().into_inner();
    let with = |token: &str| v1::ListMyTenantsRequest { page_token: token.to_owned(), ..page_size(1) };
    let token = page.next_page_token;
    let mut broken = token.clone();
    broken.replace_range(3..4, if &token[3..4] == "A" { "B" } else { "A" });
    let filtered = v1::ListMyTenantsRequest { active_only: true, ..with(&token) };
    for asked in [with(&broken), with("x"), filtered] {
        let refused = clients.tenants.list_my_tenants(asked).await;
        assert_refused(refused, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    }
    let others = t.with_token(&globex.owner.token).tenants.list_my_tenants(with(&token)).await;
    assert_refused(others, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let list = v1::ListMembersRequest { page_size: 1, page_token: token.clone(), ..Default::default() };
    let elsewhere = clients.members.list_members(list).await;
    assert_refused(elsewhere, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    // Another page size is no other list.
    let rest = v1::ListMyTenantsRequest { page_size: 50, ..with(&token) };
    assert_eq!(clients.tenants.list_my_tenants(rest).await.unwrap().into_inner().tenants.len(), 1);
}
