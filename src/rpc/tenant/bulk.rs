//! Import, export, and look-up by external id: the two streams of the contract, and how they are bounded. Nothing is read
//! ahead of what has been answered and taken, so memory is flat however long a stream is.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};
use tracing::Instrument as _;

use super::import_items;
use crate::app::App;
use crate::app::import::{Imported, Item, Refused};
use crate::ctx::Ctx;
use crate::domain::catalogue::Catalogue;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::status::{REQUEST_ID, broken_off, status, told};
use crate::rpc::stream::Turns;
use crate::rpc::{Services, v1};

/// Items of one stream that are worked on at once.
const AT_ONCE: usize = 16;

/// How long an export waits for its reader to take a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a stream may go on.
const LONGEST: Duration = Duration::from_hours(1);

/// How often the credential of an open stream is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Bytes of lines in one message of an export, and how many lines.
const MESSAGE_BYTES: usize = 256 * 1024;
const MESSAGE_LINES: usize = 200;

/// Characters of a refusal.
const MESSAGE_CHARACTERS: usize = 1000;

pub(super) async fn lookup_external_id(
    s: &Services,
    request: Request<v1::LookupExternalIdRequest>,
) -> Result<v1::LookupExternalIdResponse, Error> {
    use v1::lookup_external_id_request::Kind;
    let (_, _, _, m) = s.0.open(request).await?;
    let mut f = Fields::default();
    let (field, text) = match &m.kind {
        Some(Kind::TenantExternalId(text)) => ("tenant_external_id", text),
        Some(Kind::UserExternalId(text)) => ("user_external_id", text),
        None => return Err(Error::field("tenant_external_id", "must be sent, or else `user_external_id`")),
    };
    let Some(external_id) = import_items::external_id(&mut f, field, text) else { return Err(f.refuse()) };
    let id = match m.kind {
        Some(Kind::UserExternalId(_)) => s.0.app.lookup_user(&external_id).await?.to_string(),
        _ => s.0.app.lookup_tenant(&external_id).await?.to_string(),
    };
    Ok(v1::LookupExternalIdResponse { id })
}

/// What streams of answers are.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) async fn import_tenants(
    s: &Services,
    request: Request<Streaming<v1::ImportTenantsRequest>>,
) -> Result<Answers<v1::ImportTenantsResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (ctx, _, _, items) = s.0.open(request).await?;
    let app = s.0.app.clone();
    let catalogue = app.import_catalogue().await?;
    // What is answered waits here until the client takes it; then nothing more is read either.
    let (out, answers) = mpsc::channel(AT_ONCE);
    let stream = Import { app, ctx, catalogue, busy: HashMap::new(), flight: VecDeque::new(), index: 0 };
    let request_id = stream.ctx.request_id;
    let work = async move {
        let _turns = turns;
        if let Err(refusal) = stream.run(items, &out).await {
            let _ = out.send(Err(refusal)).await;
        }
    };
    tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// An import that goes on.
struct Import {
    app: Arc<App>,
    ctx: Ctx,
    catalogue: Arc<Catalogue>,
    /// What items make or refer to that are worked on, by the newest of them, with what tells its end.
    busy: HashMap<String, (i64, watch::Receiver<()>)>,
    /// What is worked on, oldest first.
    flight: VecDeque<Flying>,
    /// How many items have come.
    index: i64,
}

/// An item that is worked on.
struct Flying {
    index: i64,
    claims: Vec<String>,
    work: JoinHandle<Result<Imported, Refused>>,
}

impl Import {
    /// Takes items and answers them in order, until the client ends, or is gone.
    async fn run(
        mut self,
        mut items: Streaming<v1::ImportTenantsRequest>,
        out: &mpsc::Sender<Result<v1::ImportTenantsResponse, Status>>,
    ) -> Result<(), Status> {
        let end = Instant::now() + LONGEST;
        let mut looked = self.app.clock.now();
        let mut look = tokio::time::interval(LOOK_AGAIN);
        let mut more = true;
        while more || !self.flight.is_empty() {
            let full = self.flight.len() >= AT_ONCE;
            tokio::select! {
                done = first(&mut self.flight), if !self.flight.is_empty() => {
                    let answer = self.landed(done)?;
                    if out.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                }
                item = items.message(), if more && !full => match item.map_err(|status| broken_off(&status))? {
                    Some(item) => self.take_off(item),
                    None => more = false,
                },
                _ = look.tick() => {}
                () = sleep_until(end) => return Err(status(&Error::DeadlineExceeded)),
                () = out.closed() => return Ok(()),
            }
            let now = self.app.clock.now();
            if now.since(looked).to_std().is_ok_and(|since| since >= LOOK_AGAIN) {
                looked = now;
                self.app.plane.still_live(&self.ctx.caller, now).await.map_err(|error| status(&error))?;
            }
        }
        Ok(())
    }

    /// Begins to work on an item. Whatever it shares with an earlier one that is not done, it waits for.
    fn take_off(&mut self, message: v1::ImportTenantsRequest) {
        let index = self.index;
        self.index += 1;
        let ctx = Ctx { now: self.app.clock.now(), ..self.ctx.clone() };
        self.catalogue = self.app.plane.catalogues.seen();
        let item = import_items::read(message, &self.catalogue, ctx.now);
        let claims = item.as_ref().map(Item::claims).unwrap_or_default();
        let (ended, end) = watch::channel(());
        let claim = |claim: &String| self.busy.insert(claim.clone(), (index, end.clone()));
        let before: Vec<_> = claims.iter().filter_map(claim).collect();
        let (app, catalogue) = (self.app.clone(), self.catalogue.clone());
        let request_id = ctx.request_id;
        let work = async move {
            let _ended = ended;
            for (_, mut earlier) in before {
                // An error is what is waited for: its sender is gone.
                while earlier.changed().await.is_ok() {}
            }
            app.import(&ctx, &catalogue, &item?).await
        };
        let work = tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
        self.flight.push_back(Flying { index, claims, work });
    }

    /// What became of the oldest item; an error when that is no fault of the item's.
    fn landed(&mut self, done: Result<Imported, Refused>) -> Result<v1::ImportTenantsResponse, Status> {
        let Some(landed) = self.flight.pop_front() else {
            return Err(status(&Error::internal("an answer to no item")));
        };
        for claim in landed.claims {
            if self.busy.get(&claim).is_some_and(|(index, _)| *index == landed.index) {
                self.busy.remove(&claim);
            }
        }
        let answer = v1::ImportTenantsResponse { index: landed.index, ..Default::default() };
        match done {
            Ok(Imported::Created(id)) => Ok(answered(answer, v1::ImportOutcome::Created, id)),
            Ok(Imported::Unchanged(id)) => Ok(answered(answer, v1::ImportOutcome::Unchanged, id)),
            Err(refused) if ends_all(&refused.error) => Err(status(&refused.error)),
            Err(refused) => {
                let (reason, message) = told(&refused.error);
                let message = match refused.field {
                    "" => message,
                    field => format!("`{field}`: {message}"),
                };
                let message = message.chars().take(MESSAGE_CHARACTERS).collect();
                Ok(v1::ImportTenantsResponse { outcome: v1::ImportOutcome::Refused.into(), reason, message, ..answer })
            }
        }
    }
}

fn answered(
    answer: v1::ImportTenantsResponse,
    outcome: v1::ImportOutcome,
    id: uuid::Uuid,
) -> v1::ImportTenantsResponse {
    v1::ImportTenantsResponse { outcome: outcome.into(), id: id.to_string(), ..answer }
}

/// Waits for the oldest item; dropped before, it goes on waiting the next time.
async fn first(flight: &mut VecDeque<Flying>) -> Result<Imported, Refused> {
    match flight.front_mut() {
        Some(oldest) => (&mut oldest.work).await.unwrap_or_else(|_| Err(Error::internal("an import panicked").into())),
        None => std::future::pending().await,
    }
}

/// Whether an error says nothing of the item, but that nothing goes on.
const fn ends_all(error: &Error) -> bool {
    matches!(error, Error::DatabaseUnavailable(_) | Error::Internal(_) | Error::Overloaded)
}

pub(super) async fn export_tenant(
    s: &Services,
    request: Request<v1::ExportTenantRequest>,
) -> Result<Answers<v1::ExportTenantResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (t, _) = s.0.enter(request).await?;
    let app = s.0.app.clone();
    let mut export = app.begin_export(&t).await?;
    // A page is read when the one before has been taken.
    let (out, answers) = mpsc::channel(1);
    let request_id = t.ctx.request_id;
    let work = async move {
        let _turns = turns;
        let end = Instant::now() + LONGEST;
        loop {
            let page = match app.next_lines(&t, &mut export).await {
                Ok(Some(_)) if Instant::now() > end => Err(Error::DeadlineExceeded),
                page => page,
            };
            let lines = match page {
                Ok(Some(lines)) => lines,
                Ok(None) => return,
                Err(error) => {
                    let _ = out.send(Err(status(&error))).await;
                    return;
                }
            };
            for lines in messages(lines) {
                let patience = end.min(Instant::now() + PATIENCE);
                let sent = tokio::time::timeout_at(patience, out.send(Ok(v1::ExportTenantResponse { lines }))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    };
    tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// Lines in messages that clients take.
fn messages(lines: Vec<String>) -> Vec<Vec<String>> {
    let (mut messages, mut bytes) = (Vec::<Vec<String>>::new(), 0);
    for line in lines {
        bytes += line.len();
        match messages.last_mut() {
            Some(message) if bytes <= MESSAGE_BYTES && message.len() < MESSAGE_LINES => message.push(line),
            _ => {
                bytes = line.len();
                messages.push(vec![line]);
            }
        }
    }
    messages
}
