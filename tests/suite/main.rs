//! The black-box suite.
#![expect(clippy::disallowed_methods, reason = "tests look at databases, and break them, with SQL of their own")]
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod arrows;
mod bad_fields;
mod bad_headers;
mod bad_input;
mod bad_tokens;
mod cluster;
mod commands;
mod feed;
mod harness;
mod isolation;
mod isolation_api;
mod matrix;
mod members;
mod processes;
mod program;
mod raw;
mod sabotage;
mod secrets;
mod startup;
mod statements;
mod transport;
mod wire;
