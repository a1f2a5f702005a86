//! How a mutation runs: the `request_id` is claimed, the call is counted against its rate, then the work, then audit,
//! changes, answer and commit, all in one transaction. A repetition gets the first answer and does nothing.

use std::net::IpAddr;

use chrono::TimeDelta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::App;
use crate::ctx::{Caller, Ctx, WRITTEN, Written};
use crate::domain::catalogue::{RateSubject, RpcRate};
use crate::domain::id::TenantId;
use crate::domain::secret::sha256;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::idempotency::{self, Claim, Claimed};
use crate::store::{OnPlatform, Scope, Scoped, rates};

/// How long an answer is repeated.
const ANSWER_KEPT: TimeDelta = TimeDelta::hours(24);

/// How long an answer that holds a secret is repeated.
const SECRET_KEPT: TimeDelta = TimeDelta::minutes(10);

/// A `request_id` with what was asked.
#[derive(Debug, Clone, Copy)]
pub struct RequestKey {
    /// The client's id of the call.
    pub request_id: Uuid,
    /// MAC of the body, secrets left out.
    pub body_mac: [u8; 32],
}

/// A mutation that has begun, or the answer that it had before.
pub enum Begun<T, S> {
    /// Go on, and `finish`.
    Open(Box<Mutation<S>>),
    /// The first answer.
    Done(T),
}

/// An open mutation.
pub struct Mutation<S> {
    /// Its transaction.
    pub tx: Scoped<S>,
    claim: Option<OwnedClaim>,
}

struct OwnedClaim {
    tenant: Uuid,
    caller_kind: i64,
    caller: Uuid,
    method: &'static str,
    request_id: Uuid,
    request_hash: [u8; 32],
    body_mac: [u8; 32],
}

impl OwnedClaim {
    fn borrow(&self) -> Claim<'_> {
        Claim {
            tenant: self.tenant,
            caller_kind: self.caller_kind,
            caller: self.caller,
            method: self.method,
            request_hash: &self.request_hash,
            body_mac: &self.body_mac,
        }
    }
}

impl App {
    /// Begins a mutation in `scope`. `tenant` is the tenant of the call; none when the method has none.
    ///
    /// # Errors
    /// `RequestIdReused`, `AnswerExpired`, `RateExceeded`, `DatabaseUnavailable`.
    pub async fn begin<T: DeserializeOwned, S: Scope>(
        &self,
        ctx: &Ctx,
        tenant: Option<TenantId>,
        scope: S,
        key: Option<RequestKey>,
    ) -> Result<Begun<T, S>, Error> {
        let mut tx = self.store.write(scope).await?;
        let claim = key.map(|key| OwnedClaim {
            tenant: tenant.map_or(Uuid::nil(), |t| t.0),
            caller_kind: ctx.caller.kind_number(),
            // Nobody has signed in yet at a sign-up: the account to be is the caller.
            caller: ctx.caller.principal().or(scope.user().map(|u| u.0)).unwrap_or_default(),
            method: ctx.method,
            request_id: key.request_id,
            request_hash: sha256(key.request_id.as_bytes()),
            body_mac: key.body_mac,
        });
        if let Some(claim) = &claim
            && let Claimed::Again(sealed) = idempotency::claim(&mut tx, &claim.borrow(), ctx.now).await?
        {
            drop(tx);
            self.note_repetition().await;
            return self.open_answer(claim, &sealed).map(Begun::Done);
        }
        self.charge(&mut tx, ctx, tenant).await?;
        Ok(Begun::Open(Box::new(Mutation { tx, claim })))
    }

    /// The first call may have been at another server: what it has left is somewhere up to the end of the feed.
    async fn note_repetition(&self) {
        let read = self.plane.memory.read_on().await;
        let revision = read.ok().and_then(|()| self.plane.memory.basis().revision);
        let _ = WRITTEN.try_with(|last| last.set(revision.map_or(Written::Somewhere, Written::UpTo)));
    }

    /// Keeps the answer and commits.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn finish<T: Serialize, S: Scope>(
        &self,
        mutation: Box<Mutation<S>>,
        ctx: &Ctx,
        audit: Audit,
        answer: T,
    ) -> Result<T, Error> {
        self.finish_until(mutation, ctx, audit, answer, ANSWER_KEPT).await
    }

    /// `finish` for an answer that holds a secret.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn finish_secret<T: Serialize, S: Scope>(
        &self,
        mutation: Box<Mutation<S>>,
        ctx: &Ctx,
        audit: Audit,
        answer: T,
    ) -> Result<T, Error> {
        self.finish_until(mutation, ctx, audit, answer, SECRET_KEPT).await
    }

    async fn finish_until<T: Serialize, S: Scope>(
        &self,
        mutation: Box<Mutation<S>>,
        ctx: &Ctx,
        audit: Audit,
        answer: T,
        kept: TimeDelta,
    ) -> Result<T, Error> {
        let Mutation { mut tx, claim } = *mutation;
        if let Some(claim) = claim {
            let plain = serde_json::to_vec(&answer).map_err(|e| Error::Internal(e.to_string().into()))?;
            let sealed = self.master.seal(&[b"answer", claim.request_id.as_bytes()], claim.method.as_bytes(), &plain);
            idempotency::keep(&mut tx, &claim.borrow(), &sealed, ctx.now.after(kept)).await?;
        }
        tx.commit(ctx, audit).await?;
        Ok(answer)
    }

    fn open_answer<T: DeserializeOwned>(&self, claim: &OwnedClaim, sealed: &[u8]) -> Result<T, Error> {
        let purpose: [&[u8]; 2] = [b"answer", claim.request_id.as_bytes()];
        let plain = self.master.open(&purpose, claim.method.as_bytes(), sealed);
        let plain = plain.ok_or_else(|| Error::internal("a kept answer does not open under this master key"))?;
        serde_json::from_slice(&plain).map_err(|e| Error::Internal(e.to_string().into()))
    }

    /// The rates that a call counts against, each with whose calls it is counted with.
    fn rates(&self, ctx: &Ctx, tenant: Option<TenantId>) -> Vec<(RpcRate, String)> {
        let catalogue = self.plane.catalogues.seen();
        let of_method = catalogue.definition.rpc_rates.iter().filter(|rate| rate.method == ctx.method);
        of_method.filter_map(|rate| Some((rate.clone(), subject(rate, ctx, tenant)?))).collect()
    }

    /// Counts a call against the rates of its method, in the transaction of the call.
    async fn charge<S: Scope>(&self, tx: &mut Scoped<S>, ctx: &Ctx, tenant: Option<TenantId>) -> Result<(), Error> {
        for (rate, subject) in self.rates(ctx, tenant) {
            rates::charge(tx, ctx.method, &subject, (rate.count, rate.window()), ctx.now).await?;
        }
        Ok(())
    }

    /// Whether a call would be within its rates now, before something expensive is done for it. Counts nothing.
    ///
    /// # Errors
    /// `RateExceeded`, `DatabaseUnavailable`.
    pub async fn look_at_rate(&self, ctx: &Ctx, tenant: Option<TenantId>) -> Result<(), Error> {
        let rates = self.rates(ctx, tenant);
        if rates.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.read(OnPlatform).await?;
        for (rate, subject) in rates {
            rates::look(&mut tx, ctx.method, &subject, (rate.count, rate.window()), ctx.now).await?;
        }
        Ok(())
    }

    /// Counts a call by itself: one that changes nothing, or a refused one that told whether something exists.
    ///
    /// # Errors
    /// `RateExceeded`, `DatabaseUnavailable`.
    pub async fn charge_alone(&self, ctx: &Ctx, tenant: Option<TenantId>) -> Result<(), Error> {
        if self.rates(ctx, tenant).is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write(OnPlatform).await?;
        self.charge(&mut tx, ctx, tenant).await?;
        tx.commit_unaudited(ctx.now).await
    }
}

impl App {
    /// Refuses a call that told whether something exists, so it counts against its rate like one that worked.
    ///
    /// # Errors
    /// Always: `error`, or `RateExceeded` when there were too many.
    pub async fn refuse_counted<T>(&self, ctx: &Ctx, tenant: Option<TenantId>, error: Error) -> Result<T, Error> {
        self.charge_alone(ctx, tenant).await?;
        Err(error)
    }
}

/// Whose calls a rate counts this one with; none when the caller is exempt: operators are.
fn subject(rate: &RpcRate, ctx: &Ctx, tenant: Option<TenantId>) -> Option<String> {
    if matches!(ctx.caller, Caller::Operator(_) | Caller::System) {
        return None;
    }
    let source = || ctx.source.map_or_else(|| "source:unknown".to_owned(), |ip| format!("source:{}", network(ip)));
    Some(match rate.per {
        RateSubject::Caller => ctx.caller.principal().map_or_else(source, |id| format!("caller:{id}")),
        RateSubject::Tenant => tenant.map_or_else(source, |id| format!("tenant:{id}")),
        RateSubject::Source => source(),
    })
}

/// The network that an address stands for: /24 of IPv4, /56 of IPv6, the usual share of one customer.
pub(super) fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[7..].fill(0);
            format!("{}/56", std::net::Ipv6Addr::from(octets))
        }
    }
}

/// Whether the etag that a caller sent is the resource's; empty asks for no check.
///
/// # Errors
/// `EtagMismatch`.
pub fn check_etag(sent: &str, version: i64) -> Result<(), Error> {
    if sent.is_empty() || sent == etag(version) { Ok(()) } else { Err(Error::EtagMismatch) }
}

/// The etag of a version.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("\"v{version}\"")
}
