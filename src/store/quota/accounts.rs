//! Accounts as their tenant's transactions see them: opened, shown, and given other limits. A limit that is lowered takes
//! back every lease of its account first, so that nothing is admitted under the old one once the change is committed.

use uuid::Uuid;

use crate::domain::id::TenantId;
use crate::domain::period::Period;
use crate::domain::quota::{AccountKey, AccountRow, Class, LeaseRow, Notice, Scope, UNLIMITED};
use crate::error::Error;
use crate::store::dialect::{LOCK_ACCOUNT_LEASES, LOCK_QUOTA_ACCOUNT};
use crate::store::scoped::{self, RunsIn, Scoped, TenantTx};
use crate::store::tx::{OfTenant, Statement, statements};
use crate::time::Timestamp;

macro_rules! account_columns {
    () => {
        "a.tenant_id, a.account_id, a.metric, a.scope, a.scope_id, a.period_start, a.period_end, a.limit_value, a.limit_until,
         a.shown_limit, a.limit_source, a.revision, a.committed, a.reserved, a.leased, a.forfeited, a.recall_need,
         a.next_epoch, a.sequence, a.thresholds, a.told_percent,
         coalesce((select cast(sum(l.settled) as bigint) from quota_lease l
                   where l.tenant_id = $1 and l.account_id = a.account_id), 0) as settled"
    };
}
pub(in crate::store) use account_columns;

statements! {
    /// The newest account of a metric and whoever it is of.
    FIND_LAST: OfTenant = Statement::new(concat!(
        "select ", account_columns!(),
        " from quota_account a
          where a.tenant_id = $1 and a.metric = $2 and a.scope = $3 and a.scope_id = $4
          order by a.period_start desc
          limit 1",
    ));
    LIST_OPEN: OfTenant = Statement::new(concat!(
        "select ", account_columns!(),
        " from quota_account a
          where a.tenant_id = $1 and a.scope = $2 and a.scope_id = $3 and a.period_start <= $4
            and (a.period_end is null or a.period_end > $4)
          order by a.metric",
    ));
    INSERT: OfTenant = Statement::new(
        "insert into quota_account (tenant_id, account_id, metric, scope, scope_id, period_start, period_end, limit_value,
           limit_until, shown_limit, limit_source, committed, thresholds)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12)
         on conflict (tenant_id, metric, scope, scope_id, period_start) do nothing",
    );
    /// An account of the version before, which knew no ends: what it counted is of events that were not kept.
    ADOPT: OfTenant = Statement::new(
        "update quota_account
         set period_end = $3, archived = committed
         where tenant_id = $1 and account_id = $2 and period_end is null",
    );
    SET_LIMIT: OfTenant = Statement::new(
        "update quota_account
         set limit_value = $3, limit_until = $4, shown_limit = $5, limit_source = $6, revision = revision + 1,
             thresholds = $7, told_percent = $8
         where tenant_id = $1 and account_id = $2",
    );
    PUT: OfTenant = Statement::new(
        "update quota_account
         set committed = $3, leased = $4, forfeited = $5, sequence = $6, told_percent = $7
         where tenant_id = $1 and account_id = $2",
    );
    PUT_LEASE: OfTenant = Statement::new(
        "update quota_lease
         set epoch = $5, granted = $6, settled = $7, forfeited = $8
         where tenant_id = $1 and account_id = $2 and writer_id = $3 and class = $4",
    );
}

/// An account, and what of it the engine does not look at.
#[derive(Debug, Clone)]
pub struct Account {
    /// The row.
    pub row: AccountRow,
    /// Whose it is: the nil id for the tenant itself.
    pub scope_id: Uuid,
    /// Its period.
    pub period: Period,
    /// Whether it is of the version before, which wrote no ends.
    is_old: bool,
    /// When its limit is to be looked at anew.
    pub limit_until: Option<Timestamp>,
    /// Whether an override gave the limit.
    pub by_override: bool,
    /// Of the last set of a gauge.
    pub sequence: Option<i64>,
}

/// What an account's limit is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitWish {
    /// Up to where amounts are admitted; none is unlimited.
    pub admits: Option<i64>,
    /// Without grace.
    pub shown: Option<i64>,
    /// When it is to be looked at anew.
    pub until: Option<Timestamp>,
    /// Whether an override gives it.
    pub by_override: bool,
    /// Percents that somebody is told of, rising.
    pub thresholds: Vec<i64>,
}

impl LimitWish {
    fn value(&self) -> i64 {
        self.admits.unwrap_or(UNLIMITED)
    }

    const fn source(&self) -> i64 {
        if self.by_override { 2 } else { 1 }
    }

    fn thresholds(&self) -> String {
        serde_json::to_string(&self.thresholds).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Whether an account has it already.
    #[must_use]
    pub fn is_of(&self, account: &Account) -> bool {
        let row = &account.row;
        (row.limit, row.shown_limit, account.limit_until, account.by_override, &row.thresholds)
            == (self.value(), self.shown, self.until, self.by_override, &self.thresholds)
    }
}

/// Whose account is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Tenant, member or key.
    pub scope: Scope,
    /// The person or key; nil for the tenant.
    pub id: Uuid,
}

impl Owner {
    /// The tenant itself.
    pub const TENANT: Self = Self { scope: Scope::Tenant, id: Uuid::nil() };
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct Record {
    tenant_id: Uuid,
    account_id: Uuid,
    metric: String,
    scope: i64,
    scope_id: Uuid,
    period_start: Timestamp,
    period_end: Option<Timestamp>,
    limit_value: i64,
    limit_until: Option<Timestamp>,
    shown_limit: Option<i64>,
    limit_source: i64,
    revision: i64,
    committed: i64,
    reserved: i64,
    leased: i64,
    forfeited: i64,
    recall_need: i64,
    next_epoch: i64,
    sequence: Option<i64>,
    thresholds: String,
    told_percent: i64,
    settled: i64,
}

impl From<Record> for Account {
    fn from(r: Record) -> Self {
        let period_end = r.period_end.unwrap_or_else(|| Period::month_of(r.period_start).end);
        Self {
            row: AccountRow {
                key: AccountKey { scope: Scope::of(r.scope), tenant: TenantId(r.tenant_id), account: r.account_id },
                metric: r.metric.into(),
                period_start: r.period_start,
                period_end,
                limit: r.limit_value,
                shown_limit: r.shown_limit,
                revision: r.revision,
                committed: r.committed,
                reserved: r.reserved,
                leased: r.leased,
                forfeited: r.forfeited,
                recall_need: r.recall_need,
                next_epoch: r.next_epoch,
                thresholds: serde_json::from_str(&r.thresholds).unwrap_or_default(),
                told_percent: r.told_percent,
                settled: r.settled,
            },
            scope_id: r.scope_id,
            period: Period { start: r.period_start, end: period_end },
            is_old: r.period_end.is_none(),
            limit_until: r.limit_until,
            by_override: r.limit_source == 2,
            sequence: r.sequence,
        }
    }
}

#[derive(sqlx::FromRow)]
struct LeaseRecord {
    account_id: Uuid,
    writer_id: Uuid,
    class: i64,
    epoch: i64,
    granted: i64,
    settled: i64,
    forfeited: i64,
}

/// The newest account of a metric.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find_last(tx: &mut TenantTx, metric: &str, owner: Owner) -> Result<Option<Account>, Error> {
    let args = [metric.into(), owner.scope.number().into(), owner.id.into()];
    let row: Option<Record> = tx.optional(&FIND_LAST, &args).await?;
    Ok(row.map(Account::from))
}

/// The accounts of all metrics whose period holds an instant.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_open<S: scoped::Scope>(tx: &mut Scoped<S>, owner: Owner, at: Timestamp) -> Result<Vec<Account>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let args = [owner.scope.number().into(), owner.id.into(), at.into()];
    let rows: Vec<Record> = tx.all(&LIST_OPEN, &args).await?;
    Ok(rows.into_iter().map(Account::from).collect())
}

/// Opens the account of a period, unless somebody else has just done so. Under the tenant's lock, shared: its limit is that
/// of the plan which the tenant is on when this is committed.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert(
    tx: &mut TenantTx,
    (id, metric, owner): (Uuid, &str, Owner),
    period: Period,
    wish: &LimitWish,
) -> Result<(), Error> {
    let thresholds = wish.thresholds();
    let args = [
        id.into(),
        metric.into(),
        owner.scope.number().into(),
        owner.id.into(),
        period.start.into(),
        period.end.into(),
        wish.value().into(),
        wish.until.into(),
        wish.shown.into(),
        wish.source().into(),
        thresholds.as_str().into(),
    ];
    tx.execute(&INSERT, &args).await.map(|_| ())
}

/// Gives accounts of a tenant other limits. Raised, they hold from the commit on; lowered, too: no lease outlives that.
///
/// # Errors
/// `DatabaseUnavailable`, also when leases are granted faster than they can be taken back: again later.
pub async fn set_limits<S: scoped::Scope>(
    tx: &mut Scoped<S>,
    mut changes: Vec<(Account, LimitWish)>,
) -> Result<(), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    if changes.is_empty() {
        return Ok(());
    }
    changes.sort_by_key(|(account, _)| account.row.key.account);
    let keys: Vec<AccountKey> = changes.iter().map(|(account, _)| account.row.key).collect();
    let wholes = lock_whole(tx, &keys).await?;
    for (whole, (account, wish)) in wholes.into_iter().zip(changes) {
        let id = account.row.key.account;
        if account.is_old {
            tx.execute(&ADOPT, &[id.into(), account.period.end.into()]).await?;
        }
        let told = whole.account.row.still_told(wish.shown);
        if wish.value() < whole.account.row.limit {
            let sequence = whole.account.sequence;
            fence_all(tx, whole, None, sequence).await?;
        }
        let thresholds = wish.thresholds();
        let args = [
            id.into(),
            wish.value().into(),
            wish.until.into(),
            wish.shown.into(),
            wish.source().into(),
            thresholds.as_str().into(),
            told.into(),
        ];
        tx.execute(&SET_LIMIT, &args).await?;
    }
    Ok(())
}

/// A gauge that was set.
#[derive(Debug, Clone)]
pub struct Level {
    /// Where it stood.
    pub before: i64,
    /// The account as it is now.
    pub after: AccountRow,
    /// The thresholds that it reaches.
    pub reached: Vec<Notice>,
}

/// Sets the level of a gauge, unless a later set was there already.
///
/// # Errors
/// As [`set_limits`].
pub async fn set_level(
    tx: &mut TenantTx,
    key: AccountKey,
    value: i64,
    sequence: Option<i64>,
) -> Result<Option<Level>, Error> {
    let whole = lock_whole(tx, &[key]).await?.pop().ok_or(Error::TenantNotFound)?;
    let last = whole.account.sequence;
    if sequence.zip(last).is_some_and(|(new, last)| new <= last) {
        return Ok(None);
    }
    let before = whole.account.row.used();
    let (after, reached) = fence_all(tx, whole, Some(value), sequence.or(last)).await?;
    Ok(Some(Level { before, after, reached }))
}

/// An account with all its open leases, whoever's they are.
struct Whole {
    account: Account,
    leases: Vec<LeaseRow>,
}

/// Locks all open leases of accounts, then the accounts, each in the order in which everybody does; and makes sure that no
/// lease was granted in between.
async fn lock_whole<S: scoped::Scope>(tx: &mut Scoped<S>, sorted: &[AccountKey]) -> Result<Vec<Whole>, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    for _ in 0..20 {
        tx.savepoint().await?;
        let mut leases: Vec<Vec<LeaseRow>> = Vec::with_capacity(sorted.len());
        for key in sorted {
            let rows: Vec<LeaseRecord> = tx.all(&LOCK_ACCOUNT_LEASES, &[key.account.into()]).await?;
            let lease = |r: LeaseRecord| LeaseRow {
                account: AccountKey { account: r.account_id, ..*key },
                writer: r.writer_id,
                class: Class::of(r.class),
                epoch: r.epoch,
                granted: r.granted,
                settled: r.settled,
                forfeited: r.forfeited,
            };
            leases.push(rows.into_iter().map(lease).collect());
        }
        let mut wholes = Vec::with_capacity(sorted.len());
        for (key, leases) in sorted.iter().zip(leases) {
            let row: Option<Record> = tx.optional(&LOCK_QUOTA_ACCOUNT, &[key.account.into()]).await?;
            let mut account = Account::from(row.ok_or(Error::TenantNotFound)?);
            account.row.settled = leases.iter().map(|lease| lease.settled).sum();
            wholes.push(Whole { account, leases });
        }
        let granted = |whole: &Whole| whole.leases.iter().map(|lease| lease.granted).sum::<i64>();
        if wholes.iter().all(|whole| granted(whole) == whole.account.row.leased) {
            return Ok(wholes);
        }
        // Granted meanwhile: let go of the accounts, and lock those leases too.
        tx.back_to_savepoint().await?;
    }
    Err(Error::DatabaseUnavailable("leases were granted faster than they could be taken back".into()))
}

/// Fences every lease of an account, and sets its level when there is one to set. Gives the thresholds that it reaches then.
async fn fence_all<S: scoped::Scope>(
    tx: &mut Scoped<S>,
    whole: Whole,
    level: Option<i64>,
    sequence: Option<i64>,
) -> Result<(AccountRow, Vec<Notice>), Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Whole { account: Account { mut row, .. }, leases } = whole;
    let account = row.key.account;
    let was_leased = !leases.is_empty();
    for mut lease in leases {
        let forfeit = if lease.class == Class::Leased { i64::MAX } else { 0 };
        lease.close(&mut row, forfeit);
        let args = [
            account.into(),
            lease.writer.into(),
            lease.class.number().into(),
            lease.epoch.into(),
            lease.granted.into(),
            lease.settled.into(),
            lease.forfeited.into(),
        ];
        tx.execute(&PUT_LEASE, &args).await?;
    }
    let mut reached = Vec::new();
    if let Some(level) = level {
        row.committed = level;
        reached = row.reach();
    }
    let args = [
        account.into(),
        row.committed.into(),
        row.leased.into(),
        row.forfeited.into(),
        sequence.into(),
        row.told_percent.into(),
    ];
    tx.execute(&PUT, &args).await?;
    if was_leased {
        tx.fenced(row.key);
    }
    Ok((row, reached))
}
