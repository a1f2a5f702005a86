//! [`Rows`] on the database.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{Postgres, Sqlite};
use uuid::Uuid;

use super::lanes;
use super::{Batch, Fate, Fault, RollupRow, Rows, Signal, WriterRow, Writes};
use crate::domain::id::TenantId;
use crate::domain::quota::{
    AccountKey, AccountRow, Class, Details, EventKey, EventKind, EventRow, HoldKind, HoldRow, HoldState, LeaseRow,
    Notice, Scope, charges_text, read_charges,
};
use crate::entropy;
use crate::error::Error;
use crate::store::tx::{ByMeter, Column, Conn, Record, Statement, Value, failed};
use crate::store::{Engine, Store};
use crate::time::Timestamp;

/// The engine's rows in the database.
#[derive(Clone)]
pub struct QuotaRows(pub Arc<Store>);

enum Open {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// A transaction of the role `tenantry_meter`.
pub struct MeterTx(Open);

impl MeterTx {
    fn conn(&mut self) -> Conn<'_> {
        match &mut self.0 {
            Open::Postgres(tx) => Conn::Postgres(tx),
            Open::Sqlite(tx) => Conn::Sqlite(tx),
        }
    }

    async fn all<T: Record>(&mut self, sql: &Statement<ByMeter>, args: &[Value<'_>]) -> Result<Vec<T>, Fault> {
        self.conn().query(sql, args).await.map_err(|error| fault(&error))
    }

    /// All rows of a query, for whoever is no lane.
    pub(super) async fn read<T: Record>(
        &mut self,
        sql: &Statement<ByMeter>,
        args: &[Value<'_>],
    ) -> Result<Vec<T>, Error> {
        self.conn().all(sql, args).await
    }

    async fn run(&mut self, sql: &Statement<ByMeter>, args: &[Value<'_>]) -> Result<u64, Fault> {
        self.conn().run(sql, args).await.map_err(|error| fault(&error))
    }

    /// Runs a statement on rows, if there are any.
    async fn put(&mut self, sql: &Statement<ByMeter>, columns: &[Column<'_>], count: usize) -> Result<(), Fault> {
        if count == 0 {
            return Ok(());
        }
        self.run(sql, &[Value::Rows(columns)]).await.map(|_| ())
    }
}

/// What a failed step means.
fn fault(error: &sqlx::Error) -> Fault {
    let told = error.to_string();
    let sqlx::Error::Database(database) = error else { return Fault::Away(told) };
    let code = database.code().unwrap_or_default();
    let of_sqlite = || code.parse::<u32>().unwrap_or(0) & 0xff;
    if code.len() == 5 {
        return match &code[..2] {
            "22" | "23" => Fault::Poison(told),
            _ if ["40001", "40P01", "55P03", "57014"].contains(&&*code) => Fault::Retry(told),
            _ => Fault::Away(told),
        };
    }
    match of_sqlite() {
        5 | 6 => Fault::Retry(told),
        18..=20 => Fault::Poison(told),
        _ => Fault::Away(told),
    }
}

/// What a failed commit means: unless the database says that it undid the transaction, nobody knows.
fn commit_fault(error: &sqlx::Error) -> Fault {
    match fault(error) {
        Fault::Away(told) => Fault::Unknown(told),
        known => known,
    }
}

// ---- rows as they are read ---------------------------------------------------------------------------------------

#[derive(sqlx::FromRow)]
struct Key {
    tenant_id: Uuid,
    key: String,
}

#[derive(sqlx::FromRow)]
struct EventRecord {
    tenant_id: Uuid,
    key: String,
    payload_hash: Vec<u8>,
    verdict: i64,
    charges: String,
    decided_at: Timestamp,
    kind: i64,
    ack: i64,
    event_at: Option<Timestamp>,
    member_id: Option<Uuid>,
    api_key_id: Option<Uuid>,
    endpoint: String,
    method: String,
    status: i64,
    latency_us: i64,
    attributes: String,
    subject: String,
}

impl From<EventRecord> for EventRow {
    fn from(row: EventRecord) -> Self {
        let tenant = TenantId(row.tenant_id);
        let mut payload_hash = [0; 32];
        if let Ok(hash) = row.payload_hash.try_into() {
            payload_hash = hash;
        }
        Self {
            charges: read_charges(tenant, &row.charges),
            key: EventKey { tenant, key: row.key.into() },
            payload_hash,
            admitted: row.verdict == 1,
            kind: EventKind::of(row.kind),
            leased: row.ack != 0,
            decided_at: row.decided_at,
            event_at: row.event_at.unwrap_or(row.decided_at),
            details: Arc::new(Details {
                member: row.member_id,
                api_key: row.api_key_id,
                endpoint: row.endpoint.into(),
                method: row.method.into(),
                status: row.status,
                latency_us: row.latency_us,
                attributes: row.attributes.into(),
            }),
            subject: row.subject.into(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct HoldRecord {
    tenant_id: Uuid,
    hold_id: Uuid,
    kind: i64,
    key: String,
    state: i64,
    charges: String,
    actual: String,
    holder: String,
    opened_by: Uuid,
    expires_at: Timestamp,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl From<HoldRecord> for HoldRow {
    fn from(row: HoldRecord) -> Self {
        let tenant = TenantId(row.tenant_id);
        Self {
            tenant,
            hold: row.hold_id,
            kind: HoldKind::of(row.kind),
            key: row.key.into(),
            state: HoldState::of(row.state),
            charges: read_charges(tenant, &row.charges),
            actual: read_charges(tenant, &row.actual),
            holder: row.holder.into(),
            opened_by: row.opened_by,
            expires_at: row.expires_at,
            created_at: row.created_at,
            ended_at: row.ended_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct LeaseRecord {
    tenant_id: Uuid,
    account_id: Uuid,
    scope: i64,
    writer_id: Uuid,
    class: i64,
    epoch: i64,
    granted: i64,
    settled: i64,
    forfeited: i64,
}

impl From<LeaseRecord> for LeaseRow {
    fn from(row: LeaseRecord) -> Self {
        Self {
            account: account_key(row.scope, row.tenant_id, row.account_id),
            writer: row.writer_id,
            class: Class::of(row.class),
            epoch: row.epoch,
            granted: row.granted,
            settled: row.settled,
            forfeited: row.forfeited,
        }
    }
}

const fn account_key(scope: i64, tenant: Uuid, account: Uuid) -> AccountKey {
    AccountKey { scope: Scope::of(scope), tenant: TenantId(tenant), account }
}

#[derive(sqlx::FromRow)]
struct AccountRecord {
    tenant_id: Uuid,
    account_id: Uuid,
    scope: i64,
    metric: String,
    period_start: Timestamp,
    period_end: Timestamp,
    limit_value: i64,
    shown_limit: Option<i64>,
    revision: i64,
    committed: i64,
    reserved: i64,
    leased: i64,
    forfeited: i64,
    recall_need: i64,
    next_epoch: i64,
    thresholds: String,
    told_percent: i64,
}

impl From<AccountRecord> for AccountRow {
    fn from(row: AccountRecord) -> Self {
        Self {
            key: account_key(row.scope, row.tenant_id, row.account_id),
            metric: row.metric.into(),
            period_start: row.period_start,
            period_end: row.period_end,
            limit: row.limit_value,
            shown_limit: row.shown_limit,
            revision: row.revision,
            committed: row.committed,
            reserved: row.reserved,
            leased: row.leased,
            forfeited: row.forfeited,
            recall_need: row.recall_need,
            next_epoch: row.next_epoch,
            thresholds: serde_json::from_str(&row.thresholds).unwrap_or_default(),
            told_percent: row.told_percent,
            settled: 0,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Settled {
    account_id: Uuid,
    settled: i64,
}

#[derive(sqlx::FromRow)]
struct WriterRecord {
    writer_id: Uuid,
    process_id: Uuid,
    batch_no: i64,
    beat: i64,
}

#[derive(sqlx::FromRow)]
struct Recalled {
    tenant_id: Uuid,
    account_id: Uuid,
    scope: i64,
}

// ---- rows as they are written ------------------------------------------------------------------------------------

fn ints<T>(rows: &[T], of: impl Fn(&T) -> i64) -> Column<'static> {
    Column::Ints(rows.iter().map(|row| Some(of(row))).collect())
}

fn ids<T>(rows: &[T], of: impl Fn(&T) -> Uuid) -> Column<'static> {
    Column::Uuids(rows.iter().map(|row| Some(of(row))).collect())
}

fn texts<'r, T>(rows: &'r [T], of: impl Fn(&'r T) -> &'r str) -> Column<'r> {
    Column::Texts(rows.iter().map(|row| of(row).into()).collect())
}

/// Texts that are made up here.
fn made<T>(rows: &[T], of: impl Fn(&T) -> String) -> Column<'static> {
    Column::Texts(rows.iter().map(|row| of(row).into()).collect())
}

fn times<T>(rows: &[T], of: impl Fn(&T) -> Timestamp) -> Column<'static> {
    Column::Times(rows.iter().map(|row| Some(of(row))).collect())
}

fn event_keys(keys: &[EventKey]) -> [Column<'_>; 2] {
    [ids(keys, |key| key.tenant.0), texts(keys, |key| &key.key)]
}

fn event_columns<'r>(events: &'r [&'r EventRow]) -> Vec<Column<'r>> {
    vec![
        ids(events, |e| e.key.tenant.0),
        texts(events, |e| &e.key.key),
        Column::Bytes(events.iter().map(|e| &e.payload_hash[..]).collect()),
        ints(events, |e| if e.admitted { 1 } else { 2 }),
        made(events, |e| charges_text(&e.charges)),
        times(events, |e| e.decided_at),
        ints(events, |e| e.kind.number()),
        ints(events, |e| i64::from(e.leased)),
        times(events, |e| e.event_at),
        Column::Uuids(events.iter().map(|e| e.details.member).collect()),
        Column::Uuids(events.iter().map(|e| e.details.api_key).collect()),
        texts(events, |e| &e.details.endpoint),
        texts(events, |e| &e.details.method),
        ints(events, |e| e.details.status),
        ints(events, |e| e.details.latency_us),
        texts(events, |e| &e.details.attributes),
        texts(events, |e| &e.subject),
    ]
}

fn decided_columns(events: &[EventRow]) -> Vec<Column<'_>> {
    vec![
        ids(events, |e| e.key.tenant.0),
        texts(events, |e| &e.key.key),
        ints(events, |e| if e.admitted { 1 } else { 2 }),
        made(events, |e| charges_text(&e.charges)),
        Column::Uuids(events.iter().map(|e| e.details.member).collect()),
        Column::Uuids(events.iter().map(|e| e.details.api_key).collect()),
        texts(events, |e| &e.details.endpoint),
        texts(events, |e| &e.details.method),
        ints(events, |e| e.details.status),
    ]
}

fn hold_columns(holds: &[HoldRow]) -> Vec<Column<'_>> {
    vec![
        ids(holds, |h| h.tenant.0),
        ids(holds, |h| h.hold),
        ints(holds, |h| h.kind.number()),
        texts(holds, |h| &h.key),
        ints(holds, |h| h.state.number()),
        made(holds, |h| charges_text(&h.charges)),
        made(holds, |h| charges_text(&h.actual)),
        texts(holds, |h| &h.holder),
        ids(holds, |h| h.opened_by),
        times(holds, |h| h.expires_at),
        times(holds, |h| h.created_at),
        Column::Times(holds.iter().map(|h| h.ended_at).collect()),
    ]
}

fn lease_columns(leases: &[LeaseRow]) -> Vec<Column<'_>> {
    vec![
        ids(leases, |l| l.account.tenant.0),
        ids(leases, |l| l.account.account),
        ids(leases, |l| l.writer),
        ints(leases, |l| l.class.number()),
        ints(leases, |l| l.epoch),
        ints(leases, |l| l.granted),
        ints(leases, |l| l.settled),
        ints(leases, |l| l.forfeited),
    ]
}

fn account_columns(accounts: &[AccountRow]) -> Vec<Column<'_>> {
    vec![
        ids(accounts, |a| a.key.tenant.0),
        ids(accounts, |a| a.key.account),
        ints(accounts, |a| a.committed),
        ints(accounts, |a| a.reserved),
        ints(accounts, |a| a.leased),
        ints(accounts, |a| a.forfeited),
        ints(accounts, |a| a.recall_need),
        ints(accounts, |a| a.next_epoch),
        ints(accounts, |a| a.told_percent),
    ]
}

fn rollup_columns(rows: &[RollupRow], shard: i64) -> Vec<Column<'_>> {
    vec![
        ids(rows, |r| r.tenant.0),
        times(rows, |r| r.bucket),
        texts(rows, |r| &r.metric),
        ids(rows, |r| r.details.member.unwrap_or_default()),
        ids(rows, |r| r.details.api_key.unwrap_or_default()),
        texts(rows, |r| &r.details.endpoint),
        texts(rows, |r| &r.details.method),
        ints(rows, |r| r.details.status),
        ints(rows, |_| shard),
        ints(rows, |r| r.events),
        ints(rows, |r| r.amount),
    ]
}

fn notice_columns(notices: &[Notice], now: Timestamp) -> Vec<Column<'_>> {
    vec![
        ids(notices, |n| n.account.tenant.0),
        ids(notices, |_| entropy::id(now)),
        ids(notices, |n| n.account.account),
        texts(notices, |n| &n.metric),
        ints(notices, |n| n.percent),
        ints(notices, |n| n.used),
        ints(notices, |n| n.limit),
        times(notices, |n| n.period_end),
        times(notices, |_| now),
    ]
}

// ---- the transaction ---------------------------------------------------------------------------------------------

impl Batch for MeterTx {
    async fn beat(&mut self, writer: Uuid, batch_no: i64) -> Result<bool, Fault> {
        Ok(self.run(&lanes::BEAT, &[writer.into(), batch_no.into()]).await? == 1)
    }

    async fn claim(&mut self, events: &[&EventRow]) -> Result<Vec<EventKey>, Fault> {
        let rows: Vec<Key> = self.all(&lanes::CLAIM, &[Value::Rows(&event_columns(events))]).await?;
        let keys = rows.into_iter().map(|row| EventKey { tenant: TenantId(row.tenant_id), key: row.key.into() });
        if matches!(self.0, Open::Postgres(_)) {
            return Ok(keys.collect());
        }
        let inserted: HashSet<EventKey> = keys.collect();
        Ok(events.iter().map(|event| &event.key).filter(|key| !inserted.contains(key)).cloned().collect())
    }

    async fn find_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        let rows: Vec<EventRecord> = self.all(&lanes::FIND_EVENTS, &[Value::Rows(&event_keys(keys))]).await?;
        Ok(rows.into_iter().map(EventRow::from).collect())
    }

    async fn lock_events(&mut self, keys: &[EventKey]) -> Result<Vec<EventRow>, Fault> {
        let rows: Vec<EventRecord> = self.all(&lanes::LOCK_EVENTS, &[Value::Rows(&event_keys(keys))]).await?;
        Ok(rows.into_iter().map(EventRow::from).collect())
    }

    async fn lock_holds(&mut self, keys: &[(TenantId, Uuid)]) -> Result<Vec<HoldRow>, Fault> {
        let columns = [ids(keys, |(tenant, _)| tenant.0), ids(keys, |(_, hold)| *hold)];
        let rows: Vec<HoldRecord> = self.all(&lanes::LOCK_HOLDS, &[Value::Rows(&columns)]).await?;
        Ok(rows.into_iter().map(HoldRow::from).collect())
    }

    async fn lock_due_holds(&mut self, now: Timestamp, limit: i64) -> Result<Vec<HoldRow>, Fault> {
        let rows: Vec<HoldRecord> = self.all(&lanes::LOCK_DUE_HOLDS, &[now.into(), limit.into()]).await?;
        Ok(rows.into_iter().map(HoldRow::from).collect())
    }

    async fn lock_leases(&mut self, writer: Uuid, keys: &[(AccountKey, Class)]) -> Result<Vec<LeaseRow>, Fault> {
        let columns = [
            ids(keys, |(account, _)| account.tenant.0),
            ids(keys, |(account, _)| account.account),
            ints(keys, |(_, class)| class.number()),
        ];
        let rows: Vec<LeaseRecord> = self.all(&lanes::LOCK_LEASES, &[Value::Rows(&columns), writer.into()]).await?;
        Ok(rows.into_iter().map(LeaseRow::from).collect())
    }

    async fn lock_leases_of(&mut self, writer: Uuid, limit: i64) -> Result<Vec<LeaseRow>, Fault> {
        let rows: Vec<LeaseRecord> = self.all(&lanes::LOCK_LEASES_OF, &[writer.into(), limit.into()]).await?;
        Ok(rows.into_iter().map(LeaseRow::from).collect())
    }

    async fn lock_accounts(&mut self, keys: &[AccountKey]) -> Result<Vec<AccountRow>, Fault> {
        let columns = [ids(keys, |key| key.tenant.0), ids(keys, |key| key.account)];
        let rows: Vec<AccountRecord> = self.all(&lanes::LOCK_ACCOUNTS, &[Value::Rows(&columns)]).await?;
        let mut rows: Vec<AccountRow> = rows.into_iter().map(AccountRow::from).collect();
        let leased: Vec<AccountKey> = rows.iter().filter(|row| row.leased > 0).map(|row| row.key).collect();
        if !leased.is_empty() {
            let columns = [ids(&leased, |key| key.tenant.0), ids(&leased, |key| key.account)];
            let settled: Vec<Settled> = self.all(&lanes::LIST_SETTLED, &[Value::Rows(&columns)]).await?;
            let settled: HashMap<Uuid, i64> = settled.into_iter().map(|row| (row.account_id, row.settled)).collect();
            for row in &mut rows {
                row.settled = settled.get(&row.key.account).copied().unwrap_or(0);
            }
        }
        Ok(rows)
    }

    async fn write(&mut self, _: Uuid, shard: i64, now: Timestamp, writes: &Writes) -> Result<(), Fault> {
        let w = writes;
        self.put(&lanes::DECIDE_EVENTS, &decided_columns(&w.decided), w.decided.len()).await?;
        self.put(&lanes::DROP_EVENTS, &event_keys(&w.dropped), w.dropped.len()).await?;
        let refunded = [
            ids(&w.refunded, |(key, _)| key.tenant.0),
            texts(&w.refunded, |(key, _)| &key.key),
            made(&w.refunded, |(_, charges)| charges_text(charges)),
        ];
        self.put(&lanes::REFUND_EVENTS, &refunded, w.refunded.len()).await?;
        self.put(&lanes::PUT_HOLDS, &hold_columns(&w.holds), w.holds.len()).await?;
        self.put(&lanes::PUT_LEASES, &lease_columns(&w.leases), w.leases.len()).await?;
        self.put(&lanes::PUT_ACCOUNTS, &account_columns(&w.accounts), w.accounts.len()).await?;
        self.put(&lanes::ADD_ROLLUPS, &rollup_columns(&w.rollups, shard), w.rollups.len()).await?;
        self.put(&lanes::ADD_NOTICES, &notice_columns(&w.notices, now), w.notices.len()).await?;
        let mut tenants: Vec<Uuid> = w.notices.iter().map(|notice| notice.account.tenant.0).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let jobs = [ids(&tenants, |tenant| *tenant), times(&tenants, |_| now)];
        self.put(&lanes::SCHEDULE_NOTICES, &jobs, tenants.len()).await
    }

    async fn commit(self) -> Result<(), Fault> {
        match self.0 {
            Open::Postgres(tx) => tx.commit().await,
            Open::Sqlite(tx) => tx.commit().await,
        }
        .map_err(|error| commit_fault(&error))
    }
}

/// A transaction that sees one instant, and may take as long as it takes to add up all events of a tenant.
const SNAPSHOT: &str = "begin isolation level repeatable read, read only; set local statement_timeout = '10min'";

impl QuotaRows {
    /// Begins to read, all of it as of one instant.
    pub(super) async fn snapshot(&self) -> Result<MeterTx, Error> {
        Ok(MeterTx(match &self.0.engine {
            Engine::Postgres { meter, .. } => Open::Postgres(meter.begin_with(SNAPSHOT).await.map_err(failed)?),
            Engine::Sqlite { reader, .. } => Open::Sqlite(reader.begin_with("begin deferred").await.map_err(failed)?),
        }))
    }

    /// Runs a statement that needs no transaction of its own.
    async fn once(&self, sql: &Statement<ByMeter>, args: &[Value<'_>]) -> Result<u64, Fault> {
        match &self.0.engine {
            Engine::Postgres { meter, .. } => {
                let mut conn = meter.acquire().await.map_err(|e| fault(&e))?;
                Conn::Postgres(&mut conn).run(sql, args).await
            }
            Engine::Sqlite { writer, .. } => {
                let mut conn = writer.acquire().await.map_err(|e| fault(&e))?;
                Conn::Sqlite(&mut conn).run(sql, args).await
            }
        }
        .map_err(|error| fault(&error))
    }

    async fn list<T: Record>(&self, sql: &Statement<ByMeter>, args: &[Value<'_>]) -> Result<Vec<T>, Fault> {
        match &self.0.engine {
            Engine::Postgres { meter, .. } => {
                let mut conn = meter.acquire().await.map_err(|e| fault(&e))?;
                Conn::Postgres(&mut conn).query(sql, args).await
            }
            Engine::Sqlite { reader, .. } => {
                let mut conn = reader.acquire().await.map_err(|e| fault(&e))?;
                Conn::Sqlite(&mut conn).query(sql, args).await
            }
        }
        .map_err(|error| fault(&error))
    }
}

impl Rows for QuotaRows {
    type Batch = MeterTx;

    async fn begin(&self) -> Result<MeterTx, Fault> {
        let open = match &self.0.engine {
            Engine::Postgres { meter, .. } => Open::Postgres(meter.begin().await.map_err(|e| fault(&e))?),
            Engine::Sqlite { writer, .. } => {
                Open::Sqlite(writer.begin_with("begin immediate").await.map_err(|e| fault(&e))?)
            }
        };
        Ok(MeterTx(open))
    }

    async fn register(&self, row: WriterRow) -> Result<(), Fault> {
        let args = [row.writer.into(), row.process.into(), row.batch_no.into(), row.beat.into()];
        self.once(&lanes::REGISTER, &args).await.map(|_| ())
    }

    async fn resolve(&self, writer: Uuid, batch_no: i64) -> Result<Fate, Fault> {
        // Waits for the lost connection's transaction, if that still holds the row; afterwards it cannot commit any more.
        self.once(&lanes::RESOLVE, &[writer.into(), batch_no.into()]).await?;
        let found: Vec<WriterRecord> = self.list(&lanes::FIND_WRITER, &[writer.into()]).await?;
        Ok(match found.first() {
            None => Fate::Gone,
            Some(row) if row.batch_no == batch_no => Fate::Committed,
            Some(_) => Fate::Dead,
        })
    }

    async fn writers(&self) -> Result<Vec<WriterRow>, Fault> {
        let rows: Vec<WriterRecord> = self.list(&lanes::LIST_WRITERS, &[]).await?;
        let row = |row: WriterRecord| WriterRow {
            writer: row.writer_id,
            process: row.process_id,
            batch_no: row.batch_no,
            beat: row.beat,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    async fn bury(&self, writer: Uuid, beat: i64) -> Result<bool, Fault> {
        Ok(self.once(&lanes::BURY, &[writer.into(), beat.into()]).await? == 1)
    }

    async fn recalled(&self, writers: &[Uuid]) -> Result<Vec<AccountKey>, Fault> {
        let column = [ids(writers, |writer| *writer)];
        let rows: Vec<Recalled> = self.list(&lanes::LIST_RECALLED, &[Value::Rows(&column)]).await?;
        Ok(rows.into_iter().map(|row| account_key(row.scope, row.tenant_id, row.account_id)).collect())
    }

    async fn tell(&self, signal: Signal, accounts: &[AccountKey]) {
        if matches!(self.0.engine, Engine::Sqlite { .. }) {
            return;
        }
        let channel = super::listen::channel(signal);
        for some in accounts.chunks(super::listen::IN_A_NOTICE) {
            let text = super::listen::text(some);
            // Lost notices are made up for by timers.
            let _ = self.once(&lanes::NOTIFY, &[channel.into(), text.as_str().into()]).await;
        }
    }
}
