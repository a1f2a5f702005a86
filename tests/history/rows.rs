//! What is in the database after a round, read as administrator.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// An event: what it charged and what was refunded of that, by metric.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) admitted: bool,
    /// 1 consume, 2 reserve, 3 record, 4 refund, 5 commit, 6 set.
    pub(crate) kind: i64,
    pub(crate) charges: HashMap<String, (i64, i64)>,
    pub(crate) row: String,
}

/// An account.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub(crate) struct Account {
    pub(crate) metric: String,
    pub(crate) limit_value: i64,
    pub(crate) committed: i64,
    pub(crate) reserved: i64,
    pub(crate) leased: i64,
    pub(crate) forfeited: i64,
    /// The most that was at any time.
    pub(crate) most_forfeited: i64,
    pub(crate) settled: i64,
}

impl Account {
    pub(crate) const fn used(&self) -> i64 {
        self.committed + self.settled
    }
}

/// A reservation.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    /// 1 held, 2 committed, 3 released, 4 expired.
    pub(crate) state: i64,
    pub(crate) charges: HashMap<String, (i64, i64)>,
    pub(crate) actual: HashMap<String, (i64, i64)>,
}

/// All rows of a tenant.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// By key.
    pub(crate) events: HashMap<String, Event>,
    /// Of events without a key of ours: those keys by endpoint.
    pub(crate) unkeyed: HashMap<String, Vec<String>>,
    pub(crate) accounts: Vec<Account>,
    /// By id.
    pub(crate) holds: HashMap<String, Hold>,
}

#[derive(Debug, sqlx::FromRow)]
#[expect(dead_code, reason = "all of it is told, as it is")]
struct EventRow {
    key: String,
    verdict: i64,
    kind: i64,
    ack: i64,
    charges: String,
    endpoint: String,
    subject: String,
    decided_at: String,
}

impl Rows {
    /// As of one instant.
    pub(crate) async fn read(admin: &mut PgConnection, tenant: &str) -> sqlx::Result<Self> {
        let tenant: Uuid = tenant.parse().expect("an id");
        let mut tx = admin.begin_with("begin isolation level repeatable read, read only").await?;
        let admin = &mut *tx;
        let mut rows = Self { accounts: accounts(admin, tenant).await?, ..Self::default() };
        let events: Vec<EventRow> = sqlx::query_as(
            "select key, verdict::bigint, kind, ack, charges, endpoint, subject, decided_at::text
             from usage_event where tenant_id = $1",
        )
        .bind(tenant)
        .fetch_all(&mut *admin)
        .await?;
        for event in events {
            if event.key.starts_with("tenantry:") && event.kind == 1 {
                rows.unkeyed.entry(event.endpoint.clone()).or_default().push(event.key.clone());
            }
            let (admitted, kind, charges) = (event.verdict == 1, event.kind, charges(&event.charges));
            rows.events.insert(event.key.clone(), Event { admitted, kind, charges, row: format!("{event:?}") });
        }
        let holds: Vec<(Uuid, i64, String, String)> =
            sqlx::query_as("select hold_id, state, charges, actual from quota_hold where tenant_id = $1")
                .bind(tenant)
                .fetch_all(&mut *admin)
                .await?;
        let hold = |(id, state, text, actual): (Uuid, i64, String, String)| {
            (id.to_string(), Hold { state, charges: charges(&text), actual: charges(&actual) })
        };
        rows.holds = holds.into_iter().map(hold).collect();
        Ok(rows)
    }

    /// The account of a metric.
    pub(crate) fn account(&self, metric: &str) -> Account {
        self.accounts.iter().find(|account| account.metric == metric).cloned().unwrap_or_default()
    }
}

/// A tenant's accounts.
pub(crate) async fn accounts(admin: &mut PgConnection, tenant: Uuid) -> sqlx::Result<Vec<Account>> {
    sqlx::query_as(
        "select a.metric, a.limit_value, a.committed, a.reserved, a.leased, a.forfeited, a.most_forfeited,
           coalesce((select sum(l.settled) from quota_lease l
                     where l.tenant_id = a.tenant_id and l.account_id = a.account_id), 0)::bigint as settled
         from quota_account a where a.tenant_id = $1",
    )
    .bind(tenant)
    .fetch_all(admin)
    .await
}

/// Charges as rows have them: lists of metric, account, scope, amount, refunded and more.
fn charges(text: &str) -> HashMap<String, (i64, i64)> {
    let lines: Vec<Vec<Value>> = serde_json::from_str(text).unwrap_or_default();
    let charge = |line: Vec<Value>| {
        let number = |at: usize| line.get(at).and_then(Value::as_i64).expect("a number");
        (line[0].as_str().expect("a metric").to_owned(), (number(3), number(4)))
    };
    lines.into_iter().map(charge).collect()
}
