//! What lies below the methods: TLS, health, reflection, metrics, deadlines and bounds.

use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tenantry::rpc::v1;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::harness::{Bed, Clients, Engine, Headers, assert_refused, on_both_engines, unique, until};
use crate::program::get;
use crate::startup::{connect, run};

on_both_engines! {
    health_and_reflection_know_the_services
    the_metrics_count_requests
}

const SERVICES: [&str; 4] = [
    "tenantry.v1.AuthService",
    "tenantry.v1.MembershipService",
    "tenantry.v1.TenantService",
    "tenantry.v1.UsageService",
];

fn slug(slug: &str) -> v1::CheckSlugRequest {
    v1::CheckSlugRequest { slug: slug.to_owned() }
}

/// Lists services by one version of reflection.
macro_rules! listed {
    ($version:ident, $t:expr) => {{
        use tonic_reflection::pb::$version as pb;
        let ask = pb::server_reflection_request::MessageRequest::ListServices(String::new());
        let request = pb::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
        let mut client = pb::server_reflection_client::ServerReflectionClient::new($t.channel());
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        match answers.message().await.unwrap().unwrap().message_response.unwrap() {
            pb::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

async fn health_and_reflection_know_the_services(t: &Bed) {
    let mut health = HealthClient::new(t.channel());
    for service in SERVICES.into_iter().chain([""]) {
        let told = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
        assert_eq!(told.into_inner().status, 1, "{service:?} is SERVING");
    }
    let unknown = health.check(HealthCheckRequest { service: "tenantry.v1.Nothing".to_owned() }).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    for names in [listed!(v1, t), listed!(v1alpha, t)] {
        for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
            assert!(names.iter().any(|name| name == service), "{service}: {names:?}");
        }
    }
    assert_eq!(get(&t.http, "/readyz").await.0, 200);
}

async fn the_metrics_count_requests(t: &Bed) {
    let count = async |code: &str| -> u64 {
        let (_, text) = get(&t.http, "/metrics").await;
        let of_method = |line: &&str| {
            line.starts_with("tenantry_requests_total{")
                && line.contains("method=\"AuthService/WhoAmI\"")
                && line.contains(&format!("code=\"{code}\""))
        };
        let value = text.lines().find(of_method).and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(0)
    };
    let before = (count("Ok").await, count("Unauthenticated").await);
    t.operator().auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    assert_refused(
        t.anonymous().auth.who_am_i(v1::WhoAmIRequest {}).await,
        Code::Unauthenticated,
        "CREDENTIAL_MISSING",
    );
    // Tests of both engines share one process, and so the counters.
    assert!(count("Ok").await > before.0 && count("Unauthenticated").await > before.1);
    assert!(get(&t.http, "/metrics").await.1.contains("tenantry_request_seconds_bucket{"));
}

/// Holds what every write needs, until dropped.
enum Blocker {
    Postgres { _conn: PgConnection },
    Sqlite { _conn: SqliteConnection },
}

impl Blocker {
    async fn new(t: &Bed) -> Self {
        if let Some(database) = &t.database {
            let mut conn = connect(&database.admin_url).await;
            run(&mut conn, "begin; lock table tenantry.quota_account").await;
            return Self::Postgres { _conn: conn };
        }
        let url = format!("sqlite://{}", t.dir.path().join("tenantry.db").display());
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("begin immediate").execute(&mut conn).await.unwrap();
        Self::Sqlite { _conn: conn }
    }
}

fn consume() -> v1::ConsumeRequest {
    let amounts = vec![v1::Amount { metric: "tokens".to_owned(), amount: 1 }];
    v1::ConsumeRequest { amounts, ..Default::default() }
}

async fn a_deadline_is_honoured(t: Bed) {
    let acme = t.tenant("acme").await;
    let mut usage = t.with_token(&acme.owner.token).usage;
    let blocker = Blocker::new(&t).await;
    let mut request = Request::new(consume());
    // Not set_timeout, by which the client itself would give up: this is about the server.
    request.metadata_mut().insert("grpc-timeout", "400m".parse().unwrap());
    let begun = Instant::now();
    assert_refused(usage.consume(request).await, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let took = begun.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&took), "{took:?}");
    let mut malformed = Request::new(consume());
    malformed.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_refused(usage.consume(malformed).await, Code::InvalidArgument, "METADATA_MALFORMED");
    drop(blocker);
    until("writes go on", async || usage.clone().consume(consume()).await.is_ok()).await;
}

async fn too_many_at_once_are_told_to_come_back(t: Bed) {
    let acme = t.tenant("acme").await;
    let clients = t.with_token(&acme.owner.token);
    let blocker = Blocker::new(&t).await;
    let slow = tokio::spawn({
        let mut usage = clients.usage.clone();
        async move {
            // The question whether the turn is taken takes it, too, for a moment.
            loop {
                match usage.consume(consume()).await {
                    Err(status) if status.code() == Code::ResourceExhausted => {}
                    other => return other,
                }
            }
        }
    });
    let refused = async || -> Option<Status> { t.anonymous().tenants.check_slug(slug("acme")).await.err() };
    until("the only turn is taken", async || refused().await.is_some()).await;
    let status = refused().await.expect("still taken");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_details_error_info().unwrap().reason, "OVERLOADED");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    // Health is no request of ours: an overloaded server is not a dead one.
    assert!(HealthClient::new(t.channel()).check(HealthCheckRequest { service: String::new() }).await.is_ok());
    drop(blocker);
    slow.await.unwrap().expect("the slow one was never harmed");
    assert!(refused().await.is_none());
}

macro_rules! on_private_beds {
    ($($test:ident $flags:expr;)*) => {
        mod private_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Bed::private(super::Engine::Sqlite, &$flags).await).await;
            })*
        }
        mod private_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Bed::private(super::Engine::Postgres, &$flags).await).await;
            })*
        }
    };
}

on_private_beds! {
    a_deadline_is_honoured [];
    too_many_at_once_are_told_to_come_back ["--max-concurrent-requests=1"];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_be_as_large_as_the_flag_says() {
    let t = Bed::private(Engine::Sqlite, &["--max-message-bytes=20000", "--max-deadline=1"]).await;
    let mut tenants = t.anonymous().tenants;
    assert!(tenants.check_slug(slug(&"x".repeat(19_000))).await.is_ok(), "taken, and no slug");
    let too_large = tenants.check_slug(slug(&"x".repeat(20_001))).await;
    assert_refused(too_large, Code::InvalidArgument, "BODY_MALFORMED");

    // The server's own bound holds for those who bring no deadline.
    let acme = t.tenant("acme").await;
    let _blocker = Blocker::new(&t).await;
    let begun = Instant::now();
    let refused = t.with_token(&acme.owner.token).usage.consume(consume()).await;
    assert_refused(refused, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// An authority with a certificate for the server and one for a client, in files.
pub(crate) struct Papers {
    authority: String,
    client: Identity,
}

impl Papers {
    pub(crate) fn write(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |usage| {
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let (certificate, key) = issue(ExtendedKeyUsagePurpose::ServerAuth);
        for (end, text) in [("ca", &issuer.pem()), ("cert", &certificate), ("key", &key)] {
            std::fs::write(dir.join(format!("{name}.{end}")), text).unwrap();
        }
        let (certificate, key) = issue(ExtendedKeyUsagePurpose::ClientAuth);
        for (end, text) in [("client.cert", &certificate), ("client.key", &key)] {
            std::fs::write(dir.join(format!("{name}.{end}")), text).unwrap();
        }
        Self { authority: issuer.pem(), client: Identity::from_pem(certificate, key) }
    }

    /// What a client believes, and what it shows.
    fn client(&self, shows: Option<&Identity>) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.authority));
        shows.map_or(tls.clone(), |identity| tls.identity(identity.clone()))
    }
}

/// Asks over TLS, or without.
async fn ask(t: &Bed, tls: Option<ClientTlsConfig>) -> Result<(), Status> {
    let endpoint = match tls {
        Some(tls) => Endpoint::from_shared(t.address.replace("http://", "https://")).unwrap().tls_config(tls).unwrap(),
        None => Endpoint::from_shared(t.address.clone()).unwrap(),
    };
    let clients = Clients::new(endpoint.timeout(Duration::from_secs(5)).connect_lazy(), Headers::default());
    clients.tenants.clone().check_slug(slug(&unique("x"))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_plain_text_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (papers, others) = (Papers::write(dir.path(), "ours"), Papers::write(dir.path(), "others"));
    let file = |end: &str| dir.path().join(format!("ours.{end}")).display().to_string();
    let flags = [format!("--tls-cert={}", file("cert")), format!("--tls-key={}", file("key"))];
    let t = Bed::private(Engine::Sqlite, &[&flags[0], &flags[1]]).await;
    ask(&t, Some(papers.client(None))).await.unwrap();
    ask(&t, None).await.unwrap_err();
    ask(&t, Some(others.client(None))).await.unwrap_err();

    let authority = format!("--tls-client-ca={}", file("ca"));
    let t = Bed::private(Engine::Sqlite, &[&flags[0], &flags[1], &authority]).await;
    ask(&t, Some(papers.client(Some(&papers.client)))).await.unwrap();
    ask(&t, Some(papers.client(None))).await.unwrap_err();
    ask(&t, Some(papers.client(Some(&others.client)))).await.unwrap_err();
    ask(&t, None).await.unwrap_err();
}
