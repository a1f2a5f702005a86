//! `tenantry migrate`: brings a PostgreSQL database up to date, as its owner.

use clap::Args;

use super::CliError;

/// Flags of `tenantry migrate`.
#[derive(Args, Debug)]
pub(super) struct Migrate {}

impl Migrate {
    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// Always: migrations are not part of this build yet.
    #[expect(clippy::unused_async, reason = "the signature that migrations are written against")]
    pub(super) async fn run(self) -> Result<(), CliError> {
        Err(CliError::Failed("this build cannot migrate yet".to_owned()))
    }
}
