//! A person's own sessions: which there are, and their end.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use super::mutation::{Begun, RequestKey};
use crate::ctx::{Ctx, SignedIn};
use crate::domain::id::SessionId;
use crate::domain::session::ShownSession;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::{AsUser, sessions};

/// That it is done.
#[derive(Serialize, Deserialize)]
struct Done;

impl App {
    /// The person's live sessions after one of them, in the order in which they began.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_sessions(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        span: (Uuid, i64),
    ) -> Result<Vec<ShownSession>, Error> {
        let user = person.user.user_id;
        let mut tx = self.store.read(AsUser(user)).await?;
        sessions::list(&mut tx, user, span, ctx.now).await
    }

    /// Ends the session of the call.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn logout(&self, ctx: &Ctx, person: &SignedIn, key: Option<RequestKey>) -> Result<(), Error> {
        self.end_session(ctx, person, person.session.session_id, ("logout", key)).await
    }

    /// Ends one of the person's sessions; one that has ended already stays as it is.
    ///
    /// # Errors
    /// `SessionNotFound`.
    pub async fn revoke_session(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        session: SessionId,
        key: Option<RequestKey>,
    ) -> Result<(), Error> {
        self.end_session(ctx, person, session, ("revoked", key)).await
    }

    async fn end_session(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        session: SessionId,
        (reason, key): (&'static str, Option<RequestKey>),
    ) -> Result<(), Error> {
        let mut open = match self.begin(ctx, None, AsUser(person.user.user_id), key).await? {
            Begun::Done(Done) => return Ok(()),
            Begun::Open(open) => open,
        };
        // An impersonation is no sign-in of the person's, and yet its own to end.
        let own = session == person.session.session_id;
        if !own && !sessions::is_there(&mut open.tx, session).await? {
            return Err(Error::SessionNotFound);
        }
        let ended = sessions::revoke(&mut open.tx, session, reason, ctx.now).await?;
        let audit = Audit::of(session.0);
        let audit = if ended { audit.set("revoke_reason", reason) } else { audit };
        self.finish(open, ctx, audit, Done).await.map(|Done| ())
    }

    /// Ends all of the person's sessions, or all but that of the call; how many it were.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn revoke_all_sessions(
        &self,
        ctx: &Ctx,
        person: &SignedIn,
        except_current: bool,
        key: Option<RequestKey>,
    ) -> Result<usize, Error> {
        let mut open = match self.begin(ctx, None, AsUser(person.user.user_id), key).await? {
            Begun::Done(first) => return Ok(first),
            Begun::Open(open) => open,
        };
        // A sign-in that is under way comes before, and ends too, or after.
        sessions::lock_account(&mut open.tx).await?;
        let except = except_current.then_some(person.session.session_id);
        let ended = sessions::revoke_all(&mut open.tx, except, "revoked", ctx.now).await?;
        let audit = Audit::of(person.user.user_id.0).set("sessions_ended", ended);
        self.finish(open, ctx, audit, ended).await
    }
}
