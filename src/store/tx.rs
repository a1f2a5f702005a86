//! The two engines, and the one way to run a statement on either. Everything above this file sees one database.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file that hands SQL text to sqlx; the text comes from `statements!`"
)]

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::{Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgRow, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteConnection, SqliteRow, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, Encode, FromRow, Postgres, Sqlite, Type};
use uuid::Uuid;

use crate::domain::secret::hex;
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
/// Reads and writes usage across tenants, as the role `tenantry_meter`; only in `quota`.
#[derive(Debug)]
pub struct ByMeter;

/// A statement as the tests see it.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Where it stands.
    pub file: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// `OfTenant`, `OfUser`, `OfCaller`, `OfPlatform`, `AcrossTenants` or `ByMeter`.
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
    /// Many rows: an array a column on PostgreSQL, so that they take as many numbers as there are columns; one JSON array of
    /// arrays on SQLite, with bytes and ids in hexadecimal.
    Rows(&'a [Column<'a>]),
}

/// One column of many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column<'a> {
    /// `bigint[]`.
    Ints(Vec<Option<i64>>),
    /// `text[]`.
    Texts(Vec<Cow<'a, str>>),
    /// `bytea[]`.
    Bytes(Vec<&'a [u8]>),
    /// `uuid[]`.
    Uuids(Vec<Option<Uuid>>),
    /// `timestamptz[]`.
    Times(Vec<Option<Timestamp>>),
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Ints(all) => all.len(),
            Self::Texts(all) => all.len(),
            Self::Bytes(all) => all.len(),
            Self::Uuids(all) => all.len(),
            Self::Times(all) => all.len(),
        }
    }
}

/// A cell of a row, as SQLite gets it.
struct Cell<'r>(&'r Column<'r>, usize);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(column, row) = *self;
        match column {
            Column::Ints(all) => all[row].serialize(to),
            Column::Texts(all) => to.serialize_str(&all[row]),
            Column::Bytes(all) => to.serialize_str(&hex(all[row])),
            Column::Uuids(all) => match all[row] {
                Some(id) => to.serialize_str(id.simple().encode_lower(&mut Uuid::encode_buffer())),
                None => to.serialize_none(),
            },
            Column::Times(all) => all[row].map(Timestamp::micros).serialize(to),
        }
    }
}

/// A row of many.
struct OneOf<'r>(&'r [Column<'r>], usize);

impl Serialize for OneOf<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|column| Cell(column, self.1)))
    }
}

/// Rows as SQLite gets them.
fn json_rows(columns: &[Column<'_>]) -> String {
    let count = columns.first().map_or(0, Column::len);
    let rows: Vec<OneOf<'_>> = (0..count).map(|row| OneOf(columns, row)).collect();
    serde_json::to_string(&rows).unwrap_or_default()
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
    ($query:expr, $args:expr, |$rows:ident, $columns:ident| $bind_rows:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match *arg {
                Value::Int(v) => query.bind(v),
                Value::Text(v) => query.bind(v),
                Value::Bytes(v) => query.bind(v),
                Value::Uuid(v) => query.bind(v),
                Value::Time(v) => query.bind(v),
                Value::Rows($columns) => {
                    let $rows = query;
                    $bind_rows
                }
            };
        }
        query
    }};
}

/// Binds many rows as an array a column.
macro_rules! bind_postgres {
    ($query:expr, $args:expr) => {
        bind!($query, $args, |rows, columns| {
            let mut rows = rows;
            for column in columns {
                rows = match column {
                    Column::Ints(all) => rows.bind(&all[..]),
                    Column::Texts(all) => rows.bind(&all[..]),
                    Column::Bytes(all) => rows.bind(&all[..]),
                    Column::Uuids(all) => rows.bind(&all[..]),
                    Column::Times(all) => rows.bind(all.iter().map(|at| at.map(Timestamp::utc)).collect::<Vec<_>>()),
                };
            }
            rows
        })
    };
}

/// Binds many rows as one JSON text.
macro_rules! bind_sqlite {
    ($query:expr, $args:expr) => {
        bind!($query, $args, |rows, columns| rows.bind(json_rows(columns)))
    };
}

/// A connection of either engine.
pub(super) enum Conn<'c> {
    Postgres(&'c mut PgConnection),
    Sqlite(&'c mut SqliteConnection),
}

impl Conn<'_> {
    /// All rows of a query.
    pub(super) async fn all<T: Record, K>(self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<Vec<T>, Error> {
        self.query(sql, args).await.map_err(failed)
    }

    /// All rows of a query, or what the database said.
    pub(super) async fn query<T: Record, K>(
        self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Vec<T>, sqlx::Error> {
        match self {
            Conn::Postgres(conn) => {
                let query = sqlx::query_as::<Postgres, T>(sql.postgres);
                bind_postgres!(query, args).fetch_all(conn).await
            }
            Conn::Sqlite(conn) => {
                let query = sqlx::query_as::<Sqlite, T>(sql.sqlite);
                bind_sqlite!(query, args).fetch_all(conn).await
            }
        }
    }

    /// The only row of a query, if there is one.
    pub(super) async fn optional<T: Record, K>(
        self,
        sql: &Statement<K>,
        args: &[Value<'_>],
    ) -> Result<Option<T>, Error> {
        match self {
            Conn::Postgres(conn) => {
                let query = sqlx::query_as::<Postgres, T>(sql.postgres);
                bind_postgres!(query, args).fetch_optional(conn).await
            }
            Conn::Sqlite(conn) => {
                let query = sqlx::query_as::<Sqlite, T>(sql.sqlite);
                bind_sqlite!(query, args).fetch_optional(conn).await
            }
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

    /// Runs a statement; how many rows it touched, or what the database said.
    pub(super) async fn run<K>(self, sql: &Statement<K>, args: &[Value<'_>]) -> Result<u64, sqlx::Error> {
        match self {
            Conn::Postgres(conn) => {
                let query = bind_postgres!(sqlx::query::<Postgres>(sql.postgres), args);
                query.execute(conn).await.map(|done| done.rows_affected())
            }
            Conn::Sqlite(conn) => {
                let query = sqlx::query::<Sqlite>(sql.sqlite);
                let query = bind_sqlite!(query, args);
                query.execute(conn).await.map(|done| done.rows_affected())
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
