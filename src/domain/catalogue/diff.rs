//! What differs between two catalogues, by path.

use serde_json::{Map, Value, json};

use super::text::shown;
use super::{Definition, RateSubject};

/// One difference.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CatalogueChange {
    /// Where, such as `plans.pro.limits.quizzes`.
    pub path: String,
    /// What was there; none when it is new.
    pub before: Option<Value>,
    /// What is there now; none when it is gone.
    pub after: Option<Value>,
}

impl Definition {
    /// What changes when `after` takes the place of this one, sorted by path; nothing when both say the same. What comes or
    /// goes as a whole is one change.
    #[must_use]
    pub fn diff(&self, after: &Self) -> Vec<CatalogueChange> {
        let mut changes = Vec::new();
        compare(&mut Vec::new(), Some(&self.value()), Some(&after.value()), &mut changes);
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    /// All of it as one value, in which everything that has a name is found by it.
    fn value(&self) -> Value {
        let roles: Map<String, Value> = self
            .roles
            .descending()
            .map(|role| {
                let default = self.roles.default().is_some_and(|default| default.name == role.name);
                let value = json!({ "rank": role.rank, "permissions": role.permissions.names(), "default": default });
                (role.name.as_str().to_owned(), value)
            })
            .collect();
        let mut rates = Map::new();
        for rate in &self.rpc_rates {
            let per = match rate.per {
                RateSubject::Caller => "caller",
                RateSubject::Tenant => "tenant",
                RateSubject::Source => "source",
            };
            let of_method = rates.entry(rate.method.clone()).or_insert_with(|| json!({}));
            of_method[per] = json!({ "count": rate.count, "seconds": rate.seconds });
        }
        json!({
            "default_plan": self.default_plan,
            "metrics": self.metrics,
            "features": self.features,
            "permissions": self.permissions,
            "roles": roles,
            "plans": self.plans,
            "templates": self.templates,
            "settings": self.settings,
            "notice_days": self.notice_days,
            "rpc_rates": rates,
        })
    }
}

fn compare(path: &mut Vec<String>, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<CatalogueChange>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let new = after.keys().filter(|key| !before.contains_key(*key));
            for key in before.keys().chain(new) {
                path.push(key.clone());
                compare(path, before.get(key), after.get(key), changes);
                path.pop();
            }
        }
        (before, after) => {
            changes.push(CatalogueChange { path: shown(path), before: before.cloned(), after: after.cloned() });
        }
    }
}
