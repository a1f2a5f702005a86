//! What has changed, as pages and as a stream, for services that keep copies.

use futures::StreamExt as _;
use tenantry::rpc::v1;
use tenantry::rpc::v1::ChangeKind as Kind;
use tonic::{Code, Response, Streaming};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Clients, Engine, Person, Tenant, assert_refused, on_both_engines, wrong_fields};

on_both_engines! {
    what_has_changed_is_told_in_order_to_those_whom_it_concerns
    services_and_operators_see_all_tenants_and_what_is_of_none
    a_cursor_that_is_lost_is_told_with_where_to_go_on
    wrong_questions_about_changes_are_refused
    a_stream_tells_of_changes_as_they_come_and_of_its_life
    ;
    alone
    a_stream_ends_for_whoever_may_watch_no_more
    a_stream_at_another_server_tells_the_same
}

fn suspended(tenant: &Tenant, person: &Person) -> v1::SuspendMemberRequest {
    v1::SuspendMemberRequest { tenant: tenant.id.clone(), user_id: person.id.clone(), ..Default::default() }
}

fn reactivated(tenant: &Tenant, person: &Person) -> v1::ReactivateMemberRequest {
    v1::ReactivateMemberRequest { tenant: tenant.id.clone(), user_id: person.id.clone(), ..Default::default() }
}

async fn after(clients: &mut Clients, cursor: &str) -> v1::ListChangesResponse {
    let ask = v1::ListChangesRequest { cursor: cursor.to_owned(), ..Default::default() };
    clients.tenants.list_changes(ask).await.expect("changes").into_inner()
}

fn told(changes: &[v1::Change]) -> Vec<(Kind, &str, &str)> {
    changes.iter().map(|change| (change.kind(), change.tenant_id.as_str(), change.user_id.as_str())).collect()
}

async fn what_has_changed_is_told_in_order_to_those_whom_it_concerns(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let (ann, bob) = (t.member(&acme, "manager").await, t.member(&other, "manager").await);
    let mut owner = t.with_token(&acme.owner.token);
    let now = after(&mut owner, "").await;
    assert_eq!((now.changes.len(), now.more), (0, false));
    let mut operator = t.operator();
    operator.members.suspend_member(suspended(&acme, &ann)).await.unwrap();
    operator.members.suspend_member(suspended(&other, &bob)).await.unwrap();
    t.set_limit(&acme, "quizzes", v1::set_limit_override_request::Value::Limit(7)).await;
    let key = v1::CreateApiKeyRequest {
        display_name: "reads".to_owned(),
        permissions: vec!["tenant.read".to_owned()],
        ..Default::default()
    };
    owner.auth.create_api_key(key).await.unwrap();
    operator.members.reactivate_member(reactivated(&acme, &ann)).await.unwrap();
    let found = after(&mut owner, &now.cursor).await;
    let id = acme.id.as_str();
    let wanted = [
        (Kind::Membership, id, ann.id.as_str()),
        (Kind::Tenant, id, ""),
        (Kind::ApiKey, id, ""),
        (Kind::Membership, id, ann.id.as_str()),
    ];
    assert_eq!(told(&found.changes), wanted);
    assert_eq!(found.changes[2].resource_id.len(), 36);
    let of_kind = v1::ListChangesRequest { cursor: now.cursor, kinds: vec![Kind::Tenant.into()], ..Default::default() };
    let found_of_kind = owner.tenants.list_changes(of_kind).await.unwrap().into_inner();
    assert_eq!(told(&found_of_kind.changes), [(Kind::Tenant, id, "")]);
    assert_eq!(after(&mut owner, &found.cursor).await.changes, []);
    // Whoever may not read the audit log learns nothing here either, and nobody of a tenant of others.
    let ask = |tenant: &str| v1::ListChangesRequest { tenant: tenant.to_owned(), ..Default::default() };
    let manager = t.with_token(&ann.token).tenants.list_changes(ask("")).await;
    assert_refused(manager, Code::PermissionDenied, "PERMISSION_MISSING");
    let stranger = owner.tenants.list_changes(ask(&other.id)).await;
    assert_refused(stranger, Code::InvalidArgument, "TENANT_CONFLICT");
    let nowhere = t.person("nowhere").await;
    let nobody = t.with_token(&nowhere.token).tenants.list_changes(ask("")).await;
    assert_refused(nobody, Code::InvalidArgument, "TENANT_MISSING");
}

async fn services_and_operators_see_all_tenants_and_what_is_of_none(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    let ann = t.member(&acme, "manager").await;
    let mut service = t.with_key(&t.service_key(&["audit.read"]).await);
    let start = after(&mut service, "").await.cursor;
    let mut operator = t.operator();
    operator.members.suspend_member(suspended(&acme, &ann)).await.unwrap();
    t.set_limit(&other, "quizzes", v1::set_limit_override_request::Value::Limit(7)).await;
    let disable = v1::DisableAccountRequest { user_id: ann.id.clone(), ..Default::default() };
    operator.auth.disable_account(disable).await.unwrap();
    for clients in [&mut service, &mut operator] {
        let found = after(clients, &start).await;
        let all = told(&found.changes);
        let wanted = [
            (Kind::Membership, acme.id.as_str(), ann.id.as_str()),
            (Kind::Tenant, other.id.as_str(), ""),
            (Kind::Account, "", ann.id.as_str()),
        ];
        // Others change things on the same server.
        let places: Vec<_> = wanted.iter().map(|one| all.iter().position(|seen| seen == one).expect("told")).collect();
        assert!(places.is_sorted(), "{places:?}");
    }
    let one = v1::ListChangesRequest { tenant: acme.slug.clone(), cursor: start, ..Default::default() };
    let one = service.tenants.list_changes(one).await.unwrap().into_inner();
    assert_eq!(told(&one.changes), [(Kind::Membership, acme.id.as_str(), ann.id.as_str())]);
    let mut blind = t.with_key(&t.service_key(&["usage.write"]).await);
    let refused = blind.tenants.list_changes(v1::ListChangesRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let refused = blind.tenants.watch_changes(v1::WatchChangesRequest::default()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_cursor_that_is_lost_is_told_with_where_to_go_on(t: &Bed) {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token);
    let cursor = after(&mut owner, "").await.cursor;
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let lost = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let ask = v1::ListChangesRequest { cursor: lost.clone(), ..Default::default() };
    let refused = owner.tenants.list_changes(ask).await.expect_err("is lost");
    let next = refused.get_details_error_info().unwrap().metadata["cursor"].clone();
    assert_refused::<()>(Err(refused), Code::Aborted, "CURSOR_LOST");
    after(&mut owner, &next).await;
    let watch = v1::WatchChangesRequest { cursor: lost, ..Default::default() };
    let mut stream = owner.tenants.watch_changes(watch).await.unwrap().into_inner();
    let refused = stream.next().await.unwrap();
    assert_refused(refused.map(Response::new), Code::Aborted, "CURSOR_LOST");
}

async fn wrong_questions_about_changes_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let odd = v1::ListChangesRequest { cursor: "yesterday".to_owned(), kinds: vec![0, 1, 999], ..Default::default() };
    assert_eq!(wrong_fields(owner.list_changes(odd).await), ["kinds[0]", "kinds[2]", "cursor"]);
    for seconds in [0, 301] {
        let heartbeat_interval = Some(prost_types::Duration { seconds, nanos: 0 });
        let odd = v1::WatchChangesRequest { heartbeat_interval, ..Default::default() };
        assert_eq!(wrong_fields(owner.watch_changes(odd).await), ["heartbeat_interval"]);
    }
}

async fn watching(clients: &mut Clients, tenant: &Tenant) -> Streaming<v1::WatchChangesResponse> {
    let watch = v1::WatchChangesRequest {
        tenant: tenant.id.clone(),
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    clients.tenants.watch_changes(watch).await.expect("watches").into_inner()
}

/// The next changes of a stream, beyond its signs of life.
async fn next(stream: &mut Streaming<v1::WatchChangesResponse>) -> v1::WatchChangesResponse {
    loop {
        let answer = stream.next().await.expect("goes on").expect("goes on");
        if !answer.changes.is_empty() {
            return answer;
        }
    }
}

async fn a_stream_tells_of_changes_as_they_come_and_of_its_life(t: &Bed) {
    let acme = t.tenant("acme").await;
    let ann = t.member(&acme, "manager").await;
    let mut owner = t.with_token(&acme.owner.token);
    let mut stream = watching(&mut owner, &acme).await;
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first.changes, [], "where it begins");
    for _ in 0..3 {
        t.operator().members.suspend_member(suspended(&acme, &ann)).await.unwrap();
        let found = next(&mut stream).await;
        assert_eq!(told(&found.changes), [(Kind::Membership, acme.id.as_str(), ann.id.as_str())]);
        assert!(found.staleness.unwrap().seconds < 5);
        t.operator().members.reactivate_member(reactivated(&acme, &ann)).await.unwrap();
        next(&mut stream).await;
    }
    let alive = stream.next().await.unwrap().unwrap();
    assert_eq!(alive.changes, [], "nothing has changed");
    assert_eq!(after(&mut owner, &first.cursor).await.changes.len(), 6);
    assert_eq!(after(&mut owner, &alive.cursor).await.changes, []);
}

async fn a_stream_ends_for_whoever_may_watch_no_more(t: Bed) {
    let acme = t.tenant("acme").await;
    let key = t.service_key(&["audit.read"]).await;
    let mut by_service = watching(&mut t.with_key(&key), &acme).await;
    let all = v1::WatchChangesRequest::default();
    let mut of_all = t.with_key(&key).tenants.watch_changes(all).await.unwrap().into_inner();
    let admin = t.member(&acme, "owner").await;
    let mut by_owner = watching(&mut t.with_token(&admin.token), &acme).await;
    for stream in [&mut by_service, &mut of_all, &mut by_owner] {
        stream.next().await.unwrap().unwrap();
    }
    let key_id = key.split('_').nth(1).unwrap().to_owned();
    let revoke = v1::RevokePlatformKeyRequest { key_id, ..Default::default() };
    t.operator().auth.revoke_platform_key(revoke).await.unwrap();
    t.operator().members.suspend_member(suspended(&acme, &admin)).await.unwrap();
    for (mut stream, code, reason) in [
        (by_service, Code::Unauthenticated, "CREDENTIAL_INVALID"),
        (of_all, Code::Unauthenticated, "CREDENTIAL_INVALID"),
        (by_owner, Code::PermissionDenied, "MEMBER_SUSPENDED"),
    ] {
        let ended = loop {
            if let Err(status) = stream.next().await.expect("an end that says why") {
                break status;
            }
        };
        assert_refused::<()>(Err(ended), code, reason);
    }
}

async fn a_stream_at_another_server_tells_the_same(t: Bed) {
    if t.engine == Engine::Sqlite {
        return;
    }
    let other = t.sibling(&[]).await;
    let acme = t.tenant("acme").await;
    let ann = t.member(&acme, "manager").await;
    let mut here = watching(&mut t.operator(), &acme).await;
    let mut there = watching(&mut other.operator(), &acme).await;
    for stream in [&mut here, &mut there] {
        stream.next().await.unwrap().unwrap();
    }
    for round in 0..20 {
        if round % 2 == 0 {
            t.operator().members.suspend_member(suspended(&acme, &ann)).await.unwrap();
        } else {
            other.operator().members.reactivate_member(reactivated(&acme, &ann)).await.unwrap();
        }
        let (first, second) = (next(&mut here).await, next(&mut there).await);
        assert_eq!(first.changes, second.changes);
        assert_eq!(first.cursor, second.cursor);
    }
}
