//! Two tenants on one server: nothing of one can be seen from the other, through any method.

use http::HeaderMap;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Tenant, assert_refused, on_both_engines, request_id, unique};
use crate::raw::{self, Seen, headers};

on_both_engines! {
    a_tenant_of_others_looks_as_if_it_did_not_exist
    a_tenant_of_others_looks_as_if_it_did_not_exist_to_a_service_in_a_strangers_name
    neither_sign_in_nor_switch_nor_authorize_tells_whether_a_tenant_exists
    a_user_of_another_tenant_is_no_member_like_one_who_does_not_exist
    lists_hold_rows_of_the_own_tenant_only
    a_page_token_goes_on_nowhere_but_where_it_came_from
    a_page_token_gives_nothing_to_whom_the_permission_was_taken_from
    a_request_id_means_something_else_to_another_caller_tenant_or_method
    nothing_of_another_tenant_can_be_changed
}

/// What must look like nothing: tenants of others in every state.
async fn others(t: &Bed) -> Vec<Tenant> {
    let (open, closed, deleted) = (t.tenant("open").await, t.tenant("closed").await, t.tenant("deleted").await);
    let mut operator = t.operator();
    let request =
        v1::SuspendTenantRequest { tenant: closed.id.clone(), reason: "unpaid".to_owned(), ..Default::default() };
    operator.tenants.suspend_tenant(request).await.expect("suspends");
    let request = v1::DeleteTenantRequest { tenant: deleted.id.clone(), ..Default::default() };
    operator.tenants.delete_tenant(request).await.expect("deletes");
    vec![open, closed, deleted]
}

/// Compares what a caller is told of each tenant, named in a header and in the request, by id and by slug, with what
/// they are told of one that does not exist.
async fn compare(t: &Bed, credential: &HeaderMap, others: &[Tenant]) {
    let channel = t.channel();
    for method in raw::methods_of_a_tenant() {
        let path = raw::path(&method);
        let of_header = async |name: &str| {
            let mut headers = credential.clone();
            headers.extend(raw::headers(&[("x-tenant-id", name)]));
            let body = raw::request(&method, &[("user_id", &others[0].owner.id), ("request_id", &request_id())]);
            Seen::from(raw::call(&channel, &path, &headers, &body).await)
        };
        let of_request = async |name: &str| {
            let user = &others[0].owner.id;
            let body = raw::request(&method, &[("tenant", name), ("user_id", user), ("request_id", &request_id())]);
            Seen::from(raw::call(&channel, &path, credential, &body).await)
        };
        for absent in [request_id(), unique("absent")] {
            let (by_header, by_request) = (of_header(&absent).await, of_request(&absent).await);
            for tenant in others {
                for name in [&tenant.id, &tenant.slug] {
                    assert_eq!(of_header(name).await, by_header, "{path}, x-tenant-id {name}");
                    assert_eq!(of_request(name).await, by_request, "{path}, tenant {name}");
                }
            }
        }
    }
}

async fn a_tenant_of_others_looks_as_if_it_did_not_exist(t: &Bed) {
    let others = others(t).await;
    let (stranger, member) = (t.person("stranger").await, t.tenant("own").await.owner);
    for person in [stranger, member] {
        compare(t, &headers(&[("authorization", &format!("Bearer {}", person.token))]), &others).await;
    }
}

async fn a_tenant_of_others_looks_as_if_it_did_not_exist_to_a_service_in_a_strangers_name(t: &Bed) {
    let (others, key, stranger) = (others(t).await, t.service_key(&["*"]).await, t.person("stranger").await);
    compare(t, &headers(&[("x-api-key", &key), ("x-on-behalf-of", &stranger.token)]), &others).await;
}

/// An answer without what it says of when it was decided.
fn but_for_when(method: &MethodDescriptor, body: &[u8]) -> Vec<u8> {
    let mut message = DynamicMessage::decode(method.output(), body).expect("an answer");
    for field in ["revision", "staleness", "max_staleness"] {
        if method.output().get_field_by_name(field).is_some() {
            message.clear_field_by_name(field);
        }
    }
    message.encode_to_vec()
}

async fn neither_sign_in_nor_switch_nor_authorize_tells_whether_a_tenant_exists(t: &Bed) {
    let (others, person, channel) = (others(t).await, t.person("stranger").await, t.channel());
    let (key, nobody) = (t.service_key(&["*"]).await, HeaderMap::new());
    let bearer = headers(&[("authorization", &format!("Bearer {}", person.token))]);
    for method in raw::methods() {
        let credential = match method.name() {
            "SwitchTenant" | "Authorize" | "TestPermissions" => vec![&bearer],
            "Login" => vec![&nobody],
            _ => continue,
        };
        let service = headers(&[("x-api-key", &key)]);
        let as_service = matches!(method.name(), "Authorize" | "TestPermissions").then_some(&service);
        for credential in credential.into_iter().chain(as_service) {
            let subject = if credential == &service { person.token.as_str() } else { "" };
            let ask = async |name: &str| {
                let fields = [
                    ("tenant", name),
                    ("to_tenant", name),
                    ("email", &person.email),
                    ("password", crate::harness::PASSWORD),
                    ("subject_token", subject),
                ];
                let body = raw::request(&method, &fields);
                let answer = raw::call(&channel, &raw::path(&method), credential, &body).await;
                Seen::from(answer.map(|answer| answer.map(|body| but_for_when(&method, &body))))
            };
            for absent in [request_id(), unique("absent")] {
                let nothing = ask(&absent).await;
                for tenant in &others {
                    assert_eq!(ask(&tenant.id).await, nothing, "{}", method.full_name());
                    assert_eq!(ask(&tenant.slug).await, nothing, "{}", method.full_name());
                }
            }
        }
    }
}

async fn a_user_of_another_tenant_is_no_member_like_one_who_does_not_exist(t: &Bed) {
    let (own, other, channel) = (t.tenant("own").await, t.tenant("other").await, t.channel());
    let bearer = headers(&[("authorization", &format!("Bearer {}", own.owner.token))]);
    for method in raw::methods_of_a_tenant() {
        let ask = async |user: &str| {
            let fields =
                [("user_id", user), ("new_owner_id", user), ("roles", "viewer"), ("request_id", &request_id())];
            Seen::from(raw::call(&channel, &raw::path(&method), &bearer, &raw::request(&method, &fields)).await)
        };
        let names_a_user = ["user_id", "new_owner_id"].iter().any(|f| method.input().get_field_by_name(f).is_some());
        if names_a_user {
            let answer = ask(&other.owner.id).await;
            assert_eq!(answer, ask(&request_id()).await, "{}", method.full_name());
        }
    }
    let mut clients = t.with_token(&own.owner.token);
    let request = v1::GetMemberRequest { user_id: other.owner.id.clone(), ..Default::default() };
    assert_refused(clients.members.get_member(request).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

async fn lists_hold_rows_of_the_own_tenant_only(t: &Bed) {
    let (own, other) = (t.tenant("own").await, t.tenant("other").await);
    let member = t.member(&own, "viewer").await;
    t.member(&other, "viewer").await;
    let mut clients = t.with_token(&own.owner.token);
    let members = clients.members.list_members(v1::ListMembersRequest::default()).await.expect("lists").into_inner();
    let ids: Vec<_> = members.members.into_iter().filter_map(|m| m.user).map(|user| user.user_id).collect();
    assert_eq!(ids, [own.owner.id.clone(), member.id]);
    let mine = clients.tenants.list_my_tenants(v1::ListMyTenantsRequest::default()).await.expect("lists").into_inner();
    let ids: Vec<_> = mine.tenants.into_iter().filter_map(|m| m.tenant).map(|tenant| tenant.tenant_id).collect();
    assert_eq!(ids, [own.id]);
    let all = clients.tenants.list_tenants(v1::ListTenantsRequest::default()).await;
    assert_refused(all, Code::PermissionDenied, "CALLER_KIND_REFUSED");
}

/// A page of one member, of those with a status.
fn page(token: &str, status: v1::MemberStatus) -> v1::ListMembersRequest {
    v1::ListMembersRequest { page_size: 1, page_token: token.to_owned(), status: status.into(), ..Default::default() }
}

async fn a_page_token_goes_on_nowhere_but_where_it_came_from(t: &Bed) {
    const ALL: v1::MemberStatus = v1::MemberStatus::Unspecified;
    let (own, other) = (t.tenant("own").await, t.tenant("other").await);
    t.member(&own, "viewer").await;
    let mut clients = t.with_token(&own.owner.token);
    let first = clients.members.list_members(page("", ALL)).await.expect("lists").into_inner();
    let token = first.next_page_token;
    assert!(!token.is_empty());

    let elsewhere = t.with_token(&other.owner.token).members.list_members(page(&token, ALL)).await;
    assert_refused(elsewhere, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let filtered = clients.members.list_members(page(&token, v1::MemberStatus::Active)).await;
    assert_refused(filtered, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let request = v1::ListMyTenantsRequest { page_token: token.clone(), ..Default::default() };
    let method = clients.tenants.list_my_tenants(request).await;
    assert_refused(method, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let request = v1::ListMembersRequest { tenant: own.id.clone(), ..page(&token, ALL) };
    let kind = t.operator().members.list_members(request).await;
    assert_refused(kind, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    let mut bent = token.clone().into_bytes();
    bent[5] = if bent[5] == b'A' { b'B' } else { b'A' };
    for bad in [String::from_utf8(bent).expect("text"), format!("{token}A"), "-".to_owned(), "x".repeat(10_000)] {
        let bad = clients.members.list_members(page(&bad, ALL)).await;
        assert_refused(bad, Code::InvalidArgument, "PAGE_TOKEN_MISMATCH");
    }
    let rest = clients.members.list_members(page(&token, ALL)).await.expect("goes on").into_inner();
    assert_eq!(rest.members.len(), 1);
    assert_ne!(rest.members, first.members);
}

async fn a_page_token_gives_nothing_to_whom_the_permission_was_taken_from(t: &Bed) {
    const ALL: v1::MemberStatus = v1::MemberStatus::Unspecified;
    let own = t.tenant("own").await;
    let reader = t.member(&own, "admin").await;
    let mut clients = t.with_token(&reader.token);
    let first = clients.members.list_members(page("", ALL)).await.expect("lists").into_inner();
    let mut owner = t.with_token(&own.owner.token);
    let request = v1::SuspendMemberRequest { user_id: reader.id.clone(), ..Default::default() };
    owner.members.suspend_member(request).await.expect("suspends");
    let next = clients.members.list_members(page(&first.next_page_token, ALL)).await;
    assert_refused(next, Code::PermissionDenied, "MEMBER_SUSPENDED");

    let in_own = |token: &str| v1::ListMembersRequest { tenant: own.id.clone(), ..page(token, ALL) };
    let mut strong = t.with_key(&t.service_key(&["members.read"]).await);
    let first = strong.members.list_members(in_own("")).await.expect("lists").into_inner();
    let mut weak = t.with_key(&t.service_key(&["tenant.read"]).await);
    let next = weak.members.list_members(in_own(&first.next_page_token)).await;
    assert_refused(next, Code::PermissionDenied, "PERMISSION_MISSING");
}

async fn a_request_id_means_something_else_to_another_caller_tenant_or_method(t: &Bed) {
    let (one, two) = (t.tenant("one").await, t.tenant("two").await);
    let id = request_id();
    let rename = |tenant: &Tenant, name: &str| v1::UpdateTenantRequest {
        tenant: tenant.id.clone(),
        request_id: id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        display_name: name.to_owned(),
        ..Default::default()
    };
    let mut owner = t.with_token(&one.owner.token);
    owner.tenants.update_tenant(rename(&one, "First")).await.expect("renames");
    let reused = owner.tenants.update_tenant(rename(&one, "Other body")).await;
    assert_refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");

    let mut other = t.with_token(&t.member(&one, "admin").await.token);
    let renamed = other.tenants.update_tenant(rename(&one, "By another")).await.expect("renames").into_inner();
    assert_eq!(renamed.tenant.expect("a tenant").display_name, "By another");
    let mut operator = t.operator();
    for tenant in [&one, &two] {
        let name = format!("By the operator: {}", tenant.slug);
        let renamed = operator.tenants.update_tenant(rename(tenant, &name)).await.expect("renames").into_inner();
        assert_eq!(renamed.tenant.expect("a tenant").display_name, name);
    }
    let request =
        v1::SuspendTenantRequest { request_id: id.clone(), reason: "a test".to_owned(), ..Default::default() };
    owner.tenants.suspend_tenant(request).await.expect("another method");
}

async fn nothing_of_another_tenant_can_be_changed(t: &Bed) {
    let (own, other) = (t.tenant("own").await, t.tenant("other").await);
    let target = t.member(&other, "viewer").await;
    let mut operator = t.operator();
    let get = v1::GetTenantRequest { tenant: other.id.clone() };
    let list = v1::ListMembersRequest { tenant: other.id.clone(), ..Default::default() };
    let before = (
        operator.tenants.get_tenant(get.clone()).await.expect("shows").into_inner(),
        operator.members.list_members(list.clone()).await.expect("lists").into_inner(),
    );
    let channel = t.channel();
    let bearer = format!("Bearer {}", own.owner.token);
    // These end sessions of the caller, send mail to them or are about their account, and change nothing of anybody else's. A
    // stream of decisions is refused by each of its answers.
    let of_oneself = [
        "Logout",
        "RevokeAllSessions",
        "RequestPasswordReset",
        "RequestEmailVerification",
        "BeginTotpEnrollment",
        "AuthorizeStream",
    ];
    let writes = |method: &MethodDescriptor| raw::access(method).writes && !of_oneself.contains(&method.name());
    for method in raw::methods().into_iter().filter(writes) {
        for header in [None, Some(&other.id), Some(&other.slug)] {
            for named in ["", &other.id, &other.slug] {
                let mut sent = headers(&[("authorization", &bearer)]);
                sent.extend(header.map(|name| headers(&[("x-tenant-id", name)])).unwrap_or_default());
                if header.is_none() && named.is_empty() {
                    continue;
                }
                let fields = [
                    ("tenant", named),
                    ("to_tenant", &other.id),
                    ("user_id", &target.id),
                    ("new_owner_id", &target.id),
                    ("email", &own.owner.email),
                    ("roles", "admin"),
                    ("reason", "mischief"),
                ];
                let body = raw::request(&method, &fields);
                let answer = raw::call(&channel, &raw::path(&method), &sent, &body).await;
                assert!(answer.is_err(), "{} did something: {answer:?}", method.full_name());
            }
        }
    }
    let after = (
        operator.tenants.get_tenant(get).await.expect("shows").into_inner(),
        operator.members.list_members(list).await.expect("lists").into_inner(),
    );
    assert_eq!(before, after);
}
