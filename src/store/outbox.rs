//! Rows of the outbox: messages to people, written in the transaction of what they are about. Sending them is another's work.

use uuid::{Builder, Uuid};

use super::scoped::{RunsIn, Scope, Scoped};
use super::tx::{OfTenant, Statement, statements};
use crate::domain::secret::sha256;
use crate::error::Error;
use crate::time::Timestamp;

statements! {
    INSERT: OfTenant = Statement::new(
        "insert into outbox (tenant_id, message_id, template, recipient, payload, created_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (tenant_id, message_id) do nothing",
    );
}

/// A message to somebody.
#[derive(Debug, Clone)]
pub struct Message {
    /// Which text.
    pub template: &'static str,
    /// To which e-mail address.
    pub recipient: String,
    /// What the text speaks of. Never a secret.
    pub payload: serde_json::Value,
    /// What it is about, such as a trial and its end: two messages to one person about the same are one.
    pub about: String,
}

impl Message {
    /// The message's id, derived from what it is about: whoever writes it again writes the same.
    fn id(&self, tenant: Uuid) -> Uuid {
        let text = format!("{tenant} {} {} {}", self.template, self.recipient, self.about);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sha256(text.as_bytes())[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// Writes a message, unless it was written before; whether it was new.
///
/// # Errors
/// `DatabaseUnavailable`.
pub async fn insert<S: Scope>(tx: &mut Scoped<S>, message: &Message, now: Timestamp) -> Result<bool, Error>
where
    Statement<OfTenant>: RunsIn<S>,
{
    let Some(tenant) = tx.scope().tenant() else { return Ok(false) };
    let payload = message.payload.to_string();
    let args = [
        message.id(tenant.0).into(),
        message.template.into(),
        message.recipient.as_str().into(),
        payload.as_str().into(),
        now.into(),
    ];
    Ok(tx.execute(&INSERT, &args).await? == 1)
}
