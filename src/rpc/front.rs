//! What every request passes first: a request id and a span, the bound on concurrency, the deadline, the gate, metrics,
//! and one line in the log. What tonic refuses by itself leaves here in our words.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response};
use metrics::{Counter, Histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field};
use uuid::Uuid;

use super::access::{ACCESS, Access, Who};
use super::gate::Gate;
use super::status::{self, REQUEST_ID};
use super::stream::LONGEST;
use crate::ctx::{WRITTEN, Written};
use crate::decide::memory::Basis;
use crate::entropy;
use crate::error::Error;

/// Bounds of every request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many requests at once; further ones are refused, not queued.
    pub concurrency: usize,
    /// The longest deadline, and the one of requests that bring none.
    pub deadline: Duration,
}

/// A turn to work on a call. A call that is answered by a stream keeps it, in its request, for as long as that goes on: the
/// deadline ends when the stream begins, the turn does not.
#[derive(Clone)]
pub(super) struct Turn {
    _turn: Arc<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// When a call is given up: a method that works until then answers before.
#[derive(Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// Makes a `Front` around the services.
#[derive(Clone)]
pub struct FrontLayer {
    gate: Arc<Gate>,
    turns: Arc<Semaphore>,
    /// Half of the turns, for calls that need no credential: what strangers send slowly stops only strangers.
    public_turns: Arc<Semaphore>,
    deadline: Duration,
    meters: Arc<HashMap<&'static str, OnceLock<Meter>>>,
}

impl FrontLayer {
    /// With this gate and these bounds.
    #[must_use]
    pub fn new(gate: Arc<Gate>, limits: Limits) -> Self {
        let turns = |count| Arc::new(Semaphore::new(count));
        let public_turns = turns((limits.concurrency / 2).max(1));
        let meters = ACCESS.iter().map(|access| (access.name(), OnceLock::new())).collect();
        let (turns, deadline) = (turns(limits.concurrency), limits.deadline);
        Self { gate, turns, public_turns, deadline, meters: Arc::new(meters) }
    }

    /// A turn to work on a call, given back when it is answered.
    fn turn(&self, access: &Access) -> Result<Turn, Error> {
        let take = |turns: &Arc<Semaphore>| turns.clone().try_acquire_owned().map_err(|_| Error::Overloaded);
        let public = (access.who == Who::Public).then(|| take(&self.public_turns)).transpose()?;
        Ok(Turn { _turn: Arc::new((take(&self.turns)?, public)) })
    }
}

impl<S> Layer<S> for FrontLayer {
    type Service = Front<S>;

    fn layer(&self, inner: S) -> Front<S> {
        Front { inner, shared: self.clone() }
    }
}

/// The services behind the gate.
#[derive(Clone)]
pub struct Front<S> {
    inner: S,
    shared: FrontLayer,
}

type Answer<E> = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        // The clone is not ready; the one that was asked is.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let shared = self.shared.clone();
        let Some(access) = Access::of(request.uri().path()) else {
            // Health, reflection, or nothing: open to everybody, and without anything of ours in it. Their own refusals
            // are part of their protocols; that there is no such method is ours to say.
            return Box::pin(async move {
                let response = inner.call(request).await?;
                let unknown =
                    Status::from_header_map(response.headers()).is_some_and(|s| s.code() == Code::Unimplemented);
                Ok(if unknown { in_our_words(response) } else { response })
            });
        };
        let request_id = entropy::id(shared.gate.app.clock.now());
        let span = tracing::info_span!(
            "rpc",
            method = access.name(),
            request_id = %request_id,
            tenant = field::Empty,
            caller = "anonymous",
            caller_id = field::Empty,
            otel.kind = "server",
        );
        crate::telemetry::continue_trace(&span, request.headers());
        // Boxed before it is wrapped: each wrapper would move it once more, and it is kilobytes.
        let work = Box::pin(answer(shared, access, request_id, inner, request));
        Box::pin(REQUEST_ID.scope(request_id, WRITTEN.scope(Cell::default(), work)).instrument(span))
    }
}

async fn answer<S>(
    shared: FrontLayer,
    access: &'static Access,
    request_id: Uuid,
    mut inner: S,
    request: Request<Body>,
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let started = Instant::now();
    let memory = &shared.gate.app.plane.memory;
    let basis = memory.basis();
    let bound = if access.takes_stream { LONGEST } else { shared.deadline };
    let result = match (shared.turn(access), deadline(request.headers(), bound)) {
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(turn), Ok(deadline)) => {
            let work = std::pin::pin!(async {
                let (mut parts, body) = request.into_parts();
                parts.extensions.insert(turn.clone());
                parts.extensions.insert(Deadline(started + deadline));
                match shared.gate.admit(access, request_id, &mut parts).await {
                    Ok(()) => inner.call(Request::from_parts(parts, body)).await.map(Ok),
                    Err(error) => Ok(Err(error)),
                }
            });
            match tokio::time::timeout(deadline, work).await {
                Ok(done) => done?,
                Err(_) => Err(Error::DeadlineExceeded),
            }
        }
    };
    let mut response = match result {
        Ok(response) => in_our_words(response),
        Err(error) => status::status(&error).into_http(),
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id.to_string()) {
        headers.insert("tenantry-request-id", value);
    }
    if !access.tells_revision {
        tell_basis(headers, basis, memory.max_staleness());
    }
    let meter = shared.meters[access.name()].get_or_init(|| Meter::new(access));
    tell(access, meter, &response, started.elapsed());
    Ok(response)
}

/// Says on what a call was answered: on all that was committed up to a revision, its own changes among them, and for how long
/// others may have been there that it did not see. What it has changed itself is seen everywhere within `max_staleness`.
fn tell_basis(headers: &mut HeaderMap, basis: Basis, max_staleness: Duration) {
    let (revision, wrote) = match WRITTEN.with(Cell::get) {
        Written::Nothing => (basis.revision, false),
        Written::UpTo(cursor) => (Some(cursor), true),
        Written::Somewhere => (None, true),
    };
    let millis = |duration: Duration| HeaderValue::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    if let Some(revision) = revision
        && let Ok(value) = HeaderValue::from_str(&revision.text())
    {
        headers.insert("tenantry-revision", value);
    }
    if let Some(staleness) = basis.staleness() {
        headers.insert("tenantry-staleness", millis(staleness));
    }
    headers.insert("tenantry-max-staleness", millis(max_staleness));
    if wrote {
        headers.insert("tenantry-effective-everywhere-in", millis(max_staleness));
    }
}

/// How long this request may take: what the client says, within our bound. A tenth less, at most 50 ms, so that the answer
/// gets through before the client's own timer, and before tonic's, whose refusal would say no reason.
fn deadline(headers: &HeaderMap, bound: Duration) -> Result<Duration, Error> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(bound) };
    let parsed = value.to_str().ok().and_then(grpc_timeout).ok_or(Error::MetadataMalformed("grpc-timeout"))?;
    let margin = (parsed / 10).min(Duration::from_millis(50));
    Ok(parsed.saturating_sub(margin).min(bound))
}

/// A timeout as gRPC writes it: up to eight digits and a unit.
#[must_use]
pub fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(amount)),
        "M" => Some(Duration::from_mins(amount)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A refusal without details is tonic's own; it gets ours.
fn in_our_words(response: Response<Body>) -> Response<Body> {
    let Some(refused) = Status::from_header_map(response.headers()) else { return response };
    if refused.code() == Code::Ok || !refused.details().is_empty() {
        return response;
    }
    status::of_framework(refused.code(), refused.message()).into_http()
}

/// The metrics of a method that was called: looked up once, not at each call.
struct Meter {
    answered: Counter,
    seconds: Histogram,
}

impl Meter {
    fn new(access: &'static Access) -> Self {
        Self {
            answered: requests(access, Code::Ok),
            seconds: metrics::histogram!("tenantry_request_seconds", "method" => access.name()),
        }
    }
}

fn requests(access: &'static Access, code: Code) -> Counter {
    metrics::counter!("tenantry_requests_total", "method" => access.name(), "code" => format!("{code:?}"))
}

/// One line in the log and three metrics a request.
fn tell(access: &'static Access, meter: &Meter, response: &Response<Body>, took: Duration) {
    let refused = Status::from_header_map(response.headers());
    let code = refused.as_ref().map_or(Code::Ok, Status::code);
    if code == Code::Ok {
        meter.answered.increment(1);
    } else {
        requests(access, code).increment(1);
    }
    meter.seconds.record(took.as_secs_f64());
    let millis = took.as_secs_f64() * 1000.0;
    let reason = refused.as_ref().map(reason_of).unwrap_or_default();
    Span::current().in_scope(|| tracing::info!(code = ?code, reason, millis, "answered"));
}

fn reason_of(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_read_as_grpc_writes_them() {
        assert_eq!(grpc_timeout("1S"), Some(Duration::from_secs(1)));
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        for bad in ["", "S", "1", "1x", "123456789S", "-1S", "1 S", "é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }
}
