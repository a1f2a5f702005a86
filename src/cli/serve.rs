//! `tenantry serve`: opens everything, listens, and closes it again in order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;
use uuid::Uuid;

use super::CliError;
use super::pulse::{beat, pulse, tell, write_noted};
use crate::app::App;
use crate::app::activity::Activity;
use crate::app::catalogue;
use crate::app::changes::FeedLooks;
use crate::app::denials::Denials;
use crate::app::first_start::{self, KeySettings};
use crate::app::key_uses::KeyUses;
use crate::app::mail::Letters;
use crate::app::passwords::{Cost, Passwords};
use crate::app::sign_up::SignUpMode;
use crate::app::usage::accounts::{Quota, hear, recall_fenced};
use crate::app::usage::verify::{ToVerify, Verified};
use crate::config::{Serve, SignUp};
use crate::decide::Plane;
use crate::decide::catalogues::Catalogues;
use crate::decide::memory::Memory;
use crate::decide::quota::timer::SystemTimer;
use crate::decide::quota::{Engine, Settings};
use crate::decide::roles::OwnRoles;
use crate::decide::token::Audiences;
use crate::domain::host::OwnHosts;
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::domain::secret::Secret;
use crate::domain::session::SessionLimits;
use crate::domain::throttle::AttemptLimits;
use crate::http::{self, Readiness};
use crate::jobs;
use crate::outside::courier::Courier;
use crate::outside::dns::Dns;
use crate::outside::http::{Http, Reach};
use crate::outside::mail_files::MailFiles;
use crate::outside::oidc::Oidc;
use crate::outside::smtp::{self, Relay, Security, Smtp};
use crate::outside::{Mailer, Resolver};
use crate::rpc::access::Access;
use crate::rpc::front::{FrontLayer, Limits};
use crate::rpc::gate::Gate;
use crate::rpc::stream::Streams;
use crate::rpc::{self, DESCRIPTORS};
use crate::store::Store;
use crate::store::quota::QuotaRows;
use crate::telemetry::{self, Telemetry};
use crate::time::{Clock, SystemClock};

/// How long what is done outside has to finish when the server stops, after the requests have.
const LANES_FINISH: Duration = Duration::from_secs(5);

/// What tests set and nobody else.
pub struct Fittings {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What a password hash costs.
    pub cost: Cost,
}

impl Default for Fittings {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), cost: Cost::default() }
    }
}

/// A server that runs.
pub struct Running {
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Whether this start made the operator's key.
    pub operator_key_made: bool,
    app: Arc<App>,
    stop_grpc: oneshot::Sender<()>,
    stop_http: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    telling: JoinHandle<std::io::Result<()>>,
    pulse: JoinHandle<()>,
    noted: JoinHandle<()>,
    jobs: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    lanes: Vec<JoinHandle<()>>,
    quota: Vec<JoinHandle<()>>,
    following: JoinHandle<()>,
    stop: watch::Sender<bool>,
    ready: watch::Sender<Readiness>,
    reporter: HealthReporter,
    drain: Duration,
}

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, and what to do about it.
pub(super) async fn run(config: Serve) -> Result<(), CliError> {
    config.check()?;
    let telemetry = telemetry::init(&config)?;
    let upkeep = tokio::spawn(Telemetry::upkeep(telemetry.metrics()));
    let mut server = start(&config, Fittings::default(), telemetry.metrics()).await?;
    // Heard from before anybody is told that it serves: who asks for a stop right then gets one.
    let stop = stop_signals()?;
    // Whoever started it may have stopped reading.
    let _ = writeln!(std::io::stdout(), "{}", greeting(&config, &server));
    tokio::select! {
        () = stop => {}
        // A listener that ends by itself is a failure, not a stop.
        ended = &mut server.serving => {
            return Err(CliError::Failed(format!("the gRPC port closed by itself: {ended:?}")));
        }
    }
    tracing::info!("stopping: requests under way are finished");
    server.stop().await;
    upkeep.abort();
    telemetry.shutdown().await;
    Ok(())
}

/// Opens everything and listens.
///
/// # Errors
/// What keeps it from starting, and what to do about it.
pub async fn start(config: &Serve, fittings: Fittings, metrics: PrometheusHandle) -> Result<Running, CliError> {
    let (app, operator_key_made) = open(config, fittings).await?;
    let app = Arc::new(app);
    let (ready, readiness) = watch::channel(Readiness::NotReady("starting"));

    let grpc = listen(config.listen).await?;
    let (stop_grpc, grpc_stopped) = oneshot::channel::<()>();
    let grpc_address = grpc.local_addr()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let (stop, stopping) = watch::channel(false);
    let router = router(config, app.clone(), stopping.clone())?.add_service(health);
    let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true));
    let serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, async {
        let _ = grpc_stopped.await;
    }));

    let plain = listen(config.http_listen).await?;
    let http_address = plain.local_addr()?;
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let telling = tokio::spawn(http::serve(plain, metrics, readiness, jwks(&app), async {
        let _ = http_stopped.await;
    }));

    beat(&app.store, &ready, &reporter).await;
    let quota = meter(&app).await?;
    let followed = app.clone();
    let following = tokio::spawn(async move { followed.plane.follow().await });
    let pulse = tokio::spawn(pulse(app.clone(), ready.clone(), reporter.clone()));
    let noted = tokio::spawn(write_noted(app.clone()));
    let jobs = tokio::spawn(jobs::run(app.clone()));
    let upkeep = tokio::spawn(jobs::upkeep(app.clone()));
    let lane = |lane: &_| tokio::spawn(jobs::run_lane(app.clone(), *lane, stopping.clone()));
    let lanes = jobs::LANES.iter().map(lane).collect();
    Ok(Running {
        grpc: grpc_address,
        http: http_address,
        operator_key_made,
        app,
        stop_grpc,
        stop_http,
        serving,
        telling,
        pulse,
        noted,
        jobs,
        upkeep,
        lanes,
        quota,
        following,
        stop,
        ready,
        reporter,
        drain: config.drain,
    })
}

/// Sets the quota engine going: its lanes, what looks after its leases, and what hears other servers.
async fn meter(app: &Arc<App>) -> Result<Vec<JoinHandle<()>>, CliError> {
    let engine = &app.quota.engine;
    let failed = |fault| CliError::Failed(format!("the quota engine cannot begin: {fault:?}"));
    engine.open().await.map_err(failed)?;
    engine.meet().await.map_err(failed)?;
    let lane = |lane| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.run_lane(lane).await })
    };
    let mut tasks: Vec<JoinHandle<()>> = (0..engine.lanes()).map(lane).collect();
    let (waiting, keeper, hearing, fencing) = (engine.clone(), engine.clone(), engine.clone(), engine.clone());
    let (of_others, own) = (QuotaRows(app.store.clone()), QuotaRows(app.store.clone()));
    tasks.push(tokio::spawn(async move { waiting.run_waiting().await }));
    tasks.push(tokio::spawn(async move { keeper.run_keeper().await }));
    tasks.push(tokio::spawn(async move { hear(&of_others, &hearing).await }));
    tasks.push(tokio::spawn(async move { recall_fenced(&own, &fencing).await }));
    Ok(tasks)
}

impl Running {
    /// Writes what was noted and runs the jobs that are due, now and until there are none; how many there were. For whoever
    /// has moved the clock.
    ///
    /// # Errors
    /// That the database does not answer.
    pub async fn run_due_jobs(&self) -> Result<usize, CliError> {
        let mut total = 0;
        self.app.write_activity().await;
        loop {
            let inside = self.app.run_due_jobs().await.map_err(|e| CliError::Failed(e.to_string()))?;
            let outside = jobs::run_lanes_once(&self.app).await.map_err(|e| CliError::Failed(e.to_string()))?;
            match inside + outside {
                0 => return Ok(total),
                some => total += some,
            }
        }
    }

    /// How old the state is that decisions are made on; none before the change feed was read.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.app.plane.memory.staleness()
    }

    /// Forgets what is kept in memory of rows; for whoever has changed some behind the server's back.
    pub fn forget(&self) {
        self.app.plane.memory.forget();
    }

    /// Looks at the books of all tenants, or of one; for whoever has used something, and wants to see what does not agree.
    ///
    /// # Errors
    /// That the database does not answer.
    pub async fn verify_usage(&self, tenant: Option<TenantId>) -> Result<Vec<Verified>, CliError> {
        let mut left = tenant.map_or(ToVerify::After(TenantId(Uuid::nil())), ToVerify::One);
        let mut all = Vec::new();
        loop {
            match self.app.verify_next(&mut left).await.map_err(|e| CliError::Failed(e.to_string()))? {
                Some(verified) => all.push(verified),
                None => return Ok(all),
            }
        }
    }

    /// Stops: says that it is not ready, finishes what is under way, closes the database.
    pub async fn stop(mut self) {
        self.pulse.abort();
        // What a job was in the middle of is rolled back, and done by whoever claims it next.
        self.jobs.abort();
        self.upkeep.abort();
        // Letters under way are finished: what is cut off is sent again. Streams that have no end by themselves end.
        let _ = self.stop.send(true);
        let lanes = std::mem::take(&mut self.lanes);
        let lanes = async {
            for lane in lanes {
                let _ = lane.await;
            }
        };
        // A task that was aborted still runs up to where it next waits.
        let _ = self.pulse.await;
        let _ = self.jobs.await;
        let _ = self.upkeep.await;
        tell(&self.ready, &self.reporter, Readiness::NotReady("stopping")).await;
        let _ = self.stop_grpc.send(());
        if tokio::time::timeout(self.drain, &mut self.serving).await.is_err() {
            tracing::warn!("some requests did not finish in time and were cut off");
        }
        let _ = tokio::time::timeout(LANES_FINISH, lanes).await;
        // What was promised is written, what is leased given back; what does not get that far others take back.
        if tokio::time::timeout(LANES_FINISH, self.app.quota.engine.stop()).await.is_err() {
            tracing::warn!("leases could not be given back; the other servers take them back in seconds");
        }
        self.quota.iter().for_each(JoinHandle::abort);
        self.following.abort();
        let _ = self.stop_http.send(());
        let _ = tokio::time::timeout(Duration::from_secs(5), self.telling).await;
        // Waits for those in hand, then writes the rest.
        let _ = tokio::time::timeout(Duration::from_secs(5), self.app.write_denials()).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), self.app.write_activity()).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), self.app.write_key_uses()).await;
        self.noted.abort();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.app.store.close()).await;
    }
}

/// The use cases on their database, with the keys that belong to it.
async fn open(config: &Serve, fittings: Fittings) -> Result<(App, bool), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let given = config.catalogue.as_ref().map(|path| {
        let unreadable = |source| CliError::File { flag: "--catalogue", path: path.clone(), source };
        std::fs::read_to_string(path).map_err(unreadable)
    });
    let given = given.transpose()?;
    let default_tenant = config.default_tenant.as_deref().map(TenantName::parse).transpose();
    let default_tenant = default_tenant.map_err(|e| CliError::Failed(format!("--default-tenant {e}")))?;
    let store = match (&config.database_url, config.system_url(), config.meter_url()) {
        (Some(app), Some(system), Some(meter)) => {
            let (app, system, meter) = (app.reveal(), system.reveal(), meter.reveal());
            Store::open_postgres(app, system, meter, config.database_connections).await
        }
        _ => Store::open_sqlite(&config.data_dir).await,
    };
    let store = Arc::new(store.map_err(|e| failed(&e))?);
    let settings = KeySettings {
        master_key_file: config.master_key_path(),
        operator_key_file: config.operator_key_path(),
        issuer: config.issuer.clone(),
        audiences: Audiences {
            own: config.audience.clone(),
            others: config.extra_audiences.clone(),
            of_tenant: config.tenant_audience.clone(),
        },
    };
    let now = fittings.clock.now();
    let catalogue =
        catalogue::at_start(&store, given.as_deref(), &Access::names(), now).await.map_err(|e| failed(&e))?;
    let keys = first_start::keys(&store, &settings, fittings.clock.now()).await.map_err(|e| failed(&e))?;
    let reach = if config.allow_private_addresses { Reach::Private } else { Reach::Public };
    let resolver: Arc<dyn Resolver> = Arc::new(Dns::new(config.dns_server));
    let quota = quota(&store, &fittings.clock);
    let app = App {
        feed_looks: FeedLooks::default(),
        plane: Plane {
            memory: Memory::new(store.marks.clone(), config.max_staleness, config.memory_entries),
            store: store.clone(),
            tokens: keys.tokens,
            catalogues: Catalogues::new(catalogue),
            own_roles: OwnRoles::default(),
        },
        store,
        master: keys.master,
        passwords: Passwords::new(fittings.cost, config.argon2_permits).map_err(|e| failed(&e))?,
        sessions: session_limits(config),
        signing_key_period: span(config.signing_key_period),
        sign_up_mode: match config.sign_up_mode() {
            SignUp::Immediate => SignUpMode::Immediate,
            SignUp::Confirm => SignUpMode::Confirm,
        },
        attempts: attempt_limits(config),
        quota,
        denials: Denials::default(),
        activity: Activity::default(),
        key_uses: KeyUses::default(),
        clock: fittings.clock,
        hosts: OwnHosts { base_domain: config.base_domain.clone(), api: config.api_hosts.clone() },
        oidc: Oidc::new(Http::new(reach).map_err(|e| failed(&e))?),
        courier: Courier::new(&resolver, config.webhook_allow.clone()),
        resolver,
        letters: letters(config)?,
        mailer: mailer(config)?,
        default_tenant,
    };
    Ok((app, keys.operator_key_made))
}

/// The quota engine, at rest. One process on SQLite has one writer, so one lane.
fn quota(store: &Arc<Store>, clock: &Arc<dyn Clock>) -> Quota {
    let timer = SystemTimer::new(clock.clone());
    let lanes = if store.is_embedded() { 1 } else { Settings::default().lanes };
    let settings = Settings { lanes, ..Settings::default() };
    Quota::new(Engine::new(QuotaRows(store.clone()), timer.clone(), settings), timer, store.is_embedded())
}

/// What shows the published keys.
fn jwks(app: &Arc<App>) -> http::Jwks {
    let app = app.clone();
    Arc::new(move || app.jwks())
}

/// A span of time; one beyond chrono's hundreds of thousands of years is for ever.
fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// How letters read.
fn letters(config: &Serve) -> Result<Letters, CliError> {
    let platform = smtp::sender(&config.mail_from).map_err(|e| CliError::Failed(format!("--mail-from {e}")))?;
    let platform = platform.name.unwrap_or_else(|| platform.email.domain().to_owned());
    let missing = || CliError::Failed("--public-url is missing".to_owned());
    let public_url = config.public_url().ok_or_else(missing)?;
    let letters = Letters::load(config.mail_templates.as_deref(), public_url, platform);
    letters.map_err(|e| CliError::Failed(format!("--mail-templates: {e}")))
}

/// What sends letters.
fn mailer(config: &Serve) -> Result<Box<dyn Mailer>, CliError> {
    let failed = |e: String| CliError::Failed(format!("--mail: {e}"));
    let Some(server) = config.mail.server().map_err(|e| failed(e.to_owned()))? else {
        let files = MailFiles::new(&config.data_dir.join("mail"), &config.mail_from);
        return Ok(Box::new(files.map_err(failed)?));
    };
    let authority = config.mail_ca.as_ref().map(|path| {
        std::fs::read(path).map_err(|source| CliError::File { flag: "--mail-ca", path: path.clone(), source })
    });
    let relay = Relay {
        host: server.host,
        port: server.port,
        security: match server.scheme.as_str() {
            "smtps" => Security::Tls,
            "smtp" => Security::StartTls,
            _ => Security::Plain,
        },
        sign_in: server.sign_in.map(|(user, password)| (user, Secret::new(password))),
        authority: authority.transpose()?,
    };
    Ok(Box::new(Smtp::new(&relay, &config.mail_from).map_err(failed)?))
}

/// How long sessions last.
fn session_limits(config: &Serve) -> SessionLimits {
    SessionLimits {
        idle: span(config.session_idle),
        length: span(config.session_length),
        remembered_idle: span(config.remembered_session_idle),
        remembered_length: span(config.remembered_session_length),
        per_account: config.max_sessions.into(),
    }
}

/// How many wrong passwords are let through.
fn attempt_limits(config: &Serve) -> AttemptLimits {
    AttemptLimits {
        per_source: config.sign_in_attempts.into(),
        total: config.sign_in_attempts_total.into(),
        window: TimeDelta::from_std(config.sign_in_window).unwrap_or(TimeDelta::MAX),
        interval: TimeDelta::seconds(30),
    }
}

/// Everything that gRPC serves.
type Served = Router<tower::layer::util::Stack<FrontLayer, tower::layer::util::Identity>>;

/// Everything that gRPC serves, behind the front and the gate.
fn router(config: &Serve, app: Arc<App>, stopping: watch::Receiver<bool>) -> Result<Served, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(e.to_string());
    let streams = Streams::new((config.max_concurrent_requests / 16).max(1));
    let gate = Arc::new(Gate { app, trusted_proxies: config.trusted_proxies.clone(), streams, stopping });
    let limits = Limits { concurrency: config.max_concurrent_requests, deadline: config.max_deadline };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut server = Server::builder();
    if let Some(tls) = tls(config)? {
        server = server.tls_config(tls).map_err(|e| failed(&e))?;
    }
    Ok(server
        .max_concurrent_streams(128)
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_mins(1)))
        .max_connection_age(config.max_connection_age)
        .max_connection_age_grace(config.drain)
        .layer(FrontLayer::new(gate.clone(), limits))
        .add_routes(rpc::services(gate, config.max_message_bytes))
        .add_service(reflection().build_v1().map_err(|e| failed(&e))?)
        .add_service(reflection().build_v1alpha().map_err(|e| failed(&e))?))
}

fn tls(config: &Serve) -> Result<Option<ServerTlsConfig>, CliError> {
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
    let read = |flag, path: &std::path::Path| {
        std::fs::read(path).map_err(|source| CliError::File { flag, path: path.to_owned(), source })
    };
    let identity = Identity::from_pem(read("--tls-cert", cert)?, read("--tls-key", key)?);
    let mut tls = ServerTlsConfig::new().identity(identity);
    if let Some(authorities) = &config.tls_client_ca {
        tls = tls.client_ca_root(Certificate::from_pem(read("--tls-client-ca", authorities)?));
    }
    Ok(Some(tls))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| CliError::Failed(format!("cannot listen on {address}: {e}")))
}

/// What a person who just started it wants to know.
fn greeting(config: &Serve, server: &Running) -> String {
    let database = match &config.database_url {
        Some(url) => url.to_string(),
        None => format!("SQLite in {}", config.data_dir.display()),
    };
    let scheme = if config.tls_cert.is_some() { "https" } else { "http" };
    let plain = if config.tls_cert.is_some() { "" } else { "-plaintext " };
    let key = config.operator_key_path();
    let made = if server.operator_key_made { " (just made; keep it safe)" } else { "" };
    format!(
        "tenantry {version} serves\n  gRPC          {scheme}://{grpc}\n  HTTP          http://{http}/metrics, /healthz, \
         /readyz\n  database      {database}\n  operator key  {key}{made}\nTry:\n  grpcurl {plain}{grpc} list\n  \
         tenantry tenant list --server {scheme}://{grpc} --key-file {key}",
        version = env!("CARGO_PKG_VERSION"),
        grpc = server.grpc,
        http = server.http,
        key = key.display(),
    )
}

/// What ends with SIGTERM or SIGINT; both are heard from the call on.
fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
