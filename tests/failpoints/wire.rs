//! A server's way to PostgreSQL, which can be cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes on to PostgreSQL whatever is sent to its own port.
pub(crate) struct Wire {
    pub(crate) port: u16,
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Wire {
    pub(crate) async fn to(postgres: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections: Arc<Mutex<JoinSet<()>>> = Arc::default();
        let open = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut server, _)) = listener.accept().await {
                open.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
                    if let Ok(mut postgres) = TcpStream::connect(postgres).await {
                        let _ = copy_bidirectional(&mut server, &mut postgres).await;
                    }
                });
            }
        });
        Self { port, connections }
    }

    /// Ends every connection; returns when all have ended.
    pub(crate) async fn cut(&self) {
        let mut open = std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
        open.shutdown().await;
    }
}
