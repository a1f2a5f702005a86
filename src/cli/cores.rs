//! gRPC on threads of its own, one a core, each with a runtime that has no other: what is read there is decided and answered
//! there, and no call is passed from one thread to another. A bare server takes about half the CPU so. What goes on beside
//! the calls, commit lanes and jobs among them, stays with the runtime that started the server.
//!
//! Connections are handed out in turn. Many listeners on one port would leave that to a hash of the addresses, which with
//! few and long connections, as backends have, gives one core most of the work.

use std::io::ErrorKind;
use std::net::TcpStream as Accepted;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Router;

use super::CliError;
use crate::rpc::front::FrontLayer;

/// Everything that gRPC serves.
pub(super) type Served = Router<tower::layer::util::Stack<FrontLayer, tower::layer::util::Identity>>;

/// Connections that wait to be taken over by a core.
const WAITING: usize = 64;

/// How long after a failure connections are accepted again: there may be no file handles left.
const AGAIN: Duration = Duration::from_millis(50);

/// Threads that serve.
pub(super) struct Cores {
    /// Ends when the last call was answered after the stop, or when one of them fails.
    pub(super) serving: JoinHandle<Result<(), String>>,
    /// What calls have opened, such as connections to the database, lives as long as their threads.
    _alive: watch::Sender<()>,
}

impl Cores {
    /// Serves on so many threads what comes to a listener, until `stop`.
    ///
    /// # Errors
    /// That there are no threads to be had.
    pub(super) fn serve(
        listener: TcpListener,
        served: &Served,
        count: usize,
        stop: oneshot::Receiver<()>,
    ) -> Result<Self, CliError> {
        let (alive, lives) = watch::channel(());
        let (stopping, stopped) = watch::channel(());
        let (mut queues, mut ends) = (Vec::new(), Vec::new());
        for number in 0..count {
            let failed = |e: std::io::Error| CliError::Failed(format!("no thread to serve on: {e}"));
            let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let (queue, connections) = mpsc::channel(WAITING);
            let (tell, told) = oneshot::channel();
            let (served, mut stopped, mut lives) = (served.clone(), stopped.clone(), lives.clone());
            let work = async move {
                let incoming = ReceiverStream::new(connections).map(TcpStream::from_std);
                let stop = async { drop(stopped.changed().await) };
                let _ = tell.send(served.serve_with_incoming_shutdown(incoming, stop).await);
                // Until nobody needs what was opened here.
                let _ = lives.changed().await;
            };
            let thread = std::thread::Builder::new().name(format!("core-{number}"));
            thread.spawn(move || runtime.block_on(work)).map_err(failed)?;
            queues.push(queue);
            ends.push(told);
        }
        let serving = tokio::spawn(async move {
            tokio::select! {
                () = accept(&listener, &queues) => {}
                _ = stop => {}
            }
            drop((listener, stopping));
            let mut all = Ok(());
            for end in ends {
                let ended = end.await.map_err(|_| "a thread that served is gone".to_owned());
                all = all.and(ended.and_then(|ended| ended.map_err(|e| e.to_string())));
            }
            all
        });
        Ok(Self { serving, _alive: alive })
    }
}

/// Hands connections out in turn, but for cores that have not taken over what they were given, until one of them is gone.
async fn accept(listener: &TcpListener, queues: &[mpsc::Sender<Accepted>]) {
    let mut turn = 0;
    loop {
        let connection = match listener.accept().await {
            Ok((stream, _)) => stream.set_nodelay(true).and_then(|()| stream.into_std()),
            // Its peer's doing: others wait for nothing.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Ok(connection) = connection else { continue };
        if queues.iter().any(mpsc::Sender::is_closed) {
            return;
        }
        turn += 1;
        let mut in_turn = (0..queues.len()).map(|step| &queues[(turn + step) % queues.len()]);
        match in_turn.find_map(|queue| queue.try_reserve().ok()) {
            Some(place) => place.send(connection),
            None if queues[turn % queues.len()].send(connection).await.is_err() => return,
            None => {}
        }
    }
}
