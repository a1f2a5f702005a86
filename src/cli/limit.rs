//! `tenantry limit`: how much a tenant may use, and exceptions from what its plan says.

use std::io::Write;

use clap::{Args, Subcommand};

use super::connect::{Connect, Tenants, repeatable};
use super::expiry::Expiry;
use super::output::{Output, number, present, sheet, time, word};
use super::{CliError, request_id};
use crate::rpc::v1::set_limit_override_request::Value;
use crate::rpc::v1::{EntitlementSource, Limit as Row, ListLimitsRequest, MetricKind, SetLimitOverrideRequest};

/// Flags of `tenantry limit`.
#[derive(Args, Debug)]
pub(super) struct Limit {
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
    /// Show the limits of a tenant: what is used and left, and where each comes from
    List {
        /// Slug or id
        tenant: String,
    },
    /// Give a tenant another limit than its plan
    Set(Set),
    /// Take that back: what the plan allows holds again
    Clear {
        /// Slug or id
        tenant: String,
        /// The metric; `members` for seats
        metric: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry limit set acme quizzes 500 --days 30 --reason 'launch week'
  tenantry limit set acme members unlimited")]
struct Set {
    /// Slug or id
    tenant: String,
    /// The metric; `members` for seats
    metric: String,
    /// The limit in the metric's unit, or `unlimited`
    #[arg(value_name = "N|unlimited", value_parser = amount)]
    limit: Amount,
    #[command(flatten)]
    expiry: Expiry,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Clone, Copy)]
enum Amount {
    Unlimited,
    Of(i64),
}

fn amount(text: &str) -> Result<Amount, String> {
    match text {
        "unlimited" => Ok(Amount::Unlimited),
        number => number.parse().map(Amount::Of).map_err(|_| "a whole number or `unlimited` is wanted".to_owned()),
    }
}

impl Limit {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut client = self.connect.tenants().await?;
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::List { tenant } => {
                let limits = client.list_limits(ListLimitsRequest { tenant }).await?.into_inner().limits;
                let header = ["metric", "kind", "limit", "used", "left", "unit", "resets", "source", "until", "plan"];
                out.many("Limit", &limits, header, cells)
            }
            Action::Set(set) => {
                let value = match set.limit {
                    Amount::Unlimited => Value::Unlimited(true),
                    Amount::Of(limit) => Value::Limit(limit),
                };
                let request = SetLimitOverrideRequest {
                    tenant: set.tenant,
                    metric: set.metric,
                    value: Some(value),
                    expire_time: set.expiry.end(),
                    reason: set.reason,
                    ..Default::default()
                };
                change(client, request, out).await
            }
            Action::Clear { tenant, metric } => {
                let value = Some(Value::Remove(true));
                change(client, SetLimitOverrideRequest { tenant, metric, value, ..Default::default() }, out).await
            }
        }
    }
}

async fn change(client: Tenants, request: SetLimitOverrideRequest, mut out: Output<'_>) -> Result<(), CliError> {
    let request = SetLimitOverrideRequest { request_id: request_id(), ..request };
    let row = present(repeatable!(client.set_limit_override(request))?.limit)?;
    out.one("Limit", &row, |row| {
        sheet(&[
            ("metric", row.metric.clone()),
            ("limit", number(row.limit, "unlimited")),
            ("used", number(row.used, "")),
            ("left", number(row.remaining, "")),
            ("source", source(row.source)),
            ("until", time(row.expire_time)),
            ("plan", number(row.plan_limit, "unlimited")),
        ])
    })
}

/// Where an entitlement comes from, in one word.
pub(super) fn source(number: i32) -> String {
    word(number, "ENTITLEMENT_SOURCE_", EntitlementSource::as_str_name)
}

fn cells(row: &Row) -> [String; 10] {
    [
        row.metric.clone(),
        word(row.kind, "METRIC_KIND_", MetricKind::as_str_name),
        number(row.limit, "unlimited"),
        number(row.used, "-"),
        number(row.remaining, "-"),
        row.unit.clone(),
        time(row.reset_time),
        source(row.source),
        time(row.expire_time),
        number(row.plan_limit, "unlimited"),
    ]
}
