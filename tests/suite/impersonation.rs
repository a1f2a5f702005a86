//! Impersonation: an operator in a member's place sees what the member sees, in the open, and takes nothing that is the
//! member's alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use tenantry::rpc::access::{TenantRule, Who};
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Clients, Headers, Tenant, assert_refused, on_both_engines, request_id, wrong_fields};
use crate::raw::{self, headers};

on_both_engines! {
    an_operator_in_a_members_place_is_written_down_as_both
    only_operators_take_a_members_place_and_say_why
    the_tenant_sees_it_and_can_end_it
    nobody_takes_the_place_of_who_may_not_act
    a_repeated_call_takes_the_place_once
    ;
    alone
    what_is_the_members_alone_stays_so
    it_ends_by_itself
    it_ends_with_the_operators_key
}

fn impersonate(tenant: &Tenant, user: &str) -> v1::ImpersonateMemberRequest {
    v1::ImpersonateMemberRequest {
        tenant: tenant.id.clone(),
        user_id: user.to_owned(),
        reason: "ticket 4711".to_owned(),
        ..Default::default()
    }
}

/// A token in a member's place, and the id of it.
pub(crate) async fn in_place(t: &Bed, tenant: &Tenant, user: &str) -> (String, String) {
    let done = t.operator().auth.impersonate_member(impersonate(tenant, user)).await.expect("takes it").into_inner();
    (done.access_token.unwrap().token, done.impersonation.unwrap().impersonation_id)
}

/// What a token says.
fn claims(token: &str) -> serde_json::Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

async fn list(t: &Bed, tenant: &Tenant) -> Vec<v1::Impersonation> {
    let mut owner = t.with_token(&tenant.owner.token).auth;
    owner.list_impersonations(v1::ListImpersonationsRequest::default()).await.unwrap().into_inner().impersonations
}

async fn an_operator_in_a_members_place_is_written_down_as_both(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let (token, id) = in_place(t, &acme, &admin.id).await;
    let said = claims(&token);
    assert_eq!((said["sub"].as_str(), said["tid"].as_str()), (Some(admin.id.as_str()), Some(acme.id.as_str())));
    let operator = said["act"]["sub"].as_str().expect("the operator").to_owned();

    let me = t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.user.unwrap().user_id, me.roles), (admin.id.clone(), vec!["admin".to_owned()]));
    let rename = v1::UpdateTenantRequest { display_name: "By support".to_owned(), ..Default::default() };
    t.with_token(&token).tenants.update_tenant(rename.clone()).await.expect("what the member may");
    // Also when a service passes the token on.
    let service = Headers::default().and("x-api-key", &t.service_key(&["*"]).await).and("x-on-behalf-of", &token);
    let again = v1::UpdateTenantRequest { display_name: "Once more".to_owned(), ..rename };
    Clients::new(t.channel(), service).tenants.update_tenant(again).await.expect("and by a service");

    let audit = t.audit(&acme.id).await;
    let begun = audit.iter().find(|row| row.action == "AuthService/ImpersonateMember").expect("its beginning");
    assert!(begun.changes.contains("ticket 4711") && begun.changes.contains(&id), "{begun:?}");
    let done: Vec<_> = audit.iter().filter(|row| row.action == "TenantService/UpdateTenant").collect();
    assert_eq!(done.len(), 2);
    for row in done {
        assert_eq!(row.actor_kind, 4, "an operator: {row:?}");
        assert_eq!(row.actor_id.map(|id| id.to_string()), Some(operator.clone()));
        assert_eq!(row.on_behalf_of.map(|id| id.to_string()), Some(admin.id.clone()));
    }
}

async fn what_is_the_members_alone_stays_so(t: Bed) {
    let acme = t.tenant("acme").await;
    let (token, _) = in_place(&t, &acme, &acme.owner.id).await;
    let channel = t.channel();
    let credential = headers(&[("authorization", &format!("Bearer {token}"))]);
    let mut closed = Vec::new();
    for method in raw::methods() {
        let access = raw::access(&method);
        let account = access.who == Who::SignedIn && access.tenant == TenantRule::None && !access.allow_bound;
        if !account && !access.deny_impersonated && !access.recent_login {
            continue;
        }
        let answer = raw::call(&channel, &raw::path(&method), &credential, &raw::request(&method, &[])).await;
        let (code, reason) = raw::told(&answer);
        let wanted = if account {
            "SESSION_BOUND"
        } else if access.deny_impersonated {
            "IMPERSONATED"
        } else {
            "RECENT_LOGIN_REQUIRED"
        };
        assert_eq!((code, reason.as_str()), (Code::PermissionDenied, wanted), "{}", method.full_name());
        closed.push(method.name().to_owned());
    }
    for named in
        ["TransferOwnership", "DeleteTenant", "SetSsoConnection", "UpdateMemberRole", "SwitchTenant", "CreateApiKey"]
    {
        assert!(closed.iter().any(|name| name == named), "{named} is open: {closed:?}");
    }
    // Told to the tenant, under the operator's name; at the latest when the server stops.
    let t = t.restart().await;
    let sql = "select action from audit_event
               where tenant_id = $1 and actor_kind = 4 and changes like '%impersonated%' and on_behalf_of is not null";
    assert!(t.rows::<(String,)>(sql, &acme.id).await.len() > 3);
}

async fn only_operators_take_a_members_place_and_say_why(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let request = impersonate(&acme, &viewer.id);
    for mut clients in [t.with_token(&acme.owner.token), t.with_key(&t.service_key(&["*"]).await)] {
        let told = clients.auth.impersonate_member(request.clone()).await;
        assert_refused(told, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
    let mut operator = t.operator().auth;
    let ttl = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    for (wrong, field) in [
        (v1::ImpersonateMemberRequest { reason: "  ".to_owned(), ..request.clone() }, "reason"),
        (v1::ImpersonateMemberRequest { reason: "x".repeat(501), ..request.clone() }, "reason"),
        (v1::ImpersonateMemberRequest { ttl: ttl(59), ..request.clone() }, "ttl"),
        (v1::ImpersonateMemberRequest { ttl: ttl(3601), ..request.clone() }, "ttl"),
        (v1::ImpersonateMemberRequest { user_id: "x".to_owned(), ..request.clone() }, "user_id"),
    ] {
        assert_eq!(wrong_fields(operator.impersonate_member(wrong).await), [field]);
    }
    let hour = v1::ImpersonateMemberRequest { ttl: ttl(3600), ..request.clone() };
    let done = operator.impersonate_member(hour).await.unwrap().into_inner();
    assert_eq!(done.access_token.unwrap().expires_in, ttl(3600));
    let stranger = t.tenant("other").await.owner;
    for nobody in [stranger.id, request_id()] {
        let told = operator.impersonate_member(impersonate(&acme, &nobody)).await;
        assert_refused(told, Code::NotFound, "MEMBER_NOT_FOUND");
    }
}

async fn the_tenant_sees_it_and_can_end_it(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let viewer = t.member(&acme, "viewer").await;
    let (first, id) = in_place(t, &acme, &viewer.id).await;
    let (second, _) = in_place(t, &acme, &viewer.id).await;
    let all = list(t, &acme).await;
    assert_eq!(all.len(), 2);
    assert_eq!((all[1].impersonation_id.as_str(), all[1].reason.as_str()), (id.as_str(), "ticket 4711"));
    assert!(all[1].user_id == viewer.id && !all[1].operator_name.is_empty() && all[1].end_time.is_none());
    assert!(list(t, &other).await.is_empty());
    let told = t.with_token(&viewer.token).auth.list_impersonations(v1::ListImpersonationsRequest::default()).await;
    assert_refused(told, Code::PermissionDenied, "PERMISSION_MISSING");
    let page = v1::ListImpersonationsRequest { page_size: 1, ..Default::default() };
    let mut owner = t.with_token(&acme.owner.token).auth;
    let newest = owner.list_impersonations(page.clone()).await.unwrap().into_inner();
    let next = v1::ListImpersonationsRequest { page_token: newest.next_page_token, ..page };
    let oldest = owner.list_impersonations(next).await.unwrap().into_inner();
    assert_eq!(
        (oldest.impersonations[0].impersonation_id.as_str(), oldest.next_page_token.as_str()),
        (id.as_str(), "")
    );

    let end = v1::EndImpersonationRequest { impersonation_id: id.clone(), ..Default::default() };
    let elsewhere = t.with_token(&other.owner.token).auth.end_impersonation(end.clone()).await;
    assert_refused(elsewhere, Code::NotFound, "IMPERSONATION_NOT_FOUND");
    let ended = owner.end_impersonation(end.clone()).await.unwrap().into_inner().impersonation.unwrap();
    assert!(ended.end_time.is_some());
    assert_refused(
        t.with_token(&first).auth.who_am_i(v1::WhoAmIRequest {}).await,
        Code::Unauthenticated,
        "CREDENTIAL_INVALID",
    );
    t.with_token(&second).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("the other one goes on");
    assert_refused(owner.end_impersonation(end).await, Code::NotFound, "IMPERSONATION_NOT_FOUND");
    t.with_token(&viewer.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("the member's own session as well");
}

async fn it_ends_with_the_operators_key(t: Bed) {
    let acme = t.tenant("acme").await;
    let (token, _) = in_place(&t, &acme, &acme.owner.id).await;
    t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("in place");
    let key = claims(&token)["act"]["sub"].as_str().unwrap().to_owned();
    // Of a key that ends soon it is told so from the start.
    let wish = v1::CreateOperatorKeyRequest {
        display_name: "for a while".to_owned(),
        scope: v1::OperatorScope::All.into(),
        ttl: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..Default::default()
    };
    let made = t.operator().auth.create_operator_key(wish).await.expect("a key").into_inner();
    let long = v1::ImpersonateMemberRequest {
        ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
        ..impersonate(&acme, &acme.owner.id)
    };
    let done = t.with_key(&made.secret).auth.impersonate_member(long).await.expect("takes it").into_inner();
    let said = claims(&done.access_token.unwrap().token);
    assert!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap() <= 600, "{said}");
    t.execute("update platform_key set revoked_at = created_at where platform_key_id = $1", &key).await;
    let told = t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(told, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

async fn nobody_takes_the_place_of_who_may_not_act(t: &Bed) {
    let acme = t.tenant("acme").await;
    let viewer = t.member(&acme, "viewer").await;
    let (token, _) = in_place(t, &acme, &viewer.id).await;
    let mut owner = t.with_token(&acme.owner.token).members;
    let suspend = v1::SuspendMemberRequest { user_id: viewer.id.clone(), ..Default::default() };
    owner.suspend_member(suspend).await.unwrap();
    let told = t.with_token(&token).tenants.get_tenant(v1::GetTenantRequest::default()).await;
    assert_refused(told, Code::PermissionDenied, "MEMBER_SUSPENDED");
    let told = t.operator().auth.impersonate_member(impersonate(&acme, &viewer.id)).await;
    assert_refused(told, Code::FailedPrecondition, "WRONG_STATE");
}

async fn a_repeated_call_takes_the_place_once(t: &Bed) {
    let acme = t.tenant("acme").await;
    let request = v1::ImpersonateMemberRequest { request_id: request_id(), ..impersonate(&acme, &acme.owner.id) };
    let mut operator = t.operator().auth;
    let first = operator.impersonate_member(request.clone()).await.unwrap().into_inner();
    let again = operator.impersonate_member(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    assert_eq!(list(t, &acme).await.len(), 1);
    let other = v1::ImpersonateMemberRequest { reason: "another".to_owned(), ..request };
    assert_refused(operator.impersonate_member(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    // In the member's place one gets none of the member's own repetitions.
    let id = request_id();
    let rename = |name: &str| v1::UpdateTenantRequest {
        request_id: id.clone(),
        display_name: name.to_owned(),
        ..Default::default()
    };
    t.with_token(&acme.owner.token).tenants.update_tenant(rename("By the owner")).await.unwrap();
    let token = first.access_token.unwrap().token;
    t.with_token(&token).tenants.update_tenant(rename("By support")).await.expect("a call of its own");
}

async fn it_ends_by_itself(t: Bed) {
    let acme = t.tenant("acme").await;
    let (token, _) = in_place(&t, &acme, &acme.owner.id).await;
    t.clock.advance(TimeDelta::minutes(14));
    t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("not over yet");
    t.clock.advance(TimeDelta::minutes(1));
    let told = t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_refused(told, Code::Unauthenticated, "TOKEN_EXPIRED");
}
