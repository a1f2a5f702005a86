//! Transfer of ownership.

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    ownership_passes_in_one_step
    the_old_owner_becomes_what_they_say
    an_operator_adds_an_owner
    only_an_active_member_becomes_owner
    only_owners_transfer

}

fn transfer(to: &str, own_role: &str) -> v1::TransferOwnershipRequest {
    let own_roles = Some(own_role.to_owned()).into_iter().filter(|role| !role.is_empty()).collect();
    v1::TransferOwnershipRequest { new_owner_id: to.to_owned(), own_roles, ..Default::default() }
}

async fn ownership_passes_in_one_step(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "viewer").await;
    let mut owner = t.with_token(&acme.owner.token);
    let done = owner.members.transfer_ownership(transfer(&bob.id, "")).await.unwrap().into_inner();
    let (new, old) = (done.new_owner.unwrap(), done.previous_owner.unwrap());
    assert_eq!((new.roles.join(" ").as_str(), new.user.unwrap().user_id), ("owner", bob.id.clone()));
    assert_eq!((old.roles.join(" ").as_str(), old.user.unwrap().user_id), ("admin", acme.owner.id.clone()));
    let back = owner.members.transfer_ownership(transfer(&acme.owner.id, "")).await;
    assert_refused(back, Code::PermissionDenied, "PERMISSION_MISSING");
    t.with_token(&bob.token).members.transfer_ownership(transfer(&acme.owner.id, "")).await.expect("passes back");
}

async fn the_old_owner_becomes_what_they_say(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let mut owner = t.with_token(&acme.owner.token);
    assert_eq!(
        wrong_fields(owner.members.transfer_ownership(transfer("bob", "king")).await),
        ["new_owner_id", "own_roles"]
    );
    let stays = owner.members.transfer_ownership(transfer(&bob.id, "owner")).await.unwrap().into_inner();
    assert_eq!(stays.previous_owner.unwrap().roles, ["owner"]);
    let steps_down = owner.members.transfer_ownership(transfer(&bob.id, "viewer")).await.unwrap().into_inner();
    assert_eq!(steps_down.previous_owner.unwrap().roles, ["viewer"]);
}

async fn an_operator_adds_an_owner(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let asked =
        |own_role: &str| v1::TransferOwnershipRequest { tenant: acme.id.clone(), ..transfer(&bob.id, own_role) };
    let mut operator = t.operator();
    assert_eq!(wrong_fields(operator.members.transfer_ownership(asked("admin")).await), ["own_roles"]);
    let done = operator.members.transfer_ownership(asked("")).await.unwrap().into_inner();
    assert_eq!(done.new_owner.unwrap().roles, ["owner"]);
    assert!(done.previous_owner.is_none());
    let me = t.with_token(&acme.owner.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(me.roles, ["owner"], "the owners stay");
}

async fn only_an_active_member_becomes_owner(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "admin").await;
    let mut owner = t.with_token(&acme.owner.token);
    let me = &acme.owner.id;
    assert_eq!(wrong_fields(owner.members.transfer_ownership(transfer(me, "")).await), ["new_owner_id"]);
    for stranger in [request_id(), t.person("stranger").await.id] {
        let refused = owner.members.transfer_ownership(transfer(&stranger, "")).await;
        assert_refused(refused, Code::NotFound, "MEMBER_NOT_FOUND");
    }
    let suspend = v1::SuspendMemberRequest { user_id: bob.id.clone(), ..Default::default() };
    owner.members.suspend_member(suspend).await.unwrap();
    let refused = owner.members.transfer_ownership(transfer(&bob.id, "")).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
    let who = owner.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(who.roles, ["owner"], "nothing half done");
}

async fn only_owners_transfer(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    for role in ["admin", "manager", "viewer"] {
        let person = t.member(&acme, role).await;
        let refused = t.with_token(&person.token).members.transfer_ownership(transfer(&bob.id, "")).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    }
}
