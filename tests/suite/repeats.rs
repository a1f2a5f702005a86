//! Calls repeated with their `request_id`: the first answer again, and nothing twice.

use chrono::TimeDelta;
use futures::future::join_all;
use prost_types::FieldMask;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, PASSWORD, Tenant, assert_refused, on_both_engines, request_id, unique};

on_both_engines! {
    every_mutation_of_a_tenant_can_be_repeated
    every_mutation_of_members_can_be_repeated
    another_body_is_refused
    a_refusal_is_not_kept
    an_id_is_its_callers_own
    parallel_duplicates_have_one_effect
    a_revoked_caller_gets_no_repetition
    ;
    alone
    an_id_is_forgotten_after_a_day
}

fn rename(name: &str, request_id: &str) -> v1::UpdateTenantRequest {
    v1::UpdateTenantRequest {
        request_id: request_id.to_owned(),
        update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
        display_name: name.to_owned(),
        ..Default::default()
    }
}

async fn version(t: &Bed, tenant: &Tenant) -> i64 {
    let rows: Vec<(i64,)> = t.rows("select version from tenant where tenant_id = $1", &tenant.id).await;
    rows[0].0
}

async fn noted(t: &Bed, tenant: &Tenant, action: &str) -> usize {
    t.audit(&tenant.id).await.iter().filter(|row| row.action == action).count()
}

/// Calls twice and compares; then looks for one effect.
macro_rules! twice {
    ($clients:ident.$service:ident.$method:ident($request:expr)) => {{
        let request = $request;
        let first = $clients.$service.$method(request.clone()).await.unwrap().into_inner();
        let again = $clients.$service.$method(request).await.unwrap().into_inner();
        assert_eq!(first, again);
        first
    }};
}

async fn every_mutation_of_a_tenant_can_be_repeated(t: &Bed) {
    let ann = t.person("ann").await;
    let slug = unique("acme");
    let mut clients = t.with_token(&ann.token);
    let create = v1::CreateTenantRequest {
        request_id: request_id(),
        display_name: "Acme".to_owned(),
        slug: slug.clone(),
        ..Default::default()
    };
    let made = twice!(clients.tenants.create_tenant(create)).tenant.unwrap();
    let acme = Tenant { id: made.tenant_id, slug, owner: ann };
    // By the operator, whom no state of the tenant keeps out.
    let mut operator = t.operator();
    let (tenant, reason) = (acme.id.clone(), "unpaid".to_owned());
    twice!(operator.tenants.update_tenant(v1::UpdateTenantRequest {
        tenant: tenant.clone(),
        etag: made.etag.clone(),
        ..rename("New", &request_id())
    }));
    twice!(operator.tenants.suspend_tenant(v1::SuspendTenantRequest {
        tenant: tenant.clone(),
        request_id: request_id(),
        reason
    }));
    twice!(
        operator
            .tenants
            .activate_tenant(v1::ActivateTenantRequest { tenant: tenant.clone(), request_id: request_id() })
    );
    twice!(operator.tenants.delete_tenant(v1::DeleteTenantRequest {
        tenant: tenant.clone(),
        request_id: request_id(),
        ..Default::default()
    }));
    twice!(operator.tenants.undelete_tenant(v1::UndeleteTenantRequest { tenant, request_id: request_id() }));
    assert_eq!(version(t, &acme).await, 6);
    for method in ["CreateTenant", "UpdateTenant", "SuspendTenant", "ActivateTenant", "DeleteTenant", "UndeleteTenant"]
    {
        assert_eq!(noted(t, &acme, &format!("TenantService/{method}")).await, 1, "{method}");
    }
}

async fn every_mutation_of_members_can_be_repeated(t: &Bed) {
    let acme = t.tenant("acme").await;
    let [bob, cleo] = [t.person("bob").await, t.person("cleo").await];
    let mut owner = t.with_token(&acme.owner.token);
    let user_id = bob.id.clone();
    let added = twice!(owner.members.add_member(v1::AddMemberRequest {
        request_id: request_id(),
        email: bob.email.clone(),
        ..Default::default()
    }));
    twice!(owner.members.update_member_role(v1::UpdateMemberRoleRequest {
        request_id: request_id(),
        user_id: user_id.clone(),
        roles: vec!["admin".to_owned()],
        etag: added.member.unwrap().etag,
        ..Default::default()
    }));
    twice!(owner.members.suspend_member(v1::SuspendMemberRequest {
        request_id: request_id(),
        user_id: user_id.clone(),
        ..Default::default()
    }));
    twice!(owner.members.reactivate_member(v1::ReactivateMemberRequest {
        request_id: request_id(),
        user_id: user_id.clone(),
        ..Default::default()
    }));
    let rows: Vec<(i64,)> = t.rows("select version from membership where user_id = $1", &bob.id).await;
    assert_eq!(rows, [(4,)]);
    twice!(owner.members.remove_member(v1::RemoveMemberRequest {
        request_id: request_id(),
        user_id: user_id.clone(),
        ..Default::default()
    }));
    t.join(&acme, &cleo, "member").await;
    let mut operator = t.operator();
    twice!(operator.members.transfer_ownership(v1::TransferOwnershipRequest {
        tenant: acme.id.clone(),
        request_id: request_id(),
        new_owner_id: cleo.id,
        ..Default::default()
    }));
    for method in ["UpdateMemberRole", "SuspendMember", "ReactivateMember", "RemoveMember", "TransferOwnership"] {
        assert_eq!(noted(t, &acme, &format!("MembershipService/{method}")).await, 1, "{method}");
    }
    assert_eq!(noted(t, &acme, "MembershipService/AddMember").await, 2);
}

async fn another_body_is_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let id = request_id();
    owner.tenants.update_tenant(rename("One", &id)).await.unwrap();
    let other = owner.tenants.update_tenant(rename("Two", &id)).await;
    assert_refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED");
    // Naming one's own tenant is another body as well: what counts is what was sent.
    let named = v1::UpdateTenantRequest { tenant: acme.id.clone(), ..rename("One", &id) };
    assert_refused(owner.tenants.update_tenant(named).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    for bad in ["1", "not-a-uuid", "0192d3a4-5b6c-7d8e-9f00-112233445566", &id.replace('-', "")] {
        let refused = owner.tenants.update_tenant(rename("One", bad)).await;
        assert_refused(refused, Code::InvalidArgument, "FIELDS_INVALID");
    }
    // The same id for another method is another call.
    let suspend = v1::SuspendTenantRequest { request_id: id, reason: "x".to_owned(), ..Default::default() };
    owner.tenants.suspend_tenant(suspend).await.expect("suspends");
}

async fn a_refusal_is_not_kept(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked = v1::ActivateTenantRequest { request_id: request_id(), ..Default::default() };
    let early = owner.tenants.activate_tenant(asked.clone()).await;
    assert_refused(early, Code::FailedPrecondition, "WRONG_STATE");
    let suspend = v1::SuspendTenantRequest { reason: "x".to_owned(), ..Default::default() };
    owner.tenants.suspend_tenant(suspend).await.unwrap();
    owner.tenants.activate_tenant(asked).await.expect("now it works, under the same id");
}

async fn an_id_is_its_callers_own(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let id = request_id();
    let first = t.with_token(&acme.owner.token).tenants.update_tenant(rename("One", &id)).await.unwrap().into_inner();
    let second = t.with_token(&admin.token).tenants.update_tenant(rename("One", &id)).await.unwrap().into_inner();
    assert_ne!(first.tenant.unwrap().etag, second.tenant.unwrap().etag, "two calls");
    // In another tenant as well.
    let globex = t.tenant("globex").await;
    t.join(&globex, &acme.owner, "owner").await;
    let there = t.login(&acme.owner, &globex.id).await;
    let third = t.with_token(&there.token).tenants.update_tenant(rename("One", &id)).await.unwrap().into_inner();
    assert_eq!(third.tenant.unwrap().tenant_id, globex.id);
}

async fn parallel_duplicates_have_one_effect(t: &Bed) {
    let acme = t.tenant("acme").await;
    let asked = rename("Parallel", &request_id());
    let calls = (0..20).map(|_| {
        let (mut clients, asked) = (t.with_token(&acme.owner.token), asked.clone());
        async move { clients.tenants.update_tenant(asked).await.expect("an answer").into_inner() }
    });
    let answers = join_all(calls).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(version(t, &acme).await, 2);
    assert_eq!(noted(t, &acme, "TenantService/UpdateTenant").await, 1);

    let slug = unique("acme");
    let asked = v1::SignUpRequest {
        request_id: request_id(),
        email: format!("{slug}@example.com"),
        password: PASSWORD.to_owned(),
        display_name: "Ann".to_owned(),
        tenant: Some(v1::NewTenant { display_name: slug.clone(), slug }),
        ..Default::default()
    };
    let calls = (0..20).map(|_| {
        let (mut clients, asked) = (t.anonymous(), asked.clone());
        async move { clients.auth.sign_up(asked).await.expect("an answer").into_inner() }
    });
    let answers = join_all(calls).await;
    let session = |answer: &v1::SignUpResponse| answer.access_token.as_ref().unwrap().session_id.clone();
    for answer in &answers {
        assert_eq!((&answer.user, &answer.tenant), (&answers[0].user, &answers[0].tenant));
        assert_eq!(session(answer), session(&answers[0]));
    }
}

async fn a_revoked_caller_gets_no_repetition(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let asked = rename("One", &request_id());
    let mut clients = t.with_token(&admin.token);
    clients.tenants.update_tenant(asked.clone()).await.unwrap();
    let demote = v1::UpdateMemberRoleRequest {
        user_id: admin.id.clone(),
        roles: vec!["viewer".to_owned()],
        ..Default::default()
    };
    let mut owner = t.with_token(&acme.owner.token);
    owner.members.update_member_role(demote).await.unwrap();
    let again = clients.tenants.update_tenant(asked.clone()).await;
    assert_refused(again, Code::PermissionDenied, "PERMISSION_MISSING");
    let remove = v1::RemoveMemberRequest { user_id: admin.id, ..Default::default() };
    owner.members.remove_member(remove).await.unwrap();
    assert_refused(clients.tenants.update_tenant(asked).await, Code::NotFound, "TENANT_NOT_FOUND");
}

async fn an_id_is_forgotten_after_a_day(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut operator = t.operator();
    let asked = v1::UpdateTenantRequest { tenant: acme.id.clone(), ..rename("One", &request_id()) };
    let first = operator.tenants.update_tenant(asked.clone()).await.unwrap().into_inner();
    t.clock.advance(TimeDelta::hours(23));
    let again = operator.tenants.update_tenant(asked.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    t.clock.advance(TimeDelta::hours(2));
    let other = v1::UpdateTenantRequest { display_name: "Two".to_owned(), ..asked };
    let fresh = operator.tenants.update_tenant(other.clone()).await.unwrap().into_inner();
    assert_eq!(fresh.tenant.as_ref().unwrap().display_name, "Two");
    // And remembered anew, for another day.
    t.clock.advance(TimeDelta::hours(23));
    assert_eq!(operator.tenants.update_tenant(other).await.unwrap().into_inner(), fresh);
    assert_eq!(version(&t, &acme).await, 3);
}
