//! How members get in: their sessions in the tenant, and their second step.

use clap::Args;

use super::{Members, Whom};
use crate::cli::connect::{Connect, repeatable};
use crate::cli::output::{Output, time};
use crate::cli::pages::Pages;
use crate::cli::table::plain;
use crate::cli::{CliError, request_id};
use crate::rpc::v1::{ListMemberSessionsRequest, ResetMfaRequest, RevokeMemberSessionsRequest, Session};

#[derive(Args, Debug)]
pub(super) struct Sessions {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    pages: Pages,
}

impl Sessions {
    pub(super) async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let user = self.whom.id(&client).await?;
        let columns = (["session", "device", "address", "began", "last use", "ends", "by"], cells);
        let ask = async |page_size, page_token| {
            let (tenant, user_id) = (self.whom.tenant.clone(), user.clone());
            let request = ListMemberSessionsRequest { tenant, user_id, page_size, page_token };
            let page = client.clone().list_member_sessions(request).await?.into_inner();
            Ok((page.sessions, page.next_page_token))
        };
        self.pages.list(&mut out, "Session", columns, ask).await
    }
}

fn cells(row: &Session) -> [String; 7] {
    let device = row.device.clone().unwrap_or_default().display_name;
    let (began, used, ends) = (time(row.create_time), time(row.last_use_time), time(row.expire_time));
    [row.session_id.clone(), device, row.source.clone(), began, used, ends, row.methods.join(", ")]
}

#[derive(Args, Debug)]
pub(super) struct RevokeSessions {
    #[command(flatten)]
    whom: Whom,
    /// Only this session, as `member sessions` shows it
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    session: String,
}

impl RevokeSessions {
    pub(super) async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let user_id = self.whom.id(&client).await?;
        let (tenant, request_id, session_id) = (self.whom.tenant, request_id(), self.session);
        let request = RevokeMemberSessionsRequest { tenant, request_id, user_id, session_id };
        let answer = repeatable!(client.revoke_member_sessions(request))?;
        let member = self.whom.member;
        out.one("RevokeMemberSessionsResponse", &answer, |_| format!("{}: signed out.", plain(&member)))
    }
}

pub(super) async fn reset_mfa(
    whom: Whom,
    connect: &Connect,
    members: Members,
    mut out: Output<'_>,
) -> Result<(), CliError> {
    let user_id = whom.id(&members).await?;
    let client = connect.auth().await?;
    let request = ResetMfaRequest { tenant: whom.tenant, request_id: request_id(), user_id };
    let answer = repeatable!(client.reset_mfa(request))?;
    out.one("ResetMfaResponse", &answer, |_| format!("{}: no second step any more.", plain(&whom.member)))
}
