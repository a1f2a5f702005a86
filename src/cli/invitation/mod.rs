//! `tenantry invitation`: people who are asked to join a tenant.

mod import;

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::connect::{Connect, Members, repeatable};
use super::output::{Output, once, present, sheet, time, word};
use super::pages::Pages;
use super::{CliError, request_id};
use crate::rpc::v1::{
    Invitation as Row, InvitationStatus, InviteMemberRequest, InviteMemberResponse, ListInvitationsRequest,
    ResendInvitationRequest, ResendInvitationResponse, RevokeInvitationRequest,
};

/// Flags of `tenantry invitation`.
#[derive(Args, Debug)]
pub(super) struct Invitation {
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
    /// List invitations, oldest first
    List {
        /// Slug or id
        tenant: String,
        /// Only those that stand so
        #[arg(long, value_name = "STATUS")]
        status: Option<Status>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Invite somebody by mail, or print the link
    Send(Send),
    /// Invite all people of a file
    Import(import::Import),
    /// Send a pending or expired invitation again: the link before opens nothing any more
    Resend {
        /// Slug or id
        tenant: String,
        /// The invitation's id
        invitation: String,
        /// Send no mail, and print the link instead
        #[arg(long)]
        link: bool,
    },
    /// Take a pending invitation back
    Revoke {
        /// Slug or id
        tenant: String,
        /// The invitation's id
        invitation: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry invitation send acme cleo@example.com --role member --role accountant
  tenantry invitation send acme cleo@example.com --link       to hand it over yourself")]
struct Send {
    /// Slug or id
    tenant: String,
    /// Address of the person
    email: String,
    /// What they will be, the catalogue's default unless said; may be said again
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Send no mail, and print the link instead
    #[arg(long)]
    link: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Status {
    Pending,
    Accepted,
    Declined,
    Revoked,
    Expired,
}

impl From<Status> for InvitationStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Accepted => Self::Accepted,
            Status::Declined => Self::Declined,
            Status::Revoked => Self::Revoked,
            Status::Expired => Self::Expired,
        }
    }
}

impl Invitation {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + std::marker::Send)) -> Result<(), CliError> {
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::List { tenant, status, pages } => {
                let status = status.map_or(0, |status| InvitationStatus::from(status).into());
                list(self.connect.members().await?, (tenant, status), pages, out).await
            }
            Action::Import(import) => import.run(&self.connect, out).await,
            Action::Send(Send { tenant, email, roles, link }) => {
                let client = self.connect.members().await?;
                let request = InviteMemberRequest { tenant, request_id, email, roles, send_email: !link };
                let answer = repeatable!(client.invite_member(request))?;
                out.one("InviteMemberResponse", &answer, |InviteMemberResponse { invitation, link, .. }| {
                    sent(invitation.as_ref(), link)
                })
            }
            Action::Resend { tenant, invitation: invitation_id, link } => {
                let client = self.connect.members().await?;
                let request = ResendInvitationRequest { tenant, request_id, invitation_id, send_email: !link };
                let answer = repeatable!(client.resend_invitation(request))?;
                out.one("ResendInvitationResponse", &answer, |ResendInvitationResponse { invitation, link, .. }| {
                    sent(invitation.as_ref(), link)
                })
            }
            Action::Revoke { tenant, invitation: invitation_id } => {
                let client = self.connect.members().await?;
                let request = RevokeInvitationRequest { tenant, request_id, invitation_id, etag: String::new() };
                let row = present(repeatable!(client.revoke_invitation(request))?.invitation)?;
                out.one("Invitation", &row, facts)
            }
        }
    }
}

async fn list(
    client: Members,
    (tenant, status): (String, i32),
    pages: Pages,
    mut out: Output<'_>,
) -> Result<(), CliError> {
    let columns = (["email", "roles", "status", "invited", "ends", "id"], cells);
    let ask = async |page_size, page_token| {
        let request = ListInvitationsRequest { tenant: tenant.clone(), status, page_size, page_token };
        let page = client.clone().list_invitations(request).await?.into_inner();
        Ok((page.invitations, page.next_page_token))
    };
    pages.list(&mut out, "Invitation", columns, ask).await
}

fn status(row: &Row) -> String {
    word(row.status, "INVITATION_STATUS_", InvitationStatus::as_str_name)
}

fn cells(row: &Row) -> [String; 6] {
    let (invited, ends) = (time(row.create_time), time(row.expire_time));
    [row.email.clone(), row.roles.join(", "), status(row), invited, ends, row.invitation_id.clone()]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("email", row.email.clone()),
        ("roles", row.roles.join(", ")),
        ("status", status(row)),
        ("invited", time(row.create_time)),
        ("ends", time(row.expire_time)),
        ("id", row.invitation_id.clone()),
    ])
}

/// An invitation that is on its way, with its link when that is handed over.
fn sent(row: Option<&Row>, link: &str) -> String {
    let facts = row.map(facts).unwrap_or_default();
    if link.is_empty() { facts } else { once(&facts, "Its link", link) }
}
