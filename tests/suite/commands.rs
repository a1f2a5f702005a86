//! The command line as an operator types it, against a server that runs.

use std::process::Command;

use serde_json::Value;
use tenantry::rpc::v1;

use crate::cluster::{Cluster, unique_name};
use crate::harness::{Bed, PASSWORD, on_both_engines, unique};
use crate::program::{Program, output, serve, tenantry};

on_both_engines! {
    an_operator_works_on_tenants
    a_refusal_says_why_and_exits_with_1
}

/// `tenantry tenant ..` against a server.
fn tenant(t: &Bed, args: &[&str]) -> Command {
    let mut command = tenantry(["tenant"]);
    command.args(args).arg("--server").arg(&t.address).arg("--key-file").arg(t.dir.path().join("operator.key"));
    command
}

/// Runs one that must succeed.
fn done(command: Command) -> String {
    let (code, out, err) = output(command);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out
}

async fn an_operator_works_on_tenants(t: &Bed) {
    let ada = t.person("ada").await;
    let slug = unique("cli");
    let created = done(tenant(t, &["create", "--slug", &slug, "--name", "Acme Ltd", "--owner-email", &ada.email]));
    assert!(created.contains(&slug) && created.contains("Acme Ltd") && created.contains("active"), "{created}");

    let table = done(tenant(t, &["list", "--slug-prefix", &slug]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].contains("SLUG") && lines[0].contains("STATUS"), "{table}");
    assert!(lines.iter().any(|line| line.contains(&slug) && line.contains("active")), "{table}");

    let shown: Value = serde_json::from_str(&done(tenant(t, &["show", &slug, "--json"]))).unwrap();
    assert_eq!((&shown["slug"], &shown["status"]), (&slug.as_str().into(), &"active".into()));

    let suspended = done(tenant(t, &["suspend", &slug, "--reason", "unpaid", "--json"]));
    let suspended: Value = serde_json::from_str(&suspended).unwrap();
    assert_eq!((&suspended["status"], &suspended["suspend_reason"]), (&"suspended".into(), &"unpaid".into()));
    let listed = done(tenant(t, &["list", "--status", "suspended", "--slug-prefix", &slug, "--json"]));
    assert_eq!(listed.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["tenant_id"], shown["tenant_id"]);

    let id = shown["tenant_id"].as_str().unwrap();
    assert!(done(tenant(t, &["activate", id])).contains("active"));
}

async fn a_refusal_says_why_and_exits_with_1(t: &Bed) {
    let acme = t.tenant("acme").await;
    for (args, reason) in [
        (&["show", "nobody-has-this"][..], "TENANT_NOT_FOUND"),
        (&["activate", &acme.slug], "WRONG_STATE"),
        (&["create", "--slug", &acme.slug, "--name", "x", "--owner-email", &acme.owner.email], "SLUG_TAKEN"),
        (&["create", "--slug", "a", "--name", "x", "--owner-email", "none"], "field slug: "),
    ] {
        let (code, out, err) = output(tenant(t, args));
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with("error: ") && err.contains(reason), "{err}");
    }
    let wrong = t.service_key(&["tenant.read"]).await;
    let (code, _, err) = output({
        let mut command = tenant(t, &["list"]);
        command.env("TENANTRY_OPERATOR_KEY", &wrong);
        command
    });
    assert_eq!(code, 1);
    assert!(err.contains("CALLER_KIND_REFUSED") && !err.contains(&wrong), "{err}");
}

#[test]
fn wrong_usage_exits_with_2_and_an_absent_server_is_told() {
    for args in [
        &["tenant", "suspend", "acme"][..],
        &["tenants"],
        &["tenant", "list", "--status", "gone"],
        &["serve", "--listen", "x"],
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

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut command = serve(&data, None);
    command.env("TENANTRY_DATABASE_URL", &app).env("TENANTRY_SYSTEM_DATABASE_URL", &system);
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
    for _ in 0..2 {
        assert_eq!(done(tenantry(["migrate", "--url", url.trim_matches('\'')])), "up to date at migration 2\n");
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
