//! Sending events to webhooks: one job a webhook, so that one that is slow or down keeps nobody else waiting and is not
//! called by many at once. Each event is sent at least once; what came of it is committed before the next is sent.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::app::App;
use crate::ctx::Ctx;
use crate::domain::id::TenantId;
use crate::domain::mail::{Message, Template};
use crate::domain::secret::Secret;
use crate::domain::user::User;
use crate::domain::webhook::{
    DEAD_AFTER, Delivery, DeliveryStatus, KEPT, Webhook, WebhookStatus, next_attempt, rest, signature,
};
use crate::error::Error;
use crate::outside::courier::Answered;
use crate::store::audit::Audit;
use crate::store::jobs::{self, Claimed};
use crate::store::webhooks::{self, Attempt};
use crate::store::{InTenant, TenantTx};
use crate::time::Timestamp;

/// How many events are sent in one go.
const AT_MOST: i64 = 50;

/// How long one go may take, calls that are under way aside: others want their turn.
const ONE_GO: Duration = Duration::from_secs(5);

/// Why what waited for a webhook was given up.
pub(super) const OFF: &str = "the webhook was switched off";

/// What the status of an answer says that wants nothing any more.
const GONE: u16 = 410;

impl App {
    /// Sends a webhook what is due to it, and says when there is more.
    pub(in crate::app) async fn deliver_webhook(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let id = job.subject;
        let Some(tenant) = self.store.find_webhook_tenant(id).await? else { return self.end_job(job).await };
        let Some((hook, secrets, due)) = self.due_deliveries(tenant, id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        if hook.status == WebhookStatus::Enabled {
            let began = Instant::now();
            for delivery in &due {
                let answered = self.send_event(&hook, &secrets, delivery).await;
                let goes_on = self.record_answer(ctx, job, tenant, delivery, &answered).await?;
                if !goes_on || began.elapsed() > ONE_GO {
                    break;
                }
            }
        }
        let now = self.clock.now();
        let mut tx = self.store.write(InTenant(tenant)).await?;
        // Whoever adds an event waits from here on, or has added it already.
        jobs::hold(&mut tx, job).await?;
        let hook = webhooks::find(&mut tx, id).await?;
        if hook.status != WebhookStatus::Enabled {
            // An event may have been added while the webhook was switched off.
            webhooks::give_up(&mut tx, id, OFF, now).await?;
        }
        let (next, oldest) = webhooks::clear(&mut tx, id, now.after(-KEPT)).await?;
        // What is left over waits behind the webhooks of others that are due.
        let next = next.map(|at| at.max(hook.rests_until.unwrap_or(now)).max(now));
        let again = [next, oldest.map(|at| at.after(KEPT))].into_iter().flatten().min();
        jobs::finish(&mut tx, job, again).await?;
        tx.commit_unaudited(now).await
    }

    /// The webhook, what signs, and what is due; none when it is gone.
    async fn due_deliveries(
        &self,
        tenant: TenantId,
        id: Uuid,
        now: Timestamp,
    ) -> Result<Option<(Webhook, Vec<Secret<String>>, Vec<Delivery>)>, Error> {
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let hook = match webhooks::find(&mut tx, id).await {
            Err(Error::WebhookNotFound) => return Ok(None),
            found => found?,
        };
        let kept = webhooks::find_secrets(&mut tx, id).await?;
        let old = kept.sealed_old.filter(|_| kept.old_until.is_some_and(|until| until > now));
        let mut secrets = vec![self.open_webhook(tenant, id, &kept.sealed)?];
        if let Some(old) = old {
            secrets.push(self.open_webhook(tenant, id, &old)?);
        }
        let due = webhooks::list_due(&mut tx, id, now, AT_MOST).await?;
        Ok(Some((hook, secrets, due)))
    }

    async fn send_event(&self, hook: &Webhook, secrets: &[Secret<String>], delivery: &Delivery) -> Answered {
        let seconds = self.clock.now().seconds();
        let headers = [
            ("webhook-id", delivery.delivery_id.to_string()),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-signature", signature(secrets, delivery.delivery_id, seconds, &delivery.body)),
        ];
        self.courier.post(&hook.url, &headers, delivery.body.clone()).await
    }

    /// Writes down what came of a delivery, and what it says of the webhook; whether more may be sent now.
    async fn record_answer(
        &self,
        ctx: &Ctx,
        job: &Claimed,
        tenant: TenantId,
        delivery: &Delivery,
        answered: &Answered,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let problem = match answered {
            Answered::Status(200..=299) => String::new(),
            Answered::Status(status) => format!("answered {status}"),
            Answered::Nobody(problem) => problem.clone(),
        };
        let outcome = if problem.is_empty() { "delivered" } else { "failed" };
        metrics::counter!("tenantry_webhook_attempts_total", "outcome" => outcome).increment(1);
        let again = next_attempt(delivery.attempts + 1, now);
        let attempt = Attempt {
            status: match (problem.is_empty(), again) {
                (true, _) => DeliveryStatus::Delivered,
                (false, Some(_)) => DeliveryStatus::Waiting,
                (false, None) => DeliveryStatus::GivenUp,
            },
            response_code: if let Answered::Status(status) = answered { i64::from(*status) } else { 0 },
            problem: problem.clone(),
            next_attempt_at: again.unwrap_or(now),
        };
        let gone = *answered == Answered::Status(GONE);
        let owners = if problem.is_empty() { Vec::new() } else { self.owners(tenant, job.subject, gone, now).await? };

        let mut tx = self.store.write(InTenant(tenant)).await?;
        jobs::hold(&mut tx, job).await?;
        webhooks::record(&mut tx, delivery.delivery_id, &attempt, now).await?;
        let mut hook = webhooks::find(&mut tx, job.subject).await?;
        let before = hook.clone();
        if problem.is_empty() {
            (hook.failures, hook.failing_since, hook.rests_until) = (0, None, None);
        } else {
            hook.failures += 1;
            hook.failing_since = hook.failing_since.or(Some(now));
            // Who answers is there, and may like the next event better.
            hook.rests_until = matches!(answered, Answered::Nobody(_)).then(|| rest(hook.failures, now));
        }
        hook.problem = problem;
        if is_dead(&hook, gone, now) && hook.status == WebhookStatus::Enabled {
            self.switch_off(&mut tx, ctx, (&mut hook, &owners), now).await?;
        } else if before.failures != hook.failures || before.problem != hook.problem {
            webhooks::note(&mut tx, &hook).await?;
        }
        let goes_on = hook.status == WebhookStatus::Enabled && hook.rests_until.is_none();
        tx.commit_unaudited(now).await?;
        Ok(goes_on)
    }

    /// Whom to tell when a webhook that fails again is switched off for it; read before the transaction, and only when it
    /// may come to that.
    async fn owners(&self, tenant: TenantId, id: Uuid, gone: bool, now: Timestamp) -> Result<Vec<User>, Error> {
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let hook = webhooks::find(&mut tx, id).await?;
        drop(tx);
        if !is_dead(&hook, gone, now) {
            return Ok(Vec::new());
        }
        let Some((_, catalogue)) = self.plane.find_settled(tenant, now).await? else { return Ok(Vec::new()) };
        self.store.list_active_in_top(tenant, &catalogue.definition.roles.top().name).await
    }

    async fn switch_off(
        &self,
        tx: &mut TenantTx,
        ctx: &Ctx,
        (hook, owners): (&mut Webhook, &[User]),
        now: Timestamp,
    ) -> Result<(), Error> {
        hook.status = WebhookStatus::Dead;
        hook.version += 1;
        hook.updated_at = now;
        webhooks::update(tx, hook).await?;
        webhooks::give_up(tx, hook.webhook_id, OFF, now).await?;
        let audit = Audit::of(hook.webhook_id)
            .field("status", WebhookStatus::Enabled.as_str(), WebhookStatus::Dead.as_str())
            .set("problem", hook.problem.as_str());
        tx.note(&Ctx { now, ..ctx.clone() }, audit).await?;
        let since = hook.failing_since.unwrap_or(now).to_string();
        let InTenant(tenant) = *tx.scope();
        let name = self.plane.find_settled(tenant, now).await?.map(|(tenant, _)| tenant.display_name);
        for owner in owners {
            let message = Message {
                template: Template::WebhookDisabled,
                recipient: owner.email.clone(),
                payload: serde_json::json!({
                    "tenant": name, "url": hook.url, "since": since, "problem": hook.problem,
                }),
                secret: None,
                about: format!("{} {}", hook.webhook_id, hook.version),
            };
            self.post(tx, message, now).await?;
        }
        Ok(())
    }
}

/// Whether nobody is there any more.
fn is_dead(hook: &Webhook, gone: bool, now: Timestamp) -> bool {
    gone || hook.failing_since.is_some_and(|since| now.since(since) >= DEAD_AFTER)
}
