#![doc = "placeholder"]
pub mod rpc;
pub mod time;
