//! `tenantry usage events` and `export`: single events.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::query::When;
use crate::cli::connect::Usages;
use crate::cli::output::{Output, time, word};
use crate::cli::pages::Pages;
use crate::cli::progress::Progress;
use crate::cli::{CliError, json};
use crate::rpc::v1::{
    ExportUsageRequest, ListUsageEventsRequest, UsageEventFilter, UsageEventKind, UsageEventRecord, UsageVerdict,
};
use crate::time::{Clock as _, SystemClock};

/// Which events.
#[derive(Args, Debug)]
struct Only {
    #[command(flatten)]
    when: When,
    /// Only this metric
    #[arg(long, value_name = "METRIC", default_value = "", hide_default_value = true)]
    metric: String,
    /// Only what this user did
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    user: String,
    /// Only what was done by this API key
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    api_key: String,
    /// Only what was admitted
    #[arg(long, conflicts_with = "refused")]
    admitted: bool,
    /// Only what was refused
    #[arg(long)]
    refused: bool,
}

impl From<Only> for UsageEventFilter {
    fn from(only: Only) -> Self {
        let verdict = match (only.admitted, only.refused) {
            (true, _) => UsageVerdict::Admitted,
            (_, true) => UsageVerdict::Refused,
            _ => UsageVerdict::Unspecified,
        };
        Self {
            start_time: only.when.since,
            end_time: only.when.until,
            metric: only.metric,
            user_id: only.user,
            api_key_id: only.api_key,
            verdict: verdict.into(),
        }
    }
}

/// Flags of `tenantry usage events`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry usage events acme --limit 20
  tenantry usage events acme --metric calls --since 2030-01-31 --refused --json")]
pub(super) struct Events {
    /// Slug or id
    tenant: String,
    #[command(flatten)]
    only: Only,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    pages: Pages,
}

impl Events {
    pub(super) async fn run(self, mut client: Usages, mut out: Output<'_>) -> Result<(), CliError> {
        let request = ListUsageEventsRequest {
            tenant: self.tenant,
            filter: Some(self.only.into()),
            oldest_first: self.oldest_first,
            ..Default::default()
        };
        let header = ["time", "kind", "verdict", "amounts", "user", "call", "status", "key"];
        let ask = async |page_size, page_token| {
            let request = ListUsageEventsRequest { page_size, page_token, ..request.clone() };
            let page = client.list_usage_events(request).await?.into_inner();
            Ok((page.events, page.next_page_token))
        };
        self.pages.list(&mut out, "UsageEventRecord", (header, cells), ask).await
    }
}

fn cells(row: &UsageEventRecord) -> [String; 8] {
    let amounts: Vec<String> = row.amounts.iter().map(|a| format!("{} {}", a.amount, a.metric)).collect();
    let call = [row.method.as_str(), row.endpoint.as_str()].join(" ");
    [
        time(row.event_time),
        word(row.kind, "USAGE_EVENT_KIND_", UsageEventKind::as_str_name),
        word(row.verdict, "USAGE_VERDICT_", UsageVerdict::as_str_name),
        amounts.join(", "),
        row.user_id.clone(),
        call.trim().to_owned(),
        if row.status_code == 0 { String::new() } else { row.status_code.to_string() },
        row.event_key.clone(),
    ]
}

/// Flags of `tenantry usage export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry usage export acme --out acme.jsonl
  tenantry usage export acme --since 2030-01-01 --until 2030-02-01 | gzip > january.jsonl.gz")]
pub(super) struct Export {
    /// Slug or id
    tenant: String,
    #[command(flatten)]
    only: Only,
    /// Write into this file, which must not be there, and show how far it is
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Export {
    pub(super) async fn run(self, mut client: Usages, mut out: Output<'_>) -> Result<(), CliError> {
        let filter: UsageEventFilter = self.only.into();
        let end = filter.end_time.map(|at| at.seconds);
        let request = ExportUsageRequest { tenant: self.tenant, filter: Some(filter) };
        let mut stream = client.export_usage(request).await?.into_inner();
        let Some(path) = self.out else {
            let mut is_whole = false;
            while let Some(message) = stream.message().await? {
                is_whole = message.events.is_empty();
                for event in message.events {
                    writeln!(out.to, "{}", json::line("UsageEventRecord", &event)?)?;
                }
            }
            return whole(is_whole);
        };
        let mut file = BufWriter::new(File::create_new(&path)?);
        let (mut written, mut bar): (u64, Option<(i64, Progress)>) = (0, None);
        let mut is_whole = false;
        while let Some(message) = stream.message().await? {
            is_whole = message.events.is_empty();
            for event in &message.events {
                writeln!(file, "{}", json::line("UsageEventRecord", event)?)?;
                written += 1;
            }
            // Events come in the order of time, so time tells how far it is.
            let Some(at) = message.events.last().and_then(|event| event.event_time) else { continue };
            let first = message.events.first().and_then(|event| event.event_time).unwrap_or(at);
            let last = end.unwrap_or_else(|| SystemClock.now().seconds());
            let length = |from: i64| u64::try_from(last - from).unwrap_or(1).max(1);
            let (from, progress) = bar.get_or_insert_with(|| (first.seconds, Progress::new(length(first.seconds))));
            let done = u64::try_from(at.seconds - *from).unwrap_or(0);
            progress.show(done, |seconds| format!("{written} events, {} a second", written / seconds));
        }
        file.flush()?;
        if let Some((_, progress)) = bar {
            progress.end();
        }
        whole(is_whole)?;
        out.say(&format!("{written} events in {}", path.display()))
    }
}

/// An export that broke off is an error, so that nobody keeps half of one.
fn whole(is_whole: bool) -> Result<(), CliError> {
    if is_whole { Ok(()) } else { Err(CliError::Failed("the export broke off before its last event".to_owned())) }
}
