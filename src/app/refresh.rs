//! Refreshing: a session's good refresh token is exchanged for its successor and a new access token. Callers at the same
//! time, and a caller whose answer was lost, are given the same successor for a while. A token that was spent before is in
//! somebody else's hands as well: the session ends.

use serde_json::json;

use super::App;
use super::sessions::Tokens;
use crate::ctx::Ctx;
use crate::domain::mail::{Message, Template};
use crate::domain::refresh_token::RefreshToken;
use crate::domain::session::{REPLAY_WINDOW, Session};
use crate::domain::user::User;
use crate::error::Error;
use crate::store::audit::Audit;
use crate::store::sessions::{self, RefreshRow, Swap};
use crate::store::{AsUser, Scoped};
use crate::time::Timestamp;

/// What a token is that is not the session's good one.
enum Standing {
    /// The one before, just exchanged: here is the successor.
    JustSpent(RefreshToken),
    /// The one before, whose successor was never used.
    SpentInVain { unused: Vec<u8>, generation: u32 },
    /// The good one after all.
    Good,
    /// Of a session that is over.
    Over,
    /// Spent for good.
    Reused,
}

impl App {
    /// Exchanges a refresh token.
    ///
    /// # Errors
    /// `CredentialInvalid` for whatever is wrong with it; when it was spent before, its session has ended then.
    pub async fn refresh_token(&self, ctx: &Ctx, text: &str) -> Result<Tokens, Error> {
        let presented = RefreshToken::parse(&self.master, text).ok_or(Error::CredentialInvalid)?;
        let found = self.store.find_session(presented.user_id, presented.session_id, None).await?.found;
        let (session, account) = found.ok_or(Error::CredentialInvalid)?;
        if !session.is_live(&account, ctx.now) {
            return Err(Error::CredentialInvalid);
        }
        let terms = self.sessions.terms(session.remember);
        let session = session.refreshed(terms, ctx.now).ok_or(Error::CredentialInvalid)?;
        let next = self.exchange(ctx, &presented, &session, &account.user).await?;
        let access = self.plane.tokens.mint(&session, session.active_tenant, ctx.now, None)?;
        Ok(Tokens { session, access, refresh: next.text })
    }

    async fn exchange(
        &self,
        ctx: &Ctx,
        presented: &RefreshToken,
        session: &Session,
        user: &User,
    ) -> Result<RefreshToken, Error> {
        let mut tx = self.store.write(AsUser(presented.user_id)).await?;
        if let Some(next) = self.rotate(&mut tx, ctx, presented, session).await? {
            tx.commit_unaudited(ctx.now).await?;
            return Ok(next);
        }
        let standing = match sessions::lock_refresh(&mut tx, presented.session_id).await? {
            Some(row) => self.standing(presented, &row, ctx.now),
            None => Standing::Over,
        };
        let next = match standing {
            Standing::JustSpent(next) => return Ok(next),
            Standing::Over => return Err(Error::CredentialInvalid),
            Standing::Good => self.rotate(&mut tx, ctx, presented, session).await?,
            Standing::SpentInVain { unused, generation } => {
                let (next, swap) = self.succeed(ctx, presented, session, generation);
                let swapped = sessions::replace(&mut tx, &swap, &unused).await?;
                Some(next).filter(|_| swapped)
            }
            Standing::Reused => {
                sessions::revoke(&mut tx, presented.session_id, "reuse", ctx.now).await?;
                self.post(&mut tx, reused(ctx, presented, user), ctx.now).await?;
                let audit = Audit::of(presented.session_id.0)
                    .set("revoke_reason", "reuse")
                    .set("user_id", presented.user_id.to_string())
                    .set("generation", presented.generation);
                tx.commit(ctx, audit).await?;
                metrics::counter!("tenantry_refresh_reuse_total").increment(1);
                return Err(Error::CredentialInvalid);
            }
        };
        let next = next.ok_or(Error::CredentialInvalid)?;
        tx.commit_unaudited(ctx.now).await?;
        Ok(next)
    }

    /// Whether a token is the good one of its session.
    pub(super) async fn is_unspent(&self, token: &RefreshToken) -> Result<bool, Error> {
        let mut tx = self.store.read(AsUser(token.user_id)).await?;
        sessions::is_good(&mut tx, token.session_id, &token.digest()).await
    }

    /// The one guarded update that makes a successor, if the token is the good one.
    async fn rotate(
        &self,
        tx: &mut Scoped<AsUser>,
        ctx: &Ctx,
        presented: &RefreshToken,
        session: &Session,
    ) -> Result<Option<RefreshToken>, Error> {
        let (next, swap) = self.succeed(ctx, presented, session, presented.generation.saturating_add(1));
        let rotated = sessions::rotate(tx, &swap).await?;
        Ok(Some(next).filter(|_| rotated))
    }

    /// A successor, and what puts it in its predecessor's place.
    fn succeed<'s>(
        &self,
        ctx: &Ctx,
        presented: &RefreshToken,
        session: &'s Session,
        generation: u32,
    ) -> (RefreshToken, Swap<'s>) {
        let (next, sealed) = presented.succeed(&self.master, generation);
        let source = ctx.source.map(|ip| ip.to_string());
        let swap = Swap { session, presented: presented.digest(), next: next.digest(), sealed, source, now: ctx.now };
        (next, swap)
    }

    /// What an authentic token is to the row, which does not change meanwhile.
    fn standing(&self, presented: &RefreshToken, row: &RefreshRow, now: Timestamp) -> Standing {
        let is = |digest: &Option<Vec<u8>>| digest.as_deref() == Some(&presented.digest()[..]);
        if row.revoked_at.is_some() {
            return Standing::Over;
        }
        if is(&row.refresh_cur) {
            return Standing::Good;
        }
        let (true, Some(unused), Some(at)) = (is(&row.refresh_prev), &row.refresh_cur, row.refreshed_at) else {
            return Standing::Reused;
        };
        // Another server's clock may be ahead: then it was just now.
        let within = now.since(at) <= REPLAY_WINDOW;
        let same = row.refresh_sealed.as_deref().and_then(|sealed| presented.open(&self.master, sealed));
        match same.filter(|_| within) {
            Some(next) => Standing::JustSpent(next),
            None => Standing::SpentInVain {
                unused: unused.clone(),
                generation: u32::try_from(row.refresh_gen + 1).unwrap_or(u32::MAX),
            },
        }
    }
}

/// The letter to a person one of whose sessions has ended because a spent token came back.
fn reused(ctx: &Ctx, presented: &RefreshToken, user: &User) -> Message {
    Message {
        template: Template::SessionReuse,
        recipient: user.email.clone(),
        payload: json!({ "at": ctx.now.to_string(), "source": ctx.source.map(|ip| ip.to_string()) }),
        secret: None,
        about: presented.session_id.to_string(),
    }
}
