//! Mail over a real mail server: with TLS and a password, over its failures, and over the death of the sender.

use std::path::Path;

use chrono::TimeDelta;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tenantry::rpc::v1;

use crate::harness::{Bed, Engine, on_both_engines, unique, until};
use crate::node::Node;
use crate::program::{Program, serve};

on_both_engines! {
    mail_goes_over_tls_to_whoever_knows_the_password
    a_mail_server_that_is_down_delays_mail_and_loses_none
    a_mail_server_that_knows_the_password_no_more_loses_none
    mail_that_is_refused_keeps_no_other_waiting_and_is_given_up
    mail_server_without_tls_or_with_another_certificate_gets_nothing
}

/// A mail server's key and certificate, in files.
struct Identity {
    dir: TempDir,
}

impl Identity {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("cert.pem"), certificate.pem()).unwrap();
        Self { dir }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    async fn server(&self, port: u16) -> Node {
        let port = port.to_string();
        Node::start("mail-server.js", &[&port, &self.path("key.pem"), &self.path("cert.pem")]).await
    }

    /// What a sender is started with.
    fn flags(&self, port: u16) -> [String; 4] {
        [
            format!("--mail=smtp://tenantry:open%20sesame@localhost:{port}"),
            format!("--mail-ca={}", self.path("cert.pem")),
            "--mail-from=Acme <no-reply@acme.example>".to_owned(),
            "--public-url=https://app.acme.example".to_owned(),
        ]
    }
}

async fn bed(engine: Engine, flags: &[String]) -> Bed {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Bed::private(engine, &flags).await
}

/// Makes somebody be written to, at an address that begins like this.
async fn welcome(operator: &mut crate::harness::Clients, name: &str) -> String {
    let email = format!("{}@example.com", unique(name));
    let request = v1::ProvisionTenantRequest {
        display_name: "Acme".to_owned(),
        slug: unique("acme"),
        admin_email: email.clone(),
        admin_name: "Ada".to_owned(),
        ..Default::default()
    };
    operator.tenants.provision_tenant(request).await.unwrap();
    email
}

fn mails<'a>(said: &'a [serde_json::Value], address: &str) -> Vec<&'a str> {
    said.iter().filter(|said| said["to"] == address).filter_map(|said| said["mail"].as_str()).collect()
}

fn message_id(mail: &str) -> &str {
    mail.lines().find(|line| line.starts_with("Message-ID: ")).expect("a Message-ID")
}

async fn mail_goes_over_tls_to_whoever_knows_the_password(t: &Bed) {
    let identity = Identity::new();
    let server = identity.server(0).await;
    let t = bed(t.engine, &identity.flags(server.port)).await;
    let address = welcome(&mut t.operator(), "ada").await;
    let came = server.wait("it came", |said| said["to"] == *address).await;
    assert_eq!((&came["secure"], &came["user"]), (&true.into(), &"tenantry".into()));
    let mail = came["mail"].as_str().unwrap();
    for part in ["From: Acme <no-reply@acme.example>", "Subject: Acme is ready", "https://app.acme.example/sign-in"] {
        assert!(mail.contains(part), "{part}: {mail}");
    }
    assert!(message_id(mail).ends_with("@acme.example>"), "{mail}");
    // Nothing is left in files.
    assert!(!t.dir.path().join("mail").exists());
}

async fn a_mail_server_that_is_down_delays_mail_and_loses_none(t: &Bed) {
    let identity = Identity::new();
    let server = identity.server(0).await;
    let port = server.port;
    drop(server);
    let t = bed(t.engine, &identity.flags(port)).await;
    let mut addresses = Vec::new();
    for name in ["one", "two", "three", "busy"] {
        addresses.push(welcome(&mut t.operator(), name).await);
    }
    let failed = "select count(*) from job where kind = 'mail' and last_error is not null and subject <> $1";
    let nobody = uuid::Uuid::nil().to_string();
    until("all have failed", async || {
        t.run_jobs().await;
        t.rows::<(i64,)>(failed, &nobody).await == [(4,)]
    })
    .await;
    let server = identity.server(port).await;
    until("all come", async || {
        t.clock.advance(TimeDelta::hours(1));
        t.run_jobs().await;
        addresses.iter().all(|address| !mails(&server.said(), address).is_empty())
    })
    .await;
    t.clock.advance(TimeDelta::hours(2));
    t.run_jobs().await;
    for address in &addresses {
        assert_eq!(mails(&server.said(), address).len(), 1, "{address}");
    }
}

async fn a_mail_server_that_knows_the_password_no_more_loses_none(t: &Bed) {
    let identity = Identity::new();
    let server = identity.server(0).await;
    let mut flags = identity.flags(server.port);
    let right = flags.clone();
    for flag in &mut flags {
        *flag = flag.replace("open%20sesame", "wrong");
    }
    assert_ne!(flags, right);
    let t = bed(t.engine, &flags).await;
    let address = welcome(&mut t.operator(), "patient").await;
    let failed = "select count(*) from job where kind = 'mail' and last_error is not null and subject <> $1";
    let nobody = uuid::Uuid::nil().to_string();
    until("it fails", async || t.rows::<(i64,)>(failed, &nobody).await == [(1,)]).await;
    t.clock.advance(TimeDelta::days(2));
    t.run_jobs().await;
    let given_up = "select count(*) from outbox where status = 3 and message_id <> $1";
    assert_eq!(t.rows::<(i64,)>(given_up, &nobody).await, [(0,)], "the refusal says nothing of the letter");
    assert!(mails(&server.said(), &address).is_empty());
}

async fn mail_that_is_refused_keeps_no_other_waiting_and_is_given_up(t: &Bed) {
    let identity = Identity::new();
    let server = identity.server(0).await;
    let t = bed(t.engine, &identity.flags(server.port)).await;
    let mut poison = Vec::new();
    for _ in 0..20 {
        poison.push(welcome(&mut t.operator(), "poison").await);
    }
    let good = welcome(&mut t.operator(), "good").await;
    server.wait("the good one comes", |said| said["to"] == *good).await;
    let given_up = "select count(*) from outbox where status = 3 and message_id <> $1";
    let nobody = uuid::Uuid::nil().to_string();
    assert_eq!(t.rows::<(i64,)>(given_up, &nobody).await, [(0,)], "the fault may be the mail server's");
    t.clock.advance(TimeDelta::hours(23));
    t.run_jobs().await;
    assert_eq!(t.rows::<(i64,)>(given_up, &nobody).await, [(0,)], "not before a day has passed");
    t.clock.advance(TimeDelta::hours(2));
    until("they are given up", async || {
        t.run_jobs().await;
        t.rows::<(i64,)>(given_up, &nobody).await == [(20,)]
    })
    .await;
    assert!(poison.iter().all(|address| mails(&server.said(), address).is_empty()));
    let late = welcome(&mut t.operator(), "late").await;
    server.wait("mail goes on", |said| said["to"] == *late).await;
}

async fn mail_server_without_tls_or_with_another_certificate_gets_nothing(t: &Bed) {
    let (identity, other) = (Identity::new(), Identity::new());
    let server = identity.server(0).await;
    let mut flags = identity.flags(server.port);
    flags[1] = format!("--mail-ca={}", other.path("cert.pem"));
    let t = bed(t.engine, &flags).await;
    welcome(&mut t.operator(), "ada").await;
    let failed = "select count(*) from job where kind = 'mail' and last_error is not null and subject <> $1";
    let nobody = uuid::Uuid::nil().to_string();
    until("it has failed", async || {
        t.run_jobs().await;
        t.rows::<(i64,)>(failed, &nobody).await == [(1,)]
    })
    .await;
    assert!(server.said().iter().all(|said| said.get("asked").is_none()), "{:?}", server.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_is_killed_before_it_hears_repeats_itself_recognisably() {
    let identity = Identity::new();
    let server = identity.server(0).await;
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let start = |data: &Path| {
        let mut command = serve(data, None);
        command.args(identity.flags(server.port));
        Program::start(data, command)
    };
    let program = start(&data);
    let address = welcome(&mut program.operator(), "held").await;
    server.wait("it was taken", |said| said["to"] == *address).await;
    program.kill();
    // The lease of the dead server ends by itself; here it is cut short.
    let url = format!("sqlite://{}", data.join("tenantry.db").display());
    let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::query("update job set leased_until = 0 where kind = 'mail'").execute(&mut conn).await.unwrap();
    sqlx::Connection::close(conn).await.unwrap();
    let _program = start(&data);
    until("it comes again", async || mails(&server.said(), &address).len() == 2).await;
    let said = server.said();
    let both = mails(&said, &address);
    assert_eq!(message_id(both[0]), message_id(both[1]));
}
