#![doc = "placeholder"]
pub mod cli;
pub mod rpc;
pub mod store;
pub mod time;
