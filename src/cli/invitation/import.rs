//! `tenantry invitation import`: everybody of a file, a hundred at a time.

use std::path::PathBuf;

use clap::Args;

use crate::cli::connect::{Connect, read, repeatable};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::{CliError, request_id};
use crate::rpc::v1::{BulkInviteRequest, InvitationItem, InvitationResult};

/// Invitations that are asked for in one call.
const BATCH: usize = 100;

/// Refusals that say that nothing is left to do.
const THERE: [&str; 2] = ["ALREADY_MEMBER", "ALREADY_INVITED"];

#[derive(Args, Debug)]
#[command(after_help = "\
One person a line: the address, then roles if not the catalogue's default, with commas between.
  cleo@example.com
  dora@example.com,manager,accountant
A first line that begins with `email` is a heading. Who is invited or a member already is left as they
are, so it can be said again.")]
pub(super) struct Import {
    /// Slug or id
    tenant: String,
    /// Text or CSV
    file: PathBuf,
    /// Send no mail, and print the links instead
    #[arg(long)]
    links: bool,
}

impl Import {
    pub(super) async fn run(self, connect: &Connect, mut out: Output<'_>) -> Result<(), CliError> {
        let text = String::from_utf8(read("FILE", &self.file)?)
            .map_err(|_| CliError::Argument(format!("{} is not UTF-8", self.file.display())))?;
        let people = people(&text);
        let client = connect.members().await?;
        let progress = Progress::new(people.len() as u64);
        let mut results = Vec::with_capacity(people.len());
        for items in people.chunks(BATCH) {
            let request = BulkInviteRequest {
                tenant: self.tenant.clone(),
                request_id: request_id(),
                items: items.to_vec(),
                send_email: !self.links,
            };
            let answer = match repeatable!(client.bulk_invite(request)) {
                Ok(answer) => answer,
                Err(status) => {
                    // What is done is told: links are shown this once.
                    progress.end();
                    told(&results, &mut out)?;
                    return Err(status.into());
                }
            };
            if out.json {
                out.many("InvitationResult", &answer.results, HEADER, cells)?;
            }
            results.extend(answer.results);
            progress.show(results.len() as u64, |_| format!("{} of {}", results.len(), people.len()));
        }
        progress.end();
        told(&results, &mut out)?;
        match results.iter().filter(|result| is_refused(result)).count() {
            0 => Ok(()),
            refused => Err(CliError::Failed(format!("{refused} of {} people were refused", results.len()))),
        }
    }
}

/// Everybody, a line each.
fn people(text: &str) -> Vec<InvitationItem> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let items = lines.filter_map(|(index, line)| {
        let mut cells = line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned());
        let email = cells.next().filter(|cell| !cell.is_empty())?;
        if index == 0 && email.eq_ignore_ascii_case("email") {
            return None;
        }
        Some(InvitationItem { email, roles: cells.filter(|cell| !cell.is_empty()).collect() })
    });
    items.collect()
}

fn is_refused(result: &InvitationResult) -> bool {
    !result.reason.is_empty() && !THERE.contains(&result.reason.as_str())
}

const HEADER: [&str; 3] = ["email", "outcome", "detail"];

fn cells(result: &InvitationResult) -> [String; 3] {
    let (outcome, detail) = match result.reason.as_str() {
        "" => ("invited", &result.link),
        _ if is_refused(result) => ("refused", &result.message),
        _ => ("unchanged", &result.message),
    };
    [result.email.clone(), outcome.to_owned(), detail.clone()]
}

/// For people: what is not as one would expect it, the links, and the sums.
fn told(results: &[InvitationResult], out: &mut Output<'_>) -> Result<(), CliError> {
    if out.json {
        return Ok(());
    }
    let shown = results.iter().filter(|result| !result.reason.is_empty() || !result.link.is_empty());
    let shown: Vec<_> = shown.cloned().collect();
    if !shown.is_empty() {
        out.many("InvitationResult", &shown, HEADER, cells)?;
    }
    let refused = results.iter().filter(|result| is_refused(result)).count();
    let invited = results.iter().filter(|result| result.reason.is_empty()).count();
    let unchanged = results.len() - invited - refused;
    out.say(&format!("{invited} invited, {unchanged} unchanged, {refused} refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_person_with_roles() {
        let read =
            people("\u{feff}Email,Roles\r\na@b.example\r\n\r\n \"c@d.example\" , \"manager,viewer\"\r\nemail,x\n");
        let read: Vec<_> = read.iter().map(|item| (item.email.as_str(), item.roles.join("+"))).collect();
        let wanted = [("a@b.example", ""), ("c@d.example", "manager+viewer"), ("email", "x")];
        assert_eq!(read, wanted.map(|(email, roles)| (email, roles.to_owned())));
    }
}
