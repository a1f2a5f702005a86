//! `tenantry domain`: the host names that lead to a tenant.

use std::io::Write;

use clap::{Args, Subcommand};

use super::connect::{Connect, repeatable};
use super::output::{Output, present, sheet, time, word};
use super::table::plain;
use super::{CliError, request_id};
use crate::rpc::v1::{
    AddDomainRequest, Domain as Row, DomainStatus, ListDomainsRequest, RemoveDomainRequest, VerifyDomainRequest,
};

/// Flags of `tenantry domain`.
#[derive(Args, Debug)]
pub(super) struct Domain {
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
    /// Show the custom domains of a tenant
    List {
        /// Slug or id
        tenant: String,
    },
    /// Add a domain, and print the TXT record that proves it, as a line for a zone file
    Add {
        /// Slug or id
        tenant: String,
        /// The domain, such as app.acme.com
        domain: String,
    },
    /// Look into the DNS for the record that proves a domain
    Verify {
        /// Slug or id
        tenant: String,
        /// The domain
        domain: String,
    },
    /// Remove a domain: it leads nowhere any more
    Remove {
        /// Slug or id
        tenant: String,
        /// The domain
        domain: String,
    },
}

impl Domain {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::List { tenant } => {
                let domains = client.list_domains(ListDomainsRequest { tenant }).await?.into_inner().domains;
                let header = ["domain", "status", "verified", "checked", "next check", "problem"];
                out.many("Domain", &domains, header, cells)
            }
            Action::Add { tenant, domain } => {
                let request = AddDomainRequest { tenant, request_id, domain };
                let row = present(repeatable!(client.add_domain(request))?.domain)?;
                out.one("Domain", &row, record)
            }
            Action::Verify { tenant, domain } => {
                let request = VerifyDomainRequest { tenant, request_id, domain };
                let row = present(repeatable!(client.verify_domain(request))?.domain)?;
                out.one("Domain", &row, facts)
            }
            Action::Remove { tenant, domain } => {
                let request = RemoveDomainRequest { tenant, request_id, domain: domain.clone() };
                let answer = repeatable!(client.remove_domain(request))?;
                out.one("RemoveDomainResponse", &answer, |_| format!("{} leads nowhere any more.", plain(&domain)))
            }
        }
    }
}

/// The record, as a zone file has it: nothing else, so that it can be pasted or piped.
fn record(row: &Row) -> String {
    let value = row.txt_value.replace('\\', "\\\\").replace('"', "\\\"");
    plain(&format!("{}. 300 IN TXT \"{value}\"", row.txt_name.trim_end_matches('.'))).into_owned()
}

fn status(row: &Row) -> String {
    word(row.status, "DOMAIN_STATUS_", DomainStatus::as_str_name)
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("domain", row.domain.clone()),
        ("status", status(row)),
        ("verified", time(row.verify_time)),
        ("checked", time(row.check_time)),
        ("next check", time(row.next_check_time)),
        ("problem", row.problem.clone()),
    ])
}

fn cells(row: &Row) -> [String; 6] {
    let (domain, problem) = (row.domain.clone(), row.problem.clone());
    [domain, status(row), time(row.verify_time), time(row.check_time), time(row.next_check_time), problem]
}
