//! The catalogue: what differs from product to product is data. A TOML file says which metrics, features, permissions and
//! roles there are, what each plan costs and allows, and how often methods that people abuse may be called.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::plan::{Limit, Plan, PlanRef};
use super::role::{Permissions, Rank, Role, RoleName, Roles, is_for_services, is_permission, own_permissions};
use super::settings::Settings;

/// The catalogue that an empty database gets when the server is given none; also the commented example.
pub const EXAMPLE: &str = include_str!("catalogue.toml");

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
#[derive(Debug, Clone)]
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
    pub roles: Roles,
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

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default_plan: String,
    #[serde(default)]
    metrics: BTreeMap<String, Metric>,
    #[serde(default)]
    features: BTreeMap<String, String>,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    roles: BTreeMap<String, RoleText>,
    plans: BTreeMap<String, Plan>,
    #[serde(default)]
    templates: BTreeMap<String, Template>,
    #[serde(default)]
    settings: Settings,
    #[serde(default = "default_notice_days")]
    notice_days: Vec<u16>,
    #[serde(default)]
    rpc_rates: Vec<RpcRate>,
}

fn default_notice_days() -> Vec<u16> {
    vec![7, 1]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    rank: i64,
    #[serde(default)]
    permissions: Vec<String>,
    /// A role whose permissions this one has as well.
    #[serde(default)]
    includes: Option<String>,
    /// Whether new members get it when nobody says.
    #[serde(default)]
    default: bool,
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
    /// Whether it is counted now: counters of a calendar month are.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.kind == MetricKind::Counter && self.period == MetricPeriod::Month
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
    /// What, and what would be right.
    pub reason: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.reason),
            line => write!(f, "line {line}: {}", self.reason),
        }
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
}

fn first(plan: &str) -> PlanRef {
    PlanRef { plan: plan.to_owned(), version: 0 }
}

fn last(plan: &str) -> PlanRef {
    PlanRef { plan: plan.to_owned(), version: i64::MAX }
}

impl Definition {
    /// Reads a catalogue.
    ///
    /// # Errors
    /// All that is wrong, with the line of each.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let one = |reason: String| vec![Problem { line: 0, reason }];
        let file: File = toml::from_str(text).map_err(|e| one(e.to_string()))?;
        let roles = roles(&file).map_err(one)?;
        let mut plans = file.plans;
        spell_out_features(&mut plans).map_err(one)?;
        let definition = Self {
            default_plan: file.default_plan,
            metrics: file.metrics,
            features: file.features,
            permissions: file.permissions,
            roles,
            plans,
            templates: file.templates,
            settings: file.settings,
            notice_days: file.notice_days,
            rpc_rates: file.rpc_rates,
        };
        definition.check().map_err(one)?;
        Ok(definition)
    }

    fn check(&self) -> Result<(), String> {
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
            if !(0..=MAX_AMOUNT).contains(&limit.limit) {
                return Err(format!("plans.{plan}.limits.{metric}: must be 0 to 2^53"));
            }
        }
        for rate in &self.rpc_rates {
            if !(1..=1000).contains(&rate.count) || rate.seconds == 0 {
                return Err(format!("rpc_rates: {}: count must be 1 to 1000, seconds at least 1", rate.method));
            }
        }
        Ok(())
    }

    fn limits(&self) -> impl Iterator<Item = (&str, &str, &Limit)> {
        self.plans
            .iter()
            .flat_map(|(plan, p)| p.limits.iter().map(move |(metric, limit)| (plan.as_str(), metric.as_str(), limit)))
    }
}

/// The roles that the file names, or the built-in ones.
fn roles(file: &File) -> Result<Roles, String> {
    let product: Vec<String> = file.permissions.keys().cloned().collect();
    if file.roles.is_empty() {
        return Ok(Roles::built_in(&product));
    }
    let mut known: Vec<&str> = own_permissions().collect();
    known.extend(product.iter().map(String::as_str));
    let mut roles = Vec::new();
    for (name, text) in &file.roles {
        let mut patterns: Vec<&String> = Vec::new();
        let mut next = Some((name, text));
        let mut seen = BTreeSet::new();
        while let Some((at, role)) = next {
            if !seen.insert(at) {
                return Err(format!("roles.{name}.includes: goes round in a circle"));
            }
            patterns.extend(&role.permissions);
            next = match &role.includes {
                Some(below) => {
                    Some(file.roles.get_key_value(below).ok_or(format!("roles.{at}.includes: no role {below:?}"))?)
                }
                None => None,
            };
        }
        for pattern in &patterns {
            let stands_for_something = *pattern == "*"
                || (is_permission(pattern, true)
                    && known.iter().any(|name| Permissions::parse(&[pattern]).is_ok_and(|set| set.contains(name))));
            if is_for_services(pattern) || !stands_for_something {
                return Err(format!("roles.{name}.permissions: {pattern:?} is no permission of a member"));
            }
        }
        let permissions = match patterns.as_slice() {
            [] => Permissions::default(),
            some => Permissions::parse(some)?.expand(known.iter().copied()),
        };
        roles.push(Role { name: RoleName::new(name), rank: Rank(text.rank), permissions });
    }
    let default = file.roles.iter().find(|(_, role)| role.default).map(|(name, _)| RoleName::new(name));
    Roles::new(roles, default)
}

/// Adds to each plan the features of the plans that it includes.
fn spell_out_features(plans: &mut BTreeMap<String, Plan>) -> Result<(), String> {
    let before = plans.clone();
    for (name, plan) in plans.iter_mut() {
        let mut features: BTreeSet<String> = plan.features.iter().cloned().collect();
        let mut next = plan.includes.take();
        let mut seen = BTreeSet::from([name.clone()]);
        while let Some(other) = next {
            let Some(included) = before.get(&other) else {
                return Err(format!("plans.{name}.includes: there is no plan {other:?}"));
            };
            if !seen.insert(other) {
                return Err(format!("plans.{name}.includes: goes round in a circle"));
            }
            features.extend(included.features.iter().cloned());
            next = included.includes.clone();
        }
        plan.features = features.into_iter().collect();
    }
    Ok(())
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
