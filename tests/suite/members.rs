//! Members: joining, roles, ranks, leaving.

use std::collections::BTreeSet;

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines, request_id, unique, wrong_fields};

on_both_engines! {
    the_last_owner_cannot_leave
    the_last_owner_cannot_be_demoted_or_suspended
    somebody_with_an_account_joins_once
    nobody_invites_above_their_own_rank
    nobody_touches_a_rank_above_their_own
    members_are_shown_and_listed_page_by_page
    a_role_changes_under_its_etag
    a_suspended_member_may_nothing
    states_lead_on_only_where_they_should
    a_removed_member_is_gone_and_may_return
    one_leaves_by_oneself_and_only_as_a_member
}

fn add(email: &str, role: &str) -> v1::AddMemberRequest {
    let roles = Some(role.to_owned()).into_iter().filter(|role| !role.is_empty()).collect();
    v1::AddMemberRequest { email: email.to_owned(), roles, ..Default::default() }
}

fn change(user: &str, role: &str) -> v1::UpdateMemberRoleRequest {
    let roles = Some(role.to_owned()).into_iter().filter(|role| !role.is_empty()).collect();
    v1::UpdateMemberRoleRequest { user_id: user.to_owned(), roles, ..Default::default() }
}

fn get(user: &str) -> v1::GetMemberRequest {
    v1::GetMemberRequest { user_id: user.to_owned(), ..Default::default() }
}

fn suspend(user: &str) -> v1::SuspendMemberRequest {
    v1::SuspendMemberRequest { user_id: user.to_owned(), ..Default::default() }
}

fn reactivate(user: &str) -> v1::ReactivateMemberRequest {
    v1::ReactivateMemberRequest { user_id: user.to_owned(), ..Default::default() }
}

fn remove(user: &str) -> v1::RemoveMemberRequest {
    v1::RemoveMemberRequest { user_id: user.to_owned(), ..Default::default() }
}

async fn the_last_owner_cannot_leave(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let left = owner.members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(left, Code::FailedPrecondition, "LAST_OWNER");
    let second = t.member(&acme, "owner").await;
    owner.members.leave_tenant(v1::LeaveTenantRequest::default()).await.expect("leaves");
    let left = t.with_token(&second.token).members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(left, Code::FailedPrecondition, "LAST_OWNER");
}

async fn the_last_owner_cannot_be_demoted_or_suspended(t: &Bed) {
    let acme = t.tenant("acme").await;
    let second = t.member(&acme, "owner").await;
    let mut owner = t.with_token(&acme.owner.token);
    // A suspended owner does not count.
    owner.members.suspend_member(suspend(&second.id)).await.unwrap();
    let me = &acme.owner.id;
    let demoted = owner.members.update_member_role(change(me, "admin")).await;
    assert_refused(demoted, Code::FailedPrecondition, "LAST_OWNER");
    let suspended = owner.members.suspend_member(suspend(me)).await;
    assert_refused(suspended, Code::FailedPrecondition, "LAST_OWNER");
    let by_operator = v1::RemoveMemberRequest { tenant: acme.id.clone(), ..remove(me) };
    let removed = t.operator().members.remove_member(by_operator).await;
    assert_refused(removed, Code::FailedPrecondition, "LAST_OWNER");
    owner.members.reactivate_member(reactivate(&second.id)).await.unwrap();
    let demoted = owner.members.update_member_role(change(me, "admin")).await.unwrap().into_inner().member.unwrap();
    assert_eq!(demoted.roles, ["admin"]);
}

async fn somebody_with_an_account_joins_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let mut owner = t.with_token(&acme.owner.token);
    let asked = add(&bob.email.to_uppercase(), "");
    let member = owner.members.add_member(asked.clone()).await.unwrap().into_inner().member.unwrap();
    assert_eq!((member.roles.join(" ").as_str(), member.status()), ("member", v1::MemberStatus::Active));
    assert_eq!(member.user.unwrap().user_id, bob.id);
    assert_refused(owner.members.add_member(asked).await, Code::AlreadyExists, "ALREADY_MEMBER");
    owner.members.suspend_member(suspend(&bob.id)).await.unwrap();
    let again = owner.members.add_member(add(&bob.email, "viewer")).await;
    assert_refused(again, Code::AlreadyExists, "ALREADY_MEMBER");
    let nobody = format!("{}@example.com", unique("nobody"));
    assert_refused(owner.members.add_member(add(&nobody, "")).await, Code::NotFound, "USER_UNKNOWN");
    assert_eq!(wrong_fields(owner.members.add_member(add("bob", "king")).await), ["email", "roles"]);
    let member = t.member(&acme, "member").await;
    let refused = t.with_token(&member.token).members.add_member(add(&nobody, "")).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn nobody_invites_above_their_own_rank(t: &Bed) {
    let acme = t.tenant("acme").await;
    let roles = ["viewer", "member", "manager", "admin", "owner"];
    for (inviter, highest) in [("manager", 2), ("admin", 3), ("owner", 4)] {
        let person = t.member(&acme, inviter).await;
        let mut clients = t.with_token(&person.token);
        for (rank, role) in roles.into_iter().enumerate() {
            let somebody = t.person("somebody").await;
            let added = clients.members.add_member(add(&somebody.email, role)).await;
            if rank <= highest {
                assert_eq!(added.unwrap().into_inner().member.unwrap().roles, [role]);
            } else {
                assert_refused(added, Code::PermissionDenied, "RANK_TOO_LOW");
            }
        }
        // Who has an account does not show to those who may not invite that high.
        if highest < 4 {
            let nobody = format!("{}@example.com", unique("nobody"));
            let refused = clients.members.add_member(add(&nobody, "owner")).await;
            assert_refused(refused, Code::PermissionDenied, "RANK_TOO_LOW");
        }
    }
}

async fn nobody_touches_a_rank_above_their_own(t: &Bed) {
    let acme = t.tenant("acme").await;
    let [second, admin, other, bob] = [
        t.member(&acme, "owner").await,
        t.member(&acme, "admin").await,
        t.member(&acme, "admin").await,
        t.member(&acme, "member").await,
    ];
    let mut clients = t.with_token(&admin.token);
    for owner in [&second.id, &acme.owner.id] {
        let code = Code::PermissionDenied;
        assert_refused(clients.members.update_member_role(change(owner, "viewer")).await, code, "RANK_TOO_LOW");
        assert_refused(clients.members.suspend_member(suspend(owner)).await, code, "RANK_TOO_LOW");
        assert_refused(clients.members.reactivate_member(reactivate(owner)).await, code, "RANK_TOO_LOW");
        assert_refused(clients.members.remove_member(remove(owner)).await, code, "RANK_TOO_LOW");
    }
    for user in [&admin.id, &bob.id] {
        let raised = clients.members.update_member_role(change(user, "owner")).await;
        assert_refused(raised, Code::PermissionDenied, "RANK_TOO_LOW");
    }
    clients.members.update_member_role(change(&bob.id, "admin")).await.expect("up to one's own rank");
    clients.members.remove_member(remove(&other.id)).await.expect("one's own rank");
    let manager = t.member(&acme, "manager").await;
    let refused = t.with_token(&manager.token).members.suspend_member(suspend(&bob.id)).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn members_are_shown_and_listed_page_by_page(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    let mut all = BTreeSet::from([acme.owner.id.clone()]);
    let mut last = acme.owner.clone();
    for _ in 0..4 {
        last = t.person("bob").await;
        t.join(&acme, &last, "viewer").await;
        all.insert(last.id.clone());
    }
    let mut clients = t.with_token(&acme.owner.token);
    let shown = clients.members.get_member(get(&last.id)).await.unwrap().into_inner().member.unwrap();
    assert_eq!(shown.user.unwrap().email, last.email);
    for missing in [&globex.owner.id, &request_id()] {
        assert_refused(clients.members.get_member(get(missing)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    }
    assert_eq!(wrong_fields(clients.members.get_member(get("bob")).await), ["user_id"]);
    clients.members.suspend_member(suspend(&last.id)).await.unwrap();
    for (status, count) in
        [(v1::MemberStatus::Unspecified, 5), (v1::MemberStatus::Active, 4), (v1::MemberStatus::Suspended, 1)]
    {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let asked =
                v1::ListMembersRequest { status: status.into(), page_size: 2, page_token: token, ..Default::default() };
            let page = clients.members.list_members(asked).await.unwrap().into_inner();
            assert!(page.members.len() <= 2);
            seen.extend(page.members.into_iter().map(|member| member.user.unwrap().user_id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let once: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!((seen.len(), once.len()), (count, count), "{status:?}");
        assert!(once.is_subset(&all));
    }
    let removed = v1::ListMembersRequest { status: v1::MemberStatus::Removed.into(), ..Default::default() };
    assert_eq!(wrong_fields(clients.members.list_members(removed).await), ["status"]);
}

async fn a_role_changes_under_its_etag(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    let read = owner.members.get_member(get(&bob.id)).await.unwrap().into_inner().member.unwrap();
    let with = |etag: &str, role: &str| v1::UpdateMemberRoleRequest { etag: etag.to_owned(), ..change(&bob.id, role) };
    let raised = owner.members.update_member_role(with(&read.etag, "manager")).await.unwrap().into_inner();
    assert_eq!(raised.member.as_ref().unwrap().roles, ["manager"]);
    let stale = owner.members.update_member_role(with(&read.etag, "admin")).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    let stale = owner.members.remove_member(v1::RemoveMemberRequest { etag: read.etag, ..remove(&bob.id) }).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    // The new role counts at once, for the token that he has.
    let me = t.with_token(&bob.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.roles, ["manager"]);
    assert_eq!(wrong_fields(owner.members.update_member_role(change(&bob.id, "")).await), ["roles"]);
}

async fn a_suspended_member_may_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "admin").await;
    t.with_token(&acme.owner.token).members.suspend_member(suspend(&bob.id)).await.unwrap();
    let mut clients = t.with_token(&bob.token);
    let code = Code::PermissionDenied;
    let get_tenant = clients.tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(get_tenant, code, "MEMBER_SUSPENDED");
    assert_refused(clients.members.get_member(get(&bob.id)).await, code, "MEMBER_SUSPENDED");
    assert_refused(clients.members.reactivate_member(reactivate(&bob.id)).await, code, "MEMBER_SUSPENDED");
    let leave = clients.members.leave_tenant(v1::LeaveTenantRequest::default()).await;
    assert_refused(leave, code, "MEMBER_SUSPENDED");
    let usage = clients.usage.get_usage(v1::GetUsageRequest::default()).await;
    assert_refused(usage, code, "MEMBER_SUSPENDED");
    assert_refused(clients.auth.who_am_i(v1::WhoAmIRequest {}).await, code, "MEMBER_SUSPENDED");
    t.with_token(&acme.owner.token).members.reactivate_member(reactivate(&bob.id)).await.unwrap();
    clients.members.get_member(get(&bob.id)).await.expect("works again, with the same token");
}

async fn states_lead_on_only_where_they_should(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    let early = owner.members.reactivate_member(reactivate(&bob.id)).await;
    assert_refused(early, Code::FailedPrecondition, "WRONG_STATE");
    let suspended = owner.members.suspend_member(suspend(&bob.id)).await.unwrap().into_inner().member.unwrap();
    assert_eq!(suspended.status(), v1::MemberStatus::Suspended);
    let twice = owner.members.suspend_member(suspend(&bob.id)).await;
    assert_refused(twice, Code::FailedPrecondition, "WRONG_STATE");
    for missing in [request_id(), t.person("stranger").await.id] {
        let refused = owner.members.suspend_member(suspend(&missing)).await;
        assert_refused(refused, Code::NotFound, "MEMBER_NOT_FOUND");
    }
}

async fn a_removed_member_is_gone_and_may_return(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "manager").await;
    let mut owner = t.with_token(&acme.owner.token);
    assert_eq!(wrong_fields(owner.members.remove_member(remove(&acme.owner.id)).await), ["user_id"]);
    let gone = owner.members.remove_member(remove(&bob.id)).await.unwrap().into_inner().member.unwrap();
    assert_eq!((gone.status(), gone.roles.join(" ").as_str()), (v1::MemberStatus::Removed, "manager"));
    assert_refused(owner.members.get_member(get(&bob.id)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    assert_refused(owner.members.remove_member(remove(&bob.id)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    let mut theirs = t.with_token(&bob.token);
    let refused = theirs.tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(refused, Code::NotFound, "TENANT_NOT_FOUND");
    let back = owner.members.add_member(add(&bob.email, "viewer")).await.unwrap().into_inner().member.unwrap();
    assert_ne!(back.membership_id, gone.membership_id);
    assert_eq!(back.roles, ["viewer"]);
    theirs.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("is a member again");
}

async fn one_leaves_by_oneself_and_only_as_a_member(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let leave = |tenant: &str| v1::LeaveTenantRequest { tenant: tenant.to_owned(), ..Default::default() };
    for mut clients in [t.operator(), t.with_key(&t.service_key(&["*"]).await)] {
        let refused = clients.members.leave_tenant(leave(&acme.id)).await;
        assert_refused(refused, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
    let mut clients = t.with_token(&bob.token);
    clients.members.leave_tenant(leave(&acme.slug)).await.expect("leaves");
    assert_refused(clients.members.leave_tenant(leave("")).await, Code::NotFound, "TENANT_NOT_FOUND");
}
