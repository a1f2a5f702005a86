//! First answers, kept for repetitions: the row is claimed first in the mutation's own transaction, so a parallel
//! duplicate waits for it and a rolled back call leaves nothing.

use chrono::TimeDelta;
use uuid::Uuid;

use super::scoped::{Scope, Scoped};
use super::tx::{OfCaller, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

/// How long a `request_id` is remembered.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// Whose call a claim is about, and which.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The tenant; nil when the method has none.
    pub tenant: Uuid,
    /// As in access.proto.
    pub caller_kind: i64,
    /// The holder of the credential.
    pub caller: Uuid,
    /// `Service/Method`.
    pub method: &'a str,
    /// SHA-256 of the `request_id`.
    pub request_hash: &'a [u8],
    /// MAC of the body, secrets left out.
    pub body_mac: &'a [u8],
}

/// What a claim found.
pub enum Claimed {
    /// Nothing: this is the first call.
    First,
    /// The sealed answer of the first call.
    Again(Vec<u8>),
}

statements! {
    CLAIM: OfCaller = Statement::new(
        "insert into idempotency (tenant_id, caller_kind, caller_id, method, request_hash, body_mac, answer,
                                  expires_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (tenant_id, caller_kind, caller_id, method, request_hash) do nothing",
    );
    FIND: OfCaller = Statement::new(
        "select body_mac, answer, expires_at, created_at
         from idempotency
         where tenant_id = $1 and caller_kind = $2 and caller_id = $3 and method = $4 and request_hash = $5",
    );
    FORGET: OfCaller = Statement::new(
        "delete from idempotency
         where tenant_id = $1 and caller_kind = $2 and caller_id = $3 and method = $4 and request_hash = $5
           and created_at <= $6",
    );
    KEEP: OfCaller = Statement::new(
        "update idempotency
         set answer = $6, expires_at = $7
         where tenant_id = $1 and caller_kind = $2 and caller_id = $3 and method = $4 and request_hash = $5",
    );
}

#[derive(sqlx::FromRow)]
struct Row {
    body_mac: Vec<u8>,
    answer: Vec<u8>,
    expires_at: Timestamp,
    created_at: Timestamp,
}

/// Claims a `request_id` for this call, or finds the first call's answer.
///
/// # Errors
/// `RequestIdReused` for another body, `AnswerExpired` when the answer held a secret and its time is over.
pub async fn claim<S: Scope>(tx: &mut Scoped<S>, claim: &Claim<'_>, now: Timestamp) -> Result<Claimed, Error> {
    let who = [
        claim.tenant.into(),
        claim.caller_kind.into(),
        claim.caller.into(),
        claim.method.into(),
        claim.request_hash.into(),
    ];
    // An unfinished claim is seen by nobody: it is committed with its answer or not at all.
    let fresh = [claim.body_mac.into(), (&b""[..]).into(), now.after(KEPT).into(), now.into()];
    let claiming = [&who[..], &fresh].concat();
    if tx.execute(&CLAIM, &claiming).await? == 1 {
        return Ok(Claimed::First);
    }
    let again = || Error::DatabaseUnavailable("another call with this request_id came between".into());
    let row: Row = tx.optional(&FIND, &who).await?.ok_or_else(again)?;
    let forget_before = now.after(-KEPT);
    if row.created_at <= forget_before {
        tx.execute(&FORGET, &[&who[..], &[forget_before.into()]].concat()).await?;
        // Of two that forget at once one claims.
        return if tx.execute(&CLAIM, &claiming).await? == 1 { Ok(Claimed::First) } else { Err(again()) };
    }
    if row.body_mac != claim.body_mac {
        return Err(Error::RequestIdReused);
    }
    if row.expires_at <= now {
        return Err(Error::AnswerExpired);
    }
    Ok(Claimed::Again(row.answer))
}

/// Keeps the sealed answer of the call that claimed.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn keep<S: Scope>(
    tx: &mut Scoped<S>,
    claim: &Claim<'_>,
    sealed: &[u8],
    expires_at: Timestamp,
) -> Result<(), Error> {
    let args = [
        claim.tenant.into(),
        claim.caller_kind.into(),
        claim.caller.into(),
        claim.method.into(),
        claim.request_hash.into(),
        sealed.into(),
        expires_at.into(),
    ];
    tx.execute(&KEEP, &args).await.map(|_| ())
}
