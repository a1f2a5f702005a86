//! Members: joining, roles, ranks, the last owner.

use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, assert_refused, on_both_engines};

on_both_engines! {
    the_last_owner_cannot_leave
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
