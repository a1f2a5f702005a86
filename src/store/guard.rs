//! The start-up refusal: a server does not start on a PostgreSQL that would not keep tenants apart, would lose commits,
//! or has another schema than the binary. Row level security is the second lock behind every statement's own
//! `tenant_id = $1`; it is worth nothing when nobody looks whether it is locked.
//!
//! [`check_version`] first, then [`check`] as each role, then [`probe`] as the application role, at start and hourly.
#![expect(clippy::disallowed_methods, reason = "statements of store/")]

mod probe;

use std::fmt;

use sqlx::{Connection, PgConnection};

use super::setup::known_version;

pub use probe::probe;

/// As whom the server connects. Migrations grant to these names, so there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads and writes one tenant or one person at a time.
    App,
    /// Reads across tenants, by column, and writes nothing.
    System,
    /// Reads and writes what is used and its limits, of many tenants in one transaction, and nothing else.
    Meter,
}

impl Role {
    /// The role's name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "tenantry_app",
            Self::System => "tenantry_system",
            Self::Meter => "tenantry_meter",
        }
    }

    /// The setting that holds this role's address, for messages.
    const fn setting(self) -> &'static str {
        match self {
            Self::App => "TENANTRY_DATABASE_URL",
            Self::System => "TENANTRY_SYSTEM_DATABASE_URL",
            Self::Meter => "TENANTRY_METER_DATABASE_URL",
        }
    }
}

/// One reason not to start.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Finding {
    /// What sort of hole, in words that do not change: `no forced row level security`.
    pub kind: String,
    /// Where it is.
    pub message: String,
    /// The statement that mends it, or a line that begins with `--` where no statement can.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: {}\n      {}", self.kind, self.message, self.mend)
    }
}

/// Findings, one below the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            write!(f, "\n{finding}")?;
        }
        Ok(())
    }
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The database would not keep tenants apart. Each line is followed by the statement that mends it.
    #[error("this database does not keep tenants apart; mend it as its owner or a superuser, then start again:{0}")]
    Unsafe(Findings),
    /// No migration has run.
    #[error("the database {database} has no tables of tenantry: run `tenantry migrate --admin-url ...`")]
    Empty {
        /// The database that we connected to.
        database: String,
    },
    /// The binary has migrations that the database has not.
    #[error("database is at migration {at}, this tenantry needs {known}: run `tenantry migrate`")]
    Older {
        /// Newest migration in the database.
        at: i64,
        /// Newest migration in this binary.
        known: i64,
    },
    /// A later tenantry has been here.
    #[error("database is at migration {at}, this tenantry knows {known}: run the newer tenantry")]
    Newer {
        /// Newest migration in the database.
        at: i64,
        /// Newest migration in this binary.
        known: i64,
    },
    /// The database could not be asked.
    #[error("checking the database: {0}")]
    Database(#[from] sqlx::Error),
}

impl GuardError {
    /// The findings, when that is what it is.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Unsafe(findings) => &findings.0,
            _ => &[],
        }
    }
}

/// Nothing found is what a server starts on.
fn verdict(findings: Vec<Finding>) -> Result<(), GuardError> {
    if findings.is_empty() { Ok(()) } else { Err(GuardError::Unsafe(Findings(findings))) }
}

/// Refuses a role that can step round the policies, and policies other than those that `tenantry migrate` recorded. Leaves the
/// connection as it was.
///
/// # Errors
/// [`GuardError::Unsafe`] with everything that is wrong, [`GuardError::Database`].
pub async fn check(conn: &mut PgConnection, role: Role) -> Result<(), GuardError> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql("set local search_path = pg_catalog").execute(&mut *tx).await?;
    let (connected, superuser): (String, bool) =
        sqlx::query_as("select rolname::text, rolsuper from pg_roles where rolname = current_user")
            .fetch_one(&mut *tx)
            .await?;
    if connected != role.name() {
        // Whatever else is wrong with it does not matter: it is not the role that the server may use.
        return verdict(vec![Finding {
            kind: "wrong role".to_owned(),
            message: format!("connected as {connected} instead of {}", role.name()),
            mend: format!("-- let {} name {}", role.setting(), role.name()),
        }]);
    }
    let expected: Vec<String> = sqlx::query_scalar(
        "select digest
         from tenantry.expected_policy
         where role = current_user",
    )
    .fetch_all(&mut *tx)
    .await?;
    if expected.is_empty() {
        // Without the list every policy would look like one too many.
        return verdict(vec![Finding {
            kind: "policies are not recorded".to_owned(),
            message: format!("for {}: `tenantry migrate` is at work, or was cut short", role.name()),
            mend: "-- wait for it, or run `tenantry migrate` again".to_owned(),
        }]);
    }
    let check = include_str!("guard/check.sql");
    let mut findings: Vec<Finding> = sqlx::query_as(check).bind(expected).fetch_all(&mut *tx).await?;
    tx.rollback().await?;
    if superuser {
        // A superuser is a member of every role and may do everything. What else is found follows from that, and to
        // mend it (`drop policy` of another role) would break the database.
        findings.retain(|finding| finding.kind == "role can bypass");
    }
    verdict(findings)
}

/// Refuses a database whose migrations are not exactly those of this binary.
///
/// # Errors
/// [`GuardError::Empty`], [`GuardError::Older`], [`GuardError::Newer`], [`GuardError::Database`].
pub async fn check_version(conn: &mut PgConnection) -> Result<(), GuardError> {
    let (database, migrated): (String, bool) = sqlx::query_as(
        "select current_database()::text,
                exists (select 1
                        from pg_catalog.pg_class c
                        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                        where n.nspname = 'tenantry' and c.relname = '_sqlx_migrations'
                          and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'))",
    )
    .fetch_one(&mut *conn)
    .await?;
    if !migrated {
        return Err(GuardError::Empty { database });
    }
    let at: Option<i64> = sqlx::query_scalar("select max(version) from tenantry._sqlx_migrations where success")
        .fetch_one(&mut *conn)
        .await?;
    let known = known_version();
    match at {
        None => Err(GuardError::Empty { database }),
        Some(at) if at < known => Err(GuardError::Older { at, known }),
        Some(at) if at > known => Err(GuardError::Newer { at, known }),
        Some(_) => Ok(()),
    }
}

/// A line for the log when the server has a known hole in its row level security (CVE-2025-8713: planner statistics
/// show values of hidden rows), else none.
///
/// # Errors
/// Those of the database.
pub async fn outdated(conn: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let (number, name): (i32, String) =
        sqlx::query_as("select current_setting('server_version_num')::integer, current_setting('server_version')")
            .fetch_one(conn)
            .await?;
    let fixed = match number / 10_000 {
        ..=15 => 150_014,
        16 => 160_010,
        17 => 170_006,
        _ => return Ok(None),
    };
    let line = || format!("PostgreSQL {name} has CVE-2025-8713, which shows values of hidden rows: upgrade it");
    Ok((number < fixed).then(line))
}
