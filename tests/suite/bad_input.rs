//! Requests that are wrong: each gets the documented refusal, with a reason, and the server is none the worse.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value};
use tenantry::rpc::access::Who;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::harness::{Bed, PASSWORD, Tenant, on_both_engines, unique};
use crate::raw::{self, Seen, headers};

on_both_engines! {
    an_empty_request_is_answered_or_refused_field_by_field
    a_body_that_is_no_request_is_refused
    a_body_that_is_no_request_is_refused_after_the_caller
    a_body_over_the_limit_is_refused
    text_of_any_kind_in_any_field_is_no_fault_of_the_server
}

/// A caller who may call the method, and a tenant of their own to call it in.
async fn allowed(t: &Bed, method: &MethodDescriptor) -> (http::HeaderMap, Tenant) {
    let tenant = t.tenant("bad").await;
    let access = raw::access(method);
    let by_operators = matches!(access.who, Who::Operator | Who::Permission(_) | Who::Service(_));
    let operator = by_operators || access.also_operator;
    // Only persons can leave, and have keys of their own.
    let of_persons = method.name() == "LeaveTenant" || method.name().contains("PersonalKey");
    let caller = if operator && !of_persons {
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
    // So many wrong passwords and letters are counted like anybody's.
    let counted = reason == "TOO_MANY_ATTEMPTS";
    assert!(fine || counted, "{what}: {code:?} {reason}");
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
        // The request of RefreshToken is a credential.
        let refused = matches!(raw::told(&answer).0, Code::PermissionDenied | Code::Unauthenticated);
        assert!(!refused || method.name() == "RefreshToken", "{path}: {answer:?}");
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
    // What public methods refuse, they refuse for what the body says.
    let guarded =
        |method: &prost_reflect::MethodDescriptor| raw::access(method).who != tenantry::rpc::access::Who::Public;
    for method in raw::methods().into_iter().filter(guarded) {
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
        ("roles", "viewer".to_owned()),
        ("to_tenant", t.id.clone()),
        ("reason", "odd".to_owned()),
    ];
    for (name, text) in fields {
        if let Some(field) = method.input().get_field_by_name(name)
            && field.kind() == Kind::String
            && field.containing_oneof().is_none()
        {
            let text = Value::String(text);
            message.set_field(&field, if field.is_list() { Value::List(vec![text]) } else { text });
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
