//! Webhooks and single sign-on by the command line.

use std::process::Stdio;

use serde_json::Value;

use super::{command, done, json, keys, lines, refused, text};
use crate::harness::{Bed, on_both_engines, until};
use crate::node::Node;
use crate::oidc::{REDIRECT, SECRET, proven, providers, sign_in, somebody};
use crate::program::output;

on_both_engines! {
    a_webhook_is_added_tested_changed_and_removed
    single_sign_on_is_set_up_step_by_step_and_works
    a_client_secret_comes_from_a_file_or_the_standard_input
}

async fn a_webhook_is_added_tested_changed_and_removed(shared: &Bed) {
    let t = &Bed::private(shared.engine, &["--webhook-allow=127.0.0.1"]).await;
    let acme = t.tenant("acme").await;
    let receiver = Node::start("webhook-receiver.js", &[]).await;
    let url = format!("http://127.0.0.1:{}/ok", receiver.port);
    let types = text(t, &["webhook", "events", &acme.slug]);
    assert!(types.lines().any(|line| line == "member.added"), "{types}");
    let made = json(t, &["webhook", "add", &acme.slug, &url, "--event", "member.added", "--description", "ours"]);
    assert_eq!(keys(&made), ["secret", "webhook"]);
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let id = made["webhook"]["webhook_id"].as_str().unwrap();

    json(t, &["webhook", "test", &acme.slug, id]);
    let sent = || json(t, &["webhook", "deliveries", &acme.slug, id]);
    until("it is delivered", async || sent()["status"] == "delivered").await;
    assert_eq!(sent()["event_type"], "webhook.test");
    let table = text(t, &["webhook", "deliveries", &acme.slug, id]);
    assert!(table.contains("delivered") && table.contains("204"), "{table}");

    let changed = json(t, &["webhook", "update", &acme.slug, id, "--all-events", "--enabled", "false"]);
    assert_eq!((&changed["event_types"], &changed["status"]), (&serde_json::json!([]), &"disabled".into()));
    assert_eq!((&changed["description"], &changed["url"]), (&"ours".into(), &url.as_str().into()), "stay");
    let changed = json(t, &["webhook", "update", &acme.slug, id, "--event", "role.created", "--description", ""]);
    assert_eq!(
        (&changed["event_types"], &changed["description"]),
        (&serde_json::json!(["role.created"]), &Value::Null)
    );
    let etag = made["webhook"]["etag"].as_str().unwrap();
    refused(t, &["webhook", "update", &acme.slug, id, "--enabled", "true", "--etag", etag], "ETAG_MISMATCH");
    let rotated = text(t, &["webhook", "rotate", &acme.slug, id]);
    assert!(rotated.contains("shown this once") && rotated.contains("whsec_"), "{rotated}");
    assert_eq!(lines(t, &["webhook", "list", &acme.slug]).len(), 1);
    text(t, &["webhook", "remove", &acme.slug, id, "--yes"]);
    assert!(lines(t, &["webhook", "list", &acme.slug]).is_empty());
    refused(t, &["webhook", "test", &acme.slug, id], "WEBHOOK_NOT_FOUND");
    refused(t, &["webhook", "add", &acme.slug, "hooks.acme.example"], "field url");
}

async fn single_sign_on_is_set_up_step_by_step_and_works(t: &Bed) {
    let acme = t.tenant("acme").await;
    refused(t, &["sso", "show", &acme.slug], "SSO_NOT_CONFIGURED");
    refused(t, &["sso", "set", &acme.slug, "--client-id", "rs256"], "field connection.issuer");
    let domain = proven(t, &acme).await;
    let file = t.dir.path().join(format!("{domain}.secret"));
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let mut set = vec!["sso", "set", &acme.slug, "--issuer", providers(), "--client-id", "rs256"];
    set.extend(["--redirect-uri", REDIRECT, "--default-role", "viewer"]);
    set.extend(["--client-secret-file", file.to_str().unwrap()]);
    let made = text(t, &set);
    assert!(made.contains("client secret") && made.contains("set") && !made.contains(SECRET), "{made}");
    assert!(text(t, &["sso", "test", &acme.slug]).contains("yes"));
    sign_in(t, &acme.id, &somebody(&domain)).await.expect("signs in");

    // What is not said stays, the secret too.
    let changed = json(t, &["sso", "set", &acme.slug, "--group-claim", "groups", "--group-role", "a=b=manager"]);
    assert_eq!(changed["group_roles"], serde_json::json!([{"group": "a=b", "role": "manager"}]));
    assert_eq!((&changed["has_client_secret"], &changed["default_role"]), (&true.into(), &"viewer".into()));
    assert_eq!(changed["redirect_uris"], serde_json::json!([REDIRECT]));
    assert_eq!(json(t, &["sso", "set", &acme.slug, "--required", "true"])["required"], true);
    assert_eq!(json(t, &["sso", "show", &acme.slug])["group_claim"], "groups");
    let (code, out, err) = output(command(t, &["sso", "test", &acme.slug, "--issuer", "http://127.0.0.1:1"]));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no") && err.contains("does not answer"), "{out}{err}");

    assert!(text(t, &["sso", "remove", &acme.slug, "--yes"]).contains("gone"));
    refused(t, &["sso", "show", &acme.slug], "SSO_NOT_CONFIGURED");
    refused(t, &["sso", "remove", &acme.slug, "--yes"], "SSO_NOT_CONFIGURED");
}

async fn a_client_secret_comes_from_a_file_or_the_standard_input(t: &Bed) {
    let acme = t.tenant("acme").await;
    let mut set = vec!["sso", "set", &acme.slug, "--issuer", providers(), "--client-id", "rs256", "--json"];
    set.extend(["--redirect-uri", REDIRECT, "--default-role", "viewer", "--client-secret-file"]);
    let with = |from: &str| command(t, &[&set[..], &[from]].concat());
    let (code, _, err) = output(with("/nowhere/secret"));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("--client-secret-file") && err.contains("/nowhere/secret"), "{err}");
    let file = t.dir.path().join(format!("{}.secret", acme.slug));
    std::fs::write(&file, "\n").unwrap();
    let (code, _, err) = output(with(file.to_str().unwrap()));
    assert_eq!(code, 2, "{err}");
    std::fs::write(&file, SECRET).unwrap();
    let mut typed = with("-");
    typed.stdin(Stdio::from(std::fs::File::open(&file).unwrap()));
    let made: Value = serde_json::from_str(&done(typed)).unwrap();
    assert_eq!(made["has_client_secret"], true);
}
