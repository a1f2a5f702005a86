//! Webhooks, received by a real server and verified by the published library.

use chrono::TimeDelta;
use serde_json::Value;
use tenantry::domain::webhook::told_actions;
use tenantry::rpc::v1;
use tenantry::time::Clock as _;
use tonic::Code;

use crate::dns::name_server;
use crate::harness::{Bed, Tenant, assert_refused, on_both_engines, request_id, until, wrong_fields};
use crate::node::Node;
use crate::raw;

on_both_engines! {
    what_happens_is_told_signed_and_in_its_chosen_types
    a_rotated_secret_signs_beside_the_new_one_for_a_day
    a_second_rotation_cuts_off_no_secret_that_was_promised_a_day
    who_joins_by_an_invitation_is_told_of
    an_event_that_was_added_while_a_webhook_died_is_given_up
    what_fails_is_tried_again_and_a_redirect_is_not_followed
    an_endpoint_that_never_answers_or_never_ends_keeps_nobody_waiting
    a_dead_endpoint_is_switched_off_and_its_owner_told
    an_endpoint_that_is_gone_is_switched_off_at_once
    what_waits_for_a_webhook_that_is_switched_off_is_not_sent
    refusals_and_what_was_rolled_back_are_not_told
    addresses_inside_are_refused_whatever_name_they_go_by
    wrong_webhooks_are_refused
}

const ALLOW: &str = "--webhook-allow=127.0.0.1";

/// A server that may call this machine, and a tenant on it.
async fn bed(t: &Bed) -> (Bed, Tenant) {
    let t = Bed::private(t.engine, &[ALLOW]).await;
    let tenant = t.tenant("hooked").await;
    (t, tenant)
}

async fn create(t: &Bed, tenant: &Tenant, url: &str, types: &[&str]) -> (v1::Webhook, String) {
    // By the operator, whose key does not end when the clock is moved.
    let request = v1::CreateWebhookRequest {
        tenant: tenant.id.clone(),
        url: url.to_owned(),
        event_types: types.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    };
    let made = t.operator().tenants.create_webhook(request).await.unwrap().into_inner();
    (made.webhook.unwrap(), made.secret)
}

async fn find(t: &Bed, tenant: &Tenant, id: &str) -> v1::Webhook {
    let request = v1::ListWebhooksRequest { tenant: tenant.id.clone() };
    let hooks = t.operator().tenants.list_webhooks(request).await.unwrap().into_inner().webhooks;
    hooks.into_iter().find(|hook| hook.webhook_id == id).expect("a webhook")
}

async fn deliveries(t: &Bed, tenant: &Tenant, id: &str) -> Vec<v1::WebhookDelivery> {
    let request =
        v1::ListWebhookDeliveriesRequest { tenant: tenant.id.clone(), webhook_id: id.to_owned(), ..Default::default() };
    t.operator().tenants.list_webhook_deliveries(request).await.unwrap().into_inner().deliveries
}

async fn ask_for_a_test(t: &Bed, tenant: &Tenant, id: &str) -> String {
    let request = v1::TestWebhookRequest { tenant: tenant.id.clone(), webhook_id: id.to_owned(), ..Default::default() };
    t.operator().tenants.test_webhook(request).await.unwrap().into_inner().delivery.unwrap().delivery_id
}

/// Runs jobs until a delivery is like this.
async fn until_delivery(
    t: &Bed,
    tenant: &Tenant,
    hook: &str,
    delivery: &str,
    like: impl Fn(&v1::WebhookDelivery) -> bool,
) {
    until("the delivery comes so far", async || {
        t.run_jobs().await;
        deliveries(t, tenant, hook).await.iter().any(|row| row.delivery_id == delivery && like(row))
    })
    .await;
}

fn calls(receiver: &Node, path: &str) -> Vec<Value> {
    receiver.said().into_iter().filter(|said| said["url"] == path).collect()
}

fn body(call: &Value) -> Value {
    serde_json::from_str(call["body"].as_str().unwrap()).unwrap()
}

async fn what_happens_is_told_signed_and_in_its_chosen_types(t: &Bed) {
    let (t, acme) = bed(t).await;
    let mut receiver = Node::start("webhook-receiver.js", &[]).await;
    let base = format!("http://127.0.0.1:{}", receiver.port);
    let (_, secret) = create(&t, &acme, &format!("{base}/all"), &[]).await;
    create(&t, &acme, &format!("{base}/some"), &["member.removed"]).await;
    receiver.tell(&secret);
    let person = t.person("bob").await;
    t.join(&acme, &person, "viewer").await;
    let remove = v1::RemoveMemberRequest { user_id: person.id.clone(), ..Default::default() };
    t.with_token(&acme.owner.token).members.remove_member(remove).await.unwrap();
    until("both are told", async || calls(&receiver, "/all").len() == 2 && calls(&receiver, "/some").len() == 1).await;

    let mut told = calls(&receiver, "/all");
    told.sort_by_key(|call| body(call)["type"].to_string());
    let types: Vec<Value> = told.iter().map(|call| body(call)["type"].clone()).collect();
    assert_eq!(types, ["member.added", "member.removed"]);
    for call in &told {
        assert_eq!((&call["method"], &call["verified"]), (&"POST".into(), &serde_json::json!([true])), "{call}");
        assert_eq!(body(call)["data"]["tenant_id"], acme.id.as_str());
    }
    assert_eq!(body(&told[1])["data"]["actor_id"], acme.owner.id.as_str());
    let log = t.audit(&acme.id).await;
    let row = log.iter().find(|row| row.action == "MembershipService/RemoveMember").unwrap();
    assert_eq!(body(&told[1])["data"]["changes"], serde_json::from_str::<Value>(&row.changes).unwrap());
    // What is in the log of deliveries is what was sent.
    let some = calls(&receiver, "/some").remove(0);
    assert_eq!((&body(&some)["type"], &some["verified"]), (&"member.removed".into(), &serde_json::json!([false])));
}

async fn a_rotated_secret_signs_beside_the_new_one_for_a_day(t: &Bed) {
    let (t, acme) = bed(t).await;
    let mut receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, old) = create(&t, &acme, &format!("http://127.0.0.1:{}/", receiver.port), &[]).await;
    let rotate = v1::RotateWebhookSecretRequest {
        request_id: request_id(),
        webhook_id: hook.webhook_id.clone(),
        ..Default::default()
    };
    let mut clients = t.with_token(&acme.owner.token);
    let rotated = clients.tenants.rotate_webhook_secret(rotate.clone()).await.unwrap().into_inner();
    let again = clients.tenants.rotate_webhook_secret(rotate).await.unwrap().into_inner();
    assert_eq!(again, rotated, "a repetition changes nothing");
    assert!(rotated.secret.starts_with("whsec_") && rotated.secret != old);
    receiver.tell(&old);
    receiver.tell(&rotated.secret);
    for (hours, verified) in [(0, [true, true]), (25, [false, true])] {
        t.clock.advance(TimeDelta::hours(hours));
        let id = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
        until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.response_code == 204).await;
        let call = receiver.wait("it comes", |said| said["headers"]["webhook-id"] == *id).await;
        assert_eq!(call["verified"], serde_json::json!(verified), "after {hours} hours: {call}");
    }
}

async fn a_second_rotation_cuts_off_no_secret_that_was_promised_a_day(t: &Bed) {
    let (t, acme) = bed(t).await;
    let mut receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, old) = create(&t, &acme, &format!("http://127.0.0.1:{}/", receiver.port), &[]).await;
    receiver.tell(&old);
    for _ in 0..2 {
        let rotate = v1::RotateWebhookSecretRequest { webhook_id: hook.webhook_id.clone(), ..Default::default() };
        let rotated = t.with_token(&acme.owner.token).tenants.rotate_webhook_secret(rotate).await.unwrap();
        receiver.tell(&rotated.into_inner().secret);
    }
    for (hours, verified) in [(0, [true, false, true]), (25, [false, false, true])] {
        t.clock.advance(TimeDelta::hours(hours));
        let id = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
        until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.response_code == 204).await;
        let call = receiver.wait("it comes", |said| said["headers"]["webhook-id"] == *id).await;
        assert_eq!(call["verified"], serde_json::json!(verified), "after {hours} hours: {call}");
    }
}

async fn who_joins_by_an_invitation_is_told_of(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/", receiver.port), &[]).await;
    let bob = t.person("bob").await;
    let invite = v1::InviteMemberRequest { email: bob.email.clone(), ..Default::default() };
    let token = t.with_token(&acme.owner.token).members.invite_member(invite).await.unwrap().into_inner().token;
    let accept = v1::AcceptInvitationRequest { token, ..Default::default() };
    t.with_token(&bob.token).members.accept_invitation(accept).await.unwrap();
    let told = deliveries(&t, &acme, &hook.webhook_id).await;
    let types: Vec<_> = told.iter().rev().map(|row| row.event_type.as_str()).collect();
    assert_eq!(types, ["invitation.created", "member.added"]);
    until("both come", async || calls(&receiver, "/").len() == 2).await;
    let text = calls(&receiver, "/").iter().map(Value::to_string).collect::<String>();
    assert!(text.contains(&bob.id) && !text.contains("tni_"), "{text}");
}

async fn an_event_that_was_added_while_a_webhook_died_is_given_up(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/", receiver.port), &[]).await;
    ask_for_a_test(&t, &acme, &hook.webhook_id).await;
    // As a race of the two leaves it.
    t.execute("update webhook set status = 3 where webhook_id = $1", &hook.webhook_id).await;
    t.execute("update webhook_delivery set status = 1 where webhook_id = $1", &hook.webhook_id).await;
    let due = "update job set due_at = created_at from webhook where subject = webhook_id and webhook_id = $1";
    t.execute(due, &hook.webhook_id).await;
    t.run_jobs().await;
    let row = deliveries(&t, &acme, &hook.webhook_id).await.remove(0);
    assert_eq!(row.status(), v1::WebhookDeliveryStatus::GivenUp);
}

async fn what_fails_is_tried_again_and_a_redirect_is_not_followed(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let base = format!("http://127.0.0.1:{}", receiver.port);
    for (path, code, problem) in [("/fail", 500, "answered 500"), ("/away", 302, "answered 302"), ("/cut", 0, "no")] {
        let (hook, _) = create(&t, &acme, &format!("{base}{path}"), &[]).await;
        let id = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
        for attempts in 1..=3 {
            until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.attempts == attempts).await;
            t.clock.advance(TimeDelta::minutes(31));
        }
        until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.attempts == 4).await;
        let row = deliveries(&t, &acme, &hook.webhook_id).await.remove(0);
        assert_eq!((row.status(), row.response_code), (v1::WebhookDeliveryStatus::Waiting, code));
        assert!(row.problem.starts_with(problem), "{path}: {}", row.problem);
        assert!(find(&t, &acme, &hook.webhook_id).await.failing_since.is_some());
        let sent = calls(&receiver, path);
        assert!(sent.len() == 4 && sent.iter().all(|call| call["headers"]["webhook-id"] == *id), "{path}");
        assert!(sent.iter().all(|call| call["body"] == sent[0]["body"]), "the same each time");
        // It gets well: the address is mended.
        let mended = v1::UpdateWebhookRequest {
            tenant: acme.id.clone(),
            webhook_id: hook.webhook_id.clone(),
            url: Some(format!("{base}/well{path}")),
            ..Default::default()
        };
        t.operator().tenants.update_webhook(mended).await.unwrap();
        t.clock.advance(TimeDelta::hours(3));
        until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.response_code == 204).await;
        assert!(find(&t, &acme, &hook.webhook_id).await.failing_since.is_none());
        let delete = v1::DeleteWebhookRequest {
            tenant: acme.id.clone(),
            webhook_id: hook.webhook_id.clone(),
            ..Default::default()
        };
        t.operator().tenants.delete_webhook(delete).await.unwrap();
    }
    assert!(calls(&receiver, "/ok").is_empty(), "a redirect was followed");
}

async fn an_endpoint_that_never_answers_or_never_ends_keeps_nobody_waiting(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let base = format!("http://127.0.0.1:{}", receiver.port);
    let (silent, _) = create(&t, &acme, &format!("{base}/silent"), &[]).await;
    let (endless, _) = create(&t, &acme, &format!("{base}/endless"), &[]).await;
    let other = t.tenant("other").await;
    let (well, _) = create(&t, &other, &format!("{base}/well"), &[]).await;
    ask_for_a_test(&t, &acme, &silent.webhook_id).await;
    receiver.wait("the silent one is called", |said| said["url"] == "/silent").await;
    let id = ask_for_a_test(&t, &acme, &endless.webhook_id).await;
    let quick = ask_for_a_test(&t, &other, &well.webhook_id).await;
    receiver.wait("the other is told meanwhile", |said| said["headers"]["webhook-id"] == *quick).await;
    until("what does not end was read for long enough", async || {
        deliveries(&t, &acme, &endless.webhook_id)
            .await
            .iter()
            .any(|row| row.delivery_id == id && row.response_code == 200)
    })
    .await;
    let waiting = deliveries(&t, &acme, &silent.webhook_id).await.remove(0);
    assert_eq!((waiting.attempts, waiting.status()), (0, v1::WebhookDeliveryStatus::Waiting), "still waited for");
}

async fn a_dead_endpoint_is_switched_off_and_its_owner_told(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/fail", receiver.port), &[]).await;
    let first = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
    until_delivery(&t, &acme, &hook.webhook_id, &first, |row| row.attempts == 1).await;
    until("it is switched off", async || {
        t.clock.advance(TimeDelta::hours(6));
        t.run_jobs().await;
        find(&t, &acme, &hook.webhook_id).await.status() == v1::WebhookStatus::Dead
    })
    .await;
    let days = t.clock.now().since(tenantry::time::Timestamp::from(chrono::Utc::now())).num_days();
    assert!((4..7).contains(&days), "after {days} days");
    assert_eq!(deliveries(&t, &acme, &hook.webhook_id).await[0].status(), v1::WebhookDeliveryStatus::GivenUp);
    let mail = t.last_mail_to(&acme.owner.email).await;
    assert!(mail.contains("/fail since ") && mail.contains("answered 500"), "{mail}");
    let log = t.audit(&acme.id).await;
    assert!(log.iter().any(|row| row.action == "System/DeliverWebhook" && row.actor_kind == 5), "{log:?}");
    // Nothing is sent any more, until somebody switches it on.
    let sent = calls(&receiver, "/fail").len();
    let test =
        v1::TestWebhookRequest { tenant: acme.id.clone(), webhook_id: hook.webhook_id.clone(), ..Default::default() };
    assert_refused(t.operator().tenants.test_webhook(test).await, Code::FailedPrecondition, "WRONG_STATE");
    let on = v1::UpdateWebhookRequest {
        tenant: acme.id.clone(),
        webhook_id: hook.webhook_id.clone(),
        enabled: Some(true),
        ..Default::default()
    };
    let on = t.operator().tenants.update_webhook(on).await.unwrap().into_inner().webhook.unwrap();
    assert_eq!((on.status(), on.failing_since), (v1::WebhookStatus::Enabled, None));
    assert_eq!(calls(&receiver, "/fail").len(), sent);
}

async fn an_endpoint_that_is_gone_is_switched_off_at_once(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/gone", receiver.port), &[]).await;
    ask_for_a_test(&t, &acme, &hook.webhook_id).await;
    until("it is switched off", async || find(&t, &acme, &hook.webhook_id).await.status() == v1::WebhookStatus::Dead)
        .await;
    assert_eq!(calls(&receiver, "/gone").len(), 1);
}

async fn what_waits_for_a_webhook_that_is_switched_off_is_not_sent(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/fail", receiver.port), &[]).await;
    let id = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
    until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.attempts == 1).await;
    let off = v1::UpdateWebhookRequest {
        tenant: acme.id.clone(),
        webhook_id: hook.webhook_id.clone(),
        enabled: Some(false),
        ..Default::default()
    };
    t.operator().tenants.update_webhook(off).await.unwrap();
    let row = deliveries(&t, &acme, &hook.webhook_id).await.remove(0);
    assert_eq!((row.status(), row.next_attempt_time), (v1::WebhookDeliveryStatus::GivenUp, None));
    let person = t.person("bob").await;
    t.join(&acme, &person, "viewer").await;
    t.clock.advance(TimeDelta::days(1));
    t.run_jobs().await;
    assert_eq!(calls(&receiver, "/fail").len(), 1);
    assert_eq!(deliveries(&t, &acme, &hook.webhook_id).await.len(), 1, "what happens meanwhile is not told later");
    // The log does not grow without end.
    t.clock.advance(TimeDelta::days(31));
    until("it is cleared away", async || {
        t.run_jobs().await;
        deliveries(&t, &acme, &hook.webhook_id).await.is_empty()
    })
    .await;
}

async fn refusals_and_what_was_rolled_back_are_not_told(t: &Bed) {
    let (t, acme) = bed(t).await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let (hook, _) = create(&t, &acme, &format!("http://127.0.0.1:{}/", receiver.port), &[]).await;
    let viewer = t.member(&acme, "viewer").await;
    let add =
        v1::AddMemberRequest { email: viewer.email.clone(), roles: vec!["viewer".to_owned()], ..Default::default() };
    let refused = t.with_token(&viewer.token).members.add_member(add.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
    let refused = t.with_token(&acme.owner.token).members.add_member(add).await;
    assert_refused(refused, Code::AlreadyExists, "ALREADY_MEMBER");
    // A server that stops writes the refusals that it remembers.
    let t = t.restart().await;
    let rows: Vec<(String,)> = t.rows("select changes from audit_event where tenant_id = $1", &acme.id).await;
    assert!(rows.iter().any(|(changes,)| changes.contains("denied")));
    let told = deliveries(&t, &acme, &hook.webhook_id).await;
    assert_eq!(told.iter().map(|row| row.event_type.as_str()).collect::<Vec<_>>(), ["member.added"]);
}

async fn addresses_inside_are_refused_whatever_name_they_go_by(t: &Bed) {
    // Nothing is allowed here but one network, which the receiver is not in.
    let t = Bed::private(t.engine, &["--webhook-allow=10.255.0.0/16"]).await;
    let acme = t.tenant("acme").await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let port = receiver.port;
    name_server().point("inside.tenantry.example", "127.0.0.1".parse().unwrap());
    name_server().point("metadata.tenantry.example", "169.254.169.254".parse().unwrap());
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "169.254.169.254",
        "10.0.0.1",
        "inside.tenantry.example",
        "metadata.tenantry.example",
        "nowhere.tenantry.example",
    ] {
        for scheme in ["http", "https"] {
            let (hook, _) = create(&t, &acme, &format!("{scheme}://{host}:{port}/"), &[]).await;
            let id = ask_for_a_test(&t, &acme, &hook.webhook_id).await;
            until_delivery(&t, &acme, &hook.webhook_id, &id, |row| row.attempts >= 1).await;
            let row = deliveries(&t, &acme, &hook.webhook_id).await.remove(0);
            assert_eq!(row.response_code, 0, "{scheme}://{host}");
            let told =
                if host.starts_with("nowhere") { "the name stands for no address" } else { "none that may be called" };
            assert!(row.problem.contains(told), "{scheme}://{host}: {}", row.problem);
            let delete = v1::DeleteWebhookRequest { webhook_id: hook.webhook_id, ..Default::default() };
            t.with_token(&acme.owner.token).tenants.delete_webhook(delete).await.unwrap();
        }
    }
    assert_eq!(receiver.said().len(), 1, "{:?}", receiver.said());
}

async fn wrong_webhooks_are_refused(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut clients = t.with_token(&acme.owner.token);
    let wish = |url: &str, types: &[&str]| v1::CreateWebhookRequest {
        url: url.to_owned(),
        event_types: types.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    };
    for (url, types, wrong) in [
        ("http://hooks.example.com/", &[][..], "url"),
        ("hooks.example.com", &[], "url"),
        ("https://ada:secret@hooks.example.com/", &[], "url"),
        ("https://hooks.example.com/", &["member.invented"], "event_types"),
    ] {
        assert_eq!(wrong_fields(clients.tenants.create_webhook(wish(url, types)).await), [wrong], "{url}");
    }
    let make = v1::CreateWebhookRequest { request_id: request_id(), ..wish("https://hooks.example.com/", &[]) };
    let first = clients.tenants.create_webhook(make.clone()).await.unwrap().into_inner();
    assert_eq!(clients.tenants.create_webhook(make).await.unwrap().into_inner(), first);
    for _ in 1..20 {
        clients.tenants.create_webhook(wish("https://hooks.example.com/", &[])).await.unwrap();
    }
    assert_eq!(wrong_fields(clients.tenants.create_webhook(wish("https://hooks.example.com/", &[])).await), ["url"]);
    let update = v1::UpdateWebhookRequest {
        webhook_id: first.webhook.clone().unwrap().webhook_id,
        etag: "\"v9\"".to_owned(),
        ..Default::default()
    };
    assert_refused(clients.tenants.update_webhook(update).await, Code::Aborted, "ETAG_MISMATCH");
    // Of another tenant there is none.
    let other = t.tenant("other").await;
    let delete = v1::DeleteWebhookRequest { webhook_id: first.webhook.unwrap().webhook_id, ..Default::default() };
    let refused = t.with_token(&other.owner.token).tenants.delete_webhook(delete).await;
    assert_refused(refused, Code::NotFound, "WEBHOOK_NOT_FOUND");
}

#[test]
fn what_is_told_are_actions_that_there_are() {
    let methods: Vec<String> = raw::methods().iter().map(raw::path).collect();
    for action in told_actions().filter(|action| !action.starts_with("System/")) {
        assert!(methods.iter().any(|path| path.ends_with(&format!(".{action}"))), "{action}");
    }
}
