//! `tenantry tenant`: an operator's view of tenants. What may be done to them the server decides.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::connect::{Connect, Tenants, twice};
use super::table::{plain, table};
use super::{CliError, request_id};
use crate::rpc::v1::{
    ActivateTenantRequest, CreateTenantRequest, GetTenantRequest, ListTenantsRequest, SuspendTenantRequest,
    Tenant as Row, TenantStatus,
};
use crate::time::Timestamp;

/// The most tenants that a server puts on a page.
const PAGE: usize = 1000;

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
    List(List),
    /// Show a tenant
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Create a tenant for somebody who has signed up
    Create(Create),
    /// Close a tenant: every call in it is refused until an operator activates it
    Suspend {
        /// Slug or id
        tenant: String,
        /// Why, for its members to read
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Open a suspended tenant again
    Activate {
        /// Slug or id
        tenant: String,
    },
}

#[derive(Args, Debug)]
struct List {
    /// Only tenants of this status
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
    /// Only tenants of this plan
    #[arg(long, value_name = "PLAN", default_value = "", hide_default_value = true)]
    plan: String,
    /// Only tenants whose slug begins so
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    slug_prefix: String,
    /// At most so many; all of them unless said
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(Args, Debug)]
struct Create {
    /// Name in URLs: 3 to 63 lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Name that people see
    #[arg(long)]
    name: String,
    /// E-mail address of the owner, who must have an account
    #[arg(long, value_name = "EMAIL")]
    owner_email: String,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Status {
    Active,
    Suspended,
    Deleted,
}

impl From<Status> for TenantStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::Suspended => Self::Suspended,
            Status::Deleted => Self::Deleted,
        }
    }
}

impl Tenant {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let client = self.connect.tenants().await?;
        let row = match self.action {
            Action::List(list) => return list.run(client, self.json, out).await,
            Action::Show { tenant } => {
                client.clone().get_tenant(GetTenantRequest { tenant }).await?.into_inner().tenant
            }
            Action::Create(create) => create.run(client).await?,
            Action::Suspend { tenant, reason } => {
                let request = SuspendTenantRequest { tenant, request_id: request_id(), reason };
                twice(async || client.clone().suspend_tenant(request.clone()).await).await?.into_inner().tenant
            }
            Action::Activate { tenant } => {
                let request = ActivateTenantRequest { tenant, request_id: request_id() };
                twice(async || client.clone().activate_tenant(request.clone()).await).await?.into_inner().tenant
            }
        };
        let row = row.ok_or_else(|| CliError::Failed("the server's answer has no tenant in it".to_owned()))?;
        let text = if self.json { json(&row) } else { sheet(&row) };
        Ok(writeln!(out, "{text}")?)
    }
}

impl List {
    /// Asks page by page; JSON is written as it comes, a table when all of it is there.
    async fn run(self, mut client: Tenants, as_json: bool, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut request = ListTenantsRequest {
            status: self.status.map_or(0, |status| TenantStatus::from(status).into()),
            plan: self.plan,
            slug_prefix: self.slug_prefix,
            ..ListTenantsRequest::default()
        };
        let mut rows = Vec::new();
        while left > 0 {
            request.page_size = i32::try_from(left.min(PAGE)).unwrap_or(0);
            let mut page = client.list_tenants(request.clone()).await?.into_inner();
            page.tenants.truncate(left);
            left -= page.tenants.len();
            if as_json {
                page.tenants.iter().try_for_each(|row| writeln!(out, "{}", json(row)))?;
            } else {
                rows.append(&mut page.tenants);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if !as_json {
            let header = ["slug", "name", "status", "plan", "created", "id"];
            writeln!(out, "{}", table(header, rows.into_iter().map(cells)))?;
        }
        Ok(())
    }
}

impl Create {
    async fn run(self, client: Tenants) -> Result<Option<Row>, CliError> {
        let request = CreateTenantRequest {
            request_id: request_id(),
            display_name: self.name,
            slug: self.slug,
            owner_email: self.owner_email,
            plan: String::new(),
        };
        Ok(twice(async || client.clone().create_tenant(request.clone()).await).await?.into_inner().tenant)
    }
}

/// A tenant as scripts see it: these keys are always there, `null` when there is nothing to say.
#[derive(Serialize)]
struct Json<'a> {
    tenant_id: &'a str,
    slug: &'a str,
    display_name: &'a str,
    status: String,
    suspend_reason: Option<&'a str>,
    plan: &'a str,
    create_time: Option<String>,
    update_time: Option<String>,
    delete_time: Option<String>,
    purge_time: Option<String>,
    etag: &'a str,
}

/// One line of JSON.
pub(super) fn json(row: &Row) -> String {
    let time = |at: Option<prost_types::Timestamp>| at.map(|t| t.to_string());
    let json = Json {
        tenant_id: &row.tenant_id,
        slug: &row.slug,
        display_name: &row.display_name,
        status: status(row),
        suspend_reason: Some(row.suspend_reason.as_str()).filter(|reason| !reason.is_empty()),
        plan: &row.plan,
        create_time: time(row.create_time),
        update_time: time(row.update_time),
        delete_time: time(row.delete_time),
        purge_time: time(row.purge_time),
        etag: &row.etag,
    };
    serde_json::to_string(&json).unwrap_or_default()
}

/// The status in one word; its number when the server is newer than this program.
fn status(row: &Row) -> String {
    match TenantStatus::try_from(row.status) {
        Ok(status) => status.as_str_name().trim_start_matches("TENANT_STATUS_").to_ascii_lowercase(),
        Err(_) => row.status.to_string(),
    }
}

/// A time in whole seconds; a dash when there is none.
fn time(at: Option<prost_types::Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |t| Timestamp::from_micros(t.seconds.saturating_mul(1_000_000)).to_string())
}

fn cells(row: Row) -> [String; 6] {
    [row.slug.clone(), row.display_name.clone(), status(&row), row.plan.clone(), time(row.create_time), row.tenant_id]
}

/// A tenant for people, a fact a line.
fn sheet(row: &Row) -> String {
    let facts = [
        ("slug", row.slug.clone()),
        ("name", row.display_name.clone()),
        ("status", status(row)),
        ("reason", row.suspend_reason.clone()),
        ("plan", row.plan.clone()),
        ("created", time(row.create_time)),
        ("changed", time(row.update_time)),
        ("deleted", row.delete_time.map_or_else(String::new, |t| time(Some(t)))),
        ("purged", row.purge_time.map_or_else(String::new, |t| time(Some(t)))),
        ("id", row.tenant_id.clone()),
    ];
    let lines = facts.iter().filter(|(_, value)| !value.is_empty());
    lines.map(|(name, value)| format!("{name:<9}{}", plain(value))).collect::<Vec<_>>().join("\n")
}
