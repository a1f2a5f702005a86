//! The way to a server: TLS, a database that is away for a while; and what shells are given.

use std::process::{Child, Command, Stdio};

use tenantry::rpc::v1;

use super::{command, done};
use crate::cluster::{Cluster, Stop};
use crate::harness::{Bed, Engine, Headers, PASSWORD, unique, until};
use crate::program::{Program, get, output, serve, tenantry};
use crate::startup::connect;
use crate::transport::Papers;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_wants_both_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    Papers::write(dir.path(), "ours");
    Papers::write(dir.path(), "others");
    let flags = [("cert", "ours.cert"), ("key", "ours.key"), ("client-ca", "ours.ca")];
    let flags = flags.map(|(flag, name)| format!("--tls-{flag}={}", file(name)));
    let t = Bed::private(Engine::Sqlite, &[&flags[0], &flags[1], &flags[2]]).await;
    let list = |more: &[&str]| {
        let mut list = tenantry(["tenant", "list", "--server", &t.address.replace("http://", "https://")]);
        list.args(more).env("TENANTRY_OPERATOR_KEY", &t.operator_key);
        output(list)
    };
    let (ours, others) = (file("ours.ca"), file("others.ca"));
    let (cert, key) = (file("ours.client.cert"), file("ours.client.key"));
    let (code, out, err) = list(&["--ca", &ours, "--cert", &cert, "--key", &key]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("SLUG"), "{out}");
    let strange = [file("others.client.cert"), file("others.client.key")];
    for (what, flags, code) in [
        ("no certificate of ours", &["--ca", &ours][..], 1),
        ("a stranger's certificate", &["--ca", &ours, "--cert", &strange[0], "--key", &strange[1]], 1),
        ("not the server's authority", &["--ca", &others, "--cert", &cert, "--key", &key], 1),
        ("no authority at all", &["--cert", &cert, "--key", &key], 1),
        ("a certificate without its key", &["--ca", &ours, "--cert", &cert], 2),
        ("a file that is not there", &["--ca", "/nowhere/ca", "--cert", &cert, "--key", &key], 1),
    ] {
        let (given, out, err) = list(flags);
        assert_eq!((given, out.as_str()), (code, ""), "{what}: {err}");
    }
    let mut plain = command(&t, &["tenant", "list"]);
    plain.env("TENANTRY_OPERATOR_KEY", &t.operator_key);
    assert_eq!(output(plain).0, 1, "without TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_repeated_once_under_the_same_request_id() {
    let cluster = Cluster::private();
    let database = cluster.fresh_database().await;
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let server = Program::start(&data, serve(&data, Some(&database)));
    let slug = unique("acme");
    let request = v1::SignUpRequest {
        email: format!("{slug}@example.com"),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: Some(v1::NewTenant { display_name: slug.clone(), slug: slug.clone() }),
        ..Default::default()
    };
    server.clients(Headers::default()).auth.sign_up(request).await.expect("signs up");
    let update = || {
        let mut update = tenantry(["tenant", "update", &slug, "--name", "Renamed", "--json", "--server", &server.grpc]);
        update.env("TENANTRY_OPERATOR_KEY", server.operator_key());
        update.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    };
    let answers = || server.output().lines().filter(|l| l.contains("UpdateTenant") && l.contains("answered")).count();
    let signal = |child: &Child, name: &str| {
        let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    };

    // Away for both calls: refused, and two of them.
    tokio::task::block_in_place(|| cluster.stop(Stop::Fast));
    let away = tokio::task::block_in_place(|| update().wait_with_output().unwrap());
    let told = String::from_utf8(away.stderr).unwrap();
    assert_eq!(away.status.code(), Some(1), "{told}");
    assert!(told.contains("DATABASE_UNAVAILABLE") && told.contains("try again in"), "{told}");
    until("both are answered", async || answers() == 2).await;

    // Away for the first call. The program is held between its two calls until the database is back.
    let child = update();
    until("the first call is refused", async || answers() == 3).await;
    signal(&child, "STOP");
    tokio::task::block_in_place(|| cluster.start_again());
    until("ready again", async || get(&server.http, "/readyz").await.0 == 200).await;
    signal(&child, "CONT");
    let done = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert_eq!((done.status.code(), err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("\"display_name\":\"Renamed\""), "{out}");
    until("the second call is answered", async || answers() == 4).await;

    let mut admin = connect(&database.admin_url).await;
    let sql = "select count(*), count(distinct request_id) from tenantry.audit_event
               where action like '%/UpdateTenant' and changes like '%Renamed%'";
    let (rows, requests): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut admin).await.unwrap();
    assert_eq!((rows, requests), (1, 1));
    assert_eq!(server.terminate().0, Some(0));
}

#[test]
fn every_shell_is_given_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(tenantry(["completions", shell]));
        for word in ["provision", "session-hours", "at-period-end"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (code, _, err) = output(tenantry(["completions", "cmd"]));
    assert_eq!(code, 2, "{err}");
}
