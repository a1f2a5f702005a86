//! Suspension, activation, deletion and undeletion of tenants.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Person, amounts, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    a_suspended_tenant_refuses_all_but_a_few
    an_owner_suspends_and_activates_their_own
    no_member_lifts_an_operators_suspension
    a_deleted_tenant_is_closed_and_comes_back_as_it_was
    a_suspended_tenant_comes_back_suspended
    what_is_not_deleted_cannot_be_undeleted
    ;
    alone
    a_purged_tenant_is_gone_for_everybody
}

fn suspend(tenant: &str, reason: &str) -> v1::SuspendTenantRequest {
    v1::SuspendTenantRequest { tenant: tenant.to_owned(), reason: reason.to_owned(), ..Default::default() }
}

fn activate(tenant: &str) -> v1::ActivateTenantRequest {
    v1::ActivateTenantRequest { tenant: tenant.to_owned(), ..Default::default() }
}

fn delete(tenant: &str) -> v1::DeleteTenantRequest {
    v1::DeleteTenantRequest { tenant: tenant.to_owned(), ..Default::default() }
}

fn undelete(tenant: &str) -> v1::UndeleteTenantRequest {
    v1::UndeleteTenantRequest { tenant: tenant.to_owned(), ..Default::default() }
}

/// What people are refused with who try to work in a closed tenant.
async fn assert_closed(t: &Bed, person: &Person, reason: &str) {
    let mut clients = t.with_token(&person.token);
    let consume = v1::ConsumeRequest { amounts: amounts(&[("quizzes", 1)]), ..Default::default() };
    assert_refused(clients.usage.consume(consume).await, Code::PermissionDenied, reason);
    let usage = clients.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(usage, Code::PermissionDenied, reason);
    let list = clients.members.list_members(v1::ListMembersRequest::default()).await;
    assert_refused(list, Code::PermissionDenied, reason);
    let add = v1::AddMemberRequest { email: person.email.clone(), ..Default::default() };
    assert_refused(clients.members.add_member(add).await, Code::PermissionDenied, reason);
    let update = clients.tenants.update_tenant(v1::UpdateTenantRequest::default()).await;
    assert_refused(update, Code::PermissionDenied, reason);
    let transfer = clients.members.transfer_ownership(v1::TransferOwnershipRequest::default()).await;
    assert_refused(transfer, Code::PermissionDenied, reason);
    clients.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("members see it");
    clients.auth.who_am_i(v1::WhoAmIRequest {}).await.expect("everybody may ask who they are");
}

async fn a_suspended_tenant_refuses_all_but_a_few(t: &Bed) {
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    t.operator().tenants.suspend_tenant(suspend(&acme.id, "unpaid since May")).await.unwrap();
    assert_closed(t, &acme.owner, "TENANT_SUSPENDED").await;
    let mut clients = t.with_token(&member.token);
    let told = clients.usage.get_usage(v1::GetUsageRequest::default()).await.unwrap_err();
    assert_eq!(told.get_details_error_info().unwrap().metadata["suspend_reason"], "unpaid since May");
    let consume =
        v1::ConsumeRequest { tenant: acme.id.clone(), amounts: amounts(&[("quizzes", 1)]), ..Default::default() };
    let service = t.with_key(&t.service_key(&["*"]).await).usage.consume(consume).await;
    assert_refused(service, Code::PermissionDenied, "TENANT_SUSPENDED");
    // Nobody is signed out, people still sign in, and whoever wants may leave.
    t.login(&member, &acme.id).await;
    t.operator().tenants.activate_tenant(activate(&acme.id)).await.unwrap();
    clients.usage.get_usage(v1::GetUsageRequest::default()).await.expect("the session works again");
    t.operator().tenants.suspend_tenant(suspend(&acme.id, "again")).await.unwrap();
    clients.members.leave_tenant(v1::LeaveTenantRequest::default()).await.expect("leaves");
    assert_refused(
        clients.tenants.get_tenant(v1::GetTenantRequest::default()).await,
        Code::NotFound,
        "TENANT_NOT_FOUND",
    );
}

async fn an_owner_suspends_and_activates_their_own(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let refused = t.with_token(&admin.token).tenants.suspend_tenant(suspend("", "holidays")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut owner = t.with_token(&acme.owner.token);
    assert_eq!(wrong_fields(owner.tenants.suspend_tenant(suspend("", "")).await), ["reason"]);
    let early = owner.tenants.activate_tenant(activate("")).await;
    assert_refused(early, Code::FailedPrecondition, "WRONG_STATE");
    let closed = owner.tenants.suspend_tenant(suspend("", "holidays")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((closed.status(), closed.suspend_reason.as_str()), (v1::TenantStatus::Suspended, "holidays"));
    let twice = owner.tenants.suspend_tenant(suspend("", "longer")).await;
    assert_refused(twice, Code::FailedPrecondition, "WRONG_STATE");
    let open = owner.tenants.activate_tenant(activate("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((open.status(), open.suspend_reason.as_str()), (v1::TenantStatus::Active, ""));
    owner.usage.get_usage(v1::GetUsageRequest::default()).await.expect("works again");
}

async fn no_member_lifts_an_operators_suspension(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (mut owner, mut operator) = (t.with_token(&acme.owner.token), t.operator());
    owner.tenants.suspend_tenant(suspend("", "holidays")).await.unwrap();
    // The operator takes over: the owner's way back is closed.
    let taken = operator.tenants.suspend_tenant(suspend(&acme.id, "fraud")).await.unwrap().into_inner();
    assert_eq!(taken.tenant.unwrap().suspend_reason, "fraud");
    let lifted = owner.tenants.activate_tenant(activate("")).await;
    assert_refused(lifted, Code::PermissionDenied, "SUSPENDED_BY_OPERATOR");
    let again = owner.tenants.suspend_tenant(suspend("", "holidays")).await;
    assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
    // Not by way of deletion either.
    owner.tenants.delete_tenant(delete("")).await.unwrap();
    let back = owner.tenants.undelete_tenant(undelete("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((back.status(), back.suspend_reason.as_str()), (v1::TenantStatus::Suspended, "fraud"));
    let lifted = owner.tenants.activate_tenant(activate("")).await;
    assert_refused(lifted, Code::PermissionDenied, "SUSPENDED_BY_OPERATOR");
    operator.tenants.activate_tenant(activate(&acme.id)).await.expect("the operator may");
}

async fn a_deleted_tenant_is_closed_and_comes_back_as_it_was(t: &Bed) {
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    let consume = v1::ConsumeRequest { amounts: amounts(&[("quizzes", 3)]), ..Default::default() };
    owner.usage.consume(consume).await.unwrap();
    let admin = t.member(&acme, "admin").await;
    let refused = t.with_token(&admin.token).tenants.delete_tenant(delete("")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let gone = owner.tenants.delete_tenant(delete("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(gone.status(), v1::TenantStatus::Deleted);
    let (deleted, purged) = (gone.delete_time.unwrap().seconds, gone.purge_time.unwrap().seconds);
    assert_eq!(purged - deleted, 30 * 24 * 3600);
    assert_closed(t, &acme.owner, "TENANT_DELETED").await;
    let leave = t.with_token(&member.token).members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(leave, Code::PermissionDenied, "TENANT_DELETED");
    let slug = v1::CheckSlugRequest { slug: acme.slug.clone() };
    assert!(!t.anonymous().tenants.check_slug(slug).await.unwrap().into_inner().available);
    let refused = t.with_token(&member.token).tenants.undelete_tenant(undelete("")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let back = owner.tenants.undelete_tenant(undelete("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!(back.status(), v1::TenantStatus::Active);
    assert!(back.delete_time.is_none() && back.purge_time.is_none());
    let usage = t.with_token(&member.token).usage.get_usage(v1::GetUsageRequest::default()).await.unwrap();
    assert_eq!(usage.into_inner().usage.iter().find(|u| u.metric == "quizzes").unwrap().used, 3);
}

async fn a_suspended_tenant_comes_back_suspended(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    owner.tenants.suspend_tenant(suspend("", "holidays")).await.unwrap();
    owner.tenants.delete_tenant(delete("")).await.unwrap();
    let back = owner.tenants.undelete_tenant(undelete("")).await.unwrap().into_inner().tenant.unwrap();
    assert_eq!((back.status(), back.suspend_reason.as_str()), (v1::TenantStatus::Suspended, "holidays"));
    owner.tenants.activate_tenant(activate("")).await.expect("still the owner's to lift");
}

async fn what_is_not_deleted_cannot_be_undeleted(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    assert_refused(owner.tenants.undelete_tenant(undelete("")).await, Code::AlreadyExists, "TENANT_NOT_DELETED");
}

async fn a_purged_tenant_is_gone_for_everybody(t: Bed) {
    let acme = t.tenant("acme").await;
    let other = t.tenant("other").await;
    t.join(&other, &acme.owner, "member").await;
    let mut operator = t.operator();
    operator.tenants.delete_tenant(delete(&acme.id)).await.unwrap();
    t.clock.advance(TimeDelta::days(29));
    let get = v1::GetTenantRequest { tenant: acme.id.clone() };
    operator.tenants.get_tenant(get.clone()).await.expect("still there");
    t.clock.advance(TimeDelta::days(2));
    assert_refused(operator.tenants.get_tenant(get).await, Code::NotFound, "TENANT_NOT_FOUND");
    let late = operator.tenants.undelete_tenant(undelete(&acme.id)).await;
    assert_refused(late, Code::NotFound, "TENANT_NOT_FOUND");
    // For its owner too, whose other tenant is all that is left.
    let owner = t.login(&acme.owner, &other.id).await;
    let mut clients = t.with_token(&owner.token);
    let switch = v1::SwitchTenantRequest { to_tenant: acme.id.clone(), ..Default::default() };
    assert_refused(clients.auth.switch_tenant(switch).await, Code::NotFound, "TENANT_NOT_FOUND");
    let mine = clients.tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.unwrap().into_inner();
    let mine: Vec<String> = mine.tenants.into_iter().map(|my| my.tenant.unwrap().tenant_id).collect();
    assert_eq!(mine, std::slice::from_ref(&other.id));
    let list = v1::ListTenantsRequest { status: v1::TenantStatus::Deleted.into(), ..Default::default() };
    assert!(operator.tenants.list_tenants(list).await.unwrap().into_inner().tenants.is_empty());
    let login = v1::LoginRequest {
        email: acme.owner.email.clone(),
        password: crate::harness::PASSWORD.to_owned(),
        ..Default::default()
    };
    let by_id = v1::LoginRequest { tenant: acme.id, ..login.clone() };
    assert_refused(t.anonymous().auth.login(by_id).await, Code::NotFound, "TENANT_NOT_FOUND");
    let done = t.anonymous().auth.login(login).await.unwrap().into_inner();
    assert_eq!(done.access_token.unwrap().tenant_id, other.id, "the default is gone, one is left");
}
