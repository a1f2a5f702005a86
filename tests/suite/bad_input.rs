//! Requests that are wrong: each gets the documented refusal, with a reason, and the server is none the worse.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};
use tenantry::rpc::access::Who;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, PASSWORD, Tenant, assert_refused, on_both_engines, request_id, unique};
use crate::raw::{self, Seen, headers};

on_both_engines! {
    an_empty_request_is_answered_or_refused_field_by_field
    a_body_that_is_no_request_is_refused
    a_body_that_is_no_request_is_refused_after_the_caller
    a_body_over_the_limit_is_refused
    text_of_any_kind_in_any_field_is_no_fault_of_the_server
    amounts_are_bounded
    a_request_id_is_a_uuid_of_version_4
    a_refusal_fits_into_headers_however_much_is_wrong
    an_idempotency_key_stands_for_one_payload
    a_number_that_no_enum_has_is_refused
    page_sizes_are_bounded
    a_stale_etag_is_refused
    only_fields_that_change_may_be_in_the_mask
}

/// A caller who may call the method, and a tenant of their own to call it in.
async fn allowed(t: &Bed, method: &MethodDescriptor) -> (http::HeaderMap, Tenant) {
    let tenant = t.tenant("bad").await;
    let access = raw::access(method);
    let operator = access.who == Who::Operator || access.also_operator || matches!(access.who, Who::Permission(_));
    // Only persons can leave.
    let caller = if operator && method.name() != "LeaveTenant" {
        headers(&[("x-api-key", &t.operator_key), ("x-tenant-id", &tenant.id)])
    } else {
        headers(&[("authorization", &format!("Bearer {}", tenant.owner.token))])
    };
    (caller, tenant)
}

/// Asserts that a refusal, if it is one, blames the caller and says for what.
#[track_caller]
fn blames_the_caller(answer: &Result<Response<Vec<u8>>, Status>, what: &str) {
    let (code, reason) = raw::told(answer);
    let fine = matches!(
        code,
        Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Aborted
            | Code::PermissionDenied
            | Code::Unauthenticated
    );
    assert!(fine, "{what}: {code:?} {reason}");
    if reason == "FIELDS_INVALID" {
        let status = answer.as_ref().expect_err("a refusal");
        let violations = status.get_details_bad_request().expect("BadRequest").field_violations;
        assert!(!violations.is_empty() && violations.iter().all(|v| !v.field.is_empty()), "{what}: {violations:?}");
    }
}

async fn an_empty_request_is_answered_or_refused_field_by_field(t: &Bed) {
    let channel = t.channel();
    for method in raw::methods() {
        let (caller, _) = allowed(t, &method).await;
        let path = raw::path(&method);
        let answer = raw::call(&channel, &path, &caller, b"").await;
        blames_the_caller(&answer, method.full_name());
        assert!(!matches!(raw::told(&answer).0, Code::PermissionDenied | Code::Unauthenticated), "{path}: {answer:?}");
    }
}

/// A field that is cut short, bytes of no meaning, and field 1 as what it is not: a group, a fixed number.
const NO_REQUESTS: [&[u8]; 4] = [&[0x0a, 0x7f, 0x61], &[0xff; 64], &[0x0b, 0x0b], &[0x09, 1, 2, 3]];

async fn a_body_that_is_no_request_is_refused(t: &Bed) {
    let channel = t.channel();
    for method in raw::methods() {
        let (caller, _) = allowed(t, &method).await;
        for body in NO_REQUESTS {
            let answer = raw::call(&channel, &raw::path(&method), &caller, body).await;
            let wanted = (Code::InvalidArgument, "BODY_MALFORMED".to_owned());
            assert_eq!(raw::told(&answer), wanted, "{} {body:?}", method.full_name());
        }
    }
}

async fn a_body_that_is_no_request_is_refused_after_the_caller(t: &Bed) {
    let channel = t.channel();
    let tenant = t.tenant("bad").await;
    let (viewer, stranger) = (t.member(&tenant, "viewer").await, t.person("stranger").await);
    let callers = [
        headers(&[]),
        headers(&[("authorization", "Bearer eyJmooh")]),
        headers(&[("authorization", &format!("Bearer {}", viewer.token))]),
        headers(&[("authorization", &format!("Bearer {}", stranger.token)), ("x-tenant-id", &tenant.id)]),
        headers(&[("x-api-key", &t.service_key(&["nothing.much"]).await), ("x-tenant-id", &tenant.id)]),
    ];
    let mut compared = 0;
    for method in raw::methods() {
        let harmless = raw::request(&method, &[("request_id", "not-a-uuid")]);
        for caller in &callers {
            let answer = raw::call(&channel, &raw::path(&method), caller, &harmless).await;
            if !matches!(raw::told(&answer).0, Code::Unauthenticated | Code::PermissionDenied | Code::NotFound) {
                continue;
            }
            let wanted = Seen::from(answer);
            for body in NO_REQUESTS {
                let answer = raw::call(&channel, &raw::path(&method), caller, body).await;
                assert_eq!(Seen::from(answer), wanted, "{}", method.full_name());
                compared += 1;
            }
        }
    }
    assert!(compared > 200, "only {compared}");
}

async fn a_body_over_the_limit_is_refused(t: &Bed) {
    let channel = t.channel();
    // Field 15, which no request has, is 2 MiB long.
    let body = [&[0x7a, 0x80, 0x80, 0x80, 0x01][..], &vec![0; 2 << 20]].concat();
    for method in raw::methods() {
        let (caller, _) = allowed(t, &method).await;
        let answer = raw::call(&channel, &raw::path(&method), &caller, &body).await;
        let wanted = (Code::InvalidArgument, "BODY_MALFORMED".to_owned());
        assert_eq!(raw::told(&answer), wanted, "{}", method.full_name());
    }
}

/// What databases, paths, patterns and terminals read as something else.
fn odd_texts() -> Vec<String> {
    let few = ["\0", "a\0b", "' or 1=1 --", "%", "../../x", "\u{202e}\u{fffe}", "\u{1b}[2J", " ", "\r\nx: y", "*"];
    let long = ["x".repeat(100_000), "é".repeat(50_000), "x.y".to_owned()];
    few.into_iter().map(str::to_owned).chain(long).collect()
}

/// A request that would do, but for one field.
fn almost(t: &Tenant, method: &MethodDescriptor, field: &FieldDescriptor, odd: &str) -> Vec<u8> {
    let mut message = DynamicMessage::new(method.input());
    let member = uuid::Uuid::nil().to_string();
    let fields = [
        ("email", format!("{}@example.com", unique("odd"))),
        ("password", PASSWORD.to_owned()),
        ("display_name", "Odd".to_owned()),
        ("slug", unique("odd")),
        ("owner_email", t.owner.email.clone()),
        ("user_id", member.clone()),
        ("new_owner_id", member),
        ("role", "viewer".to_owned()),
        ("to_tenant", t.id.clone()),
        ("reason", "odd".to_owned()),
    ];
    for (name, text) in fields {
        if let Some(field) = method.input().get_field_by_name(name)
            && field.kind() == Kind::String
            && field.containing_oneof().is_none()
        {
            message.set_field(&field, Value::String(text));
        }
    }
    let text = Value::String(odd.to_owned());
    message.set_field(field, if field.is_list() { Value::List(vec![text]) } else { text });
    if let Some(mask) = method.input().get_field_by_name("update_mask") {
        let Kind::Message(kind) = mask.kind() else { panic!("a mask is a message") };
        let mut paths = DynamicMessage::new(kind);
        paths.set_field_by_name("paths", Value::List(vec![Value::String("display_name".to_owned())]));
        message.set_field(&mask, Value::Message(paths));
    }
    prost_reflect::prost::Message::encode_to_vec(&message)
}

async fn text_of_any_kind_in_any_field_is_no_fault_of_the_server(t: &Bed) {
    let channel = t.channel();
    for method in raw::methods() {
        let (caller, tenant) = allowed(t, &method).await;
        for field in method.input().fields().filter(|field| field.kind() == Kind::String) {
            for odd in odd_texts() {
                let body = almost(&tenant, &method, &field, &odd);
                let answer = raw::call(&channel, &raw::path(&method), &caller, &body).await;
                let start: String = odd.chars().take(12).collect();
                blames_the_caller(&answer, &format!("{} = {start:?}", field.full_name()));
            }
        }
    }
}

fn consume(list: &[(&str, i64)], key: &str) -> v1::ConsumeRequest {
    let amounts = list.iter().map(|&(metric, amount)| v1::Amount { metric: metric.to_owned(), amount }).collect();
    v1::ConsumeRequest { amounts, idempotency_key: key.to_owned(), ..Default::default() }
}

async fn amounts_are_bounded(t: &Bed) {
    let tenant = t.tenant("amounts").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let names: Vec<String> = (0..21).map(|i| format!("m{i}")).collect();
    let many: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let twice = [("tokens", 1), ("tokens", 1)];
    let lists: [&[(&str, i64)]; 9] = [
        &[],
        &[("tokens", 0)],
        &[("tokens", -1)],
        &[("tokens", i64::MIN)],
        &[("tokens", i64::MAX)],
        &[("tokens", (1 << 53) + 1)],
        &[("", 1)],
        &many,
        &twice,
    ];
    for list in lists {
        let answer = clients.usage.consume(consume(list, "")).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
        let amounts = consume(list, "").amounts;
        if !amounts.is_empty() {
            let answer = clients.auth.authorize(v1::AuthorizeRequest { amounts, ..Default::default() }).await;
            assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
        }
    }
    let unknown = clients.usage.consume(consume(&[("nonsense", 1)], "")).await;
    assert_refused(unknown, Code::InvalidArgument, "METRIC_UNKNOWN");
    let largest = clients.usage.consume(consume(&[("storms", 1 << 53)], "")).await.expect("unlimited").into_inner();
    assert_eq!(largest.usage[0].used, 1 << 53);
    let used = clients.usage.get_usage(v1::GetUsageRequest::default()).await.expect("shows").into_inner();
    assert!(used.usage.iter().all(|usage| usage.metric == "storms" || usage.used == 0), "{used:?}");
}

async fn a_refusal_fits_into_headers_however_much_is_wrong(t: &Bed) {
    let tenant = t.tenant("much").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let permissions = vec!["x".repeat(5_000); 100];
    let amounts = vec![v1::Amount { metric: "y".repeat(20_000), amount: -1 }; 20];
    let ask = v1::AuthorizeRequest { permissions, amounts, ..Default::default() };
    assert_refused(clients.auth.authorize(ask).await, Code::InvalidArgument, "FIELDS_INVALID");
    let metrics = vec!["é".repeat(9_000)];
    let usage = v1::GetUsageRequest { metrics, ..Default::default() };
    assert_refused(clients.usage.get_usage(usage).await, Code::InvalidArgument, "METRIC_UNKNOWN");
}

async fn a_request_id_is_a_uuid_of_version_4(t: &Bed) {
    let tenant = t.tenant("ids").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let good = request_id();
    let braced = format!("{{{good}}}");
    let bad = [
        "x",
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        &good.replace('-', ""),
        &braced,
        &format!("{good} "),
    ];
    for id in bad {
        let request =
            v1::SuspendTenantRequest { request_id: id.to_owned(), reason: "a test".to_owned(), ..Default::default() };
        let answer = clients.tenants.suspend_tenant(request).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn an_idempotency_key_stands_for_one_payload(t: &Bed) {
    let tenant = t.tenant("keys").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for _ in 0..2 {
        let usage = clients.usage.consume(consume(&[("tokens", 5)], "once")).await.expect("consumes").into_inner();
        assert_eq!(usage.usage[0].used, 5);
    }
    for list in [&[("tokens", 6)][..], &[("quizzes", 5)], &[("quizzes", 1), ("tokens", 5)]] {
        let other = clients.usage.consume(consume(list, "once")).await;
        assert_refused(other, Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED");
    }
    for key in ["x".repeat(129), "é".to_owned(), "a\tb".to_owned()] {
        let bad = clients.usage.consume(consume(&[("tokens", 5)], &key)).await;
        assert_refused(bad, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn a_number_that_no_enum_has_is_refused(t: &Bed) {
    let tenant = t.tenant("enums").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for number in [99, -1, i32::MAX] {
        let list = v1::ListMembersRequest { status: number, ..Default::default() };
        assert_refused(clients.members.list_members(list).await, Code::InvalidArgument, "FIELDS_INVALID");
        let ask = v1::AuthorizeRequest { ack_level: number, ..Default::default() };
        assert_refused(clients.auth.authorize(ask).await, Code::InvalidArgument, "FIELDS_INVALID");
        let list = v1::ListTenantsRequest { status: number, ..Default::default() };
        assert_refused(t.operator().tenants.list_tenants(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    }
}

async fn page_sizes_are_bounded(t: &Bed) {
    let tenant = t.tenant("pages").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for page_size in [-1, i32::MIN] {
        let list = v1::ListMembersRequest { page_size, ..Default::default() };
        assert_refused(clients.members.list_members(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    }
    let list = v1::ListMembersRequest { page_size: i32::MAX, ..Default::default() };
    assert_eq!(clients.members.list_members(list).await.expect("lists").into_inner().members.len(), 1);
    let metrics = vec!["tokens".to_owned(); 11];
    let list = v1::ListMyTenantsRequest { metrics, ..Default::default() };
    assert_refused(clients.tenants.list_my_tenants(list).await, Code::InvalidArgument, "FIELDS_INVALID");
    let metrics = vec!["tokens".to_owned(); 101];
    let usage = v1::GetUsageRequest { metrics, ..Default::default() };
    assert_refused(clients.usage.get_usage(usage).await, Code::InvalidArgument, "FIELDS_INVALID");
}

fn rename(paths: &[&str], etag: &str) -> v1::UpdateTenantRequest {
    let paths = paths.iter().map(|&path| path.to_owned()).collect();
    v1::UpdateTenantRequest {
        update_mask: Some(prost_types::FieldMask { paths }),
        display_name: "New".to_owned(),
        etag: etag.to_owned(),
        ..Default::default()
    }
}

async fn a_stale_etag_is_refused(t: &Bed) {
    let tenant = t.tenant("etags").await;
    let mut clients = t.with_token(&tenant.owner.token);
    let shown = clients.tenants.get_tenant(v1::GetTenantRequest::default()).await.expect("shows").into_inner();
    let etag = shown.tenant.expect("a tenant").etag;
    clients.tenants.update_tenant(rename(&["*"], &etag)).await.expect("renames");
    for stale in [etag.as_str(), "nonsense", "\"v0\"", "\"v-1\""] {
        let answer = clients.tenants.update_tenant(rename(&["*"], stale)).await;
        assert_refused(answer, Code::Aborted, "ETAG_MISMATCH");
    }
    let request = v1::DeleteTenantRequest { etag, ..Default::default() };
    assert_refused(clients.tenants.delete_tenant(request).await, Code::Aborted, "ETAG_MISMATCH");
}

async fn only_fields_that_change_may_be_in_the_mask(t: &Bed) {
    let tenant = t.tenant("masks").await;
    let mut clients = t.with_token(&tenant.owner.token);
    for paths in [&[][..], &["status"], &["display_name", "plan"], &["tenant"], &["request_id"], &["display_name.x"]] {
        let answer = clients.tenants.update_tenant(rename(paths, "")).await;
        assert_refused(answer, Code::InvalidArgument, "FIELDS_INVALID");
    }
}
