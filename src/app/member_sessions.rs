//! Sessions of members, as an administrator of their tenant sees and ends them. A person's sessions are not the tenant's:
//! it sees those that are at work in it, and what it ends is their work in it. They go on in the person's other tenants,
//! and the person comes back by signing in again.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::TenantCtx;
use crate::domain::id::{SessionId, UserId};
use crate::domain::membership::may_touch;
use crate::domain::session::{SessionKind, ShownSession};
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{InTenant, memberships, sessions};

/// That it is done.
#[derive(Serialize, Deserialize)]
struct Done;

impl App {
    /// A member's live sessions that are at work in the tenant, after one of them, in the order in which they began.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`.
    pub async fn list_member_sessions(
        &self,
        t: &TenantCtx,
        user: UserId,
        span: (Uuid, i64),
    ) -> Result<Vec<ShownSession>, Error> {
        let mut tx = self.store.read(InTenant(t.tenant_id())).await?;
        let member = memberships::get(&mut tx, user).await?;
        drop(tx);
        if t.user_id() != Some(user) {
            let own = t.ctx.caller.rank(t.member.as_ref().map(|member| &member.roles), &t.roles);
            may_touch(own, t.roles.rank_of(&member.roles))?;
        }
        self.store.list_sessions_in(t.tenant_id(), user, span, t.ctx.now).await
    }

    /// Ends a member's work in the tenant: in one session, or, when none is named, in all that have begun by now.
    ///
    /// # Errors
    /// `MemberNotFound`, `RankTooLow`; `SessionNotFound` for one that is not at work in the tenant.
    pub async fn revoke_member_sessions(
        &self,
        t: &TenantCtx,
        user: UserId,
        session: Option<SessionId>,
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        let tenant_id = t.tenant_id();
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let seen = match session {
            None => true,
            Some(session) => self.store.find_session(user, session, None).await?.found.is_some_and(|(session, _)| {
                session.active_tenant == Some(tenant_id) && session.kind == SessionKind::SignIn
            }),
        };
        let mut open = match self.begin(&t.ctx, Some(tenant_id), InTenant(tenant_id), key).await? {
            Begun::Done(Done) => return Ok(()),
            Begun::Open(open) => open,
        };
        let (_, own) = self.lock_tenant(&mut open.tx, t).await?;
        let member = memberships::get(&mut open.tx, user).await?;
        if t.user_id() != Some(user) {
            may_touch(own.rank, own.roles.rank_of(&member.roles))?;
        }
        if !seen {
            return Err(Error::SessionNotFound);
        }
        sessions::end_in_tenant(&mut open.tx, user, session, t.ctx.now).await?;
        let which = session.map_or_else(|| "all".to_owned(), |session| session.to_string());
        let audit = Audit::of(user.0).set("sessions_ended", which);
        self.finish(open, &t.ctx, audit, Done).await.map(|Done| ())
    }
}
