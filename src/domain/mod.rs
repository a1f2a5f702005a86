//! The rules and values of tenancy. Pure: no async, no SQL, no gRPC, no clock; time and random bytes are arguments.

pub mod api_key;
mod base62;
pub mod bucket;
pub mod catalogue;
pub mod cursor;
#[expect(clippy::module_inception, reason = "a tenant's domain, among the rules of the domain")]
pub mod domain;
pub mod entitlement;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod gcra;
pub mod host;
pub mod id;
pub mod impersonation;
pub mod import;
pub mod integration;
pub mod invitation;
pub mod link;
pub mod mail;
pub mod membership;
pub mod mfa;
pub mod name;
pub mod notice;
pub mod password;
pub mod period;
pub mod plan;
pub mod quota;
pub mod refresh_token;
pub mod role;
pub mod seal;
pub mod secret;
pub mod session;
pub mod settings;
pub mod signing_key;
pub mod sso;
pub mod subscription;
pub mod tenant;
pub mod throttle;
pub mod user;
pub mod webhook;
