//! Places in the change feed, and how clients are told of them: as revisions.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// A place in the feed. The nonce tells two histories apart that reached the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The number of a transaction.
    pub seq: i64,
    /// Its nonce.
    pub nonce: i32,
}

impl Cursor {
    /// What texts of cursors begin with.
    const VERSION: u8 = 1;

    /// As clients get it: a revision. It says nothing of what changed, and opens nothing.
    #[must_use]
    pub fn text(self) -> String {
        let mut bytes = [0; 13];
        bytes[0] = Self::VERSION;
        bytes[1..9].copy_from_slice(&self.seq.to_be_bytes());
        bytes[9..].copy_from_slice(&self.nonce.to_be_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor of a text; none when it is not one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 13];
        let read = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (seq, nonce) = rest.split_first_chunk()?;
        let cursor = Self { seq: i64::from_be_bytes(*seq), nonce: i32::from_be_bytes(nonce.try_into().ok()?) };
        (read == bytes.len() && version == Self::VERSION && cursor.seq >= 0).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_as_it_was_written_and_nothing_else_is_one() {
        for (seq, nonce) in [(0, 0), (1, -1), (i64::MAX, i32::MIN)] {
            let cursor = Cursor { seq, nonce };
            assert_eq!(Cursor::parse(&cursor.text()), Some(cursor));
            assert_eq!(cursor.text().len(), 18);
        }
        let good = Cursor { seq: 7, nonce: 9 }.text();
        let of_another_version = format!("Ag{}", &good[2..]);
        let negative = Cursor { seq: -1, nonce: 0 }.text();
        let long = format!("{good}AAAA");
        for bad in ["", "AQ", "not a revision!", &good[..17], &long, &of_another_version, &negative] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
