//! What tests see and change behind a server's back, with SQL of their own.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Connection as _, FromRow};
use tenantry::time::Timestamp;
use uuid::Uuid;

use crate::harness::{Bed, Person};

/// A row of a tenant's audit log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct AuditRow {
    pub(crate) action: String,
    pub(crate) actor_kind: i64,
    pub(crate) actor_id: Option<Uuid>,
    pub(crate) on_behalf_of: Option<Uuid>,
    pub(crate) subject_id: Option<Uuid>,
    pub(crate) changes: String,
    pub(crate) request_id: String,
}

impl Bed {
    /// Rows of the database, as the tests' own SQL finds them; `$1` is a UUID.
    pub(crate) async fn rows<T>(&self, sql: &'static str, id: &str) -> Vec<T>
    where
        T: Send + Unpin + for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow>,
    {
        let id: Uuid = id.parse().expect("an id");
        if let Some(database) = &self.database {
            let mut conn = database.administrator().await;
            return sqlx::query_as(sql).bind(id).fetch_all(&mut conn).await.expect("rows");
        }
        let mut conn = self.sqlite(true).await;
        sqlx::query_as(sql).bind(id).fetch_all(&mut conn).await.expect("rows")
    }

    /// Changes rows behind the server's back, and has it read them anew; `$1` is a UUID.
    pub(crate) async fn execute(&self, sql: &'static str, id: &str) {
        self.execute_unseen(sql, id).await;
        self.forgets();
    }

    /// Changes rows behind the server's back, which goes by what it remembers; `$1` is a UUID.
    pub(crate) async fn execute_unseen(&self, sql: &'static str, id: &str) {
        let id: Uuid = id.parse().expect("an id");
        if let Some(database) = &self.database {
            let mut conn = database.administrator().await;
            sqlx::query(sql).bind(id).execute(&mut conn).await.expect("changes rows");
            return;
        }
        let mut conn = self.sqlite(false).await;
        sqlx::query(sql).bind(id).execute(&mut conn).await.expect("changes rows");
    }

    /// Adds to the roll-ups of a tenant, as if it had been at work long ago. The books do not agree then.
    pub(crate) async fn seed_rollup(&self, tenant: &str, bucket: Timestamp, amount: i64, shard: usize) {
        let id: Uuid = tenant.parse().expect("an id");
        let sql = "insert into usage_rollup values ($1, $2, 'quizzes', $3, $3, '', '', 0, $4, 1, $5)";
        let shard = i64::try_from(shard).expect("a small number");
        if let Some(database) = &self.database {
            let mut conn = database.administrator().await;
            let row = sqlx::query(sql).bind(id).bind(bucket).bind(Uuid::nil()).bind(shard).bind(amount);
            row.execute(&mut conn).await.expect("adds a row");
            return;
        }
        let mut conn = self.sqlite(false).await;
        let row = sqlx::query(sql).bind(id).bind(bucket).bind(Uuid::nil()).bind(shard).bind(amount);
        row.execute(&mut conn).await.expect("adds a row");
    }

    /// A connection to the SQLite database, beside the server's own.
    async fn sqlite(&self, read_only: bool) -> SqliteConnection {
        connect_sqlite(self.dir.path(), read_only).await
    }

    /// The audit rows of a tenant, without those of refusals.
    pub(crate) async fn audit(&self, tenant: &str) -> Vec<AuditRow> {
        let sql = "select action, actor_kind, actor_id, on_behalf_of, subject_id, changes, request_id from audit_event
                   where tenant_id = $1 order by event_id";
        let rows: Vec<AuditRow> = self.rows(sql, tenant).await;
        rows.into_iter().filter(|row| !row.changes.contains("\"denied\"")).collect()
    }

    /// Revokes all sessions of a person: no method does yet.
    pub(crate) async fn revoke_sessions(&self, person: &Person) {
        // Both engines keep times as something that compares with null.
        let sql = "update session set revoked_at = created_at where user_id = $1";
        self.execute(sql, &person.id).await;
    }
}

/// A connection to the SQLite database in a directory, beside the server's own.
pub(crate) async fn connect_sqlite(data: &Path, read_only: bool) -> SqliteConnection {
    let file = SqliteConnectOptions::new().filename(data.join("tenantry.db"));
    let options = file.read_only(read_only).busy_timeout(Duration::from_secs(5));
    SqliteConnection::connect_with(&options).await.expect("opens")
}
