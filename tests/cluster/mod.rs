//! A PostgreSQL for tests: a real one, of this run's own, from the binaries that are installed, or the one that
//! `TEST_DATABASE_URL` (an administrator's address) names. Missing binaries are an error, never a skipped test.

pub(crate) mod server;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, process};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::store::setup::{self, Bootstrap};
use tokio::sync::OnceCell;

use server::Supervisor;

/// Of every role that tests create, on every cluster.
const PASSWORD: &str = "for tests: ' & $";

/// A PostgreSQL server.
pub(crate) struct Cluster {
    admin_url: String,
    template: OnceCell<String>,
    supervisor: Option<Mutex<Supervisor>>,
}

/// One prepared database, and the addresses of those who use it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "every one is an address, and says so where it is used")]
pub(crate) struct Database {
    /// As the application role.
    pub(crate) app_url: String,
    /// As the system role.
    pub(crate) system_url: String,
    /// As the role of the commit lanes.
    pub(crate) meter_url: String,
    /// As superuser, in this database.
    pub(crate) admin_url: String,
    /// As the role that migrates.
    pub(crate) migrate_url: String,
}

impl Database {
    /// A superuser's connection that sees the server's tables.
    pub(crate) async fn administrator(&self) -> PgConnection {
        let mut conn = PgConnection::connect(&self.admin_url).await.expect("connect as administrator");
        sqlx::raw_sql("set search_path = tenantry").execute(&mut conn).await.expect("set the search path");
        conn
    }
}

/// How to stop a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Ends sessions and writes everything out.
    Fast,
    /// Like a crash.
    Immediate,
}

impl Cluster {
    /// The cluster that the tests of this process share. Roles are shared too: whoever alters them takes
    /// [`Cluster::private`].
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The server of `TEST_DATABASE_URL`, or a new one. Databases made on the former stay there; they are called
    /// `tenantry_test_..`.
    ///
    /// # Panics
    /// When there is neither.
    pub(crate) fn start() -> Self {
        match env::var("TEST_DATABASE_URL") {
            Ok(admin_url) => Self { admin_url, template: OnceCell::new(), supervisor: None },
            Err(_) => Self::private(),
        }
    }

    /// A new server that can be stopped, started and maltreated.
    ///
    /// # Panics
    /// When there are no binaries, or they do not start.
    pub(crate) fn private() -> Self {
        // Somebody may take the free port before the server does; then another one.
        let (supervisor, port) =
            (0..3).find_map(|_| Supervisor::start()).expect("PostgreSQL does not start, see above");
        let admin_url = format!("postgres://postgres:{PASSWORD_ENCODED}@127.0.0.1:{port}/postgres");
        Self { admin_url, template: OnceCell::new(), supervisor: Some(Mutex::new(supervisor)) }
    }

    /// As superuser, in the database `postgres`.
    pub(crate) fn admin_url(&self) -> String {
        self.admin_url.clone()
    }

    /// An address on this server.
    pub(crate) fn url(&self, database: &str, role: &str) -> String {
        setup::url_for(&self.admin_url, database, role, PASSWORD).expect("url")
    }

    /// A bootstrapped database of its own: copied from a template, and bootstrapped once more for what a copy lacks
    /// (its grants and its roles' settings).
    pub(crate) async fn fresh_database(&self) -> Database {
        let template = self.template.get_or_init(|| self.bootstrapped()).await;
        let name = unique_name();
        let copy = format!(r#"create database "{name}" template "{template}" owner tenantry_owner"#);
        let mut admin = PgConnection::connect(&self.admin_url).await.expect("connect as administrator");
        sqlx::raw_sql(AssertSqlSafe(copy)).execute(&mut admin).await.expect("copy the template");
        admin.close().await.expect("close");
        setup::bootstrap(&self.admin_url, &wish(&name)).await.expect("bootstrap the copy");
        self.database(&name)
    }

    /// A database's addresses, whether it exists or not.
    pub(crate) fn database(&self, name: &str) -> Database {
        let options: sqlx::postgres::PgConnectOptions = self.admin_url.parse().expect("url");
        let password = env::var("TEST_DATABASE_URL").ok().filter(|_| self.supervisor.is_none());
        let admin_url = match password {
            None => self.url(name, options.get_username()),
            Some(url) => in_database(&url, name),
        };
        Database {
            app_url: self.url(name, "tenantry_app"),
            system_url: self.url(name, "tenantry_system"),
            meter_url: self.url(name, "tenantry_meter"),
            migrate_url: self.url(name, "tenantry_migrate"),
            admin_url,
        }
    }

    /// Stops the server. Only on a [`Cluster::private`].
    pub(crate) fn stop(&self, how: Stop) {
        let word = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.order(word, "stopped");
    }

    /// Starts it again, on the same port and data.
    pub(crate) fn start_again(&self) {
        self.order("start", "ready");
    }

    fn order(&self, word: &str, answer: &str) {
        let supervisor = self.supervisor.as_ref().expect("only a private cluster stops and starts");
        supervisor.lock().expect("lock").order(word, answer);
    }

    async fn bootstrapped(&self) -> String {
        let name = unique_name();
        setup::bootstrap(&self.admin_url, &wish(&name)).await.expect("bootstrap");
        name
    }
}

/// [`PASSWORD`] in a URL.
const PASSWORD_ENCODED: &str = "for%20tests%3A%20%27%20%26%20%24";

/// What tests ask a bootstrap for.
pub(crate) fn wish(database: &str) -> Bootstrap {
    Bootstrap { database: database.to_owned(), password: Some(PASSWORD.to_owned()) }
}

/// A name for a database that no other test, process or run has.
pub(crate) fn unique_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static RUN: OnceLock<String> = OnceLock::new();
    // The name of a temporary directory is random: two runs against one TEST_DATABASE_URL do not meet.
    let run = RUN.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("").tempdir().expect("temporary directory");
        dir.path().file_name().expect("name").to_string_lossy().to_lowercase()
    });
    format!("tenantry_test_{run}_{}_{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// `url` with another database in its path.
fn in_database(url: &str, database: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(a, p)| (a, Some(p)));
    let start = address.find("://").map_or(0, |at| at + 3);
    let end = address[start..].find('/').map_or(address.len(), |at| start + at);
    let parameters = parameters.map_or_else(String::new, |p| format!("?{p}"));
    format!("{}/{database}{parameters}", &address[..end])
}

#[tokio::test]
async fn a_private_cluster_comes_back_with_its_rows_after_a_crash() {
    let cluster = Cluster::private();
    let mut conn = PgConnection::connect(&cluster.admin_url()).await.unwrap();
    sqlx::raw_sql("create table kept as select 1 as n").execute(&mut conn).await.unwrap();
    for how in [Stop::Immediate, Stop::Fast] {
        cluster.stop(how);
        assert!(PgConnection::connect(&cluster.admin_url()).await.is_err());
        cluster.start_again();
        let mut conn = PgConnection::connect(&cluster.admin_url()).await.unwrap();
        let n: i32 = sqlx::query_scalar("select n from kept").fetch_one(&mut conn).await.unwrap();
        assert_eq!(n, 1);
    }
    let dir = cluster.supervisor.as_ref().unwrap().lock().unwrap().dir.clone();
    drop(cluster);
    assert!(!dir.exists());
}
