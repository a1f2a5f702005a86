//! The two engines, and the one way to run a statement on either. Everything above this file sees one database.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that hands SQL text to sqlx; the text comes from `statements!`"
)]

use std::marker::PhantomData;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgRow, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteConnection, SqliteRow, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, FromRow, Postgres, Sqlite, Type};
use uuid::Uuid;

use crate::error::Error;
use crate::time::Timestamp;

/// A row that reads the same from both engines; `#[derive(sqlx::FromRow)]` is all it takes.
pub trait Record: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

impl<T> Record for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

/// A statement with its text for each engine, the same one wherever possible. `K` says whose rows it may touch, and so
/// which transactions may run it.
#[derive(Debug)]
pub struct Statement<K> {
    pub(super) postgres: &'static str,
    pub(super) sqlite: &'static str,
    kind: PhantomData<K>,
}

impl<K> Statement<K> {
    /// One text for both engines.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self { postgres: text, sqlite: text, kind: PhantomData }
    }

    /// A text for each engine; for `dialect.rs`.
    #[must_use]
    pub const fn each(postgres: &'static str, sqlite: &'static str) -> Self {
        Self { postgres, sqlite, kind: PhantomData }
    }
}

/// Touches rows of one tenant: `$1` is the tenant, bound by the transaction.
#[derive(Debug)]
pub struct OfTenant;
/// Touches rows of one person: `$1` is the user, bound by the transaction.
#[derive(Debug)]
pub struct OfUser;
/// Touches the answers that a caller was given: bound to tenant, kind and id of the caller by its first three arguments.
#[derive(Debug)]
pub struct OfCaller;
/// Touches tables that hold nothing of a customer.
#[derive(Debug)]
pub struct OfPlatform;
/// Reads across tenants, as the role `tenantry_system`; only in `system` and `feed.rs`.
#[derive(Debug)]
pub struct AcrossTenants;

/// A statement as the tests see it.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Where it stands.
    pub file: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// `OfTenant`, `OfUser`, `OfCaller`, `OfPlatform` or `AcrossTenants`.
    pub kind: &'static str,
    /// Its text for PostgreSQL.
    pub postgres: &'static str,
    /// Its text for SQLite.
    pub sqlite: &'static str,
}

/// Names statements, and lists them so that one test can prepare each on both engines.
macro_rules! statements {
    ($($(#[$doc:meta])* $vis:vis $name:ident: $kind:ident = $sql:expr;)*) => {
        $($(#[$doc])* $vis const $name: $crate::store::tx::Statement<$kind> = $sql;)*

        /// The statements of this file, for the tests.
        pub(super) const STATEMENTS: &[$crate::store::tx::Listed] = &[$($crate::store::tx::Listed {
            file: file!(),
            name: stringify!($name),
            kind: stringify!($kind),
            postgres: $name.postgres,
            sqlite: $name.sqlite,
        }),*];
    };
}
pub(super) use statements;

/// A bound argument.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// `bigint`.
    Int(Option<i64>),
    /// `text`.
    Text(Option<&'a str>),
    /// `bytea`.
    Bytes(Option<&'a [u8]>),
    /// `uuid`.
    Uuid(Option<Uuid>),
    /// `timestamptz`.
    Time(Option<Timestamp>),
}

macro_rules! values {
    ($($variant:ident($type:ty))*) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from(value: $type) -> Self {
                Self::$variant(Some(value))
            }
        }

        impl<'a> From<Option<$type>> for Value<'a> {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}
values! { Int(i64) Text(&'a str) Bytes(&'a [u8]) Uuid(Uuid) Time(Timestamp) }

macro_rules! bind {
    ($query:expr, $args:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match *arg {
                Value::Int(v) => query.bind(v),
                Value::Text(v) => query.bind(v),
                Value::Bytes(v) => query.bind(v),
                Value::Uuid(v) => query.bind(v),
                Value::Time(v) => query.bind(v),
            };
        }
        query
    }};
}

/// A connection of either engine.
pub(super) enum Conn<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

impl Conn<'_> {
    /// All rows of a query.
    pub(super) async fn all<T: Record, K>(self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<Vec<T>, Error> {
        match self {
            Conn::Postgres(conn) => bind!(sqlx::query_as::<Postgres, T>(sql.postgres), args).fetch_all(conn).await,
            Conn::Sqlite(conn) => bind!(sqlx::query_as::<Sqlite, T>(sql.sqlite), args).fetch_all(conn).await,
        }
        .map_err(failed)
    }

    /// The only row of a query, if there is one.
    pub(super) async fn optional<T: Record, K>(
        self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Option<T>, Error> {
        match self {
            Conn::Postgres(conn) => bind!(sqlx::query_as::<Postgres, T>(sql.postgres), args).fetch_optional(conn).await,
            Conn::Sqlite(conn) => bind!(sqlx::query_as::<Sqlite, T>(sql.sqlite), args).fetch_optional(conn).await,
        }
        .map_err(failed)
    }

    /// Runs a statement; how many rows it touched.
    pub(super) async fn execute<K>(self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<u64, Error> {
        self.run(sql, args).await.map_err(failed)
    }

    /// Runs a statement; how many rows it touched, none when it would have broken a unique constraint.
    pub(super) async fn execute_unless_taken<K>(
        self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Option<u64>, Error> {
        match self.run(sql, args).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
            other => other.map(Some).map_err(failed),
        }
    }

    async fn run<K>(self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        match self {
            Conn::Postgres(conn) => {
                bind!(sqlx::query::<Postgres>(sql.postgres), args).execute(conn).await.map(|done| done.rows_affected())
            }
            Conn::Sqlite(conn) => {
                bind!(sqlx::query::<Sqlite>(sql.sqlite), args).execute(conn).await.map(|done| done.rows_affected())
            }
        }
    }
}

/// What a failure of the database means to the caller. Away, overloaded or in each other's way: try again. The rest is
/// a fault of ours. Only the message is kept, never PostgreSQL's DETAIL, which quotes rows.
#[expect(clippy::needless_pass_by_value, reason = "so that it reads `.map_err(failed)`")]
pub(super) fn failed(error: sqlx::Error) -> Error {
    let passing = match &error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_passing(&code)),
        _ => false,
    };
    // The text only: Debug of a PostgreSQL error would carry the DETAIL.
    let told = Box::<dyn std::error::Error + Send + Sync>::from(error.to_string());
    if passing { Error::DatabaseUnavailable(told) } else { Error::Internal(told) }
}

/// `SQLSTATE`s of PostgreSQL (connection, sign-in, resources, shutdown, locks, serialisation, idle in transaction) and result
/// codes of SQLite (busy, locked, I/O, full, cannot open) that pass by themselves.
fn is_passing(code: &str) -> bool {
    if code.len() == 5 {
        let class = &code[..2];
        return ["08", "28", "53", "57", "58"].contains(&class)
            || ["40001", "40P01", "55P03", "25P03", "25006"].contains(&code);
    }
    code.parse::<u32>().is_ok_and(|code| [5, 6, 10, 13, 14].contains(&(code & 0xff)))
}

// ---- Timestamp: timestamptz on PostgreSQL, microseconds in an integer on SQLite ----------------------------------

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.utc(), buf)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <chrono::DateTime<chrono::Utc> as Decode<Postgres>>::decode(value).map(Self::from)
    }
}

impl Type<Sqlite> for Timestamp {
    fn type_info() -> SqliteTypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &SqliteTypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for Timestamp {
    fn encode_by_ref(&self, args: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.micros(), args)
    }
}

impl<'r> Decode<'r, Sqlite> for Timestamp {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        <i64 as Decode<Sqlite>>::decode(value).map(Self::from_micros)
    }
}
