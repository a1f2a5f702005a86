//! What `tenantry migrate` does on PostgreSQL: roles, database, schema, migrations, and the list of policies that the
//! start-up check compares with. Not the check itself: that is `guard`.
//!
//! Two ways in. [`bootstrap`] connects as a DBA and does everything; [`migrate`] connects as `tenantry_migrate` and can
//! do no more than migrate. Both may be repeated and may run twice at once.
#![expect(clippy::disallowed_methods, reason = "statements of store/")]

mod migrations;
mod text;

use std::fmt::Write as _;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

pub use migrations::known_version;
pub use text::bootstrap_sql;

/// The roles that the server connects as, in the order in which they are created. Their names are fixed: migrations grant
/// to them.
pub const SERVER_ROLES: [&str; 3] = ["tenantry_app", "tenantry_system", "tenantry_meter"];

/// The roles that connect: besides the server's, the one that migrates.
pub const LOGIN_ROLES: [&str; 4] = ["tenantry_migrate", SERVER_ROLES[0], SERVER_ROLES[1], SERVER_ROLES[2]];

/// Key of the advisory lock that bootstraps take in the database that the DBA connects to. The change feed has (7261, 1).
const BOOTSTRAP_LOCK: &str = "select pg_advisory_lock(7261, 2)";

/// What a DBA decides about a new installation.
#[derive(Clone)]
pub struct Bootstrap {
    /// Name of the database: 1 to 63 of `A-Z a-z 0-9 _ -`.
    pub database: String,
    /// Given to the login roles when they are created, never to roles that exist. None: roles without a
    /// password, for servers that authenticate in another way.
    pub password: Option<String>,
}

/// What was done, for the person who asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Roles that did not exist before.
    pub roles_created: Vec<String>,
    /// Whether the database did not exist before.
    pub database_created: bool,
    /// Migrations applied now: `0001 house`.
    pub migrations_applied: Vec<String>,
    /// Number of the newest migration before; 0 when there was none.
    pub from: i64,
    /// Number of the newest migration now.
    pub to: i64,
}

/// Why a database could not be set up. Never holds a URL: those carry passwords.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The name is not one that we quote without surprises.
    #[error("{0:?} is no name for a database: use 1 to 63 letters, digits, _ or -")]
    DatabaseName(String),
    /// A database of that name belongs to somebody else.
    #[error(
        "the database belongs to {owner}; give it to tenantry first: alter database \"{database}\" owner to tenantry_owner"
    )]
    ForeignDatabase {
        /// The database.
        database: String,
        /// Who owns it.
        owner: String,
    },
    /// The role that connected may not act as `tenantry_owner`.
    #[error(
        "{role} may not act as tenantry_owner: connect as tenantry_migrate, or set up roles and database first with \
         `tenantry migrate --admin-url ...`"
    )]
    NotOwner {
        /// The role that connected.
        role: String,
    },
    /// The database has no schema for us.
    #[error("the database {database} has no schema tenantry: run `tenantry migrate --admin-url ...` once")]
    NoSchema {
        /// The database.
        database: String,
    },
    /// An administrator set this database up for a tenantry that knew fewer roles.
    #[error(
        "{} cannot connect to this database yet, and this tenantry needs it: run `tenantry migrate --admin-url ...` \
         again, which creates what is missing and leaves the rest as it is; nothing was changed",
        .roles.join(", ")
    )]
    RolesMissing {
        /// The roles that do not exist, or were granted nothing here.
        roles: Vec<String>,
    },
    /// A later tenantry has been here.
    #[error("database is at migration {at}, this tenantry knows {known}: run the newer tenantry")]
    Newer {
        /// Newest migration in the database.
        at: i64,
        /// Newest migration in this binary.
        known: i64,
    },
    /// Somebody changed policies by hand.
    #[error(
        "the policies are not those that the last `tenantry migrate` left: {}; put them back as migrations/postgres \
         writes them, then repeat. If only the server's way of writing them changed (a major upgrade of PostgreSQL) and \
         you have looked at them, run as tenantry_owner: delete from tenantry.expected_policy",
        describe(.changed, *.gone)
    )]
    PoliciesChanged {
        /// Policies that are not in the list: `tenant_only on tenantry.membership`.
        changed: Vec<String>,
        /// How many of the list are not in the database, or not in that form.
        gone: usize,
    },
    /// A migration failed, or one that had been applied is not the one we know.
    #[error(transparent)]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A step failed.
    #[error("{doing}: {source}")]
    Step {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
}

fn describe(changed: &[String], gone: usize) -> String {
    match (changed.join(", "), gone) {
        (names, 0) => format!("unexpected {names}"),
        (_, gone) if changed.is_empty() => format!("{gone} recorded ones are gone"),
        (names, gone) => format!("unexpected {names}; {gone} recorded ones are gone"),
    }
}

/// Names the step that a database error happened in.
fn step(doing: &'static str) -> impl FnOnce(sqlx::Error) -> SetupError {
    move |source| SetupError::Step { doing, source }
}

/// Creates what is missing (roles, database, schema, grants), then migrates. `admin_url` names any database of the
/// server, usually `postgres`, and a superuser, or a role with `createrole` and `createdb`.
///
/// # Errors
/// [`SetupError`]; what was done before stays done, and a repetition goes on from there.
pub async fn bootstrap(admin_url: &str, wish: &Bootstrap) -> Result<Report, SetupError> {
    text::check_database_name(&wish.database)?;
    let options = parse(admin_url)?;
    let mut admin = connect(&options).await?;
    run(&mut admin, "waiting for another bootstrap", BOOTSTRAP_LOCK.to_owned()).await?;

    let roles_created = create_roles(&mut admin, wish).await?;
    let database_created = create_database(&mut admin, &wish.database).await?;
    let mut inside = connect(&options.database(&wish.database)).await?;
    run(&mut inside, "granting in the database", text::database_sql(&wish.database)).await?;
    close(admin).await; // and with it the lock

    let migrated = migrations::apply(&mut inside).await?;
    close(inside).await;
    Ok(Report { roles_created, database_created, ..migrated })
}

/// Applies the migrations that are missing. `url` names the database and the role `tenantry_migrate`.
///
/// # Errors
/// [`SetupError`]; migrations that were applied before the failure stay applied.
pub async fn migrate(url: &str) -> Result<Report, SetupError> {
    let mut conn = connect(&parse(url)?).await?;
    let report = migrations::apply(&mut conn).await?;
    close(conn).await;
    Ok(report)
}

/// The address of `database` for another role, on the server that `url` names. Keeps the TLS mode when it is not the
/// default, but no certificate files.
///
/// # Errors
/// [`SetupError::Step`] when `url` is none.
pub fn url_for(url: &str, database: &str, role: &str, password: &str) -> Result<String, SetupError> {
    let options = parse(url)?;
    let host = if options.get_host().contains(':') && !options.get_host().starts_with('[') {
        format!("[{}]", options.get_host())
    } else {
        options.get_host().to_owned()
    };
    let mut address = format!("postgres://{role}:{}@{host}:{}/{database}", encode(password), options.get_port());
    let mut separator = '?';
    if let Some(socket) = options.get_socket() {
        let _ = write!(address, "{separator}host={}", encode(&socket.to_string_lossy()));
        separator = '&';
    }
    let mode = match options.get_ssl_mode() {
        PgSslMode::Prefer => return Ok(address),
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    let _ = write!(address, "{separator}sslmode={mode}");
    Ok(address)
}

/// Percent-encodes everything that is not unreserved in a URL. `...`, the sign for "the one you know", stays readable.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Creates the roles that are missing; says which.
async fn create_roles(admin: &mut PgConnection, wish: &Bootstrap) -> Result<Vec<String>, SetupError> {
    let before = roles(admin).await?;
    run(admin, "creating roles", text::roles_sql(wish.password.as_deref())).await?;
    let after = roles(admin).await?;
    Ok(after.into_iter().filter(|role| !before.contains(role)).collect())
}

/// Which of our roles exist.
async fn roles(admin: &mut PgConnection) -> Result<Vec<String>, SetupError> {
    sqlx::query_scalar(
        "select rolname::text
         from pg_catalog.pg_roles
         where rolname = 'tenantry_owner' or rolname = any ($1)
         order by rolname",
    )
    .bind(LOGIN_ROLES)
    .fetch_all(admin)
    .await
    .map_err(step("reading roles"))
}

/// Creates the database unless it is there and ours; says whether it did.
async fn create_database(admin: &mut PgConnection, database: &str) -> Result<bool, SetupError> {
    let owner: Option<String> = sqlx::query_scalar(
        "select pg_catalog.pg_get_userbyid(datdba)::text
         from pg_catalog.pg_database
         where datname = $1",
    )
    .bind(database)
    .fetch_optional(&mut *admin)
    .await
    .map_err(step("looking for the database"))?;
    match owner {
        Some(owner) if owner == "tenantry_owner" => Ok(false),
        Some(owner) => Err(SetupError::ForeignDatabase { database: database.to_owned(), owner }),
        None => {
            run(admin, "creating the database", text::create_database_sql(database)).await?;
            Ok(true)
        }
    }
}

/// Reads a URL without ever repeating it in an error.
fn parse(url: &str) -> Result<PgConnectOptions, SetupError> {
    PgConnectOptions::from_str(url).map_err(step("reading the database URL"))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, SetupError> {
    options.connect().await.map_err(step("connecting"))
}

/// Says good-bye, so that the session and its locks are gone when this returns. A failure changes nothing for us.
async fn close(conn: PgConnection) {
    let _ = conn.close().await;
}

/// Sends statements of this module's own making in one message, which is one transaction where PostgreSQL allows.
async fn run(conn: &mut PgConnection, doing: &'static str, sql: String) -> Result<(), SetupError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.map(drop).map_err(step(doing))
}
