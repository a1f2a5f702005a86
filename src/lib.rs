//! tenantry
pub mod app;
pub mod cli;
pub mod config;
pub mod ctx;
pub mod decide;
pub mod domain;
pub mod entropy;
pub mod error;
pub mod http;
pub mod rpc;
pub mod store;
pub mod telemetry;
pub mod time;
