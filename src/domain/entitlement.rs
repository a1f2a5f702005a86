//! Entitlements: what a tenant may use and how much of it, from its plan, its overrides and its own switches.

use serde::{Deserialize, Serialize};

use super::catalogue::{Catalogue, MEMBERS, Metric, MetricKind, MetricPeriod};
use super::plan::{Limit, PlanRef};
use crate::time::Timestamp;

/// Where an entitlement comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// A feature switched on or off for one tenant, by an operator's override or by the tenant itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureSwitch {
    /// Who switched it: `Override` or `Tenant`.
    pub source: Source,
    /// On or off.
    pub enabled: bool,
    /// When it ends; none is never.
    pub expires_at: Option<Timestamp>,
}

impl FeatureSwitch {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// Whether a tenant has a feature, and what decides that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectiveFeature {
    /// Whether it has it.
    pub enabled: bool,
    /// What decides.
    pub source: Source,
    /// When the override that decides ends; none when it does not, or when something else decides.
    pub expires_at: Option<Timestamp>,
    /// Whether the plan includes it.
    pub in_plan: bool,
}

/// The built-in metric `members`: a gauge that no catalogue has to name.
#[must_use]
pub fn members_metric() -> Metric {
    Metric {
        kind: MetricKind::Gauge,
        unit: MEMBERS.to_owned(),
        period: MetricPeriod::Lifetime,
        description: "Active members, against the seats of the plan.".to_owned(),
    }
}

impl Catalogue {
    /// Whether a tenant on a plan has a feature: an operator's override that holds decides, else the tenant's own switch
    /// (off always, on within what the plan includes), else the plan.
    #[must_use]
    pub fn effective_feature(
        &self,
        of: &PlanRef,
        feature: &str,
        switches: &[FeatureSwitch],
        now: Timestamp,
    ) -> EffectiveFeature {
        let in_plan = self.plan(of).is_some_and(|plan| plan.features.iter().any(|name| name == feature));
        let by = |source| switches.iter().find(|switch| switch.source == source && switch.holds(now));
        match (by(Source::Override), by(Source::Tenant)) {
            (Some(own), _) => {
                EffectiveFeature { enabled: own.enabled, source: Source::Override, expires_at: own.expires_at, in_plan }
            }
            (None, Some(own)) if in_plan || !own.enabled => {
                EffectiveFeature { enabled: own.enabled, source: Source::Tenant, expires_at: None, in_plan }
            }
            _ => EffectiveFeature { enabled: in_plan, source: Source::Plan, expires_at: None, in_plan },
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalogue::Definition;

    const NOW: Timestamp = Timestamp::from_micros(1_000);

    fn catalogue() -> (Catalogue, PlanRef) {
        let text = "default_plan = \"p\"\n[features]\nsold = \"\"\nunsold = \"\"\n[plans.p]\nfeatures = [\"sold\"]\n";
        let definition = Definition::parse(text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let of = PlanRef { plan: "p".to_owned(), version: 1 };
        let versions = [(of.clone(), definition.plans["p"].clone())].into();
        (Catalogue { version: 1, definition, versions }, of)
    }

    fn switch(source: Source, enabled: bool, expires_at: Option<i64>) -> FeatureSwitch {
        FeatureSwitch { source, enabled, expires_at: expires_at.map(Timestamp::from_micros) }
    }

    #[test]
    fn an_override_outweighs_the_tenants_switch_which_outweighs_the_plan() {
        use Source::{Override, Plan, Tenant};
        let (catalogue, of) = catalogue();
        let cases = [
            ("sold", vec![], (true, Plan)),
            ("unsold", vec![], (false, Plan)),
            ("sold", vec![switch(Tenant, false, None)], (false, Tenant)),
            ("sold", vec![switch(Tenant, true, None)], (true, Tenant)),
            ("unsold", vec![switch(Tenant, false, None)], (false, Tenant)),
            // What the plan no longer includes, no switch of the tenant brings back.
            ("unsold", vec![switch(Tenant, true, None)], (false, Plan)),
            ("unsold", vec![switch(Override, true, None)], (true, Override)),
            ("sold", vec![switch(Override, false, None), switch(Tenant, true, None)], (false, Override)),
            ("sold", vec![switch(Override, false, Some(1_001))], (false, Override)),
            // At its end it is over.
            ("sold", vec![switch(Override, false, Some(1_000))], (true, Plan)),
            ("sold", vec![switch(Override, true, Some(1_000)), switch(Tenant, false, None)], (false, Tenant)),
        ];
        for (feature, switches, expected) in cases {
            let found = catalogue.effective_feature(&of, feature, &switches, NOW);
            assert_eq!((found.enabled, found.source), expected, "{feature} {switches:?}");
            assert_eq!(found.in_plan, feature == "sold");
        }
        // A plan that is lost includes nothing.
        let lost = PlanRef { plan: "lost".to_owned(), version: 1 };
        assert!(!catalogue.effective_feature(&lost, "sold", &[switch(Tenant, true, None)], NOW).enabled);
    }
}
