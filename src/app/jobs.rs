//! Jobs: which use case each kind is, and how it is tried again. Effects in the database happen in the transaction that
//! finishes the job, so exactly once, whichever servers are at it and whatever crashes.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::App;
use super::usage::accounts::apply_limits;
use crate::ctx::{Caller, Ctx};
use crate::domain::id::TenantId;
use crate::domain::mail::Message;
use crate::entropy;
use crate::error::Error;
pub use crate::store::jobs::JobKind;
use crate::store::jobs::{self, Claimed};
use crate::store::{InTenant, OnPlatform, tenants};
use crate::time::Timestamp;

/// How many jobs a server claims at once.
const CLAIMED: i64 = 4;

/// How long a claimed job is this server's; should it crash, others take over afterwards.
const LEASE: TimeDelta = TimeDelta::seconds(60);

/// How long a job that is done outside may take, and its lease, which ends later: nobody else is at it before.
const OUTSIDE_AT_MOST: Duration = Duration::from_secs(90);
const OUTSIDE_LEASE: TimeDelta = TimeDelta::seconds(120);

/// The longest wait before a job that failed is tried again.
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(1);

impl App {
    /// Claims jobs that are due and runs them, one after the other; how many there were.
    ///
    /// # Errors
    /// `DatabaseUnavailable` when nothing can be claimed. A job that fails is no error here: it is tried again later.
    pub async fn run_due_jobs(&self) -> Result<usize, Error> {
        let now = self.clock.now();
        let claimed = self.store.claim_jobs(entropy::id(now), (now, now.after(LEASE)), CLAIMED).await?;
        for job in &claimed {
            self.run_claimed(job).await;
        }
        if let Ok(due) = self.store.count_due_jobs(self.clock.now()).await {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; nobody has 2^53 jobs")]
            metrics::gauge!("tenantry_jobs_due").set(due as f64);
        }
        Ok(claimed.len())
    }

    /// Claims jobs of a kind that is done outside, as many as `limit`, for the caller to run side by side.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn claim_outside(&self, kind: JobKind, limit: usize) -> Result<Vec<Claimed>, Error> {
        let now = self.clock.now();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.store.claim_jobs_of(kind, entropy::id(now), (now, now.after(OUTSIDE_LEASE)), limit).await
    }

    /// Runs a job that was claimed; one that fails is tried again later.
    pub async fn run_claimed(&self, job: &Claimed) {
        let began = Instant::now();
        let done = if job.kind.is_outside() {
            let in_time = tokio::time::timeout(OUTSIDE_AT_MOST, self.run_job(job)).await;
            in_time.unwrap_or_else(|_| Err(Error::internal("it took too long")))
        } else {
            self.run_job(job).await
        };
        let outcome = if done.is_ok() { "done" } else { "failed" };
        let kind = job.kind.as_str();
        metrics::counter!("tenantry_jobs_total", "kind" => kind, "outcome" => outcome).increment(1);
        metrics::histogram!("tenantry_job_seconds", "kind" => kind).record(began.elapsed().as_secs_f64());
        if let Err(error) = done {
            let problem = told(&error);
            tracing::warn!(kind, subject = %job.subject, attempts = job.attempts, problem, "a job failed");
            let now = self.clock.now();
            let again = now.after(wait(job.attempts));
            // Should this fail as well, the lease ends by itself.
            let _ = self.store.fail_job(job, &error.to_string(), now, again).await;
        }
    }

    async fn run_job(&self, job: &Claimed) -> Result<(), Error> {
        let ctx = |method| Ctx {
            request_id: entropy::id(self.clock.now()),
            method,
            now: self.clock.now(),
            source: None,
            caller: Caller::System,
        };
        match job.kind {
            JobKind::Tenant => self.settle_tenant(&ctx("System/SettleTenant"), job).await,
            JobKind::Purge => self.purge_job(&ctx("System/PurgeTenant"), job).await,
            JobKind::Domain => {
                let again = self.recheck_domain(&ctx("System/RecheckDomain"), job.subject).await?;
                self.give_back(job, again).await
            }
            JobKind::SlugAlias => self.drop_aliases(&ctx("System/DropAlias"), job).await,
            JobKind::SigningKeys => self.rotate_job(&ctx("System/RotateSigningKey"), job).await,
            JobKind::MigratePlan => {
                let again = self.migrate_plans(&ctx("System/MigratePlan"), job.subject).await?;
                self.give_back(job, again).await
            }
            JobKind::Link => self.forget_links(job).await,
            JobKind::Mail => self.send_mail(&ctx("System/SendMail"), job).await,
            JobKind::Webhook => self.deliver_webhook(&ctx("System/DeliverWebhook"), job).await,
            JobKind::ApiKey => self.tell_key_end(&ctx("System/TellKeyEnd"), job).await,
            JobKind::QuotaNotice => self.tell_notices(&ctx("System/ReachQuota"), job).await,
            JobKind::UsageReport => self.report_usage(&ctx("System/ReportUsage"), job).await,
            JobKind::UsageRetention => self.forget_usage(&ctx("System/ForgetUsage"), job).await,
        }
    }

    /// Ends a job whose effects have scheduled it anew themselves, or that had none.
    async fn give_back(&self, job: &Claimed, again: Option<Timestamp>) -> Result<(), Error> {
        let mut tx = self.store.write(OnPlatform).await?;
        jobs::release(&mut tx, job, again).await?;
        tx.commit_unaudited(self.clock.now()).await
    }

    /// Ends a job whose subject is gone.
    pub(super) async fn end_job(&self, job: &Claimed) -> Result<(), Error> {
        let mut tx = self.store.write(OnPlatform).await?;
        jobs::finish(&mut tx, job, None).await?;
        tx.commit_unaudited(self.clock.now()).await
    }

    /// Writes down what time has brought to a tenant, tells its owners what comes next, and says when to look again. The
    /// status of a tenant never waits for this: it keeps rows, lists and mail in step.
    async fn settle_tenant(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let tenant_id = TenantId(job.subject);
        let Some((seen, catalogue)) = self.plane.find_settled(tenant_id, ctx.now).await? else {
            return self.end_job(job).await;
        };
        let notice_days = &catalogue.definition.notice_days;
        // Before the transaction: no other connection is waited for while the tenant is locked.
        let owners = match seen.due_notice(notice_days, ctx.now) {
            Some(_) => self.store.list_active_in_top(tenant_id, &catalogue.definition.roles.top().name).await?,
            None => Vec::new(),
        };
        let mut tx = self.store.write(InTenant(tenant_id)).await?;
        let written = tenants::lock(&mut tx).await?;
        let mut tenant = written.clone().settled(&catalogue, ctx.now);
        if tenant != written {
            tenant.updated_at = ctx.now;
            let audit = tenants::update(&mut tx, &written, &mut tenant, ctx.now).await?;
            if written.subscription.of != tenant.subscription.of {
                apply_limits(&mut tx, (&tenant, &catalogue), None, ctx.now).await?;
            }
            tx.note(ctx, audit).await?;
        }
        tenants::note_status(&mut tx, &tenant, ctx.now).await?;
        if let Some(notice) = tenant.due_notice(notice_days, ctx.now) {
            for owner in &owners {
                let message = Message {
                    template: notice.template,
                    recipient: owner.email.clone(),
                    payload: serde_json::json!({
                        "tenant": tenant.display_name, "plan": tenant.subscription.of.plan,
                        "at": notice.at.to_string(), "days": notice.days,
                    }),
                    secret: None,
                    about: format!("{} {}", notice.at, notice.days),
                };
                self.post(&mut tx, message, ctx.now).await?;
            }
        }
        jobs::finish(&mut tx, job, tenant.next_look(notice_days, ctx.now)).await?;
        tx.commit_unaudited(ctx.now).await
    }

    /// Schedules what should be scheduled and is not: tenants of a time before there were jobs.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn schedule_missing_jobs(&self) -> Result<(), Error> {
        let now = self.clock.now();
        // Bounded, should a row be such that its job does not stay.
        for _ in 0..1000 {
            let missing = self.store.list_missing_jobs().await?;
            if missing.is_empty() {
                return self.schedule_missing_mail().await;
            }
            let mut tx = self.store.write(OnPlatform).await?;
            for (kind, tenant, due) in &missing {
                jobs::schedule(&mut tx, *kind, tenant.0, Some(*due)).await?;
            }
            tx.commit_unaudited(now).await?;
        }
        Ok(())
    }
}

/// An error with what is behind it, for the log.
pub(super) fn told(error: &Error) -> String {
    let behind = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", behind.unwrap_or_default())
}

/// Twice as long after each attempt, from a second on.
fn wait(attempts: i64) -> TimeDelta {
    let doubled = u32::try_from(attempts.clamp(1, 12) - 1).unwrap_or(0);
    TimeDelta::seconds(1 << doubled).min(LONGEST_WAIT)
}
