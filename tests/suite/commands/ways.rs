//! The way to a server: TLS, a database that is away for a while; and what shells are given.

use std::time::Duration;

use super::{command, done};
use crate::cluster::{Cluster, Stop};
use crate::harness::{Bed, Engine, Headers, PASSWORD, unique};
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

/// The command calls once while the database is away, and once more when it is back: its waiting time is long enough for a
/// start, and a start that is slower gives exit 1, after which the test stops the database again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_repeated_once_under_the_same_request_id() {
    let cluster = Cluster::private();
    let database = cluster.fresh_database().await;
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let server = Program::start(&data, serve(&data, Some(&database)));
    let slug = unique("acme");
    let request = tenantry::rpc::v1::SignUpRequest {
        email: format!("{slug}@example.com"),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: Some(tenantry::rpc::v1::NewTenant { display_name: slug.clone(), slug: slug.clone() }),
        ..Default::default()
    };
    server.clients(Headers::default()).auth.sign_up(request).await.expect("signs up");
    let update = |name: &str| {
        let mut update = tenantry(["tenant", "update", &slug, "--name", name, "--server", &server.grpc]);
        update.env("TENANTRY_OPERATOR_KEY", server.operator_key());
        update
    };
    let named = |name: &str| format!("changed {name}");
    let mut tries = 0;
    let done = loop {
        tries += 1;
        tokio::task::block_in_place(|| cluster.stop(Stop::Fast));
        let child = std::thread::spawn({
            let update = update(&named(&tries.to_string()));
            move || output(update)
        });
        // The first call is under way or refused by now; the second comes after its waiting time.
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| cluster.start_again());
        let (code, out, err) = tokio::task::block_in_place(|| child.join().unwrap());
        crate::harness::until("ready again", async || get(&server.http, "/readyz").await.0 == 200).await;
        if code == 0 {
            break out;
        }
        assert!(code == 1 && err.contains("DATABASE_UNAVAILABLE"), "{err}");
        assert!(tries < 5, "the database was never back in time: {err}");
    };
    assert!(done.contains(&named(&tries.to_string())), "{done}");
    let mut admin = connect(&database.admin_url).await;
    let sql = "select count(*), count(distinct request_id) from tenantry.audit_event where changes like $1";
    let (rows, requests): (i64, i64) =
        sqlx::query_as(sql).bind(format!("%changed {tries}%")).fetch_one(&mut admin).await.unwrap();
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
