//! `tenantry tenant list`: all tenants, page by page.

use clap::{Args, ValueEnum};

use super::{Row, Tenants, status};
use crate::cli::CliError;
use crate::cli::output::{Output, time};
use crate::cli::table::table;
use crate::rpc::v1::{ListTenantsRequest, TenantStatus};

/// The most tenants that a server puts on a page.
const PAGE: usize = 1000;

#[derive(Args, Debug)]
pub(super) struct List {
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

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Status {
    Pending,
    Trial,
    Active,
    Suspended,
    Cancelled,
    Deleted,
}

impl From<Status> for TenantStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Trial => Self::Trial,
            Status::Active => Self::Active,
            Status::Suspended => Self::Suspended,
            Status::Cancelled => Self::Cancelled,
            Status::Deleted => Self::Deleted,
        }
    }
}

impl List {
    /// Asks page by page; JSON is written as it comes, a table when all of it is there.
    pub(super) async fn run(self, mut client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        let mut request = ListTenantsRequest {
            status: self.status.map_or(0, |status| TenantStatus::from(status).into()),
            plan: self.plan,
            slug_prefix: self.slug_prefix,
            ..Default::default()
        };
        while left > 0 {
            request.page_size = i32::try_from(left.min(PAGE)).unwrap_or(0);
            let mut page = client.list_tenants(request.clone()).await?.into_inner();
            page.tenants.truncate(left);
            left -= page.tenants.len();
            if out.json {
                out.many("Tenant", &page.tenants, [""; 0], |_| [])?;
            } else {
                rows.append(&mut page.tenants);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        out.say(&table(["slug", "name", "status", "plan", "created", "id"], rows.iter().map(cells)))
    }
}

fn cells(row: &Row) -> [String; 6] {
    let (slug, name, plan) = (row.slug.clone(), row.display_name.clone(), row.plan.clone());
    [slug, name, status(row), plan, time(row.create_time), row.tenant_id.clone()]
}
