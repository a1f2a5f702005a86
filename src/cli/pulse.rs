//! What a server does while it serves, besides answering: readiness follows the database, refusals go into the audit
//! logs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::App;
use crate::http::Readiness;
use crate::store::guard::GuardError;
use crate::store::{OpenError, Store};

/// The services whose health is told, besides the whole server's (the empty name).
const SERVICES: [&str; 4] = [
    "tenantry.v1.AuthService",
    "tenantry.v1.MembershipService",
    "tenantry.v1.TenantService",
    "tenantry.v1.UsageService",
];

/// How often readiness looks at the database, and how long it waits for it.
const PULSE: Duration = Duration::from_secs(1);

/// How often row level security is probed anew.
const PROBE: Duration = Duration::from_hours(1);

/// How often refusals are written into the audit logs.
const NOTED: Duration = Duration::from_mins(1);

/// Follows the database: a server that cannot reach it, or on which row level security does not hold, is not ready.
pub(super) async fn pulse(app: Arc<App>, ready: watch::Sender<Readiness>, reporter: HealthReporter) {
    let mut every = tokio::time::interval(PULSE);
    let mut probe = tokio::time::interval_at(tokio::time::Instant::now() + PROBE, PROBE);
    loop {
        tokio::select! {
            _ = every.tick() => beat(&app.store, &ready, &reporter).await,
            _ = probe.tick() => match app.store.probe().await {
                Err(error @ OpenError::Guard(GuardError::Unsafe(_))) => {
                    tracing::error!(%error, "row level security does not hold");
                    tell(&ready, &reporter, Readiness::NotReady("row level security does not hold")).await;
                    return;
                }
                // Away: the next beat says so.
                Err(error) => tracing::warn!(%error, "row level security was not probed"),
                Ok(()) => {}
            },
        }
    }
}

/// Writes refusals into the audit logs, and when members were active and keys were used, once a minute.
pub(super) async fn write_noted(app: Arc<App>) {
    let mut every = tokio::time::interval(NOTED);
    loop {
        every.tick().await;
        app.write_denials().await;
        app.write_activity().await;
        app.write_key_uses().await;
    }
}

pub(super) async fn beat(store: &Store, ready: &watch::Sender<Readiness>, reporter: &HealthReporter) {
    let now = match tokio::time::timeout(PULSE, store.ping()).await {
        Ok(Ok(())) => Readiness::Ready,
        _ => Readiness::NotReady("the database does not answer"),
    };
    if *ready.borrow() != now {
        tell(ready, reporter, now).await;
    }
}

pub(super) async fn tell(ready: &watch::Sender<Readiness>, reporter: &HealthReporter, now: Readiness) {
    tracing::info!(readiness = ?now, "readiness changed");
    ready.send_replace(now);
    let status = if now == Readiness::Ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(service, status).await;
    }
}
