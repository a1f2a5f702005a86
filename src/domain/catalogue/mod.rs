//! The catalogue: what differs from product to product is data. A TOML file says which metrics, features, permissions and
//! roles there are, what each plan costs and allows, and how often methods that people abuse may be called.
//!
//! Read in three steps: `text.rs` parses TOML and knows the line of everything, `file.rs` finds what is no key or of the
//! wrong type, `check.rs` and `roles.rs` what makes no sense. `diff.rs` compares two.

mod check;
mod diff;
mod file;
mod roles;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::plan::{Limit, Plan, PlanRef};
use super::role::{Permissions, Roles, own_permissions};
use super::settings::Settings;

pub use diff::CatalogueChange;
pub use roles::MOST_RANK;

/// The catalogue that an empty database gets when the server is given none; also the commented example.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The built-in metric that counts active members against the seats of a plan.
pub const MEMBERS: &str = "members";

/// A catalogue in force: the newest definition, and every version of a plan that any tenant may still be on.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Rises with each catalogue that is applied.
    pub version: i64,
    /// What the file says.
    pub definition: Definition,
    /// All versions of all plans, also of those that the file no longer has.
    pub versions: BTreeMap<PlanRef, Plan>,
}

/// What a catalogue's file says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The plan of a new tenant.
    pub default_plan: String,
    /// Metrics by name.
    pub metrics: BTreeMap<String, Metric>,
    /// Features by name, each with a sentence for people.
    pub features: BTreeMap<String, String>,
    /// Permissions of the product, each with a sentence for people.
    pub permissions: BTreeMap<String, String>,
    /// The roles.
    pub roles: Arc<Roles>,
    /// Plans by name, with the features of included plans spelt out.
    pub plans: BTreeMap<String, Plan>,
    /// What tenants are made from, by name.
    pub templates: BTreeMap<String, Template>,
    /// Settings that hold where a tenant has set nothing.
    pub settings: Settings,
    /// Days before a trial or a paid period ends at which its owners are told, most first.
    pub notice_days: Vec<u16>,
    /// How often methods may be called.
    pub rpc_rates: Vec<RpcRate>,
}

/// Something that is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What kind of thing it counts.
    #[serde(default)]
    pub kind: MetricKind,
    /// The base unit, for people.
    pub unit: String,
    /// Over which span a counter runs.
    #[serde(default)]
    pub period: MetricPeriod,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl Metric {
    /// Whether what is used of it is kept: rates are decided in memory.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kind != MetricKind::Rate
    }
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// What happens: begins anew with each period.
    #[default]
    Counter,
    /// A level that goes up and down.
    Gauge,
    /// What is held at the same time.
    Concurrency,
    /// So many per minute.
    Rate,
}

/// The span of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricPeriod {
    /// A calendar day.
    Day,
    /// A calendar week, from Monday.
    Week,
    /// A calendar month.
    #[default]
    Month,
    /// A calendar year.
    Year,
    /// The paid period of the subscription.
    Billing,
    /// All time.
    Lifetime,
}

/// What a tenant is made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its plan; the catalogue's default when absent.
    #[serde(default)]
    pub plan: Option<String>,
    /// Settings to begin with.
    #[serde(default)]
    pub settings: Settings,
    /// Features to switch on by override.
    #[serde(default)]
    pub features: Vec<String>,
    /// Whether it is for showing, not for work.
    #[serde(default)]
    pub demo: bool,
}

/// How often a method may be called with success. Counted over a sliding window, so that no span of that length ever
/// holds more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSubject {
    /// The user or key.
    Caller,
    /// The tenant.
    Tenant,
    /// The network address: IPv4 /24, IPv6 /56.
    Source,
}

/// Something wrong in a catalogue's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Which key, such as `plans.pro.limits.quizzes`; empty when it is about the text.
    pub path: String,
    /// What, and what would be right.
    pub reason: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "{path}: {}", self.reason),
        }
    }
}

impl Definition {
    /// All permissions that a member may have: tenantry's own and the product's.
    #[must_use]
    pub fn known_permissions(&self) -> Permissions {
        let product = self.permissions.keys().map(String::as_str);
        let names: Vec<&str> = own_permissions().map(|name| -> &str { name }).chain(product).collect();
        Permissions::any_of(&names)
    }
}

impl Catalogue {
    /// A version of a plan.
    #[must_use]
    pub fn plan(&self, of: &PlanRef) -> Option<&Plan> {
        self.versions.get(of)
    }

    /// The newest version of a plan that the file has.
    #[must_use]
    pub fn newest(&self, plan: &str) -> Option<(PlanRef, &Plan)> {
        self.definition.plans.get(plan)?;
        let (of, plan) = self.versions.range(first(plan)..=last(plan)).next_back()?;
        Some((of.clone(), plan))
    }

    /// What a plan allows of a metric; none is unlimited. A plan that is not there allows nothing, so that a lost plan never
    /// opens a limit.
    #[must_use]
    pub fn limit(&self, of: &PlanRef, metric: &str) -> Option<Limit> {
        match self.plan(of) {
            Some(plan) if metric == MEMBERS => plan.seats.map(|limit| Limit { limit, ..Limit::default() }),
            Some(plan) => plan.limits.get(metric).copied(),
            None => Some(Limit::default()),
        }
    }

    /// For how many days a plan keeps usage events. A plan that is not there keeps them as long as one that does not say.
    #[must_use]
    pub fn usage_retention_days(&self, of: &PlanRef) -> i64 {
        self.plan(of).unwrap_or(&Plan::default()).retention_days().into()
    }
}

fn first(plan: &str) -> PlanRef {
    PlanRef { plan: plan.to_owned(), version: 0 }
}

fn last(plan: &str) -> PlanRef {
    PlanRef { plan: plan.to_owned(), version: i64::MAX }
}

/// The largest amount: 2^53, which every client language holds exactly.
pub const MAX_AMOUNT: i64 = 1 << 53;

/// Whether the text can name a metric, plan, feature or role: 1 to 64 of a-z, 0-9 and _, beginning with a letter.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
