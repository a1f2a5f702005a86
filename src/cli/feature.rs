//! `tenantry feature`: what a tenant may use, and exceptions from what its plan says.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::connect::{Connect, Tenants, repeatable};
use super::expiry::Expiry;
use super::limit::source;
use super::output::{Output, present, sheet, time, yes};
use super::{CliError, request_id};
use crate::rpc::v1::set_feature_request::Value;
use crate::rpc::v1::{Feature as Row, ListFeaturesRequest, SetFeatureRequest};

/// Flags of `tenantry feature`.
#[derive(Args, Debug)]
pub(super) struct Feature {
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
    /// Show which features a tenant has, and why
    List {
        /// Slug or id
        tenant: String,
    },
    /// Switch a feature on or off, whatever the plan and the tenant say
    Set(Set),
    /// Take that back: what the plan and the tenant say holds again
    Clear {
        /// Slug or id
        tenant: String,
        /// The feature
        feature: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry feature set acme sso on --days 14
  tenantry feature set acme exports off")]
struct Set {
    /// Slug or id
    tenant: String,
    /// The feature
    feature: String,
    /// Whether the tenant has it
    switch: Switch,
    #[command(flatten)]
    expiry: Expiry,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq)]
enum Switch {
    On,
    Off,
}

impl Feature {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::List { tenant } => {
                let features = client.list_features(ListFeaturesRequest { tenant }).await?.into_inner().features;
                let header = ["feature", "has", "source", "until", "in plan", "description"];
                out.many("Feature", &features, header, cells)
            }
            Action::Set(set) => {
                let request = SetFeatureRequest {
                    tenant: set.tenant,
                    feature: set.feature,
                    value: Some(Value::Enabled(set.switch == Switch::On)),
                    expire_time: set.expiry.end(),
                    ..Default::default()
                };
                change(client, request, out).await
            }
            Action::Clear { tenant, feature } => {
                let value = Some(Value::Remove(true));
                change(client, SetFeatureRequest { tenant, feature, value, ..Default::default() }, out).await
            }
        }
    }
}

/// Always an override: the tenant's own switch is the tenant's.
async fn change(client: Tenants, request: SetFeatureRequest, mut out: Output<'_>) -> Result<(), CliError> {
    let request = SetFeatureRequest { request_id: request_id(), r#override: true, ..request };
    let row = present(repeatable!(client.set_feature(request))?.feature)?;
    out.one("Feature", &row, |row| {
        sheet(&[
            ("feature", row.feature.clone()),
            ("has it", yes(row.enabled)),
            ("source", source(row.source)),
            ("until", time(row.expire_time)),
            ("in plan", yes(row.in_plan)),
        ])
    })
}

fn cells(row: &Row) -> [String; 6] {
    let (feature, description) = (row.feature.clone(), row.description.clone());
    [feature, yes(row.enabled), source(row.source), time(row.expire_time), yes(row.in_plan), description]
}
