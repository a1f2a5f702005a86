//! `tenantry tenant import`: users, tenants and memberships out of a file of JSON lines. The file is read as it is sent,
//! and sent again from the start when the connection breaks: what is there already does not change.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cli::connect::{Connect, Tenants};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::table::plain;
use crate::cli::{CliError, json as messages};
use crate::rpc::v1::{ImportOutcome, ImportTenantsRequest, ImportTenantsResponse};

/// Items that are sent and not answered.
const IN_FLIGHT: usize = 256;

/// Bytes of a line; a server takes no larger item.
const LINE_BYTES: u64 = 1024 * 1024;

/// How often a broken connection is mended.
const REPEATS: u32 = 5;

/// The wait before the first of them; each further one is twice as long.
const WAIT: Duration = Duration::from_millis(500);

/// Refused items in the summary.
const SHOWN: usize = 20;

#[derive(Args, Debug)]
#[command(after_help = r#"
One item a line, users and tenants before the memberships that join them:
  {"user": {"external_id": "u1", "email": "ada@example.com", "display_name": "Ada", "password_hash": "$2b$12$..."}}
  {"tenant": {"external_id": "t1", "slug": "acme", "display_name": "Acme", "plan": "pro",
              "subscription_status": "SUBSCRIPTION_STATUS_ACTIVE", "paid_until_time": "2027-01-01T00:00:00Z"}}
  {"membership": {"tenant_external_id": "t1", "user_external_id": "u1", "role": "owner"}}
The fields are those of ImportUser, ImportTenant and ImportMembership in the contract. Whatever is there already does
not change, so an import can be repeated."#)]
pub(super) struct Import {
    /// JSON lines
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// Only read the file and say which lines are no items
    #[arg(long)]
    dry_run: bool,
    /// Where refused items go, as JSON lines with their line number, reason and message
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
}

/// A line that has been read.
enum Line {
    /// It was sent.
    Sent(u64),
    /// It is no item.
    Wrong(u64, String),
}

/// What came of the items so far.
struct Tally {
    created: u64,
    unchanged: u64,
    refused: u64,
    shown: Vec<(u64, String, String)>,
    file: Option<File>,
}

impl Import {
    /// Imports, and writes a summary.
    pub(super) async fn run(self, connect: &Connect, mut out: Output<'_>) -> Result<(), CliError> {
        let began = Instant::now();
        let size = open(&self.file)?.metadata()?.len();
        if self.dry_run {
            let tally = self.look().await?;
            return summary(&tally, began.elapsed(), &mut out, "would be sent");
        }
        let client = connect.streams().await?;
        let progress = Progress::new(size);
        let mut created_before = 0;
        for attempt in 0.. {
            let mut tally = Tally::new(self.refused.as_deref())?;
            let broken = match self.attempt(client.clone(), &mut tally, &progress).await {
                Ok(()) => {
                    progress.end();
                    // What an earlier attempt created, this one found.
                    tally.created += created_before;
                    tally.unchanged = tally.unchanged.saturating_sub(created_before);
                    return summary(&tally, began.elapsed(), &mut out, "unchanged");
                }
                Err(CliError::Refused(status)) if attempt < REPEATS && is_passing(&status) => status,
                Err(other) => return Err(other),
            };
            created_before += tally.created;
            let wait = WAIT * 2_u32.pow(attempt);
            progress.say(&format!("{}; again from the start in {} s", plain(broken.message()), wait.as_secs_f32()));
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Sends the whole file once.
    async fn attempt(&self, mut client: Tenants, tally: &mut Tally, progress: &Progress) -> Result<(), CliError> {
        let (read, mut lines) = mpsc::channel(IN_FLIGHT);
        let (send, items) = mpsc::channel(IN_FLIGHT);
        let file = open(&self.file)?;
        let reading = tokio::task::spawn_blocking(move || read_items(file, &read, Some(&send)));
        let mut answers = client.import_tenants(ReceiverStream::new(items)).await?.into_inner();
        while let Some((line, bytes)) = lines.recv().await {
            match line {
                Line::Wrong(number, problem) => tally.refuse(number, "NO_ITEM".to_owned(), problem)?,
                Line::Sent(number) => match answers.message().await? {
                    Some(answer) => tally.count(number, answer)?,
                    None => return Err(CliError::Failed("the server ended the import before the file".to_owned())),
                },
            }
            progress.show(bytes, |seconds| tally.told(seconds));
        }
        reading.await.map_err(|e| CliError::Failed(e.to_string()))?.map_err(|source| self.unreadable(source))
    }

    /// Reads the whole file without a server.
    async fn look(&self) -> Result<Tally, CliError> {
        let mut tally = Tally::new(self.refused.as_deref())?;
        let (read, mut lines) = mpsc::channel(IN_FLIGHT);
        let file = open(&self.file)?;
        let reading = tokio::task::spawn_blocking(move || read_items(file, &read, None));
        while let Some((line, _)) = lines.recv().await {
            match line {
                Line::Sent(_) => tally.unchanged += 1,
                Line::Wrong(number, problem) => tally.refuse(number, "NO_ITEM".to_owned(), problem)?,
            }
        }
        reading.await.map_err(|e| CliError::Failed(e.to_string()))?.map_err(|source| self.unreadable(source))?;
        Ok(tally)
    }

    fn unreadable(&self, source: io::Error) -> CliError {
        CliError::File { flag: "FILE", path: self.file.clone(), source }
    }
}

fn open(path: &Path) -> Result<File, CliError> {
    File::open(path).map_err(|source| CliError::File { flag: "FILE", path: path.to_owned(), source })
}

/// Reads items and sends them, no further ahead than the channels hold. Each line is told, with the bytes up to its end,
/// before its item is sent.
fn read_items(
    file: File,
    lines: &mpsc::Sender<(Line, u64)>,
    items: Option<&mpsc::Sender<ImportTenantsRequest>>,
) -> io::Result<()> {
    let mut file = BufReader::new(file);
    let (mut bytes, mut text) = (0, Vec::new());
    for number in 1.. {
        text.clear();
        let length = file.by_ref().take(LINE_BYTES + 1).read_until(b'\n', &mut text)? as u64;
        if length == 0 {
            return Ok(());
        }
        bytes += length;
        let item = if length > LINE_BYTES && text.last() != Some(&b'\n') {
            bytes += file.skip_until(b'\n')? as u64;
            Err(format!("is longer than {LINE_BYTES} bytes"))
        } else {
            match std::str::from_utf8(&text).map(str::trim) {
                Ok("") => continue,
                Ok(line) => messages::read("ImportTenantsRequest", line).map_err(|error| error.to_string()),
                Err(_) => Err("is not UTF-8".to_owned()),
            }
        };
        let (line, item) = match item {
            Ok(item) => (Line::Sent(number), Some(item)),
            Err(problem) => (Line::Wrong(number, problem), None),
        };
        // Nobody listens any more: the connection broke, and all of it begins again.
        if lines.blocking_send((line, bytes)).is_err() {
            return Ok(());
        }
        if let (Some(items), Some(item)) = (items, item)
            && items.blocking_send(item).is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether another attempt may do better: the connection broke, the server is away or has no more time for this stream.
fn is_passing(status: &Status) -> bool {
    let passing = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
    passing.contains(&status.code()) || status.get_details_error_info().is_none()
}

impl Tally {
    fn new(refused: Option<&Path>) -> Result<Self, CliError> {
        let create = |path: &Path| {
            File::create(path).map_err(|source| CliError::File { flag: "--refused", path: path.to_owned(), source })
        };
        let file = refused.map(create).transpose()?;
        Ok(Self { created: 0, unchanged: 0, refused: 0, shown: Vec::new(), file })
    }

    fn count(&mut self, line: u64, answer: ImportTenantsResponse) -> Result<(), CliError> {
        match answer.outcome() {
            ImportOutcome::Created => self.created += 1,
            ImportOutcome::Unchanged => self.unchanged += 1,
            ImportOutcome::Refused | ImportOutcome::Unspecified => {
                self.refuse(line, answer.reason, answer.message)?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, reason: String, message: String) -> Result<(), CliError> {
        self.refused += 1;
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", json!({ "line": line, "reason": reason, "message": message }))?;
        }
        if self.shown.len() < SHOWN {
            self.shown.push((line, reason, message));
        }
        Ok(())
    }

    fn told(&self, seconds: u64) -> String {
        let Self { created, unchanged, refused, .. } = self;
        format!("{created} created, {unchanged} unchanged, {refused} refused, {} items/s", self.items() / seconds)
    }

    const fn items(&self) -> u64 {
        self.created + self.unchanged + self.refused
    }
}

/// Tells how it went; an error when anything was refused. `unchanged` is what those are that were neither created nor
/// refused.
fn summary(tally: &Tally, took: Duration, out: &mut Output<'_>, unchanged: &str) -> Result<(), CliError> {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (tally.items() as f64 / took.as_secs_f64().max(0.001)).round();
    if out.json {
        let refused = |(line, reason, message): &(u64, String, String)| json!({ "line": line, "reason": reason, "message": message });
        let summary = json!({
            "items": tally.items(),
            "created": tally.created,
            "unchanged": tally.unchanged,
            "refused": tally.refused,
            "seconds": took.as_secs_f64(),
            "items_per_second": rate,
            "first_refused": tally.shown.iter().map(refused).collect::<Vec<_>>(),
        });
        writeln!(out.to, "{summary}")?;
    } else {
        writeln!(out.to, "{} items in {:.1} s, {rate} items/s", tally.items(), took.as_secs_f64())?;
        writeln!(out.to, "{} created, {} {unchanged}, {} refused", tally.created, tally.unchanged, tally.refused)?;
        for (line, reason, message) in &tally.shown {
            writeln!(out.to, "line {line}: {}: {}", plain(reason), plain(message))?;
        }
        if tally.refused > SHOWN as u64 {
            writeln!(out.to, "and {} more; --refused FILE lists them all", tally.refused - SHOWN as u64)?;
        }
    }
    match tally.refused {
        0 => Ok(()),
        refused => Err(CliError::Failed(format!("{refused} of {} items were refused", tally.items()))),
    }
}
