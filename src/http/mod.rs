//! The small HTTP port: metrics for Prometheus, liveness and readiness for whoever keeps the process running, and the keys
//! that access tokens are verified by. Nothing
//! of tenants and nothing secret is served here, because nobody is asked who they are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

/// How long a connection may take to send the head of a request, and how long it may idle between two.
const HEAD: Duration = Duration::from_secs(30);

/// How many bytes that head may have.
const HEAD_BYTES: usize = 16 << 10;

/// How long a connection lives, so that clients which never read an answer cannot keep all connections.
const LIFE: Duration = Duration::from_mins(5);

/// Connections at once: scrapers and probes are few, so more of them are a fault.
const CONNECTIONS: usize = 128;

/// How long answers under way are waited for at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Whether the server should be sent requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It should.
    Ready,
    /// It should not, for this reason.
    NotReady(&'static str),
}

/// What gives the keys that access tokens are verified by, as a JSON Web Key Set (RFC 7517).
pub type Jwks = Arc<dyn Fn() -> String + Send + Sync>;

#[derive(Clone)]
struct Shown {
    metrics: PrometheusHandle,
    jwks: Jwks,
    readiness: watch::Receiver<Readiness>,
}

/// Serves `/metrics`, `/healthz`, `/readyz` and `/.well-known/jwks.json` until `shutdown` ends, and then finishes what it has begun. Request
/// bodies are never read.
///
/// # Errors
/// None at present: a connection that fails ends alone.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: watch::Receiver<Readiness>,
    jwks: Jwks,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let router = router(Shown { metrics, jwks, readiness });
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors or the like: it passes, and until then trying again at once would only burn time.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let connection = connections.watch(connection(stream, router.clone()));
        tokio::spawn(async move {
            let _ = timeout(LIFE, connection).await;
            drop(permit);
        });
    }
    let _ = timeout(DRAIN, connections.shutdown()).await;
    Ok(())
}

/// One connection. axum's own server has no time limit on request heads, hence hyper's.
fn connection(stream: TcpStream, router: Router) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .route("/.well-known/jwks.json", get(show_jwks))
        .with_state(shown)
}

async fn show_metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shown.metrics.render())
}

/// To be kept for a few minutes: a key is published for an hour before it signs.
async fn show_jwks(State(shown): State<Shown>) -> impl IntoResponse {
    let head = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (head, (shown.jwks)())
}

async fn show_readiness(State(shown): State<Shown>) -> impl IntoResponse {
    let readiness = *shown.readiness.borrow();
    match readiness {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::NotReady(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;
    use crate::telemetry::Telemetry;

    struct Port {
        address: std::net::SocketAddr,
        readiness: watch::Sender<Readiness>,
        stop: oneshot::Sender<()>,
        served: tokio::task::JoinHandle<io::Result<()>>,
    }

    async fn port() -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, watched) = watch::channel(Readiness::NotReady("starting"));
        let (stop, stopped) = oneshot::channel();
        let metrics = Telemetry::metrics_only().unwrap().metrics();
        let served = tokio::spawn(serve(listener, metrics, watched, Arc::new(|| "{\"keys\":[]}".to_owned()), async {
            drop(stopped.await);
        }));
        Port { address, readiness, stop, served }
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_server_and_liveness_does_not() {
        let port = port().await;
        let answer = get(port.address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: starting\n"), "{answer}");
        port.readiness.send_replace(Readiness::Ready);
        assert!(get(port.address, "/readyz").await.starts_with("HTTP/1.1 200"));
        port.readiness.send_replace(Readiness::NotReady("draining"));
        assert!(get(port.address, "/readyz").await.ends_with("not ready: draining\n"));
        assert!(get(port.address, "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn metrics_are_shown_and_nothing_else_is() {
        let port = port().await;
        metrics::counter!("tenantry_http_test_total").increment(3);
        let answer = get(port.address, "/metrics").await;
        assert!(
            answer.contains("text/plain; version=0.0.4") && answer.contains("tenantry_http_test_total 3"),
            "{answer}"
        );
        assert!(get(port.address, "/").await.starts_with("HTTP/1.1 404"));
        assert!(get(port.address, "/metrics/..%2fdata").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn the_published_keys_may_be_kept_for_a_while() {
        let answer = get(port().await.address, "/.well-known/jwks.json").await;
        assert!(answer.contains("application/jwk-set+json") && answer.contains("max-age=300"), "{answer}");
        assert!(answer.ends_with("{\"keys\":[]}"), "{answer}");
    }

    #[tokio::test]
    async fn it_ends_although_an_idle_connection_is_open() {
        let port = port().await;
        let mut idle = TcpStream::connect(port.address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0; 12]).await.unwrap();
        port.stop.send(()).unwrap();
        timeout(DRAIN * 2, port.served).await.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(port.address).await.is_err());
    }

    #[tokio::test]
    async fn a_huge_head_is_refused() {
        let port = port().await;
        let answer = get(port.address, &"/x".repeat(HEAD_BYTES)).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
