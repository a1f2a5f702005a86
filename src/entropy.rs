//! Random bytes and ids, all from the operating system's generator by way of aws-lc.

use uuid::{Builder, Uuid};

use crate::time::Timestamp;

/// So many random bytes.
///
/// # Panics
/// When the operating system has no random bytes to give: nothing that is meant to be secret may go on then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without random bytes nothing here is safe to go on")]
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A new id that sorts by its time of birth (UUID version 7, RFC 9562), so that new rows are neighbours in an index.
#[must_use]
pub fn id(now: Timestamp) -> Uuid {
    Builder::from_unix_timestamp_millis(millis(now), &bytes::<10>()).into_uuid()
}

/// The first of the ids of an instant: those before it are smaller.
#[must_use]
pub fn first_id(at: Timestamp) -> Uuid {
    Builder::from_unix_timestamp_millis(millis(at), &[0; 10]).into_uuid()
}

/// Milliseconds as ids have them: 48 bits.
fn millis(at: Timestamp) -> u64 {
    u64::try_from(at.micros() / 1000).unwrap_or(0).min((1 << 48) - 1)
}
