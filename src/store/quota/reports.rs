//! What was used, as its tenant asks for it: sums over spans of time, and single events by when they happened.

use uuid::Uuid;

use crate::domain::id::TenantId;
use crate::domain::period::Period;
use crate::domain::quota::{Charge, EventKind, read_charges};
use crate::error::Error;
use crate::store::dialect::SUM_USAGE;
use crate::store::scoped::TenantTx;
use crate::store::tx::{Column, OfTenant, Statement, Value, statements};
use crate::time::Timestamp;

macro_rules! list_events {
    ($compare:literal, $order:literal) => {
        concat!(
            "select e.key, e.verdict, e.charges, e.kind, e.member_id, e.api_key_id, e.endpoint, e.method, e.status,
                    e.latency_us, e.attributes, coalesce(e.event_at, e.decided_at) as event_at, e.decided_at, e.subject
             from usage_event e
             where e.tenant_id = $1 and (coalesce(e.event_at, e.decided_at), e.key) ",
            $compare,
            " ($2, $3)
               and coalesce(e.event_at, e.decided_at) >= $4 and coalesce(e.event_at, e.decided_at) < $5
               and ($6 = '' or replace(e.charges, $6, '') <> e.charges)
               and ($7 = 0 or e.member_id = $8) and ($9 = 0 or e.api_key_id = $10) and ($11 = 0 or e.verdict = $11)
             order by ",
            $order,
            " limit $12"
        )
    };
}

statements! {
    LIST_NEWEST: OfTenant =
        Statement::new(list_events!("<", "coalesce(e.event_at, e.decided_at) desc, e.key desc"));
    LIST_OLDEST: OfTenant = Statement::new(list_events!(">", "coalesce(e.event_at, e.decided_at), e.key"));
    PUT_THRESHOLDS: OfTenant = Statement::new(
        "insert into quota_threshold (tenant_id, metric, percents)
         values ($1, $2, $3)
         on conflict (tenant_id, metric) do update
         set percents = excluded.percents",
    );
}

/// What usage may be grouped by besides the metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column that is grouped by or not")]
pub struct GroupBy {
    /// Who made the call.
    pub member: bool,
    /// By which key.
    pub api_key: bool,
    /// What was called.
    pub endpoint: bool,
    /// How.
    pub method: bool,
    /// What it answered.
    pub status: bool,
}

/// What a group used in a span.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct SumRow {
    /// Which span, from 0.
    pub span: i64,
    /// The metric.
    pub metric: String,
    /// Nil when it is of nobody, or not grouped by; so for the key.
    pub member_id: Uuid,
    /// The key.
    pub api_key_id: Uuid,
    /// What was called.
    pub endpoint: String,
    /// How.
    pub method: String,
    /// What it answered.
    pub status: i64,
    /// How many events.
    pub events: i64,
    /// How much.
    pub amount: i64,
}

/// Which events.
#[derive(Debug, Clone)]
pub struct EventFilter {
    /// From then on.
    pub from: Timestamp,
    /// Before then.
    pub until: Timestamp,
    /// Of this metric; of all when empty.
    pub metric: String,
    /// Of this person.
    pub member: Option<Uuid>,
    /// Of this key.
    pub api_key: Option<Uuid>,
    /// Admitted or refused alone.
    pub admitted: Option<bool>,
}

/// A place among events, by when they happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPlace {
    /// When.
    pub at: Timestamp,
    /// The key, between events of one instant.
    pub key: String,
}

/// An event as it is kept.
#[derive(Debug, Clone)]
pub struct KeptEvent {
    /// Its key.
    pub key: String,
    /// Whether it was admitted.
    pub admitted: bool,
    /// What it is.
    pub kind: EventKind,
    /// What it charged; nothing in rows of the version before.
    pub charges: Vec<Charge>,
    /// The person.
    pub member: Option<Uuid>,
    /// The key by which it was called.
    pub api_key: Option<Uuid>,
    /// What was called.
    pub endpoint: String,
    /// How.
    pub method: String,
    /// What it answered.
    pub status: i64,
    /// How long it took, in microseconds.
    pub latency_us: i64,
    /// JSON object; empty when there are none.
    pub attributes: String,
    /// When it happened.
    pub event_at: Timestamp,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// What it is about.
    pub subject: String,
}

#[derive(sqlx::FromRow)]
struct EventRecord {
    key: String,
    verdict: i64,
    charges: String,
    kind: i64,
    member_id: Option<Uuid>,
    api_key_id: Option<Uuid>,
    endpoint: String,
    method: String,
    status: i64,
    latency_us: i64,
    attributes: String,
    event_at: Timestamp,
    decided_at: Timestamp,
    subject: String,
}

impl KeptEvent {
    fn of(tenant: TenantId, row: EventRecord) -> Self {
        Self {
            key: row.key,
            admitted: row.verdict == 1,
            kind: EventKind::of(row.kind),
            charges: read_charges(tenant, &row.charges),
            member: row.member_id,
            api_key: row.api_key_id,
            endpoint: row.endpoint,
            method: row.method,
            status: row.status,
            latency_us: row.latency_us,
            attributes: row.attributes,
            event_at: row.event_at,
            decided_at: row.decided_at,
            subject: row.subject,
        }
    }

    /// Where it stands among events.
    #[must_use]
    pub fn place(&self) -> EventPlace {
        EventPlace { at: self.event_at, key: self.key.clone() }
    }
}

/// Sums the roll-ups of some metrics (of all when there are none) over spans, by metric and whatever else is asked for.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn sum(
    tx: &mut TenantTx,
    spans: &[Period],
    metrics: &[String],
    by: GroupBy,
    limit: i64,
) -> Result<Vec<SumRow>, Error> {
    let flag = |on: bool| Value::from(i64::from(on));
    let metric_names = [Column::Texts(metrics.iter().map(Into::into).collect())];
    let columns = [
        Column::Ints((0..).zip(spans).map(|(n, _)| Some(n)).collect()),
        Column::Times(spans.iter().map(|span| Some(span.start)).collect()),
        Column::Times(spans.iter().map(|span| Some(span.end)).collect()),
    ];
    let args = [
        flag(by.member),
        flag(by.api_key),
        flag(by.endpoint),
        flag(by.method),
        flag(by.status),
        flag(!metrics.is_empty()),
        Uuid::nil().into(),
        limit.into(),
        Value::Rows(&metric_names),
        Value::Rows(&columns),
    ];
    tx.all(&SUM_USAGE, &args).await
}

/// Events beyond a place, in the order of when they happened: the newest first, or the oldest.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_events(
    tx: &mut TenantTx,
    filter: &EventFilter,
    (place, oldest_first): (&EventPlace, bool),
    limit: i64,
) -> Result<Vec<KeptEvent>, Error> {
    // As charges are written: names of metrics need no escapes, and nothing else in charges is followed by a comma like that.
    let charged = if filter.metric.is_empty() { String::new() } else { format!("[\"{}\",", filter.metric) };
    let args = [
        place.at.into(),
        place.key.as_str().into(),
        filter.from.into(),
        filter.until.into(),
        charged.as_str().into(),
        i64::from(filter.member.is_some()).into(),
        filter.member.unwrap_or_default().into(),
        i64::from(filter.api_key.is_some()).into(),
        filter.api_key.unwrap_or_default().into(),
        filter.admitted.map_or(0, |admitted| if admitted { 1 } else { 2 }).into(),
        limit.into(),
    ];
    let statement = if oldest_first { &LIST_OLDEST } else { &LIST_NEWEST };
    let rows: Vec<EventRecord> = tx.all(statement, &args).await?;
    let tenant = tx.scope().0;
    Ok(rows.into_iter().map(|row| KeptEvent::of(tenant, row)).collect())
}

/// Sets the percents of a metric's limit of which the tenant wants to be told.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn put_thresholds(tx: &mut TenantTx, metric: &str, percents: &[i64]) -> Result<(), Error> {
    let text = serde_json::to_string(percents).map_err(|e| Error::Internal(e.to_string().into()))?;
    tx.execute(&PUT_THRESHOLDS, &[metric.into(), text.as_str().into()]).await.map(|_| ())
}
