//! The end of every sign-in: however somebody has proven who they are, here it becomes a session with its tokens.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::App;
use crate::ctx::Ctx;
use crate::decide::token::Minted;
use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::refresh_token::RefreshToken;
use crate::domain::secret::{Secret, sealed};
use crate::domain::session::{Device, ENDED_KEPT, Proof, Session, SessionKind, Terms};
use crate::error::Error;
use crate::store::tx::{OfUser, Statement};
use crate::store::{Scope, Scoped, scoped::RunsIn, sessions};
use crate::time::Timestamp;

/// A sign-in to be: everything that becomes its session.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// Who.
    pub user_id: UserId,
    /// How they proved it.
    pub proof: Proof,
    /// The tenant to work in.
    pub tenant: Option<TenantId>,
    /// The only tenant that it opens; for sign-ins by a tenant's own provider.
    pub bound_tenant: Option<TenantId>,
    /// The connection with that provider.
    pub connection: Option<Uuid>,
    /// Whether it is to outlast the day.
    pub remember: bool,
    /// How long it may last.
    pub terms: Terms,
    /// From where.
    pub device: Device,
}

/// A session that has begun, with the secret that goes on with it. Part of an answer that is kept: sealed.
#[derive(Serialize, Deserialize)]
pub struct Opened {
    /// The session.
    pub session: Session,
    /// Its first refresh token.
    #[serde(with = "sealed")]
    pub refresh_token: Secret<String>,
}

/// What somebody who has signed in is given.
pub struct Tokens {
    /// The session.
    pub session: Session,
    /// What proves it in calls.
    pub access: Minted,
    /// What gets the next ones.
    pub refresh: Secret<String>,
}

impl App {
    /// Begins a session in the transaction of the sign-in. Beyond the number that an account may have, those that were not
    /// refreshed for longest end: of those that open the same tenant only, or of those that open all.
    ///
    /// # Errors
    /// `CredentialInvalid` when the account was disabled, or its sessions were ended, since the proof was looked at.
    pub async fn open_session<S: Scope>(&self, tx: &mut Scoped<S>, ctx: &Ctx, sign_in: SignIn) -> Result<Opened, Error>
    where
        Statement<OfUser>: RunsIn<S>,
    {
        let SignIn { user_id, proof, tenant, bound_tenant, connection, remember, terms, device } = sign_in;
        if sessions::lock_account(tx).await? != Some(proof.epoch) {
            return Err(Error::CredentialInvalid);
        }
        sessions::delete_ended(tx, ctx.now.after(-ENDED_KEPT)).await?;
        sessions::revoke_beyond(tx, self.sessions.per_account - 1, (proof.epoch, bound_tenant), ctx.now).await?;
        let session = Session {
            session_id: SessionId(ctx.new_id()),
            user_id,
            kind: SessionKind::SignIn,
            epoch: proof.epoch,
            active_tenant: tenant,
            bound_tenant,
            methods: proof.methods,
            aal: proof.aal,
            // Another clock may be ahead of ours.
            auth_time: proof.at.map_or(ctx.now, |at| at.min(ctx.now)),
            created_at: ctx.now,
            remember,
            idle_expires_at: ctx.now.after(terms.idle),
            absolute_expires_at: ctx.now.after(terms.length),
            revoked_at: None,
            connection,
            operator: None,
        };
        let token = RefreshToken::generate(&self.master, user_id, session.session_id, 0);
        let source = ctx.source.map(|ip| ip.to_string());
        sessions::insert(tx, &session, Some(&token.digest()), &device, source.as_deref()).await?;
        Ok(Opened { session, refresh_token: token.text })
    }

    /// The tokens of a session that has begun.
    ///
    /// # Errors
    /// Internal, when the key does not sign.
    pub fn tokens(&self, opened: Opened, now: Timestamp) -> Result<Tokens, Error> {
        let Opened { session, refresh_token } = opened;
        let access = self.plane.tokens.mint(&session, session.active_tenant, now, None)?;
        Ok(Tokens { session, access, refresh: refresh_token })
    }
}
