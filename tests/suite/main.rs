//! The black-box suite.
#![expect(clippy::disallowed_methods, reason = "tests look at databases, and break them, with SQL of their own")]
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod bad_fields;
mod bad_headers;
mod bad_input;
mod bad_tokens;
mod cluster;
mod harness;
mod isolation;
mod isolation_api;
mod matrix;
mod members;
mod raw;
mod sabotage;
mod startup;
mod wire;
