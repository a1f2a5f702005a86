//! Log, traces and metrics: set up once, when the process starts. What is logged, traced and counted is said where it
//! happens.

use std::env;
use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use thiserror::Error;
use tonic::transport::ClientTlsConfig;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{LogFormat, Serve};

/// Upper bounds of histogram buckets, in seconds: from an answer out of memory to the longest deadline.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// How often histograms are folded, so that they do not grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long the last spans may take to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// What keeps log, traces and metrics going.
#[derive(Debug)]
pub struct Telemetry {
    metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

/// Why they could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The log filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter of spans cannot be made: mostly a wrong endpoint.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: spans cannot be sent there")]
    Exporter(#[from] ExporterBuildError),
    /// The metrics recorder cannot be installed.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(String),
    /// The process has a log already.
    #[error("the log was set up before")]
    Log(#[from] TryInitError),
}

impl Telemetry {
    /// Metrics alone, for servers inside tests: may be called any number of times, all of which share one recorder.
    ///
    /// # Errors
    /// Somebody else installed a recorder.
    pub fn metrics_only() -> Result<Self, TelemetryError> {
        Ok(Self { metrics: recorder()?, traces: None })
    }

    /// The handle that renders the metrics.
    #[must_use]
    pub fn metrics(&self) -> PrometheusHandle {
        self.metrics.clone()
    }

    /// Keeps histograms small; runs until it is dropped or aborted.
    pub async fn upkeep(metrics: PrometheusHandle) {
        let mut every = tokio::time::interval(UPKEEP);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            metrics.run_upkeep();
        }
    }

    /// Sends the spans that have not been sent yet, and ends. Waits at most five seconds, on a thread where waiting
    /// harms nobody, since sending needs the runtime that this is called from.
    pub async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        let sent = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// Sets up log, traces (when `OTEL_EXPORTER_OTLP_ENDPOINT` is set) and metrics. Once a process, inside the runtime.
///
/// # Errors
/// See `TelemetryError`.
pub fn init(config: &Serve) -> Result<Telemetry, TelemetryError> {
    let metrics = recorder()?;
    let traces = if otlp_wanted() { Some(tracer_provider()?) } else { None };
    // Only our own spans: those of the exporter's HTTP client would be sent, and sending them makes more.
    let otlp = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tenantry"))
            .with_filter(filter_fn(|span| span.target().starts_with("tenantry")))
    });
    let filter = EnvFilter::try_new(&config.log)?;
    tracing_subscriber::registry().with(log(config.log_format)).with(otlp).with(filter).try_init()?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(Telemetry { metrics, traces })
}

/// The log, on stderr.
fn log(format: Option<LogFormat>) -> Box<dyn Layer<Registry> + Send + Sync> {
    let terminal = io::stderr().is_terminal();
    match format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json }) {
        LogFormat::Text => fmt::layer().with_writer(io::stderr).with_ansi(terminal).boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(io::stderr).boxed()
        }
    }
}

/// Whether the environment asks for traces, by the names that OpenTelemetry gave.
fn otlp_wanted() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
}

/// Sends spans in batches over gRPC. Endpoint, headers, timeout and sampling are read from the `OTEL_*` environment.
fn tracer_provider() -> Result<SdkTracerProvider, TelemetryError> {
    let roots = ClientTlsConfig::new().with_enabled_roots();
    let exporter = SpanExporter::builder().with_tonic().with_tls_config(roots).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

/// Who sends the spans: `tenantry`, unless `OTEL_RESOURCE_ATTRIBUTES` or, before it, `OTEL_SERVICE_NAME` say otherwise.
fn resource() -> Resource {
    let defaults = Resource::builder_empty().with_service_name("tenantry");
    let detected = defaults.with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => detected.with_service_name(name).build(),
        _ => detected.build(),
    }
}

/// Makes a request's span a child of the caller's, when the headers carry one (W3C Trace Context). Does nothing while no
/// traces are sent.
pub fn continue_trace(span: &tracing::Span, headers: &http::HeaderMap) {
    struct Headers<'a>(&'a http::HeaderMap);
    impl opentelemetry::propagation::Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key).and_then(|value| value.to_str().ok())
        }
        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
    if headers.contains_key("traceparent") {
        let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&Headers(headers)));
        // Fails only where no layer listens, which is where nobody wants it.
        let _ = tracing_opentelemetry::OpenTelemetrySpanExt::set_parent(span, parent);
    }
}

/// The one recorder of the process, installed by the first who asks.
fn recorder() -> Result<PrometheusHandle, TelemetryError> {
    static INSTALLED: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder();
    let installed = INSTALLED.get_or_init(|| install().map_err(|error: BuildError| error.to_string()));
    installed.clone().map_err(TelemetryError::Metrics)
}
