//! In which tenant a call is, and as what. Sources that claim a tenant must agree; none is preferred over another.

use std::sync::Arc;

use chrono::TimeDelta;

use super::Plane;
use super::memory::Look;
use crate::ctx::{Caller, Policy};
use crate::domain::catalogue::Catalogue;
use crate::domain::host::HostClaim;
use crate::domain::id::{TenantId, UserId};
use crate::domain::membership::Membership;
use crate::domain::name::TenantName;
use crate::domain::role::Roles;
use crate::domain::settings::SignInMethods;
use crate::domain::sso::SsoRule;
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::time::Timestamp;

/// What claims to say in which tenant a call is.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// The access token's `tid`.
    pub token: Option<TenantId>,
    /// The header `x-tenant-id`.
    pub header: Option<TenantName>,
    /// The host.
    pub host: HostClaim,
    /// The request's own field `tenant`.
    pub request: Option<TenantName>,
}

/// A caller's place in a tenant.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The tenant, settled: as it stands at the time of the call.
    pub tenant: Tenant,
    /// The catalogue in force.
    pub catalogue: Arc<Catalogue>,
    /// What it asks of sign-ins.
    pub policy: Policy,
    /// The tenant's roles: the catalogue's and its own.
    pub roles: Arc<Roles>,
    /// The person's membership; none for services alone, operators and a tenant's own keys.
    pub member: Option<Membership>,
    /// Whether the tenant has ended the person's session for itself, or it is older than the tenant allows.
    pub session_ended: bool,
    /// The tenant's own identity provider, where there is one and the call is a person's, or by a key of theirs.
    pub sso: Option<SsoRule>,
}

impl Look<'_> {
    /// The one tenant that all claims name; none when nothing claims.
    ///
    /// # Errors
    /// `TenantConflict` when claims differ, `TenantNotFound` when what they name does not exist.
    pub async fn locate(&mut self, claims: &Claims, now: Timestamp) -> Result<Option<TenantId>, Error> {
        let mut found: Vec<Option<TenantId>> = claims.token.into_iter().map(Some).collect();
        for name in [claims.header.as_ref(), claims.request.as_ref()].into_iter().flatten() {
            found.push(self.find(name, now).await?);
        }
        if claims.host != HostClaim::Nothing {
            found.push(self.find_by_host(&claims.host, now).await?);
        }
        let Some((first, rest)) = found.split_first() else { return Ok(None) };
        if rest.iter().any(|other| other != first) {
            return Err(Error::TenantConflict);
        }
        first.ok_or(Error::TenantNotFound).map(Some)
    }

    /// The tenant that a host is said to be of; none when it is nobody's.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_by_host(&mut self, claim: &HostClaim, now: Timestamp) -> Result<Option<TenantId>, Error> {
        match claim {
            HostClaim::Nothing | HostClaim::Nobody => Ok(None),
            HostClaim::Tenant(name) => self.find(name, now).await,
            HostClaim::Domain(domain) => self.domain(domain).await,
        }
    }

    /// The tenant of a name; an id is taken as it is, a slug is looked up.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find(&mut self, name: &TenantName, now: Timestamp) -> Result<Option<TenantId>, Error> {
        match name {
            TenantName::Id(id) => Ok(Some(*id)),
            TenantName::Slug(slug) => Ok(self.slug(slug).await?.and_then(|holder| holder.at(now))),
        }
    }

    /// The caller's place in a tenant. A tenant that is not there, is purged, or is not the person's, is all the same,
    /// found out with the same look-ups.
    ///
    /// # Errors
    /// `TenantNotFound`.
    pub async fn standing(&mut self, tenant: TenantId, caller: &Caller, now: Timestamp) -> Result<Standing, Error> {
        // The same for every other tenant, whether it is the person's or not, or is there at all.
        let bound = caller.person().and_then(|person| person.session.bound_tenant);
        if bound.is_some_and(|bound| bound != tenant) {
            return Err(Error::SessionBound);
        }
        let member = match caller.user() {
            Some(user) => Some(self.membership(tenant, user.user_id).await?),
            None => None,
        };
        let ended = match caller.person() {
            Some(person) => self.session_end(tenant, &person.session).await?.is_some(),
            None => false,
        };
        let found = self.tenant(tenant).await?;
        let found = found.filter(|found| !found.tenant.is_purged(now)).ok_or(Error::TenantNotFound)?;
        let catalogue = self.plane.catalogues.at(&self.plane.store, found.catalogue_version).await?;
        let tenant = found.tenant.settled(&catalogue, now);
        let of_product = &catalogue.definition.settings.security;
        let methods = found.sign_in_methods.or_else(|| of_product.sign_in_methods.clone());
        let policy = Policy {
            mfa_required: found.mfa_required.or(of_product.mfa_required).unwrap_or(false),
            sign_in_methods: SignInMethods::of(&methods.unwrap_or_default()),
        };
        let session_length = found.session_length.or(of_product.session_length_seconds.map(TimeDelta::seconds));
        if caller.api_key().is_some_and(|key| key.tenant_id != tenant.tenant_id) {
            return Err(Error::TenantNotFound);
        }
        // A member's key is of one stay: who came back has come back without it.
        if let (Caller::Personal(key, _), Some(Some(member))) = (caller, &member)
            && key.membership_id != Some(member.membership_id)
        {
            return Err(Error::CredentialInvalid);
        }
        let member = match member {
            Some(None) => return Err(Error::TenantNotFound),
            Some(member) => member,
            None => None,
        };
        let roles = self.plane.own_roles.of(&self.plane.store, &catalogue, &tenant).await?;
        let sso = found.sso.filter(|_| caller.user().is_some());
        // An operator in a person's place is in no session of theirs.
        let session = caller.person().map(|person| &person.session).filter(|session| session.operator.is_none());
        let too_old =
            session.zip(session_length).is_some_and(|(session, length)| session.created_at.after(length) <= now);
        let session_ended = ended || too_old;
        Ok(Standing { tenant, catalogue, policy, roles, member, session_ended, sso })
    }
}

impl Plane {
    /// A tenant as it stands at `now`, with the catalogue in force.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn find_settled(
        &self,
        tenant: TenantId,
        now: Timestamp,
    ) -> Result<Option<(Tenant, Arc<Catalogue>)>, Error> {
        let Some((tenant, version)) = self.store.find_tenant(tenant).await? else { return Ok(None) };
        let catalogue = self.catalogues.at(&self.store, version).await?;
        Ok(Some((tenant.settled(&catalogue, now), catalogue)))
    }

    /// Where a person's call goes when nothing claims a tenant: their default, else the only tenant that they have, else
    /// the server's default. Fallbacks never conflict; a tenant that is deleted, or in which the person may not act, is
    /// passed over.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn fallback(
        &self,
        user: UserId,
        own: Option<TenantId>,
        server: Option<&TenantName>,
        now: Timestamp,
    ) -> Result<Option<TenantId>, Error> {
        let server = match server {
            Some(name) => self.look_at_rows().find(name, now).await?,
            None => None,
        };
        let candidates = self.store.list_fallbacks(user, own, server).await?;
        let chosen = |wanted: Option<TenantId>| wanted.filter(|id| candidates.contains(id));
        let only = match candidates.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        Ok(chosen(own).or(only).or(chosen(server)))
    }
}
