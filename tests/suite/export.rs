//! Exports: everything of a tenant, no secret, and an end when the right to it is lost.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry::domain::secret::Key;
use tenantry::rpc::v1;
use tonic::{Code, Response, Status};

use crate::harness::{Bed, Clients, amounts, assert_refused, on_both_engines, refusal, unique};

on_both_engines! {
    an_export_has_every_kind_of_line_and_no_secret
    an_export_ends_when_the_right_is_lost
    an_export_is_for_those_who_may
    ;
    alone
    an_export_ends_with_its_credential
}

const PRODUCT: &str = r#"
default_plan = "free"
[metrics.quizzes]
unit = "quizzes"
[features]
themes = "Themes of one's own"
[plans.free]
features = ["themes"]
limits = { quizzes = 100 }
"#;

/// All lines of an export, or why it ended.
async fn lines(clients: &mut Clients, tenant: &str) -> Result<Vec<Value>, Status> {
    let request = v1::ExportTenantRequest { tenant: tenant.to_owned() };
    let mut stream = clients.tenants.export_tenant(request).await?.into_inner();
    let mut lines = Vec::new();
    while let Some(message) = stream.message().await? {
        lines.extend(message.lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
    }
    Ok(lines)
}

async fn an_export_has_every_kind_of_line_and_no_secret(t: &Bed) {
    let t = Bed::of_product(t.engine, PRODUCT).await;
    let acme = t.tenant("acme").await;
    let member = t.member(&acme, "member").await;
    let (mut owner, mut operator) = (t.with_token(&acme.owner.token), t.operator());
    let settings = v1::UpdateSettingsRequest {
        settings: Some(v1::Settings { locale: "de-DE".to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["locale".to_owned()] }),
        ..Default::default()
    };
    owner.tenants.update_settings(settings).await.unwrap();
    let domain = v1::AddDomainRequest { domain: format!("{}.example.net", unique("d")), ..Default::default() };
    let added = owner.tenants.add_domain(domain).await.unwrap().into_inner();
    let integration = v1::SetIntegrationRequest {
        name: "slack".to_owned(),
        secret: "a-very-secret-hook".to_owned(),
        ..Default::default()
    };
    owner.tenants.set_integration(integration).await.unwrap();
    let feature = v1::SetFeatureRequest {
        feature: "themes".to_owned(),
        value: Some(v1::set_feature_request::Value::Enabled(false)),
        ..Default::default()
    };
    owner.tenants.set_feature(feature).await.unwrap();
    let limit = v1::SetLimitOverrideRequest {
        tenant: acme.id.clone(),
        metric: "quizzes".to_owned(),
        value: Some(v1::set_limit_override_request::Value::Limit(500)),
        reason: "a favour".to_owned(),
        ..Default::default()
    };
    operator.tenants.set_limit_override(limit).await.unwrap();
    let consume = v1::ConsumeRequest {
        amounts: amounts(&[("quizzes", 3)]),
        idempotency_key: "call-1".to_owned(),
        ..Default::default()
    };
    owner.usage.consume(consume).await.unwrap();
    let paid = v1::RecordBillingEventRequest {
        tenant: acme.id.clone(),
        provider: "stripe".to_owned(),
        event_id: "evt_1".to_owned(),
        kind: v1::BillingEventKind::Failed.into(),
        event_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..Default::default()
    };
    operator.tenants.record_billing_event(paid).await.unwrap();

    let key = v1::CreateApiKeyRequest {
        display_name: "nightly".to_owned(),
        permissions: vec!["tenant.read".to_owned()],
        ..Default::default()
    };
    let key = owner.auth.create_api_key(key).await.unwrap().into_inner();
    let hook = v1::CreateWebhookRequest { url: "https://hooks.example.com/".to_owned(), ..Default::default() };
    let hook = owner.tenants.create_webhook(hook).await.unwrap().into_inner();

    let lines = lines(&mut owner, "").await.unwrap();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &lines {
        *kinds.entry(line["type"].as_str().unwrap()).or_default() += 1;
    }
    let audits = kinds.remove("audit_event").unwrap();
    assert!(audits >= 7, "{audits}");
    let expected = [
        ("api_key", 1),
        ("billing_event", 1),
        ("domain", 1),
        ("end", 1),
        ("feature", 1),
        ("integration", 1),
        ("limit_override", 1),
        ("member", 2),
        ("settings", 1),
        ("subscription", 1),
        ("tenant", 1),
        ("usage", 1),
        ("usage_event", 1),
        ("webhook", 1),
    ];
    assert_eq!(kinds, expected.into());
    let last = lines.last().unwrap();
    assert_eq!((&last["type"], last["lines"].as_u64()), (&"end".into(), Some(lines.len() as u64 - 1)));
    assert_eq!((&lines[0]["slug"], &lines[0]["status"]), (&acme.slug.as_str().into(), &"active".into()));
    let of = |kind: &str| lines.iter().find(|line| line["type"] == kind).unwrap();
    assert_eq!(of("settings")["settings"]["locale"], "de-DE");
    assert_eq!((&of("integration")["name"], &of("integration")["has_secret"]), (&"slack".into(), &true.into()));
    assert_eq!((&of("usage")["used"], &of("usage_event")["charges"]["quizzes"]), (&3.into(), &3.into()));
    assert_eq!(of("limit_override")["limit"], 500);
    assert!(lines.iter().any(|line| line["email"] == member.email.as_str() && line["roles"][0] == "member"));
    // The export itself is in the log.
    assert!(lines.iter().any(|line| line["action"] == "TenantService/ExportTenant"));

    let text = lines.iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains("a-very-secret-hook") && !text.contains("argon2"));
    assert!(!text.contains(&key.secret) && !text.contains(&hook.secret));
    let token: Vec<(String,)> = t.rows("select token from tenant_domain where tenant_id = $1", &acme.id).await;
    assert!(token[0].0.len() > 10 && !text.contains(&token[0].0), "{added:?}");
}

async fn an_export_ends_when_the_right_is_lost(t: &Bed) {
    let acme = t.tenant("acme").await;
    let other = t.member(&acme, "owner").await;
    let mut owner = t.with_token(&acme.owner.token);
    let consume = v1::ConsumeRequest {
        amounts: amounts(&[("quizzes", 1)]),
        idempotency_key: "first".to_owned(),
        ..Default::default()
    };
    owner.usage.consume(consume).await.unwrap();
    fill(t, &acme.id).await;
    let mut stream = owner.tenants.export_tenant(v1::ExportTenantRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("the first lines");
    let demote = v1::UpdateMemberRoleRequest {
        user_id: acme.owner.id.clone(),
        roles: vec!["member".to_owned()],
        ..Default::default()
    };
    t.with_token(&other.token).members.update_member_role(demote).await.unwrap();
    let ended = ended(stream).await;
    assert_eq!(ended, (Code::PermissionDenied, "PERMISSION_MISSING".to_owned()));
}

/// More than connections hold by themselves, made of one event.
async fn fill(t: &Bed, tenant: &str) {
    t.spoils(tenant);
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
                insert into usage_event (tenant_id, key, payload_hash, verdict, charges, answer, decided_at)
                select e.tenant_id, e.key || '-' || n.i, e.payload_hash, e.verdict, e.charges, e.answer, e.decided_at
                from usage_event e, n where e.tenant_id = $1 and e.key = 'first'";
    t.execute(many, tenant).await;
}

/// Why an export ended before its end.
async fn ended(mut stream: tonic::Streaming<v1::ExportTenantResponse>) -> (Code, String) {
    loop {
        match stream.message().await {
            Ok(Some(message)) => assert!(!message.lines.iter().any(|line| line.contains(r#""type":"end""#))),
            Ok(None) => panic!("it went on to the end"),
            Err(status) => return refusal::<()>(Err(status)),
        }
    }
}

async fn an_export_ends_with_its_credential(t: Bed) {
    t.run_jobs().await;
    let acme = t.tenant("acme").await;
    let consume = v1::ConsumeRequest {
        amounts: amounts(&[("quizzes", 1)]),
        idempotency_key: "first".to_owned(),
        ..Default::default()
    };
    t.with_token(&acme.owner.token).usage.consume(consume).await.unwrap();
    fill(&t, &acme.id).await;
    let begin = async |mut clients: Clients| {
        let stream = clients.tenants.export_tenant(v1::ExportTenantRequest { tenant: acme.id.clone() }).await;
        let mut stream = stream.expect("begins").into_inner();
        stream.message().await.unwrap().expect("the first lines");
        stream
    };
    // The key that signed its token is withdrawn.
    let stream = begin(t.with_token(&acme.owner.token)).await;
    let keys = t.operator().auth.list_signing_keys(v1::ListSigningKeysRequest {}).await.unwrap().into_inner().keys;
    let current = keys.into_iter().find(|key| key.state() == v1::SigningKeyState::Current).expect("one signs");
    let withdraw = v1::RevokeSigningKeyRequest { kid: current.kid, ..Default::default() };
    t.operator().auth.revoke_signing_key(withdraw).await.expect("withdraws");
    assert_eq!(ended(stream).await, (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned()));
    // A key has another secret.
    let secret = crate::operator_keys::operator_key(&t, v1::OperatorScope::All).await;
    let stream = begin(t.with_key(&secret)).await;
    let rotate = v1::RotatePlatformKeyRequest {
        key_id: Key::parse(&secret).expect("a key").key_id,
        overlap: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    t.operator().auth.rotate_platform_key(rotate).await.expect("rotates");
    assert_eq!(ended(stream).await, (Code::Unauthenticated, "CREDENTIAL_INVALID".to_owned()));
    // The token is over.
    let stream = begin(t.with_token(&t.login(&acme.owner, &acme.id).await.token)).await;
    t.clock.advance(chrono::TimeDelta::minutes(6));
    assert_eq!(ended(stream).await, (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
}

async fn an_export_is_for_those_who_may(t: &Bed) {
    let acme = t.tenant("acme").await;
    let admin = t.member(&acme, "admin").await;
    let stranger = t.tenant("other").await;
    let wrapped = |result: Result<Vec<Value>, Status>| result.map(Response::new);
    let by_admin = lines(&mut t.with_token(&admin.token), "").await;
    assert_refused(wrapped(by_admin), Code::PermissionDenied, "PERMISSION_MISSING");
    let by_stranger = lines(&mut t.with_token(&stranger.owner.token), &acme.id).await;
    assert_refused(wrapped(by_stranger), Code::InvalidArgument, "TENANT_CONFLICT");
    let by_operator = lines(&mut t.operator(), &acme.slug).await.unwrap();
    assert_eq!(by_operator[0]["tenant_id"], acme.id.as_str());
    // Also of a tenant that is deleted, for as long as it is there.
    let mut owner = t.with_token(&acme.owner.token);
    owner.tenants.delete_tenant(v1::DeleteTenantRequest::default()).await.unwrap();
    assert_eq!(lines(&mut owner, "").await.unwrap()[0]["status"], "deleted");
}
