//! `tenantry catalogue`: checks a product's file on this machine, and shows, compares and applies it through a server.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::confirm::Confirm;
use super::connect::{self, Connect, Tenants, repeatable};
use super::output::Output;
use super::table::{plain, table};
use super::{CliError, request_id};
use crate::domain::catalogue::{Definition, EXAMPLE, Problem};
use crate::rpc::access::Access;
use crate::rpc::v1::{ApplyCatalogueRequest, ApplyCatalogueResponse, GetCatalogueRequest, OverLimit};

/// The most characters of a value in a table.
const WIDE: usize = 60;

/// Flags of `tenantry catalogue`.
#[derive(Args, Debug)]
pub(super) struct Catalogue {
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
    /// Find every mistake in a file, without a server
    Check {
        /// The catalogue, TOML
        file: PathBuf,
    },
    /// Show what a file would change, for which tenants, and who would be over a limit
    Diff {
        /// The catalogue, TOML
        file: PathBuf,
    },
    /// Put a file in force, after showing what it changes
    Apply(Apply),
    /// Print the file in force
    Show,
    /// Print a commented example
    Example,
}

#[derive(Args, Debug)]
struct Apply {
    /// The catalogue, TOML
    file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Move tenants to the new versions of their plans; otherwise they keep what they have
    #[arg(long)]
    migrate_tenants: bool,
    #[command(flatten)]
    confirm: Confirm,
}

impl Catalogue {
    /// Does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::Example if out.json => Ok(writeln!(out.to, "{}", json!({ "toml": EXAMPLE }))?),
            Action::Example => Ok(write!(out.to, "{EXAMPLE}")?),
            Action::Check { file } => check(&file, &mut out),
            Action::Show => show(self.connect.tenants().await?, &mut out).await,
            Action::Diff { file } => {
                let text = read(&file)?;
                let preview = preview(&self.connect.tenants().await?, &file, text).await?;
                out.one("ApplyCatalogueResponse", &preview, changes)
            }
            Action::Apply(apply) => apply.run(&self.connect, &mut out).await,
        }
    }
}

impl Apply {
    async fn run(self, connect: &Connect, out: &mut Output<'_>) -> Result<(), CliError> {
        let text = read(&self.file)?;
        if !self.dry_run {
            self.confirm.possible()?;
        }
        let client = connect.tenants().await?;
        let preview = preview(&client, &self.file, text.clone()).await?;
        if self.dry_run {
            return out.one("ApplyCatalogueResponse", &preview, changes);
        }
        out.say(&changes(&preview))?;
        out.to.flush()?;
        let file = self.file.display();
        self.confirm.agree(&format!("Put {file} in force, as version {} of the catalogue?", preview.version))?;
        let request = ApplyCatalogueRequest {
            request_id: request_id(),
            toml: text,
            validate_only: false,
            migrate_tenants: self.migrate_tenants,
        };
        let applied = repeatable!(client.apply_catalogue(request)).map_err(|status| refused(&self.file, status))?;
        out.one("ApplyCatalogueResponse", &applied, |applied| {
            let moving = if self.migrate_tenants { "; tenants move to the new versions of their plans" } else { "" };
            format!("\nVersion {} of the catalogue is in force{moving}.", applied.version)
        })
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let bytes = connect::read("FILE", file)?;
    String::from_utf8(bytes).map_err(|_| CliError::Failed(format!("{} is not UTF-8", file.display())))
}

/// Finds the mistakes here, as a server of this version would.
fn check(file: &Path, out: &mut Output<'_>) -> Result<(), CliError> {
    match Definition::parse_new(&read(file)?, &Access::names()) {
        Ok(definition) => {
            let (plans, metrics) = (definition.plans.len(), definition.metrics.len());
            out.say(&format!("{} is right: {plans} plans, {metrics} metrics", file.display()))
        }
        Err(problems) => {
            for problem in &problems {
                let Problem { line, path, reason } = problem;
                let text = if out.json {
                    json!({ "file": file, "line": line, "path": path, "reason": reason }).to_string()
                } else {
                    at_line(file, &line.to_string(), &problem.to_string())
                };
                writeln!(out.to, "{text}")?;
            }
            Err(CliError::Failed(format!("{} has {} mistakes", file.display(), problems.len())))
        }
    }
}

/// As compilers write it, so that editors find the place.
fn at_line(file: &Path, line: &str, reason: &str) -> String {
    match line {
        "0" => format!("{}: {}", file.display(), plain(reason)),
        line => format!("{}:{}: {}", file.display(), plain(line), plain(reason)),
    }
}

/// What the server says of a file, with the file's name where it names lines.
fn refused(file: &Path, status: Status) -> CliError {
    let invalid = status.get_details_error_info().is_some_and(|info| info.reason == "CATALOGUE_INVALID");
    let Some(bad) = status.get_details_bad_request().filter(|_| invalid) else { return status.into() };
    let lines = bad.field_violations.iter().map(|violation| {
        let line = violation.field.strip_prefix("line ").unwrap_or("0");
        at_line(file, line, &violation.description)
    });
    CliError::Failed(format!("the catalogue has mistakes\n{}", lines.collect::<Vec<_>>().join("\n")))
}

async fn preview(client: &Tenants, file: &Path, toml: String) -> Result<ApplyCatalogueResponse, CliError> {
    let request = ApplyCatalogueRequest { toml, validate_only: true, ..Default::default() };
    repeatable!(client.apply_catalogue(request)).map_err(|status| refused(file, status))
}

async fn show(mut client: Tenants, out: &mut Output<'_>) -> Result<(), CliError> {
    let answer = client.get_catalogue(GetCatalogueRequest {}).await?.into_inner();
    if out.json {
        return out.one("GetCatalogueResponse", &answer, |_| String::new());
    }
    Ok(write!(out.to, "{}", answer.toml)?)
}

/// What changes, for people.
fn changes(answer: &ApplyCatalogueResponse) -> String {
    let mut parts = Vec::new();
    if answer.changes.is_empty() {
        parts.push("Nothing changes.".to_owned());
    } else {
        let rows = answer.changes.iter().map(|c| [c.path.clone(), cell(&c.before), cell(&c.after)]);
        parts.push(table(["what", "before", "after"], rows));
    }
    if !answer.plans.is_empty() {
        let rows = answer.plans.iter().map(|plan| {
            let version = if plan.new_version == 0 { "gone".to_owned() } else { plan.new_version.to_string() };
            [plan.plan.clone(), version, plan.tenants.to_string(), plan.over_limit_tenants.to_string()]
        });
        parts.push(table(["plan", "version", "tenants", "over a limit"], rows));
    }
    let over =
        |over: &OverLimit| [over.tenant_id.clone(), over.metric.clone(), over.used.to_string(), over.limit.to_string()];
    let rows: Vec<_> = answer.plans.iter().flat_map(|plan| plan.over_limit.iter().map(over)).collect();
    if !rows.is_empty() {
        parts.push(table(["tenant", "metric", "used", "limit"], rows));
    }
    if !answer.roles_in_use.is_empty() {
        let roles = plain(&answer.roles_in_use.join(", ")).into_owned();
        parts.push(format!("Members have roles that it lacks or puts below the top, so it cannot be applied: {roles}"));
    }
    parts.join("\n\n")
}

/// A value in a table: a dash when there is none.
fn cell(json: &str) -> String {
    match json.char_indices().nth(WIDE) {
        _ if json.is_empty() => "-".to_owned(),
        Some((end, _)) => format!("{}...", &json[..end]),
        None => json.to_owned(),
    }
}
