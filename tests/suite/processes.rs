//! What only a process can show: how it starts, what it refuses to start on, and that its end, even a violent one, loses
//! nothing that was acknowledged and does nothing twice.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tenantry::rpc::v1;
use tenantry::store::{OpenError, Store};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::cluster::{Cluster, Database, Stop, unique_name};
use crate::harness::{Clients, Engine, Headers, PASSWORD, unique, until};
use crate::program::{Program, get, serve, tenantry};
use crate::startup::{connect, run};

fn text(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn a_data_directory_is_all_that_a_first_start_needs() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("new/data");
    let mut command = tenantry([] as [&str; 0]);
    command.env("TENANTRY_LISTEN", "127.0.0.1:0").env("TENANTRY_HTTP_LISTEN", "127.0.0.1:0");
    command.env("TENANTRY_DATA_DIR", &data);
    let server = Program::start(&data, command);
    for file in ["master.key", "operator.key"] {
        let mode = std::fs::metadata(data.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    let greeting = server.output();
    assert!(greeting.contains("SQLite in ") && greeting.contains("operator.key (just made"), "{greeting}");
    assert!(!greeting.contains(&server.operator_key()));

    let (code, told) = Program::refused(&data, serve(&data, None));
    assert_eq!(code, Some(1));
    assert!(told.contains("is in use by another tenantry") && told.contains("--data-dir"), "{told}");
    assert_eq!(server.terminate().0, Some(0));
}

/// A task that still holds the store, or a child process that has inherited its files, keeps nobody out.
#[tokio::test]
async fn a_store_that_was_closed_lets_the_next_one_in() {
    let temp = tempfile::tempdir().unwrap();
    let first = Store::open_sqlite(temp.path()).await.unwrap();
    assert!(matches!(Store::open_sqlite(temp.path()).await, Err(OpenError::Locked(_))));
    first.close().await;
    Store::open_sqlite(temp.path()).await.unwrap().close().await;
    drop(first);
}

#[test]
fn a_start_without_the_right_master_key_says_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    assert_eq!(Program::start(&data, serve(&data, None)).terminate().0, Some(0));
    let key = data.join("master.key");
    let right = text(&data, "master.key");
    let refused = || Program::refused(&data, serve(&data, None));

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, told) = refused();
    assert!(code == Some(1) && told.contains("mode 644") && told.contains("chmod 600"), "{told}");

    std::fs::remove_file(&key).unwrap();
    let (code, told) = refused();
    assert!(code == Some(1) && told.contains("there is no master key here") && told.contains("Copy"), "{told}");
    assert!(!key.exists(), "no other key was made");

    for (wrong, words) in [("0".repeat(64), "not the master key"), ("short".to_owned(), "64 hexadecimal digits")] {
        std::fs::write(&key, &wrong).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (code, told) = refused();
        assert!(code == Some(1) && told.contains(words) && !told.contains(&wrong), "{told}");
    }
    std::fs::write(&key, right).unwrap();
    assert_eq!(Program::start(&data, serve(&data, None)).terminate().0, Some(0));
}

#[tokio::test]
async fn a_newer_sqlite_database_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    Program::start(&data, serve(&data, None)).terminate();
    let mut conn = sqlite(&data).await;
    let later = "insert into _sqlx_migrations values (9999, 'later', '2030-01-01', true, x'', 0)";
    sqlx::raw_sql(later).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let (code, told) = Program::refused(&data, serve(&data, None));
    assert_eq!(code, Some(1));
    assert!(told.contains("migration 9999") && told.contains("run the newer tenantry"), "{told}");
}

#[tokio::test]
async fn an_unfit_postgres_is_refused_with_what_to_do() {
    let cluster = Cluster::shared();
    let temp = tempfile::tempdir().unwrap();
    let refused = |database: &Database| {
        let (code, told) = Program::refused(temp.path(), serve(&temp.path().join("data"), Some(database)));
        assert_eq!(code, Some(1), "{told}");
        told
    };
    let good = cluster.fresh_database().await;
    let name = unique_name();
    run(&mut connect(&cluster.admin_url()).await, &format!("create database \"{name}\"")).await;
    let told = refused(&cluster.database(&name));
    assert!(told.contains("has no tables of tenantry: run `tenantry migrate --admin-url"), "{told}");

    let told = refused(&Database { app_url: good.admin_url.clone(), ..good.clone() });
    assert!(told.contains("instead of tenantry_app") && told.contains("TENANTRY_DATABASE_URL"), "{told}");

    let mut admin = connect(&good.admin_url).await;
    run(&mut admin, "insert into tenantry._sqlx_migrations values (9999, 'later', now(), true, '', 0)").await;
    assert!(refused(&good).contains("database is at migration 9999, this tenantry knows"));
    run(&mut admin, "delete from tenantry._sqlx_migrations where version = 9999").await;

    run(&mut admin, "alter table tenantry.membership no force row level security").await;
    let told = refused(&good);
    let mend = "alter table tenantry.membership enable row level security, force row level security";
    assert!(told.contains("does not keep tenants apart") && told.contains(mend), "{told}");
    let wrong = Database { app_url: good.app_url.replace("tenantry_app:", "tenantry_app:x"), ..good };
    let told = refused(&wrong);
    assert!(told.contains("the database does not answer") && !told.contains("for%20tests"), "{told}");
}

async fn sqlite(data: &Path) -> SqliteConnection {
    let url = format!("sqlite://{}", data.join("tenantry.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

/// A server in a process, on rows that outlive it.
pub(crate) struct House {
    temp: TempDir,
    database: Option<Database>,
}

impl House {
    pub(crate) async fn new(engine: Engine) -> Self {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Cluster::shared().fresh_database().await),
        };
        Self { temp: tempfile::tempdir().unwrap(), database }
    }

    pub(crate) fn start(&self) -> Program {
        let data = self.temp.path().join("data");
        Program::start(&data, serve(&data, self.database.as_ref()))
    }

    /// A superuser's connection to the database; there must be one.
    pub(crate) async fn administrator(&self) -> PgConnection {
        self.database().administrator().await
    }

    /// Its database; there must be one.
    pub(crate) fn database(&self) -> &Database {
        self.database.as_ref().expect("PostgreSQL")
    }

    /// A number from the rows, past the server.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        if let Some(database) = &self.database {
            let mut admin: PgConnection = connect(&database.admin_url).await;
            run(&mut admin, "set search_path = tenantry").await;
            sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap()
        } else {
            let mut conn = sqlite(&self.temp.path().join("data")).await;
            sqlx::query_scalar(sql).fetch_one(&mut conn).await.unwrap()
        }
    }
}

fn sign_up(email: &str, request_id: &str, slug: Option<&str>) -> v1::SignUpRequest {
    v1::SignUpRequest {
        request_id: request_id.to_owned(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        display_name: "Ada".to_owned(),
        tenant: slug.map(|slug| v1::NewTenant { display_name: slug.to_owned(), slug: slug.to_owned() }),
        ..Default::default()
    }
}

/// Signs somebody up with a tenant: what goes with every call of theirs.
pub(crate) async fn owner(server: &Program) -> Headers {
    let slug = unique("acme");
    let request = sign_up(&format!("{slug}@example.com"), "", Some(&slug));
    let done = server.clients(Headers::default()).auth.sign_up(request).await.expect("signs up").into_inner();
    Headers::default().and("authorization", &format!("Bearer {}", done.access_token.expect("a token").token))
}

/// How a call of the load went.
#[derive(Debug)]
enum Told {
    /// Acknowledged.
    Yes,
    /// Answered UNAVAILABLE by the server itself.
    Away,
    /// No answer: the connection was lost.
    Lost,
}

/// Consumes 1 under the key, and judges the answer: a server that is in trouble says UNAVAILABLE with `RetryInfo`.
async fn consume(clients: &Clients, key: &str) -> Told {
    let amounts = vec![v1::Amount { metric: "tokens".to_owned(), amount: 1 }];
    let mut request =
        Request::new(v1::ConsumeRequest { amounts, idempotency_key: key.to_owned(), ..Default::default() });
    request.set_timeout(Duration::from_secs(8));
    let begun = Instant::now();
    let answer = clients.clone().usage.consume(request).await;
    assert!(begun.elapsed() < Duration::from_secs(9), "hung beyond its deadline");
    judge(answer.map(drop))
}

fn judge(answer: Result<(), Status>) -> Told {
    let Err(status) = answer else { return Told::Yes };
    // What the client's library says by itself carries no reason of ours.
    let Some(info) = status.get_details_error_info() else { return Told::Lost };
    assert_eq!((status.code(), info.reason.as_str()), (Code::Unavailable, "DATABASE_UNAVAILABLE"), "{status:?}");
    assert!(status.get_details_retry_info().is_some_and(|retry| retry.retry_delay.is_some()));
    Told::Away
}

/// Callers that consume, each call with a key of its own, until told to stop.
struct Load {
    callers: JoinSet<Vec<(String, Told)>>,
    acknowledged: Arc<AtomicUsize>,
    stopping: Arc<AtomicUsize>,
}

impl Load {
    fn start(server: &Program, owner: &Headers) -> Self {
        let run = unique("run");
        let mut callers = JoinSet::new();
        let (acknowledged, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for caller in 0..6 {
            let clients = server.clients(owner.clone());
            let (acknowledged, stopping, run) = (acknowledged.clone(), stopping.clone(), run.clone());
            callers.spawn(async move {
                let mut calls = Vec::new();
                while stopping.load(Ordering::SeqCst) == 0 {
                    let key = format!("{run}-{caller}-{}", calls.len());
                    let told = consume(&clients, &key).await;
                    match told {
                        Told::Yes => drop(acknowledged.fetch_add(1, Ordering::SeqCst)),
                        // Not to spin while nobody is there.
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                    calls.push((key, told));
                }
                calls
            });
        }
        Self { callers, acknowledged, stopping }
    }

    /// Waits until so many more were acknowledged.
    async fn flows(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::SeqCst) + more;
        until("the load flows", async || self.acknowledged.load(Ordering::SeqCst) >= goal).await;
    }

    async fn stop(self) -> Vec<(String, Told)> {
        self.stopping.store(1, Ordering::SeqCst);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

/// After a repetition of all that was not acknowledged, every call counts exactly once.
async fn everything_counts_once(house: &House, server: &Program, owner: &Headers, calls: &[(String, Told)]) {
    let acknowledged = calls.iter().filter(|(_, told)| matches!(told, Told::Yes)).count();
    let kept = house.count("select count(*) from usage_event where verdict = 1").await;
    assert!(kept >= i64::try_from(acknowledged).unwrap(), "{kept} kept of {acknowledged} acknowledged");
    let clients = server.clients(owner.clone());
    for (key, _) in calls.iter().filter(|(_, told)| !matches!(told, Told::Yes)) {
        assert!(matches!(consume(&clients, key).await, Told::Yes), "{key}");
    }
    let all = i64::try_from(calls.len()).unwrap();
    assert_eq!(house.count("select count(*) from usage_event where verdict = 1").await, all);
    // In one look: what leases have settled is folded into the accounts all the while.
    let used = house
        .count(
            "select cast((select sum(committed) from quota_account)
                         + (select coalesce(sum(settled), 0) from quota_lease) as bigint)",
        )
        .await;
    assert_eq!(used, all);
    books_agree(server).await;
}

/// Proves the books of all tenants.
pub(crate) async fn books_agree(server: &Program) {
    let mut operator = server.clients(Headers::default().and("x-api-key", &server.operator_key()));
    let mut books = operator.usage.verify_usage(v1::VerifyUsageRequest::default()).await.unwrap().into_inner();
    while let Some(found) = books.message().await.unwrap() {
        assert_eq!(found.findings, [], "the books do not agree");
    }
}

async fn a_stop_finishes_what_is_under_way(engine: Engine) {
    let house = House::new(engine).await;
    let server = house.start();
    let owner = owner(&server).await;
    let load = Load::start(&server, &owner);
    load.flows(30).await;
    until("units are leased", async || house.count(OPEN_LEASES).await > 0).await;
    let (code, log) = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    let calls = load.stop().await;
    // It has given everything back, and nobody has to wait until it counts as gone.
    for sql in [OPEN_LEASES, LEASED, "select count(*) from quota_writer"] {
        assert_eq!(house.count(sql).await, 0, "{sql}");
    }
    let server = house.start();
    everything_counts_once(&house, &server, &owner, &calls).await;
}

const OPEN_LEASES: &str = "select count(*) from quota_lease where epoch <> 0 or granted > 0";

const LEASED: &str = "select cast(coalesce(sum(leased), 0) as bigint) from quota_account";

async fn what_a_killed_server_had_leased_is_there_again(engine: Engine) {
    let house = House::new(engine).await;
    let server = house.start();
    let owner = owner(&server).await;
    let load = Load::start(&server, &owner);
    load.flows(30).await;
    until("units are leased", async || house.count(LEASED).await > 0).await;
    server.kill();
    let calls = load.stop().await;
    assert!(house.count(LEASED).await > 0, "nothing was leased when it died");
    let server = house.start();
    everything_counts_once(&house, &server, &owner, &calls).await;
    // Every unit that there is, which those are among.
    let amount = 1_000_000 - i64::try_from(calls.len()).unwrap();
    let all = v1::ConsumeRequest {
        amounts: vec![v1::Amount { metric: "tokens".to_owned(), amount }],
        idempotency_key: "all".to_owned(),
        ..Default::default()
    };
    let mut usage = server.clients(owner).usage;
    until("its leases are taken back", async || match usage.clone().consume(all.clone()).await {
        Ok(_) => true,
        Err(told) if told.code() == Code::Unavailable => false,
        Err(told) => panic!("{told:?}"),
    })
    .await;
    let one = v1::ConsumeRequest { idempotency_key: String::new(), ..all };
    assert_eq!(usage.consume(one).await.expect_err("that was all").code(), Code::ResourceExhausted);
    for sql in [OPEN_LEASES, LEASED] {
        assert_eq!(house.count(sql).await, 0, "{sql}");
    }
    books_agree(&server).await;
}

async fn a_killed_server_loses_nothing_and_does_nothing_twice(engine: Engine) {
    let house = House::new(engine).await;
    let mut server = house.start();
    let owner = owner(&server).await;
    let mut calls = Vec::new();
    for round in 0..2 {
        let load = Load::start(&server, &owner);
        let people = sign_ups(&server, round);
        load.flows(40).await;
        server.kill();
        calls.extend(load.stop().await);
        let people = people.join_all().await;
        server = house.start();
        everything_counts_once(&house, &server, &owner, &calls).await;
        everybody_signed_up_once(&house, &server, people).await;
    }
}

/// People who sign up, some of them while the server dies: what they sent, and the account they were told of.
fn sign_ups(server: &Program, round: usize) -> JoinSet<(v1::SignUpRequest, Option<String>)> {
    let mut people = JoinSet::new();
    for n in 0..8 {
        let mut auth = server.clients(Headers::default()).auth;
        let email = format!("{}@example.com", unique(&format!("p{round}-{n}")));
        let request = sign_up(&email, &crate::harness::request_id(), Some(&unique("t")));
        people.spawn(async move {
            let answer = auth.sign_up(request.clone()).await;
            (request, answer.ok().map(|done| done.into_inner().user.expect("a user").user_id))
        });
    }
    people
}

async fn everybody_signed_up_once(house: &House, server: &Program, people: Vec<(v1::SignUpRequest, Option<String>)>) {
    let before = house.count("select count(*) from user_account").await;
    let mut new = 0;
    let mut auth = server.clients(Headers::default()).auth;
    for (request, told) in people {
        let count = house.count("select count(*) from user_account").await;
        let again = auth.sign_up(request.clone()).await.expect("a repetition is answered").into_inner();
        let user = again.user.expect("a user").user_id;
        if let Some(told) = told {
            assert_eq!(user, told, "the first answer again");
            assert_eq!(
                house.count("select count(*) from user_account").await,
                count,
                "an acknowledged account was there"
            );
        }
        let once_more = auth.sign_up(request).await.expect("answered").into_inner();
        assert_eq!(once_more.user.expect("a user").user_id, user);
        new += house.count("select count(*) from user_account").await - count;
    }
    assert_eq!(house.count("select count(*) from user_account").await, before + new);
    assert_eq!(house.count("select count(*) from credential").await, before + new);
    assert_eq!(house.count("select count(*) from tenant").await, before + new, "everybody here has a tenant");
}

macro_rules! in_processes {
    ($($test:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Engine::Sqlite).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Engine::Postgres).await;
            })*
        }
    };
}

in_processes! {
    a_stop_finishes_what_is_under_way
    a_killed_server_loses_nothing_and_does_nothing_twice
    what_a_killed_server_had_leased_is_there_again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_back_is_survived() {
    let cluster = Cluster::private();
    let house = House { temp: tempfile::tempdir().unwrap(), database: Some(cluster.fresh_database().await) };
    let server = house.start();
    let owner = owner(&server).await;
    let ready = async || get(&server.http, "/readyz").await.0 == 200;
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel());
    let load = Load::start(&server, &owner);
    for how in [Stop::Fast, Stop::Immediate] {
        load.flows(30).await;
        tokio::task::block_in_place(|| cluster.stop(how));
        until("not ready", async || !ready().await).await;
        let told = health.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await;
        assert_eq!(told.unwrap().into_inner().status, 2, "NOT_SERVING");
        let mutation = sign_up(&format!("{}@example.com", unique("away")), &crate::harness::request_id(), None);
        let mut auth = server.clients(Headers::default()).auth;
        assert!(matches!(judge(auth.sign_up(mutation.clone()).await.map(drop)), Told::Away));
        tokio::task::block_in_place(|| cluster.start_again());
        until("ready again", ready).await;
        let told = health.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await;
        assert_eq!(told.unwrap().into_inner().status, 1, "SERVING");
        let first = auth.sign_up(mutation.clone()).await.expect("done now").into_inner().user;
        assert_eq!(auth.sign_up(mutation).await.expect("answered again").into_inner().user, first);
        assert_eq!(get(&server.http, "/healthz").await.0, 200);
    }
    load.flows(30).await;
    let calls = load.stop().await;
    assert!(calls.iter().any(|(_, told)| matches!(told, Told::Away)), "nobody saw the outage");
    assert!(!calls.iter().any(|(_, told)| matches!(told, Told::Lost)), "the server itself was never away");
    everything_counts_once(&house, &server, &owner, &calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_tenant_stays_in_the_pool() {
    use sqlx::postgres::PgPoolOptions;
    let house = House::new(Engine::Postgres).await;
    let server = house.start();
    owner(&server).await;
    let url = &house.database.as_ref().unwrap().app_url;
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.unwrap();
    let tenant: uuid::Uuid = {
        let mut admin = connect(&house.database.as_ref().unwrap().admin_url).await;
        sqlx::query_scalar("select tenant_id from tenantry.tenant").fetch_one(&mut admin).await.unwrap()
    };
    // What the store sends to begin a transaction.
    let begin = format!("begin; set local tenantry.tenant = '{tenant}'");
    let visible = "select count(*) from tenantry.tenant";
    for how in ["commit", "error", "cancel", "panic"] {
        let (shared, begin) = (pool.clone(), begin.clone());
        let work = tokio::spawn(async move {
            let mut tx = shared.begin_with(sqlx::AssertSqlSafe(begin)).await.unwrap();
            assert_eq!(sqlx::query_scalar::<_, i64>(visible).fetch_one(&mut *tx).await.unwrap(), 1);
            match how {
                "error" => drop(sqlx::raw_sql("select 1 / 0").execute(&mut *tx).await.unwrap_err()),
                "cancel" => {
                    let slow = sqlx::raw_sql("select pg_sleep(2)").execute(&mut *tx);
                    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
                }
                "panic" => panic!("as intended"),
                _ => tx.commit().await.unwrap(),
            }
        });
        assert_eq!(work.await.is_err(), how == "panic");
        let mut next = pool_connection(&pool).await;
        let set: Option<String> = sqlx::query_scalar("select nullif(current_setting('tenantry.tenant', true), '')")
            .fetch_one(&mut *next)
            .await
            .unwrap();
        assert_eq!(set, None, "after {how}");
        assert_eq!(sqlx::query_scalar::<_, i64>(visible).fetch_one(&mut *next).await.unwrap(), 0, "after {how}");
    }
}

async fn pool_connection(pool: &sqlx::PgPool) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    tokio::time::timeout(Duration::from_secs(35), pool.acquire()).await.expect("in time").expect("a connection")
}
