//! Keys, sessions, accounts and impersonation by the command line.

use serde_json::Value;
use tenantry::rpc::v1;

use super::{command, json, keys, lines, refused, text};
use crate::harness::{Bed, on_both_engines};
use crate::program::output;

on_both_engines! {
    a_key_of_a_tenant_is_shown_once_rotated_and_revoked
    keys_of_services_and_operators_are_made_rotated_and_revoked
    sessions_of_a_member_are_listed_and_ended
    the_second_step_of_a_member_is_taken_away
    an_account_is_closed_and_opened
    an_operator_is_in_a_members_place_until_it_ends
}

/// What stands alone below the facts.
fn shown_once(told: &str) -> String {
    assert!(told.contains("shown this once"), "{told}");
    told.lines().find_map(|line| line.strip_prefix("    ")).expect("a secret").to_owned()
}

async fn is_good(t: &Bed, key: &str) -> bool {
    t.with_key(key).auth.who_am_i(v1::WhoAmIRequest {}).await.is_ok()
}

async fn a_key_of_a_tenant_is_shown_once_rotated_and_revoked(t: &Bed) {
    let acme = t.tenant("acme").await;
    let make = ["api-key", "create", &acme.slug, "--name", "import", "--permission", "members.read", "--days", "9"];
    let first = shown_once(&text(t, &make));
    assert!(is_good(t, &first).await);
    let listed = json(t, &["api-key", "list", &acme.slug]);
    assert_eq!((&listed["display_name"], &listed["kind"]), (&"import".into(), &"api_key".into()));
    assert!(listed["expire_time"].is_string() && !listed.to_string().contains(&first));
    let (key, id) = (listed["key_id"].as_str().unwrap(), listed["api_key_id"].as_str().unwrap());

    assert_eq!(json(t, &["api-key", "rename", &acme.slug, key, "--name", "nightly"])["display_name"], "nightly");
    let second = json(t, &["api-key", "rotate", &acme.slug, id, "--overlap", "2"]);
    assert_eq!(keys(&second), ["key", "secret"]);
    let second = second["secret"].as_str().unwrap().to_owned();
    assert!(is_good(t, &first).await && is_good(t, &second).await, "both, for two hours");
    let third = shown_once(&text(t, &["api-key", "rotate", &acme.slug, key, "--overlap", "0"]));
    assert!(!is_good(t, &second).await && is_good(t, &third).await);

    let table = text(t, &["api-key", "list", &acme.slug, "--own"]);
    assert!(table.contains("nightly") && table.contains(&format!("…{}", &third[third.len() - 4..])), "{table}");
    assert!(text(t, &["api-key", "revoke", &acme.slug, key, "--yes"]).contains("nightly is refused"));
    assert!(!is_good(t, &third).await);
    refused(t, &["api-key", "revoke", &acme.slug, key, "--yes"], "has no key");
    let other = t.tenant("other").await;
    refused(t, &["api-key", "rotate", &other.slug, id], "has no key");
}

async fn keys_of_services_and_operators_are_made_rotated_and_revoked(t: &Bed) {
    let named = crate::harness::unique("backend");
    let make = ["platform-key", "create-service", "--name", &named, "--permission", "usage.write"];
    let service = shown_once(&text(t, &make));
    assert!(is_good(t, &service).await);
    let read = json(t, &["platform-key", "create-operator", "--name", &named, "--scope", "read", "--days", "1"]);
    assert_eq!((&read["key"]["scope"], &read["key"]["kind"]), (&"read".into(), &"operator".into()));
    let secret = read["secret"].as_str().unwrap();
    let acting = |words: &[&str]| {
        let mut command = command(t, words);
        command.env("TENANTRY_OPERATOR_KEY", secret);
        output(command)
    };
    assert_eq!(acting(&["tenant", "list", "--limit", "1"]).0, 0, "to look");
    let (code, _, err) = acting(&["platform-key", "create-operator", "--name", "more", "--scope", "all"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("OPERATOR_SCOPE_MISSING") && !err.contains(secret), "{err}");

    let of_kind = |kind: &str| {
        let all = lines(t, &["platform-key", "list", "--kind", kind]);
        all.into_iter().filter(|row| row["display_name"] == named.as_str()).collect::<Vec<_>>()
    };
    let (services, operators) = (of_kind("service"), of_kind("operator"));
    assert_eq!((services.len(), operators.len()), (1, 1));
    assert_eq!(operators[0]["key_id"], read["key"]["key_id"]);
    let key = services[0]["key_id"].as_str().unwrap();
    let table = text(t, &["platform-key", "list"]);
    assert!(table.lines().any(|line| line.contains(key) && line.contains("usage.write")), "{table}");

    let rotated = shown_once(&text(t, &["platform-key", "rotate", key, "--overlap", "0"]));
    assert!(!is_good(t, &service).await && is_good(t, &rotated).await);
    text(t, &["platform-key", "revoke", key, "--yes"]);
    assert!(!is_good(t, &rotated).await);
    refused(t, &["platform-key", "revoke", key, "--yes"], "there is no key");
}

async fn sessions_of_a_member_are_listed_and_ended(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let other = t.login(&bob, &acme.id).await;
    let works = async |token: &str| {
        let request = v1::GetTenantRequest { tenant: acme.id.clone() };
        t.with_token(token).tenants.get_tenant(request).await.is_ok()
    };
    assert!(works(&bob.token).await && works(&other.token).await);
    let sessions = lines(t, &["member", "sessions", &acme.slug, &bob.email]);
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    assert_eq!(sessions[0]["methods"], serde_json::json!(["pwd"]));
    let first = sessions[0]["session_id"].as_str().unwrap();
    text(t, &["member", "revoke-sessions", &acme.slug, &bob.email, "--session", first]);
    assert!(!works(&bob.token).await && works(&other.token).await);
    assert!(text(t, &["member", "revoke-sessions", &acme.slug, &bob.id]).contains("signed out"));
    assert!(!works(&other.token).await);
    assert_eq!(text(t, &["member", "sessions", &acme.slug, &bob.email]).lines().count(), 1, "a header");
}

async fn the_second_step_of_a_member_is_taken_away(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    crate::mfa::enable(t, &bob).await;
    let told = text(t, &["member", "reset-mfa", &acme.slug, &bob.email]);
    assert!(told.contains("no second step"), "{told}");
    t.login(&bob, &acme.id).await;
    refused(t, &["member", "reset-mfa", &acme.slug, &bob.email], "WRONG_STATE");
}

async fn an_account_is_closed_and_opened(t: &Bed) {
    let bob = t.person("bob").await;
    let closed = json(t, &["account", "disable", &bob.id]);
    assert_eq!(closed["email"], bob.email.as_str());
    assert!(t.with_token(&bob.token).auth.get_account(v1::GetAccountRequest {}).await.is_err());
    assert!(text(t, &["account", "enable", &bob.id]).contains("enabled"));
    t.login(&bob, "").await;
    refused(t, &["account", "disable", "01890a5d-ac96-774b-bcce-b302099a8057"], "ACCOUNT_NOT_FOUND");
}

async fn an_operator_is_in_a_members_place_until_it_ends(t: &Bed) {
    let acme = t.tenant("acme").await;
    let bob = t.member(&acme, "member").await;
    let reason = ["--reason", "sees no quizzes", "--minutes", "30"];
    let begun = text(t, &[&["impersonation", "begin", &acme.slug, &bob.email][..], &reason].concat());
    let token = shown_once(&begun);
    let whoami = async || t.with_token(&token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_eq!(whoami().await.expect("good").into_inner().user.unwrap().user_id, bob.id);
    let listed = json(t, &["impersonation", "list", &acme.slug]);
    assert_eq!((&listed["reason"], &listed["end_time"]), (&"sees no quizzes".into(), &Value::Null));
    let id = listed["impersonation_id"].as_str().unwrap();
    assert!(text(t, &["impersonation", "end", &acme.slug, id]).contains("ended"));
    assert!(whoami().await.is_err(), "at once");
    refused(t, &["impersonation", "begin", &acme.slug, "nobody@example.com", "--reason", "x"], "has no member");
}
