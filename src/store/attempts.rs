//! Counted attempts. As rates are counted, but by a MAC of whose they are, and cleared away: a sliding log of times in one
//! row a subject.

use super::dialect::LOCK_ATTEMPT;
use super::rates;
use super::scoped::{Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    ENSURE: OfPlatform = Statement::new(
        "insert into attempt (subject, hits, updated_at)
         values ($1, $2, $3)
         on conflict (subject) do nothing",
    );
    FIND: OfPlatform = Statement::new(
        "select hits
         from attempt
         where subject = $1",
    );
    UPDATE: OfPlatform = Statement::new(
        "update attempt
         set hits = $2, updated_at = $3
         where subject = $1",
    );
    FORGET: OfPlatform = Statement::new(
        "delete from attempt
         where subject in (select subject from attempt where updated_at < $1 order by updated_at limit $2)",
    );
}

/// Whose attempts are counted together: a MAC, which names nobody.
pub type Subject = [u8; 32];

#[derive(sqlx::FromRow)]
struct Row {
    hits: Vec<u8>,
}

fn read(row: Option<Row>) -> Vec<Timestamp> {
    row.map(|row| rates::read(&row.hits)).unwrap_or_default()
}

/// The counted attempts of a subject.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn find<S: Scope>(tx: &mut Scoped<S>, subject: &Subject) -> Result<Vec<Timestamp>, Error> {
    Ok(read(tx.optional(&FIND, &[subject[..].into()]).await?))
}

/// `find`, and keeps others from counting until the transaction ends.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn lock<S: Scope>(tx: &mut Scoped<S>, subject: &Subject, now: Timestamp) -> Result<Vec<Timestamp>, Error> {
    tx.execute(&ENSURE, &[subject[..].into(), (&b""[..]).into(), now.into()]).await?;
    Ok(read(tx.optional(&LOCK_ATTEMPT, &[subject[..].into()]).await?))
}

/// Writes the counted attempts of a subject that was locked. The row stays, also without any: others may wait for it.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn put<S: Scope>(
    tx: &mut Scoped<S>,
    subject: &Subject,
    hits: &[Timestamp],
    now: Timestamp,
) -> Result<(), Error> {
    let bytes = rates::written(hits);
    tx.execute(&UPDATE, &[subject[..].into(), bytes.as_slice().into(), now.into()]).await.map(|_| ())
}

/// Deletes up to `limit` rows that were last written before a time; how many it were.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget<S: Scope>(tx: &mut Scoped<S>, before: Timestamp, limit: i64) -> Result<u64, Error> {
    tx.execute(&FORGET, &[before.into(), limit.into()]).await
}
