//! What servers on one PostgreSQL tell one another of leases. A notice may be lost: nothing depends on it but time.

use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{QuotaRows, Signal};
use crate::domain::id::TenantId;
use crate::domain::quota::{AccountKey, Scope};
use crate::error::Error;
use crate::store::Engine;
use crate::store::tx::failed;

/// Accounts in one notice: PostgreSQL takes 8,000 bytes.
pub(super) const IN_A_NOTICE: usize = 100;

/// The channel of a signal.
pub(super) const fn channel(signal: Signal) -> &'static str {
    match signal {
        Signal::Recall => "tenantry_recall",
        Signal::Returned => "tenantry_returned",
    }
}

/// Accounts, as they are sent: scope, tenant and account in hexadecimal, one after the other with spaces.
pub(super) fn text(accounts: &[AccountKey]) -> String {
    let one =
        |key: &AccountKey| format!("{}{}{}", key.scope.number(), key.tenant.0.as_simple(), key.account.as_simple());
    accounts.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> Vec<AccountKey> {
    let one = |text: &str| {
        let scope = Scope::of(text.get(..1)?.parse().ok()?);
        let tenant = TenantId(Uuid::try_parse(text.get(1..33)?).ok()?);
        Some(AccountKey { scope, tenant, account: Uuid::try_parse(text.get(33..)?).ok()? })
    };
    text.split(' ').filter_map(one).collect()
}

/// Accounts whose leases were taken back by changes of this server, until servers are told of it.
#[derive(Debug, Default)]
pub struct Recalls {
    accounts: Mutex<Vec<AccountKey>>,
    added: Notify,
}

impl Recalls {
    pub(in crate::store) fn add(&self, mut accounts: Vec<AccountKey>) {
        if accounts.is_empty() {
            return;
        }
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner).append(&mut accounts);
        self.added.notify_one();
    }

    /// Those that were added since; waits until there are some.
    pub async fn next(&self) -> Vec<AccountKey> {
        self.added.notified().await;
        std::mem::take(&mut *self.accounts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hears what other servers say.
pub struct Listener(PgListener);

impl QuotaRows {
    /// Begins to listen; none where there is nobody to listen to.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn listen(&self) -> Result<Option<Listener>, Error> {
        let Engine::Postgres { meter, .. } = &self.0.engine else { return Ok(None) };
        let mut listener = PgListener::connect_with(meter).await.map_err(failed)?;
        listener.listen_all(["tenantry_recall", "tenantry_returned"]).await.map_err(failed)?;
        Ok(Some(Listener(listener)))
    }
}

impl Listener {
    /// The next thing that is said. After a lost connection it goes on by itself.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn next(&mut self) -> Result<(Signal, Vec<AccountKey>), Error> {
        let notice = self.0.recv().await.map_err(failed)?;
        let signal = if notice.channel() == channel(Signal::Recall) { Signal::Recall } else { Signal::Returned };
        Ok((signal, read(notice.payload())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_accounts_is_heard_whole() {
        let key = |scope| AccountKey { scope, tenant: TenantId(Uuid::from_u128(7)), account: Uuid::from_u128(9) };
        let accounts = [key(Scope::Key), key(Scope::Member), key(Scope::Tenant)];
        assert_eq!(read(&text(&accounts)), accounts);
        assert_eq!(read("2 x 200"), []);
        assert!(text(&[key(Scope::Tenant); IN_A_NOTICE]).len() < 8_000);
    }
}
