//! Audit rows: who did what, to what, when, and what was there before. Written in the mutation's own transaction, so
//! there is no change without one.

use chrono::TimeDelta;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::scoped::{Scope, Scoped, TenantTx};
use super::tx::{OfPlatform, OfTenant, Statement, Value, statements};
use super::webhooks;
use crate::ctx::Ctx;
use crate::domain::webhook::event_type;
use crate::entropy::first_id;
use crate::error::Error;
use crate::time::Timestamp;

/// The field that rows of refusals have.
pub const DENIED: &str = "denied";

/// What a mutation did.
#[derive(Debug, Default)]
pub struct Audit {
    subject: Option<Uuid>,
    changes: Map<String, Json>,
}

impl Audit {
    /// About this row.
    #[must_use]
    pub fn of(subject: Uuid) -> Self {
        Self { subject: Some(subject), changes: Map::new() }
    }

    /// Notes a field that changed; equal values are not noted. Never a secret.
    #[must_use]
    pub fn field(mut self, name: &str, before: impl Into<Json>, after: impl Into<Json>) -> Self {
        let (before, after) = (before.into(), after.into());
        if before != after {
            self.changes.insert(name.to_owned(), json!({ "before": before, "after": after }));
        }
        self
    }

    /// Notes a field of something new.
    #[must_use]
    pub fn set(self, name: &str, value: impl Into<Json>) -> Self {
        self.field(name, Json::Null, value)
    }

    /// Writes the row: into the tenant's log when the transaction is a tenant's, else into the platform's.
    pub(super) async fn insert<S: Scope>(&self, tx: &mut Scoped<S>, ctx: &Ctx) -> Result<(), Error> {
        let event_id = ctx.new_id();
        let person = ctx.caller.user().map(|user| user.user_id.0);
        let on_behalf_of = person.filter(|id| Some(*id) != ctx.caller.id());
        let changes = Json::Object(self.changes.clone()).to_string();
        let request_id = ctx.request_id.to_string();
        let source = ctx.source.map(|ip| ip.to_string());
        let args = [
            event_id.into(),
            ctx.now.into(),
            ctx.caller.kind_number().into(),
            ctx.caller.id().into(),
            on_behalf_of.into(),
            ctx.method.into(),
            self.subject.into(),
            changes.as_str().into(),
            request_id.as_str().into(),
            source.as_deref().into(),
        ];
        if tx.execute_if_tenant(&INSERT_TENANT_EVENT, &args).await?.is_none() {
            tx.execute(&INSERT_PLATFORM_EVENT, &args).await?;
        }
        self.tell(tx, ctx, event_id).await
    }

    /// Tells the tenant's webhooks, when it is something that they are told. What was refused is not.
    async fn tell<S: Scope>(&self, tx: &mut Scoped<S>, ctx: &Ctx, event_id: Uuid) -> Result<(), Error> {
        let (Some(tenant), Some(event_type)) = (tx.scope().tenant(), event_type(ctx.method)) else { return Ok(()) };
        if self.changes.contains_key(DENIED) {
            return Ok(());
        }
        let data = json!({
            "event_id": event_id.to_string(),
            "action": ctx.method,
            "actor_kind": ctx.caller.kind(),
            "actor_id": ctx.caller.id().map(|id| id.to_string()),
            "subject_id": self.subject.map(|id| id.to_string()),
            "changes": self.changes,
        });
        webhooks::tell(tx, ctx, tenant, event_type, data).await
    }
}

statements! {
    INSERT_TENANT_EVENT: OfTenant = Statement::new(
        "insert into audit_event (tenant_id, event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id,
                                  changes, request_id, source)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    );
    LIST: OfTenant = Statement::new(
        "select event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id, changes, request_id, source
         from audit_event
         where tenant_id = $1 and event_id > $2
         order by event_id
         limit $3",
    );
    /// The newest first, before an event; an empty action, and what no id is, stand for all.
    LIST_BEFORE: OfTenant = Statement::new(
        "select event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id, changes, request_id, source
         from audit_event
         where tenant_id = $1 and event_id < $2
           and ($3 = 0 or actor_id = $4)
           and (action = $5 or ($6 = 1 and substr(action, 1, length($5)) = $5))
           and ($7 = 0 or subject_id = $8)
           and at >= $9 and at < $10 and event_id >= $12
         order by event_id desc
         limit $11",
    );
    /// The oldest first, after an event.
    LIST_AFTER: OfTenant = Statement::new(
        "select event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id, changes, request_id, source
         from audit_event
         where tenant_id = $1 and event_id > $2
           and ($3 = 0 or actor_id = $4)
           and (action = $5 or ($6 = 1 and substr(action, 1, length($5)) = $5))
           and ($7 = 0 or subject_id = $8)
           and at >= $9 and at < $10 and event_id < $12
         order by event_id
         limit $11",
    );
    INSERT_PLATFORM_EVENT: OfPlatform = Statement::new(
        "insert into platform_audit (event_id, at, actor_kind, actor_id, on_behalf_of, action, subject_id,
                                     changes, request_id, source)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    );
}

/// A row of a tenant's log.
#[derive(Debug, sqlx::FromRow)]
pub struct AuditRow {
    /// Its id, which rises with time.
    pub event_id: Uuid,
    /// When.
    pub at: Timestamp,
    /// Who, by kind; as in access.proto.
    pub actor_kind: i64,
    /// Who.
    pub actor_id: Option<Uuid>,
    /// In whose name.
    pub on_behalf_of: Option<Uuid>,
    /// `Service/Method`.
    pub action: String,
    /// On what.
    pub subject_id: Option<Uuid>,
    /// JSON: field to what was and is.
    pub changes: String,
    /// The server's id of the call.
    pub request_id: String,
    /// From where.
    pub source: Option<String>,
}

/// A tenant's log after one of its rows, oldest first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list(tx: &mut TenantTx, after: Uuid, limit: i64) -> Result<Vec<AuditRow>, Error> {
    tx.all(&LIST, &[after.into(), limit.into()]).await
}

/// Which rows of a log.
#[derive(Debug, Clone)]
pub struct AuditFilter {
    /// Of this actor alone.
    pub actor: Option<Uuid>,
    /// This action, or those that begin with it when it ends in `/`; all when empty.
    pub action: String,
    /// On this subject alone.
    pub subject: Option<Uuid>,
    /// From then on.
    pub from: Timestamp,
    /// Before then.
    pub until: Timestamp,
}

impl AuditFilter {
    /// The arguments of a statement that lists by it the rows before a place.
    pub(super) fn before(&self, place: Uuid, limit: i64) -> [Value<'_>; 11] {
        self.args(place.min(self.end()), limit, first_id(self.from))
    }

    /// The same for the rows after a place.
    fn after(&self, place: Uuid, limit: i64) -> [Value<'_>; 11] {
        self.args(place.max(first_id(self.from)), limit, self.end())
    }

    /// An id that is not before any of the rows.
    fn end(&self) -> Uuid {
        first_id(self.until.after(TimeDelta::milliseconds(1)))
    }

    /// A row's id begins with its time, so that the ids of a span of time are found without looking at all others.
    fn args(&self, place: Uuid, limit: i64, end: Uuid) -> [Value<'_>; 11] {
        let begins = self.action.is_empty() || self.action.ends_with('/');
        [
            place.into(),
            i64::from(self.actor.is_some()).into(),
            self.actor.unwrap_or_default().into(),
            self.action.as_str().into(),
            i64::from(begins).into(),
            i64::from(self.subject.is_some()).into(),
            self.subject.unwrap_or_default().into(),
            self.from.into(),
            self.until.into(),
            limit.into(),
            end.into(),
        ]
    }
}

/// A tenant's log before one of its rows, the newest first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_before(
    tx: &mut TenantTx,
    filter: &AuditFilter,
    before: Uuid,
    limit: i64,
) -> Result<Vec<AuditRow>, Error> {
    tx.all(&LIST_BEFORE, &filter.before(before, limit)).await
}

/// A tenant's log after one of its rows, the oldest first.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn list_after(
    tx: &mut TenantTx,
    filter: &AuditFilter,
    after: Uuid,
    limit: i64,
) -> Result<Vec<AuditRow>, Error> {
    tx.all(&LIST_AFTER, &filter.after(after, limit)).await
}
