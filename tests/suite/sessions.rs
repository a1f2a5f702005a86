//! Access tokens: what they name, how long they last, what survives a restart.

use chrono::TimeDelta;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Clients, Headers, assert_refused, on_both_engines, request_id};

on_both_engines! {
    switching_gives_a_token_for_the_other_tenant
    nobody_switches_to_where_they_may_not_work
    a_repeated_switch_is_the_first_one
    everybody_may_ask_who_they_are
    ;
    alone
    an_access_token_lasts_five_minutes
    an_exchanged_token_ends_with_the_old_one
    sessions_survive_a_restart
}

fn to(tenant: &str) -> v1::SwitchTenantRequest {
    v1::SwitchTenantRequest { to_tenant: tenant.to_owned(), ..Default::default() }
}

async fn who(mut clients: Clients) -> v1::WhoAmIResponse {
    clients.auth.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner()
}

async fn switching_gives_a_token_for_the_other_tenant(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    let mut clients = t.with_token(&acme.owner.token);
    for name in [&globex.slug, &globex.id] {
        let token = clients.auth.switch_tenant(to(name)).await.unwrap().into_inner().access_token.unwrap();
        assert_eq!(token.tenant_id, globex.id);
        let me = who(t.with_token(&token.token)).await;
        assert_eq!((me.tenant.unwrap().tenant_id, me.roles.join(" ").as_str()), (globex.id.clone(), "viewer"));
    }
    // The old token lives out its minutes, in the old tenant.
    let me = who(t.with_token(&acme.owner.token)).await;
    assert_eq!((me.tenant.unwrap().tenant_id, me.roles.join(" ").as_str()), (acme.id, "owner"));
}

async fn nobody_switches_to_where_they_may_not_work(t: &Bed) {
    let (acme, globex, closed) = (t.tenant("acme").await, t.tenant("globex").await, t.tenant("closed").await);
    let mut clients = t.with_token(&acme.owner.token);
    for name in [&globex.slug, &globex.id, &request_id()] {
        assert_refused(clients.auth.switch_tenant(to(name)).await, Code::NotFound, "TENANT_NOT_FOUND");
    }
    for tenant in [&globex, &closed] {
        t.join(tenant, &acme.owner, "member").await;
    }
    let user = acme.owner.id.clone();
    let suspend = v1::SuspendMemberRequest { tenant: globex.id.clone(), user_id: user, ..Default::default() };
    t.operator().members.suspend_member(suspend).await.unwrap();
    assert_refused(clients.auth.switch_tenant(to(&globex.id)).await, Code::PermissionDenied, "MEMBER_SUSPENDED");
    let close =
        v1::SuspendTenantRequest { tenant: closed.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    t.operator().tenants.suspend_tenant(close).await.unwrap();
    assert_refused(clients.auth.switch_tenant(to(&closed.id)).await, Code::PermissionDenied, "TENANT_SUSPENDED");
    for mut keys in [t.operator(), t.with_key(&t.service_key(&["*"]).await)] {
        assert_refused(keys.auth.switch_tenant(to(&acme.id)).await, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
}

async fn a_repeated_switch_is_the_first_one(t: &Bed) {
    let (acme, globex) = (t.tenant("acme").await, t.tenant("globex").await);
    t.join(&globex, &acme.owner, "viewer").await;
    let mut clients = t.with_token(&acme.owner.token);
    let asked = v1::SwitchTenantRequest { request_id: request_id(), ..to(&globex.id) };
    let first = clients.auth.switch_tenant(asked.clone()).await.unwrap().into_inner().access_token.unwrap();
    let again = clients.auth.switch_tenant(asked.clone()).await.unwrap().into_inner().access_token.unwrap();
    assert_eq!((first.tenant_id, first.session_id), (again.tenant_id, again.session_id));
    let other = v1::SwitchTenantRequest { to_tenant: acme.id, ..asked };
    assert_refused(clients.auth.switch_tenant(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
}

async fn everybody_may_ask_who_they_are(t: &Bed) {
    assert_refused(
        t.anonymous().auth.who_am_i(v1::WhoAmIRequest {}).await,
        Code::Unauthenticated,
        "CREDENTIAL_MISSING",
    );
    let acme = t.tenant("acme").await;
    let me = who(t.with_token(&acme.owner.token)).await;
    assert_eq!(me.kind(), v1::CallerKind::User);
    assert_eq!((me.user.unwrap().user_id, me.roles.join(" ").as_str()), (acme.owner.id.clone(), "owner"));
    assert!(me.permissions.contains(&"tenant.delete".to_owned()) && me.key.is_none());

    let key = t.service_key(&["usage.*", "tenant.read"]).await;
    let me = who(t.with_key(&key)).await;
    assert_eq!(me.kind(), v1::CallerKind::Service);
    assert_eq!(me.permissions, ["tenant.read", "usage.*"]);
    assert_eq!(me.key.unwrap().display_name, "a service");
    assert!(me.user.is_none() && me.tenant.is_none());

    // In a person's name: what both may.
    let viewer = t.member(&acme, "viewer").await;
    let headers = Headers::default().and("x-api-key", &key).and("x-on-behalf-of", &viewer.token);
    let me = who(Clients::new(t.channel(), headers)).await;
    assert_eq!((me.kind(), me.user.as_ref().unwrap().user_id.as_str()), (v1::CallerKind::Service, viewer.id.as_str()));
    assert_eq!((me.tenant.unwrap().tenant_id, me.roles.join(" ").as_str()), (acme.id.clone(), "viewer"));
    assert_eq!(me.permissions, ["tenant.read", "usage.read"]);

    let me = who(t.operator()).await;
    assert_eq!((me.kind(), me.permissions), (v1::CallerKind::Operator, vec!["*".to_owned()]));
    assert!(me.user.is_none() && me.tenant.is_none());
}

async fn an_access_token_lasts_five_minutes(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut clients = t.with_token(&acme.owner.token);
    // The harness moves the clock, which runs on by itself: stay well clear of the edge.
    t.clock.advance(TimeDelta::seconds(240));
    clients.auth.who_am_i(v1::WhoAmIRequest {}).await.expect("still good");
    t.clock.advance(TimeDelta::seconds(61));
    assert_refused(clients.auth.who_am_i(v1::WhoAmIRequest {}).await, Code::Unauthenticated, "TOKEN_EXPIRED");
    let again = t.login(&acme.owner, "").await;
    t.with_token(&again.token).auth.who_am_i(v1::WhoAmIRequest {}).await.expect("a new one is good");
}

async fn sessions_survive_a_restart(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["tenant.read"]).await;
    let t = t.restart().await;
    let me = who(t.with_token(&acme.owner.token)).await;
    assert_eq!((me.tenant.unwrap().tenant_id, me.roles.join(" ").as_str()), (acme.id, "owner"));
    who(t.with_key(&key)).await;
    who(t.operator()).await;
}

async fn an_exchanged_token_ends_with_the_old_one(t: Bed) {
    let acme = t.tenant("acme").await;
    t.clock.advance(TimeDelta::minutes(4));
    let mut owner = t.with_token(&acme.owner.token);
    let token = owner.auth.switch_tenant(to(&acme.id)).await.unwrap().into_inner().access_token.unwrap();
    assert!(token.expires_in.unwrap().seconds <= 60);
    t.clock.advance(TimeDelta::seconds(61));
    let over = t.with_token(&token.token).auth.switch_tenant(to(&acme.id)).await;
    assert_refused(over, Code::Unauthenticated, "TOKEN_EXPIRED");
}
