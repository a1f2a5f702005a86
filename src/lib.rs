//! placeholder
pub mod app;
pub mod ctx;
pub mod decide;
pub mod domain;
pub mod entropy;
pub mod error;
pub mod rpc;
pub mod store;
pub mod time;
