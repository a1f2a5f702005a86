//! Decisions: who is this, in which tenant, as what, may they? The gate and `Authorize` ask the same questions here, so
//! that they cannot disagree. Answered straight from the store; nothing is remembered from one call to the next.

pub mod credential;
pub mod judge;
pub mod tenant;
pub mod token;

use std::sync::Arc;

use crate::store::Store;
use token::Tokens;

/// What decisions are made from.
pub struct Plane {
    /// Rows.
    pub store: Arc<Store>,
    /// What signs and verifies access tokens.
    pub tokens: Tokens,
}
