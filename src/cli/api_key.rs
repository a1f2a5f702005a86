//! `tenantry api-key`: the keys that a tenant's programs call with, and an eye on those of its members.

use std::io::Write;

use clap::{Args, Subcommand};

use super::confirm::Confirm;
use super::connect::{Auth, Connect, repeatable};
use super::expiry::{Life, Overlap};
use super::output::{Output, once, present, sheet, time, word};
use super::pages::{self, Pages};
use super::table::plain;
use super::{CliError, request_id};
use crate::rpc::v1::{
    ApiKey as Row, CallerKind, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest, RotateApiKeyRequest,
    UpdateApiKeyRequest,
};

/// Flags of `tenantry api-key`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry api-key create acme --name 'nightly import' --permission members.read --days 90
  tenantry api-key rotate acme k3v9x2m7q1w8 --overlap 2      the old secret is good for two more hours
  tenantry api-key revoke acme k3v9x2m7q1w8                  refused from the next call on")]
pub(super) struct ApiKey {
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
        /// Slug or id
        tenant: String,
        /// Only the tenant's own, without those of members
        #[arg(long)]
        own: bool,
        #[command(flatten)]
        pages: Pages,
    },
    /// Make a key of the tenant, and print its secret once
    Create {
        /// Slug or id
        tenant: String,
        /// What it is for
        #[arg(long)]
        name: String,
        /// What it may do, such as members.read, 'quizzes.*' or '*'; may be said again
        #[arg(long = "permission", value_name = "PERMISSION", required = true)]
        permissions: Vec<String>,
        #[command(flatten)]
        life: Life,
    },
    /// Give a key another name
    Rename {
        #[command(flatten)]
        which: Which,
        /// What it is for
        #[arg(long)]
        name: String,
    },
    /// Give a key another secret, and print it once
    Rotate {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        overlap: Overlap,
    },
    /// End a key: it is refused from the next call on
    Revoke {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Slug or id
    tenant: String,
    /// The key, as `list` shows it
    #[arg(value_name = "KEY")]
    api_key: String,
}

impl Which {
    async fn get(&self, client: &Auth) -> Result<Row, CliError> {
        let Self { tenant, api_key: key } = self;
        let ask = async |page_size, page_token| ask(client, (tenant.clone(), false), page_size, page_token).await;
        let found = pages::find(ask, |row: &Row| row.key_id == *key || row.api_key_id == *key).await?;
        found.ok_or_else(|| CliError::Failed(format!("{} has no key {}", plain(tenant), plain(key))))
    }
}

/// A page of keys.
async fn ask(
    client: &Auth,
    (tenant, own_only): (String, bool),
    page_size: i32,
    page_token: String,
) -> Result<(Vec<Row>, String), tonic::Status> {
    let request = ListApiKeysRequest { tenant, own_only, page_size, page_token };
    let page = client.clone().list_api_keys(request).await?.into_inner();
    Ok((page.keys, page.next_page_token))
}

impl ApiKey {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Revoke { confirm, .. } = &self.action {
            confirm.possible()?;
        }
        let client = self.connect.auth().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        match self.action {
            Action::List { tenant, own, pages } => {
                let columns = (["key", "kind", "name", "may", "created", "ends", "last use", "secret"], cells);
                let ask =
                    async |page_size, page_token| ask(&client, (tenant.clone(), own), page_size, page_token).await;
                pages.list(&mut out, "ApiKey", columns, ask).await
            }
            Action::Create { tenant, name: display_name, permissions, life } => {
                let ttl = life.ttl();
                let request = CreateApiKeyRequest { tenant, request_id, display_name, permissions, ttl };
                let answer = repeatable!(client.create_api_key(request))?;
                let row = present(answer.key.clone())?;
                out.one("CreateApiKeyResponse", &answer, |answer| once(&facts(&row), "The key", &answer.secret))
            }
            Action::Rename { which, name: display_name } => {
                let Row { api_key_id, etag, .. } = which.get(&client).await?;
                let request = UpdateApiKeyRequest { tenant: which.tenant, request_id, api_key_id, display_name, etag };
                let row = present(repeatable!(client.update_api_key(request))?.key)?;
                out.one("ApiKey", &row, facts)
            }
            Action::Rotate { which, overlap } => {
                let api_key_id = which.get(&client).await?.api_key_id;
                let overlap = overlap.time();
                let request = RotateApiKeyRequest { tenant: which.tenant, request_id, api_key_id, overlap };
                let answer = repeatable!(client.rotate_api_key(request))?;
                let row = present(answer.key.clone())?;
                out.one("RotateApiKeyResponse", &answer, |answer| once(&facts(&row), "The key", &answer.secret))
            }
            Action::Revoke { which, confirm } => {
                let row = which.get(&client).await?;
                confirm.agree(&format!("Revoke {}, which ends in {}?", row.display_name, row.last4))?;
                let request = RevokeApiKeyRequest { tenant: which.tenant, request_id, api_key_id: row.api_key_id };
                let answer = repeatable!(client.revoke_api_key(request))?;
                let name = row.display_name;
                out.one("RevokeApiKeyResponse", &answer, |_| format!("{} is refused from now on.", plain(&name)))
            }
        }
    }
}

fn kind(row: &Row) -> String {
    word(row.kind, "CALLER_KIND_", CallerKind::as_str_name)
}

fn cells(row: &Row) -> [String; 8] {
    let (created, ends, used) = (time(row.create_time), time(row.expire_time), time(row.last_use_time));
    let (name, may, end) = (row.display_name.clone(), row.permissions.join(", "), format!("…{}", row.last4));
    [row.key_id.clone(), kind(row), name, may, created, ends, used, end]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("key", row.key_id.clone()),
        ("kind", kind(row)),
        ("name", row.display_name.clone()),
        ("of", row.user_id.clone()),
        ("may", row.permissions.join(", ")),
        ("created", time(row.create_time)),
        ("ends", time(row.expire_time)),
        ("last use", time(row.last_use_time)),
        ("old secret ends", time(row.old_secret_end_time)),
        ("id", row.api_key_id.clone()),
        ("etag", row.etag.clone()),
    ])
}
