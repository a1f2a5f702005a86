//! What happens later: every server looks for due jobs, and claims and runs them. How each is done is the use cases'
//! business (`app/jobs.rs`). What waits for others outside has a lane of its own for each kind, where many wait side by
//! side: a slow mail server delays mail and nothing else, and a slow letter no other letter.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;
pub use crate::app::jobs::JobKind;

/// How often a server looks for due jobs.
const LOOK: Duration = Duration::from_secs(1);

/// How often it looks for jobs that nobody has scheduled.
const REPAIR: Duration = Duration::from_hours(1);

/// How often it reads the signing keys anew: another server may have rotated them.
const FOLLOW: Duration = Duration::from_secs(2);

/// Runs due jobs, for as long as the server serves.
pub async fn run(app: Arc<App>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        // As long as there are some: a backlog is worked off without pauses.
        while let Ok(1..) = app.run_due_jobs().await.inspect_err(|error| {
            tracing::warn!(%error, "due jobs could not be claimed");
        }) {}
    }
}

/// Looks after what is nobody's job, for as long as the server serves; never behind a job that takes long.
pub async fn upkeep(app: Arc<App>) {
    let mut repair = tokio::time::interval(REPAIR);
    let mut follow = tokio::time::interval(FOLLOW);
    follow.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = follow.tick() => {
                if let Err(error) = app.follow_signing_keys().await {
                    tracing::warn!(%error, "the signing keys could not be read anew");
                }
            }
            _ = repair.tick() => {
                if let Err(error) = app.schedule_missing_jobs().await {
                    tracing::warn!(%error, "missing jobs could not be looked for");
                }
                if let Err(error) = app.forget_attempts().await {
                    tracing::warn!(%error, "counted attempts could not be cleared away");
                }
            }
        }
    }
}

/// The kinds that have a lane of their own, each with how many are done at once.
pub const LANES: &[(JobKind, usize)] = &[(JobKind::Mail, 8), (JobKind::Webhook, 16)];

/// Runs the due jobs of a lane until it is to stop; those that are under way then are finished. What is cut off
/// nevertheless may have happened outside, and will happen again.
pub async fn run_lane(app: Arc<App>, (kind, width): (JobKind, usize), mut stop: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut at_it = JoinSet::new();
    while !*stop.borrow() {
        let free = width - at_it.len();
        let claimed = if free == 0 { Ok(Vec::new()) } else { app.claim_outside(kind, free).await };
        let claimed = claimed.unwrap_or_else(|error| {
            tracing::warn!(%error, kind = kind.as_str(), "due jobs could not be claimed");
            Vec::new()
        });
        for job in claimed {
            let app = app.clone();
            at_it.spawn(async move { app.run_claimed(&job).await });
        }
        tokio::select! {
            Some(_) = at_it.join_next() => {}
            _ = look.tick(), if at_it.len() < width => {}
            _ = stop.changed() => {}
        }
    }
    while at_it.join_next().await.is_some() {}
}

/// Runs the due jobs of all lanes, and waits for them; how many there were.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn run_lanes_once(app: &Arc<App>) -> Result<usize, crate::error::Error> {
    let mut total = 0;
    for (kind, width) in LANES {
        let mut at_it = JoinSet::new();
        for job in app.claim_outside(*kind, *width).await? {
            let app = app.clone();
            at_it.spawn(async move { app.run_claimed(&job).await });
        }
        total += at_it.len();
        while at_it.join_next().await.is_some() {}
    }
    Ok(total)
}
