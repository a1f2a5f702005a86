//! The way to a server: where it is, whom to believe, and the operator key. Shared by all commands that are clients.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use clap::Args;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::CliError;
use crate::rpc::v1::auth_service_client::AuthServiceClient;
use crate::rpc::v1::membership_service_client::MembershipServiceClient;
use crate::rpc::v1::tenant_service_client::TenantServiceClient;
use crate::rpc::v1::usage_service_client::UsageServiceClient;

/// How long reaching the server may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The longest wait before a call is repeated.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Environment variable with the operator key itself. Not a flag: arguments can be seen by every user of the machine.
const KEY_VARIABLE: &str = "TENANTRY_OPERATOR_KEY";

/// Flags of all commands that speak to a server.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server")]
pub(super) struct Connect {
    /// Address of the server; https:// for TLS
    #[arg(long, global = true, env = "TENANTRY_SERVER", default_value = "http://127.0.0.1:50051", value_name = "URL")]
    server: String,

    /// File with the operator key. `TENANTRY_OPERATOR_KEY`, with the key itself, comes before it
    #[arg(long, global = true, env = "TENANTRY_OPERATOR_KEY_FILE", default_value = "data/operator.key")]
    #[arg(value_name = "FILE")]
    key_file: PathBuf,

    /// PEM certificates of the authorities that the server must be certified by; the system's own when absent
    #[arg(long, global = true, env = "TENANTRY_SERVER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// PEM certificate to show to a server that asks for one (mutual TLS)
    #[arg(long, global = true, env = "TENANTRY_CLIENT_CERT", value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// PEM private key of that certificate
    #[arg(long, global = true, env = "TENANTRY_CLIENT_KEY", value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// A client of `TenantService` that sends the operator key.
pub(super) type Tenants = TenantServiceClient<InterceptedService<Channel, OperatorKey>>;

/// A client of `AuthService` that sends the operator key.
pub(super) type Auth = AuthServiceClient<InterceptedService<Channel, OperatorKey>>;

/// A client of `MembershipService` that sends the operator key.
pub(super) type Members = MembershipServiceClient<InterceptedService<Channel, OperatorKey>>;

/// A client of `UsageService` that sends the operator key.
pub(super) type Usages = UsageServiceClient<InterceptedService<Channel, OperatorKey>>;

/// Puts the operator key into every call, and how long its answer may take; streams may take as long as they go on. The key
/// is marked sensitive, so that nothing prints it.
#[derive(Clone)]
pub(super) struct OperatorKey {
    key: MetadataValue<Ascii>,
    deadline: Option<Duration>,
}

impl Interceptor for OperatorKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-api-key", self.key.clone());
        // Also told to the server, which then need not finish what nobody waits for.
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        Ok(request)
    }
}

impl Connect {
    /// Reads the operator key and connects.
    pub(super) async fn tenants(&self) -> Result<Tenants, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        let channel = self.channel().await?;
        Ok(TenantServiceClient::with_interceptor(channel, key))
    }

    /// The same for `AuthService`.
    pub(super) async fn auth(&self) -> Result<Auth, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        Ok(AuthServiceClient::with_interceptor(self.channel().await?, key))
    }

    /// The same for `MembershipService`.
    pub(super) async fn members(&self) -> Result<Members, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        Ok(MembershipServiceClient::with_interceptor(self.channel().await?, key))
    }

    /// The same for streams, which have no deadline.
    pub(super) async fn streams(&self) -> Result<Tenants, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        let key = OperatorKey { deadline: None, ..key };
        Ok(TenantServiceClient::with_interceptor(self.channel().await?, key))
    }

    /// The same for `UsageService`.
    pub(super) async fn usage(&self) -> Result<Usages, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        Ok(UsageServiceClient::with_interceptor(self.channel().await?, key))
    }

    /// The same for its streams.
    pub(super) async fn usage_streams(&self) -> Result<Usages, CliError> {
        let key = self.operator_key(env::var(KEY_VARIABLE).ok())?;
        let key = OperatorKey { deadline: None, ..key };
        Ok(UsageServiceClient::with_interceptor(self.channel().await?, key))
    }

    /// The key in the environment, or else in the file.
    fn operator_key(&self, variable: Option<String>) -> Result<OperatorKey, CliError> {
        let (text, origin) = match variable.filter(|key| !key.trim().is_empty()) {
            Some(key) => (key, KEY_VARIABLE.to_owned()),
            None => (self.key_in_file()?, self.key_file.display().to_string()),
        };
        let Ok(mut value) = MetadataValue::try_from(text.trim()) else { return Err(CliError::KeyMalformed(origin)) };
        if value.is_empty() {
            return Err(CliError::KeyMalformed(origin));
        }
        value.set_sensitive(true);
        Ok(OperatorKey { key: value, deadline: Some(DEADLINE) })
    }

    fn key_in_file(&self) -> Result<String, CliError> {
        let missing = |source| CliError::KeyMissing { path: self.key_file.clone(), source };
        fs::read_to_string(&self.key_file).map_err(missing)
    }

    /// A connection, made at once, so that a server that is away can be told from one that refuses.
    async fn channel(&self) -> Result<Channel, CliError> {
        let wrong = |_| CliError::Server(self.server.clone());
        let endpoint = Endpoint::from_shared(self.server.clone()).map_err(wrong)?;
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(DEADLINE);
        let endpoint = match endpoint.uri().scheme_str() {
            Some("http") => endpoint,
            Some("https") => endpoint.tls_config(self.tls()?).map_err(|source| self.unreachable(source))?,
            _ => return Err(CliError::Server(self.server.clone())),
        };
        endpoint.connect().await.map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: tonic::transport::Error) -> CliError {
        CliError::Unreachable { server: self.server.clone(), source }
    }

    fn tls(&self) -> Result<ClientTlsConfig, CliError> {
        let tls = ClientTlsConfig::new();
        let tls = match &self.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("--ca", path)?)),
            None => tls.with_native_roots(),
        };
        let (Some(cert), Some(key)) = (&self.cert, &self.key) else { return Ok(tls) };
        Ok(tls.identity(Identity::from_pem(read("--cert", cert)?, read("--key", key)?)))
    }
}

/// The bytes of a file that a flag names.
pub(super) fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path).map_err(|source| CliError::File { flag, path: path.to_owned(), source })
}

/// Makes a call that has a request id, and once more when the server was away: it may or may not have been done, and
/// the id makes the second time harmless.
pub(super) async fn twice<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let status = match call().await {
        Err(status) if status.code() == Code::Unavailable => status,
        answer => return answer,
    };
    let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    tokio::time::sleep(wait.unwrap_or(Duration::from_millis(200)).min(LONGEST_WAIT)).await;
    call().await
}

/// Makes a call that has a request id, twice if need be, and gives its answer.
macro_rules! repeatable {
    ($client:ident.$method:ident($request:expr)) => {{
        let request = $request;
        let answer = $crate::cli::connect::twice(async || $client.clone().$method(request.clone()).await).await;
        answer.map(tonic::Response::into_inner)
    }};
}
pub(super) use repeatable;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        connect: Connect,
    }

    fn connect(args: &[&str]) -> Connect {
        Alone::parse_from(["tenantry"].iter().chain(args)).connect
    }

    #[test]
    fn the_key_in_the_environment_comes_first_and_is_never_printed() {
        let key = connect(&["--key-file", "/nowhere"]).operator_key(Some(" tk_secret\n".to_owned())).unwrap();
        assert_eq!(key.key.to_str().unwrap(), "tk_secret");
        assert!(!format!("{:?}", key.key).contains("tk_secret"));
    }

    #[test]
    fn a_missing_key_file_is_told_with_what_to_do() {
        let Err(error) = connect(&["--key-file", "/nowhere/operator.key"]).operator_key(Some(String::new())) else {
            panic!("there is no key")
        };
        let report = error.report();
        assert!(report.contains("/nowhere/operator.key") && report.contains("TENANTRY_OPERATOR_KEY"), "{report}");
    }

    #[tokio::test]
    async fn an_absent_server_is_told_from_a_wrong_address() {
        let absent = connect(&["--server", "http://127.0.0.1:1"]).channel().await.unwrap_err();
        assert!(absent.report().contains("Is it running?"), "{}", absent.report());
        for wrong in ["127.0.0.1:50051", "ftp://127.0.0.1", ""] {
            let error = connect(&["--server", wrong]).channel().await.unwrap_err();
            assert!(matches!(error, CliError::Server(_)), "{wrong}: {error:?}");
        }
    }
}
