//! The reads that cross tenants, all of them: who is behind a credential, whose a slug is, a person's tenants, operator
//! lists, names of members. On PostgreSQL they run as `tenantry_system`, which may read these columns and write nothing.

mod keys;
mod members;
mod people;
mod plans;
mod tenants;
mod usage;
mod work;

pub use keys::{Digests, StoredApiKey, StoredKey};
pub use members::{MyInvitation, MyTenant};
pub use people::{ImportedUserRow, PasswordPolicy};
pub use plans::Over;
pub use tenants::{GuardedTenant, ImportedPlaceRow, SlugHolder, TenantFilter};
pub use usage::TopTenant;

use super::Store;
use super::tx::{AcrossTenants, Listed, Record, Statement, Value, statements};
use crate::domain::id::{TenantId, UserId};
use crate::domain::name::Email;
use crate::domain::user::{Account, AccountStatus, User};
use crate::error::Error;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};
use uuid::Uuid;

/// A query of one row, with the place in the feed that it is as of: one statement, so one snapshot. What follows `select`.
macro_rules! seen {
    ($($sql:expr),+ $(,)?) => {
        concat!(
            "select h.head, q.*
             from (select max(seq) as head from change) h
             left join (select cast(1 as bigint) as present, ", $($sql,)+ ") q on true",
        )
    };
}
use seen;

statements! {
    /// Whether the database answers.
    ONE: AcrossTenants = Statement::new("select cast(1 as bigint) as one");
}

/// The statements of all these files, for the tests.
pub(super) const ALL: [&[Listed]; 8] = [
    STATEMENTS,
    keys::STATEMENTS,
    members::STATEMENTS,
    people::STATEMENTS,
    plans::STATEMENTS,
    tenants::STATEMENTS,
    usage::STATEMENTS,
    work::STATEMENTS,
];

#[derive(sqlx::FromRow)]
struct One {
    #[expect(dead_code, reason = "that there is a row is all that matters")]
    one: i64,
}

#[derive(sqlx::FromRow)]
struct AccountRow {
    #[sqlx(flatten)]
    user: UserRow,
    status: i64,
    session_epoch: i64,
    default_tenant_id: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: Uuid,
    email: String,
    display_name: String,
}

#[derive(sqlx::FromRow)]
struct TenantIdRow {
    tenant_id: Uuid,
}

/// What was found, if anything, as of a place in the feed.
#[derive(Debug, Clone)]
pub struct Seen<T> {
    /// Everything up to here has been seen, and nothing behind it.
    pub head: i64,
    /// What was there.
    pub found: Option<T>,
}

impl<'r, R: Row, T: FromRow<'r, R>> FromRow<'r, R> for Seen<T>
where
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let present: Option<i64> = row.try_get("present")?;
        Ok(Self { head: row.try_get("head")?, found: present.map(|_| T::from_row(row)).transpose()? })
    }
}

impl<T> Seen<T> {
    /// With something else in it.
    fn try_map<U>(self, map: impl FnOnce(T) -> Result<U, Error>) -> Result<Seen<U>, Error> {
        Ok(Seen { head: self.head, found: self.found.map(map).transpose()? })
    }
}

impl Store {
    /// The row of a query that gives one in any case.
    async fn see<T: Record>(&self, sql: &Statement<AcrossTenants>, args: &[Value<'_>]) -> Result<Seen<T>, Error>
    where
        Seen<T>: Record,
    {
        let seen = self.across_tenants().await?.optional(sql, args).await?;
        seen.ok_or_else(|| Error::internal("the change feed is empty"))
    }
}

fn user(row: UserRow) -> Result<User, Error> {
    Ok(User {
        user_id: UserId(row.user_id),
        email: Email::parse(&row.email).map_err(|_| Error::internal("an account's row holds no address"))?,
        display_name: row.display_name,
    })
}

fn account(row: AccountRow) -> Result<Account, Error> {
    Ok(Account {
        status: match row.status {
            1 => AccountStatus::Active,
            3 => AccountStatus::Deleted,
            _ => AccountStatus::Disabled,
        },
        session_epoch: row.session_epoch,
        default_tenant: row.default_tenant_id.map(TenantId),
        user: user(row.user)?,
    })
}

impl Store {
    /// Whether the database answers; what readiness follows.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn ping(&self) -> Result<(), Error> {
        self.across_tenants().await?.all::<One>(&ONE, &[]).await.map(|_| ())
    }
}
