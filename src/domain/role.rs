//! Roles and permissions: who outranks whom, and what each may do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The permissions that tenantry's own methods ask for, by the lowest built-in role that has them.
const VIEWER: &[&str] = &["features.read", "limits.read", "members.read", "roles.read", "tenant.read", "usage.read"];
const MEMBER: &[&str] = &["usage.write"];
const MANAGER: &[&str] = &["billing.read", "members.invite", "settings.read"];
const ADMIN: &[&str] = &[
    "audit.read",
    "domains.manage",
    "features.manage",
    "keys.manage",
    "members.manage",
    "roles.manage",
    "sessions.manage",
    "settings.update",
    "tenant.update",
];
const OWNER: &[&str] = &["billing.manage", "data.export", "ownership.transfer", "tenant.delete", "tenant.suspend"];

/// A built-in role. Order is rank: a greater role outranks a lesser one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Sees.
    Viewer,
    /// Works.
    Member,
    /// Invites.
    Manager,
    /// Administers.
    Admin,
    /// Owns: the top role, which a tenant never goes without.
    Owner,
}

impl Role {
    /// All roles, lowest first.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Member, Self::Manager, Self::Admin, Self::Owner];

    /// The role that the last-owner rules protect.
    pub const TOP: Self = Self::Owner;

    /// Reads a role's name.
    ///
    /// # Errors
    /// Which names there are, as a sentence for the field.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == name)
            .ok_or("must be one of owner, admin, manager, member, viewer")
    }

    /// The role's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Manager => "manager",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// What a member in this role may do.
    #[must_use]
    pub fn permissions(self) -> Permissions {
        let steps: [&[&str]; 5] = [VIEWER, MEMBER, MANAGER, ADMIN, OWNER];
        let mine = Self::ALL.iter().zip(steps).filter(|(role, _)| **role <= self);
        Permissions(mine.flat_map(|(_, names)| names.iter().map(|&n| n.to_owned())).collect())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions, in which `quizzes.*` stands for every verb of a noun and `*` for everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions(Vec<String>);

impl Permissions {
    /// Reads a list of permissions and patterns, as a key is given them.
    ///
    /// # Errors
    /// What is wrong with the first bad one, as a sentence for the field.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, &'static str> {
        if !(1..=100).contains(&names.len()) {
            return Err("must name 1 to 100 permissions");
        }
        let mut set = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_ref();
            if name != "*" && !is_permission(name, true) {
                return Err("must be permissions such as members.read, members.* or *");
            }
            set.push(name.to_owned());
        }
        set.sort();
        set.dedup();
        Ok(Self(set))
    }

    /// Everything: what operators have.
    #[must_use]
    pub fn all() -> Self {
        Self(vec!["*".to_owned()])
    }

    /// Whether the set holds the permission.
    #[must_use]
    pub fn contains(&self, permission: &str) -> bool {
        self.0.iter().any(|held| match held.strip_suffix('*') {
            None => held == permission,
            Some(prefix) => permission.starts_with(prefix),
        })
    }

    /// Whether the set holds everything that a role may do.
    #[must_use]
    pub fn covers(&self, role: Role) -> bool {
        role.permissions().0.iter().all(|permission| self.contains(permission))
    }

    /// Those of this set that the other one holds as well. The set must name its permissions one by one, as a role's does.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|name| other.contains(name)).cloned().collect())
    }

    /// The names and patterns, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.0.clone();
        names.sort();
        names
    }
}

/// Whether the text reads `noun.verb`, or with `patterns` also `noun.*`; at most 64 characters.
#[must_use]
pub fn is_permission(text: &str, patterns: bool) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    text.len() <= 64
        && text.split_once('.').is_some_and(|(noun, verb)| word(noun) && (word(verb) || (patterns && verb == "*")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_lower_ones_may_and_more() {
        for pair in Role::ALL.windows(2) {
            let (low, high) = (pair[0].permissions(), pair[1].permissions());
            assert!(low.names().iter().all(|p| high.contains(p)));
            assert!(high.names().len() > low.names().len());
        }
        assert!(!Role::Viewer.permissions().contains("usage.write"));
        assert!(Role::Member.permissions().contains("usage.write"));
        assert!(!Role::Admin.permissions().contains("tenant.delete"));
    }

    #[test]
    fn a_pattern_covers_its_noun_and_nothing_else() {
        let set = Permissions::parse(&["quizzes.*", "members.read"]).unwrap();
        assert!(set.contains("quizzes.mark") && set.contains("members.read"));
        assert!(!set.contains("quizzes") && !set.contains("quizzesx.mark") && !set.contains("members.manage"));
        assert!(Permissions::all().contains("anything.atall"));
        for bad in ["", "x", "x.", ".x", "x.y.z", "X.y", "x.*y", "*.x", "**"] {
            assert!(Permissions::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
