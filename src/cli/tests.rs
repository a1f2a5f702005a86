//! Operator commands against a server that answers as the contract says: what they send, and what they print.
#![expect(clippy::disallowed_methods, reason = "a server's answers, made by hand")]

use std::sync::{Arc, Mutex};

use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::rpc::v1::tenant_service_server::{TenantService, TenantServiceServer};
use crate::rpc::v1::{self, Tenant, TenantStatus};

/// What the server was asked: the key, and the request as text.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

#[derive(Clone, Default)]
struct Fake {
    asked: Asked,
    away: Arc<Mutex<usize>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Fake {
    fn note<T: std::fmt::Debug>(&self, request: &Request<T>) -> Result<(), Status> {
        let key = request.metadata().get("x-api-key").map_or("", |key| key.to_str().unwrap()).to_owned();
        self.asked.lock().unwrap().push((key, format!("{:?}", request.get_ref())));
        let mut away = self.away.lock().unwrap();
        if *away == 0 {
            return Ok(());
        }
        *away -= 1;
        let details =
            ErrorDetails::with_error_info("DATABASE_UNAVAILABLE", "tenantry", std::collections::HashMap::new());
        Err(Status::with_error_details(Code::Unavailable, "the database cannot be reached", details))
    }
}

fn acme(number: usize) -> Tenant {
    Tenant {
        tenant_id: format!("id-{number}"),
        slug: format!("acme-{number}"),
        display_name: "Acme Ltd".to_owned(),
        status: TenantStatus::Active.into(),
        plan: "free".to_owned(),
        create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 123_456_000 }),
        ..Tenant::default()
    }
}

fn unexpected<T>() -> Answer<T> {
    Err(Status::unimplemented("no command calls this"))
}

#[tonic::async_trait]
impl TenantService for Fake {
    async fn list_tenants(&self, request: Request<v1::ListTenantsRequest>) -> Answer<v1::ListTenantsResponse> {
        self.note(&request)?;
        let request = request.into_inner();
        let first: usize = request.page_token.parse().unwrap_or(0);
        // Pages of two, which a server may always choose.
        let next = first + 2;
        let next_page_token = if next < 5 { next.to_string() } else { String::new() };
        let tenants = (first..next.min(5)).map(acme).collect();
        Ok(Response::new(v1::ListTenantsResponse { tenants, next_page_token }))
    }

    async fn get_tenant(&self, request: Request<v1::GetTenantRequest>) -> Answer<v1::GetTenantResponse> {
        self.note(&request)?;
        Ok(Response::new(v1::GetTenantResponse { tenant: Some(acme(0)) }))
    }

    async fn create_tenant(&self, request: Request<v1::CreateTenantRequest>) -> Answer<v1::CreateTenantResponse> {
        self.note(&request)?;
        Ok(Response::new(v1::CreateTenantResponse { tenant: Some(acme(0)) }))
    }

    async fn suspend_tenant(&self, request: Request<v1::SuspendTenantRequest>) -> Answer<v1::SuspendTenantResponse> {
        self.note(&request)?;
        let suspend_reason = request.into_inner().reason;
        let tenant = Tenant { status: TenantStatus::Suspended.into(), suspend_reason, ..acme(0) };
        Ok(Response::new(v1::SuspendTenantResponse { tenant: Some(tenant) }))
    }

    async fn activate_tenant(&self, request: Request<v1::ActivateTenantRequest>) -> Answer<v1::ActivateTenantResponse> {
        self.note(&request)?;
        Ok(Response::new(v1::ActivateTenantResponse { tenant: Some(acme(0)) }))
    }

    async fn list_my_tenants(&self, _: Request<v1::ListMyTenantsRequest>) -> Answer<v1::ListMyTenantsResponse> {
        unexpected()
    }
    async fn update_tenant(&self, _: Request<v1::UpdateTenantRequest>) -> Answer<v1::UpdateTenantResponse> {
        unexpected()
    }
    async fn check_slug(&self, _: Request<v1::CheckSlugRequest>) -> Answer<v1::CheckSlugResponse> {
        unexpected()
    }
    async fn resolve_tenant(&self, _: Request<v1::ResolveTenantRequest>) -> Answer<v1::ResolveTenantResponse> {
        unexpected()
    }
    async fn delete_tenant(&self, _: Request<v1::DeleteTenantRequest>) -> Answer<v1::DeleteTenantResponse> {
        unexpected()
    }
    async fn undelete_tenant(&self, _: Request<v1::UndeleteTenantRequest>) -> Answer<v1::UndeleteTenantResponse> {
        unexpected()
    }
}

/// Starts the server on a free port.
async fn serving(fake: &Fake, tls: Option<ServerTlsConfig>) -> (String, tokio::task::AbortHandle) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let router = server.add_service(TenantServiceServer::new(fake.clone()));
    let task = tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, task.abort_handle())
}

/// Types a command, and gives back what it printed.
async fn typed_at(server: &str, words: &[&str]) -> Result<String, CliError> {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "tk_operator\n").unwrap();
    let shared = ["--server", server, "--key-file", key.path().to_str().unwrap()];
    let cli = Cli::try_parse_from(["tenantry", "tenant"].iter().chain(words).chain(&shared))?;
    let mut out = Vec::new();
    dispatch(cli, &mut out).await.map(|()| String::from_utf8(out).unwrap())
}

/// Types a command at a fresh server without TLS.
async fn typed(fake: &Fake, words: &[&str]) -> Result<String, CliError> {
    let (address, server) = serving(fake, None).await;
    let outcome = typed_at(&format!("http://{address}"), words).await;
    server.abort();
    outcome
}

#[tokio::test]
async fn a_list_goes_through_all_pages() {
    let fake = Fake::default();
    let shown = typed(&fake, &["list", "--status", "active", "--slug-prefix", "ac"]).await.unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "SLUG    NAME      STATUS  PLAN  CREATED               ID");
    assert_eq!(lines[5], "acme-4  Acme Ltd  active  free  2023-11-14T22:13:20Z  id-4");
    assert_eq!(lines.len(), 6);
    let asked = fake.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|(key, text)| key == "tk_operator" && text.contains("slug_prefix: \"ac\"")), "{asked:?}");
}

#[tokio::test]
async fn a_limit_ends_a_list_and_json_is_an_object_a_line() {
    let fake = Fake::default();
    let shown = typed(&fake, &["list", "--json", "--limit", "3"]).await.unwrap();
    let slugs: Vec<_> =
        shown.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["slug"].clone()).collect();
    assert_eq!(slugs, ["acme-0", "acme-1", "acme-2"]);
    assert_eq!(fake.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_keys_of_the_json_are_stable() {
    let shown = typed(&Fake::default(), &["suspend", "acme-0", "--reason", "unpaid", "--json"]).await.unwrap();
    assert_eq!(
        shown,
        r#"{"tenant_id":"id-0","slug":"acme-0","display_name":"Acme Ltd","status":"suspended","#.to_owned()
            + r#""suspend_reason":"unpaid","plan":"free","create_time":"2023-11-14T22:13:20.123456Z","#
            + r#""update_time":null,"delete_time":null,"purge_time":null,"etag":""}"#
            + "\n"
    );
}

#[tokio::test]
async fn a_change_is_repeated_once_with_the_same_request_id() {
    let fake = Fake::default();
    *fake.away.lock().unwrap() = 1;
    let shown = typed(&fake, &["activate", "acme-0"]).await.unwrap();
    assert!(shown.starts_with("slug     acme-0\nname     Acme Ltd\nstatus   active\n"), "{shown}");
    let asked = fake.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1]);
    assert!(asked[0].1.contains("request_id: \"") && !asked[0].1.contains("request_id: \"\""), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_stays_away_is_a_failure_with_its_reason() {
    let fake = Fake::default();
    *fake.away.lock().unwrap() = 5;
    let create = ["create", "--slug", "acme", "--name", "Acme Ltd", "--owner-email", "ada@example.com"];
    let error = typed(&fake, &create).await.unwrap_err();
    assert_eq!(error.report(), "error: the database cannot be reached\n  reason: DATABASE_UNAVAILABLE\n");
    assert_eq!(error.exit_code(), ExitCode::from(1));
    assert_eq!(fake.asked.lock().unwrap().len(), 2);

    assert!(typed(&fake, &["show", "acme"]).await.is_err());
    assert_eq!(fake.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn mutual_tls_needs_both_certificates() {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(&cert, &key));
    let (address, server) = serving(&Fake::default(), Some(tls.client_ca_root(Certificate::from_pem(&cert)))).await;
    let url = format!("https://{address}");

    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert.pem", &cert), file("key.pem", &key));
    let shown = typed_at(&url, &["show", "acme", "--ca", &cert, "--cert", &cert, "--key", &key]).await.unwrap();
    assert!(shown.starts_with("slug     acme-0"), "{shown}");
    assert!(typed_at(&url, &["show", "acme", "--ca", &cert]).await.is_err(), "the server asks for a certificate");
    let stranger = typed_at(&url, &["show", "acme", "--cert", &cert, "--key", &key]).await.unwrap_err();
    assert!(matches!(stranger, CliError::Unreachable { .. }), "the system does not know this authority: {stranger}");
    server.abort();
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    let usage =
        Cli::try_parse_from(["tenantry", "tenant", "suspend", "acme"]).map(drop).map_err(CliError::from).unwrap_err();
    assert_eq!(usage.exit_code(), ExitCode::from(2));
}
