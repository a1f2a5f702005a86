//! The PostgreSQL server behind a cluster: finding the binaries, starting them, and their end.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs};

use super::PASSWORD;

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
# What was built and set up just before goes to the disk now, and not while the first commits wait for theirs.
sync -f "$DIR"
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

/// A running server, and whoever ends it.
pub(super) struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Everything of the server is in here.
    pub(super) dir: PathBuf,
}

impl Supervisor {
    /// Starts a server on a free port; none when that port was taken meanwhile.
    pub(super) fn start() -> Option<(Self, u16)> {
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

    /// Gives an order and waits until it is done.
    pub(super) fn order(&mut self, word: &str, expected: &str) {
        writeln!(self.orders.as_mut().expect("orders"), "{word}").expect("supervisor");
        assert_eq!(self.answer(), expected, "{}", self.log());
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
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nmax_connections = 500\n\
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
