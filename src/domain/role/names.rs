//! The roles of one person: at least one, each once.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RoleName;

/// The most roles that one member may have.
pub const MOST_HELD: usize = 10;

/// The names of a member's roles, sorted: at least one, each once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleNames(Vec<RoleName>);

impl RoleNames {
    /// One role.
    #[must_use]
    pub fn one(name: RoleName) -> Self {
        Self(vec![name])
    }

    /// A role and further ones, in any order, each as often as may be.
    #[must_use]
    pub fn with(first: RoleName, further: impl IntoIterator<Item = RoleName>) -> Self {
        let mut names = vec![first];
        names.extend(further);
        names.sort();
        names.dedup();
        Self(names)
    }

    /// These names; none when there are none.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = RoleName>) -> Option<Self> {
        let mut names = names.into_iter();
        Some(Self::with(names.next()?, names))
    }

    /// Whether the role is one of them.
    #[must_use]
    pub fn contains(&self, name: &RoleName) -> bool {
        self.0.contains(name)
    }

    /// All but one of them; none when nothing is left.
    #[must_use]
    pub fn without(&self, name: &RoleName) -> Option<Self> {
        Self::of(self.iter().filter(|held| *held != name).cloned())
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &RoleName> {
        self.0.iter()
    }

    /// The names as texts, sorted.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.iter().map(|name| name.as_str().to_owned()).collect()
    }
}

impl fmt::Display for RoleNames {
    /// `admin, editor`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(", "))
    }
}
