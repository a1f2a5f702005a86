//! Keys of services: what they open, how long, and where their secrets are not.

use base64::Engine as _;
use chrono::TimeDelta;
use prost_types::Duration;
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Clients, Headers, amounts, assert_refused, on_both_engines, request_id, wrong_fields};

on_both_engines! {
    a_key_opens_what_it_names_and_nothing_else
    only_operators_create_keys
    what_a_key_may_not_be_is_named
    a_key_makes_nobody_more_than_it_is_itself
    ;
    alone
    a_key_ends_with_its_time
    a_secret_is_shown_again_for_ten_minutes
    no_row_holds_a_secret
}

fn wish(permissions: &[&str]) -> v1::CreateServiceKeyRequest {
    v1::CreateServiceKeyRequest {
        display_name: "billing".to_owned(),
        permissions: permissions.iter().map(|&p| p.to_owned()).collect(),
        ..Default::default()
    }
}

async fn a_key_opens_what_it_names_and_nothing_else(t: &Bed) {
    let acme = t.tenant("acme").await;
    let made = t.operator().auth.create_service_key(wish(&["usage.read"])).await.unwrap().into_inner();
    let key = made.key.unwrap();
    assert_eq!((key.display_name.as_str(), key.permissions.as_slice()), ("billing", &["usage.read".to_owned()][..]));
    assert!(key.expire_time.is_none() && made.secret.contains(&key.key_id));
    let mut service = t.with_key(&made.secret);
    let asked = v1::GetUsageRequest { tenant: acme.id.clone(), metrics: Vec::new() };
    service.usage.get_usage(asked.clone()).await.expect("may");
    t.with_token(&made.secret).usage.get_usage(asked).await.expect("may, as a bearer");
    let consume =
        v1::ConsumeRequest { tenant: acme.id.clone(), amounts: amounts(&[("quizzes", 1)]), ..Default::default() };
    assert_refused(service.usage.consume(consume).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let get = v1::GetTenantRequest { tenant: acme.id };
    assert_refused(service.tenants.get_tenant(get).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut broken = made.secret.clone();
    broken.pop();
    for bad in [broken, "tns_".to_owned(), "x".to_owned()] {
        let asked = t.with_key(&bad).auth.who_am_i(v1::WhoAmIRequest {}).await;
        assert_refused(asked, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
}

async fn only_operators_create_keys(t: &Bed) {
    let acme = t.tenant("acme").await;
    for mut clients in [t.with_token(&acme.owner.token), t.with_key(&t.service_key(&["*"]).await)] {
        let made = clients.auth.create_service_key(wish(&["*"])).await;
        assert_refused(made, Code::PermissionDenied, "CALLER_KIND_REFUSED");
    }
}

async fn what_a_key_may_not_be_is_named(t: &Bed) {
    let asked = v1::CreateServiceKeyRequest {
        request_id: "x".to_owned(),
        display_name: String::new(),
        permissions: vec!["Everything".to_owned()],
        ttl: Some(Duration { seconds: 0, nanos: 1 }),
    };
    let wrong = wrong_fields(t.operator().auth.create_service_key(asked).await);
    assert_eq!(wrong, ["request_id", "display_name", "permissions", "ttl"]);
    assert_eq!(wrong_fields(t.operator().auth.create_service_key(wish(&[])).await), ["permissions"]);
}

async fn a_key_ends_with_its_time(t: Bed) {
    let asked = v1::CreateServiceKeyRequest { ttl: Some(Duration { seconds: 3600, nanos: 0 }), ..wish(&["*"]) };
    let made = t.operator().auth.create_service_key(asked).await.unwrap().into_inner();
    let key = made.key.unwrap();
    assert_eq!(key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds, 3600);
    let mut service = t.with_key(&made.secret);
    t.clock.advance(TimeDelta::minutes(59));
    service.auth.who_am_i(v1::WhoAmIRequest {}).await.expect("still good");
    t.clock.advance(TimeDelta::minutes(1));
    assert_refused(service.auth.who_am_i(v1::WhoAmIRequest {}).await, Code::Unauthenticated, "CREDENTIAL_INVALID");
}

async fn a_secret_is_shown_again_for_ten_minutes(t: Bed) {
    let asked = v1::CreateServiceKeyRequest { request_id: request_id(), ..wish(&["tenant.read"]) };
    let mut operator = t.operator();
    let first = operator.auth.create_service_key(asked.clone()).await.unwrap().into_inner();
    t.clock.advance(TimeDelta::minutes(9));
    let again = operator.auth.create_service_key(asked.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    t.clock.advance(TimeDelta::minutes(2));
    let late = operator.auth.create_service_key(asked.clone()).await;
    assert_refused(late, Code::FailedPrecondition, "ANSWER_EXPIRED");
    let other = v1::CreateServiceKeyRequest { display_name: "another".to_owned(), ..asked };
    let reused = operator.auth.create_service_key(other).await;
    assert_refused(reused, Code::InvalidArgument, "REQUEST_ID_REUSED");
    // The operator's key and this one.
    let nil = uuid::Uuid::nil().to_string();
    let keys: Vec<(i64,)> = t.rows("select kind from platform_key where platform_key_id <> $1", &nil).await;
    assert_eq!(keys.len(), 2);
}

async fn no_row_holds_a_secret(t: Bed) {
    let asked = v1::CreateServiceKeyRequest { request_id: request_id(), ..wish(&["tenant.read"]) };
    let key = t.operator().auth.create_service_key(asked).await.unwrap().into_inner();
    let acme = t.tenant("acme").await;
    let login = v1::LoginRequest {
        email: acme.owner.email.clone(),
        password: crate::harness::PASSWORD.to_owned(),
        ..Default::default()
    };
    let login = t.anonymous().auth.login(login).await.unwrap().into_inner();
    let secret_part = key.secret.rsplit('_').nth(1).unwrap().to_owned();
    let operator_part = t.operator_key.rsplit('_').nth(1).unwrap().to_owned();
    let secrets =
        [secret_part, operator_part, crate::harness::PASSWORD.to_owned(), login.device_token, acme.owner.token];
    let nil = uuid::Uuid::nil().to_string();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    if t.database.is_some() {
        // Everything there is, as text; bytea comes in hexadecimal, which is looked for below.
        let all: Vec<(String,)> = t
            .rows(
                "select query_to_xml(format('select * from %I', tablename), true, true, '')::text
                   from pg_tables where schemaname = 'tenantry' and $1::uuid is not null",
                &nil,
            )
            .await;
        assert!(all.len() > 10);
        texts.extend(all.into_iter().map(|(text,)| text.into_bytes()));
    } else {
        let _: Vec<(i64,)> = t.rows("select count(*) from tenant where tenant_id <> $1", &nil).await;
        for file in ["tenantry.db", "tenantry.db-wal"] {
            texts.push(std::fs::read(t.dir.path().join(file)).unwrap());
        }
    }
    for secret in secrets {
        let hex = tenantry::domain::secret::hex(secret.as_bytes());
        let base64 = base64::engine::general_purpose::STANDARD.encode(&secret);
        for needle in [secret.as_bytes(), hex.as_bytes(), base64.as_bytes()] {
            for text in &texts {
                assert!(!text.windows(needle.len()).any(|part| part == needle), "a secret lies in the rows");
            }
        }
    }
    // The look is no good if it would not find what is there.
    assert!(texts.iter().any(|text| text.windows(acme.slug.len()).any(|part| part == acme.slug.as_bytes())));
}

/// Nobody gives what they do not have: a key ranks as the highest role all of whose permissions it holds.
async fn a_key_makes_nobody_more_than_it_is_itself(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.person("bob").await;
    let add = |role: &str| v1::AddMemberRequest {
        tenant: acme.id.clone(),
        email: bob.email.clone(),
        roles: vec![role.to_owned()],
        ..Default::default()
    };
    let mut weak = t.with_key(&t.service_key(&["members.invite", "members.manage"]).await);
    let mut strong = t.with_key(&t.service_key(&["*"]).await);
    for role in ["owner", "viewer"] {
        assert_refused(weak.members.add_member(add(role)).await, Code::PermissionDenied, "RANK_TOO_LOW");
    }
    let demote = v1::UpdateMemberRoleRequest {
        tenant: acme.id.clone(),
        user_id: acme.owner.id.clone(),
        roles: vec!["viewer".to_owned()],
        ..Default::default()
    };
    let refused = weak.members.update_member_role(demote).await;
    assert_refused(refused, Code::PermissionDenied, "RANK_TOO_LOW");
    strong.members.add_member(add("owner")).await.expect("may do everything, so may make owners");

    // In the owner's name the key is no more than itself.
    let key = t.service_key(&["members.invite", "members.read", "tenant.read"]).await;
    let headers = Headers::default().and("x-api-key", &key).and("x-on-behalf-of", &acme.owner.token);
    let mut delegated = Clients::new(t.channel(), headers);
    let cleo = t.person("cleo").await;
    let add = v1::AddMemberRequest { email: cleo.email, roles: vec!["owner".to_owned()], ..Default::default() };
    assert_refused(delegated.members.add_member(add).await, Code::PermissionDenied, "RANK_TOO_LOW");
}
