//! What providers publish about themselves, as far as it is remembered, and how many calls to them go on at once. A tenant
//! chooses whom we ask, and everybody may begin a sign-in: one provider that does not answer must cost the others nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use openidconnect::{DiscoveryError, IssuerUrl};

use super::{Metadata, OidcError};
use crate::domain::id::TenantId;
use crate::outside::http::{Http, HttpError};
use crate::time::Timestamp;

/// How long what a provider publishes is remembered.
const REMEMBERED: TimeDelta = TimeDelta::minutes(10);

/// How long it is remembered that nothing came of asking.
const FAILED: TimeDelta = TimeDelta::seconds(10);

/// How many providers are remembered.
const PROVIDERS: usize = 200;

/// How long a provider may take to say all of what it publishes.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many keys a provider may publish.
const KEYS: usize = 50;

/// How many people's sign-ins wait for providers at once, in all.
const AT_ONCE: usize = 32;

/// How many of them in one tenant.
const AT_ONCE_IN_TENANT: usize = 8;

/// Asks providers what they publish, and remembers it.
pub(super) struct Providers {
    pub(super) http: Http,
    known: Mutex<HashMap<String, Known>>,
    waiting: Waiting,
}

/// How many calls wait, by whose they are.
type Waiting = Arc<Mutex<HashMap<TenantId, usize>>>;

/// One provider.
struct Known {
    /// Since when.
    at: Timestamp,
    /// What came of asking; none while it is asked for the first time.
    found: Option<Result<Arc<Metadata>, OidcError>>,
    /// Held by whoever asks: the others wait for what comes of that.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Known {
    fn until(&self) -> Timestamp {
        self.at.after(if matches!(self.found, Some(Err(_))) { FAILED } else { REMEMBERED })
    }
}

/// A turn to wait for a tenant's provider, given back when it is dropped.
pub struct Turn {
    tenant: TenantId,
    waiting: Waiting,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = locked(&self.waiting);
        if let Some(count) = waiting.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.tenant);
            }
        }
    }
}

impl Providers {
    pub(super) fn new(http: Http) -> Self {
        Self { http, known: Mutex::default(), waiting: Arc::default() }
    }

    /// A turn to wait for a tenant's provider.
    ///
    /// # Errors
    /// `Busy`: nobody is queued.
    pub(super) fn turn(&self, tenant: TenantId) -> Result<Turn, OidcError> {
        let mut waiting = locked(&self.waiting);
        let own = waiting.get(&tenant).copied().unwrap_or(0);
        if own >= AT_ONCE_IN_TENANT || waiting.values().sum::<usize>() >= AT_ONCE {
            return Err(OidcError::Busy);
        }
        waiting.insert(tenant, own + 1);
        Ok(Turn { tenant, waiting: self.waiting.clone() })
    }

    /// What came of asking a provider not long ago.
    pub(super) fn remembered(&self, issuer: &str, now: Timestamp) -> Option<Result<Arc<Metadata>, OidcError>> {
        let known = locked(&self.known);
        // Calls that wait for the same answer have begun at different times; a clock that was put back is another thing.
        let fresh = |known: &&Known| known.at <= now.after(FAILED) && now < known.until();
        known.get(issuer).filter(fresh)?.found.clone()
    }

    /// `remembered`, or asks; one asks at a time, the others wait for the answer. Under a turn.
    pub(super) async fn find(&self, issuer: &str, now: Timestamp) -> Result<Arc<Metadata>, OidcError> {
        if let Some(found) = self.remembered(issuer, now) {
            return found;
        }
        let asking = self.asking(issuer, now);
        let _asks = asking.lock().await;
        match self.remembered(issuer, now) {
            Some(found) => found,
            None => self.renew(issuer, now).await,
        }
    }

    /// Asks, whatever is remembered, and remembers the answer. Under a turn.
    pub(super) async fn renew(&self, issuer: &str, now: Timestamp) -> Result<Arc<Metadata>, OidcError> {
        let found = self.ask(issuer).await.map(Arc::new);
        let asking = self.asking(issuer, now);
        locked(&self.known).insert(issuer.to_owned(), Known { at: now, found: Some(found.clone()), asking });
        found
    }

    /// Asks, and remembers nothing. Under a turn.
    pub(super) async fn ask(&self, issuer: &str) -> Result<Metadata, OidcError> {
        let url = IssuerUrl::new(issuer.to_owned());
        let url = url.map_err(|_| OidcError::Unreachable("its address is none".to_owned()))?;
        let asked = tokio::time::timeout(PATIENCE, Metadata::discover_async(url, &self.http)).await;
        let found = asked.map_err(|_| OidcError::Unreachable("no answer came: it takes too long".to_owned()))?;
        let found = found.map_err(failed)?;
        if found.jwks().keys().len() > KEYS {
            return Err(OidcError::Refused(format!("it publishes more than {KEYS} keys")));
        }
        Ok(found)
    }

    /// What is held while a provider is asked. Beyond the number of those that are remembered, the one that would be asked
    /// again soonest is forgotten.
    fn asking(&self, issuer: &str, now: Timestamp) -> Arc<tokio::sync::Mutex<()>> {
        let mut known = locked(&self.known);
        if !known.contains_key(issuer) && known.len() >= PROVIDERS {
            let first = known.iter().min_by_key(|(_, known)| known.until()).map(|(issuer, _)| issuer.clone());
            first.and_then(|first| known.remove(&first));
        }
        let new = || Known { at: now, found: None, asking: Arc::default() };
        known.entry(issuer.to_owned()).or_insert_with(new).asking.clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: DiscoveryError<HttpError>) -> OidcError {
    match error {
        DiscoveryError::Request(error) => OidcError::Unreachable(error.to_string()),
        DiscoveryError::Response(status, ..) => OidcError::Unreachable(format!("it answers with {status}")),
        // It calls itself otherwise than it is called here.
        DiscoveryError::Validation(_) => OidcError::Refused("its document is of another issuer".to_owned()),
        _ => OidcError::Unreachable("its document is not that of a provider".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::http::Reach;

    fn providers() -> Providers {
        Providers::new(Http::new(Reach::Public).unwrap())
    }

    #[test]
    fn a_tenant_takes_its_own_turns_only() {
        let providers = providers();
        let tenant = |n: u128| TenantId(uuid::Uuid::from_u128(n));
        let mut turns: Vec<Turn> = (0..AT_ONCE_IN_TENANT).map(|_| providers.turn(tenant(1)).expect("a turn")).collect();
        assert!(providers.turn(tenant(1)).is_err());
        turns.extend((AT_ONCE_IN_TENANT..AT_ONCE).map(|n| providers.turn(tenant(2 + n as u128)).expect("a turn")));
        assert!(providers.turn(tenant(1_000)).is_err(), "all are taken");
        turns.truncate(1);
        assert!(providers.turn(tenant(1)).is_ok() && locked(&providers.waiting).len() == 1);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let providers = providers();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        for n in 0..2 * PROVIDERS {
            let issuer = format!("https://{n}.example.com");
            providers.asking(&issuer, at(i64::try_from(n).unwrap()));
            assert!(locked(&providers.known).len() <= PROVIDERS);
            assert!(locked(&providers.known).contains_key(&issuer), "the newest is");
        }
    }
}
