//! `tenantry impersonation`: an operator in a member's place, for a while, in the open.

use std::io::Write;

use clap::{Args, Subcommand};
use prost_types::Duration;

use super::connect::{Connect, repeatable};
use super::member::Whom;
use super::output::{Output, once, present, sheet, time};
use super::pages::Pages;
use super::{CliError, request_id};
use crate::rpc::v1::{
    EndImpersonationRequest, ImpersonateMemberRequest, Impersonation as Row, ListImpersonationsRequest,
};

/// Flags of `tenantry impersonation`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry impersonation begin acme bob@example.com --reason 'ticket 17: sees no quizzes' --minutes 30
  tenantry impersonation list acme
The tenant reads the reason, sees what is done in its audit log, and can end it.")]
pub(super) struct Impersonation {
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
    /// Take a member's place: prints an access token once, which cannot be refreshed
    Begin {
        #[command(flatten)]
        whom: Whom,
        /// Why, for the tenant to read
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// How long; 15 unless said
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=60))]
        minutes: Option<i64>,
    },
    /// List who was in a member's place, newest first
    List {
        /// Slug or id
        tenant: String,
        #[command(flatten)]
        pages: Pages,
    },
    /// End one before its time
    End {
        /// Slug or id
        tenant: String,
        /// Its id
        impersonation: String,
    },
}

impl Impersonation {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::Begin { whom, reason, minutes } => {
                let user_id = whom.id(&self.connect.members().await?).await?;
                let client = self.connect.auth().await?;
                let ttl = minutes.map(|minutes| Duration { seconds: minutes * 60, nanos: 0 });
                let request = ImpersonateMemberRequest { tenant: whom.tenant, request_id, user_id, reason, ttl };
                let answer = repeatable!(client.impersonate_member(request))?;
                let row = present(answer.impersonation.clone())?;
                out.one("ImpersonateMemberResponse", &answer, |answer| {
                    let token = answer.access_token.as_ref().map(|access| access.token.as_str()).unwrap_or_default();
                    once(&facts(&row), "The access token", token)
                })
            }
            Action::List { tenant, pages } => {
                let client = self.connect.auth().await?;
                let columns = (["impersonation", "member", "operator", "began", "ends", "ended", "reason"], cells);
                let ask = async |page_size, page_token| {
                    let request = ListImpersonationsRequest { tenant: tenant.clone(), page_size, page_token };
                    let page = client.clone().list_impersonations(request).await?.into_inner();
                    Ok((page.impersonations, page.next_page_token))
                };
                pages.list(&mut out, "Impersonation", columns, ask).await
            }
            Action::End { tenant, impersonation: impersonation_id } => {
                let client = self.connect.auth().await?;
                let request = EndImpersonationRequest { tenant, request_id, impersonation_id };
                let row = present(repeatable!(client.end_impersonation(request))?.impersonation)?;
                out.one("Impersonation", &row, facts)
            }
        }
    }
}

fn cells(row: &Row) -> [String; 7] {
    let (began, ends, ended) = (time(row.start_time), time(row.expire_time), time(row.end_time));
    let (id, member) = (row.impersonation_id.clone(), row.user_id.clone());
    [id, member, row.operator_name.clone(), began, ends, ended, row.reason.clone()]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("member", row.user_id.clone()),
        ("operator", row.operator_name.clone()),
        ("reason", row.reason.clone()),
        ("began", time(row.start_time)),
        ("ends", time(row.expire_time)),
        ("ended", time(row.end_time)),
        ("id", row.impersonation_id.clone()),
    ])
}
