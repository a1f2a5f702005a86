//! `tenantry serve`: opens everything, listens, and closes it again in order.

use super::CliError;
use crate::config::Serve;

/// Runs a server until SIGTERM or SIGINT.
///
/// # Errors
/// Always: the server is not part of this build yet.
#[expect(clippy::unused_async, reason = "the signature that the server is written against")]
pub(super) async fn run(config: Serve) -> Result<(), CliError> {
    config.check()?;
    Err(CliError::Failed("this build has no server yet".to_owned()))
}
