//! Rows: one SQL text for two engines. A mutation begins with `Store::write`, which gives a transaction bound to its
//! tenant or person (`scoped.rs`); one file a noun holds the statements on its rows; what reads across tenants is in
//! `system` alone.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

pub mod accounts;
pub mod api_keys;
pub mod attempts;
pub mod audit;
pub mod billing;
pub mod catalogue;
mod dialect;
pub mod domains;
pub mod entitlements;
pub mod feed;
pub mod guard;
pub mod idempotency;
pub mod impersonations;
pub mod invitations;
pub mod jobs;
pub mod keys;
pub mod links;
pub mod marks;
pub mod memberships;
pub mod mfa;
pub mod outbox;
pub mod purge;
pub mod quota;
pub mod rates;
pub mod roles;
pub mod scoped;
pub mod sessions;
pub mod settings;
pub mod setup;
pub mod slugs;
pub mod sso;
pub mod system;
pub mod tenants;
pub mod tx;
pub mod usage;
pub mod users;
pub mod webhooks;

pub use scoped::{AsUser, InTenant, InTenantAsUser, OnPlatform, Scope, Scoped, TenantTx};

use marks::Marks;
use quota::Recalls;
use tx::{AcrossTenants, Conn, Listed, Record, Statement, Value, failed};

use crate::error::Error;

/// The database.
#[derive(Debug)]
pub struct Store {
    engine: Engine,
    /// What was changed when, as far as this server knows.
    pub marks: Arc<Marks>,
    /// Accounts whose leases this server has taken back from everybody.
    pub recalls: Arc<Recalls>,
}

#[derive(Debug)]
enum Engine {
    /// `app` writes under row level security; `system` reads across tenants, by column; `meter` is for the commit lanes,
    /// which write what many tenants used in one transaction.
    Postgres { app: PgPool, system: PgPool, meter: PgPool },
    /// One writer at a time; readers beside it. The lock keeps a second process out until the store is closed.
    Sqlite { writer: SqlitePool, reader: SqlitePool, lock: File },
}

/// Why the database cannot be used; says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{0} is in use by another tenantry: SQLite is for one process. Stop the other one, choose another --data-dir, \
         or use PostgreSQL for several servers"
    )]
    Locked(String),
    /// The directory cannot be used.
    #[error("{path}: {source}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The schema is newer than this program.
    #[error(
        "the database is at migration {database}, this tenantry knows {known}: run the newer tenantry that migrated it"
    )]
    Newer {
        /// What the database has.
        database: i64,
        /// What this program knows.
        known: i64,
    },
    /// The start-up check refused the database.
    #[error(transparent)]
    Guard(#[from] guard::GuardError),
    /// The address cannot be read.
    #[error("the database address cannot be read: {0}")]
    Address(String),
    /// It does not answer, or not as it should.
    #[error("the database does not answer: {0}")]
    Away(String),
}

/// Connections of the commit lanes, at most.
const METER_CONNECTIONS: u32 = 8;

static SQLITE_MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

impl Store {
    /// Opens the embedded database in `directory`, which is made when it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// When another process has it, the directory cannot be used, or the schema is newer than this program.
    pub async fn open_sqlite(directory: &Path) -> Result<Self, OpenError> {
        let wrong = |source| OpenError::Directory { path: directory.display().to_string(), source };
        // For the owner alone: password hashes and addresses are in there.
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(wrong)?;
        let lock = File::create(directory.join("lock")).map_err(wrong)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Locked(directory.display().to_string()),
            TryLockError::Error(source) => wrong(source),
        })?;
        let database = directory.join("tenantry.db");
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&database).map_err(wrong)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(wrong)?;
        drop(file);
        let options = SqliteConnectOptions::new()
            .filename(database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(5))
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_with(options.clone())
        };
        let writer = pool(1).await.map_err(|e| OpenError::Away(e.to_string()))?;
        migrate_sqlite(&writer).await?;
        let reader = pool(8).await.map_err(|e| OpenError::Away(e.to_string()))?;
        Ok(Self { engine: Engine::Sqlite { writer, reader, lock }, marks: Arc::default(), recalls: Arc::default() })
    }

    /// Connects to PostgreSQL as the roles `tenantry_app`, `tenantry_system` and `tenantry_meter`, and refuses a database
    /// on which row level security would not hold. So many connections each of the first two has at most.
    ///
    /// # Errors
    /// What the start-up check found, each with the statement that mends it; or that the database does not answer.
    pub async fn open_postgres(app: &str, system: &str, meter: &str, connections: u32) -> Result<Self, OpenError> {
        let app = postgres_pool(app, connections).await?;
        let away = |e: sqlx::Error| OpenError::Away(e.to_string());
        let mut conn = app.acquire().await.map_err(away)?;
        // Before the others connect: an older database may not have their roles.
        guard::check_version(&mut conn).await?;
        guard::check(&mut conn, guard::Role::App).await?;
        guard::probe(&mut conn).await?;
        if let Some(warning) = guard::outdated(&mut conn).await.map_err(away)? {
            tracing::warn!("{warning}");
        }
        let system = postgres_pool(system, connections).await?;
        guard::check(&mut *system.acquire().await.map_err(away)?, guard::Role::System).await?;
        let meter = postgres_pool(meter, METER_CONNECTIONS).await?;
        guard::check(&mut *meter.acquire().await.map_err(away)?, guard::Role::Meter).await?;
        Ok(Self { engine: Engine::Postgres { app, system, meter }, marks: Arc::default(), recalls: Arc::default() })
    }

    /// Whether row level security still holds, behaviourally; for the hourly look. Nothing to see on SQLite.
    ///
    /// # Errors
    /// What does not hold.
    pub async fn probe(&self) -> Result<(), OpenError> {
        let Engine::Postgres { app, .. } = &self.engine else { return Ok(()) };
        let mut conn = app.acquire().await.map_err(|e| OpenError::Away(e.to_string()))?;
        Ok(guard::probe(&mut conn).await?)
    }

    /// Whether it is the embedded database, which one process has to itself.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self.engine, Engine::Sqlite { .. })
    }

    /// Closes all connections, for a clean stop.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Postgres { app, system, meter } => {
                app.close().await;
                system.close().await;
                meter.close().await;
            }
            Engine::Sqlite { writer, reader, lock } => {
                reader.close().await;
                writer.close().await;
                // Not when the last task lets go of the store: a connection that lingers would keep the next server out.
                if let Err(error) = lock.unlock() {
                    tracing::warn!(%error, "the lock of the database is held until the process ends");
                }
            }
        }
    }

    /// A connection that reads across tenants; for `system` and `feed.rs`.
    async fn across_tenants(&self) -> Result<AcrossConn, Error> {
        match &self.engine {
            Engine::Postgres { system, .. } => Ok(AcrossConn::Postgres(system.acquire().await.map_err(failed)?)),
            Engine::Sqlite { reader, .. } => Ok(AcrossConn::Sqlite(reader.acquire().await.map_err(failed)?)),
        }
    }
}

enum AcrossConn {
    Postgres(sqlx::pool::PoolConnection<sqlx::Postgres>),
    Sqlite(sqlx::pool::PoolConnection<sqlx::Sqlite>),
}

impl AcrossConn {
    fn conn(&mut self) -> Conn<'_> {
        match self {
            Self::Postgres(conn) => Conn::Postgres(conn),
            Self::Sqlite(conn) => Conn::Sqlite(conn),
        }
    }

    async fn all<T: Record>(&mut self, sql: &Statement<AcrossTenants>, args: &[Value<'_>]) -> Result<Vec<T>, Error> {
        self.conn().all(sql, args).await
    }

    async fn optional<T: Record>(
        &mut self,
        sql: &Statement<AcrossTenants>,
        args: &[Value<'_>],
    ) -> Result<Option<T>, Error> {
        self.conn().optional(sql, args).await
    }
}

async fn migrate_sqlite(pool: &SqlitePool) -> Result<(), OpenError> {
    let known = SQLITE_MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    SQLITE_MIGRATIONS.run(pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::VersionMissing(database) => OpenError::Newer { database, known },
        other => OpenError::Away(other.to_string()),
    })
}

/// A pool whose connections cannot hold locks for long: a process that stopped, or that the network lost, must not stop the
/// others. An address that sets one of these itself (`?options[lock_timeout]=1s`) has its way: on a machine where a process
/// may get no processor for a second, its transactions are not to be ended for that.
async fn postgres_pool(url: &str, connections: u32) -> Result<PgPool, OpenError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| OpenError::Address("expected postgres://user:password@host:port/database".to_owned()))?
        .application_name("tenantry");
    let own = options.get_options().unwrap_or_default().to_owned();
    let bounds = [
        ("idle_in_transaction_session_timeout", "1s"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "5s"),
        ("client_connection_check_interval", "1s"),
        ("tcp_user_timeout", "5s"),
    ];
    let options = options.options(bounds.into_iter().filter(|(name, _)| !own.contains(name)));
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(3))
        .connect_with(options)
        .await
        .map_err(|e| OpenError::Away(e.to_string()))
}

/// Every statement of the store, for the test that prepares each on both engines.
#[doc(hidden)]
#[must_use]
pub fn statements() -> Vec<Listed> {
    let across = system::ALL.concat();
    let quota = quota::STATEMENTS.concat();
    [
        accounts::STATEMENTS,
        attempts::STATEMENTS,
        api_keys::STATEMENTS,
        audit::STATEMENTS,
        billing::STATEMENTS,
        catalogue::STATEMENTS,
        dialect::STATEMENTS,
        domains::STATEMENTS,
        entitlements::STATEMENTS,
        feed::STATEMENTS,
        idempotency::STATEMENTS,
        impersonations::STATEMENTS,
        invitations::STATEMENTS,
        jobs::STATEMENTS,
        keys::STATEMENTS,
        links::STATEMENTS,
        memberships::STATEMENTS,
        mfa::STATEMENTS,
        outbox::STATEMENTS,
        purge::STATEMENTS,
        &quota,
        rates::STATEMENTS,
        roles::STATEMENTS,
        sessions::STATEMENTS,
        slugs::STATEMENTS,
        sso::STATEMENTS,
        settings::STATEMENTS,
        &across,
        tenants::STATEMENTS,
        usage::STATEMENTS,
        users::STATEMENTS,
        webhooks::STATEMENTS,
    ]
    .concat()
}
