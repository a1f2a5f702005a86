//! `tenantry platform-key`: the keys of backend services and of operators.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::confirm::Confirm;
use super::connect::{Auth, Connect, repeatable};
use super::expiry::{Life, Overlap};
use super::output::{Output, once, present, sheet, time, word};
use super::pages::{self, Pages};
use super::table::plain;
use super::{CliError, request_id};
use crate::rpc::v1::{
    CallerKind, CreateOperatorKeyRequest, CreateServiceKeyRequest, ListPlatformKeysRequest, OperatorScope,
    PlatformKey as Row, RevokePlatformKeyRequest, RotatePlatformKeyRequest,
};

/// Flags of `tenantry platform-key`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry platform-key create-service --name 'quiz backend' --permission usage.write
  tenantry platform-key create-operator --name 'Eve, support' --scope support --days 90
  tenantry platform-key rotate k3v9x2m7q1w8                  the old secret is good for another day
  tenantry platform-key list --kind operator --json")]
pub(super) struct PlatformKey {
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
    /// List the keys that are not revoked, oldest first
    List {
        /// Only those
        #[arg(long)]
        kind: Option<Kind>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Make a key for a backend service, and print its secret once
    CreateService {
        /// What it is for
        #[arg(long)]
        name: String,
        /// What it may do, such as usage.write, 'members.*' or '*'; may be said again
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<String>,
        #[command(flatten)]
        life: Life,
    },
    /// Make a key for an operator, and print its secret once
    CreateOperator {
        /// Whose it is
        #[arg(long)]
        name: String,
        /// What it is for
        #[arg(long)]
        scope: Scope,
        #[command(flatten)]
        life: Life,
    },
    /// Give a key another secret, and print it once
    Rotate {
        /// The key, as `list` shows it
        #[arg(value_name = "KEY")]
        platform_key: String,
        #[command(flatten)]
        overlap: Overlap,
    },
    /// End a key: it is refused from the next call on
    Revoke {
        /// The key, as `list` shows it
        #[arg(value_name = "KEY")]
        platform_key: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Kind {
    Service,
    Operator,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Scope {
    /// To look
    Read,
    /// To help in tenants
    Support,
    /// Everything
    All,
}

impl PlatformKey {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Revoke { confirm, .. } = &self.action {
            confirm.possible()?;
        }
        let client = self.connect.auth().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::List { kind, pages } => {
                let kind = match kind {
                    None => CallerKind::Unspecified,
                    Some(Kind::Service) => CallerKind::Service,
                    Some(Kind::Operator) => CallerKind::Operator,
                };
                let columns = (["key", "kind", "name", "may", "created", "ends", "last use", "secret"], cells);
                let ask = async |page_size, page_token| ask(&client, kind, page_size, page_token).await;
                pages.list(&mut out, "PlatformKey", columns, ask).await
            }
            Action::CreateService { name: display_name, permissions, life } => {
                let request = CreateServiceKeyRequest { request_id, display_name, permissions, ttl: life.ttl() };
                let answer = repeatable!(client.create_service_key(request))?;
                let row = present(answer.key.clone())?;
                out.one("CreateServiceKeyResponse", &answer, |answer| once(&facts(&row), "The key", &answer.secret))
            }
            Action::CreateOperator { name: display_name, scope, life } => {
                let scope = match scope {
                    Scope::Read => OperatorScope::Read,
                    Scope::Support => OperatorScope::Support,
                    Scope::All => OperatorScope::All,
                };
                let (scope, ttl) = (scope.into(), life.ttl());
                let request = CreateOperatorKeyRequest { request_id, display_name, scope, ttl };
                let answer = repeatable!(client.create_operator_key(request))?;
                let row = present(answer.key.clone())?;
                out.one("CreateOperatorKeyResponse", &answer, |answer| once(&facts(&row), "The key", &answer.secret))
            }
            Action::Rotate { platform_key: key_id, overlap } => {
                let request = RotatePlatformKeyRequest { request_id, key_id, overlap: overlap.time() };
                let answer = repeatable!(client.rotate_platform_key(request))?;
                let row = present(answer.key.clone())?;
                out.one("RotatePlatformKeyResponse", &answer, |answer| once(&facts(&row), "The key", &answer.secret))
            }
            Action::Revoke { platform_key: key, confirm } => {
                let all =
                    async |page_size, page_token| ask(&client, CallerKind::Unspecified, page_size, page_token).await;
                let row = pages::find(all, |row: &Row| row.key_id == key).await?;
                let row = row.ok_or_else(|| CliError::Failed(format!("there is no key {}", plain(&key))))?;
                confirm.agree(&format!("Revoke {}, which ends in {}?", row.display_name, row.last4))?;
                let request = RevokePlatformKeyRequest { request_id, key_id: key };
                let answer = repeatable!(client.revoke_platform_key(request))?;
                let name = row.display_name;
                out.one("RevokePlatformKeyResponse", &answer, |_| format!("{} is refused from now on.", plain(&name)))
            }
        }
    }
}

/// A page of keys.
async fn ask(
    client: &Auth,
    kind: CallerKind,
    page_size: i32,
    page_token: String,
) -> Result<(Vec<Row>, String), tonic::Status> {
    let request = ListPlatformKeysRequest { kind: kind.into(), page_size, page_token };
    let page = client.clone().list_platform_keys(request).await?.into_inner();
    Ok((page.keys, page.next_page_token))
}

fn kind(row: &Row) -> String {
    word(row.kind, "CALLER_KIND_", CallerKind::as_str_name)
}

/// An operator's scope, a service's permissions.
fn may(row: &Row) -> String {
    match word(row.scope, "OPERATOR_SCOPE_", OperatorScope::as_str_name) {
        scope if scope.is_empty() => row.permissions.join(", "),
        scope => scope,
    }
}

fn cells(row: &Row) -> [String; 8] {
    let (created, ends, used) = (time(row.create_time), time(row.expire_time), time(row.last_use_time));
    let end = if row.last4.is_empty() { String::new() } else { format!("…{}", row.last4) };
    [row.key_id.clone(), kind(row), row.display_name.clone(), may(row), created, ends, used, end]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("key", row.key_id.clone()),
        ("kind", kind(row)),
        ("name", row.display_name.clone()),
        ("may", may(row)),
        ("created", time(row.create_time)),
        ("ends", time(row.expire_time)),
        ("last use", time(row.last_use_time)),
        ("old secret ends", time(row.old_secret_end_time)),
    ])
}
