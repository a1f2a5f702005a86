//! What a token is good for, for services that hold one and do not read it themselves (RFC 7662).

use super::App;
use crate::ctx::Ctx;
use crate::domain::id::TenantId;
use crate::domain::refresh_token::RefreshToken;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::Error;
use crate::time::Timestamp;

/// A token that is good.
pub struct Introspected {
    /// Whether it is a refresh token; else an access token.
    pub refresh: bool,
    /// Whose.
    pub user: User,
    /// In which session.
    pub session: Session,
    /// For which tenant; of a refresh token, the one that the next access token will name.
    pub tenant: Option<TenantId>,
    /// When the person proved who they are, as the token says.
    pub auth_time: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl App {
    /// What a token says, if it is good now: its session lives and, for a refresh token, nobody has exchanged it. Spends
    /// nothing. None tells nothing more, whatever is wrong.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn introspect_token(&self, ctx: &Ctx, text: &str) -> Result<Option<Introspected>, Error> {
        if let Some(token) = RefreshToken::parse(&self.master, text) {
            return self.introspect_refresh(ctx, &token).await;
        }
        if !text.starts_with("eyJ") {
            return Ok(None);
        }
        match self.plane.look_at_rows().person(text, ctx.now).await {
            Ok(person) => Ok(Some(Introspected {
                refresh: false,
                tenant: person.token_tenant,
                auth_time: person.auth_time,
                expires_at: person.token_expires_at,
                user: person.user,
                session: person.session,
            })),
            Err(Error::CredentialInvalid | Error::TokenExpired) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn introspect_refresh(&self, ctx: &Ctx, token: &RefreshToken) -> Result<Option<Introspected>, Error> {
        let Some((session, account)) = self.store.find_session(token.user_id, token.session_id, None).await?.found
        else {
            return Ok(None);
        };
        let terms = self.sessions.terms(session.remember);
        let alive = session.is_live(&account, ctx.now) && session.refreshed(terms, ctx.now).is_some();
        if !alive || !self.is_unspent(token).await? {
            return Ok(None);
        }
        Ok(Some(Introspected {
            refresh: true,
            user: account.user,
            tenant: session.active_tenant,
            auth_time: session.auth_time,
            expires_at: session.idle_expires_at.min(session.absolute_expires_at),
            session,
        }))
    }
}
