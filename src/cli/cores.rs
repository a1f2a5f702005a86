//! gRPC on threads of its own, one a core, each with a runtime that has no other: what is read there is decided and answered
//! there, and no call is passed from one thread to another. A bare server takes about half the CPU so. What goes on beside
//! the calls, commit lanes and jobs among them, stays with the runtime that started the server.
//!
//! Connections are handed out in turn. Many listeners on one port would leave that to a hash of the addresses, which with
//! few and long connections, as backends have, gives one core most of the work.

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
            for end in ends {
                let ended = end.await.map_err(|_| "a thread that served is gone".to_owned())?;
                ended.map_err(|e| e.to_string())?;
            }
            Ok(())
        });
        Ok(Self { serving, _alive: alive })
    }
}

/// Hands connections out, until there is nobody to take one.
async fn accept(listener: &TcpListener, queues: &[mpsc::Sender<Accepted>]) {
    for queue in queues.iter().cycle() {
        let connection = loop {
            match listener
                .accept()
                .await
                .and_then(|(stream, _)| stream.set_nodelay(true).and_then(|()| stream.into_std()))
            {
                Ok(connection) => break connection,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        if queue.send(connection).await.is_err() {
            return;
        }
    }
}
