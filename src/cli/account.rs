//! `tenantry account`: a person's account, whatever tenants they are in. What is a tenant's business is `tenantry member`.

use std::io::Write;

use clap::{Args, Subcommand};

use super::connect::{Connect, repeatable};
use super::output::{Output, present, sheet};
use super::{CliError, request_id};
use crate::rpc::v1::{DisableAccountRequest, EnableAccountRequest, User};

/// Flags of `tenantry account`.
#[derive(Args, Debug)]
#[command(after_help = "\
The id is in `tenantry member list`, and `tenantry tenant find --user-external-id` knows it by another system's.")]
pub(super) struct Account {
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
    /// Close an account: its sessions end, and nobody signs in to it until it is opened
    Disable {
        /// Id of the person
        user: String,
    },
    /// Open it again
    Enable {
        /// Id of the person
        user: String,
    },
}

impl Account {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let client = self.connect.auth().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        let (person, account) = match self.action {
            Action::Disable { user: user_id } => {
                let request = DisableAccountRequest { user_id, request_id };
                (repeatable!(client.disable_account(request))?.user, "disabled")
            }
            Action::Enable { user: user_id } => {
                let request = EnableAccountRequest { user_id, request_id };
                (repeatable!(client.enable_account(request))?.user, "enabled")
            }
        };
        out.one("User", &present(person)?, |person: &User| {
            sheet(&[
                ("email", person.email.clone()),
                ("name", person.display_name.clone()),
                ("account", account.to_owned()),
                ("id", person.user_id.clone()),
            ])
        })
    }
}
