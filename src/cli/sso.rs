//! `tenantry sso`: the identity provider through which members of a tenant sign in.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tonic::Code;

use super::confirm::Confirm;
use super::connect::{Connect, Tenants, read, repeatable};
use super::output::{Output, present, sheet, time, yes};
use super::tenant::get;
use super::{CliError, request_id};
use crate::rpc::v1::{
    DeleteSsoConnectionRequest, GetSsoConnectionRequest, GroupRole, SetSsoConnectionRequest, SsoConnection as Row,
    TestSsoConnectionRequest,
};

/// Flags of `tenantry sso`.
#[derive(Args, Debug)]
pub(super) struct Sso {
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
    /// Show a tenant's connection to its provider
    Show {
        /// Slug or id
        tenant: String,
    },
    /// Connect a tenant to its provider, or change the connection; what is not said stays
    Set(Set),
    /// Ask whether the provider answers
    Test {
        /// Slug or id
        tenant: String,
        /// The issuer to ask; the connection's unless said
        #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
        issuer: String,
    },
    /// Remove the connection: members sign in by other ways
    Remove {
        /// Slug or id
        tenant: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry sso set acme --issuer https://idp.acme.example --client-id product --client-secret-file secret.txt \\
    --redirect-uri https://app.example.com/callback --default-role viewer
  tenantry sso set acme --group-claim groups --group-role teachers=manager --group-role office=accountant
  tenantry sso set acme --required true         the password is left to owners alone
  pass show acme/idp | tenantry sso set acme --client-secret-file -")]
struct Set {
    /// Slug or id
    tenant: String,
    /// The provider's issuer identifier, an https address
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// What the provider knows the product by
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// File with the client secret, `-` for the standard input
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Where the provider may send people back to; may be said again
    #[arg(long = "redirect-uri", value_name = "URL")]
    redirect_uris: Vec<String>,
    /// What is asked for besides `openid`; may be said again
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The role of those who become members by signing in
    #[arg(long, value_name = "ROLE")]
    default_role: Option<String>,
    /// The claim that lists a person's groups; empty when roles do not follow groups
    #[arg(long, value_name = "CLAIM")]
    group_claim: Option<String>,
    /// Which role a group stands for; may be said again
    #[arg(long = "group-role", value_name = "GROUP=ROLE", value_parser = group_role)]
    group_roles: Vec<GroupRole>,
    /// A domain whose addresses may sign in, all that are verified unless said; may be said again
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// Whether the tenant can be entered by this way alone, but for those in the top role
    #[arg(long, value_name = "true|false")]
    required: Option<bool>,
}

fn group_role(text: &str) -> Result<GroupRole, String> {
    let (group, role) = text.rsplit_once('=').ok_or("GROUP=ROLE is wanted, such as teachers=manager")?;
    Ok(GroupRole { group: group.to_owned(), role: role.to_owned() })
}

impl Sso {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Remove { confirm, .. } = &self.action {
            confirm.possible()?;
        }
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::Show { tenant } => {
                let mut client = self.connect.tenants().await?;
                let answer = client.get_sso_connection(GetSsoConnectionRequest { tenant }).await?.into_inner();
                out.one("SsoConnection", &present(answer.connection)?, facts)
            }
            Action::Set(set) => {
                let secret = set.client_secret_file.as_deref().map(secret).transpose()?;
                let row = set.run(self.connect.tenants().await?, secret.unwrap_or_default()).await?;
                out.one("SsoConnection", &row, facts)
            }
            Action::Test { tenant, issuer } => {
                let mut client = self.connect.tenants().await?;
                let answer = client.test_sso_connection(TestSsoConnectionRequest { tenant, issuer });
                let answer = answer.await?.into_inner();
                out.one("TestSsoConnectionResponse", &answer, |answer| {
                    sheet(&[
                        ("answers", yes(answer.reachable)),
                        ("keys", answer.keys.to_string()),
                        ("problem", answer.problem.clone()),
                    ])
                })?;
                if answer.reachable {
                    return Ok(());
                }
                Err(CliError::Failed("the provider does not answer as one".to_owned()))
            }
            Action::Remove { tenant, confirm } => {
                let client = self.connect.tenants().await?;
                let tenant = get(&client, &tenant).await?;
                confirm.ask(&tenant, "ends the single sign-on of a tenant")?;
                let request = DeleteSsoConnectionRequest { tenant: tenant.tenant_id, request_id: request_id() };
                let answer = repeatable!(client.delete_sso_connection(request))?;
                out.one("DeleteSsoConnectionResponse", &answer, |_| "The connection is gone.".to_owned())
            }
        }
    }
}

/// The client secret, without the end of its line.
fn secret(path: &Path) -> Result<String, CliError> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        String::from_utf8(read("--client-secret-file", path)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    };
    let flag = "--client-secret-file";
    let text = text.map_err(|source| CliError::File { flag, path: path.to_owned(), source })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(CliError::Argument(format!("{flag}: there is nothing in it"))),
        secret => Ok(secret.to_owned()),
    }
}

impl Set {
    /// What is there with what was said over it.
    async fn run(self, client: Tenants, client_secret: String) -> Result<Row, CliError> {
        let request = GetSsoConnectionRequest { tenant: self.tenant.clone() };
        let mut row = match client.clone().get_sso_connection(request).await {
            Ok(answer) => present(answer.into_inner().connection)?,
            Err(status) if is_not_configured(&status) => Row::default(),
            Err(status) => return Err(status.into()),
        };
        // Refused when somebody else changes it in between.
        let etag = row.etag.clone();
        put(&mut row.issuer, self.issuer);
        put(&mut row.client_id, self.client_id);
        put(&mut row.default_role, self.default_role);
        put(&mut row.group_claim, self.group_claim);
        put(&mut row.required, self.required);
        put_all(&mut row.redirect_uris, self.redirect_uris);
        put_all(&mut row.scopes, self.scopes);
        put_all(&mut row.group_roles, self.group_roles);
        put_all(&mut row.domains, self.domains);
        let (tenant, request_id) = (self.tenant, request_id());
        let request = SetSsoConnectionRequest { tenant, request_id, connection: Some(row), client_secret, etag };
        present(repeatable!(client.set_sso_connection(request))?.connection)
    }
}

fn is_not_configured(status: &tonic::Status) -> bool {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info();
    status.code() == Code::NotFound && info.is_some_and(|info| info.reason == "SSO_NOT_CONFIGURED")
}

fn put<T>(place: &mut T, said: Option<T>) {
    if let Some(value) = said {
        *place = value;
    }
}

fn put_all<T>(place: &mut Vec<T>, said: Vec<T>) {
    if !said.is_empty() {
        *place = said;
    }
}

fn facts(row: &Row) -> String {
    let groups: Vec<_> = row.group_roles.iter().map(|pair| format!("{}={}", pair.group, pair.role)).collect();
    sheet(&[
        ("issuer", row.issuer.clone()),
        ("client id", row.client_id.clone()),
        ("client secret", if row.has_client_secret { "set" } else { "none" }.to_owned()),
        ("scopes", row.scopes.join(", ")),
        ("redirects", row.redirect_uris.join(", ")),
        ("default role", row.default_role.clone()),
        ("highest role", row.highest_role.clone()),
        ("group claim", row.group_claim.clone()),
        ("group roles", groups.join(", ")),
        ("domains", row.domains.join(", ")),
        ("required", yes(row.required)),
        ("changed", time(row.update_time)),
        ("etag", row.etag.clone()),
    ])
}
