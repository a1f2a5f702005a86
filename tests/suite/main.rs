//! The black-box suite.
#![expect(clippy::disallowed_methods, reason = "tests look at databases, and break them, with SQL of their own")]
#![expect(clippy::unwrap_used, reason = "helpers of tests panic as tests do")]

mod arrows;
mod audit;
mod authorize;
mod bad_fields;
mod bad_headers;
mod bad_input;
mod bad_tokens;
mod catalogue;
mod cluster;
mod commands;
mod concurrency;
mod dns;
mod domains;
mod entitlements;
mod export;
mod feed;
mod golden;
mod harness;
mod import;
mod import_file;
mod integrations;
mod isolation;
mod isolation_api;
mod jobs;
mod matrix;
mod members;
mod ownership;
mod processes;
mod program;
mod provisioning;
mod purge;
mod rates;
mod raw;
mod repeats;
mod rows;
mod sabotage;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod secrets;
mod service_keys;
mod sessions;
mod settings;
mod sign_in;
mod slugs;
mod startup;
mod statements;
mod status_table;
mod subscriptions;
mod tenant_life;
mod tenant_lists;
mod tenants;
mod transport;
mod usage;
mod wire;
