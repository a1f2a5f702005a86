//! `tenantry tenant export`: everything of a tenant as JSON lines.

use std::io::Write;

use crate::cli::CliError;
use crate::cli::connect::Tenants;
use crate::rpc::v1::ExportTenantRequest;

/// Writes the lines of a tenant as they come. An export that broke off is an error, so that nobody keeps half of one.
pub(super) async fn run(mut client: Tenants, tenant: String, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut messages = client.export_tenant(ExportTenantRequest { tenant }).await?.into_inner();
    let mut last = String::new();
    while let Some(message) = messages.message().await? {
        for line in message.lines {
            writeln!(out, "{line}")?;
            last = line;
        }
    }
    if last.contains(r#""type":"end""#) {
        return Ok(());
    }
    Err(CliError::Failed("the export broke off: its last line is not of type `end`".to_owned()))
}
