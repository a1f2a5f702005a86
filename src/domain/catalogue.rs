//! The catalogue: what differs from product to product is data. A TOML file says which metrics there are, what each plan
//! allows of them, and how often methods that people abuse may be called.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;

/// The catalogue that the server uses when it is given none; also the commented example.
pub const EXAMPLE: &str = include_str!("catalogue.toml");

/// A product, described.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The plan of a new tenant.
    pub default_plan: String,
    /// Metrics by name.
    pub metrics: BTreeMap<String, Metric>,
    /// Plans by name.
    pub plans: BTreeMap<String, Plan>,
    /// How often methods may be called.
    #[serde(default)]
    pub rpc_rates: Vec<RpcRate>,
}

/// Something that is counted per calendar month.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The base unit, for people.
    pub unit: String,
}

/// What a tenant has bought.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Limits by metric; what is absent is unlimited.
    #[serde(default)]
    pub limits: BTreeMap<String, i64>,
}

/// How often a method may be called with success. Counted over a sliding window, so that no span of that length ever
/// holds more.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcRate {
    /// `Service/Method`, such as `TenantService/CreateTenant`.
    pub method: String,
    /// Whose calls are counted together.
    pub per: RateSubject,
    /// How many.
    pub count: u16,
    /// The length of the window, in seconds.
    pub seconds: u32,
}

impl RpcRate {
    /// The length of the window.
    #[must_use]
    pub fn window(&self) -> TimeDelta {
        TimeDelta::seconds(i64::from(self.seconds))
    }
}

/// Whose calls a rate counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSubject {
    /// The user or key.
    Caller,
    /// The tenant.
    Tenant,
    /// The network address: IPv4 /24, IPv6 /56.
    Source,
}

impl Catalogue {
    /// Reads a catalogue. `methods` are the methods that there are, as `Service/Method`.
    ///
    /// # Errors
    /// What is wrong, with the line where the file itself is at fault.
    pub fn parse(text: &str, methods: &[&str]) -> Result<Self, String> {
        let catalogue: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        catalogue.check(methods)?;
        Ok(catalogue)
    }

    fn check(&self, methods: &[&str]) -> Result<(), String> {
        if !self.plans.contains_key(&self.default_plan) {
            return Err(format!("default_plan {:?} is not among [plans]", self.default_plan));
        }
        for name in self.metrics.keys().chain(self.plans.keys()) {
            if !is_name(name) {
                return Err(format!("{name:?}: names are 1 to 64 of a-z, 0-9 and _, beginning with a letter"));
            }
        }
        for (plan, metric, limit) in self.limits() {
            if !self.metrics.contains_key(metric) {
                return Err(format!("plans.{plan}.limits.{metric}: there is no such metric"));
            }
            if !(0..=MAX_AMOUNT).contains(&limit) {
                return Err(format!("plans.{plan}.limits.{metric}: must be 0 to 2^53"));
            }
        }
        for rate in &self.rpc_rates {
            if !methods.contains(&rate.method.as_str()) {
                return Err(format!("rpc_rates: there is no method {:?}", rate.method));
            }
            if !(1..=1000).contains(&rate.count) || Duration::from_secs(u64::from(rate.seconds)).is_zero() {
                return Err(format!("rpc_rates: {}: count must be 1 to 1000, seconds at least 1", rate.method));
            }
        }
        Ok(())
    }

    fn limits(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.plans
            .iter()
            .flat_map(|(plan, p)| p.limits.iter().map(move |(metric, limit)| (plan.as_str(), metric.as_str(), *limit)))
    }

    /// What a plan allows of a metric; none is unlimited. A plan that the catalogue no longer has allows nothing, so
    /// that a lost plan never opens a limit.
    #[must_use]
    pub fn limit(&self, plan: &str, metric: &str) -> Option<i64> {
        match self.plans.get(plan) {
            Some(plan) => plan.limits.get(metric).copied(),
            None => Some(0),
        }
    }
}

/// The largest amount: 2^53, which every client language holds exactly.
pub const MAX_AMOUNT: i64 = 1 << 53;

/// Whether the text can name a metric or plan: 1 to 64 of a-z, 0-9 and _, beginning with a letter.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: &[&str] =
        &["TenantService/CreateTenant", "MembershipService/AddMember", "AuthService/SignUp", "AuthService/Login"];

    #[test]
    fn the_example_is_a_catalogue() {
        let catalogue = Catalogue::parse(EXAMPLE, METHODS).unwrap();
        assert_eq!(catalogue.limit("free", "quizzes"), Some(100));
        assert_eq!(catalogue.limit("enterprise", "quizzes"), None);
        assert_eq!(catalogue.limit("gone", "quizzes"), Some(0));
    }

    #[test]
    fn mistakes_are_named() {
        let refused = |from: &str, to: &str| Catalogue::parse(&EXAMPLE.replace(from, to), METHODS).unwrap_err();
        assert!(refused("default_plan = \"free\"", "default_plan = \"nix\"").contains("nix"));
        assert!(refused("unit = \"quizzes\"", "unti = \"quizzes\"").contains("line"));
        assert!(refused("CreateTenant", "MakeTenant").contains("MakeTenant"));
        assert!(refused("quizzes = 100", "quizzes = -1").contains("quizzes"));
    }
}
