//! Keys of the platform: what an operator's key is for, rotation, revocation, and that one is always left.

use prost_types::Duration;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Engine, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    a_key_to_look_changes_nothing
    a_key_for_support_helps_in_tenants_and_does_not_run_the_platform
    platform_keys_are_listed_rotated_and_revoked
    a_key_that_there_is_not_cannot_be_changed
    ;
    alone
    the_last_key_that_may_do_everything_stays
}

/// An operator's key of a scope.
pub(crate) async fn operator_key(t: &Bed, scope: v1::OperatorScope) -> String {
    create(t, scope).await.secret
}

async fn create(t: &Bed, scope: v1::OperatorScope) -> v1::CreateOperatorKeyResponse {
    let request = v1::CreateOperatorKeyRequest {
        display_name: "an operator".to_owned(),
        scope: scope.into(),
        ..Default::default()
    };
    t.operator().auth.create_operator_key(request).await.expect("a key").into_inner()
}

fn suspend(tenant: &str) -> v1::SuspendTenantRequest {
    v1::SuspendTenantRequest { tenant: tenant.to_owned(), reason: "a test".to_owned(), ..Default::default() }
}

async fn a_key_to_look_changes_nothing(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut looker = t.with_key(&operator_key(t, v1::OperatorScope::Read).await);
    looker.tenants.get_tenant(v1::GetTenantRequest { tenant: acme.id.clone() }).await.expect("looks");
    looker.tenants.list_tenants(v1::ListTenantsRequest::default()).await.expect("looks");
    looker.auth.list_platform_keys(v1::ListPlatformKeysRequest::default()).await.expect("looks");
    let refused = looker.tenants.suspend_tenant(suspend(&acme.id)).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
    let wish = v1::CreateOperatorKeyRequest {
        display_name: "more".to_owned(),
        scope: v1::OperatorScope::All.into(),
        ..Default::default()
    };
    let refused = looker.auth.create_operator_key(wish).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
}

async fn a_key_for_support_helps_in_tenants_and_does_not_run_the_platform(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut helper = t.with_key(&operator_key(t, v1::OperatorScope::Support).await);
    helper.tenants.suspend_tenant(suspend(&acme.id)).await.expect("helps");
    let activate = v1::ActivateTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    helper.tenants.activate_tenant(activate).await.expect("helps");
    let delete = v1::DeleteTenantRequest { tenant: acme.id.clone(), ..Default::default() };
    let refused = helper.tenants.delete_tenant(delete).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
    let flags = v1::SetTenantFlagsRequest { tenant: acme.id.clone(), demo: Some(true), ..Default::default() };
    let refused = helper.tenants.set_tenant_flags(flags).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
    let wish = v1::CreateServiceKeyRequest {
        display_name: "a service".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let refused = helper.auth.create_service_key(wish).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
    let wish = v1::CreateApiKeyRequest {
        tenant: acme.id,
        display_name: "a way in".to_owned(),
        permissions: vec!["*".to_owned()],
        ..Default::default()
    };
    let refused = helper.auth.create_api_key(wish).await;
    assert_refused(refused, Code::PermissionDenied, "OPERATOR_SCOPE_MISSING");
}

async fn platform_keys_are_listed_rotated_and_revoked(t: &Bed) {
    let made = create(t, v1::OperatorScope::Read).await;
    let key = made.key.unwrap();
    assert_eq!((key.kind(), key.scope()), (v1::CallerKind::Operator, v1::OperatorScope::Read));
    assert!(made.secret.ends_with(&key.last4) && key.last4.len() == 4);
    let mut operator = t.operator();
    let list =
        |kind: v1::CallerKind| v1::ListPlatformKeysRequest { kind: kind.into(), page_size: 1000, ..Default::default() };
    let keys = operator.auth.list_platform_keys(list(v1::CallerKind::Operator)).await.unwrap().into_inner().keys;
    assert!(keys.contains(&key) && keys.iter().all(|key| key.kind() == v1::CallerKind::Operator));
    let keys = operator.auth.list_platform_keys(list(v1::CallerKind::Service)).await.unwrap().into_inner().keys;
    assert!(keys.iter().all(|key| key.kind() == v1::CallerKind::Service));
    assert_eq!(wrong_fields(operator.auth.list_platform_keys(list(v1::CallerKind::User)).await), ["kind"]);

    let whoami = v1::WhoAmIRequest {};
    let rotate = |overlap: i64| v1::RotatePlatformKeyRequest {
        key_id: key.key_id.clone(),
        overlap: Some(Duration { seconds: overlap, nanos: 0 }),
        ..Default::default()
    };
    let second = operator.auth.rotate_platform_key(rotate(3600)).await.unwrap().into_inner().secret;
    for secret in [&made.secret, &second] {
        t.with_key(secret).auth.who_am_i(whoami).await.expect("both are good");
    }
    let third = operator.auth.rotate_platform_key(rotate(0)).await.unwrap().into_inner().secret;
    for secret in [&made.secret, &second] {
        let asked = t.with_key(secret).auth.who_am_i(whoami).await;
        assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    let sibling = if t.engine == Engine::Postgres { Some(t.sibling(&[]).await) } else { None };
    let servers: Vec<&Bed> = sibling.iter().chain([t]).collect();
    for server in &servers {
        server.with_key(&third).auth.who_am_i(whoami).await.expect("good");
    }
    let revoke = v1::RevokePlatformKeyRequest { key_id: key.key_id.clone(), ..Default::default() };
    operator.auth.revoke_platform_key(revoke.clone()).await.expect("revokes");
    for server in &servers {
        let asked = server.with_key(&third).auth.who_am_i(whoami).await;
        assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
    let refused = operator.auth.revoke_platform_key(revoke).await;
    assert_refused(refused, Code::NotFound, "KEY_NOT_FOUND");
}

async fn a_key_that_there_is_not_cannot_be_changed(t: &Bed) {
    let mut operator = t.operator();
    for bad in ["", "short", &t.operator_key] {
        let rotate = v1::RotatePlatformKeyRequest { key_id: bad.to_owned(), ..Default::default() };
        assert_eq!(wrong_fields(operator.auth.rotate_platform_key(rotate).await), ["key_id"]);
    }
    let rotate = v1::RotatePlatformKeyRequest { key_id: "0123456789ab".to_owned(), ..Default::default() };
    assert_refused(operator.auth.rotate_platform_key(rotate).await, Code::NotFound, "KEY_NOT_FOUND");
    let wish = v1::CreateOperatorKeyRequest { display_name: "x".to_owned(), ..Default::default() };
    assert_eq!(wrong_fields(operator.auth.create_operator_key(wish).await), ["scope"]);
}

async fn the_last_key_that_may_do_everything_stays(t: Bed) {
    create(&t, v1::OperatorScope::Support).await;
    let own = t.operator_key.split('_').nth(1).unwrap().to_owned();
    let revoke = |key_id: &str| v1::RevokePlatformKeyRequest { key_id: key_id.to_owned(), ..Default::default() };
    let refused = t.operator().auth.revoke_platform_key(revoke(&own)).await;
    assert_refused(refused, Code::FailedPrecondition, "LAST_OPERATOR_KEY");
    let second = create(&t, v1::OperatorScope::All).await;
    let (mut one, mut other) = (t.operator(), t.with_key(&second.secret));
    let other_id = second.key.unwrap().key_id;
    // Each revokes the other's, at once.
    let (a, b) =
        tokio::join!(one.auth.revoke_platform_key(revoke(&other_id)), other.auth.revoke_platform_key(revoke(&own)));
    assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1, "{a:?} {b:?}");
}
