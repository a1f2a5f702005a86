//! What decisions are made from, in memory: sessions, keys, names, memberships, tenants, each as of a place in the change
//! feed. A decision reads what it needs through a [`Look`] and, before it is used, asks whether it all holds: whether nothing
//! of it was touched since it was read, as of one place in the feed that is not older than `max_staleness`. If not, it
//! looks again; if memory does not keep up, it reads rows.
//!
//! The bound: when a call that takes a right away was answered at t, every request sent after t + `max_staleness`, to any
//! server, is decided on what it left. A look is of the feed as it stood when its last complete poll was sent, and holds only
//! while that is less than 0.95 of the bound ago, by a clock that is read last. On the server that made the change it is
//! decided so from the answer on: the commit touches the marks.

use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::sync::{Notify, Semaphore};

use super::Plane;
use crate::domain::cursor::Cursor;
use crate::domain::domain::DomainName;
use crate::domain::entitlement::FeatureSwitch;
use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::membership::Membership;
use crate::domain::name::Slug;
use crate::domain::session::Session;
use crate::domain::user::Account;
use crate::error::Error;
use crate::store::feed::{FeedReader, FeedRow, Poll};
use crate::store::marks::{Marks, Tag};
use crate::store::system::{GuardedTenant, Seen, SlugHolder, StoredApiKey, StoredKey};
use crate::time::{Timestamp, boot_micros};

/// How often a decision looks again before it reads rows.
const TRIES: u8 = 3;

/// Reads that fill memory, at once; of what anybody may ask for without a credential that was checked, half as many.
const FILLS: usize = 16;

/// How long a decision waits for the feed to reach what it has read, before it reads rows.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Places of the feed of which the nonce is known without a look: of the newest ones.
const PLACES: usize = 65_536;

/// How long after a failure the feed is followed again.
const AGAIN: Duration = Duration::from_millis(100);

/// A reading of rows. Boxed: it is large, rare, and part of every call's future otherwise.
type Reading<'r, T> = Pin<Box<dyn Future<Output = Result<Seen<T>, Error>> + Send + 'r>>;

/// As of when something was read, and on what it depends.
#[derive(Debug, Clone, Copy)]
pub struct AsOf {
    generation: u64,
    head: i64,
    tags: [Tag; 4],
}

struct Fact<T> {
    as_of: AsOf,
    found: Option<T>,
}

/// Facts of one kind, so many at most; what was asked for once goes first.
struct Facts<K, T> {
    name: &'static str,
    kept: Cache<K, Arc<Fact<T>>>,
}

impl<K: Hash + Eq, T> Facts<K, T> {
    fn new(name: &'static str, bound: usize) -> Self {
        Self { name, kept: Cache::new(bound) }
    }
}

/// The memory.
pub struct Memory {
    marks: Arc<Marks>,
    max_staleness: Duration,
    /// Up to where the feed has been read.
    applied: AtomicI64,
    /// When the last complete poll was sent, in microseconds of the boot clock; 0 is never.
    confirmed: AtomicU64,
    /// The nonces of the newest places: the lower half of the place's number, then the nonce.
    nonces: Box<[AtomicU64]>,
    /// Rises when everything is forgotten.
    generation: AtomicU64,
    /// The feed is to be read.
    wanted: Notify,
    /// It was.
    moved: Notify,
    fills: Semaphore,
    unchecked_fills: Semaphore,
    /// By whose, which, and the key that signed the token.
    sessions: Facts<(UserId, SessionId, String), (Session, Account)>,
    platform_keys: Facts<String, StoredKey>,
    api_keys: Facts<String, StoredApiKey>,
    accounts: Facts<UserId, Account>,
    slugs: Facts<String, SlugHolder>,
    domains: Facts<String, TenantId>,
    memberships: Facts<(TenantId, UserId), Membership>,
    session_ends: Facts<(TenantId, SessionId), Timestamp>,
    tenants: Facts<TenantId, GuardedTenant>,
    switches: Facts<(TenantId, String), Vec<FeatureSwitch>>,
}

impl Memory {
    /// An empty one, of at most so many entries of each kind. Nothing is decided from it before the feed was read.
    #[must_use]
    pub fn new(marks: Arc<Marks>, max_staleness: Duration, bound: usize) -> Self {
        Self {
            marks,
            max_staleness,
            applied: AtomicI64::new(0),
            confirmed: AtomicU64::new(0),
            nonces: (0..PLACES).map(|_| AtomicU64::new(u64::MAX)).collect(),
            generation: AtomicU64::new(0),
            wanted: Notify::new(),
            moved: Notify::new(),
            fills: Semaphore::new(FILLS),
            unchecked_fills: Semaphore::new(FILLS / 2),
            sessions: Facts::new("session", bound),
            platform_keys: Facts::new("platform_key", bound.min(10_000)),
            api_keys: Facts::new("api_key", bound),
            accounts: Facts::new("account", bound),
            slugs: Facts::new("slug", bound),
            domains: Facts::new("domain", bound),
            memberships: Facts::new("membership", bound),
            session_ends: Facts::new("session_end", bound),
            tenants: Facts::new("tenant", bound),
            switches: Facts::new("feature", bound),
        }
    }

    /// How old the state may be that decisions are made from.
    #[must_use]
    pub const fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    /// How old the state is that decisions are made from; none before the feed was read.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.basis().staleness()
    }

    /// What a decision that begins now is made on, at least.
    #[must_use]
    pub fn basis(&self) -> Basis {
        let confirmed = self.confirmed.load(Ordering::Acquire);
        self.basis_at(confirmed, self.applied.load(Ordering::Acquire))
    }

    fn basis_at(&self, confirmed: u64, applied: i64) -> Basis {
        let revision = self.nonce_at(applied).map(|nonce| Cursor { seq: applied, nonce });
        Basis { revision, confirmed }
    }

    /// The nonce of a place, where that is among the newest.
    fn nonce_at(&self, seq: i64) -> Option<i32> {
        let kept = self.nonces[slot(seq)].load(Ordering::Acquire);
        let nonce = u32::try_from(kept & u64::from(u32::MAX)).ok()?;
        (kept == packed(Cursor { seq, nonce: nonce.cast_signed() })).then_some(nonce.cast_signed())
    }

    fn keep_nonce(&self, cursor: Cursor) {
        self.nonces[slot(cursor.seq)].store(packed(cursor), Ordering::Release);
    }

    /// Now, for what is read from here on and is kept elsewhere.
    #[must_use]
    pub fn now(&self, tag: Tag) -> AsOf {
        let generation = self.generation();
        AsOf { generation, head: self.applied.load(Ordering::Acquire), tags: [tag; 4] }
    }

    /// Rises when everything is forgotten: what else is kept of the rows is to be forgotten then, too.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether what was read as of then is as it was, as far as is known.
    #[must_use]
    pub fn is_current(&self, as_of: &AsOf) -> bool {
        // The generation last: marks are cleared after it has risen.
        self.marks.last(&as_of.tags) <= as_of.head && as_of.generation == self.generation()
    }

    /// Applies rows of the feed, which is read up to `cursor` then; `sent` is when the poll was, if that was all there is.
    fn apply(&self, rows: &[FeedRow], cursor: Cursor, sent: Option<u64>) {
        let mut known = true;
        for row in rows {
            known &= self.marks.touch(row);
            self.keep_nonce(Cursor { seq: row.seq, nonce: row.nonce });
        }
        if !known {
            // A newer version's change.
            self.forget();
        }
        self.applied.store(cursor.seq, Ordering::Release);
        if let Some(sent) = sent {
            self.confirmed.store(sent, Ordering::Release);
        }
        self.moved.notify_waiters();
    }

    /// Goes on in another history.
    fn begin_anew(&self, head: Cursor, sent: u64) {
        self.forget();
        self.marks.clear();
        self.nonces.iter().for_each(|kept| kept.store(u64::MAX, Ordering::Release));
        self.keep_nonce(head);
        self.applied.store(head.seq, Ordering::Release);
        self.confirmed.store(sent, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Forgets everything.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        metrics::counter!("tenantry_memory_flushes_total").increment(1);
    }

    /// Waits until the feed was read up to a place; false when it does not get there in time.
    async fn reach(&self, place: i64) -> bool {
        let reached = self.moves_until(|| self.applied.load(Ordering::Acquire) >= place, || self.wanted.notify_one());
        tokio::time::timeout(CATCH_UP, reached).await.is_ok()
    }

    /// Waits until the feed was read beyond a place.
    pub async fn passes(&self, place: i64) {
        self.moves_until(|| self.applied.load(Ordering::Acquire) > place, || {}).await;
    }

    /// Waits until something is so, which is looked at whenever the feed was read; `ask` says each time that it is wanted.
    async fn moves_until(&self, is_so: impl Fn() -> bool, ask: impl Fn()) {
        loop {
            let moved = self.moved.notified();
            if is_so() {
                return;
            }
            ask();
            moved.await;
        }
    }

    /// Whether decisions may be made from memory now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh_since(self.confirmed.load(Ordering::Acquire))
    }

    fn is_fresh_since(&self, confirmed: u64) -> bool {
        let bound = self.max_staleness * 19 / 20;
        confirmed != 0 && u128::from(boot_micros().saturating_sub(confirmed)) < bound.as_micros()
    }

    /// Waits until the feed was read to its end by a look that was sent after this was asked.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn read_on(&self) -> Result<(), Error> {
        let asked = boot_micros();
        let read = self.moves_until(|| self.confirmed.load(Ordering::Acquire) >= asked, || self.wanted.notify_one());
        let too_long = |_| Error::DatabaseUnavailable("a look into the change feed took too long".into());
        tokio::time::timeout(self.max_staleness / 2, read).await.map_err(too_long)
    }

    /// Says how much is kept, for the metrics.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    fn gauge(&self) {
        let all = [
            (self.sessions.name, self.sessions.kept.len()),
            (self.platform_keys.name, self.platform_keys.kept.len()),
            (self.api_keys.name, self.api_keys.kept.len()),
            (self.accounts.name, self.accounts.kept.len()),
            (self.slugs.name, self.slugs.kept.len()),
            (self.domains.name, self.domains.kept.len()),
            (self.memberships.name, self.memberships.kept.len()),
            (self.session_ends.name, self.session_ends.kept.len()),
            (self.tenants.name, self.tenants.kept.len()),
            (self.switches.name, self.switches.kept.len()),
        ];
        for (kind, entries) in all {
            metrics::gauge!("tenantry_memory_entries", "kind" => kind).set(entries as f64);
        }
        if let Some(staleness) = self.staleness() {
            metrics::gauge!("tenantry_memory_staleness_seconds").set(staleness.as_secs_f64());
        }
    }
}

fn slot(seq: i64) -> usize {
    usize::try_from(seq.unsigned_abs() % PLACES as u64).unwrap_or(0)
}

fn packed(cursor: Cursor) -> u64 {
    (cursor.seq.cast_unsigned() << 32) | u64::from(cursor.nonce.cast_unsigned())
}

/// What is kept under a key, unless it is old; else what is read now. One reads it, however many ask.
///
/// # Errors
/// Those of the reading; nothing is kept then.
pub async fn recall<K, T, F>(
    kept: &Cache<K, T>,
    key: &K,
    is_old: impl Fn(&T) -> bool,
    read: impl FnOnce() -> Pin<Box<F>>,
) -> Result<T, Error>
where
    K: Hash + Eq + Clone,
    T: Clone,
    F: Future<Output = Result<T, Error>>,
{
    if let Some(found) = kept.get(key).filter(|found| !is_old(found)) {
        return Ok(found);
    }
    kept.remove_if(key, is_old);
    kept.get_or_insert_async(key, read()).await
}

impl Plane {
    /// Reads the feed for as long as the server runs: when somebody commits a change, when a decision waits for one, and
    /// four times in `max_staleness` in any case.
    pub async fn follow(&self) {
        // No place in any history: the first look says where to begin.
        let mut cursor = Cursor { seq: -1, nonce: 0 };
        loop {
            match self.store.follow_feed().await {
                Ok(reader) => {
                    let error = self.follow_with(reader, &mut cursor).await;
                    tracing::debug!(%error, "the change feed could not be read");
                }
                Err(error) => tracing::debug!(%error, "the change feed cannot be followed"),
            }
            metrics::counter!("tenantry_memory_failed_polls_total").increment(1);
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow_with(&self, mut reader: FeedReader<'_>, cursor: &mut Cursor) -> Error {
        let memory = &self.memory;
        loop {
            let sent = boot_micros();
            let polled = tokio::time::timeout(memory.max_staleness / 2, reader.poll(*cursor)).await;
            match polled {
                Err(_) => return Error::DatabaseUnavailable("a look into the change feed took too long".into()),
                Ok(Err(error)) => return error,
                Ok(Ok(Poll::Standby)) => {
                    return Error::DatabaseUnavailable("the database is a standby: what it says may be old".into());
                }
                Ok(Ok(Poll::CursorLost(head))) => {
                    // Version numbers of another history may mean something else. Before tenants' rows are read anew.
                    if let Err(error) = self.catalogues.read_anew(&self.store).await {
                        return error;
                    }
                    self.own_roles.forget();
                    *cursor = head;
                    memory.begin_anew(head, sent);
                }
                Ok(Ok(Poll::Page { rows, cursor: next, more })) => {
                    *cursor = next;
                    memory.apply(&rows, next, (!more).then_some(sent));
                    if more {
                        continue;
                    }
                }
            }
            memory.gauge();
            tokio::select! {
                () = memory.wanted.notified() => {}
                heard = reader.heard() => if let Err(error) = heard { return error },
                () = tokio::time::sleep(memory.max_staleness / 4) => {}
            }
        }
    }

    /// Begins to look, in memory where that is fresh.
    pub fn look(&self) -> Look<'_> {
        Look { plane: self, used: Some(Vec::with_capacity(5)), tries: 0, basis: self.memory.basis() }
    }

    /// Begins to look at rows, for what is decided once and held for long, and for what must be new.
    pub fn look_at_rows(&self) -> Look<'_> {
        Look { plane: self, used: None, tries: 0, basis: self.memory.basis().of_rows() }
    }

    /// Waits until decisions are made on what a revision has left, at least.
    ///
    /// # Errors
    /// `RevisionLost`: it is not in this history. It was lost in a failover, or is of another cluster, and waiting would not
    /// bring it. `DatabaseUnavailable`.
    pub async fn reach(&self, revision: Cursor) -> Result<(), Error> {
        let memory = &self.memory;
        self.catch_up(revision).await?;
        if memory.applied.load(Ordering::Acquire) < revision.seq {
            return Err(Error::RevisionLost);
        }
        let is_there = if let Some(nonce) = memory.nonce_at(revision.seq) {
            nonce == revision.nonce
        } else {
            let _permit = memory.fills.acquire().await;
            self.store.has_place(revision).await?
        };
        if is_there { Ok(()) } else { Err(Error::RevisionLost) }
    }

    /// Has the feed read to its end if it was not read up to a revision, for whoever is not known yet.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn catch_up(&self, revision: Cursor) -> Result<(), Error> {
        if self.memory.applied.load(Ordering::Acquire) < revision.seq { self.memory.read_on().await } else { Ok(()) }
    }
}

/// On what a decision is made: on all that was committed up to there, and maybe on more.
#[derive(Debug, Clone, Copy)]
pub struct Basis {
    /// A place in the feed; none before the feed was read.
    pub revision: Option<Cursor>,
    /// When it was confirmed, on the boot clock.
    confirmed: u64,
}

impl Basis {
    /// For rows that are read from now on: they are at least as new as what was applied, and as this moment.
    fn of_rows(self) -> Self {
        Self { confirmed: boot_micros(), ..self }
    }

    /// For how long changes that are not in it may have been there; none before the feed was read.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        (self.confirmed != 0).then(|| Duration::from_micros(boot_micros().saturating_sub(self.confirmed)))
    }
}

/// What one decision reads.
pub struct Look<'p> {
    pub(super) plane: &'p Plane,
    /// As of when each thing was read; none when rows are read, which always hold.
    used: Option<Vec<AsOf>>,
    tries: u8,
    basis: Basis,
}

impl Look<'_> {
    /// Whether a decision from what was read may be used. If not, it is to be made again, with this.
    ///
    /// The order matters: when the feed was confirmed, how far it was applied, what was touched, and the clock last. So a
    /// process that was stopped in between cannot take what it read before for fresh.
    pub async fn holds(&mut self) -> bool {
        let Some(used) = &mut self.used else { return true };
        let memory = &self.plane.memory;
        for _ in 0..2 {
            let confirmed = memory.confirmed.load(Ordering::Acquire);
            let applied = memory.applied.load(Ordering::Acquire);
            if used.iter().any(|as_of| !memory.is_current(as_of)) {
                break;
            }
            let newest = used.iter().map(|as_of| as_of.head).max().unwrap_or(0);
            if newest > applied {
                if memory.reach(newest).await {
                    continue;
                }
                break;
            }
            if !memory.is_fresh_since(confirmed) {
                self.tries = TRIES;
                break;
            }
            self.basis = memory.basis_at(confirmed, applied);
            return true;
        }
        used.clear();
        self.tries += 1;
        if self.tries >= TRIES {
            metrics::counter!("tenantry_memory_passed_by_total").increment(1);
            self.used = None;
            self.basis = memory.basis().of_rows();
        }
        false
    }

    /// What is decided here is decided on.
    #[must_use]
    pub const fn basis(&self) -> Basis {
        self.basis
    }

    async fn read<'r, K: Hash + Eq + Clone, T: Clone>(
        &mut self,
        facts: &Facts<K, T>,
        key: K,
        fills: &Semaphore,
        tags: impl FnOnce(Option<&T>) -> [Tag; 4],
        read: impl FnOnce() -> Reading<'r, T>,
    ) -> Result<Option<T>, Error> {
        let Some(used) = &mut self.used else { return Ok(read().await?.found) };
        let memory = &self.plane.memory;
        let is_old = |fact: &Arc<Fact<T>>| !memory.is_current(&fact.as_of);
        let fill = || {
            Box::pin(async move {
                // Before the reading: what is read in another history is not kept.
                let generation = memory.generation();
                let _permit = fills.acquire().await;
                metrics::counter!("tenantry_memory_fills_total", "kind" => facts.name).increment(1);
                let Seen { head, found } = read().await?;
                let as_of = AsOf { generation, head, tags: tags(found.as_ref()) };
                Ok(Arc::new(Fact { as_of, found }))
            })
        };
        let fact = recall(&facts.kept, &key, is_old, fill).await?;
        used.push(fact.as_of);
        Ok(fact.found.clone())
    }

    pub(super) async fn session(
        &mut self,
        user: UserId,
        session: SessionId,
        kid: &str,
    ) -> Result<Option<(Session, Account)>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let tags = |found: Option<&(Session, Account)>| {
            let own = [Tag::session(session), Tag::account(user), Tag::signing_keys()];
            let operator = found.and_then(|(session, _)| session.operator);
            [own[0], own[1], own[2], operator.map_or(own[0], |key| Tag::platform_key_row(key.0))]
        };
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_session(user, session, Some(kid))) };
        self.read(&memory.sessions, (user, session, kid.to_owned()), &memory.fills, tags, read).await
    }

    pub(super) async fn platform_key(&mut self, key_id: &str) -> Result<Option<StoredKey>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_platform_key(key_id)) };
        let tags = |_: Option<&StoredKey>| [Tag::platform_key(key_id); 4];
        self.read(&memory.platform_keys, key_id.to_owned(), &memory.unchecked_fills, tags, read).await
    }

    pub(super) async fn api_key(&mut self, key_id: &str) -> Result<Option<StoredApiKey>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_api_key(key_id)) };
        let tags = |found: Option<&StoredApiKey>| {
            let own = Tag::api_key(key_id);
            match found.map(|stored| (stored.key.tenant_id, stored.key.user_id)) {
                Some((tenant, Some(user))) => [own, Tag::membership(tenant, user), Tag::account(user), own],
                _ => [own; 4],
            }
        };
        self.read(&memory.api_keys, key_id.to_owned(), &memory.unchecked_fills, tags, read).await
    }

    pub(super) async fn account(&mut self, user: UserId) -> Result<Option<Account>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_account_by_id(user)) };
        let tags = |_: Option<&Account>| [Tag::account(user); 4];
        self.read(&memory.accounts, user, &memory.fills, tags, read).await
    }

    /// How a tenant's feature is switched, also by what is over.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn switches(&mut self, tenant: TenantId, feature: &str) -> Result<Vec<FeatureSwitch>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_switches(tenant, feature)) };
        let tags = |_: Option<&Vec<FeatureSwitch>>| [Tag::tenant(tenant); 4];
        let found = self.read(&memory.switches, (tenant, feature.to_owned()), &memory.fills, tags, read).await?;
        Ok(found.unwrap_or_default())
    }

    pub(super) async fn slug(&mut self, slug: &Slug) -> Result<Option<SlugHolder>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_slug(slug)) };
        let tags = |_: Option<&SlugHolder>| [Tag::host(slug.as_str()); 4];
        self.read(&memory.slugs, slug.as_str().to_owned(), &memory.unchecked_fills, tags, read).await
    }

    pub(super) async fn domain(&mut self, domain: &DomainName) -> Result<Option<TenantId>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_domain_host(domain)) };
        let tags = |_: Option<&TenantId>| [Tag::host(domain.as_str()); 4];
        self.read(&memory.domains, domain.as_str().to_owned(), &memory.unchecked_fills, tags, read).await
    }

    pub(super) async fn membership(&mut self, tenant: TenantId, user: UserId) -> Result<Option<Membership>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_membership(tenant, user)) };
        let tags = |_: Option<&Membership>| {
            let own = Tag::membership(tenant, user);
            // A role that was given another name is another name in the membership as well.
            [own, Tag::roles(tenant), own, own]
        };
        self.read(&memory.memberships, (tenant, user), &memory.fills, tags, read).await
    }

    pub(super) async fn session_end(
        &mut self,
        tenant: TenantId,
        session: &Session,
    ) -> Result<Option<Timestamp>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_session_end(tenant, session)) };
        let tags = |_: Option<&Timestamp>| [Tag::membership(tenant, session.user_id); 4];
        self.read(&memory.session_ends, (tenant, session.session_id), &memory.fills, tags, read).await
    }

    pub(super) async fn tenant(&mut self, tenant: TenantId) -> Result<Option<GuardedTenant>, Error> {
        let (plane, memory) = (self.plane, &self.plane.memory);
        let read = || -> Reading<'_, _> { Box::pin(plane.store.find_guarded_tenant(tenant)) };
        let tags = |_: Option<&GuardedTenant>| {
            let own = Tag::tenant(tenant);
            [own, Tag::roles(tenant), Tag::catalogue(), own]
        };
        self.read(&memory.tenants, tenant, &memory.fills, tags, read).await
    }
}
