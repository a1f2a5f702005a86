//! Roles and permissions: who outranks whom, and what each may do. Which roles there are is the catalogue's to say; the
//! built-in ones are used when it says nothing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod names;
mod own;
mod words;

pub use names::{MOST_HELD, RoleNames};
pub use own::{MOST_OWN, OwnRole, spell_out};
pub use words::words;

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

/// The built-in roles, lowest first, with what each adds to the one below.
const BUILT_IN: [(&str, &[&str]); 5] =
    [("viewer", VIEWER), ("member", MEMBER), ("manager", MANAGER), ("admin", ADMIN), ("owner", OWNER)];

/// Permissions that are never a member's, whatever their role: payments and corrections are for services and operators.
const FOR_SERVICES: &[&str] = &["billing.record", "catalogue.read", "usage.correct"];

/// All permissions that tenantry's own methods ask of members.
pub fn own_permissions() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().flat_map(|(_, names)| names.iter().copied())
}

/// Whether a permission is for services and operators alone.
#[must_use]
pub fn is_for_services(permission: &str) -> bool {
    FOR_SERVICES.contains(&permission)
}

/// A role's name, as rows and requests hold it: 1 to 64 of a-z, 0-9 and _, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoleName(String);

impl RoleName {
    /// Takes a name that was read from a row or a checked catalogue.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands above what. A greater rank may touch a lesser or equal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rank(pub i64);

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// Where it stands.
    pub rank: Rank,
    /// What a member in it may do, permission by permission.
    pub permissions: Permissions,
    /// Whether the tenant made it for itself; otherwise it is the catalogue's.
    pub own: bool,
}

/// The roles of a product, or of a tenant of it with its own: at least one, lowest first. The highest is the top role, which
/// a tenant never goes without, and is alone at its rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    ascending: Vec<Role>,
    default: Option<RoleName>,
}

impl Roles {
    /// Takes checked roles in any order. `default` is the role of a new member when nobody says.
    ///
    /// # Errors
    /// When there are none, or two have the same rank.
    pub fn new(mut roles: Vec<Role>, default: Option<RoleName>) -> Result<Self, String> {
        roles.sort_by_key(|role| role.rank);
        if let Some(pair) = roles.windows(2).find(|pair| pair[0].rank == pair[1].rank) {
            return Err(format!("{} and {} have the same rank", pair[0].name, pair[1].name));
        }
        if roles.is_empty() {
            return Err("there must be at least one role".to_owned());
        }
        Ok(Self { ascending: roles, default })
    }

    /// `owner`, `admin`, `manager`, `member` and `viewer`. `product` are permissions of the product, which the upper three
    /// and members have.
    #[must_use]
    pub fn built_in(product: &[String]) -> Self {
        let mut held: Vec<String> = Vec::new();
        let mut ascending = Vec::new();
        for (step, (name, adds)) in (1_i64..).zip(BUILT_IN) {
            held.extend(adds.iter().map(|&permission| permission.to_owned()));
            if name == "member" {
                held.extend(product.iter().cloned());
            }
            let mut names = held.clone();
            names.sort();
            let permissions = Permissions::from(names);
            ascending.push(Role { name: RoleName::new(name), rank: Rank(step * 10), permissions, own: false });
        }
        Self { ascending, default: Some(RoleName::new("member")) }
    }

    /// The role of this name.
    #[must_use]
    pub fn get(&self, name: &RoleName) -> Option<&Role> {
        self.ascending.iter().find(|role| role.name == *name)
    }

    /// Reads a role's name.
    ///
    /// # Errors
    /// Which names there are, as a sentence for the field.
    pub fn parse(&self, name: &str) -> Result<&Role, String> {
        self.ascending.iter().find(|role| role.name.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = self.descending().map(|role| role.name.as_str()).collect();
            format!("must be one of {}", names.join(", "))
        })
    }

    /// All roles, lowest first.
    pub fn ascending(&self) -> impl Iterator<Item = &Role> {
        self.ascending.iter()
    }

    /// All roles, highest first.
    pub fn descending(&self) -> impl Iterator<Item = &Role> {
        self.ascending.iter().rev()
    }

    /// The role that the last-owner rules protect.
    ///
    /// # Panics
    /// Never: `new` takes no empty list.
    #[must_use]
    pub fn top(&self) -> &Role {
        &self.ascending[self.ascending.len() - 1]
    }

    /// The catalogue's highest role below the top; the top itself when it is the only one. What an owner becomes who gives
    /// the tenant away.
    #[must_use]
    pub fn below_top(&self) -> &Role {
        self.descending().skip(1).find(|role| !role.own).unwrap_or_else(|| self.top())
    }

    /// The role of a new member when nobody says.
    #[must_use]
    pub fn default(&self) -> Option<&Role> {
        self.default.as_ref().and_then(|name| self.get(name))
    }

    /// Where a name stands; below every role when there is none of this name.
    #[must_use]
    pub fn rank(&self, name: &RoleName) -> Rank {
        self.get(name).map_or(Rank(i64::MIN), |role| role.rank)
    }

    /// Where somebody with these roles stands: at the highest of them.
    #[must_use]
    pub fn rank_of(&self, names: &RoleNames) -> Rank {
        names.iter().map(|name| self.rank(name)).max().unwrap_or(Rank(i64::MIN))
    }

    /// What somebody with these roles may do: all that any of them may. A name that there is no role of counts for nothing.
    #[must_use]
    pub fn permissions_of(&self, names: &RoleNames) -> Permissions {
        let mut held = names.iter().filter_map(|name| self.get(name));
        if names.iter().count() == 1 {
            return held.next().map(|role| role.permissions.clone()).unwrap_or_default();
        }
        let mut set: Vec<String> = held.flat_map(|role| role.permissions.0.iter().cloned()).collect();
        set.sort();
        set.dedup();
        Permissions::from(set)
    }

    /// Reads the roles of one person: 1 to 10.
    ///
    /// # Errors
    /// What is wrong, as a sentence for the field.
    pub fn parse_all<S: AsRef<str>>(&self, names: &[S]) -> Result<RoleNames, String> {
        if names.len() > MOST_HELD {
            return Err(format!("must be 1 to {MOST_HELD} roles"));
        }
        let read: Result<Vec<RoleName>, String> =
            names.iter().map(|name| self.parse(name.as_ref()).map(|role| role.name.clone())).collect();
        RoleNames::of(read?).ok_or_else(|| format!("must be 1 to {MOST_HELD} roles"))
    }
}

/// A set of permissions, in which `quizzes.*` stands for every verb of a noun and `*` for everything.
/// Shared: each call is decided with one that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Permissions(Arc<[String]>);

impl From<Vec<String>> for Permissions {
    fn from(names: Vec<String>) -> Self {
        Self(names.into())
    }
}

impl From<Permissions> for Vec<String> {
    fn from(permissions: Permissions) -> Self {
        permissions.0.to_vec()
    }
}

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
        Ok(Self::from(set))
    }

    /// Names and patterns that were checked one by one.
    #[must_use]
    pub fn any_of(names: &[&str]) -> Self {
        Self(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// Everything: what operators have.
    #[must_use]
    pub fn all() -> Self {
        Self::from(vec!["*".to_owned()])
    }

    /// Those of `known` that the patterns of this set stand for, one by one: what a role holds.
    #[must_use]
    pub fn expand<'k>(&self, known: impl IntoIterator<Item = &'k str>) -> Self {
        let mut set: Vec<String> =
            known.into_iter().filter(|name| self.contains(name)).map(ToOwned::to_owned).collect();
        set.sort();
        set.dedup();
        Self::from(set)
    }

    /// Whether the set holds the permission.
    #[must_use]
    pub fn contains(&self, permission: &str) -> bool {
        self.0.iter().any(|held| match held.strip_suffix('*') {
            Some(prefix) => permission.starts_with(prefix),
            None => held == permission,
        })
    }

    /// The first of this set, a name or pattern, that the other one does not hold; none when it holds all. A pattern is held
    /// by the same pattern or by a wider one.
    #[must_use]
    pub fn first_beyond<'s>(&'s self, other: &Self) -> Option<&'s str> {
        self.0.iter().map(String::as_str).find(|name| !other.contains(name))
    }

    /// Whether the set holds all that another does, which names its permissions one by one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|permission| self.contains(permission))
    }

    /// Those of this set that the other one lacks. The set must name its permissions one by one.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Vec<String> {
        self.0.iter().filter(|name| !other.contains(name)).cloned().collect()
    }

    /// Those of this set that the other one holds as well. The set must name its permissions one by one, as a role's does.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|name| other.contains(name)).cloned().collect())
    }

    /// The names and patterns, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.0.to_vec();
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
    fn each_built_in_role_may_do_what_the_lower_ones_may_and_more() {
        let roles = Roles::built_in(&["quizzes.mark".to_owned()]);
        for pair in roles.ascending.windows(2) {
            let (low, high) = (&pair[0].permissions, &pair[1].permissions);
            assert!(low.names().iter().all(|p| high.contains(p)));
            assert!(high.names().len() > low.names().len());
        }
        let of = |name: &str| roles.permissions_of(&RoleNames::one(RoleName::new(name)));
        assert!(!of("viewer").contains("usage.write") && !of("viewer").contains("quizzes.mark"));
        assert!(of("member").contains("usage.write") && of("member").contains("quizzes.mark"));
        assert!(!of("admin").contains("tenant.delete"));
        assert_eq!(roles.top().name.as_str(), "owner");
        assert_eq!(roles.below_top().name.as_str(), "admin");
        assert!(own_permissions().all(|permission| !is_for_services(permission)));
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
