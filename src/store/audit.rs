//! Audit rows: who did what, to what, when, and what was there before. Written in the mutation's own transaction, so
//! there is no change without one.

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::scoped::{Scope, Scoped, TenantTx};
use super::tx::{OfPlatform, OfTenant, Statement, statements};
use crate::ctx::Ctx;
use crate::error::Error;
use crate::time::Timestamp;

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
        Ok(())
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
