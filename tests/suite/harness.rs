//! Servers for tests, and people to call them. One server an engine is shared by all tests, each of which makes tenants
//! of its own; a test that moves the clock or stops things takes a private one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::TimeDelta;
use tempfile::TempDir;
use tenantry::app::passwords::Cost;
use tenantry::cli::serve::{self, Fittings, Running};
use tenantry::config::Serve;
use tenantry::domain::id::TenantId;
use tenantry::domain::period::Period;
use tenantry::rpc::v1;
use tenantry::rpc::v1::auth_service_client::AuthServiceClient;
use tenantry::rpc::v1::membership_service_client::MembershipServiceClient;
use tenantry::rpc::v1::set_limit_override_request::Value as Much;
use tenantry::rpc::v1::tenant_service_client::TenantServiceClient;
use tenantry::rpc::v1::usage_service_client::UsageServiceClient;
use tenantry::telemetry::Telemetry;
use tenantry::time::{AdjustableClock, Clock as _};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::cluster::{Cluster, Database};
use crate::dns::name_server;

/// Names test functions, and runs each on both engines: those that take `&Bed` on the shared server, those after `alone`,
/// which take a `Bed`, on one of their own.
macro_rules! on_both_engines {
    ($($test:ident)*) => { $crate::harness::on_both_engines! { $($test)*; alone } };
    ($($test:ident)*; alone $($alone:ident)*) => {
        mod sqlite {
            $crate::harness::on_one_engine! { Sqlite: $($test)*; $($alone)* }
        }
        mod postgres {
            $crate::harness::on_one_engine! { Postgres: $($test)*; $($alone)* }
        }
    };
}
macro_rules! on_one_engine {
    ($engine:ident: $($test:ident)*; $($alone:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let bed = $crate::harness::Bed::shared($crate::harness::Engine::$engine).await;
            $crate::harness::proven(bed, super::$test(bed)).await;
        })*
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $alone() {
            super::$alone($crate::harness::Bed::private($crate::harness::Engine::$engine, &[]).await).await;
        })*
    };
}
pub(crate) use on_both_engines;
pub(crate) use on_one_engine;

/// Which database a server keeps its rows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// What the tests' product is: small limits, and rates that only the tests on rates meet.
pub(crate) const CATALOGUE: &str = r#"
default_plan = "free"
[metrics.quizzes]
unit = "quizzes"
[metrics.tokens]
unit = "tokens"
[metrics.storms]
unit = "storms"
[plans.free.limits]
quizzes = 100
tokens = 1000
[plans.pro.limits]
quizzes = 5000
[[rpc_rates]]
method = "TenantService/CreateTenant"
per = "caller"
count = 5
seconds = 3600
[[rpc_rates]]
method = "MembershipService/AddMember"
per = "caller"
count = 10
seconds = 3600
"#;

/// A server, with what tests need to look behind it.
pub(crate) struct Bed {
    pub(crate) engine: Engine,
    /// Where gRPC listens.
    pub(crate) address: String,
    /// Where HTTP listens.
    pub(crate) http: String,
    /// What time the server thinks it is.
    pub(crate) clock: Arc<AdjustableClock>,
    /// The operator's key.
    pub(crate) operator_key: String,
    /// Keys, and on SQLite the database.
    pub(crate) dir: Arc<TempDir>,
    /// On PostgreSQL, the database.
    pub(crate) database: Option<Arc<Database>>,
    /// Whether nobody looks at the books when it goes: the test writes rows of its own that do not agree.
    is_spoiled: AtomicBool,
    /// None once it was stopped.
    running: Option<Running>,
}

impl Drop for Bed {
    /// A server that nobody holds any more holds no connections: there are more tests than PostgreSQL has slots. Before it
    /// goes, its books are proven, whatever the test was about.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let kept = (self.dir.clone(), self.database.clone());
            let (tell, told) = std::sync::mpsc::channel();
            let is_wanted = !std::thread::panicking() && !self.is_spoiled.load(Ordering::Relaxed);
            runtime().spawn(async move {
                let wrong = if is_wanted { wrong_books(&running, None).await } else { String::new() };
                let _ = tell.send(wrong);
                running.stop().await;
                drop(kept);
            });
            let wrong = told.recv().unwrap_or_default();
            assert!(wrong.is_empty() || std::thread::panicking(), "the books do not agree:\n{wrong}");
        }
    }
}

/// What does not agree in the books of all tenants, or of one; nothing when the database is away.
async fn wrong_books(running: &Running, tenant: Option<TenantId>) -> String {
    let verified = running.verify_usage(tenant).await.unwrap_or_default();
    let wrong = verified.iter().flat_map(|found| found.findings.iter().map(move |finding| (found.tenant, finding)));
    wrong.fold(String::new(), |mut text, (tenant, finding)| {
        let _ = writeln!(text, "{tenant}: {finding:?}");
        text
    })
}

tokio::task_local! {
    /// The tenants that a test on a shared server has made, but those whose books it spoils.
    static MADE: Mutex<Vec<TenantId>>;
}

/// Runs a test on a shared server, and proves the books of the tenants that it has made.
pub(crate) async fn proven(bed: &'static Bed, test: impl Future<Output = ()>) {
    let run = async {
        test.await;
        MADE.with(|made| made.lock().expect("a lock").clone())
    };
    let made = MADE.scope(Mutex::default(), run).await;
    let check = async move {
        let running = bed.running.as_ref().expect("runs");
        let mut wrong = String::new();
        for tenant in made {
            wrong += &wrong_books(running, Some(tenant)).await;
        }
        wrong
    };
    let wrong = runtime().spawn(check).await.expect("no panic");
    assert!(wrong.is_empty(), "the books do not agree:\n{wrong}");
}

/// Servers outlive the runtimes of single tests.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// Whether the month is about to end: no test is meant to run into the next one by itself. Said once, so that all servers'
/// clocks agree.
static LATE: OnceLock<bool> = OnceLock::new();

impl Bed {
    /// The server of an engine that all tests share.
    pub(crate) async fn shared(engine: Engine) -> &'static Self {
        static BEDS: [OnceCell<Bed>; 2] = [const { OnceCell::const_new() }; 2];
        let bed = &BEDS[usize::from(engine == Engine::Postgres)];
        bed.get_or_init(|| Self::private(engine, &[])).await
    }

    /// A server of one's own, on a database of its own, with further flags.
    pub(crate) async fn private(engine: Engine, flags: &[&str]) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Arc::new(Cluster::shared().fresh_database().await)),
        };
        Self::on(engine, Arc::new(tempfile::tempdir().expect("a directory")), database, flags).await
    }

    /// A server of one's own on a cluster that can be stopped.
    pub(crate) async fn on_cluster(cluster: &Cluster, flags: &[&str]) -> Self {
        let database = Some(Arc::new(cluster.fresh_database().await));
        Self::on(Engine::Postgres, Arc::new(tempfile::tempdir().expect("a directory")), database, flags).await
    }

    /// A server of one's own for another product.
    pub(crate) async fn of_product(engine: Engine, catalogue: &str) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Arc::new(Cluster::shared().fresh_database().await)),
        };
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        std::fs::write(dir.path().join("catalogue.toml"), catalogue).expect("a catalogue");
        Self::on(engine, dir, database, &[]).await
    }

    /// A second server on the same database; on SQLite there cannot be one.
    pub(crate) async fn sibling(&self, flags: &[&str]) -> Self {
        assert_eq!(self.engine, Engine::Postgres, "SQLite is for one process");
        let sibling = Self::on(self.engine, self.dir.clone(), self.database.clone(), flags).await;
        // The books are the first server's, which may be shared with tests that spoil them.
        sibling.is_spoiled.store(true, Ordering::Relaxed);
        sibling
    }

    /// Stops the server and starts one on the same rows, for which so much time has passed meanwhile.
    pub(crate) async fn restart_after(self, time: TimeDelta) -> Self {
        let (dir, database, clock) = (self.dir.clone(), self.database.clone(), self.clock.clone());
        let engine = self.engine;
        self.stop().await;
        clock.advance(time);
        Self::at(engine, dir, database, clock, &[]).await
    }

    /// Stops the server and starts one on the same rows.
    pub(crate) async fn restart(self) -> Self {
        self.restart_after(TimeDelta::zero()).await
    }

    /// Runs the jobs that are due by the server's clock.
    pub(crate) async fn run_jobs(&self) {
        self.running.as_ref().expect("runs").run_due_jobs().await.unwrap_or_else(|error| panic!("{}", error.report()));
    }

    /// How old the state is that the server decides on; none when it reads rows.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        self.running.as_ref().expect("runs").staleness()
    }

    /// Has the server read anew what a test has changed behind its back.
    pub(crate) fn forgets(&self) {
        self.running.as_ref().expect("runs").forget();
    }

    /// The newest mail to an address, as a person would read it: headers, then text, then HTML; runs jobs until there is
    /// one.
    pub(crate) async fn last_mail_to(&self, address: &str) -> String {
        self.mail_to(address, "").await
    }

    /// The newest mail to an address that has this text in it.
    pub(crate) async fn mail_to(&self, address: &str, text: &str) -> String {
        let found = std::cell::RefCell::new(String::new());
        until("mail arrives", async || {
            self.run_jobs().await;
            let mail = self.mails_to(address).into_iter().rfind(|mail| mail.contains(text));
            mail.map(|mail| found.replace(mail)).is_some()
        })
        .await;
        found.into_inner()
    }

    /// All mail to an address that has been written into files so far, the oldest first.
    pub(crate) fn mails_to(&self, address: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("mail")) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "eml"));
        paths.sort();
        let mails = paths.iter().map(|path| readable(&std::fs::read_to_string(path).expect("mail")));
        mails.filter(|mail| mail.lines().any(|line| line == format!("To: {address}"))).collect()
    }

    /// Stops the server, and waits until it has. Its books are proven before.
    pub(crate) async fn stop(mut self) {
        let running = self.running.take().expect("runs");
        let is_spoiled = self.is_spoiled.load(Ordering::Relaxed);
        let stopped = async move {
            let wrong = if is_spoiled { String::new() } else { wrong_books(&running, None).await };
            running.stop().await;
            wrong
        };
        let wrong = runtime().spawn(stopped).await.expect("stops");
        assert!(wrong.is_empty(), "the books do not agree:\n{wrong}");
    }

    async fn on(engine: Engine, dir: Arc<TempDir>, database: Option<Arc<Database>>, flags: &[&str]) -> Self {
        let clock = Arc::new(AdjustableClock::default());
        let late = || Period::month_of(clock.now()).end.since(clock.now()) < TimeDelta::minutes(60);
        if *LATE.get_or_init(late) {
            clock.advance(TimeDelta::minutes(65));
        }
        Self::at(engine, dir, database, clock, flags).await
    }

    async fn at(
        engine: Engine,
        dir: Arc<TempDir>,
        database: Option<Arc<Database>>,
        clock: Arc<AdjustableClock>,
        flags: &[&str],
    ) -> Self {
        let config = config(dir.path(), database.as_deref(), flags);
        let fittings = Fittings { clock: clock.clone(), cost: Cost { memory: 8, passes: 1 } };
        let metrics = Telemetry::metrics_only().expect("metrics").metrics();
        let started = runtime().spawn(async move { serve::start(&config, fittings, metrics).await });
        let running = started.await.expect("no panic").unwrap_or_else(|error| panic!("{}", error.report()));
        let operator_key = std::fs::read_to_string(dir.path().join("operator.key")).expect("the operator's key");
        Self {
            engine,
            address: format!("http://{}", running.grpc),
            http: format!("http://{}", running.http),
            clock,
            operator_key: operator_key.trim().to_owned(),
            dir,
            database,
            is_spoiled: AtomicBool::new(false),
            running: Some(running),
        }
    }

    /// Says that the test spoils the books of a tenant, so that nobody looks at them afterwards.
    pub(crate) fn spoils(&self, tenant: &str) {
        self.is_spoiled.store(true, Ordering::Relaxed);
        let id = TenantId(tenant.parse().expect("an id"));
        let _ = MADE.try_with(|made| made.lock().expect("a lock").retain(|made| *made != id));
    }

    /// A connection of the calling test's own.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).expect("an address").connect_lazy()
    }

    /// Clients without a credential.
    pub(crate) fn anonymous(&self) -> Clients {
        Clients::new(self.channel(), Headers::default())
    }

    /// Clients with an access token.
    pub(crate) fn with_token(&self, token: &str) -> Clients {
        Clients::new(self.channel(), Headers::default().and("authorization", &format!("Bearer {token}")))
    }

    /// Clients with a key.
    pub(crate) fn with_key(&self, key: &str) -> Clients {
        Clients::new(self.channel(), Headers::default().and("x-api-key", key))
    }

    /// Clients with the operator's key.
    pub(crate) fn operator(&self) -> Clients {
        self.with_key(&self.operator_key)
    }

    /// Signs somebody up, without a tenant.
    pub(crate) async fn person(&self, name: &str) -> Person {
        self.sign_up(name, None).await.0
    }

    /// Signs an owner up with a tenant.
    pub(crate) async fn tenant(&self, name: &str) -> Tenant {
        let slug = unique(name);
        let (owner, tenant) = self.sign_up(&format!("{name}-owner"), Some(slug)).await;
        let tenant = tenant.expect("a tenant");
        let id = TenantId(tenant.tenant_id.parse().expect("an id"));
        let _ = MADE.try_with(|made| made.lock().expect("a lock").push(id));
        Tenant { id: tenant.tenant_id, slug: tenant.slug, owner }
    }

    async fn sign_up(&self, name: &str, slug: Option<String>) -> (Person, Option<v1::Tenant>) {
        let email = format!("{}@example.com", unique(name));
        let request = v1::SignUpRequest {
            email: email.clone(),
            password: PASSWORD.to_owned(),
            display_name: name.to_owned(),
            tenant: slug.map(|slug| v1::NewTenant { display_name: slug.clone(), slug }),
            ..Default::default()
        };
        let done = self.anonymous().auth.sign_up(request).await.expect("signs up").into_inner();
        let user = done.user.expect("a user");
        let token = done.access_token.expect("a token").token;
        let refresh = done.refresh_token.expect("a refresh token").token;
        (Person { id: user.user_id, email, token, refresh }, done.tenant)
    }

    /// Gives a tenant so many seats, beside its plan's.
    pub(crate) async fn set_seats(&self, tenant: &Tenant, seats: i64) {
        self.set_limit(tenant, "members", Much::Limit(seats)).await;
    }

    /// Gives a tenant another limit than its plan's.
    pub(crate) async fn set_limit(&self, tenant: &Tenant, metric: &str, value: Much) {
        self.operator().set_limit(tenant, metric, value).await;
    }

    /// Makes somebody a member, by the operator, who is under no rate.
    pub(crate) async fn join(&self, tenant: &Tenant, person: &Person, role: &str) -> v1::Member {
        let request = v1::AddMemberRequest {
            tenant: tenant.id.clone(),
            email: person.email.clone(),
            roles: vec![role.to_owned()],
            ..Default::default()
        };
        let added = self.operator().members.add_member(request).await.expect("joins");
        added.into_inner().member.expect("a member")
    }

    /// Signs somebody up, makes them a member, and gives them a token for the tenant.
    pub(crate) async fn member(&self, tenant: &Tenant, role: &str) -> Person {
        let person = self.person(role).await;
        self.join(tenant, &person, role).await;
        self.login(&person, &tenant.id).await
    }

    /// Signs a person in to a tenant.
    pub(crate) async fn login(&self, person: &Person, tenant: &str) -> Person {
        let request = v1::LoginRequest {
            email: person.email.clone(),
            password: PASSWORD.to_owned(),
            tenant: tenant.to_owned(),
            ..Default::default()
        };
        let done = self.anonymous().auth.login(request).await.expect("signs in").into_inner();
        let refresh = done.refresh_token.expect("a refresh token").token;
        Person { token: done.access_token.expect("a token").token, refresh, ..person.clone() }
    }

    /// A service's key with these permissions.
    pub(crate) async fn service_key(&self, permissions: &[&str]) -> String {
        let request = v1::CreateServiceKeyRequest {
            display_name: "a service".to_owned(),
            permissions: permissions.iter().map(|&p| p.to_owned()).collect(),
            ..Default::default()
        };
        self.operator().auth.create_service_key(request).await.expect("a key").into_inner().secret
    }
}

/// The configuration of a test server.
pub(crate) fn config(dir: &std::path::Path, database: Option<&Database>, flags: &[&str]) -> Serve {
    let catalogue = dir.join("catalogue.toml");
    if !catalogue.exists() {
        std::fs::write(&catalogue, CATALOGUE).expect("a catalogue");
    }
    let mut args = vec![
        "tenantry".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--http-listen=127.0.0.1:0".to_owned(),
        format!("--data-dir={}", dir.display()),
        "--base-domain=tenantry.test".to_owned(),
        format!("--dns-server={}", name_server().address),
        // Providers of tests are on loopback.
        "--allow-private-addresses".to_owned(),
    ];
    if !flags.iter().any(|flag| flag.starts_with("--catalogue")) {
        args.push(format!("--catalogue={}", catalogue.display()));
    }
    if !flags.iter().any(|flag| flag.starts_with("--sign-up=")) {
        args.push("--sign-up=immediate".to_owned());
    }
    if let Some(database) = database {
        // Servers and tests share this process and two processors with everything else: a second without one is no fault.
        let patient = "?options[idle_in_transaction_session_timeout]=10s";
        args.push(format!("--database-url={}{patient}", database.app_url));
        args.push(format!("--system-database-url={}{patient}", database.system_url));
        args.push(format!("--meter-database-url={}{patient}", database.meter_url));
    }
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    Serve::from_args(args).unwrap_or_else(|error| panic!("{error}"))
}

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// Somebody who can sign in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) token: String,
    pub(crate) refresh: String,
}

/// A tenant with its first owner, who is signed in to it.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) owner: Person,
}

/// Headers that go with every call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(Vec<(&'static str, String)>);

impl Headers {
    pub(crate) fn and(mut self, name: &'static str, value: &str) -> Self {
        self.0.push((name, value.to_owned()));
        self
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            let value: MetadataValue<Ascii> = value.parse().expect("a header value");
            request.metadata_mut().append(*name, value);
        }
        Ok(request)
    }
}

pub(crate) type Inner = InterceptedService<Channel, Headers>;

/// A client of each service.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) auth: AuthServiceClient<Inner>,
    pub(crate) tenants: TenantServiceClient<Inner>,
    pub(crate) members: MembershipServiceClient<Inner>,
    pub(crate) usage: UsageServiceClient<Inner>,
}

impl Clients {
    /// Gives a tenant another limit than its plan's; for operators.
    pub(crate) async fn set_limit(&mut self, tenant: &Tenant, metric: &str, value: Much) {
        let request = v1::SetLimitOverrideRequest {
            tenant: tenant.id.clone(),
            metric: metric.to_owned(),
            value: Some(value),
            ..Default::default()
        };
        self.tenants.set_limit_override(request).await.expect("sets the limit");
    }

    pub(crate) fn new(channel: Channel, headers: Headers) -> Self {
        Self {
            auth: AuthServiceClient::with_interceptor(channel.clone(), headers.clone()),
            tenants: TenantServiceClient::with_interceptor(channel.clone(), headers.clone()),
            members: MembershipServiceClient::with_interceptor(channel.clone(), headers.clone()),
            usage: UsageServiceClient::with_interceptor(channel, headers),
        }
    }
}

/// A message with quoted-printable (RFC 2045) undone, near enough to look for things in it.
fn readable(message: &str) -> String {
    let text = message.replace("=\r\n", "").replace("\r\n", "\n");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'=').then(|| tail.get(..2)).flatten().and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A name that no other test has, fit for a slug.
pub(crate) fn unique(name: &str) -> String {
    let random = tenantry::entropy::bytes::<5>();
    let mut text = format!("{name}-");
    for byte in random {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Amounts of metrics.
pub(crate) fn amounts(list: &[(&str, i64)]) -> Vec<v1::Amount> {
    list.iter().map(|&(metric, amount)| v1::Amount { metric: metric.to_owned(), amount }).collect()
}

/// A `request_id`.
pub(crate) fn request_id() -> String {
    Uuid::new_v4().to_string()
}

/// The code and reason of a refusal, such as `(NotFound, "TENANT_NOT_FOUND")`.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.expect_err("a refusal");
    let info = status.get_details_error_info();
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "tenantry");
    (status.code(), info.reason)
}

/// The fields that a call was refused for.
pub(crate) fn wrong_fields<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> Vec<String> {
    let status = result.expect_err("a refusal");
    let wrong = status.get_details_bad_request();
    assert_eq!(refusal::<T>(Err(status)), (Code::InvalidArgument, "FIELDS_INVALID".to_owned()));
    wrong.expect("a BadRequest").field_violations.into_iter().map(|violation| violation.field).collect()
}

/// Asserts that a call was refused with this code and reason.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<Response<T>, Status>, code: Code, reason: &str) {
    assert_eq!(refusal(result), (code, reason.to_owned()));
}

/// Waits until something holds; fails after ten seconds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
