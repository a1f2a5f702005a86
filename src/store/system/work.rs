//! Reads across tenants of what is to be done: messages, webhooks and jobs; and of the platform's own log.

use super::super::Store;
use super::super::audit::{AuditFilter, AuditRow};
use super::super::jobs::JobKind;
use super::super::outbox::{Owner, Status, Written};
use super::super::tx::{AcrossTenants, Statement, statements};
use super::TenantIdRow;
use crate::domain::id::{TenantId, UserId};
use crate::domain::mail::Template;
use crate::domain::name::Email;
use crate::error::Error;
use crate::time::Timestamp;
use uuid::Uuid;

statements! {
    LIST_MISSING_JOBS: AcrossTenants = Statement::new(
        "select t.tenant_id, t.settle_at, t.purge_at
         from tenant t
         where (t.settle_at is not null and t.deleted_at is null
                and not exists (select 1 from job j where j.kind = 'tenant' and j.subject = t.tenant_id))
            or (t.purge_at is not null
                and not exists (select 1 from job j where j.kind = 'purge' and j.subject = t.tenant_id))
         limit 100",
    );
    /// A message by its id alone; ids are derived from their owners, so there is one.
    FIND_MESSAGE: AcrossTenants = Statement::new(
        "select tenant_id, cast(null as uuid) as user_id, message_id, template, recipient, payload, sealed, status,
                created_at
         from outbox
         where message_id = $1
         union all
         select cast(null as uuid), user_id, message_id, template, recipient, payload, sealed, status, created_at
         from personal_outbox
         where message_id = $1",
    );
    FIND_WEBHOOK_TENANT: AcrossTenants = Statement::new(
        "select tenant_id
         from webhook
         where webhook_id = $1",
    );
    /// As a tenant's log in audit.rs; nobody's tenant is in it.
    LIST_PLATFORM_AUDIT: AcrossTenants = Statement::new(
        "select event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id, changes, request_id, source
         from platform_audit
         where event_id < $1
           and ($2 = 0 or actor_id = $3)
           and (action = $4 or ($5 = 1 and substr(action, 1, length($4)) = $4))
           and ($6 = 0 or subject_id = $7)
           and at >= $8 and at < $9 and event_id >= $11
         order by event_id desc
         limit $10",
    );
    LIST_MISSING_MAIL: AcrossTenants = Statement::new(
        "select o.message_id
         from outbox o
         where o.status = 1 and not exists (select 1 from job j where j.kind = 'mail' and j.subject = o.message_id)
         union all
         select p.message_id
         from personal_outbox p
         where p.status = 1 and not exists (select 1 from job j where j.kind = 'mail' and j.subject = p.message_id)
         limit 100",
    );
}

#[derive(sqlx::FromRow)]
struct MissingJobRow {
    tenant_id: Uuid,
    settle_at: Option<Timestamp>,
    purge_at: Option<Timestamp>,
}

#[derive(sqlx::FromRow)]
struct MessageIdRow {
    message_id: Uuid,
}

#[derive(sqlx::FromRow)]
struct MessageRow {
    tenant_id: Option<Uuid>,
    user_id: Option<Uuid>,
    message_id: Uuid,
    template: String,
    recipient: String,
    payload: String,
    sealed: Option<Vec<u8>>,
    status: i64,
    created_at: Timestamp,
}

impl TryFrom<MessageRow> for Written {
    type Error = Error;

    fn try_from(row: MessageRow) -> Result<Self, Error> {
        let wrong = || Error::internal("a message's row does not read");
        let owner = row.tenant_id.map(|id| Owner::Tenant(TenantId(id)));
        Ok(Self {
            message_id: row.message_id,
            owner: owner.or(row.user_id.map(|id| Owner::Person(UserId(id)))).ok_or_else(wrong)?,
            template: Template::parse(&row.template),
            recipient: Email::parse(&row.recipient).map_err(|_| wrong())?,
            payload: serde_json::from_str(&row.payload).map_err(|_| wrong())?,
            sealed: row.sealed,
            status: Status::of(row.status).ok_or_else(wrong)?,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// A message that was written down, whoever's it is.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; internal when its row does not read.
    pub async fn find_message(&self, id: Uuid) -> Result<Option<Written>, Error> {
        let row: Option<MessageRow> = self.across_tenants().await?.optional(&FIND_MESSAGE, &[id.into()]).await?;
        row.map(Written::try_from).transpose()
    }

    /// Whose a webhook is.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_webhook_tenant(&self, webhook: Uuid) -> Result<Option<TenantId>, Error> {
        let row: Option<TenantIdRow> =
            self.across_tenants().await?.optional(&FIND_WEBHOOK_TENANT, &[webhook.into()]).await?;
        Ok(row.map(|row| TenantId(row.tenant_id)))
    }

    /// The platform's log before one of its rows, the newest first.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_platform_audit(
        &self,
        filter: &AuditFilter,
        before: Uuid,
        limit: i64,
    ) -> Result<Vec<AuditRow>, Error> {
        self.across_tenants().await?.all(&LIST_PLATFORM_AUDIT, &filter.before(before, limit)).await
    }

    /// Messages that wait and have no job to send them; at most a hundred at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_missing_mail(&self) -> Result<Vec<Uuid>, Error> {
        let rows: Vec<MessageIdRow> = self.across_tenants().await?.all(&LIST_MISSING_MAIL, &[]).await?;
        Ok(rows.into_iter().map(|row| row.message_id).collect())
    }

    /// Jobs of tenants that should be scheduled and are not; at most a hundred tenants' at a time.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn list_missing_jobs(&self) -> Result<Vec<(JobKind, TenantId, Timestamp)>, Error> {
        let rows: Vec<MissingJobRow> = self.across_tenants().await?.all(&LIST_MISSING_JOBS, &[]).await?;
        let jobs = |row: MissingJobRow| {
            let tenant = TenantId(row.tenant_id);
            let purge = row.purge_at.map(|at| (JobKind::Purge, tenant, at));
            let settle = row.settle_at.filter(|_| row.purge_at.is_none()).map(|at| (JobKind::Tenant, tenant, at));
            [purge, settle].into_iter().flatten()
        };
        Ok(rows.into_iter().flat_map(jobs).collect())
    }
}
