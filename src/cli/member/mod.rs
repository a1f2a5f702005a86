//! `tenantry member`: who belongs to a tenant, and as what.

mod access;
mod list;

use std::io::Write;

use clap::{Args, Subcommand};

use super::confirm::Confirm;
use super::connect::{Connect, Members, repeatable};
use super::output::{Output, present, sheet, time, word};
use super::{CliError, pages, request_id};
use crate::rpc::v1::{
    AddMemberRequest, GetMemberRequest, ListMembersRequest, Member as Row, MemberStatus, ReactivateMemberRequest,
    RemoveMemberRequest, SuspendMemberRequest, TransferOwnershipRequest, UpdateMemberRoleRequest, User,
};

/// Flags of `tenantry member`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry member add acme bob@example.com --role manager --role accountant
  tenantry member roles acme bob@example.com viewer
  tenantry member remove acme bob@example.com
  tenantry member list acme --status suspended --json
People without an account are invited: see `tenantry invitation`.")]
pub(super) struct Member {
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
    /// List members, in the order in which they joined
    List(list::List),
    /// Show a member
    Show(Whom),
    /// Make somebody a member who has an account
    Add {
        /// Slug or id
        tenant: String,
        /// The address that they signed up with
        email: String,
        /// What they will be, the catalogue's default unless said; may be said again
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// Give a member other roles instead of those that they have
    Roles {
        #[command(flatten)]
        whom: Whom,
        /// All roles that they will have
        #[arg(required = true)]
        roles: Vec<String>,
    },
    /// Make a member owner instead of what they were; the owners that there are stay
    TransferOwnership(Whom),
    /// Take a member's access away until they are reactivated
    Suspend(Whom),
    /// Give a suspended member their access back
    Reactivate(Whom),
    /// Remove a member, and with them the keys that they have in the tenant
    Remove {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// List the sessions in which a member is at work in the tenant
    Sessions(access::Sessions),
    /// End a member's work in the tenant, until they sign in again
    RevokeSessions(access::RevokeSessions),
    /// Take a member's second step away, who has lost it; their sessions end
    ResetMfa(Whom),
}

/// A member.
#[derive(Args, Debug)]
pub(super) struct Whom {
    /// Slug or id
    pub(super) tenant: String,
    /// Address or id of the member
    pub(super) member: String,
}

impl Whom {
    /// The member's id, looked up when it is the address that was said.
    pub(super) async fn id(&self, client: &Members) -> Result<String, CliError> {
        if !self.member.contains('@') {
            return Ok(self.member.clone());
        }
        Ok(self.get(client).await?.user.unwrap_or_default().user_id)
    }

    async fn get(&self, client: &Members) -> Result<Row, CliError> {
        let (tenant, email) = (&self.tenant, self.member.to_lowercase());
        if !email.contains('@') {
            let request = GetMemberRequest { tenant: tenant.clone(), user_id: self.member.clone() };
            return present(client.clone().get_member(request).await?.into_inner().member);
        }
        let ask = async |page_size, page_token| {
            let request = ListMembersRequest { tenant: tenant.clone(), page_size, page_token, ..Default::default() };
            let page = client.clone().list_members(request).await?.into_inner();
            Ok((page.members, page.next_page_token))
        };
        let found = pages::find(ask, |row: &Row| row.user.as_ref().is_some_and(|user| user.email == email)).await?;
        found.ok_or_else(|| CliError::Failed(format!("{tenant} has no member {email}")))
    }
}

impl Member {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Remove { confirm, .. } = &self.action {
            confirm.possible()?;
        }
        let client = self.connect.members().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        let row = match self.action {
            Action::List(list) => return list.run(client, out).await,
            Action::Sessions(sessions) => return sessions.run(client, out).await,
            Action::RevokeSessions(revoke) => return revoke.run(client, out).await,
            Action::ResetMfa(whom) => return access::reset_mfa(whom, &self.connect, client, out).await,
            Action::Show(whom) => Some(whom.get(&client).await?),
            Action::Add { tenant, email, roles } => {
                let request = AddMemberRequest { tenant, request_id, email, roles };
                repeatable!(client.add_member(request))?.member
            }
            Action::Roles { whom, roles } => {
                let user_id = whom.id(&client).await?;
                let etag = String::new();
                let request = UpdateMemberRoleRequest { tenant: whom.tenant, request_id, user_id, roles, etag };
                repeatable!(client.update_member_role(request))?.member
            }
            Action::TransferOwnership(whom) => {
                let new_owner_id = whom.id(&client).await?;
                let request =
                    TransferOwnershipRequest { tenant: whom.tenant, request_id, new_owner_id, own_roles: Vec::new() };
                repeatable!(client.transfer_ownership(request))?.new_owner
            }
            Action::Suspend(whom) => {
                let user_id = whom.id(&client).await?;
                let request = SuspendMemberRequest { tenant: whom.tenant, request_id, user_id };
                repeatable!(client.suspend_member(request))?.member
            }
            Action::Reactivate(whom) => {
                let user_id = whom.id(&client).await?;
                let request = ReactivateMemberRequest { tenant: whom.tenant, request_id, user_id };
                repeatable!(client.reactivate_member(request))?.member
            }
            Action::Remove { whom, confirm } => {
                let row = whom.get(&client).await?;
                let person = present(row.user)?;
                confirm.ask_about(&person, &format!("removes a member of {}", whom.tenant))?;
                // As they were when it was confirmed.
                let (user_id, etag) = (person.user_id, row.etag);
                let request = RemoveMemberRequest { tenant: whom.tenant, request_id, user_id, etag };
                repeatable!(client.remove_member(request))?.member
            }
        };
        out.one("Member", &present(row)?, facts)
    }
}

fn status(row: &Row) -> String {
    word(row.status, "MEMBER_STATUS_", MemberStatus::as_str_name)
}

fn facts(row: &Row) -> String {
    let User { user_id, email, display_name } = row.user.clone().unwrap_or_default();
    sheet(&[
        ("email", email),
        ("name", display_name),
        ("roles", row.roles.join(", ")),
        ("status", status(row)),
        ("joined", time(row.join_time)),
        ("changed", time(row.update_time)),
        ("last active", time(row.last_active_time)),
        ("id", user_id),
        ("membership", row.membership_id.clone()),
        ("etag", row.etag.clone()),
    ])
}
