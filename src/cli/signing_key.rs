//! `tenantry signing-key`: the keys that sign access tokens.

use std::io::Write;

use clap::{Args, Subcommand};

use super::connect::{Connect, repeatable};
use super::output::{Output, time, word};
use super::{CliError, request_id};
use crate::rpc::v1::{
    ListSigningKeysRequest, RevokeSigningKeyRequest, RotateSigningKeyRequest, SigningKey as Row, SigningKeyState,
};

/// Flags of `tenantry signing-key`.
#[derive(Args, Debug)]
#[command(after_help = "\
A key is published an hour before it signs, and known for an hour and a quarter after it has signed for the last time,
so no token becomes bad by a rotation. `revoke` is for a key that others may have: its tokens are refused at once.")]
pub(super) struct SigningKey {
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
    /// Show the keys, the oldest first
    List,
    /// Let the next key sign from now on, before the server would by itself
    Rotate,
    /// Withdraw a key: every token that it signed is refused; sessions go on with new ones
    Revoke {
        /// The key, as `list` shows it
        kid: String,
    },
}

impl SigningKey {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut client = self.connect.auth().await?;
        let mut out = Output { json: self.json, to: out };
        let request_id = request_id();
        let keys = match self.action {
            Action::List => client.list_signing_keys(ListSigningKeysRequest {}).await?.into_inner().keys,
            Action::Rotate => repeatable!(client.rotate_signing_key(RotateSigningKeyRequest { request_id }))?.keys,
            Action::Revoke { kid } => {
                repeatable!(client.revoke_signing_key(RevokeSigningKeyRequest { kid, request_id }))?.keys
            }
        };
        let header = ["kid", "state", "created", "signs from", "signed until", "tokens over", "revoked"];
        out.many("SigningKey", &keys, header, cells)
    }
}

fn cells(row: &Row) -> [String; 7] {
    let state = word(row.state, "SIGNING_KEY_STATE_", SigningKeyState::as_str_name);
    // When it began, or will be able, to sign.
    let from = time(row.current_time.or(row.ready_time));
    let (created, until, over, revoked) =
        (time(row.create_time), time(row.retire_time), time(row.over_time), time(row.revoke_time));
    [row.kid.clone(), state, created, from, until, over, revoked]
}
