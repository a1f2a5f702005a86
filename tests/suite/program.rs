//! The real program as a child process, for what only a process can show: its exit, its signals, its files, its output.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};

use crate::cluster::Database;
use crate::harness::{CATALOGUE, Clients, Headers};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program with this command line and an environment that holds nothing but what is said here.
pub(crate) fn tenantry(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// A server on free ports that keeps everything in `dir`, and its rows in `database` when there is one.
pub(crate) fn serve(dir: &Path, database: Option<&Database>) -> Command {
    serve_on("127.0.0.1:0", dir, database)
}

/// The same with gRPC on a port that was in use before.
pub(crate) fn serve_on(address: &str, dir: &Path, database: Option<&Database>) -> Command {
    let mut command = tenantry(["serve", "--listen", address, "--http-listen", "127.0.0.1:0"]);
    let catalogue = dir.with_extension("toml");
    std::fs::write(&catalogue, CATALOGUE.replace("1000", "1000000")).expect("a catalogue");
    command.arg("--data-dir").arg(dir).arg("--catalogue").arg(catalogue);
    if let Some(database) = database {
        // As with SQLite, where nothing is said.
        command.env("TENANTRY_SIGN_UP", "immediate");
        command.env("TENANTRY_DATABASE_URL", &database.app_url);
        command.env("TENANTRY_SYSTEM_DATABASE_URL", &database.system_url);
        command.env("TENANTRY_METER_DATABASE_URL", &database.meter_url);
    }
    command
}

/// Runs a command to its end.
pub(crate) fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

/// A server that runs.
pub(crate) struct Program {
    child: Child,
    /// Where gRPC listens.
    pub(crate) grpc: String,
    /// Where HTTP listens.
    pub(crate) http: String,
    /// Where its keys are.
    pub(crate) dir: PathBuf,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts a server and waits until it greets.
    ///
    /// # Panics
    /// When it ends instead.
    pub(crate) fn start(dir: &Path, command: Command) -> Self {
        Self::try_start(dir, command).unwrap_or_else(|(code, told)| panic!("ended with {code:?}: {told}"))
    }

    /// A server that is expected not to start: its exit code and what it says.
    ///
    /// # Panics
    /// When it starts.
    pub(crate) fn refused(dir: &Path, command: Command) -> (Option<i32>, String) {
        Self::try_start(dir, command).err().expect("the server started")
    }

    fn try_start(dir: &Path, mut command: Command) -> Result<Self, (Option<i32>, String)> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let output = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout");
        let stderr = child.stderr.take().expect("stderr");
        let readers = vec![collect(stdout, &output, Some(tell)), collect(stderr, &output, None)];
        let mut started =
            Self { child, grpc: String::new(), http: String::new(), dir: dir.to_owned(), output, readers };
        loop {
            match told.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let address = |line: &str| line.split_once("http").map(|(_, rest)| format!("http{rest}"));
                    if line.starts_with("  gRPC ") {
                        started.grpc = address(&line).expect("an address");
                    } else if line.starts_with("  HTTP ") {
                        let all = address(&line).expect("an address");
                        all.split("/metrics").next().expect("an address").clone_into(&mut started.http);
                    } else if line.contains("tenantry tenant list") {
                        return Ok(started);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let code = started.wait();
                    return Err((code, started.output()));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("neither greets nor ends: {}", started.output()),
            }
        }
    }

    /// Everything that it wrote so far.
    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("lock").clone()
    }

    /// Ends it without a chance to do anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill");
        self.wait();
    }

    /// Asks it to end, and waits until it has: its exit code and all its output.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        self.signal("TERM");
        let code = self.wait();
        (code, self.output())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it has now, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "does not end: {}", self.output());
            thread::sleep(Duration::from_millis(10));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("reader");
        }
        status.code()
    }

    /// The operator's key.
    pub(crate) fn operator_key(&self) -> String {
        std::fs::read_to_string(self.dir.join("operator.key")).expect("a key").trim().to_owned()
    }

    /// Clients on a connection of their own, which comes back by itself.
    pub(crate) fn clients(&self, headers: Headers) -> Clients {
        Clients::new(self.channel(), headers)
    }

    /// A connection.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(self.grpc.clone()).expect("an address").connect_lazy()
    }

    /// Clients with the operator's key.
    pub(crate) fn operator(&self) -> Clients {
        self.clients(Headers::default().and("x-api-key", &self.operator_key()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what comes, and tells each line.
fn collect(
    from: impl Read + Send + 'static,
    to: &Arc<Mutex<String>>,
    tell: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    let to = Arc::clone(to);
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let mut text = to.lock().expect("lock");
            text.push_str(&line);
            text.push('\n');
            drop(text);
            let _ = tell.as_ref().map(|tell| tell.send(line));
        }
    })
}

/// Asks the HTTP port: status and body.
pub(crate) async fn get(http: &str, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = http.strip_prefix("http://").expect("an address");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
