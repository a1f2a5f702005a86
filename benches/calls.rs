//! What a call costs, against a bare gRPC server measured in the same run: server CPU per request first, which is steady
//! on shared machines, then throughput and latency. `cargo bench --bench calls`. The server is the release binary on a
//! SQLite of its own; the bare one answers `grpc.health.v1.Health/Check`, which is as little as tonic can do.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tenantry::rpc::v1;
use tenantry::rpc::v1::auth_service_client::AuthServiceClient;
use tenantry::rpc::v1::usage_service_client::UsageServiceClient;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long each call is measured.
const MEASURED: Duration = Duration::from_secs(4);
/// Connections, and callers on each.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;
/// Ticks of a second in /proc on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// What was measured of one call.
struct Measured {
    name: &'static str,
    per_second: f64,
    median: Duration,
    slowest_hundredth: Duration,
    cpu_micros: f64,
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
    let data = tempfile::tempdir()?;
    let bare = Running::start(Command::new(std::env::current_exe()?).arg("--bare"))?;
    let ours = Running::start(
        Command::new(env!("CARGO_BIN_EXE_tenantry"))
            .args(["serve", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--log=warn"])
            .arg(format!("--data-dir={}", data.path().display())),
    )?;
    let token = sign_up(&ours.address).await?;

    let bearer = format!("Bearer {token}");
    let with_token = move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", bearer.parse().map_err(|_| Status::cancelled("no token"))?);
        Ok(request)
    };
    let who = |channel| {
        let client = AuthServiceClient::with_interceptor(channel, with_token.clone());
        move || {
            let mut client = client.clone();
            async move { client.who_am_i(v1::WhoAmIRequest {}).await.map(drop) }
        }
    };
    let ask = |channel| {
        let client = AuthServiceClient::with_interceptor(channel, with_token.clone());
        let question = v1::AuthorizeRequest {
            permissions: vec!["members.read".to_owned(), "tenant.update".to_owned()],
            ..Default::default()
        };
        move || {
            let (mut client, question) = (client.clone(), question.clone());
            async move { client.authorize(question).await.map(drop) }
        }
    };
    let consume = |channel| {
        let client = UsageServiceClient::with_interceptor(channel, with_token.clone());
        let amounts = vec![v1::Amount { metric: "api_calls".to_owned(), amount: 1 }];
        let asked = v1::ConsumeRequest { amounts, ..Default::default() };
        move || {
            let (mut client, asked) = (client.clone(), asked.clone());
            async move {
                match client.consume(asked).await {
                    // The free plan's month is over before the bench is; a refusal costs what an admission does, less the commit.
                    Err(status) if status.code() == tonic::Code::ResourceExhausted => Ok(()),
                    other => other.map(drop),
                }
            }
        }
    };
    let check = |channel| {
        let client = HealthClient::new(channel);
        move || {
            let mut client = client.clone();
            async move { client.check(HealthCheckRequest::default()).await.map(drop) }
        }
    };
    let all = [
        measure("bare gRPC", &bare, check).await?,
        measure("WhoAmI", &ours, who).await?,
        measure("Authorize, 2 permissions", &ours, ask).await?,
        measure("Consume, 1 metric", &ours, consume).await?,
    ];
    println!("{:26} {:>9} {:>10} {:>10} {:>12} {:>8}", "call", "a second", "p50 us", "p99 us", "CPU us/call", "x bare");
    for m in &all {
        println!(
            "{:26} {:>9.0} {:>10} {:>10} {:>12.1} {:>8.1}",
            m.name,
            m.per_second,
            m.median.as_micros(),
            m.slowest_hundredth.as_micros(),
            m.cpu_micros,
            m.cpu_micros / all[0].cpu_micros,
        );
    }
    Ok(())
}

/// Calls from many callers for a while.
async fn measure<C, F>(name: &'static str, server: &Running, client: impl Fn(Channel) -> C) -> Result<Measured>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = std::result::Result<(), Status>> + Send,
{
    let (began, cpu) = (Instant::now(), server.cpu_seconds()?);
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = Endpoint::from_shared(server.address.clone())?.connect().await?;
        for _ in 0..CALLERS {
            let call = client(channel.clone());
            callers.push(tokio::spawn(async move {
                let mut took = Vec::new();
                while began.elapsed() < MEASURED {
                    let sent = Instant::now();
                    call().await?;
                    took.push(sent.elapsed());
                }
                Ok::<_, Status>(took)
            }));
        }
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    took.sort_unstable();
    let (count, cpu) = (took.len(), server.cpu_seconds()? - cpu);
    #[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
    let calls = count as f64;
    Ok(Measured {
        name,
        per_second: calls / began.elapsed().as_secs_f64(),
        median: took[count / 2],
        slowest_hundredth: took[count * 99 / 100],
        cpu_micros: cpu * 1e6 / calls,
    })
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
}

impl Running {
    /// Starts it, and reads its address from the first line that has one.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        for line in BufReader::new(out).lines() {
            let line = line?;
            if let Some(at) = line.find("http://") {
                return Ok(Self { child, address: line[at..].trim().to_owned() });
            }
        }
        Err("the server did not say where it listens".into())
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
