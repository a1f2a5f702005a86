//! Reading a catalogue's file: from TOML to a definition, with the line of everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{self, Fault};
use super::{Definition, Metric, Problem, RpcRate, Template};
use crate::domain::plan::Plan;
use crate::domain::role::{Permissions, Rank, Role, RoleName, Roles, is_for_services, is_permission, own_permissions};
use crate::domain::settings::Settings;

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 512 * 1024;

/// How many problems are told at once.
const MAX_PROBLEMS: usize = 50;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) default_plan: String,
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
pub(super) struct RoleText {
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

impl Definition {
    /// Reads a catalogue.
    ///
    /// # Errors
    /// All that is wrong, with the line of each; up to fifty problems. What does not read at all is told alone.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        if text.len() > MAX_BYTES {
            return Err(vec![Problem { line: 0, reason: "the file is larger than 512 KiB".to_owned() }]);
        }
        let unreadable = |error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_at(text, span.start));
            vec![Problem { line, reason: error.message().to_owned() }]
        };
        let table = DeTable::parse(text).map_err(unreadable)?;
        let file: File = toml::from_str(text).map_err(unreadable)?;
        let mut faults = Vec::new();
        let roles = roles(&file, &mut faults);
        let mut plans = file.plans.clone();
        spell_out_features(&mut plans, &mut faults);
        let mut definition = Self {
            default_plan: file.default_plan,
            metrics: file.metrics,
            features: file.features,
            permissions: file.permissions,
            roles: Roles::built_in(&[]),
            plans,
            templates: file.templates,
            settings: file.settings,
            notice_days: file.notice_days,
            rpc_rates: file.rpc_rates,
        };
        if let Some(roles) = roles {
            definition.roles = roles;
        }
        check::check(&definition, &mut faults);
        if faults.is_empty() {
            return Ok(definition);
        }
        let problem = |fault: Fault| {
            let line = span_of(&table, &fault.path).map_or(0, |span| line_at(text, span.start));
            Problem { line, reason: format!("{}: {}", fault.path.join("."), fault.reason) }
        };
        let mut problems: Vec<Problem> = faults.into_iter().take(MAX_PROBLEMS).map(problem).collect();
        problems.sort_by_key(|problem| problem.line);
        Err(problems)
    }
}

/// The line, from 1, of a place in the text.
fn line_at(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.split(|byte| *byte == b'\n').count()
}

/// Where a path stands in the file: its last part that is there.
fn span_of(table: &Spanned<DeTable<'_>>, path: &[String]) -> Option<Range<usize>> {
    let mut found = None;
    let mut tables: Vec<&DeTable<'_>> = vec![table.get_ref()];
    for part in path {
        let Some(at) = tables.pop() else { break };
        let Some((key, value)) = at.iter().find(|(key, _)| key.get_ref().as_ref() == part.as_str()) else { break };
        found = Some(key.span());
        match value.get_ref() {
            DeValue::Table(inner) => tables.push(inner),
            // Of a list the one that is meant cannot be told by its name: its place follows in the path.
            DeValue::Array(items) => {
                let index = path.iter().find_map(|part| part.parse::<usize>().ok());
                if let Some(item) = index.and_then(|index| items.get(index)) {
                    return Some(item.span());
                }
            }
            _ => {}
        }
    }
    found
}

/// The roles that the file names, or the built-in ones; none when something is wrong with them.
fn roles(file: &File, faults: &mut Vec<Fault>) -> Option<Roles> {
    let product: Vec<String> = file.permissions.keys().cloned().collect();
    if file.roles.is_empty() {
        return Some(Roles::built_in(&product));
    }
    let before = faults.len();
    let mut known: Vec<&str> = own_permissions().collect();
    known.extend(product.iter().map(String::as_str));
    let mut roles = Vec::new();
    for (name, text) in &file.roles {
        let patterns = patterns_of(file, name, faults);
        for pattern in &text.permissions {
            let stands_for_something = pattern == "*"
                || (is_permission(pattern, true)
                    && Permissions::parse(&[pattern]).is_ok_and(|set| known.iter().any(|name| set.contains(name))));
            if is_for_services(pattern) || !stands_for_something {
                let reason =
                    format!("{pattern:?} is no permission of a member; [permissions] adds those of the product");
                faults.push(Fault::at(&["roles", name, "permissions"], reason));
            }
        }
        let permissions = match patterns.as_slice() {
            [] => Permissions::default(),
            some => Permissions::any_of(some).expand(known.iter().copied()),
        };
        roles.push(Role { name: RoleName::new(name), rank: Rank(text.rank), permissions });
    }
    let defaults: Vec<&String> = file.roles.iter().filter(|(_, role)| role.default).map(|(name, _)| name).collect();
    if let [_, second, ..] = defaults.as_slice() {
        faults.push(Fault::at(&["roles", second, "default"], "only one role is given to new members by default"));
    }
    let default = defaults.first().map(|name| RoleName::new(name));
    match Roles::new(roles, default) {
        Ok(roles) if faults.len() == before => Some(roles),
        Ok(_) => None,
        Err(reason) => {
            faults.push(Fault::at(&["roles"], reason));
            None
        }
    }
}

/// The permissions and patterns of a role, with those of the roles that it includes.
fn patterns_of<'f>(file: &'f File, name: &'f String, faults: &mut Vec<Fault>) -> Vec<&'f str> {
    let mut patterns = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = Some(name);
    while let Some(at) = next {
        if !seen.insert(at) {
            faults.push(Fault::at(&["roles", name, "includes"], "goes round in a circle"));
            break;
        }
        let Some(role) = file.roles.get(at) else {
            faults.push(Fault::at(&["roles", name, "includes"], format!("there is no role {at:?}")));
            break;
        };
        patterns.extend(role.permissions.iter().map(String::as_str));
        next = role.includes.as_ref();
    }
    patterns
}

/// Adds to each plan the features of the plans that it includes.
fn spell_out_features(plans: &mut BTreeMap<String, Plan>, faults: &mut Vec<Fault>) {
    let before = plans.clone();
    for (name, plan) in plans.iter_mut() {
        let mut features: BTreeSet<String> = plan.features.iter().cloned().collect();
        plan.includes = None;
        let mut next = before.get(name).and_then(|plan| plan.includes.as_ref());
        let mut seen = BTreeSet::from([name]);
        while let Some(other) = next {
            let Some(included) = before.get(other) else {
                faults.push(Fault::at(&["plans", name, "includes"], format!("there is no plan {other:?}")));
                break;
            };
            if !seen.insert(other) {
                faults.push(Fault::at(&["plans", name, "includes"], "goes round in a circle"));
                break;
            }
            features.extend(included.features.iter().cloned());
            next = included.includes.as_ref();
        }
        plan.features = features.into_iter().collect();
    }
}
