//! The black-box suite.
#![expect(clippy::disallowed_methods, reason = "tests look at databases, and break them, with SQL of their own")]
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod audit;
mod authorize;
mod cluster;
mod concurrency;
mod harness;
mod isolation;
mod members;
mod ownership;
mod rates;
mod repeats;
mod sabotage;
mod service_keys;
mod sessions;
mod sign_in;
mod startup;
mod tenant_life;
mod tenant_lists;
mod tenants;
mod usage;
