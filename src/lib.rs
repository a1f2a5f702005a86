//! tenantry: multi-tenancy as a service. Backend services ask it over gRPC, before they do anything for a customer: who
//! is this, which tenant are they in, may they do it, is there quota left? It keeps tenants, members, sign-ins and usage,
//! and keeps tenants apart, on an embedded SQLite or on PostgreSQL with row level security.
//!
//! # A mutation, from the wire to the row
//!
//! `RemoveMember` arrives. [`rpc::front`] gives it a request id, a span, a deadline and a turn. [`rpc::gate`] looks its
//! path up in [`rpc::access::ACCESS`], the table that the build made from the protos; reads the credential, and asks
//! [`decide`] who holds it, which tenant the call is in, and whether `members.manage` is theirs there. What comes out is a
//! [`ctx::TenantCtx`], the only thing a use case accepts as proof.
//!
//! `rpc/membership.rs` reads the fields into domain values, all mistakes at once, and calls
//! [`app::App::remove_member`]. That begins a mutation (`app/mutation.rs`): the `request_id` is claimed, the call is
//! counted against its rate, the tenant is locked, the rules of [`domain::membership`] are asked, the row is changed
//! through [`store::memberships`]. `finish` adds the audit row and the answer, and commits, with the change feed's rows as
//! the last thing before the commit. The transaction is a [`store::TenantTx`]: it binds the tenant as `$1` in every
//! statement, and on PostgreSQL has set it for row level security, so a statement that forgot its tenant would find
//! nothing.
//!
//! # A decision
//!
//! `Authorize` takes a subject's token, a tenant, permissions and amounts. `app/authorize.rs` asks the same questions as
//! the gate, in the same functions of [`decide`], but collects all that speaks against the call instead of stopping at the
//! first; only when nothing does, amounts are consumed (`app/usage.rs`): accounts are locked in order, decided together,
//! charged or not, in one transaction with the event that remembers the answer for a repetition.
//!
//! # Where things are
//!
//! | folder | holds | may use |
//! |---|---|---|
//! | [`domain`] | rules and values, pure | nothing of ours but errors and time |
//! | [`store`] | rows: one SQL text, two engines | `domain` |
//! | [`decide`] | who, where, may they | `store`, `domain` |
//! | [`outside`] | what is asked of others: the DNS | |
//! | [`app`] | use cases, one file a noun | `decide`, `store`, `outside`, `domain` |
//! | [`rpc`] | gRPC: front, gate, one file a service | `app` |
//! | [`http`] | metrics, health | |
//! | [`jobs`] | what happens later | `app` |
//! | [`cli`] | `serve`, `migrate`, operator commands | all of it to serve, gRPC for the rest |

pub mod app;
pub mod cli;
pub mod config;
pub mod ctx;
pub mod decide;
pub mod domain;
pub mod entropy;
pub mod error;
pub mod http;
pub mod jobs;
pub mod outside;
pub mod rpc;
pub mod store;
pub mod telemetry;
pub mod time;
