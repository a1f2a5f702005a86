//! Impersonation: an operator takes a member's place for a while, to see what the member sees. Everything that is done then
//! is the operator's in the tenant's audit log, and what the member alone may do stays the member's.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::{Caller, TenantCtx};
use crate::domain::id::{SessionId, UserId};
use crate::domain::impersonation::Impersonation;
use crate::domain::membership::MemberStatus;
use crate::domain::secret::{Secret, sealed};
use crate::domain::session::{Device, Session, SessionKind};
use crate::domain::user::AccountStatus;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, InTenantAsUser, impersonations, memberships, sessions};

/// What an operator is given: kept, sealed, for a repetition.
#[derive(Serialize, Deserialize)]
pub struct Impersonating {
    /// What the tenant sees.
    pub impersonation: Impersonation,
    /// The session.
    pub session: Session,
    /// What proves it.
    #[serde(with = "sealed")]
    pub token: Secret<String>,
    /// How long the token is good for, in seconds.
    pub expires_in: i64,
}

impl App {
    /// Takes a member's place.
    ///
    /// # Errors
    /// `MemberNotFound`, `WrongState` when the member is suspended or the account closed.
    pub async fn impersonate_member(
        &self,
        t: &TenantCtx,
        user_id: UserId,
        reason: String,
        ttl: TimeDelta,
        key: Option<RequestKey>,
    ) -> Result<Impersonating, Error> {
        let Caller::Operator(operator) = &t.ctx.caller else {
            return Err(Error::CallerKindRefused(t.ctx.caller.kind()));
        };
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let account = self.store.find_account_by_id(user_id).await?.found.ok_or(Error::MemberNotFound)?;
        let scope = InTenantAsUser(tenant_id, user_id);
        let mut open = match self.begin(&t.ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        let member = memberships::get(&mut open.tx, user_id).await?;
        if member.status != MemberStatus::Active || account.status != AccountStatus::Active {
            return Err(Error::WrongState { state: "suspended or closed", wanted: "an active member" });
        }
        let now = t.ctx.now;
        let end = operator.expires_at.map_or(now.after(ttl), |key_ends| key_ends.min(now.after(ttl)));
        let session = Session {
            session_id: SessionId(t.ctx.new_id()),
            user_id,
            epoch: account.session_epoch,
            active_tenant: Some(tenant_id),
            kind: SessionKind::Impersonation,
            methods: Vec::new(),
            aal: 1,
            auth_time: now,
            created_at: now,
            remember: false,
            idle_expires_at: end,
            absolute_expires_at: end,
            revoked_at: None,
            bound_tenant: Some(tenant_id),
            connection: None,
            operator: Some(operator.platform_key_id),
        };
        // Not the person's own: no other session gives way to it.
        let device = Device::default();
        sessions::insert(&mut open.tx, &session, None, &device, None).await?;
        let impersonation = Impersonation {
            session_id: session.session_id,
            user_id,
            operator: operator.platform_key_id,
            operator_name: operator.display_name.clone(),
            reason,
            started_at: now,
            expires_at: end,
            ended_at: None,
        };
        impersonations::insert(&mut open.tx, &impersonation).await?;
        let minted = self.plane.tokens.mint(&session, Some(tenant_id), now, None)?;
        let audit = Audit::of(user_id.0)
            .set("impersonation_id", session.session_id.to_string())
            .set("reason", impersonation.reason.as_str())
            .set("expires_at", end.to_string());
        let answer =
            Impersonating { impersonation, session, token: minted.token, expires_in: minted.expires_in.num_seconds() };
        self.finish_secret(open, &t.ctx, audit, answer).await
    }

    /// Impersonations of the tenant's members, newest first, before one of them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_impersonations(
        &self,
        t: &TenantCtx,
        (before, limit): (Uuid, i64),
    ) -> Result<Vec<Impersonation>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        impersonations::list(&mut tx, before, limit).await
    }

    /// Ends an impersonation at once.
    ///
    /// # Errors
    /// `ImpersonationNotFound` when there is none that goes on.
    pub async fn end_impersonation(
        &self,
        t: &TenantCtx,
        id: SessionId,
        key: Option<RequestKey>,
    ) -> Result<Impersonation, Error> {
        let tenant_id = t.tenant_id();
        let mut tx = self.store.read(InTenant(tenant_id)).await?;
        let user_id = impersonations::get(&mut tx, id).await?.user_id;
        drop(tx);
        let scope = InTenantAsUser(tenant_id, user_id);
        let mut open = match self.begin(&t.ctx, Some(tenant_id), scope, key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        impersonations::end(&mut open.tx, id, t.ctx.now).await?;
        sessions::revoke(&mut open.tx, id, "impersonation ended", t.ctx.now).await?;
        let ended = impersonations::get(&mut open.tx, id).await?;
        let audit = Audit::of(user_id.0).set("impersonation_id", id.to_string()).set("ended", true);
        self.finish(open, &t.ctx, audit, ended).await
    }
}
