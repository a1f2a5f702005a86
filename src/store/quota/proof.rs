//! The books against each other: sums over events, leases and holds beside what the accounts and roll-ups say, read from one
//! snapshot of a tenant. Only what disagrees comes back. Read as the role of the commit lanes, which sees all of it already.

use uuid::Uuid;

use super::QuotaRows;
use crate::domain::id::TenantId;
use crate::error::Error;
use crate::store::tx::{ByMeter, Statement, statements};
use crate::time::Timestamp;

/// Findings of one kind that are read of a tenant: enough to see what is wrong.
pub const MOST: usize = 100;

/// Charges of an event or hold, one a row, as `c.value`; of those that the version before wrote, none.
macro_rules! postgres_charges {
    ($of:literal) => {
        concat!(
            " cross join lateral jsonb_array_elements(
                case when substr(",
            $of,
            ".charges, 1, 1) = '[' then cast(",
            $of,
            ".charges as jsonb) else '[]' end) c "
        )
    };
}

macro_rules! sqlite_charges {
    ($of:literal) => {
        concat!(
            " join json_each(case when substr(",
            $of,
            ".charges, 1, 1) = '[' then ",
            $of,
            ".charges else '[]' end) c "
        )
    };
}

macro_rules! postgres_amount {
    () => {
        "cast(c.value ->> 3 as bigint)"
    };
}

macro_rules! sqlite_amount {
    () => {
        "cast(c.value ->> 3 as integer)"
    };
}

/// Sums an account's parts wherever they are written, and keeps those that do not agree: an account that is not there has
/// only zeros. What an account of the version before has counted is of events that were not kept.
macro_rules! accounts {
    ($charged:literal, $amount:expr, $held:expr, $used:expr) => {
        concat!(
            "select s.account_id, a.metric, a.scope, a.scope_id, a.period_start, s.leased, s.granted, s.forfeited, s.lost,
                    s.reserved, s.held, s.counted, s.charged, s.beyond
             from (
               select x.account_id,
                      cast(sum(x.leased) as bigint) as leased, cast(sum(x.granted) as bigint) as granted,
                      cast(sum(x.forfeited) as bigint) as forfeited, cast(sum(x.lost) as bigint) as lost,
                      cast(sum(x.reserved) as bigint) as reserved, cast(sum(x.held) as bigint) as held,
                      cast(sum(x.counted) as bigint) as counted, cast(sum(x.charged) as bigint) as charged,
                      cast(sum(x.beyond) as bigint) as beyond
               from (
                 select account_id, leased, 0 as granted, forfeited, 0 as lost, reserved, 0 as held, committed as counted,
                        case when period_end is null then committed else archived end as charged, 0 as beyond
                 from quota_account
                 where tenant_id = $1
                 union all
                 select account_id, 0, granted, 0, forfeited, 0, 0, settled, 0,
                        case when settled > granted then settled - granted else 0 end
                 from quota_lease
                 where tenant_id = $1
                 union all
                 select ", $charged, ", 0, 0, 0, 0, 0, ", $amount, ", 0, 0, 0
                 from quota_hold h", $held, "
                 where h.tenant_id = $1 and h.state = 1
                 union all
                 select ", $charged, ", 0, 0, 0, 0, 0, 0, 0, ", $amount, ", 0
                 from usage_event e", $used, "
                 where e.tenant_id = $1 and e.verdict = 1 and e.kind <> 2) x
               group by x.account_id) s
             left join quota_account a on a.tenant_id = $1 and a.account_id = s.account_id
             where s.leased <> s.granted or s.forfeited <> s.lost or s.reserved <> s.held or s.counted <> s.charged
               or s.beyond <> 0
             order by s.account_id
             limit $2"
        )
    };
}

/// Sums events into the quarters of an hour, and keeps those of which the roll-ups say something else; from the first quarter
/// on of which no event was forgotten.
macro_rules! rollups {
    ($bucket:literal, $member:literal, $key:literal, $texts:literal, $metric:literal, $of_tenant:literal, $amount:expr, $charges:expr) => {
        concat!(
            "select s.bucket, s.metric, s.events, s.amount, s.kept_events, s.kept_amount
             from (
               select x.bucket, x.metric, cast(sum(x.events) as bigint) as events, cast(sum(x.amount) as bigint) as amount,
                      cast(sum(x.kept_events) as bigint) as kept_events, cast(sum(x.kept_amount) as bigint) as kept_amount
               from (
                 select bucket, metric, member_id, api_key_id, endpoint, method, status, events, amount, 0 as kept_events,
                        0 as kept_amount
                 from usage_rollup
                 where tenant_id = $1 and bucket >= $3
                 union all
                 select ", $bucket, ", ", $metric, ", ", $member, ", ", $key, ", ", $texts, ", e.status, 0, 0, 1, ", $amount, "
                 from usage_event e", $charges, "
                 where e.tenant_id = $1 and e.verdict = 1 and e.kind <> 2 and e.event_at >= $3
                   and ", $of_tenant, " and ", $amount, " <> 0) x
               group by x.bucket, x.metric, x.member_id, x.api_key_id, x.endpoint, x.method, x.status) s
             where s.events <> s.kept_events or s.amount <> s.kept_amount
             order by s.bucket, s.metric
             limit $2"
        )
    };
}

statements! {
    ACCOUNTS: ByMeter = Statement::each(
        accounts!(
            "cast(c.value ->> 1 as uuid)", postgres_amount!(), postgres_charges!("h"), postgres_charges!("e")
        ),
        accounts!("unhex(c.value ->> 1, '-')", sqlite_amount!(), sqlite_charges!("h"), sqlite_charges!("e")),
    );
    ROLLUPS: ByMeter = Statement::each(
        rollups!(
            "date_bin('15 minutes', e.event_at, to_timestamp(0))",
            "coalesce(e.member_id, '00000000-0000-0000-0000-000000000000')",
            "coalesce(e.api_key_id, '00000000-0000-0000-0000-000000000000')",
            "e.endpoint collate \"C\", e.method collate \"C\"", "(c.value ->> 0) collate \"C\"", "c.value ->> 2 = '2'",
            postgres_amount!(), postgres_charges!("e")
        ),
        rollups!(
            "e.event_at - e.event_at % 900000000", "coalesce(e.member_id, zeroblob(16))",
            "coalesce(e.api_key_id, zeroblob(16))", "e.endpoint, e.method", "c.value ->> 0", "c.value ->> 2 = 2", sqlite_amount!(),
            sqlite_charges!("e")
        ),
    );
    /// How much was proven, and from where on no event was forgotten.
    COUNT: ByMeter = Statement::new(
        "select (select count(*) from quota_account where tenant_id = $1) as accounts,
                (select count(*) from usage_event where tenant_id = $1) as events,
                (select forgotten_until from usage_horizon where tenant_id = $1) as horizon",
    );
    /// The first tenant after one of them that has used anything.
    NEXT_TENANT: ByMeter = Statement::new(
        "select t.tenant_id
         from (
           select a.* from (select tenant_id from quota_account where tenant_id > $1 order by tenant_id limit 1) a
           union all
           select l.* from (select tenant_id from quota_lease where tenant_id > $1 order by tenant_id limit 1) l
           union all
           select h.* from (select tenant_id from quota_hold where tenant_id > $1 order by tenant_id limit 1) h
           union all
           select e.* from (select tenant_id from usage_event where tenant_id > $1 order by tenant_id limit 1) e
           union all
           select r.* from (select tenant_id from usage_rollup where tenant_id > $1 order by tenant_id limit 1) r) t
         order by t.tenant_id
         limit 1",
    );
}

/// An account that does not agree with what was written elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct AccountSums {
    /// Which.
    pub account_id: Uuid,
    /// Its metric; this and the next three are none when there is no such account.
    pub metric: Option<String>,
    /// Tenant, member or key.
    pub scope: Option<i64>,
    /// Whose.
    pub scope_id: Option<Uuid>,
    /// When its period began.
    pub period_start: Option<Timestamp>,
    /// What it says that leases were granted, and what they were.
    pub leased: i64,
    /// See `leased`.
    pub granted: i64,
    /// What it says was forfeited, and what leases say.
    pub forfeited: i64,
    /// See `forfeited`.
    pub lost: i64,
    /// What it says is reserved, and what holds say.
    pub reserved: i64,
    /// See `reserved`.
    pub held: i64,
    /// What was committed and settled, and what events charged, those that were forgotten among them.
    pub counted: i64,
    /// See `counted`.
    pub charged: i64,
    /// What leases have settled beyond their grants.
    pub beyond: i64,
}

/// A quarter of an hour of which roll-ups and events say different things.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RollupSums {
    /// Its first instant.
    pub bucket: Timestamp,
    /// The metric.
    pub metric: String,
    /// Events by the roll-ups.
    pub events: i64,
    /// Their amount.
    pub amount: i64,
    /// Events that are there.
    pub kept_events: i64,
    /// Their amount.
    pub kept_amount: i64,
}

/// What a tenant's rows say of each other.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// How many accounts were looked at.
    pub accounts: i64,
    /// How many events.
    pub events: i64,
    /// What does not agree, at most [`MOST`].
    pub wrong_accounts: Vec<AccountSums>,
    /// The same of roll-ups.
    pub wrong_rollups: Vec<RollupSums>,
}

#[derive(sqlx::FromRow)]
struct Count {
    accounts: i64,
    events: i64,
    horizon: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct TenantRow {
    tenant_id: Uuid,
}

impl QuotaRows {
    /// The first tenant after one of them that has used anything.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn next_tenant(&self, after: TenantId) -> Result<Option<TenantId>, Error> {
        let mut rows: Vec<TenantRow> = self.snapshot().await?.read(&NEXT_TENANT, &[after.0.into()]).await?;
        Ok(rows.pop().map(|row| TenantId(row.tenant_id)))
    }

    /// What a tenant's rows say of each other, all of it at one instant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn sums(&self, tenant: TenantId) -> Result<Sums, Error> {
        let mut snapshot = self.snapshot().await?;
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        let mut counts: Vec<Count> = snapshot.read(&COUNT, &[tenant.0.into()]).await?;
        let count = counts.pop().ok_or_else(|| Error::internal("a count gave nothing"))?;
        let horizon = count.horizon.unwrap_or_else(|| Timestamp::from_micros(0));
        let wrong_accounts = snapshot.read(&ACCOUNTS, &[tenant.0.into(), most.into()]).await?;
        let args = [tenant.0.into(), most.into(), horizon.into()];
        let wrong_rollups = snapshot.read(&ROLLUPS, &args).await?;
        Ok(Sums { accounts: count.accounts, events: count.events, wrong_accounts, wrong_rollups })
    }
}
