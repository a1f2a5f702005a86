//! How often a method was called, for the rates of the catalogue. A sliding log: the times of the counted calls stand in
//! one row, so that no window of the rate's length ever holds more than its count, on however many servers.

use chrono::TimeDelta;

use super::dialect::LOCK_RATE;
use super::scoped::{Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    ENSURE: OfPlatform = Statement::new(
        "insert into rpc_rate (method, subject, hits, updated_at)
         values ($1, $2, $3, $4)
         on conflict (method, subject) do nothing",
    );
    FIND: OfPlatform = Statement::new(
        "select hits
         from rpc_rate
         where method = $1 and subject = $2",
    );
    UPDATE: OfPlatform = Statement::new(
        "update rpc_rate
         set hits = $3, updated_at = $4
         where method = $1 and subject = $2",
    );
    FORGET: OfPlatform = Statement::new(
        "delete from rpc_rate
         where (method, subject) in (
           select method, subject from rpc_rate where updated_at < $1 order by updated_at limit $2)",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    hits: Vec<u8>,
}

/// Counts one call of `subject`.
///
/// # Errors
/// `RateExceeded` when the window is full; nothing is counted then.
pub async fn charge<S: Scope>(
    tx: &mut Scoped<S>,
    method: &str,
    subject: &str,
    (count, window): (u16, TimeDelta),
    now: Timestamp,
) -> Result<(), Error> {
    let key = [method.into(), subject.into()];
    tx.execute(&ENSURE, &[&key[..], &[(&b""[..]).into(), now.into()]].concat()).await?;
    let mut hits = room(tx.optional(&LOCK_RATE, &key).await?, (count, window), now)?;
    hits.push(now);
    tx.execute(&UPDATE, &[&key[..], &[written(&hits).as_slice().into(), now.into()]].concat()).await.map(|_| ())
}

/// Forgets a call that was counted at `at`.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn uncount<S: Scope>(
    tx: &mut Scoped<S>,
    (method, subject): (&str, &str),
    at: Timestamp,
) -> Result<(), Error> {
    let key = [method.into(), subject.into()];
    let Some(row) = tx.optional::<Row, _>(&LOCK_RATE, &key).await? else { return Ok(()) };
    let mut hits = read(&row.hits);
    if let Some(place) = hits.iter().position(|hit| *hit == at) {
        hits.remove(place);
    }
    tx.execute(&UPDATE, &[&key[..], &[written(&hits).as_slice().into(), at.into()]].concat()).await.map(|_| ())
}

/// Deletes up to `limit` rows to which nothing was added since a time; how many it were.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget<S: Scope>(tx: &mut Scoped<S>, before: Timestamp, limit: i64) -> Result<u64, Error> {
    tx.execute(&FORGET, &[before.into(), limit.into()]).await
}

/// Whether one more call of `subject` would be counted now.
///
/// # Errors
/// `RateExceeded` when the window is full.
pub async fn look<S: Scope>(
    tx: &mut Scoped<S>,
    method: &str,
    subject: &str,
    rate: (u16, TimeDelta),
    now: Timestamp,
) -> Result<(), Error> {
    room(tx.optional(&FIND, &[method.into(), subject.into()]).await?, rate, now).map(|_| ())
}

/// The calls within the window, if there is room for one more.
fn room(row: Option<Row>, (count, window): (u16, TimeDelta), now: Timestamp) -> Result<Vec<Timestamp>, Error> {
    let since = now.after(-window);
    let mut hits: Vec<Timestamp> = row.map(|row| read(&row.hits)).unwrap_or_default();
    hits.retain(|hit| *hit > since);
    if hits.len() >= usize::from(count) {
        // The oldest of the last `count` calls must leave the window first.
        let first = hits[hits.len() - usize::from(count)];
        return Err(Error::RateExceeded { count, window, retry_after: first.after(window).since(now) });
    }
    Ok(hits)
}

/// Times as a row holds them: eight bytes each.
pub(super) fn written(hits: &[Timestamp]) -> Vec<u8> {
    hits.iter().flat_map(|hit| hit.micros().to_be_bytes()).collect()
}

/// The times that a row holds.
pub(super) fn read(bytes: &[u8]) -> Vec<Timestamp> {
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks.iter().map(|chunk| Timestamp::from_micros(i64::from_be_bytes(*chunk))).collect()
}
