//! `tenantry doctor`: proves from the rows that the books agree. Finding something is a failure, so that a script notices.

use std::io::Write;

use clap::{Args, Subcommand};

use super::CliError;
use super::connect::Connect;
use super::output::{Output, time, word};
use crate::rpc::v1::{UsageFinding, UsageRule, UsageScope, VerifyUsageRequest, VerifyUsageResponse};

/// Flags of `tenantry doctor`.
#[derive(Args, Debug)]
pub(super) struct Doctor {
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
    /// Prove that events, leases, reservations and roll-ups add up to what accounts say
    #[command(after_help = "\
Each tenant is added up as of one instant, while the servers go on. Nothing is changed. Exit status 1 when something does
not agree.

Examples:
  tenantry doctor usage               all tenants
  tenantry doctor usage acme --json   one tenant, for scripts")]
    Usage {
        /// Slug or id; all tenants when absent
        tenant: Option<String>,
    },
}

impl Doctor {
    /// Connects, looks, and writes what was found to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let Action::Usage { tenant } = self.action;
        let mut client = self.connect.usage_streams().await?;
        let mut out = Output { json: self.json, to: out };
        let request = VerifyUsageRequest { tenant: tenant.unwrap_or_default() };
        let mut stream = client.verify_usage(request).await?.into_inner();
        let (mut tenants, mut accounts, mut events, mut wrong) = (0_u64, 0, 0, Vec::new());
        while let Some(found) = stream.message().await? {
            (tenants, accounts, events) = (tenants + 1, accounts + found.accounts, events + found.events);
            if out.json {
                out.one("VerifyUsageResponse", &found, |_| String::new())?;
            }
            let VerifyUsageResponse { tenant_id, findings, .. } = found;
            wrong.extend(findings.into_iter().map(|finding| (tenant_id.clone(), finding)));
        }
        if wrong.is_empty() {
            return out.say(&format!("{tenants} tenants, {accounts} accounts, {events} events: all of it agrees"));
        }
        if !out.json {
            let header = ["tenant", "what", "metric", "of", "from", "says", "adds up to", "off by"];
            writeln!(out.to, "{}", super::table::table(header, wrong.iter().map(cells)))?;
        }
        Err(CliError::Failed(format!(
            "{} sums do not agree, of {tenants} tenants with {accounts} accounts",
            wrong.len()
        )))
    }
}

fn cells((tenant, finding): &(String, UsageFinding)) -> [String; 8] {
    let scope = word(finding.scope, "USAGE_SCOPE_", UsageScope::as_str_name);
    let of = if finding.scope_id.is_empty() { scope } else { format!("{scope} {}", finding.scope_id) };
    let metric = if finding.metric.is_empty() { finding.account_id.clone() } else { finding.metric.clone() };
    [
        tenant.clone(),
        word(finding.rule, "USAGE_RULE_", UsageRule::as_str_name),
        metric,
        of,
        time(finding.time),
        finding.told.to_string(),
        finding.summed.to_string(),
        finding.told.saturating_sub(finding.summed).to_string(),
    ]
}
