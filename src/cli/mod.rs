//! The command line: what can be typed, and how the outcome is told. `serve` and `migrate` work on this machine; all
//! other commands are clients that speak gRPC with the operator key, so that they can do nothing a server would not let
//! them, and are audited like everybody else.

mod account;
mod api_key;
mod audit;
mod catalogue;
mod completions;
mod confirm;
mod connect;
mod doctor;
mod domain;
mod error;
mod expiry;
mod feature;
mod impersonation;
mod invitation;
mod json;
mod limit;
mod member;
mod migrate;
mod output;
mod pages;
mod plan;
mod platform_key;
mod progress;
mod pulse;
mod role;
pub mod serve;
mod settings;
mod signing_key;
mod sso;
mod table;
mod tenant;
#[cfg(test)]
mod tests;
mod usage;
mod webhook;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::error::CliError;
use crate::config::Serve;

/// Multi-tenancy as a service: who is this, which tenant are they in, may they do it, is there quota left?
///
/// Without a command it serves, on 127.0.0.1 with a SQLite database in the directory `data`: the same as
/// `tenantry serve`. Flags of the server follow the word `serve`, or are set as TENANTRY_* in the environment.
#[derive(Parser)]
#[command(name = "tenantry", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  tenantry                                        start on this machine, nothing to set up
  tenantry serve --listen 0.0.0.0:50051           the same for other machines
  tenantry tenant create --slug acme --name 'Acme Ltd' --owner-email ada@example.com
  tenantry tenant list --status suspended --json  one JSON object a line, for scripts
  tenantry tenant provision --slug acme --name 'Acme Ltd' --admin-email ada@example.com --plan pro --dry-run
  tenantry plan change acme pro --at-period-end
  tenantry limit set acme quizzes 500 --days 30
  tenantry invitation send acme cleo@example.com --role member
  tenantry catalogue apply mine.toml              after showing what it changes

Exit status: 0 done, 1 refused or failed, 2 the command line makes no sense.";

#[derive(Subcommand)]
enum Command {
    /// Start a server
    Serve(Box<Serve>),
    /// Bring the database up to date, or say whether it is
    Migrate(migrate::Migrate),
    /// The catalogue: check, compare, apply and show what is counted, sold and allowed
    Catalogue(catalogue::Catalogue),
    /// Tenants: list, show, create, provision, suspend, end
    Tenant(Box<tenant::Tenant>),
    /// Plans and subscriptions: list, show, change, cancel, renew
    Plan(plan::Plan),
    /// Limits of a tenant, and other ones than its plan's
    Limit(limit::Limit),
    /// Features of a tenant, and other ones than its plan's
    Feature(feature::Feature),
    /// Settings of a tenant
    Settings(settings::Settings),
    /// Custom domains of a tenant
    Domain(domain::Domain),
    /// Single sign-on of a tenant: its own identity provider
    Sso(Box<sso::Sso>),
    /// Members of a tenant: list, add, change, suspend, remove
    Member(member::Member),
    /// Invitations into a tenant: send one or many, send again, revoke
    Invitation(invitation::Invitation),
    /// Roles of a tenant, and what they allow
    Role(role::Role),
    /// Keys of a tenant's programs
    ApiKey(api_key::ApiKey),
    /// Webhooks of a tenant, and what was sent to them
    Webhook(webhook::Webhook),
    /// Be in a member's place for a while, and see who was
    Impersonation(impersonation::Impersonation),
    /// Switch a person's account off and on
    Account(account::Account),
    /// Keys of services and operators
    PlatformKey(platform_key::PlatformKey),
    /// The keys that sign access tokens: list, rotate, revoke
    SigningKey(signing_key::SigningKey),
    /// The audit log of a tenant or of the platform
    Audit(audit::Audit),
    /// What tenants use: now, over time, one by one; and when they are told
    Usage(usage::Usage),
    /// Prove that the books agree
    Doctor(doctor::Doctor),
    /// Print what a shell needs to complete command lines
    Completions(completions::Completions),
}

/// Does what the command line says and tells how it went: 0 done, 1 refused or failed, 2 wrong usage.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli, &mut io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        // `tenantry tenant list | head` has all it wants.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(io::stderr(), "{}", error.report());
            error.exit_code()
        }
    }
}

/// Runs the command, with its results going to `out`.
async fn dispatch(cli: Cli, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match cli.command {
        None => serve::run(Serve::from_env()?).await,
        Some(Command::Serve(config)) => serve::run(*config).await,
        Some(Command::Migrate(migrate)) => migrate.run().await.map_err(|e| CliError::Failed(e.to_string())),
        Some(Command::Catalogue(catalogue)) => catalogue.run(out).await,
        Some(Command::Tenant(tenant)) => tenant.run(out).await,
        Some(Command::Plan(plan)) => plan.run(out).await,
        Some(Command::Limit(limit)) => limit.run(out).await,
        Some(Command::Feature(feature)) => feature.run(out).await,
        Some(Command::Settings(settings)) => settings.run(out).await,
        Some(Command::Domain(domain)) => domain.run(out).await,
        Some(Command::Sso(sso)) => sso.run(out).await,
        Some(Command::Member(member)) => member.run(out).await,
        Some(Command::Invitation(invitation)) => invitation.run(out).await,
        Some(Command::Role(role)) => role.run(out).await,
        Some(Command::ApiKey(key)) => key.run(out).await,
        Some(Command::Webhook(webhook)) => webhook.run(out).await,
        Some(Command::Impersonation(impersonation)) => impersonation.run(out).await,
        Some(Command::Account(account)) => account.run(out).await,
        Some(Command::PlatformKey(key)) => key.run(out).await,
        Some(Command::SigningKey(key)) => key.run(out).await,
        Some(Command::Audit(audit)) => audit.run(out).await,
        Some(Command::Usage(usage)) => usage.run(out).await,
        Some(Command::Doctor(doctor)) => doctor.run(out).await,
        Some(Command::Completions(completions)) => completions.run(out),
    }
}

/// A fresh id for a request that changes something, with which it can be repeated harmlessly.
#[expect(clippy::disallowed_methods, reason = "a client's own id, which no server and no test depends on")]
fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
