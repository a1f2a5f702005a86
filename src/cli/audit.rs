//! `tenantry audit`: who did what, in a tenant or on the platform.

use std::io::Write;

use clap::{Args, Subcommand};

use super::CliError;
use super::connect::Connect;
use super::output::{Output, time, word};
use super::table::plain;
use crate::rpc::v1::{
    AuditEvent as Row, AuditFilter, CallerKind, ExportAuditEventsRequest, ListAuditEventsRequest,
    ListPlatformAuditEventsRequest,
};

/// Flags of `tenantry audit`.
#[derive(Args, Debug)]
pub(super) struct Audit {
    #[command(subcommand)]
    action: Action,

    /// Print JSON, for scripts: one object a line
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the newest events
    List {
        /// Slug or id of a tenant; the platform's own log when absent
        tenant: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: i32,
        #[command(flatten)]
        only: Only,
    },
    /// Write a tenant's whole log as JSON, one event a line, the oldest first. The last event's id goes on as --after
    Export {
        /// Slug or id
        tenant: String,
        /// Only what came after this event
        #[arg(long, value_name = "EVENT_ID", default_value = "", hide_default_value = true)]
        after: String,
        #[command(flatten)]
        only: Only,
    },
}

/// Which events.
#[derive(Args, Debug)]
struct Only {
    /// Only this action, such as `TenantService/UpdateTenant`, or all of a service, such as `TenantService/`
    #[arg(long, value_name = "ACTION", default_value = "", hide_default_value = true)]
    action: String,
    /// Only what this user or key did
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    actor: String,
    /// Only what was done to this
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    subject: String,
}

impl From<Only> for AuditFilter {
    fn from(only: Only) -> Self {
        Self { actor_id: only.actor, action: only.action, subject_id: only.subject, ..Self::default() }
    }
}

impl Audit {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        let header = ["time", "who", "action", "on", "changes"];
        match self.action {
            Action::List { tenant: Some(tenant), limit, only } => {
                let filter = Some(only.into());
                let request = ListAuditEventsRequest { tenant, filter, page_size: limit, ..Default::default() };
                let events = client.list_audit_events(request).await?.into_inner().events;
                out.many("AuditEvent", &events, header, cells)
            }
            Action::List { tenant: None, limit, only } => {
                let filter = Some(only.into());
                let request = ListPlatformAuditEventsRequest { filter, page_size: limit, ..Default::default() };
                let events = client.list_platform_audit_events(request).await?.into_inner().events;
                out.many("AuditEvent", &events, header, cells)
            }
            Action::Export { tenant, after, only } => {
                out.json = true;
                let request = ExportAuditEventsRequest { tenant, filter: Some(only.into()), cursor: after };
                let mut stream = client.export_audit_events(request).await?.into_inner();
                while let Some(message) = stream.message().await? {
                    out.many("AuditEvent", &message.events, header, cells)?;
                }
                Ok(())
            }
        }
    }
}

fn cells(row: &Row) -> [String; 5] {
    let kind = word(row.actor_kind, "CALLER_KIND_", CallerKind::as_str_name);
    let who = if row.actor_id.is_empty() { kind } else { format!("{kind} {}", row.actor_id) };
    let changes = plain(&row.changes);
    let short: String = changes.chars().take(60).collect();
    let short = if short.len() < changes.len() { format!("{short}…") } else { short };
    [time(row.time), who, plain(&row.action).into_owned(), row.subject_id.clone(), short]
}
