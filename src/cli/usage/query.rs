//! `tenantry usage query`: sums over time.

use chrono::{DateTime, NaiveDate, NaiveTime};
use clap::{Args, ValueEnum};
use prost_types::Timestamp as ProtoTimestamp;

use crate::cli::CliError;
use crate::cli::connect::Usages;
use crate::cli::output::{Output, time};
use crate::cli::table::{plain, table};
use crate::rpc::v1::{QueryUsageRequest, QueryUsageResponse, UsageDimension, UsageGranularity};

/// When; of commands that look back.
#[derive(Args, Debug)]
pub(super) struct When {
    /// From then on: a date, or a time such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) since: Option<ProtoTimestamp>,
    /// Before then
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(super) until: Option<ProtoTimestamp>,
}

/// A date is its first instant, UTC.
fn instant(text: &str) -> Result<ProtoTimestamp, String> {
    let day = || text.parse::<NaiveDate>().map(|day| day.and_time(NaiveTime::MIN).and_utc().timestamp());
    let at = DateTime::parse_from_rfc3339(text).map(|at| at.timestamp());
    let seconds = at.or_else(|_| day()).map_err(|_| "a date or time such as 2030-01-31T12:00:00Z is wanted")?;
    Ok(ProtoTimestamp { seconds, nanos: 0 })
}

/// Flags of `tenantry usage query`.
#[derive(Args, Debug)]
#[command(after_help = "\
Days, hours and months are those of the tenant's time zone. Without --since the last 30 days are summed.

Examples:
  tenantry usage query acme                                         every metric, day by day
  tenantry usage query acme --every hour --since 2030-01-31 --metric calls --by endpoint,status
  tenantry usage query acme --every month --since 2030-01-01 --json   spans, sums and totals in one object")]
pub(super) struct Query {
    /// Slug or id
    tenant: String,
    #[command(flatten)]
    when: When,
    /// How long the spans are
    #[arg(long, value_enum, default_value_t = Every::Day)]
    every: Every,
    /// Only this metric; may be said several times
    #[arg(long = "metric", value_name = "METRIC")]
    metrics: Vec<String>,
    /// Whose and what calls are summed apart
    #[arg(long, value_enum, value_delimiter = ',')]
    by: Vec<By>,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Every {
    Quarter,
    Hour,
    Day,
    Month,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Member,
    ApiKey,
    Endpoint,
    Method,
    Status,
}

impl Query {
    pub(super) async fn run(self, mut client: Usages, mut out: Output<'_>) -> Result<(), CliError> {
        let granularity = match self.every {
            Every::Quarter => UsageGranularity::QuarterHour,
            Every::Hour => UsageGranularity::Hour,
            Every::Day => UsageGranularity::Day,
            Every::Month => UsageGranularity::Month,
        };
        let dimension = |by: &By| match by {
            By::Member => UsageDimension::Member,
            By::ApiKey => UsageDimension::ApiKey,
            By::Endpoint => UsageDimension::Endpoint,
            By::Method => UsageDimension::Method,
            By::Status => UsageDimension::Status,
        };
        let request = QueryUsageRequest {
            tenant: self.tenant,
            start_time: self.when.since,
            end_time: self.when.until,
            granularity: granularity.into(),
            metrics: self.metrics,
            group_by: self.by.iter().map(|by| dimension(by).into()).collect(),
        };
        let found = client.query_usage(request).await?.into_inner();
        out.one("QueryUsageResponse", &found, shown)
    }
}

/// What was used, and below it all of it.
fn shown(found: &QueryUsageResponse) -> String {
    let rows = found.sums.iter().map(|sum| {
        let start = found.spans.get(usize::try_from(sum.span).unwrap_or(0)).and_then(|span| span.start_time);
        let status = if sum.status_code == 0 { String::new() } else { sum.status_code.to_string() };
        let (who, key) = (sum.user_id.clone(), sum.api_key_id.clone());
        let (endpoint, method) = (sum.endpoint.clone(), sum.method.clone());
        let (events, amount) = (sum.events.to_string(), sum.amount.to_string());
        [time(start), sum.metric.clone(), who, key, method, endpoint, status, events, amount]
    });
    let header = ["from", "metric", "member", "key", "method", "endpoint", "status", "events", "amount"];
    let totals = found.totals.iter().map(|t| [t.metric.clone(), t.events.to_string(), t.amount.to_string()]);
    let zone = plain(&found.time_zone).into_owned();
    format!("{}\n\n{}\n\ntime zone  {zone}", table(header, rows), table(["total", "events", "amount"], totals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_read_and_nothing_else() {
        assert_eq!(instant("1970-01-02").unwrap().seconds, 86_400);
        assert_eq!(instant("1970-01-01T02:00:00+01:00").unwrap().seconds, 3_600);
        for wrong in ["yesterday", "2030-02-30", "2030-01-31T12:00:00", ""] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }
}
