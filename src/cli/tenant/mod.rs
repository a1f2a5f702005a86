//! `tenantry tenant`: an operator's view of tenants. What may be done to them the server decides.

mod create;
mod end;
mod export;
mod import;
mod life;
mod list;
mod provision;

use std::io::Write;

use clap::{Args, Subcommand};

pub(super) use end::undone;
pub(super) use provision::Cycle;

use super::CliError;
use super::connect::{Connect, Tenants};
use super::output::{Output, present, sheet, time, word};
use crate::rpc::v1::lookup_external_id_request::Kind;
use crate::rpc::v1::{GetTenantRequest, LookupExternalIdRequest, SuspendCause, Tenant as Row, TenantStatus};

/// Flags of `tenantry tenant`.
#[derive(Args, Debug)]
pub(super) struct Tenant {
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
    /// List tenants, oldest first; without deleted ones unless asked for
    List(list::List),
    /// Show a tenant
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Find a tenant or user by the id that another system knows it by
    Find(Find),
    /// Create a tenant for somebody who has signed up
    Create(create::Create),
    /// Make a tenant with its administrator, settings, features and welcome mail
    Provision(Box<provision::Provision>),
    /// Change the name of a tenant
    Update(life::Update),
    /// Give a tenant another slug; the old one leads to it for another 30 days
    Rename(life::Rename),
    /// Set or clear the flags of a tenant
    Flags(life::Flags),
    /// Close a tenant: every call in it is refused until an operator activates it
    Suspend {
        /// Slug or id
        tenant: String,
        /// Why, for its members to read
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Open a suspended or a pending tenant
    Activate {
        /// Slug or id
        tenant: String,
    },
    /// Delete a tenant: closed at once, gone for good 30 days later
    Delete(end::Delete),
    /// Take a deletion back
    Undelete {
        /// Slug or id
        tenant: String,
    },
    /// End a tenant: cancel it and keep everything, or delete it
    Deprovision(end::Deprovision),
    /// Import users, tenants and memberships from a file of JSON lines
    Import(import::Import),
    /// Write everything of a tenant as JSON lines, secrets left out
    Export {
        /// Slug or id
        tenant: String,
    },
    /// Remove everything of a deleted tenant at once, which cannot be undone
    Purge(end::Purge),
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Find {
    /// The id of a tenant
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// The id of a user
    #[arg(long, value_name = "ID")]
    user_external_id: Option<String>,
}

impl Tenant {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        self.action.possible()?;
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::Import(import) => return import.run(&self.connect, out).await,
            Action::Export { tenant } => return export::run(self.connect.streams().await?, tenant, out.to).await,
            _ => {}
        }
        let client = self.connect.tenants().await?;
        let row = match self.action {
            Action::Import(_) | Action::Export { .. } => return Ok(()),
            Action::List(list) => return list.run(client, out).await,
            Action::Provision(provision) => return provision.run(client, out).await,
            Action::Rename(rename) => return rename.run(client, out).await,
            Action::Deprovision(deprovision) => return deprovision.run(client, out).await,
            Action::Purge(purge) => return purge.run(client, out).await,
            Action::Find(find) => match find.run(&client, &mut out).await? {
                Some(row) => row,
                None => return Ok(()),
            },
            Action::Show { tenant } => get(&client, &tenant).await?,
            Action::Create(create) => create.run(client).await?,
            Action::Update(update) => update.run(client).await?,
            Action::Flags(flags) => flags.run(client).await?,
            Action::Suspend { tenant, reason } => life::suspend(client, tenant, reason).await?,
            Action::Activate { tenant } => life::activate(client, tenant).await?,
            Action::Delete(delete) => delete.run(client).await?,
            Action::Undelete { tenant } => life::undelete(client, tenant).await?,
        };
        out.one("Tenant", &row, facts)
    }
}

impl Action {
    /// Whether what asks can ask, before a server is troubled.
    fn possible(&self) -> Result<(), CliError> {
        match self {
            Self::Delete(delete) => delete.confirm.possible(),
            Self::Deprovision(deprovision) if !deprovision.dry_run => deprovision.confirm.possible(),
            Self::Purge(purge) if !purge.dry_run => purge.confirm.possible(),
            _ => Ok(()),
        }
    }
}

impl Find {
    /// Finds a tenant; of a user there is only the id, which is written.
    async fn run(self, client: &Tenants, out: &mut Output<'_>) -> Result<Option<Row>, CliError> {
        let of_tenant = self.external_id.is_some();
        let kind = self.external_id.map(Kind::TenantExternalId).or(self.user_external_id.map(Kind::UserExternalId));
        let found = client.clone().lookup_external_id(LookupExternalIdRequest { kind }).await?.into_inner();
        if of_tenant {
            return get(client, &found.id).await.map(Some);
        }
        out.one("LookupExternalIdResponse", &found, |found| found.id.clone())?;
        Ok(None)
    }
}

/// A tenant by slug or id.
pub(super) async fn get(client: &Tenants, tenant: &str) -> Result<Row, CliError> {
    let request = GetTenantRequest { tenant: tenant.to_owned() };
    present(client.clone().get_tenant(request).await?.into_inner().tenant)
}

/// The status in one word; its number when the server is newer than this program.
fn status(row: &Row) -> String {
    word(row.status, "TENANT_STATUS_", TenantStatus::as_str_name)
}

/// A tenant for people, a fact a line.
fn facts(row: &Row) -> String {
    let flags = [(row.verified, "verified"), (row.demo, "demo"), (row.maintenance, "maintenance")];
    let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    sheet(&[
        ("slug", row.slug.clone()),
        ("name", row.display_name.clone()),
        ("status", status(row)),
        ("cause", word(row.suspend_cause, "SUSPEND_CAUSE_", SuspendCause::as_str_name)),
        ("reason", row.suspend_reason.clone()),
        ("plan", format!("{}, version {}", row.plan, row.plan_version)),
        ("trial ends", time(row.trial_end_time)),
        ("flags", flags.join(", ")),
        ("external id", row.external_id.clone()),
        ("created", time(row.create_time)),
        ("changed", time(row.update_time)),
        ("deleted", time(row.delete_time)),
        ("to be purged", time(row.purge_time)),
        ("id", row.tenant_id.clone()),
        ("etag", row.etag.clone()),
    ])
}
