//! Transactions that carry their tenant or user in their type. A statement on a tenant's rows can only be run by a
//! transaction of a tenant, which binds it as `$1` and, on PostgreSQL, has set it for row level security as well.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgPool, Postgres, Sqlite};
use uuid::Uuid;

use super::audit::Audit;
use super::feed::{self, Change};
use super::marks::Marks;
use super::quota::Recalls;
use super::tx::{Conn, OfCaller, OfPlatform, OfTenant, OfUser, Record, Statement, Value, failed};
use super::{Engine, Store};
use crate::ctx::{Ctx, WRITTEN, Written};
use crate::domain::id::{TenantId, UserId};
use crate::domain::quota::AccountKey;
use crate::error::Error;
use crate::time::Timestamp;

/// A transaction bound to one tenant.
pub type TenantTx = Scoped<InTenant>;

/// Bound to a tenant.
#[derive(Debug, Clone, Copy)]
pub struct InTenant(pub TenantId);
/// Bound to a person, or to the holder of a key, by their id.
#[derive(Debug, Clone, Copy)]
pub struct AsUser(pub UserId);
/// Bound to nobody: sees tables that hold nothing of a customer.
#[derive(Debug, Clone, Copy)]
pub struct OnPlatform;
/// Bound to both.
#[derive(Debug, Clone, Copy)]
pub struct InTenantAsUser(pub TenantId, pub UserId);

/// What a transaction may be bound to.
pub trait Scope: Copy + Send + Sync {
    /// The tenant, if bound to one.
    fn tenant(&self) -> Option<TenantId>;
    /// The user, if bound to one.
    fn user(&self) -> Option<UserId>;
}

impl Scope for InTenant {
    fn tenant(&self) -> Option<TenantId> {
        Some(self.0)
    }
    fn user(&self) -> Option<UserId> {
        None
    }
}

impl Scope for AsUser {
    fn tenant(&self) -> Option<TenantId> {
        None
    }
    fn user(&self) -> Option<UserId> {
        Some(self.0)
    }
}

impl Scope for OnPlatform {
    fn tenant(&self) -> Option<TenantId> {
        None
    }
    fn user(&self) -> Option<UserId> {
        None
    }
}

impl Scope for InTenantAsUser {
    fn tenant(&self) -> Option<TenantId> {
        Some(self.0)
    }
    fn user(&self) -> Option<UserId> {
        Some(self.1)
    }
}

/// A statement that a transaction of scope `S` may run, and what is bound as `$1`.
pub trait RunsIn<S> {
    /// The first argument; none where the statement touches nobody's rows.
    fn first(&self, scope: &S) -> Option<Uuid>;
}

impl RunsIn<InTenant> for Statement<OfTenant> {
    fn first(&self, scope: &InTenant) -> Option<Uuid> {
        Some(scope.0.0)
    }
}

impl RunsIn<InTenantAsUser> for Statement<OfTenant> {
    fn first(&self, scope: &InTenantAsUser) -> Option<Uuid> {
        Some(scope.0.0)
    }
}

impl RunsIn<AsUser> for Statement<OfUser> {
    fn first(&self, scope: &AsUser) -> Option<Uuid> {
        Some(scope.0.0)
    }
}

impl RunsIn<InTenantAsUser> for Statement<OfUser> {
    fn first(&self, scope: &InTenantAsUser) -> Option<Uuid> {
        Some(scope.1.0)
    }
}

impl<S: Scope> RunsIn<S> for Statement<OfCaller> {
    fn first(&self, _: &S) -> Option<Uuid> {
        None
    }
}

impl<S: Scope> RunsIn<S> for Statement<OfPlatform> {
    fn first(&self, _: &S) -> Option<Uuid> {
        None
    }
}

/// An open transaction of either engine. Rolled back when dropped.
enum Open {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

/// A transaction and what it is bound to. Dropped without commit, it leaves nothing behind.
pub struct Scoped<S> {
    open: Open,
    scope: S,
    changes: Vec<Change>,
    marks: Arc<Marks>,
    /// Accounts whose leases it takes back.
    fenced: Vec<AccountKey>,
    recalls: Arc<Recalls>,
}

impl Store {
    fn scoped<S>(&self, open: Open, scope: S) -> Scoped<S> {
        let (marks, recalls) = (self.marks.clone(), self.recalls.clone());
        Scoped { open, scope, changes: Vec::new(), marks, fenced: Vec::new(), recalls }
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn write<S: Scope>(&self, scope: S) -> Result<Scoped<S>, Error> {
        let open = match &self.engine {
            Engine::Postgres { app, .. } => Open::Postgres(begin_postgres(app, &scope).await?),
            Engine::Sqlite { writer, .. } => Open::Sqlite(writer.begin_with("begin immediate").await.map_err(failed)?),
        };
        Ok(self.scoped(open, scope))
    }

    /// Begins a transaction that only reads.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn read<S: Scope>(&self, scope: S) -> Result<Scoped<S>, Error> {
        let open = match &self.engine {
            Engine::Postgres { app, .. } => Open::Postgres(begin_postgres(app, &scope).await?),
            Engine::Sqlite { reader, .. } => Open::Sqlite(reader.begin_with("begin deferred").await.map_err(failed)?),
        };
        Ok(self.scoped(open, scope))
    }
}

/// Begins and binds in one message: `set local` ends with the transaction, so nothing of it stays in the pool. In a task of
/// its own, because a begin that is cut off half-way (a deadline, a caller who is gone) would leave the connection inside a
/// transaction that sqlx does not know of, bound to a tenant, for the next caller; the task ends it properly.
async fn begin_postgres(pool: &PgPool, scope: &impl Scope) -> Result<sqlx::Transaction<'static, Postgres>, Error> {
    let mut sql = String::from("begin");
    if let Some(TenantId(id)) = scope.tenant() {
        let _ = write!(sql, "; set local tenantry.tenant = '{}'", id.as_hyphenated());
    }
    if let Some(UserId(id)) = scope.user() {
        let _ = write!(sql, "; set local tenantry.\"user\" = '{}'", id.as_hyphenated());
    }
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(AssertSqlSafe(sql)).await }).await;
    begun.map_err(|_| Error::internal("beginning a transaction panicked"))?.map_err(failed)
}

impl<S: Scope> Scoped<S> {
    fn conn(&mut self) -> Conn<'_> {
        match &mut self.open {
            Open::Postgres(tx) => Conn::Postgres(tx),
            Open::Sqlite(tx) => Conn::Sqlite(tx),
        }
    }

    /// All rows of a query.
    pub(super) async fn all<T: Record, K>(&mut self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<Vec<T>, Error>
    where
        Statement<K>: RunsIn<S>,
    {
        let args = with_first(sql.first(&self.scope), args);
        self.conn().all(sql, &args).await
    }

    /// The only row of a query, if there is one.
    pub(super) async fn optional<T: Record, K>(
        &mut self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Option<T>, Error>
    where
        Statement<K>: RunsIn<S>,
    {
        let args = with_first(sql.first(&self.scope), args);
        self.conn().optional(sql, &args).await
    }

    /// Runs a statement; how many rows it touched.
    pub(super) async fn execute<K>(&mut self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<u64, Error>
    where
        Statement<K>: RunsIn<S>,
    {
        let args = with_first(sql.first(&self.scope), args);
        self.conn().execute(sql, &args).await
    }

    /// Runs a statement that takes a name others may have: how many rows it touched, none when the name is taken. The
    /// transaction is no good any more then.
    pub(super) async fn execute_unless_taken<K>(
        &mut self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Option<u64>, Error>
    where
        Statement<K>: RunsIn<S>,
    {
        let args = with_first(sql.first(&self.scope), args);
        self.conn().execute_unless_taken(sql, &args).await
    }

    /// Runs a statement on the tenant's rows when the transaction is a tenant's; how many it touched then.
    pub(super) async fn execute_if_tenant(
        &mut self,
        sql: &Statement<OfTenant>,
        args: &[Value<'_>],
    ) -> Result<Option<u64>, Error> {
        let Some(tenant) = self.scope.tenant() else { return Ok(None) };
        let args = with_first(Some(tenant.0), args);
        self.conn().execute(sql, &args).await.map(Some)
    }

    /// All rows of a query on the tenant's rows; none when the transaction is not a tenant's.
    pub(super) async fn all_if_tenant<T: Record>(
        &mut self,
        sql: &Statement<OfTenant>,
        args: &[Value<'_>],
    ) -> Result<Vec<T>, Error> {
        let Some(tenant) = self.scope.tenant() else { return Ok(Vec::new()) };
        let args = with_first(Some(tenant.0), args);
        self.conn().all(sql, &args).await
    }

    /// Runs a statement on a person's rows when the transaction is a person's; how many it touched then.
    pub(super) async fn execute_if_user(
        &mut self,
        sql: &Statement<OfUser>,
        args: &[Value<'_>],
    ) -> Result<Option<u64>, Error> {
        let Some(user) = self.scope.user() else { return Ok(None) };
        let args = with_first(Some(user.0), args);
        self.conn().execute(sql, &args).await.map(Some)
    }

    /// Marks a place to come back to.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub(super) async fn savepoint(&mut self) -> Result<(), Error> {
        self.raw("savepoint place").await
    }

    /// Undoes everything since the savepoint, and lets go of the locks that were taken since.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub(super) async fn back_to_savepoint(&mut self) -> Result<(), Error> {
        self.raw("rollback to savepoint place").await
    }

    #[expect(clippy::disallowed_methods, reason = "savepoints cannot be prepared")]
    async fn raw(&mut self, sql: &'static str) -> Result<(), Error> {
        match &mut self.open {
            Open::Postgres(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
            Open::Sqlite(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop),
        }
        .map_err(failed)
    }

    /// Notes that the leases of an account are taken back: with the commit, servers are told.
    pub(super) fn fenced(&mut self, account: AccountKey) {
        self.fenced.push(account);
    }

    /// Notes a change that replicas and watchers may have cached; written with the commit.
    pub(super) fn changed(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// Writes an audit row besides the one of the commit.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn note(&mut self, ctx: &Ctx, audit: Audit) -> Result<(), Error> {
        audit.insert(self, ctx).await
    }

    /// Commits a mutation: its audit row, then its changes, then the commit itself, with nothing in between that could
    /// keep the feed's lock.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; the outcome is not known then, and a repetition with the same `request_id` tells.
    pub async fn commit(mut self, ctx: &Ctx, audit: Audit) -> Result<(), Error> {
        audit.insert(&mut self, ctx).await?;
        self.commit_unaudited(ctx.now).await
    }

    /// Commits what is no mutation of a resource: usage, rates, housekeeping.
    ///
    /// # Errors
    /// As `commit`.
    pub async fn commit_unaudited(self, now: Timestamp) -> Result<(), Error> {
        let Self { open, changes, marks, fenced, recalls, .. } = self;
        let written = match open {
            Open::Postgres(mut tx) => {
                let written = match &*changes {
                    [] => None,
                    some => Some(feed::append_and_commit_postgres(&mut tx, now, some).await?),
                };
                tx.commit().await.map_err(failed)?;
                written
            }
            Open::Sqlite(mut tx) => {
                let written = feed::append_sqlite(&mut tx, now, &changes).await?;
                tx.commit().await.map_err(failed)?;
                written
            }
        };
        // Before the answer: whoever got it and asks this server again is not decided on what was before.
        if let Some(cursor) = written {
            marks.touch_own(cursor.seq, &changes);
            // Jobs answer nobody.
            let _ = WRITTEN.try_with(|last| last.set(Written::UpTo(cursor)));
        }
        recalls.add(fenced);
        Ok(())
    }

    /// What the transaction is bound to.
    pub const fn scope(&self) -> &S {
        &self.scope
    }
}

/// The bound id as `$1`, then the rest.
fn with_first<'a>(first: Option<Uuid>, args: &[Value<'a>]) -> Vec<Value<'a>> {
    first.map(Value::from).into_iter().chain(args.iter().copied()).collect()
}
