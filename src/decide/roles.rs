//! Roles that tenants have made for themselves, in memory. Their version comes with the tenant's row, so what is kept is
//! right or read anew; tenants without any, which are most, cost nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::catalogue::Catalogue;
use crate::domain::id::TenantId;
use crate::domain::role::{OwnRole, Roles};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::store::Store;

/// Of how many tenants roles are kept; then all are forgotten and read again as they are asked for.
const BOUND: usize = 10_000;

/// Roles by tenant, as they were read last.
#[derive(Default)]
pub struct OwnRoles {
    kept: RwLock<HashMap<TenantId, Kept>>,
}

struct Kept {
    /// Of the catalogue and of the tenant's own roles.
    versions: (i64, i64),
    roles: Arc<Roles>,
}

impl OwnRoles {
    /// The roles of a tenant, at least as new as its row and the catalogue that came with it.
    ///
    /// # Errors
    /// `DatabaseUnavailable`.
    pub async fn of(&self, store: &Store, catalogue: &Catalogue, tenant: &Tenant) -> Result<Arc<Roles>, Error> {
        if tenant.roles_version == 0 {
            return Ok(catalogue.definition.roles.clone());
        }
        let versions = (catalogue.version, tenant.roles_version);
        if let Some(kept) = self.kept.read().unwrap_or_else(PoisonError::into_inner).get(&tenant.tenant_id)
            && kept.versions == versions
        {
            return Ok(kept.roles.clone());
        }
        let own = store.list_own_roles(tenant.tenant_id).await?;
        let roles = together(catalogue, &own);
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= BOUND {
            kept.clear();
        }
        kept.insert(tenant.tenant_id, Kept { versions, roles: roles.clone() });
        Ok(roles)
    }

    /// Forgets all of them.
    pub fn forget(&self) {
        self.kept.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The roles of a catalogue together with a tenant's own.
#[must_use]
pub fn together(catalogue: &Catalogue, own: &[OwnRole]) -> Arc<Roles> {
    if own.is_empty() {
        return catalogue.definition.roles.clone();
    }
    Arc::new(catalogue.definition.roles.with_own(own, &catalogue.definition.known_permissions()))
}
