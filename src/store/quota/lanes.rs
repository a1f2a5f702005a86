//! The statements of the commit lanes. Those with many rows read differently on the two engines, and so stand here in pairs
//! rather than in `dialect.rs`: arrays on PostgreSQL, which is fastest there, JSON on SQLite. Who locks rows on PostgreSQL
//! locks them in the order in which they sort; on SQLite the write transaction is the lock.

use crate::store::tx::{ByMeter, Statement, statements};

macro_rules! event_columns {
    () => {
        "e.tenant_id, e.key, e.payload_hash, e.verdict, e.charges, e.decided_at, e.kind, e.ack, e.event_at, e.member_id,
         e.api_key_id, e.endpoint, e.method, e.status, e.latency_us, e.attributes, e.subject"
    };
}

macro_rules! hold_columns {
    () => {
        "h.tenant_id, h.hold_id, h.kind, h.key, h.state, h.charges, h.actual, h.holder, h.opened_by, h.expires_at,
         h.created_at, h.ended_at"
    };
}

/// Keys of tenants' rows: `(tenant_id, key)`.
macro_rules! sqlite_keys {
    () => {
        "(select unhex(value ->> 0) as tenant_id, value ->> 1 as key from json_each($1)) k"
    };
}

/// Ids of tenants' rows: `(tenant_id, id)`.
macro_rules! sqlite_ids {
    () => {
        "(select unhex(value ->> 0) as tenant_id, unhex(value ->> 1) as id from json_each($1)) k"
    };
}

macro_rules! lease_columns {
    () => {
        "l.tenant_id, l.account_id, a.scope, l.writer_id, l.class, l.epoch, l.granted, l.settled, l.forfeited"
    };
}

macro_rules! lock_leases_of {
    ($lock:literal) => {
        concat!(
            "select ",
            lease_columns!(),
            "
             from quota_lease l
             join quota_account a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
             where l.writer_id = $1 and l.epoch <> 0
             order by l.tenant_id, l.account_id, l.writer_id, l.class
             limit $2",
            $lock
        )
    };
}

macro_rules! lock_due_holds {
    ($lock:literal) => {
        concat!(
            "select ",
            hold_columns!(),
            "
             from quota_hold h
             where h.state = 1 and h.expires_at <= $1
             order by h.tenant_id, h.hold_id
             limit $2",
            $lock
        )
    };
}

macro_rules! find_events {
    ($keys:expr, $lock:literal) => {
        concat!(
            "select ",
            event_columns!(),
            "
             from usage_event e
             join ",
            $keys,
            " on e.tenant_id = k.tenant_id and e.key = k.key
             order by e.tenant_id, e.key",
            $lock
        )
    };
}

macro_rules! lock_accounts {
    ($keys:expr, $lock:literal) => {
        concat!(
            "select a.tenant_id, a.account_id, a.scope, a.metric, a.period_start,
                    coalesce(a.period_end, a.period_start) as period_end,
                    a.limit_value, a.shown_limit, a.revision, a.committed, a.reserved, a.leased, a.forfeited, a.recall_need,
                    a.next_epoch, a.thresholds, a.told_percent
             from quota_account a
             join ",
            $keys,
            " on a.tenant_id = k.tenant_id and a.account_id = k.id
             order by a.scope, a.tenant_id, a.account_id",
            $lock
        )
    };
}

statements! {
    pub(super) REGISTER: ByMeter = Statement::new(
        "insert into quota_writer (writer_id, process_id, batch_no, beat)
         values ($1, $2, $3, $4)
         on conflict (writer_id) do update
         set batch_no = excluded.batch_no",
    );
    /// Counts a batch, if the one before was the last.
    pub(super) BEAT: ByMeter = Statement::new(
        "update quota_writer
         set batch_no = $2, beat = beat + 1
         where writer_id = $1 and batch_no = $2 - 1",
    );
    /// Makes sure that a batch which was not committed never will be.
    pub(super) RESOLVE: ByMeter = Statement::new(
        "update quota_writer
         set batch_no = $2 + 1, beat = beat + 1
         where writer_id = $1 and batch_no = $2 - 1",
    );
    pub(super) LIST_WRITERS: ByMeter = Statement::new("select writer_id, process_id, batch_no, beat from quota_writer");
    pub(super) FIND_WRITER: ByMeter = Statement::new(
        "select writer_id, process_id, batch_no, beat
         from quota_writer
         where writer_id = $1",
    );
    pub(super) BURY: ByMeter = Statement::new(
        "delete from quota_writer
         where writer_id = $1 and beat = $2
           and not exists (select 1 from quota_lease where writer_id = $1 and epoch <> 0)",
    );

    /// Gives the keys that were taken: reading back hundreds of rows that were not would cost as much as inserting them.
    pub(super) CLAIM: ByMeter = Statement::each(
        "with e as (
           select *
           from unnest($1::uuid[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[],
             $8::bigint[], $9::timestamptz[], $10::uuid[], $11::uuid[], $12::text[], $13::text[], $14::bigint[],
             $15::bigint[], $16::text[], $17::text[])
             as e (tenant_id, key, payload_hash, verdict, charges, decided_at, kind, ack, event_at, member_id, api_key_id,
                   endpoint, method, status, latency_us, attributes, subject)),
         claimed as (
           insert into usage_event (tenant_id, key, payload_hash, verdict, charges, decided_at, kind, ack, event_at,
             member_id, api_key_id, endpoint, method, status, latency_us, attributes, subject)
           select *
           from e
           order by tenant_id, key
           on conflict (tenant_id, key) do nothing
           returning tenant_id, key)
         select tenant_id, key from e
         except
         select tenant_id, key from claimed",
        // Those that were inserted: one statement cannot do both here, and reading them back costs nothing.
        "insert into usage_event (tenant_id, key, payload_hash, verdict, charges, decided_at, kind, ack, event_at, member_id,
           api_key_id, endpoint, method, status, latency_us, attributes, subject)
         select unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5, value ->> 6,
           value ->> 7, value ->> 8, unhex(value ->> 9), unhex(value ->> 10), value ->> 11, value ->> 12, value ->> 13,
           value ->> 14, value ->> 15, value ->> 16
         from json_each($1)
         where true
         on conflict (tenant_id, key) do nothing
         returning tenant_id, key",
    );
    pub(super) FIND_EVENTS: ByMeter = Statement::each(
        find_events!("unnest($1::uuid[], $2::text[]) as k (tenant_id, key)", ""),
        find_events!(sqlite_keys!(), ""),
    );
    pub(super) LOCK_EVENTS: ByMeter = Statement::each(
        find_events!("unnest($1::uuid[], $2::text[]) as k (tenant_id, key)", " for update of e"),
        find_events!(sqlite_keys!(), ""),
    );
    pub(super) DECIDE_EVENTS: ByMeter = Statement::each(
        "update usage_event e
         set verdict = k.verdict, charges = k.charges, member_id = k.member_id, api_key_id = k.api_key_id,
             endpoint = k.endpoint, method = k.method, status = k.status
         from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
           $9::bigint[]) as k (tenant_id, key, verdict, charges, member_id, api_key_id, endpoint, method, status)
         where e.tenant_id = k.tenant_id and e.key = k.key",
        "update usage_event as e
         set verdict = k.verdict, charges = k.charges, member_id = k.member_id, api_key_id = k.api_key_id,
             endpoint = k.endpoint, method = k.method, status = k.status
         from (select unhex(value ->> 0) as tenant_id, value ->> 1 as key, value ->> 2 as verdict, value ->> 3 as charges,
                      unhex(value ->> 4) as member_id, unhex(value ->> 5) as api_key_id, value ->> 6 as endpoint,
                      value ->> 7 as method, value ->> 8 as status
               from json_each($1)) k
         where e.tenant_id = k.tenant_id and e.key = k.key",
    );
    pub(super) DROP_EVENTS: ByMeter = Statement::each(
        "delete from usage_event e
         using unnest($1::uuid[], $2::text[]) as k (tenant_id, key)
         where e.tenant_id = k.tenant_id and e.key = k.key",
        "delete from usage_event
         where (tenant_id, key) in (select unhex(value ->> 0), value ->> 1 from json_each($1))",
    );
    pub(super) REFUND_EVENTS: ByMeter = Statement::each(
        "update usage_event e
         set charges = k.charges
         from unnest($1::uuid[], $2::text[], $3::text[]) as k (tenant_id, key, charges)
         where e.tenant_id = k.tenant_id and e.key = k.key",
        "update usage_event as e
         set charges = k.charges
         from (select unhex(value ->> 0) as tenant_id, value ->> 1 as key, value ->> 2 as charges from json_each($1)) k
         where e.tenant_id = k.tenant_id and e.key = k.key",
    );

    pub(super) LOCK_HOLDS: ByMeter = Statement::each(
        concat!(
            "select ", hold_columns!(),
            " from quota_hold h
              join unnest($1::uuid[], $2::uuid[]) as k (tenant_id, id) on h.tenant_id = k.tenant_id and h.hold_id = k.id
              order by h.tenant_id, h.hold_id for update of h",
        ),
        concat!(
            "select ", hold_columns!(), " from quota_hold h join ", sqlite_ids!(),
            " on h.tenant_id = k.tenant_id and h.hold_id = k.id order by h.tenant_id, h.hold_id",
        ),
    );
    pub(super) LOCK_DUE_HOLDS: ByMeter =
        Statement::each(lock_due_holds!(" for update skip locked"), lock_due_holds!(""));
    pub(super) PUT_HOLDS: ByMeter = Statement::each(
        "insert into quota_hold (tenant_id, hold_id, kind, key, state, charges, actual, holder, opened_by, expires_at,
           created_at, ended_at)
         select *
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::text[],
           $9::uuid[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[])
         on conflict (tenant_id, hold_id) do update
         set state = excluded.state, actual = excluded.actual, expires_at = excluded.expires_at,
             ended_at = excluded.ended_at",
        "insert into quota_hold (tenant_id, hold_id, kind, key, state, charges, actual, holder, opened_by, expires_at,
           created_at, ended_at)
         select unhex(value ->> 0), unhex(value ->> 1), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
           value ->> 7, unhex(value ->> 8), value ->> 9, value ->> 10, value ->> 11
         from json_each($1)
         where true
         on conflict (tenant_id, hold_id) do update
         set state = excluded.state, actual = excluded.actual, expires_at = excluded.expires_at,
             ended_at = excluded.ended_at",
    );

    pub(super) LOCK_LEASES: ByMeter = Statement::each(
        concat!(
            "select ", lease_columns!(),
            " from quota_lease l
              join quota_account a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
              join unnest($1::uuid[], $2::uuid[], $3::bigint[]) as k (tenant_id, id, class)
                on l.tenant_id = k.tenant_id and l.account_id = k.id and l.class = k.class
              where l.writer_id = $4
              order by l.tenant_id, l.account_id, l.writer_id, l.class for update of l",
        ),
        concat!(
            "select ", lease_columns!(),
            " from quota_lease l
              join quota_account a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
              join (select unhex(value ->> 0) as tenant_id, unhex(value ->> 1) as id, value ->> 2 as class
                    from json_each($1)) k
                on l.tenant_id = k.tenant_id and l.account_id = k.id and l.class = k.class
              where l.writer_id = $2",
        ),
    );
    pub(super) LOCK_LEASES_OF: ByMeter =
        Statement::each(lock_leases_of!(" for update of l skip locked"), lock_leases_of!(""));
    pub(super) PUT_LEASES: ByMeter = Statement::each(
        "insert into quota_lease (tenant_id, account_id, writer_id, class, epoch, granted, settled, forfeited)
         select *
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
         on conflict (tenant_id, account_id, writer_id, class) do update
         set epoch = excluded.epoch, granted = excluded.granted, settled = excluded.settled,
             forfeited = excluded.forfeited",
        "insert into quota_lease (tenant_id, account_id, writer_id, class, epoch, granted, settled, forfeited)
         select unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5,
           value ->> 6, value ->> 7
         from json_each($1)
         where true
         on conflict (tenant_id, account_id, writer_id, class) do update
         set epoch = excluded.epoch, granted = excluded.granted, settled = excluded.settled,
             forfeited = excluded.forfeited",
    );
    /// Accounts on which one of the writers has a lease, and of which somebody waits for units.
    pub(super) LIST_RECALLED: ByMeter = Statement::each(
        "select distinct a.tenant_id, a.account_id, a.scope
         from quota_lease l
         join quota_account a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
         where l.writer_id = any ($1::uuid[]) and l.epoch <> 0 and a.recall_need > 0",
        "select distinct a.tenant_id, a.account_id, a.scope
         from quota_lease l
         join quota_account a on a.tenant_id = l.tenant_id and a.account_id = l.account_id
         where l.writer_id in (select unhex(value ->> 0) from json_each($1)) and l.epoch <> 0 and a.recall_need > 0",
    );

    pub(super) LOCK_ACCOUNTS: ByMeter = Statement::each(
        lock_accounts!("unnest($1::uuid[], $2::uuid[]) as k (tenant_id, id)", " for update of a"),
        lock_accounts!(sqlite_ids!(), ""),
    );
    /// What open leases of accounts have settled. Read once the accounts are locked: nobody folds then.
    pub(super) LIST_SETTLED: ByMeter = Statement::each(
        "select l.account_id, cast(sum(l.settled) as bigint) as settled
         from quota_lease l
         join unnest($1::uuid[], $2::uuid[]) as k (tenant_id, id) on l.tenant_id = k.tenant_id and l.account_id = k.id
         group by l.tenant_id, l.account_id",
        concat!(
            "select l.account_id, sum(l.settled) as settled from quota_lease l join ", sqlite_ids!(),
            " on l.tenant_id = k.tenant_id and l.account_id = k.id group by l.tenant_id, l.account_id",
        ),
    );
    pub(super) PUT_ACCOUNTS: ByMeter = Statement::each(
        "update quota_account a
         set committed = k.committed, reserved = k.reserved, leased = k.leased, forfeited = k.forfeited,
             recall_need = k.recall_need, next_epoch = k.next_epoch, told_percent = k.told_percent
         from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
           $8::bigint[], $9::bigint[])
           as k (tenant_id, id, committed, reserved, leased, forfeited, recall_need, next_epoch, told_percent)
         where a.tenant_id = k.tenant_id and a.account_id = k.id",
        "update quota_account as a
         set committed = k.committed, reserved = k.reserved, leased = k.leased, forfeited = k.forfeited,
             recall_need = k.recall_need, next_epoch = k.next_epoch, told_percent = k.told_percent
         from (select unhex(value ->> 0) as tenant_id, unhex(value ->> 1) as id, value ->> 2 as committed,
                      value ->> 3 as reserved, value ->> 4 as leased, value ->> 5 as forfeited, value ->> 6 as recall_need,
                      value ->> 7 as next_epoch, value ->> 8 as told_percent
               from json_each($1)) k
         where a.tenant_id = k.tenant_id and a.account_id = k.id",
    );

    pub(super) ADD_ROLLUPS: ByMeter = Statement::each(
        "insert into usage_rollup (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard, events,
           amount)
         select *
         from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
           $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
         on conflict (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard) do update
         set events = usage_rollup.events + excluded.events, amount = usage_rollup.amount + excluded.amount",
        "insert into usage_rollup (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard, events,
           amount)
         select unhex(value ->> 0), value ->> 1, value ->> 2, unhex(value ->> 3), unhex(value ->> 4), value ->> 5,
           value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10
         from json_each($1)
         where true
         on conflict (tenant_id, bucket, metric, member_id, api_key_id, endpoint, method, status, shard) do update
         set events = usage_rollup.events + excluded.events, amount = usage_rollup.amount + excluded.amount",
    );
    pub(super) ADD_NOTICES: ByMeter = Statement::each(
        "insert into quota_notice (tenant_id, notice_id, account_id, metric, percent, used, limit_value, period_end, at)
         select *
         from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
           $8::timestamptz[], $9::timestamptz[])",
        "insert into quota_notice (tenant_id, notice_id, account_id, metric, percent, used, limit_value, period_end, at)
         select unhex(value ->> 0), unhex(value ->> 1), unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5,
           value ->> 6, value ->> 7, value ->> 8
         from json_each($1)",
    );
    /// The job that tells people of notices; as `SCHEDULE_BY` in `jobs.rs`.
    pub(super) SCHEDULE_NOTICES: ByMeter = Statement::each(
        "insert into job (kind, subject, due_at, attempts)
         select 'quota_notice', k.id, k.due_at, 0
         from unnest($1::uuid[], $2::timestamptz[]) as k (id, due_at)
         on conflict (kind, subject) do update
         set due_at = case when job.due_at > excluded.due_at then excluded.due_at else job.due_at end",
        "insert into job (kind, subject, due_at, attempts)
         select 'quota_notice', unhex(value ->> 0), value ->> 1, 0
         from json_each($1)
         where true
         on conflict (kind, subject) do update
         set due_at = case when job.due_at > excluded.due_at then excluded.due_at else job.due_at end",
    );
    /// Says something to the other servers. On SQLite there are none.
    pub(super) NOTIFY: ByMeter = Statement::each("select pg_notify($1, $2)", "select 1 where $1 = $2");
}
