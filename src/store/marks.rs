//! When what was last changed: for each thing that is kept in memory, the place in the feed at which it was touched last.
//!
//! What was read as of a place in the feed is still right when nothing that it depends on was touched behind that place. So
//! nothing has to be thrown out when a change comes, nothing that is being read meanwhile can come back from the dead, and
//! the memory is bounded: things share marks by a hash, and a shared mark costs a reading more, never a wrong answer.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;
use uuid::Uuid;

use super::feed::{Change, FeedRow};
use crate::domain::id::{SessionId, TenantId, UserId};
use crate::domain::secret::sha256;

/// How many marks there are: so many that with a thousand changes a second one in a minute falls on another's mark.
const MARKS: usize = 1 << 16;

/// On what something that was read depends: the number of its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(u16);

impl Tag {
    fn new(kind: i16, parts: &[&[u8]]) -> Self {
        // FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/): ids are random already.
        let bytes = parts.iter().copied().flatten();
        let hash = kind
            .to_be_bytes()
            .iter()
            .chain(bytes)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let [.., high, low] = (hash ^ (hash >> 16) ^ (hash >> 32)).to_be_bytes();
        Self(u16::from_be_bytes([high, low]))
    }

    /// A tenant: status, plan, settings.
    #[must_use]
    pub fn tenant(tenant: TenantId) -> Self {
        Self::new(1, &[tenant.0.as_bytes()])
    }

    /// Whose a slug or domain is.
    #[must_use]
    pub fn host(host: &str) -> Self {
        Self::text(2, host)
    }

    /// A person's place in a tenant.
    #[must_use]
    pub fn membership(tenant: TenantId, user: UserId) -> Self {
        Self::new(3, &[tenant.0.as_bytes(), user.0.as_bytes()])
    }

    /// An account.
    #[must_use]
    pub fn account(user: UserId) -> Self {
        Self::new(4, &[user.0.as_bytes()])
    }

    /// The keys that sign access tokens.
    #[must_use]
    pub fn signing_keys() -> Self {
        Self::new(7, &[])
    }

    /// The catalogue.
    #[must_use]
    pub fn catalogue() -> Self {
        Self::new(8, &[])
    }

    /// A sign-in.
    #[must_use]
    pub fn session(session: SessionId) -> Self {
        Self::new(30, &[session.0.as_bytes()])
    }

    /// The roles of a tenant.
    #[must_use]
    pub fn roles(tenant: TenantId) -> Self {
        Self::new(45, &[tenant.0.as_bytes()])
    }

    /// A key of a service or operator by its public part.
    #[must_use]
    pub fn platform_key(key_id: &str) -> Self {
        Self::text(6, key_id)
    }

    /// The same by its row.
    #[must_use]
    pub fn platform_key_row(key: Uuid) -> Self {
        Self::new(6, &[key.as_bytes()])
    }

    /// A key of a tenant or member by its public part.
    #[must_use]
    pub fn api_key(key_id: &str) -> Self {
        Self::text(50, key_id)
    }

    fn text(kind: i16, text: &str) -> Self {
        let hash = sha256(text.as_bytes());
        Self::new(kind, &[&hash[..16]])
    }

    /// The marks that a row of the feed touches; none when this version does not know the kind of change.
    fn of_row(row: &FeedRow) -> Option<Vec<Self>> {
        let (tenant, key1, key2) = (row.tenant_id, row.key1, row.key2);
        let hashed = || row.key_hash.as_deref().map(|hash| Self::new(row.kind, &[hash]));
        Some(match row.kind {
            1 => vec![Self::tenant(TenantId(tenant?))],
            2 | 50 => vec![hashed()?],
            3 => vec![Self::membership(TenantId(tenant?), UserId(key1?))],
            4 => vec![Self::account(UserId(key1?))],
            6 => vec![hashed()?, Self::platform_key_row(key1?)],
            7 => vec![Self::signing_keys()],
            8 => vec![Self::catalogue()],
            30 => vec![Self::session(SessionId(key1?)), Self::account(UserId(key2?))],
            45 => vec![Self::roles(TenantId(tenant?))],
            // Invitations and quotas: nothing of them is kept.
            46 | 60 => Vec::new(),
            _ => return None,
        })
    }
}

/// All marks.
#[derive(Debug)]
pub struct Marks {
    all: Box<[AtomicI64]>,
    /// This server has committed something.
    pub(super) committed: Notify,
}

impl Default for Marks {
    fn default() -> Self {
        Self { all: (0..MARKS).map(|_| AtomicI64::new(0)).collect(), committed: Notify::new() }
    }
}

impl Marks {
    /// Notes what a row of the feed touches. False when that is not known: then everything may be.
    #[must_use]
    pub fn touch(&self, row: &FeedRow) -> bool {
        let Some(tags) = Tag::of_row(row) else { return false };
        for tag in tags {
            self.all[usize::from(tag.0)].fetch_max(row.seq, Ordering::AcqRel);
        }
        true
    }

    /// Notes what a transaction of this server has changed, before its caller is answered.
    pub(super) fn touch_own(&self, seq: i64, changes: &[Change]) {
        for change in changes {
            let _ = self.touch(&change.row(seq));
        }
        self.committed.notify_one();
    }

    /// Where any of these was touched last.
    #[must_use]
    pub fn last(&self, tags: &[Tag]) -> i64 {
        tags.iter().map(|tag| self.all[usize::from(tag.0)].load(Ordering::Acquire)).max().unwrap_or(0)
    }

    /// Forgets all marks: they are of a history that is not the database's.
    pub fn clear(&self) {
        for mark in &self.all {
            mark.store(0, Ordering::Release);
        }
    }
}
