//! What differs between two catalogues, by path.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::Definition;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where, such as `plans.pro.limits.quizzes`.
    pub path: String,
    /// What was there, as JSON; empty when it is new.
    pub before: String,
    /// What is there now, as JSON; empty when it is gone.
    pub after: String,
}

/// Everything that differs, sorted by path.
#[must_use]
pub fn differences(before: &Definition, after: &Definition) -> Vec<Difference> {
    let (before, after) = (leaves(before), leaves(after));
    let mut found: BTreeMap<&String, (Option<&Json>, Option<&Json>)> = BTreeMap::new();
    for (path, value) in &before {
        found.entry(path).or_default().0 = Some(value);
    }
    for (path, value) in &after {
        found.entry(path).or_default().1 = Some(value);
    }
    let text = |value: Option<&Json>| value.map(ToString::to_string).unwrap_or_default();
    let differs = found.into_iter().filter(|(_, (before, after))| before != after);
    differs.map(|(path, (b, a))| Difference { path: path.clone(), before: text(b), after: text(a) }).collect()
}

/// A definition as a flat list: one entry a value that is no table.
fn leaves(d: &Definition) -> BTreeMap<String, Json> {
    let roles: BTreeMap<String, Json> = d
        .roles
        .descending()
        .map(|role| {
            let default = d.roles.default().is_some_and(|default| default.name == role.name);
            let text = json!({ "rank": role.rank, "permissions": role.permissions.names(), "default": default });
            (role.name.as_str().to_owned(), text)
        })
        .collect();
    let rates: BTreeMap<String, Json> = d
        .rpc_rates
        .iter()
        .map(|rate| {
            (rate.method.replace('.', "_"), json!({ "per": rate.per, "count": rate.count, "seconds": rate.seconds }))
        })
        .collect();
    let whole = json!({
        "default_plan": d.default_plan, "metrics": d.metrics, "features": d.features, "permissions": d.permissions,
        "roles": roles, "plans": d.plans, "templates": d.templates, "settings": d.settings,
        "notice_days": d.notice_days, "rpc_rates": rates,
    });
    let mut found = BTreeMap::new();
    flatten(String::new(), whole, &mut found);
    found
}

fn flatten(path: String, value: Json, into: &mut BTreeMap<String, Json>) {
    match value {
        Json::Object(fields) if !fields.is_empty() || path.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                flatten(path, value, into);
            }
        }
        leaf => {
            into.insert(path, leaf);
        }
    }
}
