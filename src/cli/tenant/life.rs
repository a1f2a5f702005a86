//! What changes about a tenant while it lives: its name, slug and flags, and whether it is open.

use clap::Args;
use prost_types::FieldMask;

use super::{Row, Tenants, facts};
use crate::cli::connect::repeatable;
use crate::cli::output::{Output, present, time};
use crate::cli::{CliError, request_id};
use crate::rpc::v1::{
    ActivateTenantRequest, ChangeSlugRequest, SetTenantFlagsRequest, SuspendTenantRequest, UndeleteTenantRequest,
    UpdateTenantRequest,
};

#[derive(Args, Debug)]
pub(super) struct Update {
    /// Slug or id
    tenant: String,
    /// Name that people see
    #[arg(long)]
    name: String,
    /// The etag that was read; refused when the tenant has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Update {
    pub(super) async fn run(self, client: Tenants) -> Result<Row, CliError> {
        let request = UpdateTenantRequest {
            tenant: self.tenant,
            request_id: request_id(),
            update_mask: Some(FieldMask { paths: vec!["display_name".to_owned()] }),
            display_name: self.name,
            etag: self.etag,
        };
        present(repeatable!(client.update_tenant(request))?.tenant)
    }
}

#[derive(Args, Debug)]
pub(super) struct Rename {
    /// Slug or id
    tenant: String,
    /// The new slug: 3 to 63 lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// The etag that was read; refused when the tenant has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Rename {
    pub(super) async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let request =
            ChangeSlugRequest { tenant: self.tenant, request_id: request_id(), slug: self.slug, etag: self.etag };
        let answer = repeatable!(client.change_slug(request))?;
        let row = present(answer.tenant.clone())?;
        out.one("ChangeSlugResponse", &answer, |answer| {
            let until = match time(answer.alias_expire_time) {
                until if until.is_empty() => String::new(),
                until => format!("\nThe old slug leads to it until {until}."),
            };
            facts(&row) + &until
        })
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry tenant flags acme --verified true
  tenantry tenant flags acme --maintenance true       it can be read and takes no changes")]
pub(super) struct Flags {
    /// Slug or id
    tenant: String,
    /// Whether the platform has checked who it is
    #[arg(long, value_name = "true|false", required_unless_present_any = ["demo", "maintenance"])]
    verified: Option<bool>,
    /// Whether it is for showing, not for work
    #[arg(long, value_name = "true|false")]
    demo: Option<bool>,
    /// Whether it takes no changes, but from operators
    #[arg(long, value_name = "true|false")]
    maintenance: Option<bool>,
}

impl Flags {
    pub(super) async fn run(self, client: Tenants) -> Result<Row, CliError> {
        let request = SetTenantFlagsRequest {
            tenant: self.tenant,
            request_id: request_id(),
            verified: self.verified,
            demo: self.demo,
            maintenance: self.maintenance,
        };
        present(repeatable!(client.set_tenant_flags(request))?.tenant)
    }
}

pub(super) async fn suspend(client: Tenants, tenant: String, reason: String) -> Result<Row, CliError> {
    let request = SuspendTenantRequest { tenant, request_id: request_id(), reason };
    present(repeatable!(client.suspend_tenant(request))?.tenant)
}

pub(super) async fn activate(client: Tenants, tenant: String) -> Result<Row, CliError> {
    let request = ActivateTenantRequest { tenant, request_id: request_id() };
    present(repeatable!(client.activate_tenant(request))?.tenant)
}

pub(super) async fn undelete(client: Tenants, tenant: String) -> Result<Row, CliError> {
    let request = UndeleteTenantRequest { tenant, request_id: request_id() };
    present(repeatable!(client.undelete_tenant(request))?.tenant)
}
