//! The life of the keys that sign access tokens: published first, then signing, then known for as long as their last token
//! is good. So a rotation breaks no token, wherever it is verified: others keep what was published for a while, and clocks
//! differ.

use chrono::TimeDelta;

use crate::time::Timestamp;

/// How long a key is published before it signs: longer than anybody keeps the published keys without asking anew.
pub const PUBLISHED_BEFORE: TimeDelta = TimeDelta::hours(1);

/// How long a key is known after it has signed for the last time: the hour that the longest token lives, that of somebody
/// in another's place, and a quarter of one in which a server may not have noticed yet that the key is retired.
pub const KNOWN_AFTER: TimeDelta = TimeDelta::minutes(75);

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and does not sign yet.
    Next,
    /// Signs.
    Current,
    /// Has signed; its last tokens may still be good.
    Retired,
    /// Withdrawn: all that it signed is no good.
    Revoked,
    /// Its last token is over.
    Gone,
}

impl KeyState {
    const ALL: [Self; 5] = [Self::Next, Self::Current, Self::Retired, Self::Revoked, Self::Gone];

    /// Its name in rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Current => "current",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
            Self::Gone => "gone",
        }
    }

    /// The state of a row; one that has no name here is no good.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Revoked)
    }

    /// Whether tokens of such a key may be good, and so whether it is published.
    #[must_use]
    pub const fn is_published(self) -> bool {
        matches!(self, Self::Next | Self::Current | Self::Retired)
    }
}

/// A key that signs access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its name in token headers.
    pub kid: String,
    /// Where it stands.
    pub state: KeyState,
    /// 32 bytes, Ed25519.
    pub public_key: Vec<u8>,
    /// The private half as PKCS#8, sealed under the master key; empty once it has signed for the last time.
    pub sealed: Vec<u8>,
    /// When it was made, and published.
    pub created_at: Timestamp,
    /// When it began to sign.
    pub current_at: Option<Timestamp>,
    /// When it ceased to.
    pub retired_at: Option<Timestamp>,
    /// When its last token is over.
    pub over_at: Option<Timestamp>,
    /// When it was withdrawn.
    pub revoked_at: Option<Timestamp>,
}

impl SigningKey {
    /// From when on it may sign.
    #[must_use]
    pub const fn ready_at(&self) -> Timestamp {
        self.created_at.after(PUBLISHED_BEFORE)
    }

    /// Makes it the one that signs.
    pub const fn promote(&mut self, now: Timestamp) {
        self.state = KeyState::Current;
        self.current_at = Some(now);
    }

    /// Lets it sign no more.
    pub fn retire(&mut self, now: Timestamp) {
        self.state = KeyState::Retired;
        self.retired_at = Some(now);
        self.over_at = Some(now.after(KNOWN_AFTER));
        self.sealed.clear();
    }

    /// Makes all that it signed no good.
    pub fn revoke(&mut self, now: Timestamp) {
        self.state = KeyState::Revoked;
        self.revoked_at = Some(now);
        self.sealed.clear();
    }

    /// Lets it go when its last token is over; whether it was.
    pub fn let_go(&mut self, now: Timestamp) -> bool {
        let over = self.state == KeyState::Retired && self.over_at.is_none_or(|at| at <= now);
        if over {
            self.state = KeyState::Gone;
        }
        over
    }
}

/// The key in a state that one key has at most.
#[must_use]
pub fn find(keys: &[SigningKey], state: KeyState) -> Option<&SigningKey> {
    keys.iter().find(|key| key.state == state)
}

/// When the next key takes over by itself: after so long a time of the current one, and not before it is ready.
#[must_use]
pub fn rotates_at(keys: &[SigningKey], period: TimeDelta) -> Option<Timestamp> {
    let (current, next) = (find(keys, KeyState::Current)?, find(keys, KeyState::Next)?);
    Some(current.current_at.unwrap_or(current.created_at).after(period).max(next.ready_at()))
}

/// When there is something to do next.
#[must_use]
pub fn next_look(keys: &[SigningKey], period: TimeDelta) -> Option<Timestamp> {
    let over = keys.iter().filter(|key| key.state == KeyState::Retired).filter_map(|key| key.over_at);
    over.chain(rotates_at(keys, period)).min()
}
