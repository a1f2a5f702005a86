//! What a server can be told: every flag of `tenantry serve`, with its environment variable. The comments on the
//! fields are what `--help` prints. Not the catalogue of plans and metrics, which is data.

mod check;
mod database_url;
mod mail_url;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use ipnet::IpNet;
use url::Url;

pub use self::check::ConfigError;
pub use self::database_url::DatabaseUrl;
pub use self::mail_url::{MailServer, MailUrl};

/// Flags of `tenantry serve`. Every one has a default: without any, a server with its own SQLite database starts.
#[derive(Args, Debug, Clone)]
pub struct Serve {
    /// Address and port of gRPC
    #[arg(long, env = "TENANTRY_LISTEN", default_value = "127.0.0.1:50051", value_name = "ADDRESS:PORT")]
    #[arg(help_heading = "Addresses")]
    pub listen: SocketAddr,

    /// Address and port of plain HTTP: /metrics, /healthz, /readyz. Without authentication, so keep it inside
    #[arg(long, env = "TENANTRY_HTTP_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS:PORT")]
    #[arg(help_heading = "Addresses")]
    pub http_listen: SocketAddr,

    /// Directory of the SQLite database and of generated keys; made when it is missing
    #[arg(long, env = "TENANTRY_DATA_DIR", default_value = "data", value_name = "DIR", help_heading = "Data")]
    pub data_dir: PathBuf,

    /// PostgreSQL, as the role `tenantry_app`: `postgres://tenantry_app:PASSWORD@HOST/DATABASE`. SQLite in the data
    /// directory when absent. Better set in the environment: arguments can be seen by every user of the machine
    #[arg(long, env = "TENANTRY_DATABASE_URL", hide_env_values = true, value_name = "URL", help_heading = "Data")]
    pub database_url: Option<DatabaseUrl>,

    /// PostgreSQL for the few paths that cross tenants, as the role `tenantry_system`. The database URL with the user
    /// replaced when absent
    #[arg(long, env = "TENANTRY_SYSTEM_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    #[arg(help_heading = "Data")]
    pub system_database_url: Option<DatabaseUrl>,

    /// PostgreSQL for counting usage, as the role `tenantry_meter`, with up to 8 connections of its own. The database URL
    /// with the user replaced when absent
    #[arg(long, env = "TENANTRY_METER_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    #[arg(help_heading = "Data")]
    pub meter_database_url: Option<DatabaseUrl>,

    /// Connections to the database, at most; with PostgreSQL as many for each of the first two roles
    #[arg(long, env = "TENANTRY_DATABASE_CONNECTIONS", default_value_t = 16, value_name = "N")]
    #[arg(help_heading = "Data")]
    pub database_connections: u32,

    /// TOML file with metrics, roles and plans; a built-in example when absent
    #[arg(long, env = "TENANTRY_CATALOGUE", value_name = "FILE", help_heading = "Data")]
    pub catalogue: Option<PathBuf>,

    /// File with the key that signing keys are encrypted under; made when missing. `DATA_DIR/master.key` when absent
    #[arg(long, env = "TENANTRY_MASTER_KEY_FILE", value_name = "FILE", help_heading = "Keys and tokens")]
    pub master_key_file: Option<PathBuf>,

    /// File that the first operator key is written to. `DATA_DIR/operator.key` when absent
    #[arg(long, env = "TENANTRY_OPERATOR_KEY_FILE", value_name = "FILE", help_heading = "Keys and tokens")]
    pub operator_key_file: Option<PathBuf>,

    /// `iss` of access tokens
    #[arg(long, env = "TENANTRY_ISSUER", default_value = "tenantry", help_heading = "Keys and tokens")]
    pub issuer: String,

    /// `aud` of access tokens
    #[arg(long, env = "TENANTRY_AUDIENCE", default_value = "tenantry", help_heading = "Keys and tokens")]
    pub audience: String,

    /// Further `aud` of access tokens, separated by commas: services that verify them by the published keys
    #[arg(long, env = "TENANTRY_EXTRA_AUDIENCES", value_name = "AUDIENCE,..", value_delimiter = ',')]
    #[arg(help_heading = "Keys and tokens")]
    pub extra_audiences: Vec<String>,

    /// One more `aud` of access tokens that name a tenant, such as `https://{tenant_id}.api.example.com`
    #[arg(long, env = "TENANTRY_TENANT_AUDIENCE", default_value = "", value_name = "TEMPLATE")]
    #[arg(help_heading = "Keys and tokens")]
    pub tenant_audience: String,

    /// Seconds after which another key signs access tokens
    #[arg(long, env = "TENANTRY_SIGNING_KEY_PERIOD", default_value = "2592000", value_name = "SECONDS")]
    #[arg(value_parser = seconds, help_heading = "Keys and tokens")]
    pub signing_key_period: Duration,

    /// Seconds after which a session ends that is not refreshed
    #[arg(long, env = "TENANTRY_SESSION_IDLE", default_value = "43200", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Sessions")]
    pub session_idle: Duration,

    /// Seconds that a session lasts at most; a tenant's settings may shorten it
    #[arg(long, env = "TENANTRY_SESSION_LENGTH", default_value = "604800", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Sessions")]
    pub session_length: Duration,

    /// --session-idle for those who asked to be remembered
    #[arg(long, env = "TENANTRY_REMEMBERED_SESSION_IDLE", default_value = "2592000", value_name = "SECONDS")]
    #[arg(value_parser = seconds, help_heading = "Sessions")]
    pub remembered_session_idle: Duration,

    /// --session-length for those who asked to be remembered
    #[arg(long, env = "TENANTRY_REMEMBERED_SESSION_LENGTH", default_value = "7776000", value_name = "SECONDS")]
    #[arg(value_parser = seconds, help_heading = "Sessions")]
    pub remembered_session_length: Duration,

    /// Sessions that an account has at most; beyond it, those that were not refreshed for longest end
    #[arg(long, env = "TENANTRY_MAX_SESSIONS", default_value_t = 50, value_name = "N", help_heading = "Sessions")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_sessions: u16,

    /// How people sign up: at once, or by a link that is sent to their address, which then does not tell whether it has an
    /// account. At once with SQLite, by a link with PostgreSQL, unless said
    #[arg(long, env = "TENANTRY_SIGN_UP", value_name = "MODE", help_heading = "Passwords")]
    pub sign_up: Option<SignUp>,

    /// Wrong passwords for one account from one network (or on one known device) before sign-in is slowed; a tenant's
    /// settings may allow fewer
    #[arg(long, env = "TENANTRY_SIGN_IN_ATTEMPTS", default_value_t = 10, value_name = "N", help_heading = "Passwords")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub sign_in_attempts: u16,

    /// Wrong passwords for one account from everywhere; beyond it each further network has one attempt in half a minute
    #[arg(long, env = "TENANTRY_SIGN_IN_ATTEMPTS_TOTAL", default_value_t = 100, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10000), help_heading = "Passwords")]
    pub sign_in_attempts_total: u16,

    /// Seconds for which a wrong password is remembered
    #[arg(long, env = "TENANTRY_SIGN_IN_WINDOW", default_value = "900", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Passwords")]
    pub sign_in_window: Duration,

    /// Domain under which tenants are found by subdomain: with example.com, acme.example.com is tenant acme
    #[arg(long, env = "TENANTRY_BASE_DOMAIN", value_name = "DOMAIN", value_parser = base_domain)]
    #[arg(help_heading = "Finding the tenant")]
    pub base_domain: Option<String>,

    /// Other names that callers reach this server by, separated by commas. With a base domain every other host names a
    /// tenant, or nobody, and calls to it are refused
    #[arg(long, env = "TENANTRY_API_HOSTS", value_name = "HOST,..", value_delimiter = ',')]
    #[arg(value_parser = api_host, help_heading = "Finding the tenant")]
    pub api_hosts: Vec<String>,

    /// Name server that custom domains are verified by and webhooks found; those of /etc/resolv.conf when absent
    #[arg(long, env = "TENANTRY_DNS_SERVER", value_name = "ADDRESS:PORT", help_heading = "Finding the tenant")]
    pub dns_server: Option<SocketAddr>,

    /// Lets calls to addresses that tenants choose, such as those of their identity providers, go into private networks, and
    /// to this machine without TLS too: for development, and where providers are inside
    #[arg(long, env = "TENANTRY_ALLOW_PRIVATE_ADDRESSES", help_heading = "Calls to others")]
    pub allow_private_addresses: bool,

    /// Proxies whose x-forwarded-host and x-forwarded-for count: addresses or CIDR ranges, separated by commas
    #[arg(long, env = "TENANTRY_TRUSTED_PROXIES", value_name = "CIDR,..", value_delimiter = ',')]
    #[arg(value_parser = network, help_heading = "Finding the tenant")]
    pub trusted_proxies: Vec<IpNet>,

    /// Tenant, by slug or id, of requests that nothing else assigns to one
    #[arg(long, env = "TENANTRY_DEFAULT_TENANT", value_name = "TENANT", help_heading = "Finding the tenant")]
    pub default_tenant: Option<String>,

    /// Where mail goes: `file`, into `DATA_DIR/mail`; `smtps://USER:PASSWORD@HOST:PORT` with TLS from the start;
    /// `smtp://..` with STARTTLS, without which nothing is sent; `smtp+plain://..` without TLS. Better set in the
    /// environment: arguments can be seen by every user of the machine
    #[arg(long, env = "TENANTRY_MAIL", default_value = "file", hide_env_values = true, value_name = "WHERE")]
    #[arg(help_heading = "Mail")]
    pub mail: MailUrl,

    /// Who mail comes from. The name is that of the product in mail that is of no tenant
    #[arg(
        long,
        env = "TENANTRY_MAIL_FROM",
        default_value = "tenantry <no-reply@localhost>",
        value_name = "NAME <ADDRESS>"
    )]
    #[arg(help_heading = "Mail")]
    pub mail_from: String,

    /// Where the product's pages are: links in mail lead to /accept-invitation, /confirm-sign-up, /verify-email, /reset-password, /sign-in,
    /// /forgot-password, /account, /account/sessions and /settings/{billing,keys,usage,webhooks} below it, with ?token=
    /// where one is needed. `http://localhost:3000` for mail into files when absent; needed for a mail server
    #[arg(long, env = "TENANTRY_PUBLIC_URL", value_name = "URL", value_parser = public_url, help_heading = "Mail")]
    pub public_url: Option<Url>,

    /// Directory with letters of your own: LOCALE.toml, letter.txt and letter.html, or LETTER.txt and LETTER.html for one
    #[arg(long, env = "TENANTRY_MAIL_TEMPLATES", value_name = "DIR", help_heading = "Mail")]
    pub mail_templates: Option<PathBuf>,

    /// PEM certificates of authorities, besides the system's, that may have certified the mail server
    #[arg(long, env = "TENANTRY_MAIL_CA", value_name = "FILE", help_heading = "Mail")]
    pub mail_ca: Option<PathBuf>,

    /// Networks of your own that webhooks may call besides the public Internet, also over http: CIDR ranges, separated by
    /// commas. All others that are not public are refused, this machine's among them
    #[arg(long, env = "TENANTRY_WEBHOOK_ALLOW", value_name = "CIDR,..", value_delimiter = ',')]
    #[arg(value_parser = network, help_heading = "Webhooks")]
    pub webhook_allow: Vec<IpNet>,

    /// PEM certificate chain of the gRPC port; with it, TLS is on
    #[arg(long, env = "TENANTRY_TLS_CERT", value_name = "FILE", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,

    /// PEM private key of the certificate
    #[arg(long, env = "TENANTRY_TLS_KEY", value_name = "FILE", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,

    /// PEM certificates of the authorities that clients must be certified by (mutual TLS)
    #[arg(long, env = "TENANTRY_TLS_CLIENT_CA", value_name = "FILE", help_heading = "TLS")]
    pub tls_client_ca: Option<PathBuf>,

    /// Largest message taken, in bytes
    #[arg(long, env = "TENANTRY_MAX_MESSAGE_BYTES", default_value_t = 1 << 20, value_name = "BYTES")]
    #[arg(help_heading = "Limits")]
    pub max_message_bytes: usize,

    /// Requests worked on at once; beyond it callers are told to come back later
    #[arg(long, env = "TENANTRY_MAX_CONCURRENT_REQUESTS", default_value_t = 1024, value_name = "N")]
    #[arg(help_heading = "Limits")]
    pub max_concurrent_requests: usize,

    /// Longest time a request may take, in seconds, whatever the caller's deadline
    #[arg(long, env = "TENANTRY_MAX_DEADLINE", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Limits")]
    pub max_deadline: Duration,

    /// How long after a right was taken away a request may still be decided on what was before, in seconds, on other servers
    /// than the one that took it: as a rule it is some milliseconds, never more than this. It is also how long decisions go
    /// on when the database is lost
    #[arg(long, env = "TENANTRY_MAX_STALENESS", default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Limits")]
    pub max_staleness: Duration,

    /// Sessions, members, tenants, keys and names of each of which so many are kept in memory, at most
    #[arg(long, env = "TENANTRY_MEMORY_ENTRIES", default_value_t = 100_000, value_name = "N")]
    #[arg(help_heading = "Limits")]
    pub memory_entries: usize,

    /// Age in seconds at which a connection is closed gracefully, so that load spreads to new replicas
    #[arg(long, env = "TENANTRY_MAX_CONNECTION_AGE", default_value = "3600", value_name = "SECONDS")]
    #[arg(value_parser = seconds, help_heading = "Limits")]
    pub max_connection_age: Duration,

    /// Seconds that requests under way are given to finish on SIGTERM
    #[arg(long, env = "TENANTRY_DRAIN", default_value = "20", value_name = "SECONDS", value_parser = seconds)]
    #[arg(help_heading = "Limits")]
    pub drain: Duration,

    /// Passwords hashed at once, 19 MiB each; the number of processors unless said
    #[arg(long, env = "TENANTRY_ARGON2_PERMITS", default_value_t = processors(), value_name = "N")]
    #[arg(help_heading = "Limits")]
    pub argon2_permits: usize,

    /// Form of the log on stderr; text on a terminal, json elsewhere, unless said
    #[arg(long, env = "TENANTRY_LOG_FORMAT", value_name = "FORMAT", help_heading = "Log")]
    pub log_format: Option<LogFormat>,

    /// What is logged: a level, or levels by module, as in `info,tenantry=debug`
    #[arg(long, env = "TENANTRY_LOG", default_value = "info", value_name = "FILTER", help_heading = "Log")]
    pub log: String,
}

/// How people sign up.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// At once.
    Immediate,
    /// By a link in a mail.
    Confirm,
}

/// Form of the log.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

impl Serve {
    /// The configuration without any flag: environment and defaults.
    ///
    /// # Errors
    /// An environment variable cannot be read as what it should be.
    pub fn from_env() -> Result<Self, clap::Error> {
        Self::from_args(["tenantry"])
    }

    /// The configuration with these flags, of which the first word is the program's name.
    ///
    /// # Errors
    /// A flag or environment variable is unknown or cannot be read as what it should be.
    pub fn from_args<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Self, clap::Error> {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            serve: Serve,
        }
        Alone::try_parse_from(args).map(|alone| alone.serve)
    }

    /// Where the master key is.
    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.master_key_file.clone().unwrap_or_else(|| self.data_dir.join("master.key"))
    }

    /// How people sign up.
    #[must_use]
    pub fn sign_up_mode(&self) -> SignUp {
        let usual = if self.database_url.is_some() { SignUp::Confirm } else { SignUp::Immediate };
        self.sign_up.unwrap_or(usual)
    }

    /// Where the operator key is written to.
    #[must_use]
    pub fn operator_key_path(&self) -> PathBuf {
        self.operator_key_file.clone().unwrap_or_else(|| self.data_dir.join("operator.key"))
    }

    /// Where the product's pages are.
    #[must_use]
    pub fn public_url(&self) -> Option<Url> {
        self.public_url.clone().or_else(|| Url::parse("http://localhost:3000").ok())
    }

    /// PostgreSQL for paths that cross tenants; none when the server keeps its rows in SQLite.
    #[must_use]
    pub fn system_url(&self) -> Option<DatabaseUrl> {
        let said = self.system_database_url.clone();
        said.or_else(|| self.database_url.as_ref()?.with_user("tenantry_system"))
    }

    /// PostgreSQL for counting usage; none when the server keeps its rows in SQLite.
    #[must_use]
    pub fn meter_url(&self) -> Option<DatabaseUrl> {
        let said = self.meter_database_url.clone();
        said.or_else(|| self.database_url.as_ref()?.with_user("tenantry_meter"))
    }
}

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|_| "a whole number of seconds is wanted".to_owned())
}

/// Reads the address of the product's pages.
fn public_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let plain = |url: &Url| url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    url.filter(plain).ok_or_else(|| "an address such as https://app.example.com is wanted".to_owned())
}

/// Reads an address or a range of addresses.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let single = text.parse::<std::net::IpAddr>().map(IpNet::from);
    single.or_else(|_| text.parse()).map_err(|_| "an address or range such as 10.0.0.0/8 is wanted".to_owned())
}

/// Reads a domain name: labels with dots between them, in lower case afterwards.
fn base_domain(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let of_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(of_label);
    if !text.split('.').all(is_label) {
        return Err("a domain such as example.com is wanted, without scheme and port".to_owned());
    }
    Ok(text)
}

/// Reads a host name, which is compared without port and final dot, in lower case.
fn api_host(text: &str) -> Result<String, String> {
    base_domain(text.trim())
        .map_err(|_| "a host such as grpc.example.org is wanted, without scheme and port".to_owned())
}

/// How many processors there are to work on.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
