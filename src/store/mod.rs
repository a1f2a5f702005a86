//! Rows.

pub mod guard;
pub mod setup;
