//! How a tenant ends: deleted, deprovisioned, purged. Each asks first.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use tonic::Code;

use super::provision::steps;
use super::{Row, Tenants, facts, get};
use crate::cli::confirm::Confirm;
use crate::cli::connect::repeatable;
use crate::cli::output::{Output, present};
use crate::cli::table::{plain, table};
use crate::cli::{CliError, request_id};
use crate::rpc::v1::{
    DeleteTenantRequest, DeprovisionTenantRequest, PurgeTenantRequest, PurgeTenantResponse, PurgedTable,
};

#[derive(Args, Debug)]
pub(super) struct Delete {
    /// Slug or id
    tenant: String,
    #[command(flatten)]
    pub(super) confirm: Confirm,
}

impl Delete {
    pub(super) async fn run(self, client: Tenants) -> Result<Row, CliError> {
        let tenant = get(&client, &self.tenant).await?;
        self.confirm.ask(&tenant, "closes a tenant and removes everything of it in 30 days")?;
        // By its id: the slug may be another tenant's by now.
        let request = DeleteTenantRequest { tenant: tenant.tenant_id, request_id: request_id(), ..Default::default() };
        present(repeatable!(client.delete_tenant(request))?.tenant)
    }
}

#[derive(Args, Debug)]
pub(super) struct Deprovision {
    /// Slug or id
    tenant: String,
    /// Delete it, so that everything goes after the grace period; otherwise it is cancelled and kept
    #[arg(long)]
    delete_data: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Only say what would be done
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) confirm: Confirm,
}

impl Deprovision {
    pub(super) async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let tenant = get(&client, &self.tenant).await?;
        if !self.dry_run {
            let what = if self.delete_data {
                "closes a tenant and removes everything of it in 30 days"
            } else {
                "cancels a tenant's subscription and closes it"
            };
            self.confirm.ask(&tenant, what)?;
        }
        let request = DeprovisionTenantRequest {
            tenant: tenant.tenant_id,
            request_id: request_id(),
            confirm_slug: tenant.slug,
            delete_data: self.delete_data,
            reason: self.reason,
            validate_only: self.dry_run,
        };
        let answer = repeatable!(client.deprovision_tenant(request))?;
        let row = present(answer.tenant.clone())?;
        out.one("DeprovisionTenantResponse", &answer, |answer| {
            format!("{}\n\n{}{}", steps(&answer.steps), facts(&row), undone(self.dry_run))
        })
    }
}

/// What follows when nothing was done.
pub(in crate::cli) const fn undone(dry_run: bool) -> &'static str {
    if dry_run { "\n\nNothing was done: --dry-run." } else { "" }
}

#[derive(Args, Debug)]
pub(super) struct Purge {
    /// Slug or id of a deleted tenant
    tenant: String,
    /// Only count what would go
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) confirm: Confirm,
}

impl Purge {
    pub(super) async fn run(self, client: Tenants, mut out: Output<'_>) -> Result<(), CliError> {
        let tenant = get(&client, &self.tenant).await?;
        if !self.dry_run {
            self.confirm.ask(&tenant, "removes everything of a tenant, for good and at once")?;
        }
        let report = if self.dry_run { turn(&client, &tenant, true).await? } else { purge(&client, &tenant).await? };
        let rows: i64 = report.tables.iter().map(|table| table.rows).sum();
        out.one("PurgeTenantResponse", &report, |report| {
            let cells = |table: &PurgedTable| [table.table.clone(), table.rows.to_string()];
            let listed = table(["table", "rows"], report.tables.iter().map(cells));
            let slug = plain(&tenant.slug);
            if self.dry_run {
                format!("{listed}\n\n{slug} has {rows} rows.{}", undone(true))
            } else {
                format!("{listed}\n\n{slug} is gone: {rows} rows.")
            }
        })
    }
}

/// One call.
async fn turn(client: &Tenants, tenant: &Row, dry_run: bool) -> Result<PurgeTenantResponse, tonic::Status> {
    let request = PurgeTenantRequest {
        tenant: tenant.tenant_id.clone(),
        request_id: request_id(),
        confirm_slug: tenant.slug.clone(),
        validate_only: dry_run,
    };
    repeatable!(client.purge_tenant(request))
}

/// Calls until all is gone, and tells how far it is when somebody looks.
async fn purge(client: &Tenants, tenant: &Row) -> Result<PurgeTenantResponse, CliError> {
    let spinner = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut tables: BTreeMap<String, i64> = BTreeMap::new();
    let (mut rows, mut begun) = (0, false);
    loop {
        spinner.set_message(format!("purging {}: {rows} rows gone", plain(&tenant.slug)));
        let answer = match turn(client, tenant, false).await {
            Ok(answer) => answer,
            // Between two calls the server went on by itself, to the end.
            Err(status) if begun && status.code() == Code::NotFound => {
                PurgeTenantResponse { finished: true, ..Default::default() }
            }
            Err(status) => {
                spinner.finish_and_clear();
                return Err(status.into());
            }
        };
        begun = true;
        for table in answer.tables {
            rows += table.rows;
            *tables.entry(table.table).or_default() += table.rows;
        }
        if answer.finished {
            break;
        }
    }
    spinner.finish_and_clear();
    let tables = tables.into_iter().map(|(table, rows)| PurgedTable { table, rows }).collect();
    Ok(PurgeTenantResponse { tables, finished: true })
}
