//! `tenantry tenant create`: a tenant for somebody who has an account.

use clap::Args;

use super::{Row, Tenants};
use crate::cli::connect::repeatable;
use crate::cli::output::present;
use crate::cli::{CliError, request_id};
use crate::rpc::v1::CreateTenantRequest;

#[derive(Args, Debug)]
pub(super) struct Create {
    /// Name in URLs: 3 to 63 lower-case letters, digits and hyphens
    #[arg(long)]
    slug: String,
    /// Name that people see
    #[arg(long)]
    name: String,
    /// E-mail address of the owner, who must have an account
    #[arg(long, value_name = "EMAIL")]
    owner_email: String,
    /// Plan; the catalogue's default unless said
    #[arg(long, default_value = "", hide_default_value = true)]
    plan: String,
}

impl Create {
    pub(super) async fn run(self, client: Tenants) -> Result<Row, CliError> {
        let request = CreateTenantRequest {
            request_id: request_id(),
            display_name: self.name,
            slug: self.slug,
            owner_email: self.owner_email,
            plan: self.plan,
        };
        present(repeatable!(client.create_tenant(request))?.tenant)
    }
}
