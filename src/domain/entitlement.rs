//! Entitlements: what a tenant may use and how much of it, from its plan, its overrides and its own switches.

use super::catalogue::Catalogue;
use super::plan::{Limit, PlanRef};
use crate::time::Timestamp;

/// Where an entitlement comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The plan.
    Plan,
    /// An operator's override.
    Override,
    /// The tenant's own switch.
    Tenant,
}

/// Another limit than the plan's, given by an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitOverride {
    /// How much; none is unlimited.
    pub limit: Option<i64>,
    /// When it ends; none is never.
    pub expires_at: Option<Timestamp>,
}

impl LimitOverride {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

impl Catalogue {
    /// The limit that holds for a tenant on a plan; none is unlimited. An override, which must hold, takes the place of the
    /// plan's number and leaves the rest of its rules as they are.
    #[must_use]
    pub fn effective_limit(&self, of: &PlanRef, metric: &str, own: Option<&LimitOverride>) -> Option<Limit> {
        let planned = self.limit(of, metric);
        match own {
            None => planned,
            Some(own) => own.limit.map(|limit| Limit { limit, ..planned.unwrap_or_default() }),
        }
    }
}
