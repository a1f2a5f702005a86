//! Rows of the outbox: messages to people, written in the transaction of what they are about. A tenant's are in `outbox`,
//! the platform's to a person in `personal_outbox`. Sending them is a job.

use uuid::Uuid;

use super::scoped::{Scope, Scoped, TenantTx};
use super::tx::{OfTenant, OfUser, Statement, Value, statements};
use crate::domain::id::{TenantId, UserId};
use crate::domain::mail::{Message, Template};
use crate::domain::name::Email;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into outbox (tenant_id, message_id, template, recipient, payload, sealed, status, created_at)
         values ($1, $2, $3, $4, $5, $6, 1, $7)
         on conflict (tenant_id, message_id) do nothing",
    );
    INSERT_PERSONAL: OfUser = Statement::new(
        "insert into personal_outbox (user_id, message_id, template, recipient, payload, sealed, status, created_at)
         values ($1, $2, $3, $4, $5, $6, 1, $7)
         on conflict (user_id, message_id) do nothing",
    );
    END: OfTenant = Statement::new(
        "update outbox
         set status = $3, ended_at = $4, sealed = null
         where tenant_id = $1 and message_id = $2 and status = 1",
    );
    END_PERSONAL: OfUser = Statement::new(
        "update personal_outbox
         set status = $3, ended_at = $4, sealed = null
         where user_id = $1 and message_id = $2 and status = 1",
    );
    DELETE: OfTenant = Statement::new(
        "delete from outbox
         where tenant_id = $1 and message_id = $2",
    );
    FORGET: OfTenant = Statement::new(
        "delete from outbox
         where tenant_id = $1 and recipient = $2 and status <> 1",
    );
    DELETE_PERSONAL: OfUser = Statement::new(
        "delete from personal_outbox
         where user_id = $1 and message_id = $2",
    );
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is sent in the name of a tenant.
    Tenant(TenantId),
    /// It is sent by the platform to a person.
    Person(UserId),
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is to be sent.
    Waiting,
    /// It was handed on.
    Sent,
    /// It could not be.
    GivenUp,
}

impl Status {
    pub(super) const fn of(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Waiting,
            2 => Self::Sent,
            3 => Self::GivenUp,
            _ => return None,
        })
    }

    const fn number(self) -> i64 {
        match self {
            Self::Waiting => 1,
            Self::Sent => 2,
            Self::GivenUp => 3,
        }
    }
}

/// A message that was written down.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its id, also on its way outside.
    pub message_id: Uuid,
    /// Whose it is.
    pub owner: Owner,
    /// Which letter; none when it is one that this server does not know.
    pub template: Option<Template>,
    /// To whom.
    pub recipient: Email,
    /// What it speaks of.
    pub payload: serde_json::Value,
    /// The token of its link, sealed for this message.
    pub sealed: Option<Vec<u8>>,
    /// How far it has come.
    pub status: Status,
    /// When it was written down.
    pub created_at: Timestamp,
}

/// Writes a message, unless it was written before; its id when it was new. It belongs to the transaction's tenant, or else
/// to its person.
///
/// # Errors
/// `DatabaseUnavailable`; internal in a transaction that is bound to neither.
pub async fn insert<S: Scope>(
    tx: &mut Scoped<S>,
    message: &Message,
    seal: impl FnOnce(Uuid, &str) -> Vec<u8>,
    now: Timestamp,
) -> Result<Option<Uuid>, Error> {
    let owner = tx.scope().tenant().map(|t| t.0).or(tx.scope().user().map(|u| u.0));
    let owner = owner.ok_or_else(|| Error::internal("a message belongs to a tenant or a person"))?;
    let id = message.id(owner);
    let sealed = message.secret.as_ref().map(|secret| seal(id, secret.expose()));
    let payload = message.payload.to_string();
    let args = [
        id.into(),
        message.template.as_str().into(),
        message.recipient.as_str().into(),
        payload.as_str().into(),
        sealed.as_deref().into(),
        now.into(),
    ];
    let new = of_owner(tx, (&INSERT, &INSERT_PERSONAL), &args).await?;
    Ok((new == Some(1)).then_some(id))
}

/// Says how a message of the transaction's tenant, or else person, ended, and forgets its secret.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn end<S: Scope>(tx: &mut Scoped<S>, id: Uuid, status: Status, now: Timestamp) -> Result<(), Error> {
    let args = [id.into(), status.number().into(), now.into()];
    of_owner(tx, (&END, &END_PERSONAL), &args).await.map(|_| ())
}

/// Deletes a message of the transaction's tenant, or else person.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn delete<S: Scope>(tx: &mut Scoped<S>, id: Uuid) -> Result<(), Error> {
    of_owner(tx, (&DELETE, &DELETE_PERSONAL), &[id.into()]).await.map(|_| ())
}

/// Runs the statement on a tenant's messages, or where the transaction has none, that on a person's; how many it touched.
async fn of_owner<S: Scope>(
    tx: &mut Scoped<S>,
    (of_tenant, of_person): (&Statement<OfTenant>, &Statement<OfUser>),
    args: &[Value<'_>],
) -> Result<Option<u64>, Error> {
    match tx.scope().tenant() {
        Some(_) => tx.execute_if_tenant(of_tenant, args).await,
        None => tx.execute_if_user(of_person, args).await,
    }
}

/// Forgets the messages of a tenant to an address that have ended.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn forget(tx: &mut TenantTx, email: &Email) -> Result<(), Error> {
    tx.execute(&FORGET, &[email.as_str().into()]).await.map(|_| ())
}
