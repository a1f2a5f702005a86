//! The change feed: an ordered log of what caches and watchers may hold, keys only. Whoever has seen n has seen
//! everything up to n, also with concurrent writers: on PostgreSQL an advisory lock, taken last, orders the commits, on
//! SQLite the write transaction itself does.
#![expect(
    clippy::disallowed_methods,
    reason = "append and commit go as one message, so that no round trip is under the feed's lock"
)]

use chrono::SecondsFormat;
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::tx::{AcrossTenants, Conn, OfPlatform, Statement, failed, statements};
use super::{Engine, Store};
use crate::domain::cursor::Cursor;
use crate::domain::id::{ApiKeyId, InvitationId, PlatformKeyId, SessionId, TenantId, UserId};
use crate::domain::secret::{hex, sha256};
use crate::entropy;
use crate::error::Error;
use crate::time::Timestamp;

/// Something that a replica or watcher may have cached, and that is different now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A tenant: status, plan, names, settings, limits, features.
    Tenant(TenantId),
    /// A slug or domain: whose it is.
    Host(TenantId, String),
    /// A user's place in a tenant.
    Membership(TenantId, UserId),
    /// The roles that a tenant has made for itself, and with them what members may do.
    Roles(TenantId),
    /// An invitation of a tenant.
    Invitation(TenantId, InvitationId),
    /// An account: disabled, sessions ended, default tenant.
    Account(UserId),
    /// A sign-in of a person that was revoked.
    Session(UserId, SessionId),
    /// A key of a service or operator.
    PlatformKey(PlatformKeyId, String),
    /// A key of a tenant or of a member.
    ApiKey(TenantId, ApiKeyId, String),
    /// The keys that sign access tokens.
    SigningKeys,
    /// A threshold of a tenant that was reached, by the notice of it.
    Quota(TenantId, Uuid),
    /// The catalogue.
    Catalogue,
}

impl Change {
    const fn kind(&self) -> i16 {
        match self {
            Self::Tenant(_) => 1,
            Self::Host(..) => 2,
            Self::Membership(..) => 3,
            Self::Account(_) => 4,
            Self::PlatformKey(..) => 6,
            Self::SigningKeys => 7,
            Self::Catalogue => 8,
            Self::Roles(_) => 45,
            Self::Invitation(..) => 46,
            Self::ApiKey(..) => 50,
            Self::Session(..) => 30,
            Self::Quota(..) => 60,
        }
    }

    const fn tenant(&self) -> Option<Uuid> {
        match self {
            Self::Tenant(t)
            | Self::Host(t, _)
            | Self::Membership(t, _)
            | Self::Roles(t)
            | Self::Invitation(t, _)
            | Self::Quota(t, _)
            | Self::ApiKey(t, ..) => Some(t.0),
            _ => None,
        }
    }

    const fn keys(&self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Membership(_, user) | Self::Account(user) => (Some(user.0), None),
            Self::Session(user, session) => (Some(session.0), Some(user.0)),
            Self::Invitation(_, invitation) => (Some(invitation.0), None),
            Self::PlatformKey(key, _) => (Some(key.0), None),
            Self::ApiKey(_, key, _) => (Some(key.0), None),
            Self::Quota(_, notice) => (Some(*notice), None),
            Self::Tenant(_) | Self::Host(..) | Self::Roles(_) | Self::SigningKeys | Self::Catalogue => (None, None),
        }
    }

    /// As a row of the feed, but for the nonce.
    pub(super) fn row(&self, seq: i64) -> FeedRow {
        let (key1, key2) = self.keys();
        let key_hash = self.key_hash().map(Vec::from);
        FeedRow { seq, ord: 0, nonce: 0, kind: self.kind(), tenant_id: self.tenant(), key1, key2, key_hash }
    }

    fn key_hash(&self) -> Option<[u8; 16]> {
        let text = match self {
            Self::Host(_, host) => host,
            Self::PlatformKey(_, key_id) | Self::ApiKey(_, _, key_id) => key_id,
            _ => return None,
        };
        sha256(text.as_bytes()).first_chunk().copied()
    }
}

/// A row of the feed.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct FeedRow {
    /// Rows of one transaction share it.
    pub seq: i64,
    /// Their order.
    pub ord: i16,
    /// Random per transaction.
    pub nonce: i32,
    /// What kind of thing changed.
    pub kind: i16,
    /// Whose.
    pub tenant_id: Option<Uuid>,
    /// Which.
    pub key1: Option<Uuid>,
    /// Which, further.
    pub key2: Option<Uuid>,
    /// Which, for what is found by text.
    pub key_hash: Option<Vec<u8>>,
}

impl FeedRow {
    /// The person that it is about: of places in tenants, accounts and sign-ins.
    #[must_use]
    pub const fn user(&self) -> Option<Uuid> {
        match self.kind {
            3 | 4 => self.key1,
            30 => self.key2,
            _ => None,
        }
    }

    /// What it is about besides: a sign-in, an invitation, a key, a notice.
    #[must_use]
    pub const fn resource(&self) -> Option<Uuid> {
        match self.kind {
            3 | 4 => None,
            _ => self.key1,
        }
    }
}

/// What a look into the feed found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poll {
    /// Rows after the cursor, whole transactions only, and where to go on. `more` says whether to ask again at once.
    Page {
        /// In order.
        rows: Vec<FeedRow>,
        /// Where to go on.
        cursor: Cursor,
        /// Whether there is more already.
        more: bool,
    },
    /// The cursor is not in this history (compacted away, failover, restored backup): forget what was cached and go on
    /// from here.
    CursorLost(Cursor),
    /// The server is a standby: what it says may be old.
    Standby,
}

/// How many rows a poll brings at most.
const PAGE: usize = 2000;

statements! {
    /// One poll is one statement, so one snapshot. The left joins keep one row even when nothing is new.
    POLL: AcrossTenants = Statement::each(
        "select h.seq as head_seq, h.nonce as head_nonce, m.nonce as nonce_at_cursor, pg_is_in_recovery() as standby,
                c.seq, c.ord, c.nonce, c.kind, c.tenant_id, c.key1, c.key2, c.key_hash
         from (select seq, nonce from change order by seq desc, ord limit 1) h
         left join change m on m.seq = $1 and m.ord = 0
         left join lateral (
           select * from change where seq > $1 order by seq, ord limit 2001) c on true
         order by c.seq, c.ord",
        "select h.seq as head_seq, h.nonce as head_nonce, m.nonce as nonce_at_cursor, false as standby,
                c.seq, c.ord, c.nonce, c.kind, c.tenant_id, c.key1, c.key2, c.key_hash
         from (select seq, nonce from change order by seq desc, ord limit 1) h
         left join change m on m.seq = $1 and m.ord = 0
         left join (
           select * from change where seq > $1 order by seq, ord limit 2001) c on true
         order by c.seq, c.ord",
    );
    PLACE: AcrossTenants = Statement::new(
        "select o.seq as oldest, m.nonce
         from (select min(seq) as seq from change) o
         left join change m on m.seq = $1 and m.ord = 0",
    );
    /// SQLite: the write transaction is the lock.
    HEAD: OfPlatform = Statement::new("select max(seq) as seq from change");
    APPEND: OfPlatform = Statement::new(
        "insert into change (seq, ord, nonce, at, kind, tenant_id, key1, key2, key_hash)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
}

#[derive(sqlx::FromRow)]
struct Head {
    seq: i64,
}

#[derive(sqlx::FromRow)]
struct PlaceRow {
    oldest: i64,
    nonce: Option<i32>,
}

#[derive(sqlx::FromRow)]
struct PollRow {
    head_seq: i64,
    head_nonce: i32,
    nonce_at_cursor: Option<i32>,
    standby: bool,
    seq: Option<i64>,
    ord: Option<i16>,
    nonce: Option<i32>,
    kind: Option<i16>,
    tenant_id: Option<Uuid>,
    key1: Option<Uuid>,
    key2: Option<Uuid>,
    key_hash: Option<Vec<u8>>,
}

impl PollRow {
    fn into_feed_row(self) -> Option<FeedRow> {
        Some(FeedRow {
            seq: self.seq?,
            ord: self.ord?,
            nonce: self.nonce?,
            kind: self.kind?,
            tenant_id: self.tenant_id,
            key1: self.key1,
            key2: self.key2,
            key_hash: self.key_hash,
        })
    }
}

/// A connection of its own that follows the feed, so that no other work keeps it waiting. On PostgreSQL it hears of commits.
pub enum FeedReader<'s> {
    /// Listens.
    Postgres(Box<PgListener>),
    /// There is one process, which knows of its own commits.
    Sqlite(&'s Store),
}

impl Store {
    /// Begins to follow the feed.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn follow_feed(&self) -> Result<FeedReader<'_>, Error> {
        let Engine::Postgres { system, .. } = &self.engine else { return Ok(FeedReader::Sqlite(self)) };
        let options = system.connect_options();
        let own = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let own = own.connect_lazy_with((*options).clone());
        let mut listener = PgListener::connect_with(&own).await.map_err(failed)?;
        listener.listen("tenantry_feed").await.map_err(failed)?;
        Ok(FeedReader::Postgres(Box::new(listener)))
    }

    /// As [`FeedReader::poll`], on any connection.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn poll_feed(&self, cursor: Cursor) -> Result<Poll, Error> {
        Poll::of(cursor, self.across_tenants().await?.all(&POLL, &[cursor.seq.into()]).await?)
    }

    /// Whether a place is in the feed, or was before it was compacted away. Numbers that are missing in between were never
    /// committed, or were lost.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn has_place(&self, place: Cursor) -> Result<bool, Error> {
        let found: Option<PlaceRow> = self.across_tenants().await?.optional(&PLACE, &[place.seq.into()]).await?;
        let found = found.ok_or_else(|| Error::internal("the change feed is empty"))?;
        Ok(place.seq < found.oldest || found.nonce == Some(place.nonce))
    }
}

impl FeedReader<'_> {
    /// Looks into the feed behind `cursor`. The row at the cursor must still be there with the cursor's nonce; otherwise the
    /// history is another one, whatever the numbers say.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; the connection is no good then.
    pub async fn poll(&mut self, cursor: Cursor) -> Result<Poll, Error> {
        match self {
            Self::Sqlite(store) => store.poll_feed(cursor).await,
            Self::Postgres(listener) => {
                let query = sqlx::query_as::<sqlx::Postgres, PollRow>(POLL.postgres).bind(cursor.seq);
                Poll::of(cursor, query.fetch_all(&mut **listener).await.map_err(failed)?)
            }
        }
    }

    /// Waits until somebody has committed a change.
    ///
    /// # Errors
    /// `DatabaseUnavailable`; the connection is no good then.
    pub async fn heard(&mut self) -> Result<(), Error> {
        let listener = match self {
            Self::Postgres(listener) => listener,
            Self::Sqlite(store) => {
                store.marks.committed.notified().await;
                return Ok(());
            }
        };
        // Not `recv`, which would connect anew by itself: what was said in between is found by the poll that follows.
        match listener.try_recv().await.map_err(failed)? {
            Some(_) => Ok(()),
            None => Err(Error::DatabaseUnavailable("the connection that follows the feed was lost".into())),
        }
    }
}

impl Poll {
    fn of(cursor: Cursor, rows: Vec<PollRow>) -> Result<Self, Error> {
        let Some(first) = rows.first() else { return Err(Error::internal("the change feed is empty")) };
        let head = Cursor { seq: first.head_seq, nonce: first.head_nonce };
        if first.standby {
            return Ok(Self::Standby);
        }
        if first.nonce_at_cursor != Some(cursor.nonce) {
            return Ok(Self::CursorLost(head));
        }
        let mut rows: Vec<FeedRow> = rows.into_iter().filter_map(PollRow::into_feed_row).collect();
        let more = rows.len() > PAGE;
        if more {
            // The last transaction may have been cut off: it is read whole next time.
            let cut = rows.last().map(|row| row.seq);
            rows.retain(|row| Some(row.seq) != cut);
        }
        let cursor = rows.last().map_or(cursor, |row| Cursor { seq: row.seq, nonce: row.nonce });
        Ok(Self::Page { rows, cursor, more })
    }
}

/// Appends and commits in one message, and leaves an empty transaction for sqlx to commit, which knows of one: the lock is held for one flush, never for a round trip. Only numbers and hex go
/// into the text, all formatted from typed values. More than 1,000 changes would not fit the feed's bound; no method
/// makes that many.
pub(super) async fn append_and_commit_postgres(
    conn: &mut PgConnection,
    now: Timestamp,
    changes: &[Change],
) -> Result<Cursor, Error> {
    if changes.len() > 1000 {
        return Err(Error::internal("more than 1,000 changes in one transaction"));
    }
    let list = |item: &dyn Fn(&Change) -> String| changes.iter().map(item).collect::<Vec<_>>().join(",");
    let id = |id: Option<Uuid>| id.map_or_else(|| "null".to_owned(), |id| format!("'{}'", id.as_hyphenated()));
    let nonce = nonce();
    let sql = format!(
        "select feed_append({nonce}, '{at}'::timestamptz, \
         array[{kinds}]::smallint[], array[{tenants}]::uuid[], array[{first}]::uuid[], array[{second}]::uuid[], \
         array[{hashes}]::bytea[]); commit and chain",
        at = now.utc().to_rfc3339_opts(SecondsFormat::Micros, true),
        kinds = list(&|c| c.kind().to_string()),
        tenants = list(&|c| id(c.tenant())),
        first = list(&|c| id(c.keys().0)),
        second = list(&|c| id(c.keys().1)),
        hashes = list(&|c| c.key_hash().map_or_else(|| "null".to_owned(), |hash| format!("'\\x{}'", hex(&hash)))),
    );
    // To the end of the message, so that a commit that failed is seen.
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await.map_err(failed)?;
    let row = rows.first().ok_or_else(|| Error::internal("feed_append gave no number"))?;
    Ok(Cursor { seq: row.try_get(0).map_err(failed)?, nonce })
}

pub(super) async fn append_sqlite(
    conn: &mut SqliteConnection,
    now: Timestamp,
    changes: &[Change],
) -> Result<Option<Cursor>, Error> {
    if changes.is_empty() {
        return Ok(None);
    }
    let head: Option<Head> = Conn::Sqlite(conn).optional(&HEAD, &[]).await?;
    let seq = head.ok_or_else(|| Error::internal("the change feed is empty"))?.seq + 1;
    let nonce = nonce();
    for (ord, change) in (0_i64..).zip(changes) {
        let (key1, key2) = change.keys();
        let hash = change.key_hash();
        let args = [
            seq.into(),
            ord.into(),
            i64::from(nonce).into(),
            now.into(),
            i64::from(change.kind()).into(),
            change.tenant().into(),
            key1.into(),
            key2.into(),
            hash.as_ref().map(|h| &h[..]).into(),
        ];
        Conn::Sqlite(conn).execute(&APPEND, &args).await?;
    }
    Ok(Some(Cursor { seq, nonce }))
}

fn nonce() -> i32 {
    i32::from_be_bytes(entropy::bytes())
}
