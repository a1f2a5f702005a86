//! Lists that come page by page.

use clap::Args;
use prost::Message;
use tonic::Status;

use super::CliError;
use super::output::Output;

/// The most that a server puts on a page.
const PAGE: usize = 1000;

/// A page, and what asks for the next one.
type Page<M> = (Vec<M>, String);

/// The flag of commands that list.
#[derive(Args, Debug)]
pub(super) struct Pages {
    /// At most so many; all of them unless said
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Pages {
    /// Asks page by page; JSON is written as it comes, a table when all of it is there.
    pub(super) async fn list<M: Message, const N: usize>(
        self,
        out: &mut Output<'_>,
        name: &str,
        (header, cells): ([&str; N], impl Fn(&M) -> [String; N]),
        mut ask: impl AsyncFnMut(i32, String) -> Result<Page<M>, Status>,
    ) -> Result<(), CliError> {
        let mut left = self.limit.unwrap_or(usize::MAX);
        let (mut rows, mut token) = (Vec::new(), String::new());
        while left > 0 {
            let (mut page, next) = ask(size(left), token).await?;
            page.truncate(left);
            left -= page.len();
            if out.json {
                out.many(name, &page, header, &cells)?;
            } else {
                rows.append(&mut page);
            }
            if next.is_empty() {
                break;
            }
            token = next;
        }
        if out.json { Ok(()) } else { out.many(name, &rows, header, cells) }
    }
}

/// The first that fits, on whatever page it is.
pub(super) async fn find<M>(
    mut ask: impl AsyncFnMut(i32, String) -> Result<Page<M>, Status>,
    fits: impl Fn(&M) -> bool,
) -> Result<Option<M>, CliError> {
    let mut token = String::new();
    loop {
        let (page, next) = ask(size(PAGE), token).await?;
        let found = page.into_iter().find(&fits);
        if found.is_some() || next.is_empty() {
            return Ok(found);
        }
        token = next;
    }
}

fn size(left: usize) -> i32 {
    i32::try_from(left.min(PAGE)).unwrap_or(0)
}
