//! Single events, as pages and as a stream.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost_types::Duration;
use tonic::Request;
use uuid::Uuid;

use super::reports::TIMES;
use crate::app::App;
use crate::app::usage::events::{EventFilter, EventPlace, KeptEvent};
use crate::ctx::TenantCtx;
use crate::domain::quota::{Charge, EventKind, Scope};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::page::EventPage;
use crate::rpc::stream::{Answers, Source, Turns, answer};
use crate::rpc::{Services, convert, v1};

pub(super) async fn list_usage_events(
    s: &Services,
    request: Request<v1::ListUsageEventsRequest>,
) -> Result<v1::ListUsageEventsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let filter = filter(m.filter.as_ref())?;
    let bound = v1::ListUsageEventsRequest { page_size: 0, page_token: String::new(), ..m.clone() };
    let app = &s.0.app;
    let page = EventPage::read(&app.master, &t, (m.page_size, &m.page_token), &bound)?;
    let from = (page.after.clone(), m.oldest_first);
    let mut events = app.list_usage_events(&t, &filter, from, page.limit()).await?;
    let next_page_token = page.cut(&app.master, &mut events, KeptEvent::place);
    Ok(v1::ListUsageEventsResponse { events: events.into_iter().map(record).collect(), next_page_token })
}

pub(super) async fn export_usage(
    s: &Services,
    request: Request<v1::ExportUsageRequest>,
) -> Result<Answers<v1::ExportUsageResponse>, Error> {
    let turns = Turns::take(s, &request)?;
    let (t, m) = s.0.enter(request).await?;
    let mut filter = filter(m.filter.as_ref())?;
    // What comes while it goes on is not of it, or a busy tenant's would never end.
    filter.until = filter.until.min(t.ctx.now);
    s.0.app.begin_usage_export(&t, &filter).await?;
    let request_id = t.ctx.request_id;
    let export = Export { app: s.0.app.clone(), t, filter, place: None, is_over: false };
    Ok(answer(turns, request_id, export))
}

/// An export that goes on.
struct Export {
    app: Arc<App>,
    t: TenantCtx,
    filter: EventFilter,
    place: Option<EventPlace>,
    is_over: bool,
}

impl Source for Export {
    type Message = v1::ExportUsageResponse;

    async fn next(&mut self) -> Result<Option<Vec<Self::Message>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let events = self.app.next_usage_events(&self.t, &self.filter, self.place.clone()).await?;
        // The message without events is the last: whoever sees it has all of them.
        self.is_over = events.is_empty();
        self.place = events.last().map(KeptEvent::place);
        Ok(Some(vec![v1::ExportUsageResponse { events: events.into_iter().map(record).collect() }]))
    }
}

/// Reads which events are wanted.
fn filter(filter: Option<&v1::UsageEventFilter>) -> Result<EventFilter, Error> {
    let none = v1::UsageEventFilter::default();
    let m = filter.unwrap_or(&none);
    let mut f = Fields::default();
    let from = f.time("filter.start_time", m.start_time.as_ref(), TIMES);
    let until = f.time("filter.end_time", m.end_time.as_ref(), TIMES);
    let metric = if m.metric.is_empty() { Some(()) } else { f.metric("filter.metric", &m.metric) };
    let mut id = |field: &str, text: &str| {
        let id = if text.is_empty() { Ok(None) } else { Uuid::try_parse(text).map(Some) };
        f.read(field, id.map_err(|_| "must be an id, a UUID"))
    };
    let (member, api_key) = (id("filter.user_id", &m.user_id), id("filter.api_key_id", &m.api_key_id));
    let admitted = match v1::UsageVerdict::try_from(m.verdict) {
        Ok(v1::UsageVerdict::Unspecified) => Ok(None),
        Ok(v1::UsageVerdict::Admitted) => Ok(Some(true)),
        Ok(v1::UsageVerdict::Refused) => Ok(Some(false)),
        Err(_) => Err("must be one of the verdicts that there are"),
    };
    let admitted = f.read("filter.verdict", admitted);
    let (Some(from), Some(until), Some(()), Some(member), Some(api_key), Some(admitted)) =
        (from, until, metric, member, api_key, admitted)
    else {
        return Err(f.refuse());
    };
    let (first, last) = TIMES;
    let (from, until) = (from.unwrap_or(first), until.unwrap_or(last));
    Ok(EventFilter { from, until, metric: m.metric.clone(), member, api_key, admitted })
}

fn record(event: KeptEvent) -> v1::UsageEventRecord {
    let kind = match event.kind {
        EventKind::Consume => v1::UsageEventKind::Consume,
        EventKind::Reserve => v1::UsageEventKind::Reserve,
        EventKind::Record => v1::UsageEventKind::Record,
        EventKind::Refund => v1::UsageEventKind::Refund,
        EventKind::Commit => v1::UsageEventKind::Commit,
        EventKind::Set => v1::UsageEventKind::Set,
    };
    let verdict = if event.admitted { v1::UsageVerdict::Admitted } else { v1::UsageVerdict::Refused };
    let attributes: HashMap<String, String> = serde_json::from_str(&event.attributes).unwrap_or_default();
    let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    let micros = event.latency_us.max(0);
    v1::UsageEventRecord {
        kind: kind.into(),
        verdict: verdict.into(),
        amounts: amounts(&event.charges, |charge| charge.amount, true),
        refunded_amounts: amounts(&event.charges, |charge| charge.refunded, false),
        user_id: id(event.member),
        api_key_id: id(event.api_key),
        endpoint: event.endpoint,
        method: event.method,
        status_code: i32::try_from(event.status).unwrap_or(0),
        latency: (micros > 0).then(|| Duration {
            seconds: micros / 1_000_000,
            nanos: i32::try_from(micros % 1_000_000 * 1000).unwrap_or(0),
        }),
        attributes,
        event_time: Some(convert::time(event.event_at)),
        decide_time: Some(convert::time(event.decided_at)),
        subject: event.subject,
        event_key: event.key,
    }
}

/// Amounts on the tenant's accounts, by metric: those of members and keys are among them.
fn amounts(charges: &[Charge], of: impl Fn(&Charge) -> i64, with_none: bool) -> Vec<v1::Amount> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for charge in charges.iter().filter(|charge| charge.account.scope == Scope::Tenant) {
        *sums.entry(&charge.metric).or_default() += of(charge);
    }
    let amount = |(metric, amount): (&str, i64)| v1::Amount { metric: metric.to_owned(), amount };
    sums.into_iter().filter(|(_, amount)| with_none || *amount != 0).map(amount).collect()
}
