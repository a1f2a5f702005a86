//! `tenantry member list`: the members, page by page.

use clap::{Args, ValueEnum};

use super::{Members, Row, status};
use crate::cli::CliError;
use crate::cli::output::{Output, time};
use crate::cli::pages::Pages;
use crate::rpc::v1::{ListMembersRequest, MemberStatus};

#[derive(Args, Debug)]
pub(super) struct List {
    /// Slug or id
    tenant: String,
    /// Only members of this status
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
    #[command(flatten)]
    pages: Pages,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Status {
    Active,
    Suspended,
}

impl List {
    pub(super) async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let status = match self.status {
            None => MemberStatus::Unspecified,
            Some(Status::Active) => MemberStatus::Active,
            Some(Status::Suspended) => MemberStatus::Suspended,
        };
        let columns = (["email", "name", "roles", "status", "joined", "last active", "id"], cells);
        let ask = async |page_size, page_token| {
            let tenant = self.tenant.clone();
            let request = ListMembersRequest { tenant, status: status.into(), page_size, page_token };
            let page = client.clone().list_members(request).await?.into_inner();
            Ok((page.members, page.next_page_token))
        };
        self.pages.list(&mut out, "Member", columns, ask).await
    }
}

fn cells(row: &Row) -> [String; 7] {
    let person = row.user.clone().unwrap_or_default();
    let (joined, active) = (time(row.join_time), time(row.last_active_time));
    [person.email, person.display_name, row.roles.join(", "), status(row), joined, active, person.user_id]
}
