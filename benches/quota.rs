//! What a decision of quota costs, against a bare gRPC server and against the naive way (one guarded update and one insert
//! per request, in a transaction) on the same PostgreSQL, measured in one run. `cargo bench --bench quota`. Server CPU per
//! request comes first: it is steady on shared machines. The servers are release binaries; PostgreSQL is one of the bench's
//! own, or the one that `TEST_DATABASE_URL` names.

#![expect(clippy::disallowed_methods, reason = "what is compared with is SQL, and statuses are this client's own")]

#[expect(dead_code, reason = "the tests need more of it")]
#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tenantry::rpc::v1;
use tenantry::rpc::v1::auth_service_client::AuthServiceClient;
use tenantry::rpc::v1::usage_service_client::UsageServiceClient;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use cluster::{Cluster, Database};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long each is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// Connections of many callers, and callers on each.
const MANY: (usize, usize) = (8, 8);
/// One caller alone.
const ALONE: (usize, usize) = (1, 1);
/// Accounts by which memory is measured.
const ACCOUNTS: usize = 20_000;
/// Events in a `RecordUsage`.
const BATCH: usize = 100;
/// Ticks of a second in /proc on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// A product whose limits nobody reaches.
const PRODUCT: &str = r#"
default_plan = "p"
[metrics.calls]
unit = "calls"
[plans.p.limits]
calls = 9000000000000000
"#;

/// What was measured of one way.
struct Measured {
    name: String,
    per_second: f64,
    median: Duration,
    slowest_hundredth: Duration,
    /// None where the work is not a server's of ours.
    cpu_micros: Option<f64>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if std::env::args().any(|arg| arg == "--bare") {
        return runtime.block_on(bare());
    }
    runtime.block_on(compare())
}

/// The bare server: prints where it listens.
async fn bare() -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(health).serve_with_incoming(incoming).await?)
}

async fn compare() -> Result<()> {
    let (data, embedded) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let database = Cluster::shared().fresh_database().await;
    let bare = Running::start(Command::new(std::env::current_exe()?).arg("--bare"))?;
    let ours = Running::serve(data.path(), Some(&database))?;
    let on_sqlite = Running::serve(embedded.path(), None)?;
    let token = sign_up(&ours.address).await?;
    let token_on_sqlite = sign_up(&on_sqlite.address).await?;
    let naive = Naive::prepare(&database).await?;

    let check = |channel| {
        let client = HealthClient::new(channel);
        move || {
            let mut client = client.clone();
            async move { client.check(HealthCheckRequest::default()).await.map(drop) }
        }
    };
    let durable = |channel| consume(channel, &token, v1::AckLevel::Durable);
    let who = |channel| who_am_i(channel, &token);
    let leased = |channel| consume(channel, &token, v1::AckLevel::Leased);
    let on_pg = |channel| record(channel, &token);
    let embedded_record = |channel| record(channel, &token_on_sqlite);

    let mut all = vec![
        measure("bare gRPC, 64 callers", &bare, MANY, check).await?,
        measure("WhoAmI: the gate alone", &ours, MANY, who).await?,
        measure("LEASED, 64 callers", &ours, MANY, leased).await?,
        measure("DURABLE, 64 callers", &ours, MANY, durable).await?,
        naive.measure("naive, 64 callers", 64).await?,
        measure("DURABLE, alone", &ours, ALONE, durable).await?,
        naive.measure("naive, alone", 1).await?,
        measure("RecordUsage x100, PostgreSQL", &ours, MANY, on_pg).await?,
        measure("RecordUsage x100, SQLite", &on_sqlite, MANY, embedded_record).await?,
    ];
    let floor = all[0].cpu_micros.unwrap_or(f64::NAN);
    println!("{:30} {:>9} {:>10} {:>10} {:>12} {:>8}", "", "a second", "p50 us", "p99 us", "CPU us/call", "x bare");
    for m in &all {
        let cpu = m.cpu_micros.map_or_else(String::new, |cpu| format!("{cpu:.1}"));
        let ratio = m.cpu_micros.map_or_else(String::new, |cpu| format!("{:.1}", cpu / floor));
        let (p50, p99) = (m.median.as_micros(), m.slowest_hundredth.as_micros());
        println!("{:30} {:>9.0} {p50:>10} {p99:>10} {cpu:>12} {ratio:>8}", m.name, m.per_second);
    }
    let resident = memory(&ours, &database, data.path()).await?;
    let sqlite = all.pop().ok_or("nothing")?;
    let postgres = all.pop().ok_or("nothing")?;
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let events = |m: &Measured| m.per_second * BATCH as f64;
    println!("LEASED: {:.2} x the bare server's CPU (aim: at most 1.5)", all[2].cpu_micros.unwrap_or(f64::NAN) / floor);
    println!("DURABLE on one tenant: {:.1} x naive (aim: at least 10)", all[3].per_second / all[4].per_second);
    let slower = all[5].median.as_secs_f64() - all[6].median.as_secs_f64();
    println!("DURABLE alone: {:+.2} ms against naive (aim: at most +2)", slower * 1e3);
    println!("RecordUsage, events a second: {:.0} on PostgreSQL (aim: 50,000)", events(&postgres));
    println!("RecordUsage, events a second: {:.0} on SQLite (aim: 20,000)", events(&sqlite));
    println!(
        "Memory: {resident:.2} KiB an active account, so {:.0} MiB for 100,000 (aim: 200)",
        resident * 1e5 / 1024.0
    );
    Ok(())
}

/// By how many KiB the server grows with each account that is at work. The tenants are copies of the one that there is.
async fn memory(server: &Running, database: &Database, data: &Path) -> Result<f64> {
    let mut admin = database.administrator().await;
    let sql = "insert into tenant
               select (jsonb_populate_record(t, jsonb_build_object('tenant_id', gen_random_uuid(), 'slug', 'copy-' || n,
                                                                   'external_id', null))).*
               from (select one from tenant one limit 1) x (t), generate_series(1, $1) n
               returning tenant_id::text";
    let ids: Vec<String> = sqlx::query_scalar(sql).bind(i32::try_from(ACCOUNTS)?).fetch_all(&mut admin).await?;
    let operator = std::fs::read_to_string(data.join("operator.key"))?;
    let channel = Endpoint::from_shared(server.address.clone())?.connect().await?;
    let mut auth = AuthServiceClient::with_interceptor(channel, Bearer::new("x-api-key", operator.trim()));
    let permissions = vec!["usage.write".to_owned()];
    let key = v1::CreateServiceKeyRequest { display_name: "meter".to_owned(), permissions, ..Default::default() };
    let key = auth.create_service_key(key).await?.into_inner().secret;
    let before = server.resident()?;
    let ids = Arc::new(ids);
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let (ids, address, key) = (ids.clone(), server.address.clone(), key.clone());
            tokio::spawn(async move {
                let channel = Endpoint::from_shared(address)?.connect().await?;
                let mut usage = UsageServiceClient::with_interceptor(channel, Bearer::new("x-api-key", &key));
                for tenant in ids.iter().skip(caller).step_by(64) {
                    let amounts = vec![v1::Amount { metric: "calls".to_owned(), amount: 1 }];
                    let asked = v1::ConsumeRequest { tenant: tenant.clone(), amounts, ..Default::default() };
                    usage.consume(asked).await?;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await?.map_err(|error| error.to_string())?;
    }
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let accounts = ACCOUNTS as f64;
    Ok((server.resident()? - before) / accounts)
}

type Authorized = tonic::service::interceptor::InterceptedService<Channel, Bearer>;

/// The header that says who calls.
#[derive(Clone)]
struct Bearer(&'static str, tonic::metadata::MetadataValue<tonic::metadata::Ascii>);

impl Bearer {
    fn new(name: &'static str, value: &str) -> Self {
        Self(name, value.parse().expect("credentials are ASCII"))
    }
}

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert(self.0, self.1.clone());
        Ok(request)
    }
}

fn client(channel: Channel, token: &str) -> UsageServiceClient<Authorized> {
    UsageServiceClient::with_interceptor(channel, Bearer::new("authorization", &format!("Bearer {token}")))
}

fn who_am_i(channel: Channel, token: &str) -> impl Fn() -> Answer + Send + 'static {
    let bearer = Bearer::new("authorization", &format!("Bearer {token}"));
    let client = AuthServiceClient::with_interceptor(channel, bearer);
    move || {
        let mut client = client.clone();
        Box::pin(async move { client.who_am_i(v1::WhoAmIRequest {}).await.map(drop) })
    }
}

fn consume(channel: Channel, token: &str, level: v1::AckLevel) -> impl Fn() -> Answer + Send + 'static {
    let client = client(channel, token);
    let amounts = vec![v1::Amount { metric: "calls".to_owned(), amount: 1 }];
    let asked = v1::ConsumeRequest { amounts, ack_level: level.into(), ..Default::default() };
    move || {
        let (mut client, asked) = (client.clone(), asked.clone());
        Box::pin(async move { client.consume(asked).await.map(drop) })
    }
}

fn record(channel: Channel, token: &str) -> impl Fn() -> Answer + Send + 'static {
    let client = client(channel, token);
    let event = v1::UsageEvent {
        amounts: vec![v1::Amount { metric: "calls".to_owned(), amount: 1 }],
        details: Some(v1::UsageDetails {
            endpoint: "/v1/things/{id}".to_owned(),
            method: "POST".to_owned(),
            status_code: 200,
            ..Default::default()
        }),
        ..Default::default()
    };
    let asked = v1::RecordUsageRequest { events: vec![event; BATCH], ..Default::default() };
    move || {
        let (mut client, asked) = (client.clone(), asked.clone());
        Box::pin(async move {
            let results = client.record_usage(asked).await?.into_inner().results;
            match results.into_iter().find(|result| !result.reason.is_empty()) {
                Some(refused) => Err(Status::internal(refused.message)),
                None => Ok(()),
            }
        })
    }
}

type Answer = std::pin::Pin<Box<dyn Future<Output = std::result::Result<(), Status>> + Send>>;

/// Calls from many callers for a while.
async fn measure<C, F>(
    name: &str,
    server: &Running,
    (connections, callers): (usize, usize),
    client: impl Fn(Channel) -> C,
) -> Result<Measured>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = std::result::Result<(), Status>> + Send,
{
    let mut calls = Vec::new();
    for _ in 0..connections {
        let channel = Endpoint::from_shared(server.address.clone())?.connect().await?;
        calls.extend((0..callers).map(|_| client(channel.clone())));
    }
    // Warm: connections, leases, prepared statements.
    for call in &calls {
        call().await?;
    }
    let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
    let callers: Vec<_> = calls
        .into_iter()
        .map(|call| {
            tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < MEASURED {
                    let sent = Instant::now();
                    call().await?;
                    took.push(sent.elapsed());
                }
                Ok::<_, Status>(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    let cpu = server.cpu_seconds()? - cpu;
    Ok(Measured::of(name, took, began.elapsed(), Some(cpu)))
}

impl Measured {
    fn of(name: &str, mut took: Vec<Duration>, elapsed: Duration, cpu_seconds: Option<f64>) -> Self {
        took.sort_unstable();
        let count = took.len();
        #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
        let calls = count as f64;
        Self {
            name: name.to_owned(),
            per_second: calls / elapsed.as_secs_f64(),
            median: took[count / 2],
            slowest_hundredth: took[count * 99 / 100],
            cpu_micros: cpu_seconds.map(|cpu| cpu * 1e6 / calls),
        }
    }
}

/// The naive way, straight from this process to PostgreSQL: no gRPC, nobody to be authorized.
struct Naive {
    pool: PgPool,
    events: Arc<AtomicU64>,
}

impl Naive {
    async fn prepare(database: &Database) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(64).connect(&database.admin_url).await?;
        sqlx::raw_sql(
            "create schema naive;
             create table naive.account (id bigint primary key, used bigint not null, quota bigint not null);
             create table naive.event (key text primary key, account bigint not null, amount bigint not null,
                                       at timestamptz not null default now());
             insert into naive.account values (1, 0, 9000000000000000);",
        )
        .execute(&pool)
        .await?;
        Ok(Self { pool, events: Arc::default() })
    }

    async fn measure(&self, name: &str, callers: usize) -> Result<Measured> {
        let began = Instant::now();
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let (pool, events) = (self.pool.clone(), self.events.clone());
                tokio::spawn(async move {
                    let mut took = Vec::new();
                    while began.elapsed() < MEASURED {
                        let sent = Instant::now();
                        let key = format!("event {}", events.fetch_add(1, Ordering::Relaxed));
                        let mut tx = pool.begin().await?;
                        sqlx::query("insert into naive.event (key, account, amount) values ($1, 1, 1)")
                            .bind(key)
                            .execute(&mut *tx)
                            .await?;
                        sqlx::query("update naive.account set used = used + 1 where id = 1 and used + 1 <= quota")
                            .execute(&mut *tx)
                            .await?;
                        tx.commit().await?;
                        took.push(sent.elapsed());
                    }
                    Ok::<_, sqlx::Error>(took)
                })
            })
            .collect();
        let mut took = Vec::new();
        for caller in callers {
            took.extend(caller.await??);
        }
        Ok(Measured::of(name, took, began.elapsed(), None))
    }
}

async fn sign_up(address: &str) -> Result<String> {
    let mut client = AuthServiceClient::connect(address.to_owned()).await?;
    let request = v1::SignUpRequest {
        email: "ann@example.com".to_owned(),
        password: "correct horse battery".to_owned(),
        display_name: "Ann".to_owned(),
        tenant: Some(v1::NewTenant { display_name: "Acme".to_owned(), slug: "acme".to_owned() }),
        ..Default::default()
    };
    let done = client.sign_up(request).await?.into_inner();
    Ok(done.access_token.ok_or("no token")?.token)
}

/// A server in a process of its own, ended with this value.
struct Running {
    child: Child,
    address: String,
    /// Kept: it goes on writing.
    _out: BufReader<ChildStdout>,
}

impl Running {
    /// A server of ours.
    fn serve(data: &Path, database: Option<&Database>) -> Result<Self> {
        std::fs::write(data.join("catalogue.toml"), PRODUCT)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
        command
            .args(["serve", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--log=warn", "--sign-up=immediate"])
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--catalogue={}", data.join("catalogue.toml").display()));
        if let Some(database) = database {
            let key = data.join("master.key");
            command
                .arg(format!("--master-key-file={}", key.display()))
                .env("TENANTRY_DATABASE_URL", &database.app_url)
                .env("TENANTRY_SYSTEM_DATABASE_URL", &database.system_url)
                .env("TENANTRY_METER_DATABASE_URL", &database.meter_url);
        }
        Self::start(&mut command)
    }

    /// Starts it, and reads its address from the first line that has one.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut out = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut line = String::new();
        while out.read_line(&mut line)? > 0 {
            if let Some(at) = line.find("http://") {
                let address = line[at..].trim().to_owned();
                return Ok(Self { child, address, _out: out });
            }
            line.clear();
        }
        Err("the server did not say where it listens".into())
    }

    /// Memory of the process that is in use now, in KiB.
    fn resident(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("an odd status")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// CPU time of the whole process so far.
    fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("an odd stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<std::result::Result<f64, _>>()? / TICKS)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
