//! Integrations: other systems with a secret that comes in and is never seen again.

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tenantry::rpc::v1;
use tonic::Code;

use crate::harness::{Bed, Engine, assert_refused, on_both_engines, request_id, unique, wrong_fields};

on_both_engines! {
    an_integration_is_made_changed_and_ended
    a_secret_stays_until_it_is_replaced_or_forgotten
    a_secret_is_nowhere_in_the_clear
    a_tenant_has_at_most_fifty_integrations
    wrong_fields_of_an_integration_are_named
    integrations_are_for_those_who_may
    a_repeated_call_is_made_once_whatever_its_secret
}

fn config(url: &str) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(url.to_owned())) };
    Struct { fields: [("url".to_owned(), value)].into() }
}

fn set(name: &str, secret: &str) -> v1::SetIntegrationRequest {
    v1::SetIntegrationRequest {
        name: name.to_owned(),
        config: Some(config("https://example.com")),
        secret: secret.to_owned(),
        ..Default::default()
    }
}

fn delete(name: &str) -> v1::DeleteIntegrationRequest {
    v1::DeleteIntegrationRequest { name: name.to_owned(), ..Default::default() }
}

/// What an integration is sealed as; none without a secret.
async fn sealed(t: &Bed, tenant: &str) -> Vec<Option<Vec<u8>>> {
    let sql = "select sealed from integration where tenant_id = $1 order by name";
    let rows: Vec<(Option<Vec<u8>>,)> = t.rows(sql, tenant).await;
    rows.into_iter().map(|row| row.0).collect()
}

async fn an_integration_is_made_changed_and_ended(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let made = owner.set_integration(set("slack", "")).await.unwrap().into_inner().integration.unwrap();
    assert_eq!((made.name.as_str(), made.has_secret, made.etag.as_str()), ("slack", false, "\"v1\""));
    assert_eq!((made.config.clone(), made.secret_update_time), (Some(config("https://example.com")), None));
    owner.set_integration(set("jira", "s")).await.unwrap();
    let change =
        v1::SetIntegrationRequest { etag: made.etag.clone(), config: Some(config("https://b.c")), ..set("slack", "") };
    let changed = owner.set_integration(change.clone()).await.unwrap().into_inner().integration.unwrap();
    assert_eq!((changed.config.clone(), changed.etag.as_str()), (Some(config("https://b.c")), "\"v2\""));
    assert_refused(owner.set_integration(change).await, Code::Aborted, "ETAG_MISMATCH");
    let list = owner.list_integrations(v1::ListIntegrationsRequest::default()).await.unwrap().into_inner();
    let names: Vec<&str> = list.integrations.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["jira", "slack"]);
    assert_eq!(list.integrations[1], changed);
    owner.delete_integration(delete("jira")).await.unwrap();
    assert_refused(owner.delete_integration(delete("jira")).await, Code::NotFound, "INTEGRATION_NOT_FOUND");
    assert_eq!(sealed(t, &acme.id).await, [None]);
}

async fn a_secret_stays_until_it_is_replaced_or_forgotten(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let made = owner.set_integration(set("slack", "one")).await.unwrap().into_inner().integration.unwrap();
    assert!(made.has_secret && made.secret_update_time.is_some());
    let first = sealed(t, &acme.id).await;
    let kept = owner.set_integration(set("slack", "")).await.unwrap().into_inner().integration.unwrap();
    assert_eq!((kept.has_secret, kept.secret_update_time), (true, made.secret_update_time));
    assert_eq!(sealed(t, &acme.id).await, first);
    let replaced = owner.set_integration(set("slack", "two")).await.unwrap().into_inner().integration.unwrap();
    assert_ne!(replaced.secret_update_time, made.secret_update_time);
    assert_ne!(sealed(t, &acme.id).await, first);
    let both = v1::SetIntegrationRequest { clear_secret: true, ..set("slack", "three") };
    assert_eq!(wrong_fields(owner.set_integration(both).await), ["secret"]);
    let clear = v1::SetIntegrationRequest { clear_secret: true, ..set("slack", "") };
    let cleared = owner.set_integration(clear).await.unwrap().into_inner().integration.unwrap();
    assert!(!cleared.has_secret);
    assert_eq!(sealed(t, &acme.id).await, [None]);
}

async fn a_secret_is_nowhere_in_the_clear(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let secret = unique("an-integration-secret");
    let request = v1::SetIntegrationRequest { request_id: request_id(), ..set("slack", &secret) };
    let answers = [
        format!("{:?}", owner.set_integration(request.clone()).await.unwrap()),
        format!("{:?}", owner.set_integration(request).await.unwrap()),
        format!("{:?}", owner.list_integrations(v1::ListIntegrationsRequest::default()).await.unwrap()),
        format!("{:?}", owner.set_integration(set("No Name", &secret)).await.unwrap_err()),
    ];
    assert!(answers.iter().all(|answer| !answer.contains(&secret)));
    let rows = t.audit(&acme.id).await;
    let row = rows.iter().find(|row| row.action == "TenantService/SetIntegration").unwrap();
    assert!(
        row.changes.contains("integrations.slack.config") && row.changes.contains("integrations.slack.secret_changed")
    );
    assert!(rows.iter().all(|row| !row.changes.contains(&secret)));
    // Every byte of the database, and of its log of what is not in it yet.
    if t.engine == Engine::Sqlite {
        for file in ["tenantry.db", "tenantry.db-wal"] {
            let bytes = std::fs::read(t.dir.path().join(file)).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
            assert!(
                file.ends_with("db") || bytes.windows(5).any(|window| window == b"slack"),
                "looked in the wrong place"
            );
        }
    }
    let tables: [&'static str; 4] = [
        "select cast(config as text) from integration where tenant_id = $1",
        "select changes from audit_event where tenant_id = $1",
        "select cast(body as text) from tenant_settings where tenant_id = $1",
        "select name from integration where tenant_id = $1",
    ];
    for sql in tables {
        let rows: Vec<(String,)> = t.rows(sql, &acme.id).await;
        assert!(rows.iter().all(|row| !row.0.contains(&secret)), "{sql}");
    }
    let sealed = sealed(t, &acme.id).await.remove(0).unwrap();
    assert!(!sealed.windows(secret.len()).any(|window| window == secret.as_bytes()));
}

async fn a_tenant_has_at_most_fifty_integrations(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    for i in 0..50 {
        owner.set_integration(set(&format!("i{i}"), "")).await.unwrap();
    }
    assert_eq!(wrong_fields(owner.set_integration(set("one-more", "")).await), ["name"]);
    owner.set_integration(set("i7", "changed")).await.unwrap();
    owner.delete_integration(delete("i7")).await.unwrap();
    owner.set_integration(set("one-more", "")).await.unwrap();
    let list = owner.list_integrations(v1::ListIntegrationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.integrations.len(), 50);
}

async fn wrong_fields_of_an_integration_are_named(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let long = "x".repeat(65);
    for name in ["", "Slack", "a b", "a/b", "a\u{0}", "ä", &long] {
        assert_eq!(wrong_fields(owner.set_integration(set(name, "")).await), ["name"], "{name:?}");
        assert_eq!(wrong_fields(owner.delete_integration(delete(name)).await), ["name"], "{name:?}");
    }
    let all = v1::SetIntegrationRequest {
        request_id: "x".to_owned(),
        config: Some(config(&"x".repeat(16 * 1024))),
        ..set("A", &"s".repeat(4097))
    };
    assert_eq!(wrong_fields(owner.set_integration(all).await), ["request_id", "name", "config", "secret"]);
    owner.set_integration(set("slack", &"s".repeat(4096))).await.unwrap();
}

async fn integrations_are_for_those_who_may(t: &Bed) {
    let (acme, other) = (t.tenant("acme").await, t.tenant("other").await);
    t.with_token(&acme.owner.token).tenants.set_integration(set("slack", "s")).await.unwrap();
    let mut member = t.with_token(&t.member(&acme, "member").await.token).tenants;
    let list = member.list_integrations(v1::ListIntegrationsRequest::default()).await;
    assert_refused(list, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut manager = t.with_token(&t.member(&acme, "manager").await.token).tenants;
    let list = manager.list_integrations(v1::ListIntegrationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.integrations.len(), 1);
    assert_refused(manager.set_integration(set("slack", "")).await, Code::PermissionDenied, "PERMISSION_MISSING");
    assert_refused(manager.delete_integration(delete("slack")).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let mut stranger = t.with_token(&other.owner.token).tenants;
    let foreign = v1::DeleteIntegrationRequest { tenant: acme.id.clone(), ..delete("slack") };
    assert_refused(stranger.delete_integration(foreign).await, Code::InvalidArgument, "TENANT_CONFLICT");
    assert_refused(stranger.delete_integration(delete("slack")).await, Code::NotFound, "INTEGRATION_NOT_FOUND");
    assert_eq!(sealed(t, &acme.id).await.len(), 1);
}

async fn a_repeated_call_is_made_once_whatever_its_secret(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut owner = t.with_token(&acme.owner.token).tenants;
    let request = v1::SetIntegrationRequest { request_id: request_id(), ..set("slack", "one") };
    let first = owner.set_integration(request.clone()).await.unwrap().into_inner();
    let before = sealed(t, &acme.id).await;
    // A secret is no part of what the id stands for, as a password is not.
    let again = v1::SetIntegrationRequest { secret: "two".to_owned(), ..request.clone() };
    assert_eq!(owner.set_integration(again).await.unwrap().into_inner(), first);
    assert_eq!(sealed(t, &acme.id).await, before);
    let other = v1::SetIntegrationRequest { config: None, ..request };
    assert_refused(owner.set_integration(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED");
    let gone = v1::DeleteIntegrationRequest { request_id: request_id(), ..delete("slack") };
    owner.delete_integration(gone.clone()).await.unwrap();
    owner.delete_integration(gone).await.unwrap();
}
