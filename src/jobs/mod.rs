//! What happens later: every server looks for due jobs, and claims and runs them. How each is done is the use cases'
//! business (`app/jobs.rs`).

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;

/// How often a server looks for due jobs.
const LOOK: Duration = Duration::from_secs(1);

/// How often it looks for jobs that nobody has scheduled.
const REPAIR: Duration = Duration::from_hours(1);

/// Runs due jobs, for as long as the server serves.
pub async fn run(app: Arc<App>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut repair = tokio::time::interval(REPAIR);
    loop {
        tokio::select! {
            _ = look.tick() => {
                // As long as there are some: a backlog is worked off without pauses.
                while let Ok(1..) = app.run_due_jobs().await.inspect_err(|error| {
                    tracing::warn!(%error, "due jobs could not be claimed");
                }) {}
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
