//! A PostgreSQL for tests: a real one, of this run's own, from the binaries that are installed, or the one that
//! `TEST_DATABASE_URL` (an administrator's address) names. Missing binaries are an error, never a skipped test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::{env, fs, process, thread, time::Duration};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::store::setup::{self, Bootstrap};
use tokio::sync::OnceCell;

/// Of every role that tests create, on every cluster.
const PASSWORD: &str = "for tests: ' & $";

/// Starts PostgreSQL and does what it is told, a word a line, until the pipe closes: then the test process is gone,
/// however it went, and so are the server and its files.
const SUPERVISOR: &str = r#"
start() {
  rm -f "$DIR/data/postmaster.pid"
  "$BIN/postgres" -D "$DIR/data" </dev/null >>"$DIR/log" 2>&1 &
  pid=$!
  until grep -qs '^ready' "$DIR/data/postmaster.pid"; do
    kill -0 $pid 2>/dev/null || { echo failed; return; }
    sleep 0.02
  done
  echo ready
}
stop() { kill -"$1" $pid; wait $pid; echo stopped; }
start
while read -r word; do
  case $word in
    start) start ;;
    fast) stop INT ;;
    immediate) stop QUIT ;;
  esac
done
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$DIR"
"#;

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
    /// As superuser, in this database.
    pub(crate) admin_url: String,
    /// As the role that migrates.
    pub(crate) migrate_url: String,
}

/// How to stop a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// Ends sessions and writes everything out.
    Fast,
    /// Like a crash.
    Immediate,
}

struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dir: PathBuf,
}

impl Cluster {
    /// The cluster that the tests of this process share. Roles are shared too: whoever alters them takes
    /// [`Cluster::private`].
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// The server of `TEST_DATABASE_URL`, or a new one.
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
        let mut supervisor = supervisor.lock().expect("lock");
        writeln!(supervisor.orders.as_mut().expect("orders"), "{word}").expect("supervisor");
        assert_eq!(supervisor.answer(), answer, "{}", supervisor.log());
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

impl Supervisor {
    /// Starts a server on a free port; none when that port was taken meanwhile.
    fn start() -> Option<(Self, u16)> {
        let bin = binaries();
        let dir = tempfile::Builder::new().prefix("tenantry-pg-").tempdir().expect("temporary directory").keep();
        let user = unprivileged(&dir);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("free port").port();
        initialise(&bin, &dir, user, port);

        let mut command = as_user(Command::new("sh"), user);
        command.args(["-c", SUPERVISOR]).env("BIN", &bin).env("DIR", &dir).current_dir(&dir);
        // A group of its own: Ctrl-C is for the tests, and the pipe then closes.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start sh");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("stdout"));
        let mut supervisor = Self { child, orders, answers, dir };
        if supervisor.answer() == "ready" {
            return Some((supervisor, port));
        }
        eprintln!("{}", supervisor.log());
        None
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("supervisor");
        line.trim_end().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Creates the data directory. Every setting is one of speed or size; nothing is less durable than in production.
fn initialise(bin: &Path, dir: &Path, user: Option<(u32, u32)>, port: u16) {
    let password = dir.join("password");
    fs::write(&password, PASSWORD).expect("write");
    let mut initdb = as_user(Command::new(bin.join("initdb")), user);
    initdb.current_dir(dir).args(["--no-sync", "--encoding=UTF8", "--locale=C", "--username=postgres"]);
    // Clear text over loopback: the server still compares the password, and debug builds need not compute SCRAM.
    initdb.args(["--auth=password", "--pwfile"]).arg(&password).arg("-D").arg(dir.join("data"));
    let output = initdb.output().expect("run initdb");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 300\n\
         shared_buffers = '32MB'\nautovacuum_naptime = '1h'\nlog_min_messages = fatal\nmax_wal_size = '4GB'\n"
    );
    let file = dir.join("data/postgresql.conf");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(file, format!("{text}\n{settings}")).expect("write");
}

/// Where `initdb` and `postgres` are: the newest that is installed, else on the path.
pub(crate) fn binaries() -> PathBuf {
    let installed =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let number = |dir: &PathBuf| -> u32 {
        let version = dir.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        version.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let newest = installed.filter(|dir| is_complete(dir)).max_by_key(number);
    let path = env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| env::split_paths(&path).find(|dir| is_complete(dir))).expect(
        "these tests need PostgreSQL 15 or later: `apt-get install postgresql`, \
         or set TEST_DATABASE_URL to a superuser's address of a server for tests",
    )
}

fn is_complete(dir: &Path) -> bool {
    dir.join("initdb").is_file() && dir.join("postgres").is_file()
}

/// PostgreSQL refuses to run as root: then gives `dir` to `postgres` or `nobody`, and returns who that is.
fn unprivileged(dir: &Path) -> Option<(u32, u32)> {
    if fs::metadata(dir).expect("temporary directory").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let (uid, gid) = find("postgres").or_else(|| find("nobody")).expect("a user postgres or nobody");
    chown(dir, Some(uid), Some(gid)).expect("chown");
    Some((uid, gid))
}

fn as_user(mut command: Command, user: Option<(u32, u32)>) -> Command {
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
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
    thread::sleep(Duration::from_millis(1));
    assert!(!dir.exists());
}
