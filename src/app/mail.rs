//! Mail: written down in the transaction of what it is about, sent by a job afterwards. A message is sent at least once;
//! twice only when the server dies between sending and writing that down, and then with the same `Message-ID`.

mod letters;

use chrono::TimeDelta;
use uuid::Uuid;

pub use letters::{Letters, LettersError};

use super::App;
use super::jobs::told;
use crate::ctx::Ctx;
use crate::domain::id::TenantId;
use crate::domain::mail::{Message, Template};
use crate::error::Error;
use crate::outside::MailError;
use crate::store::jobs::{self, Claimed, JobKind};
use crate::store::outbox::{self, Owner, Status, Written};
use crate::store::{AsUser, InTenant, OnPlatform, Scope, Scoped, accounts, settings};
use crate::time::Timestamp;
use letters::Brand;

/// How long a mail server may be down before mail is lost.
const TRIED: TimeDelta = TimeDelta::days(7);

/// How long a letter is tried that the mail server refuses for good: the fault may be one of its configuration.
const TRIED_IN_VAIN: TimeDelta = TimeDelta::days(1);

/// How long a message that ended is remembered, so that nobody is told the same again.
const REMEMBERED: TimeDelta = TimeDelta::days(90);

impl App {
    /// Writes a message down, in a transaction of a tenant (then it looks like the tenant's) or of a person, with the job
    /// that sends it; nothing when one about the same was there. Whether it was new.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; internal when the payload has not what the letter speaks of.
    pub async fn post<S: Scope>(&self, tx: &mut Scoped<S>, message: Message, now: Timestamp) -> Result<bool, Error> {
        if let Some(key) = message.missing_key() {
            let letter = message.template.as_str();
            return Err(Error::Internal(format!("the letter {letter} speaks of {key}, which is not there").into()));
        }
        let seal = |id: Uuid, secret: &str| self.master.seal(&[b"mail"], id.as_bytes(), secret.as_bytes());
        let Some(id) = outbox::insert(tx, &message, seal, now).await? else { return Ok(false) };
        jobs::schedule(tx, JobKind::Mail, id, Some(now)).await?;
        Ok(true)
    }

    /// Sends a message, or gives it up when it was tried for long enough. Clears it away when it ended long ago.
    pub(super) async fn send_mail(&self, ctx: &Ctx, job: &Claimed) -> Result<(), Error> {
        let Some(message) = self.store.find_message(job.subject).await? else { return self.end_job(job).await };
        if message.status != Status::Waiting {
            return self.end_mail(job, &message, None).await;
        }
        let age = ctx.now.since(message.created_at);
        let status = match self.try_mail(ctx, &message).await {
            Ok(()) => Status::Sent,
            Err(failed) if age >= TRIED || (failed.permanent && age >= TRIED_IN_VAIN) => {
                tracing::error!(message = %message.message_id, template = message.template.map(Template::as_str),
                                problem = %failed, "a message is given up");
                Status::GivenUp
            }
            Err(failed) => return Err(Error::Internal(Box::new(failed))),
        };
        let outcome = if status == Status::Sent { "sent" } else { "given_up" };
        metrics::counter!("tenantry_mail_total", "outcome" => outcome).increment(1);
        // Of an account that is no more not even that is remembered.
        let kept = Some(status).filter(|_| message.template != Some(Template::AccountDeleted));
        self.end_mail(job, &message, kept).await
    }

    /// Ends a message with its job: remembered as what became of it, or forgotten.
    async fn end_mail(&self, job: &Claimed, message: &Written, kept: Option<Status>) -> Result<(), Error> {
        match message.owner {
            Owner::Tenant(tenant) => self.end_mail_of(InTenant(tenant), job, message, kept).await,
            Owner::Person(user) => self.end_mail_of(AsUser(user), job, message, kept).await,
        }
    }

    async fn end_mail_of<S: Scope>(
        &self,
        owner: S,
        job: &Claimed,
        message: &Written,
        kept: Option<Status>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.store.write(owner).await?;
        match kept {
            Some(status) => outbox::end(&mut tx, message.message_id, status, now).await?,
            None => outbox::delete(&mut tx, message.message_id).await?,
        }
        jobs::finish(&mut tx, job, kept.map(|_| now.after(REMEMBERED))).await?;
        tx.commit_unaudited(now).await
    }

    async fn try_mail(&self, ctx: &Ctx, message: &Written) -> Result<(), MailError> {
        let passing = |e: Error| MailError { permanent: false, problem: told(&e) };
        let broken = |problem: String| MailError { permanent: true, problem };
        let template = message.template.ok_or_else(|| broken("this server does not know the letter".to_owned()))?;
        let secret = match &message.sealed {
            Some(sealed) => {
                let secret = self.master.open_text(&[b"mail"], message.message_id.as_bytes(), sealed);
                Some(secret.ok_or_else(|| broken("its secret does not open under this master key".to_owned()))?)
            }
            None => None,
        };
        let brand = match message.owner {
            Owner::Tenant(tenant) => self.brand(tenant, ctx.now).await.map_err(passing)?,
            Owner::Person(user) => {
                let mut tx = self.store.read(AsUser(user)).await.map_err(passing)?;
                let locale = accounts::find(&mut tx).await.map_err(passing)?.map(|profile| profile.locale);
                Brand { locale, ..Brand::default() }
            }
        };
        let letter = self.letters.write(template, message, &brand, secret.as_ref()).map_err(broken)?;
        self.mailer.send(&letter).await
    }

    /// How letters of a tenant look.
    async fn brand(&self, tenant: TenantId, now: Timestamp) -> Result<Brand, Error> {
        let Some((found, catalogue)) = self.plane.find_settled(tenant, now).await? else { return Ok(Brand::default()) };
        let mut tx = self.store.read(InTenant(tenant)).await?;
        let (own, _) = settings::find(&mut tx).await?;
        let holds = own.over(&catalogue.definition.settings);
        Ok(Brand {
            name: Some(found.display_name),
            logo_url: holds.branding.logo_url,
            color: holds.branding.primary_color,
            locale: holds.locale,
            time_zone: holds.time_zone,
        })
    }

    /// Schedules messages that wait and have no job: those of a time before mail was sent.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub(super) async fn schedule_missing_mail(&self) -> Result<(), Error> {
        let now = self.clock.now();
        for _ in 0..1000 {
            let missing = self.store.list_missing_mail().await?;
            if missing.is_empty() {
                return Ok(());
            }
            let mut tx = self.store.write(OnPlatform).await?;
            for id in missing {
                jobs::schedule(&mut tx, JobKind::Mail, id, Some(now)).await?;
            }
            tx.commit_unaudited(now).await?;
        }
        Ok(())
    }
}
