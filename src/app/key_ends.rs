//! Keys that end soon: whoever answers for one is told a week ahead, so that what uses it has another in time.

use chrono::TimeDelta;

use super::App;
use crate::ctx::Ctx;
use crate::domain::api_key::ApiKey;
use crate::domain::id::{ApiKeyId, TenantId, UserId};
use crate::domain::mail::{Message, Template};
use crate::domain::membership::MemberStatus;
use crate::domain::user::User;
use crate::error::Error;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::{InTenant, TenantTx, api_keys};
use crate::time::Timestamp;

/// How long before its end a key is spoken of. Whoever makes one for a shorter time knows when it ends.
const AHEAD: TimeDelta = TimeDelta::days(7);

/// Schedules the letter about a new key's end.
pub(super) async fn schedule_letter(tx: &mut TenantTx, key: &ApiKey) -> Result<(), Error> {
    match letter_time(key) {
        Some(at) => jobs::schedule(tx, JobKind::ApiKey, key.api_key_id.0, Some(at)).await,
        None => Ok(()),
    }
}

fn letter_time(key: &ApiKey) -> Option<Timestamp> {
    key.expires_at.map(|end| end.after(-AHEAD)).filter(|at| *at > key.created_at)
}

impl App {
    /// Tells about a key that ends soon, unless it has ended otherwise.
    pub(super) async fn tell_key_end(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let id = ApiKeyId(job.subject);
        let Some(tenant_id) = self.store.find_api_key_place(id).await? else { return self.end_job(job).await };
        let Some((tenant, catalogue)) = self.plane.find_settled(tenant_id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        let mut tx = self.store.read(InTenant(tenant_id)).await?;
        let key = api_keys::get(&mut tx, id).await?;
        drop(tx);
        let Some(end) = key.expires_at.filter(|_| key.is_live(ctx.now)) else { return self.end_job(job).await };
        let responsible = match self.active_member(tenant_id, key.user_id.or(key.created_by.map(UserId))).await? {
            Some(user) => vec![user],
            // A member's own key ended with them.
            None if key.user_id.is_some() => Vec::new(),
            None => self.store.list_active_in_top(tenant_id, &catalogue.definition.roles.top().name).await?,
        };
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        for user in responsible {
            let message = Message {
                template: Template::KeyExpiring,
                recipient: user.email,
                payload: serde_json::json!({
                    "tenant": tenant.display_name, "key": key.display_name, "at": end.to_string(),
                }),
                secret: None,
                about: format!("{} {end}", key.api_key_id),
            };
            self.post(&mut tx, message, ctx.now).await?;
        }
        jobs::finish(&mut tx, job, None).await?;
        tx.commit_unaudited(ctx.now).await
    }

    async fn active_member(&self, tenant: TenantId, user: Option<UserId>) -> Result<Option<User>, Error> {
        let Some(user) = user else { return Ok(None) };
        let member = self.store.find_membership(tenant, user).await?.found;
        match member.filter(|member| member.status == MemberStatus::Active) {
            Some(_) => self.store.find_user(user).await,
            None => Ok(None),
        }
    }
}
