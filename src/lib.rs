//! placeholder
pub mod ctx;
pub mod domain;
pub mod entropy;
pub mod error;
pub mod rpc;
pub mod store;
pub mod time;
