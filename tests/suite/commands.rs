//! The command line as an operator types it, against a server that runs.

mod credentials;
mod ends;
mod outside;
mod people;
mod plans;
mod settings;
mod tenants;
mod ways;

use std::process::Command;

use chrono::TimeDelta;
use serde_json::Value;
use tenantry::rpc::v1;

use crate::cluster::{Cluster, unique_name};
use crate::harness::{Bed, Engine, PASSWORD};
use crate::program::{Program, output, serve, tenantry};

/// The program with these words, against a server.
pub(crate) fn command(t: &Bed, words: &[&str]) -> Command {
    let mut command = tenantry(words);
    command.arg("--server").arg(&t.address).arg("--key-file").arg(t.dir.path().join("operator.key"));
    command
}

/// Runs one that must succeed.
fn done(command: Command) -> String {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    let (mut code, mut out, mut err) = output(command);
    if err.contains("DATABASE_UNAVAILABLE") {
        // A slow disk can hold locks for longer than anybody waits: done as the answer says.
        (code, out, err) = output(again);
    }
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out
}

/// What it prints for people.
pub(crate) fn text(t: &Bed, words: &[&str]) -> String {
    done(command(t, words))
}

/// What it prints for scripts: a JSON object a line.
pub(crate) fn lines(t: &Bed, words: &[&str]) -> Vec<Value> {
    let mut command = command(t, words);
    command.arg("--json");
    done(command).lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// The one object that it prints for scripts.
pub(crate) fn json(t: &Bed, words: &[&str]) -> Value {
    let mut all = lines(t, words);
    assert_eq!(all.len(), 1, "{words:?}: {all:?}");
    all.remove(0)
}

/// The names of an object's fields, in order.
fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Runs one that the server refuses: exit 1, nothing on the standard output but what came before, and why.
#[track_caller]
pub(crate) fn refused(t: &Bed, words: &[&str], reason: &str) {
    let (code, _, err) = output(command(t, words));
    assert_eq!(code, 1, "{words:?}: {err}");
    assert!(err.starts_with("error: ") && err.contains(reason), "{words:?}: {err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_keys_are_listed_rotated_and_revoked() {
    let t = Bed::private(Engine::Sqlite, &[]).await;
    t.run_jobs().await;
    let states = |keys: &[Value]| keys.iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let first = lines(&t, &["signing-key", "list"]);
    assert_eq!(states(&first), ["current", "next"]);
    refused(&t, &["signing-key", "rotate"], "not known to everybody yet");
    refused(&t, &["signing-key", "revoke", "nonsense"], "no such signing key");
    t.clock.advance(TimeDelta::minutes(61));
    let table = text(&t, &["signing-key", "rotate"]);
    assert!(table.contains("retired") && table.contains("current") && table.contains("next"), "{table}");
    let current = first[1]["kid"].as_str().unwrap();
    let revoked = lines(&t, &["signing-key", "revoke", current]);
    assert_eq!(revoked[1]["state"], "revoked");
    refused(&t, &["signing-key", "revoke", current], "it is revoked");
}

#[test]
fn wrong_usage_exits_with_2_and_an_absent_server_is_told() {
    for args in [
        &["tenant", "suspend", "acme"][..],
        &["tenants"],
        &["tenant", "list", "--status", "gone"],
        &["serve", "--listen", "x"],
        &["tenant", "flags", "acme"],
        &["tenant", "find"],
        &["limit", "set", "acme", "quizzes", "many"],
        &["limit", "set", "acme", "quizzes", "5", "--until", "soon"],
        &["limit", "set", "acme", "quizzes", "5", "--until", "2030-01-01T00:00:00Z", "--days", "3"],
        &["feature", "set", "acme", "sso", "maybe"],
        &["settings", "set", "acme"],
        &["settings", "set", "acme", "colour=red"],
        &["completions", "cmd"],
        &["member", "roles", "acme", "bob@example.com"],
        &["invitation", "list", "acme", "--status", "gone"],
        &["role", "create", "acme", "helper", "--rank", "5"],
        &["role", "update", "acme", "helper"],
        &["api-key", "create", "acme", "--name", "x"],
        &["platform-key", "create-operator", "--name", "x", "--scope", "most"],
        &["platform-key", "rotate", "k", "--overlap", "721"],
        &["webhook", "update", "acme", "w"],
        &["webhook", "update", "acme", "w", "--event", "member.added", "--all-events"],
        &["sso", "set", "acme", "--group-role", "teachers"],
        &["impersonation", "begin", "acme", "bob@example.com"],
        &["impersonation", "begin", "acme", "bob@example.com", "--reason", "x", "--minutes", "61"],
    ] {
        let (code, _, err) = output(tenantry(args));
        assert_eq!(code, 2, "{args:?}: {err}");
    }
    let mut absent = tenantry(["tenant", "list", "--server", "http://127.0.0.1:1"]);
    let (code, _, err) = output({
        absent.env("TENANTRY_OPERATOR_KEY", "tno_x");
        absent
    });
    assert_eq!(code, 1);
    assert!(err.contains("cannot reach http://127.0.0.1:1") && err.contains("Is it running?"), "{err}");
    let (code, _, err) = output(tenantry(["tenant", "list", "--key-file", "/nowhere/operator.key"]));
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/operator.key") && err.contains("TENANTRY_OPERATOR_KEY"), "{err}");
    let (code, _, err) = output(tenantry(["migrate"]));
    assert_eq!(code, 1);
    assert!(err.contains("--admin-url"), "{err}");
}

/// The value of an `export` among printed lines.
fn exported(printed: &str, name: &str) -> String {
    let line = printed.lines().find_map(|line| line.trim().strip_prefix("export ")?.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {printed}")).trim_start_matches('=').trim_matches('\'').to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_postgres_is_set_up_and_served_with_what_migrate_prints() {
    let cluster = Cluster::private();
    let name = unique_name();
    let migrate = || {
        let mut command = tenantry(["migrate", "--database", &name]);
        command.env("TENANTRY_ADMIN_URL", cluster.admin_url());
        command
    };
    let printed = done(migrate());
    assert!(printed.contains("roles created: ") && printed.contains("migration 0001 house"), "{printed}");
    let app = exported(&printed, "TENANTRY_DATABASE_URL");
    let system = exported(&printed, "TENANTRY_SYSTEM_DATABASE_URL");
    let meter = exported(&printed, "TENANTRY_METER_DATABASE_URL");

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = serve(&data, None);
    command.env("TENANTRY_DATABASE_URL", &app).env("TENANTRY_SYSTEM_DATABASE_URL", &system);
    command.env("TENANTRY_METER_DATABASE_URL", &meter);
    command.args(["--sign-up", "immediate"]);
    let server = Program::start(&data, command);
    let request = v1::SignUpRequest {
        email: "ada@example.com".to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: Some(v1::NewTenant { display_name: "Acme".to_owned(), slug: "acme".to_owned() }),
        ..Default::default()
    };
    server.clients(crate::harness::Headers::default()).auth.sign_up(request).await.expect("signs up");
    let mut list = tenantry(["tenant", "list", "--server", &server.grpc]);
    list.env("TENANTRY_OPERATOR_KEY_FILE", data.join("operator.key"));
    assert!(done(list).contains("acme"));

    // Again, by both ways: nothing to do, no password shown, and the server goes on.
    let again = done(migrate());
    assert!(again.contains("up to date") && !again.contains("created") && again.contains(":...@"), "{again}");
    let url =
        printed.lines().find_map(|line| line.split_once("tenantry migrate --url ")).expect("the way to upgrade").1;
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres")).expect("migrations");
    let newest: Option<u32> = files.filter_map(|f| f.ok()?.file_name().to_str()?.get(..4)?.parse().ok()).max();
    let up_to_date = format!("up to date at migration {}\n", newest.expect("a migration"));
    for _ in 0..2 {
        assert_eq!(done(tenantry(["migrate", "--url", url.trim_matches('\'')])), up_to_date);
    }
    assert!(server.operator().tenants.get_tenant(v1::GetTenantRequest { tenant: "acme".to_owned() }).await.is_ok());
    assert_eq!(server.terminate().0, Some(0));
}

#[test]
fn migrate_prints_what_an_administrator_can_paste() {
    let printed = done(tenantry(["migrate", "--print", "--database", "rows"]));
    assert!(
        printed.contains("tenantry_app") && printed.contains("\\c \"rows\"") && printed.contains("<password>"),
        "{printed}"
    );
    let (code, _, err) = output(tenantry(["migrate", "--print", "--database", "a\"b"]));
    assert_eq!(code, 1);
    assert!(err.contains("is no name for a database"), "{err}");
}
