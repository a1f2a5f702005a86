#![doc = "placeholder"]
pub mod cli;
pub mod config;
pub mod http;
pub mod rpc;
pub mod telemetry;
pub mod time;
