//! `tenantry usage`: what tenants use, summed and one by one, and at which percents of their limits they are told.

mod events;
mod query;

use std::io::Write;

use clap::{Args, Subcommand};

use super::connect::{Connect, Usages, repeatable};
use super::limit::source;
use super::output::{Output, number, present, time};
use super::{CliError, request_id};
use crate::rpc::v1::{
    GetThresholdsRequest, GetUsageRequest, SetThresholdsRequest, Thresholds as ThresholdsRow, TopTenant,
    TopTenantsRequest, Usage as Row,
};

/// Flags of `tenantry usage`.
#[derive(Args, Debug)]
pub(super) struct Usage {
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
    /// Show where a tenant's metrics stand now
    Show {
        /// Slug or id
        tenant: String,
        /// Which metrics; all when none are named
        metrics: Vec<String>,
    },
    /// Sum what a tenant used, by day or otherwise, by metric and whatever else is asked for
    Query(query::Query),
    /// List single events, the newest first
    Events(events::Events),
    /// Write all events as JSON, one a line, the oldest first
    Export(events::Export),
    /// Show or set at which percents of its limits a tenant is told
    Thresholds(Thresholds),
    /// Show which tenants use most of a metric now
    Top {
        /// The metric
        metric: String,
        /// How many, at most 1000
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: i32,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Owners are told by mail, once a period and percent; webhooks are told as `quota.reached`.

Examples:
  tenantry usage thresholds acme                      what holds
  tenantry usage thresholds acme quizzes 50 80 100    other ones
  tenantry usage thresholds acme quizzes --off        nobody is told of anything")]
struct Thresholds {
    /// Slug or id
    tenant: String,
    /// The metric to set them of
    metric: Option<String>,
    /// Percents of its limit, rising, at most 10, each 1 to 1000
    #[arg(value_name = "PERCENT")]
    percents: Vec<i32>,
    /// None at all
    #[arg(long, requires = "metric", conflicts_with = "percents")]
    off: bool,
}

impl Usage {
    /// Connects, does it, and writes the outcome to `out`.
    pub(super) async fn run(self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        let mut out = Output { json: self.json, to: out };
        match self.action {
            Action::Show { tenant, metrics } => {
                let mut client = self.connect.usage().await?;
                let usage = client.get_usage(GetUsageRequest { tenant, metrics }).await?.into_inner().usage;
                let header = ["metric", "used", "reserved", "limit", "left", "percent", "unit", "resets", "source"];
                out.many("Usage", &usage, header, cells)
            }
            Action::Query(query) => query.run(self.connect.usage().await?, out).await,
            Action::Events(events) => events.run(self.connect.usage().await?, out).await,
            Action::Export(export) => export.run(self.connect.usage_streams().await?, out).await,
            Action::Thresholds(thresholds) => thresholds.run(self.connect.usage().await?, out).await,
            Action::Top { metric, limit } => {
                let mut client = self.connect.usage().await?;
                let top = client.top_tenants(TopTenantsRequest { metric, limit }).await?.into_inner().tenants;
                out.many("TopTenant", &top, ["tenant", "name", "used", "limit", "since", "resets"], top_cells)
            }
        }
    }
}

impl Thresholds {
    async fn run(self, mut client: Usages, mut out: Output<'_>) -> Result<(), CliError> {
        let header = ["metric", "percents", "from"];
        let Some(metric) = self.metric else {
            let request = GetThresholdsRequest { tenant: self.tenant };
            let all = client.get_thresholds(request).await?.into_inner().thresholds;
            return out.many("Thresholds", &all, header, threshold_cells);
        };
        if self.percents.is_empty() && !self.off {
            return Err(CliError::Argument("name the percents, or say --off".to_owned()));
        }
        let (tenant, percents) = (self.tenant, self.percents);
        let request = SetThresholdsRequest { tenant, metric, percents, request_id: request_id() };
        let set = present(repeatable!(client.set_thresholds(request))?.thresholds)?;
        out.many("Thresholds", &[set], header, threshold_cells)
    }
}

fn threshold_cells(row: &ThresholdsRow) -> [String; 3] {
    let percents: Vec<String> = row.percents.iter().map(|percent| format!("{percent} %")).collect();
    let told = if percents.is_empty() { "none".to_owned() } else { percents.join(", ") };
    [row.metric.clone(), told, if row.is_default { "default" } else { "tenant" }.to_owned()]
}

fn cells(row: &Row) -> [String; 9] {
    [
        row.metric.clone(),
        row.used.to_string(),
        row.reserved.to_string(),
        number(row.limit, "unlimited"),
        number(row.remaining, "-"),
        row.percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
        row.unit.clone(),
        time(row.reset_time),
        source(row.source),
    ]
}

fn top_cells(row: &TopTenant) -> [String; 6] {
    [
        row.slug.clone(),
        row.display_name.clone(),
        row.used.to_string(),
        number(row.limit, "unlimited"),
        time(row.period_start_time),
        time(row.reset_time),
    ]
}
