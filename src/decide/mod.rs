//! Decisions: who is this, in which tenant, as what, may they? The gate and `Authorize` ask the same questions here, so
//! that they cannot disagree. Answered from memory (`memory.rs`), which the change feed keeps true.

pub mod catalogues;
pub mod credential;
pub mod judge;
pub mod memory;
pub mod quota;
pub mod roles;
pub mod tenant;
pub mod token;

use std::sync::Arc;

use crate::store::Store;
use catalogues::Catalogues;
use memory::Memory;
use roles::OwnRoles;
use token::Tokens;

/// What decisions are made from.
pub struct Plane {
    /// Rows.
    pub store: Arc<Store>,
    /// What was read of them, as long as nothing touched it.
    pub memory: Memory,
    /// What signs and verifies access tokens.
    pub tokens: Tokens,
    /// What the product is.
    pub catalogues: Catalogues,
    /// Which roles tenants have made for themselves.
    pub own_roles: OwnRoles,
}
