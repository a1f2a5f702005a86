//! `tenantry role`: what members of a tenant may do, and who stands above whom.

use std::io::Write;

use clap::{Args, Subcommand};
use prost_types::FieldMask;

use super::confirm::Confirm;
use super::connect::{Connect, Members, repeatable};
use super::output::{Output, present, sheet, time};
use super::table::{plain, table};
use super::tenant::undone;
use super::{CliError, request_id};
use crate::rpc::v1::{
    CreateRoleRequest, DeleteRoleRequest, ListPermissionsRequest, ListRolesRequest, MemberImpact, Permission,
    Role as Row, RoleImpact, UpdateRoleRequest,
};

/// Flags of `tenantry role`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry role create acme accountant --rank 25 --permission 'billing.*' --permission tenant.read
  tenantry role update acme accountant --permission billing.read --dry-run     who would gain and lose what
  tenantry role delete acme accountant --replacement member")]
pub(super) struct Role {
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
    /// List the roles, highest first: the catalogue's and the tenant's own
    List {
        /// Slug or id
        tenant: String,
    },
    /// List what a role may allow
    Permissions {
        /// Slug or id
        tenant: String,
    },
    /// Make a role for a tenant, below the top
    Create(Create),
    /// Change one of a tenant's own roles; what is not said stays
    Update(Update),
    /// Delete one of a tenant's own roles
    Delete(Delete),
}

#[derive(Args, Debug)]
struct Create {
    /// Slug or id
    tenant: String,
    /// Its name
    name: String,
    /// Where it stands: `role list` shows the ranks of the others
    #[arg(long, value_name = "N")]
    rank: i64,
    /// What it allows, such as members.read, 'quizzes.*' or '*'; may be said again
    #[arg(long = "permission", value_name = "PERMISSION", required = true)]
    permissions: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Only say what it would be
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Update {
    /// Slug or id
    tenant: String,
    /// Which
    name: String,
    /// Where it stands
    #[arg(long, value_name = "N", required_unless_present_any = ["permissions", "description"])]
    rank: Option<i64>,
    /// All that it allows then; may be said again
    #[arg(long = "permission", value_name = "PERMISSION")]
    permissions: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// The etag that was read; refused when the role has changed since
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    /// Only say who would gain and lose what
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Delete {
    /// Slug or id
    tenant: String,
    /// Which
    name: String,
    /// What those become who have it; without, it must be nobody's
    #[arg(long, value_name = "ROLE", default_value = "", hide_default_value = true)]
    replacement: String,
    /// Only say who would gain and lose what
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirm: Confirm,
}

impl Role {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        if let Action::Delete(delete) = &self.action
            && !delete.dry_run
        {
            delete.confirm.possible()?;
        }
        let mut client = self.connect.members().await?;
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::List { tenant } => {
                let roles = client.list_roles(ListRolesRequest { tenant }).await?.into_inner().roles;
                out.many("Role", &roles, ["role", "rank", "of", "is", "allows", "description"], cells)
            }
            Action::Permissions { tenant } => {
                let all = client.list_permissions(ListPermissionsRequest { tenant }).await?.into_inner().permissions;
                let cells = |row: &Permission| [row.name.clone(), row.description.clone()];
                out.many("Permission", &all, ["permission", "description"], cells)
            }
            Action::Create(create) => create.run(client, out).await,
            Action::Update(update) => update.run(client, out).await,
            Action::Delete(delete) => delete.run(client, out).await,
        }
    }
}

impl Create {
    async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let request = CreateRoleRequest {
            tenant: self.tenant,
            request_id: request_id(),
            name: self.name,
            rank: self.rank,
            permissions: self.permissions,
            description: self.description,
            validate_only: self.dry_run,
        };
        let row = present(repeatable!(client.create_role(request))?.role)?;
        out.one("Role", &row, |row| facts(row) + undone(self.dry_run))
    }
}

impl Update {
    async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let said = [
            ("rank", self.rank.is_some()),
            ("permissions", !self.permissions.is_empty()),
            ("description", self.description.is_some()),
        ];
        let paths = said.iter().filter(|(_, said)| *said).map(|(path, _)| (*path).to_owned()).collect();
        let request = UpdateRoleRequest {
            tenant: self.tenant,
            request_id: request_id(),
            name: self.name,
            rank: self.rank.unwrap_or_default(),
            permissions: self.permissions,
            description: self.description.unwrap_or_default(),
            update_mask: Some(FieldMask { paths }),
            etag: self.etag,
            validate_only: self.dry_run,
        };
        let answer = repeatable!(client.update_role(request))?;
        let row = present(answer.role.clone())?;
        out.one("UpdateRoleResponse", &answer, |answer| {
            let impact = answer.impact.as_ref().map(|said| format!("\n\n{}", impact(said))).unwrap_or_default();
            format!("{}{impact}{}", facts(&row), undone(self.dry_run))
        })
    }
}

impl Delete {
    async fn run(self, client: Members, mut out: Output<'_>) -> Result<(), CliError> {
        let request = DeleteRoleRequest {
            tenant: self.tenant,
            request_id: request_id(),
            name: self.name.clone(),
            replacement: self.replacement,
            validate_only: true,
            ..Default::default()
        };
        let preview = repeatable!(client.delete_role(request.clone()))?;
        let said = impact(&preview.impact.clone().unwrap_or_default());
        if self.dry_run {
            return out.one("DeleteRoleResponse", &preview, |_| said + undone(true));
        }
        out.say(&said)?;
        out.to.flush()?;
        self.confirm.agree(&format!("Delete the role {}?", self.name))?;
        let request = DeleteRoleRequest { request_id: request_id(), validate_only: false, ..request };
        let answer = repeatable!(client.delete_role(request))?;
        out.one("DeleteRoleResponse", &answer, |_| format!("{} is gone.", plain(&self.name)))
    }
}

/// Who gains and loses what, for people.
fn impact(impact: &RoleImpact) -> String {
    let RoleImpact { members, affected_members, named } = impact;
    let said = format!("Members who have it: {members}, for whom something changes: {affected_members}");
    if named.is_empty() {
        return said;
    }
    let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
    let cells = |row: &MemberImpact| {
        let person = row.user.clone().unwrap_or_default();
        [person.email, list(&row.gained_permissions), list(&row.lost_permissions)]
    };
    format!("{said}\n{}", table(["member", "gains", "loses"], named.iter().map(cells)))
}

/// What marks it: the top, or what new members become.
fn marks(row: &Row) -> String {
    let marks = [(row.top, "top"), (row.default, "default")];
    marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect::<Vec<_>>().join(", ")
}

fn whose(row: &Row) -> String {
    if row.own { "tenant" } else { "catalogue" }.to_owned()
}

fn cells(row: &Row) -> [String; 6] {
    let allows = format!("{} permissions", row.permissions.len());
    [row.name.clone(), row.rank.to_string(), whose(row), marks(row), allows, row.description.clone()]
}

fn facts(row: &Row) -> String {
    sheet(&[
        ("role", row.name.clone()),
        ("rank", row.rank.to_string()),
        ("of", whose(row)),
        ("is", marks(row)),
        ("allows", row.permissions.join(", ")),
        ("for", row.description.clone()),
        ("changed", time(row.update_time)),
        ("etag", row.etag.clone()),
    ])
}
