//! `tenantry tenant import` and `export` as an operator types them: a file that is wrong here and there, and a large one
//! whose import is interrupted by the death of the server.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, FromRow};
use tenantry::domain::secret::{hex, sha256};

use crate::harness::{Bed, on_both_engines, unique, until};
use crate::program::{Program, output, serve, serve_on, tenantry};

on_both_engines! {
    a_file_is_imported_and_what_is_refused_is_told
    a_tenant_is_exported_as_lines
}

/// `tenantry tenant ..` against a server.
fn tenant(t: &Bed, args: &[&str]) -> Command {
    let mut command = tenantry(["tenant"]);
    command.args(args).arg("--server").arg(&t.address).arg("--key-file").arg(t.dir.path().join("operator.key"));
    command
}

/// Lines of a tenant with one user, who is its owner.
fn lines(id: &str) -> [Value; 3] {
    [
        json!({ "tenant": { "external_id": id, "slug": id, "display_name": id } }),
        json!({ "user": { "external_id": id, "email": format!("{id}@example.com"), "display_name": id } }),
        json!({ "membership": { "tenant_external_id": id, "user_external_id": id, "role": "owner", "default": true } }),
    ]
}

async fn a_file_is_imported_and_what_is_refused_is_told(t: &Bed) {
    let dir = tempfile::tempdir().unwrap();
    let (file, refused) = (dir.path().join("in.jsonl"), dir.path().join("refused.jsonl"));
    let (file_arg, refused_arg) = (file.to_str().unwrap(), refused.to_str().unwrap());
    let [tenant_line, user_line, member_line] = lines(&unique("file"));
    let wrong_role = member_line.to_string().replace("owner", "emperor");
    let text = format!(
        "{tenant_line}\n\n{{\"user\": {{\"colour\": \"red\"}}}}\n{user_line}\nno json\n{member_line}\n{wrong_role}"
    );
    std::fs::write(&file, text).unwrap();

    // Line 7 is an item that only a server can refuse.
    let (code, out, err) = output(tenant(t, &["import", file_arg, "--dry-run"]));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("4 would be sent, 2 refused"), "{out}");
    assert!(out.contains("line 3: NO_ITEM") && out.contains("colour") && out.contains("line 5: NO_ITEM"), "{out}");

    let (code, out, err) = output(tenant(t, &["import", file_arg, "--json", "--refused", refused_arg]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("3 of 6 items were refused"), "{err}");
    let summary: Value = serde_json::from_str(&out).unwrap();
    let counts = ["items", "created", "unchanged", "refused"].map(|key| summary[key].as_u64().unwrap());
    assert_eq!(counts, [6, 3, 0, 3]);
    let told = std::fs::read_to_string(&refused).unwrap();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        told.iter().map(|one| (one["line"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    assert_eq!(told, [(3, "NO_ITEM"), (5, "NO_ITEM"), (7, "FIELDS_INVALID")]);

    // What is right alone: nothing changes, and all is well.
    std::fs::write(&file, format!("{tenant_line}\n{user_line}\n{member_line}\n")).unwrap();
    let (code, out, err) = output(tenant(t, &["import", file_arg]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("0 created, 3 unchanged, 0 refused") && out.contains("items/s"), "{out}");

    let (code, _, err) = output(tenant(t, &["import", "/nowhere/in.jsonl"]));
    assert_eq!(code, 1);
    assert!(err.contains("/nowhere/in.jsonl"), "{err}");
}

async fn a_tenant_is_exported_as_lines(t: &Bed) {
    let acme = t.tenant("acme").await;
    let (code, out, err) = output(tenant(t, &["export", &acme.slug]));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["type"], &lines[0]["tenant_id"]), (&"tenant".into(), &acme.id.as_str().into()));
    assert_eq!(lines.last().unwrap()["type"], "end");
    let (code, out, err) = output(tenant(t, &["export", "nobody-has-this"]));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("TENANT_NOT_FOUND"), "{err}");
}

const TENANTS: usize = 10_000;

/// Rows of the database of a server that has ended.
async fn rows<T>(dir: &Path, sql: &'static str) -> Vec<T>
where
    T: Send + Unpin + for<'r> FromRow<'r, sqlx::sqlite::SqliteRow>,
{
    let options = SqliteConnectOptions::new().filename(dir.join("tenantry.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query_as(sql).fetch_all(&mut conn).await.unwrap()
}

/// How many tenants there are, while a server runs.
async fn tenants(dir: &Path) -> i64 {
    let file = SqliteConnectOptions::new().filename(dir.join("tenantry.db")).read_only(true);
    let mut conn = SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query_as::<_, (i64,)>("select count(*) from tenant").fetch_one(&mut conn).await.unwrap().0
}

fn digest(lines: impl IntoIterator<Item = String>) -> String {
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort();
    hex(&sha256(lines.join("\n").as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tenants_are_imported_although_the_server_is_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("all.jsonl"), dir.path().join("data"));
    let ids: Vec<String> = (0..TENANTS).map(|n| format!("tenant-{n:05}")).collect();
    let mut text = String::new();
    for line in ids.iter().flat_map(|id| lines(id)) {
        writeln!(text, "{line}").unwrap();
    }
    std::fs::write(&file, text).unwrap();

    let mut server = Program::start(&data, serve(&data, None));
    let grpc = server.grpc.clone();
    let mut import = tenantry(["tenant", "import", "--json"]);
    import.arg(&file).arg("--server").arg(&grpc).arg("--key-file").arg(data.join("operator.key"));
    let began = Instant::now();
    let import = import.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // As slow as the machine is: `until` alone would give up.
    let mut imported = 0;
    while imported <= 1_500 {
        until("it goes on", async || tenants(&data).await > imported).await;
        imported = tenants(&data).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.kill();
    let reached = rows::<(i64,)>(&data, "select count(*) from tenant").await[0].0;
    assert!((1_500..10_000).contains(&reached), "{reached}");
    // It comes back where it was, and the import mends itself.
    server = Program::start(&data, serve_on(grpc.strip_prefix("http://").unwrap(), &data, None));
    let memory = server.memory();
    let done = tokio::task::spawn_blocking(move || import.wait_with_output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((summary["items"].as_u64(), summary["refused"].as_u64()), (Some(3 * TENANTS as u64), Some(0)));
    println!(
        "{} items in {:.1} s over a kill at {reached} tenants, {} items/s; server's memory {memory} -> {} KiB",
        3 * TENANTS,
        began.elapsed().as_secs_f64(),
        summary["items_per_second"],
        server.memory()
    );
    assert!(err.contains("again from the start"), "{err}");
    assert!(server.memory() < memory + 100 * 1024, "memory is not flat");
    assert_eq!(server.terminate().0, Some(0));

    // The same rows as without the interruption: what the file says, each once.
    let found: Vec<(String, String)> = rows(&data, "select external_id, slug from tenant").await;
    assert_eq!(
        digest(found.into_iter().map(|(id, slug)| id + " " + &slug)),
        digest(ids.iter().map(|id| format!("{id} {id}")))
    );
    let found: Vec<(String, String)> = rows(&data, "select external_id, email from user_account").await;
    let wanted = ids.iter().map(|id| format!("{id} {id}@example.com"));
    assert_eq!(digest(found.into_iter().map(|(id, email)| id + " " + &email)), digest(wanted));
    let sql = "select t.external_id, u.external_id, m.role from membership m
               join tenant t on t.tenant_id = m.tenant_id
               join user_account u on u.user_id = m.user_id and u.default_tenant_id = m.tenant_id";
    let found: Vec<(String, String, String)> = rows(&data, sql).await;
    let found = found.into_iter().map(|(tenant, user, role)| format!("{tenant} {user} {role}"));
    assert_eq!(digest(found), digest(ids.iter().map(|id| format!("{id} {id} owner"))));
    // And one audit row for each thing that was made.
    let sql = "select (select count(*) from audit_event where action = 'TenantService/ImportTenants'),
                      (select count(*) from platform_audit where action = 'TenantService/ImportTenants')";
    let counted: Vec<(i64, i64)> = rows(&data, sql).await;
    let tenants = i64::try_from(TENANTS).expect("a count");
    assert_eq!(counted, [(2 * tenants, tenants)]);
}
