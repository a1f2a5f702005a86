//! `tenantry tenant list`: all tenants, page by page.

use clap::{Args, ValueEnum};

use super::{Row, Tenants, status};
use crate::cli::CliError;
use crate::cli::output::{Output, time};
use crate::cli::pages::Pages;
use crate::rpc::v1::{ListTenantsRequest, TenantStatus};

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
    #[command(flatten)]
    pages: Pages,
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
    pub(super) async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let request = ListTenantsRequest {
            status: self.status.map_or(0, |status| TenantStatus::from(status).into()),
            plan: self.plan,
            slug_prefix: self.slug_prefix,
            ..Default::default()
        };
        let columns = (["slug", "name", "status", "plan", "created", "id"], cells);
        let ask = async |page_size, page_token| {
            let request = ListTenantsRequest { page_size, page_token, ..request.clone() };
            let page = client.clone().list_tenants(request).await?.into_inner();
            Ok((page.tenants, page.next_page_token))
        };
        self.pages.list(&mut out, "Tenant", columns, ask).await
    }
}

fn cells(row: &Row) -> [String; 6] {
    let (slug, name, plan) = (row.slug.clone(), row.display_name.clone(), row.plan.clone());
    [slug, name, status(row), plan, time(row.create_time), row.tenant_id.clone()]
}
