//! Integrations: other systems that a tenant is connected with. A secret of one is never part of these values.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::secret::Secret;
use crate::time::Timestamp;

/// How many a tenant may have.
pub const MOST: usize = 50;

/// Bytes of a secret.
const SECRET_BYTES: usize = 4 * 1024;

/// An integration, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Integration {
    /// Its name within the tenant.
    pub name: String,
    /// Whatever it needs that is no secret.
    pub config: Map<String, Value>,
    /// Whether it has a secret.
    pub has_secret: bool,
    /// When the secret was last given or forgotten; none when there never was one.
    pub secret_updated_at: Option<Timestamp>,
    /// Rises with each change.
    pub version: i64,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// What becomes of a secret.
pub enum SecretChange {
    /// It stays as it is.
    Keep,
    /// It is forgotten.
    Forget,
    /// This one takes its place.
    Replace(Secret<String>),
}

impl SecretChange {
    /// Reads a new secret, empty for none, and whether the old one is to be forgotten.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the secret's field.
    pub fn parse(secret: String, forget: bool) -> Result<Self, &'static str> {
        match (secret.as_str(), forget) {
            ("", true) => Ok(Self::Forget),
            ("", false) => Ok(Self::Keep),
            (_, true) => Err("must be empty when clear_secret is set"),
            (text, false) if text.len() > SECRET_BYTES => Err("must be at most 4 KiB"),
            (_, false) => Ok(Self::Replace(Secret::new(secret))),
        }
    }
}

/// Reads an integration's name: 1 to 64 of a-z, 0-9, _ and -.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn name(text: &str) -> Result<(), &'static str> {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let good = (1..=64).contains(&text.len()) && text.bytes().all(known);
    if good { Ok(()) } else { Err("must be 1 to 64 of a-z, 0-9, _ and -") }
}
