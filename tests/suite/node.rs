//! Programs of others that tests talk to, run by Node: each says on its output, a JSON object a line, what happens to it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// A program that runs; ends with its value.
pub(crate) struct Node {
    child: Child,
    /// Where it listens.
    pub(crate) port: u16,
    said: Arc<Mutex<Vec<Value>>>,
}

impl Node {
    /// Starts a script of tests/node and waits until it listens.
    ///
    /// # Panics
    /// When Node or the packages are missing: then `make install-test-tools` brings them.
    pub(crate) async fn start(script: &str, args: &[&str]) -> Self {
        let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node"));
        let missing = "node and the packages of tests/node are needed: run `make install-test-tools`";
        assert!(directory.join("node_modules").is_dir(), "{missing}");
        let mut command = Command::new("node");
        command.arg(script).args(args).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{missing}: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("output")).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        let mut node = Self { child, port: 0, said };
        let port = node.wait("it listens", |said| said.get("port").is_some()).await;
        node.port = u16::try_from(port["port"].as_u64().expect("a port")).expect("a port");
        node
    }

    /// Everything that it has said so far.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.said.lock().unwrap().clone()
    }

    /// The first thing that it says that is like this; fails after a while.
    pub(crate) async fn wait(&self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let find = || self.said().into_iter().find(|said| like(said));
        let waiting = async {
            loop {
                if let Some(found) = find() {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}; said: {:?}", self.said()))
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("input");
        writeln!(input, "{line}").expect("it listens");
        input.flush().expect("it listens");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
