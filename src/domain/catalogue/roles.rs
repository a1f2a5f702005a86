//! The roles of a catalogue: each with all its permissions spelt out, and checked so that a tenant can be administered.

use std::collections::BTreeMap;

use super::check::Check;
use super::file::RoleText;
use super::is_name;
use super::text::keys;
use crate::domain::role::{Permissions, Rank, Role, RoleName, Roles, is_for_services, is_permission, own_permissions};

/// The most roles.
const MOST_ROLES: usize = 50;

/// The highest rank.
pub const MOST_RANK: i64 = 1_000_000;

/// What somebody in a tenant must be able to do.
const OF_THE_TOP: [&str; 3] = ["members.manage", "ownership.transfer", "tenant.delete"];

impl Check<'_> {
    /// The roles that the file names, or the built-in ones; none when they are wrong.
    pub(super) fn roles(&mut self, texts: &BTreeMap<String, RoleText>, product: &[String]) -> Option<Roles> {
        if self.names.roles.is_empty() {
            return Some(Roles::built_in(product));
        }
        let before = self.problems.len();
        self.count("roles", self.names.roles.len(), MOST_ROLES);
        let mut known: Vec<&str> = own_permissions().collect();
        known.extend(product.iter().map(String::as_str));
        let mut roles = Vec::new();
        for (name, text) in texts {
            self.role(name, text, &known);
            let patterns = self.with_included(name, texts);
            let sets: Vec<Permissions> =
                patterns.iter().filter_map(|pattern| Permissions::parse(&[pattern]).ok()).collect();
            let held = known.iter().copied().filter(|name| sets.iter().any(|set| set.contains(name)));
            let permissions = Permissions::all().expand(held.collect::<Vec<_>>());
            roles.push(Role { name: RoleName::new(name), rank: Rank(text.rank), permissions, own: false });
        }
        self.ranks(texts);
        let defaults: Vec<&String> = texts.iter().filter(|(_, role)| role.default).map(|(name, _)| name).collect();
        for name in defaults.iter().skip(1) {
            self.says(
                &keys!["roles", name, "default"],
                format!("`{}` is the default already; only one can be", defaults[0]),
            );
        }
        if roles.len() < self.names.roles.len() || self.problems.len() > before {
            return None;
        }
        match Roles::new(roles, defaults.first().map(|name| RoleName::new(name))) {
            Ok(roles) => {
                self.top(&roles);
                Some(roles)
            }
            Err(reason) => {
                self.says(&keys!["roles"], reason);
                None
            }
        }
    }

    fn role(&mut self, name: &str, text: &RoleText, known: &[&str]) {
        if !is_name(name) {
            self.name(&keys!["roles", name]);
        }
        if !(0..=MOST_RANK).contains(&text.rank) {
            self.says(&keys!["roles", name, "rank"], "must be 0 to 1000000");
        }
        for (i, pattern) in text.permissions.iter().enumerate() {
            let stands_for_something = is_permission(pattern, true)
                && Permissions::parse(&[pattern]).is_ok_and(|set| known.iter().any(|name| set.contains(name)));
            if pattern != "*" && (is_for_services(pattern) || !stands_for_something) {
                let reason = format!(
                    "{pattern:?} is no permission of a member; it must be one of tenantry's own, stand in [permissions], \
                     or be a pattern such as \"members.*\" or \"*\""
                );
                self.says(&keys!["roles", name, "permissions", format!("[{i}]")], reason);
            }
        }
    }

    /// The permissions and patterns of a role and of those that it includes.
    fn with_included<'r>(&mut self, name: &str, texts: &'r BTreeMap<String, RoleText>) -> Vec<&'r String> {
        let mut patterns = Vec::new();
        let mut seen = vec![name];
        let mut next = texts.get(name);
        while let Some(role) = next {
            patterns.extend(&role.permissions);
            let Some(below) = role.includes.as_deref() else { break };
            let at = keys!["roles", name, "includes"];
            if !self.names.has(&self.names.roles, below) {
                // Told where it is written.
                if seen.len() == 1 {
                    self.says(&at, format!("there is no role {below:?} in [roles]"));
                }
                break;
            }
            if seen.contains(&below) {
                self.says(&at, "goes round in a circle");
                break;
            }
            seen.push(below);
            next = texts.get(below);
        }
        patterns
    }

    fn ranks(&mut self, texts: &BTreeMap<String, RoleText>) {
        let mut by_rank: BTreeMap<i64, &str> = BTreeMap::new();
        for (name, text) in texts {
            if let Some(other) = by_rank.insert(text.rank, name) {
                self.says(&keys!["roles", name, "rank"], format!("`{other}` has the same; each rank once"));
            }
        }
    }

    /// Without these nobody could administer a tenant.
    fn top(&mut self, roles: &Roles) {
        let top = roles.top();
        let missing: Vec<&str> = OF_THE_TOP.into_iter().filter(|name| !top.permissions.contains(name)).collect();
        if !missing.is_empty() {
            let reason = format!("is the highest role and must hold {}, or \"*\"", missing.join(", "));
            self.says(&keys!["roles", top.name.as_str(), "permissions"], reason);
        }
    }
}
