//! Three servers, each a process, on one PostgreSQL, all of which can be maltreated.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection};
use tempfile::TempDir;
use tenantry::rpc::v1;
use tenantry::rpc::v1::auth_service_client::AuthServiceClient;
use tenantry::rpc::v1::tenant_service_client::TenantServiceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::cluster::{Cluster, Database, Stop};
use crate::record::{Clock, METRICS, Micros};

/// How many servers there are.
pub(crate) const SERVERS: usize = 3;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose tenants these are.
const OWNER: &str = "ann@example.com";

/// A server's process, which others replace.
struct Process {
    child: Child,
    line: Line,
}

/// A way to a server.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    /// The how manieth process of the server it leads to.
    pub(crate) life: u32,
}

/// All of it.
pub(crate) struct Fleet {
    pub(crate) clock: Clock,
    cluster: Cluster,
    database: Database,
    dir: TempDir,
    processes: Vec<Mutex<Process>>,
    /// One fault at a time has a server.
    pub(crate) turns: Vec<tokio::sync::Mutex<()>>,
    /// When processes were killed: server and start.
    deaths: Mutex<BTreeMap<(usize, u32), Micros>>,
    operator_key: String,
    service_key: String,
}

/// Has accounts remember the most that was forfeited of them. In a column of theirs: a server starts on nothing that its roles
/// could step round row level security with.
const OBSERVE: &str = "
    alter table quota_account add column most_forfeited bigint not null default 0;
    create function note_forfeited() returns trigger language plpgsql as
        'begin new.most_forfeited := greatest(old.most_forfeited, new.forfeited); return new; end';
    create trigger note_forfeited before update on quota_account for each row execute function note_forfeited();";

impl Fleet {
    /// Starts everything.
    pub(crate) async fn start() -> Self {
        let clock = Clock(Instant::now());
        let cluster = tokio::task::spawn_blocking(Cluster::private).await.expect("PostgreSQL");
        let database = cluster.fresh_database().await;
        let mut admin = database.administrator().await;
        sqlx::raw_sql(OBSERVE).execute(&mut admin).await.expect("observes");
        if cfg!(feature = "broken-fence") {
            // The table itself is the third guard of the fence.
            let drop = "alter table quota_lease drop constraint quota_lease_check";
            sqlx::raw_sql(drop).execute(&mut admin).await.expect("drops the check");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let limits = METRICS.map(|metric| format!("{metric} = 1\n")).concat();
        let metric = |metric| format!("[metrics.{metric}]\nunit = \"{metric}\"\nperiod = \"lifetime\"\n");
        let metrics = METRICS.map(metric).concat();
        let product = format!("default_plan = \"p\"\n{metrics}[plans.p.limits]\n{limits}");
        std::fs::write(dir.path().join("catalogue.toml"), product).expect("a catalogue");
        let mut processes = Vec::new();
        for server in 0..SERVERS {
            processes.push(Mutex::new(launch(&dir, &database, server, 1).await.expect("starts")));
        }
        let key = std::fs::read_to_string(dir.path().join("data/operator.key")).expect("a key");
        let turns = (0..SERVERS).map(|_| tokio::sync::Mutex::default()).collect();
        let mut fleet = Self {
            clock,
            cluster,
            database,
            dir,
            processes,
            turns,
            deaths: Mutex::default(),
            operator_key: key.trim().to_owned(),
            service_key: String::new(),
        };
        fleet.service_key = fleet.prepare().await.expect("prepares");
        fleet
    }

    /// Makes a person who will own the tenants, and a service that calls for them. Gives its key.
    async fn prepare(&self) -> Result<String, Status> {
        let mut auth = AuthServiceClient::new(self.line(0).channel);
        let person = v1::SignUpRequest {
            email: OWNER.to_owned(),
            password: "correct horse battery".to_owned(),
            display_name: "Ann".to_owned(),
            ..Default::default()
        };
        auth.sign_up(person).await?;
        let service = v1::CreateServiceKeyRequest {
            display_name: "meter".to_owned(),
            permissions: ["usage.read", "usage.write", "usage.correct"].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        Ok(auth.create_service_key(self.by_operator(service)).await?.into_inner().secret)
    }

    fn process(&self, server: usize) -> MutexGuard<'_, Process> {
        self.processes[server].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to a server as it is now.
    pub(crate) fn line(&self, server: usize) -> Line {
        self.process(server).line.clone()
    }

    pub(crate) fn by_operator<T>(&self, message: T) -> Request<T> {
        with_key(&self.operator_key, message)
    }

    pub(crate) fn by_service<T>(&self, message: T) -> Request<T> {
        with_key(&self.service_key, message)
    }

    /// Makes a tenant; gives its id.
    pub(crate) async fn tenant(&self, slug: &str) -> Result<String, Status> {
        let mut tenants = TenantServiceClient::new(self.line(0).channel);
        let (display_name, owner_email) = (slug.to_owned(), OWNER.to_owned());
        let new = v1::CreateTenantRequest { display_name, slug: slug.to_owned(), owner_email, ..Default::default() };
        let made = tenants.create_tenant(self.by_operator(new)).await?.into_inner();
        Ok(made.tenant.ok_or_else(|| tonic::Status::ok("no tenant"))?.tenant_id)
    }

    /// Gives a tenant another limit.
    pub(crate) async fn set_limit(&self, server: usize, tenant: &str, metric: &str, limit: i64) -> Result<(), Status> {
        let mut tenants = TenantServiceClient::new(self.line(server).channel);
        let change = v1::SetLimitOverrideRequest {
            tenant: tenant.to_owned(),
            metric: metric.to_owned(),
            value: Some(v1::set_limit_override_request::Value::Limit(limit)),
            ..Default::default()
        };
        tenants.set_limit_override(self.by_operator(change)).await.map(drop)
    }

    /// A superuser's connection.
    pub(crate) async fn administrator(&self) -> PgConnection {
        self.database.administrator().await
    }

    /// Has every commit take so many microseconds more, as on a slower disk.
    pub(crate) async fn set_disk(&self, delay: u64) {
        let mut admin = self.administrator().await;
        for order in [
            "alter system set commit_siblings = 0".to_owned(),
            format!("alter system set commit_delay = {delay}"),
            "select pg_reload_conf()".to_owned(),
        ] {
            sqlx::raw_sql(AssertSqlSafe(order)).execute(&mut admin).await.expect("sets the disk");
        }
    }

    // ---- maltreatment --------------------------------------------------------------------------------------------

    /// Kills a server's process. Its answers may be on their way until then.
    pub(crate) fn kill(&self, server: usize) {
        let mut process = self.process(server);
        process.child.kill().expect("kill");
        process.child.wait().expect("wait");
        let life = process.line.life;
        drop(process);
        self.deaths().insert((server, life), self.clock.now());
    }

    /// Starts a new process, however often that takes: PostgreSQL may be away.
    pub(crate) async fn revive(&self, server: usize) {
        let life = self.process(server).line.life + 1;
        let begun = Instant::now();
        loop {
            match launch(&self.dir, &self.database, server, life).await {
                Ok(process) => {
                    *self.process(server) = process;
                    return;
                }
                Err(told) => assert!(begun.elapsed() < PATIENCE, "server {server} does not start again: {told}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a server's process a signal.
    pub(crate) fn signal(&self, server: usize, name: &str) {
        let id = self.process(server).child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.expect("kill").success(), "there is no server {server} to be signalled");
    }

    /// Stops PostgreSQL. Blocks.
    pub(crate) fn stop_database(&self, how: Stop) {
        self.cluster.stop(how);
    }

    /// Starts it again. Blocks.
    pub(crate) fn start_database(&self) {
        self.cluster.start_again();
    }

    fn deaths(&self) -> MutexGuard<'_, BTreeMap<(usize, u32), Micros>> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a process was killed.
    pub(crate) fn death(&self, server: usize, life: u32) -> Option<Micros> {
        self.deaths().get(&(server, life)).copied()
    }

    /// Keeps what the servers wrote, and says where.
    pub(crate) fn keep(&mut self) -> String {
        self.dir.disable_cleanup(true);
        self.dir.path().display().to_string()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for server in 0..SERVERS {
            let child = &mut self.process(server).child;
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-api-key", key.parse().expect("keys are ASCII"));
    request
}

/// Starts a process and waits until it says where it listens; what it says when it ends instead.
async fn launch(dir: &TempDir, database: &Database, server: usize, life: u32) -> Result<Process, String> {
    let log = dir.path().join(format!("server-{server}-{life}.log"));
    let file = File::create(&log).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .env_clear()
        .args(["serve", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"])
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .arg(format!("--catalogue={}", dir.path().join("catalogue.toml").display()))
        .env("TENANTRY_SIGN_UP", "immediate")
        .env("TENANTRY_DATABASE_URL", &database.app_url)
        .env("TENANTRY_SYSTEM_DATABASE_URL", &database.system_url)
        .env("TENANTRY_METER_DATABASE_URL", &database.meter_url)
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file"))
        .stderr(file);
    let mut child = command.spawn().expect("the program runs");
    let begun = Instant::now();
    loop {
        let ended = child.try_wait().expect("wait").is_some();
        let told = std::fs::read_to_string(&log).expect("its output");
        if let Some(address) = told.contains("/healthz").then(|| told.lines().find_map(listens_at)).flatten() {
            let endpoint = Endpoint::from_shared(address.to_owned()).expect("an address");
            let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
            return Ok(Process { child, line: Line { channel, life } });
        }
        if ended {
            return Err(told);
        }
        assert!(begun.elapsed() < PATIENCE, "neither listens nor ends: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn listens_at(line: &str) -> Option<&str> {
    line.strip_prefix("  gRPC ")?;
    line.find("http://").map(|at| line[at..].trim())
}
