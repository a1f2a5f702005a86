//! Rows of jobs: what is to be done later, at a time. A job is scheduled in the transaction of what makes it necessary,
//! claimed by one server at a time, and finished in the transaction of its effects: so these happen exactly once.

use uuid::Uuid;

use super::Store;
use super::dialect::{CLAIM_JOBS, CLAIM_JOBS_OF};
use super::scoped::{OnPlatform, Scope, Scoped};
use super::tx::{OfPlatform, Statement, statements};
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    SCHEDULE: OfPlatform = Statement::new(
        "insert into job (kind, subject, due_at, attempts)
         values ($1, $2, $3, 0)
         on conflict (kind, subject) do update
         set due_at = excluded.due_at, attempts = 0, leased_until = null, lease = null, last_error = null",
    );
    ENSURE: OfPlatform = Statement::new(
        "insert into job (kind, subject, due_at, attempts)
         values ($1, $2, $3, 0)
         on conflict (kind, subject) do nothing",
    );
    /// Touches the row in any case: whoever is about to end the job waits for this, and sees afterwards what is to be done.
    SCHEDULE_BY: OfPlatform = Statement::new(
        "insert into job (kind, subject, due_at, attempts)
         values ($1, $2, $3, 0)
         on conflict (kind, subject) do update
         set due_at = case when job.due_at > excluded.due_at then excluded.due_at else job.due_at end",
    );
    HOLD: OfPlatform = Statement::new(
        "update job
         set lease = $3
         where kind = $1 and subject = $2 and lease = $3",
    );
    CANCEL: OfPlatform = Statement::new(
        "delete from job
         where kind = $1 and subject = $2",
    );
    DONE: OfPlatform = Statement::new(
        "delete from job
         where kind = $1 and subject = $2 and lease = $3",
    );
    DUE_AGAIN: OfPlatform = Statement::new(
        "update job
         set due_at = $4, attempts = 0, leased_until = null, lease = null, last_error = null
         where kind = $1 and subject = $2 and lease = $3",
    );
    FAILED: OfPlatform = Statement::new(
        "update job
         set due_at = $4, leased_until = null, lease = null, last_error = $5
         where kind = $1 and subject = $2 and lease = $3",
    );
    COUNT_DUE: OfPlatform = Statement::new(
        "select count(*) as jobs
         from job
         where due_at <= $1",
    );
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKind {
    /// Brings a tenant up to date with the time: trials, periods, grace, notices.
    Tenant,
    /// Removes everything of a tenant whose purge time has come.
    Purge,
    /// Looks again whether a custom domain is proven.
    Domain,
    /// Lets an old slug go.
    SlugAlias,
    /// Moves tenants to the newest versions of their plans, as of a catalogue; the subject is its version, as a number.
    MigratePlan,
    /// Rotates the keys that sign access tokens; there is one.
    SigningKeys,
    /// Sends a message of the outbox.
    Mail,
    /// Clears away links of a person that are over.
    Link,
    /// Sends a webhook what is due to it.
    Webhook,
    /// Tells that a key of a tenant or a member ends soon.
    ApiKey,
    /// Tells a tenant which thresholds of its limits it has reached.
    QuotaNotice,
    /// Forgets what a tenant used long ago.
    UsageRetention,
    /// Sends owners what was used in the month before, if they want it.
    UsageReport,
}

impl JobKind {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Tenant,
        Self::Purge,
        Self::Domain,
        Self::SlugAlias,
        Self::MigratePlan,
        Self::SigningKeys,
        Self::Mail,
        Self::Link,
        Self::Webhook,
        Self::ApiKey,
        Self::QuotaNotice,
        Self::UsageRetention,
        Self::UsageReport,
    ];

    /// Its name in rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Purge => "purge",
            Self::Domain => "domain",
            Self::SlugAlias => "slug_alias",
            Self::MigratePlan => "migrate_plan",
            Self::SigningKeys => "signing_keys",
            Self::Mail => "mail",
            Self::Link => "link",
            Self::Webhook => "webhook",
            Self::ApiKey => "api_key",
            Self::QuotaNotice => "quota_notice",
            Self::UsageRetention => "usage_retention",
            Self::UsageReport => "usage_report",
        }
    }
}

impl JobKind {
    /// Whether its work is outside: it waits for others, so it is claimed by itself and done beside the rest.
    #[must_use]
    pub const fn is_outside(self) -> bool {
        matches!(self, Self::Mail | Self::Webhook)
    }
}

/// A job that this server is at.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What it does.
    pub kind: JobKind,
    /// To what.
    pub subject: Uuid,
    /// How often it was begun since it was last scheduled, this time included.
    pub attempts: i64,
    lease: Uuid,
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    kind: String,
    subject: Uuid,
    attempts: i64,
}

#[derive(sqlx::FromRow)]
struct Count {
    jobs: i64,
}

/// Schedules a job, in the place of an earlier schedule of the same; none takes it back. Whoever is at it just now finds
/// its lease gone, and leaves the work to the new schedule.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn schedule<S: Scope>(
    tx: &mut Scoped<S>,
    kind: JobKind,
    subject: Uuid,
    due: Option<Timestamp>,
) -> Result<(), Error> {
    let key = [kind.as_str().into(), subject.into()];
    match due {
        Some(due) => tx.execute(&SCHEDULE, &[&key[..], &[due.into()]].concat()).await,
        None => tx.execute(&CANCEL, &key).await,
    }
    .map(|_| ())
}

/// Schedules a job unless it is scheduled.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn ensure<S: Scope>(tx: &mut Scoped<S>, kind: JobKind, subject: Uuid, due: Timestamp) -> Result<(), Error> {
    tx.execute(&ENSURE, &[kind.as_str().into(), subject.into(), due.into()]).await.map(|_| ())
}

/// Schedules a job to be due at `due` at the latest. Whoever is at it goes on, and sees what was written before this when
/// they have held the job.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn schedule_by<S: Scope>(
    tx: &mut Scoped<S>,
    kind: JobKind,
    subject: Uuid,
    due: Timestamp,
) -> Result<(), Error> {
    tx.execute(&SCHEDULE_BY, &[kind.as_str().into(), subject.into(), due.into()]).await.map(|_| ())
}

/// Keeps others from scheduling the job by another time until the transaction ends.
///
/// # Errors
/// `DatabaseUnavailable`, also when the lease is gone: then another one does the work.
pub async fn hold<S: Scope>(tx: &mut Scoped<S>, job: &Claimed) -> Result<(), Error> {
    let held = tx.execute(&HOLD, &[job.kind.as_str().into(), job.subject.into(), job.lease.into()]).await?;
    if held > 0 { Ok(()) } else { Err(Error::DatabaseUnavailable("another one does the job".into())) }
}

/// Ends a job in the transaction of its effects, or says when it is due again.
///
/// # Errors
/// `DatabaseUnavailable`, also when the lease is gone: then the transaction must not commit, for another one does the work.
pub async fn finish<S: Scope>(tx: &mut Scoped<S>, job: &Claimed, again: Option<Timestamp>) -> Result<(), Error> {
    if release(tx, job, again).await? {
        Ok(())
    } else {
        Err(Error::DatabaseUnavailable("the job was scheduled anew meanwhile".into()))
    }
}

/// `finish` for a job whose effects are committed already; false when it was scheduled anew meanwhile, which then stands.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn release<S: Scope>(tx: &mut Scoped<S>, job: &Claimed, again: Option<Timestamp>) -> Result<bool, Error> {
    let key = [job.kind.as_str().into(), job.subject.into(), job.lease.into()];
    let ended = match again {
        Some(due) => tx.execute(&DUE_AGAIN, &[&key[..], &[due.into()]].concat()).await?,
        None => tx.execute(&DONE, &key).await?,
    };
    Ok(ended > 0)
}

/// Jobs of kinds that are known: a kind that a newer server knows is left to it.
fn claimed(rows: Vec<ClaimedRow>, lease: Uuid) -> Vec<Claimed> {
    let known = |row: ClaimedRow| {
        let kind = JobKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind)?;
        Some(Claimed { kind, subject: row.subject, attempts: row.attempts, lease })
    };
    rows.into_iter().filter_map(known).collect()
}

impl Store {
    /// Claims jobs that are due, the longest due first, until `until`: then others may take them.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn claim_jobs(
        &self,
        lease: Uuid,
        (now, until): (Timestamp, Timestamp),
        limit: i64,
    ) -> Result<Vec<Claimed>, Error> {
        let mut tx = self.write(OnPlatform).await?;
        let rows: Vec<ClaimedRow> =
            tx.all(&CLAIM_JOBS, &[lease.into(), until.into(), now.into(), limit.into()]).await?;
        tx.commit_unaudited(now).await?;
        Ok(claimed(rows, lease))
    }

    /// `claim_jobs` for the jobs of one kind that is done outside.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn claim_jobs_of(
        &self,
        kind: JobKind,
        lease: Uuid,
        (now, until): (Timestamp, Timestamp),
        limit: i64,
    ) -> Result<Vec<Claimed>, Error> {
        let mut tx = self.write(OnPlatform).await?;
        let args = [lease.into(), until.into(), now.into(), limit.into(), kind.as_str().into()];
        let rows: Vec<ClaimedRow> = tx.all(&CLAIM_JOBS_OF, &args).await?;
        tx.commit_unaudited(now).await?;
        Ok(claimed(rows, lease))
    }

    /// Gives a job back that failed, to be tried again.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn fail_job(&self, job: &Claimed, error: &str, now: Timestamp, again: Timestamp) -> Result<(), Error> {
        let mut tx = self.write(OnPlatform).await?;
        let error: String = error.chars().take(500).collect();
        let args =
            [job.kind.as_str().into(), job.subject.into(), job.lease.into(), again.into(), error.as_str().into()];
        tx.execute(&FAILED, &args).await?;
        tx.commit_unaudited(now).await
    }

    /// How many jobs are due.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn count_due_jobs(&self, now: Timestamp) -> Result<i64, Error> {
        let mut tx = self.read(OnPlatform).await?;
        let row: Option<Count> = tx.optional(&COUNT_DUE, &[now.into()]).await?;
        Ok(row.map_or(0, |row| row.jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_not_done_outside_is_claimed() {
        for kind in JobKind::ALL {
            let named = CLAIM_JOBS.postgres.contains(&format!("'{}'", kind.as_str()));
            assert_eq!(named, !kind.is_outside(), "{}", kind.as_str());
            assert_eq!(CLAIM_JOBS.sqlite.contains(&format!("'{}'", kind.as_str())), named);
        }
    }
}
