//! Rows of links that were sent by mail. One of a kind a person: a newer one takes the place of an older, and one that is
//! used is deleted in the transaction of what it opens.

use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfUser, Statement, statements};
use crate::domain::link::{Link, Purpose};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    PUT: OfUser = Statement::new(
        "insert into mail_link (user_id, purpose, digest, body, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (user_id, purpose) do update
         set digest = excluded.digest, body = excluded.body, created_at = excluded.created_at,
             expires_at = excluded.expires_at",
    );
    FIND: OfUser = Statement::new(
        "select body
         from mail_link
         where user_id = $1 and purpose = $2 and digest = $3 and expires_at > $4",
    );
    TAKE: OfUser = Statement::new(
        "delete from mail_link
         where user_id = $1 and purpose = $2 and digest = $3 and expires_at > $4
         returning body",
    );
    VOID: OfUser = Statement::new(
        "delete from mail_link
         where user_id = $1",
    );
    DELETE_EXPIRED: OfUser = Statement::new(
        "delete from mail_link
         where user_id = $1 and expires_at <= $2",
    );
    FIND_LAST_EXPIRY: OfUser = Statement::new(
        "select max(expires_at) as expires_at
         from mail_link
         where user_id = $1",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    body: String,
}

#[derive(sqlx::FromRow)]
struct ExpiryRow {
    expires_at: Option<Timestamp>,
}

fn read<T: serde::de::DeserializeOwned>(row: Option<Row>) -> Result<Option<T>, Error> {
    let body = row.map(|row| serde_json::from_str(&row.body));
    body.transpose().map_err(|_| Error::internal("a link's row does not read"))
}

/// Writes a link, in the place of an older one of the same purpose.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn put<S: Scope>(tx: &mut Scoped<S>, link: &Link, now: Timestamp) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    let body = link.body.to_string();
    let args = [
        link.purpose.number().into(),
        link.digest[..].into(),
        body.as_str().into(),
        now.into(),
        link.expires_at.into(),
    ];
    tx.execute(&PUT, &args).await.map(|_| ())
}

/// What a link is about, unless it is over.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find<T, S: Scope>(
    tx: &mut Scoped<S>,
    (purpose, digest): (Purpose, &[u8]),
    now: Timestamp,
) -> Result<Option<T>, Error>
where
    T: serde::de::DeserializeOwned,
    Statement<OfUser>: RunsIn<S>,
{
    read(tx.optional(&FIND, &[purpose.number().into(), digest.into(), now.into()]).await?)
}

/// `find`, and uses the link up: of any number at once one finds it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn take<T, S: Scope>(
    tx: &mut Scoped<S>,
    (purpose, digest): (Purpose, &[u8]),
    now: Timestamp,
) -> Result<Option<T>, Error>
where
    T: serde::de::DeserializeOwned,
    Statement<OfUser>: RunsIn<S>,
{
    read(tx.optional(&TAKE, &[purpose.number().into(), digest.into(), now.into()]).await?)
}

/// Voids all links of an account: what was sent before its password or address was another one.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn void<S: Scope>(tx: &mut Scoped<S>) -> Result<(), Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&VOID, &[]).await.map(|_| ())
}

/// Deletes links that are over; when the last of the others is.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete_expired<S: Scope>(tx: &mut Scoped<S>, now: Timestamp) -> Result<Option<Timestamp>, Error>
where
    Statement<OfUser>: RunsIn<S>,
{
    tx.execute(&DELETE_EXPIRED, &[now.into()]).await?;
    let row: Option<ExpiryRow> = tx.optional(&FIND_LAST_EXPIRY, &[]).await?;
    Ok(row.and_then(|row| row.expires_at))
}
