//! The audit log, as pages and as a stream.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tracing::Instrument as _;
use uuid::Uuid;

use super::bulk::Answers;
use crate::app::audit::{AuditFilter, AuditRow};
use crate::ctx::TenantCtx;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::Page;
use crate::rpc::status::{REQUEST_ID, status};
use crate::rpc::stream::Turns;
use crate::rpc::{Services, convert, v1};
use crate::time::Timestamp;

/// How long an export waits for its reader to take a message, and how long it may go on.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_hours(1);

pub(super) async fn list_audit_events(
    s: &Services,
    request: Request<v1::ListAuditEventsRequest>,
) -> Result<v1::ListAuditEventsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let filter = filter(m.filter.as_ref())?;
    let bound = v1::ListAuditEventsRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let app = &s.0.app;
    let page = Page::read(&app.master, &t.ctx, Some(&t), (m.page_size, &m.page_token), &bound)?;
    let mut rows = app.list_audit_events(&t, &filter, page.span_down()).await?;
    let next_page_token = page.cut(&app.master, &mut rows, |row| row.event_id);
    Ok(v1::ListAuditEventsResponse { events: rows.into_iter().map(event).collect(), next_page_token })
}

pub(super) async fn list_platform_audit_events(
    s: &Services,
    request: Request<v1::ListPlatformAuditEventsRequest>,
) -> Result<v1::ListPlatformAuditEventsResponse, Error> {
    let (ctx, _, _, m) = s.0.open(request).await?;
    let filter = filter(m.filter.as_ref())?;
    let bound = v1::ListPlatformAuditEventsRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let app = &s.0.app;
    let page = Page::read(&app.master, &ctx, None::<&TenantCtx>, (m.page_size, &m.page_token), &bound)?;
    let mut rows = app.list_platform_audit_events(&filter, page.span_down()).await?;
    let next_page_token = page.cut(&app.master, &mut rows, |row| row.event_id);
    Ok(v1::ListPlatformAuditEventsResponse { events: rows.into_iter().map(event).collect(), next_page_token })
}

pub(super) async fn export_audit_events(
    s: &Services,
    request: Request<v1::ExportAuditEventsRequest>,
) -> Result<Answers<v1::ExportAuditEventsResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (t, m) = s.0.enter(request).await?;
    let filter = filter(m.filter.as_ref())?;
    let cursor = if m.cursor.is_empty() { Ok(Uuid::nil()) } else { Uuid::try_parse(&m.cursor) };
    let mut after = cursor.map_err(|_| Error::field("cursor", "must be one that this method gave"))?;
    let app = s.0.app.clone();
    // A page is read when the one before has been taken.
    let (out, answers) = mpsc::channel(1);
    let request_id = t.ctx.request_id;
    let work = async move {
        let _turns = turns;
        let end = Instant::now() + LONGEST;
        loop {
            let rows = match app.next_audit_events(&t, &filter, after).await {
                Ok(_) if Instant::now() > end => Err(Error::DeadlineExceeded),
                rows => rows,
            };
            let answer = match rows {
                Ok(rows) => {
                    after = rows.last().map_or(after, |last| last.event_id);
                    let cursor = if after.is_nil() { String::new() } else { after.to_string() };
                    Ok(v1::ExportAuditEventsResponse { events: rows.into_iter().map(event).collect(), cursor })
                }
                Err(error) => Err(status(&error)),
            };
            let over = answer.as_ref().map_or(true, |answer| answer.events.is_empty());
            let patience = end.min(Instant::now() + PATIENCE);
            let sent = tokio::time::timeout_at(patience, out.send(answer)).await;
            if over || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::spawn(REQUEST_ID.scope(request_id, work).in_current_span());
    Ok(Box::pin(ReceiverStream::new(answers)))
}

/// Reads which events are wanted.
fn filter(filter: Option<&v1::AuditFilter>) -> Result<AuditFilter, Error> {
    let none = v1::AuditFilter::default();
    let m = filter.unwrap_or(&none);
    let mut f = Fields::default();
    let mut id = |field: &str, text: &str| {
        let id = if text.is_empty() { Ok(None) } else { Uuid::try_parse(text).map(Some) };
        f.read(field, id.map_err(|_| "must be an id, a UUID"))
    };
    let (actor, subject) = (id("filter.actor_id", &m.actor_id), id("filter.subject_id", &m.subject_id));
    let fits = m.action.len() <= 100 && m.action.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/');
    let action =
        f.read("filter.action", fits.then(|| m.action.clone()).ok_or("must be such as `TenantService/GetTenant`"));
    let (first, last) = (Timestamp::from_micros(0), Timestamp::from_micros(253_402_300_799_000_000));
    let from = f.time("filter.start_time", m.start_time.as_ref(), (first, last));
    let until = f.time("filter.end_time", m.end_time.as_ref(), (first, last));
    let (Some(actor), Some(subject), Some(action), Some(from), Some(until)) = (actor, subject, action, from, until)
    else {
        return Err(f.refuse());
    };
    Ok(AuditFilter { actor, action, subject, from: from.unwrap_or(first), until: until.unwrap_or(last) })
}

fn event(row: AuditRow) -> v1::AuditEvent {
    let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    v1::AuditEvent {
        event_id: row.event_id.to_string(),
        time: Some(convert::time(row.at)),
        actor_kind: i32::try_from(row.actor_kind).unwrap_or_default(),
        actor_id: id(row.actor_id),
        on_behalf_of: id(row.on_behalf_of),
        action: row.action,
        subject_id: id(row.subject_id),
        changes: row.changes,
        request_id: row.request_id,
        source: row.source.unwrap_or_default(),
    }
}
