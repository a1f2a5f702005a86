//! The use cases, one file per noun. What the four services, the jobs and the command line have in common calls in here;
//! nothing here knows of gRPC or SQL.

pub mod account;
pub mod activity;
pub mod api_keys;
pub mod audit;
pub mod authorize;
mod auto_join;
pub mod catalogue;
pub mod changes;
pub mod credentials;
pub mod denials;
pub mod domains;
pub mod entitlements;
pub mod export;
pub mod first_start;
pub mod impersonation;
pub mod import;
pub mod integrations;
pub mod introspect;
pub mod invitations;
pub mod jobs;
pub mod jwks;
mod key_ends;
pub mod key_uses;
pub mod links;
pub mod mail;
pub mod member_sessions;
pub mod members;
pub mod mfa;
pub mod mutation;
pub mod my_sessions;
pub mod noted;
pub mod passwords;
pub mod platform_keys;
pub mod provisioning;
pub mod purge;
pub mod refresh;
pub mod roles;
mod seats;
pub mod sessions;
pub mod settings;
pub mod sign_in;
pub mod sign_up;
pub mod signing_keys;
pub mod slugs;
pub mod sso;
pub mod sso_connection;
pub mod subscriptions;
pub mod tenants;
pub mod throttle;
pub mod usage;
pub mod webhooks;

use std::sync::Arc;

use chrono::TimeDelta;

use crate::ctx::SignedIn;
use crate::decide::Plane;
use crate::domain::host::OwnHosts;
use crate::domain::id::TenantId;
use crate::domain::name::TenantName;
use crate::domain::seal::MasterKey;
use crate::domain::session::SessionLimits;
use crate::domain::throttle::AttemptLimits;
use crate::error::Error;
use crate::outside::courier::Courier;
use crate::outside::oidc::Oidc;
use crate::outside::{Mailer, Resolver};
use crate::store::Store;
use crate::time::{Clock, Timestamp};
use activity::Activity;
use denials::Denials;
use key_uses::KeyUses;
use mail::Letters;
use passwords::Passwords;
use sign_up::SignUpMode;
use usage::accounts::Quota;

/// Everything that a use case may need, made once at the start.
pub struct App {
    /// Rows.
    pub store: Arc<Store>,
    /// Decisions.
    pub plane: Plane,
    /// Looks into the change feed for callers.
    pub feed_looks: changes::FeedLooks,
    /// What seals and signs for ourselves.
    pub master: Arc<MasterKey>,
    /// How passwords are hashed.
    pub passwords: Passwords,
    /// How long sign-ins last.
    pub sessions: SessionLimits,
    /// How long a key signs access tokens before the next one does.
    pub signing_key_period: TimeDelta,
    /// How people sign up.
    pub sign_up_mode: SignUpMode,
    /// How many wrong passwords are let through.
    pub attempts: AttemptLimits,
    /// Refusals that are not in the audit log yet.
    pub denials: Denials,
    /// What decides and writes usage.
    pub quota: Quota,
    /// Who was active and is not written down yet.
    pub activity: Activity,
    /// When keys were used, as far as it is not written yet.
    pub key_uses: KeyUses,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Which hosts are the server's own, and so name no tenant.
    pub hosts: OwnHosts,
    /// What sees whether a domain is proven.
    pub resolver: Arc<dyn Resolver>,
    /// What asks identity providers who somebody is.
    pub oidc: Oidc,
    /// What takes events to webhooks.
    pub courier: Courier,
    /// How letters read.
    pub letters: Letters,
    /// What sends them.
    pub mailer: Box<dyn Mailer>,
    /// Where calls of members go when nothing else names a tenant.
    pub default_tenant: Option<TenantName>,
}

impl App {
    /// Where a person's call goes when nothing claims a tenant.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn fallback(&self, person: &SignedIn, now: Timestamp) -> Result<Option<TenantId>, Error> {
        let (user, own) = (person.user.user_id, person.default_tenant);
        self.plane.fallback(user, own, self.default_tenant.as_ref(), now).await
    }
}
