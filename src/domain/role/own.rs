//! Roles that a tenant makes for itself, beside those of the catalogue.
//!
//! The catalogue may change under them, and nothing of it collides: a permission that it no longer has counts for nothing;
//! a role of the catalogue that comes later with the name of an own one is not to be had in that tenant, whose members stay
//! what they are; and an own role never reaches the top, however low that comes to lie.

use serde::{Deserialize, Serialize};

use super::{Permissions, Rank, Role, RoleName, Roles, is_permission};
use crate::domain::id::RoleId;
use crate::time::Timestamp;

/// The most roles that a tenant may have of its own.
pub const MOST_OWN: usize = 50;

/// A tenant's own role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRole {
    /// Its id, new when a name is used again.
    pub role_id: RoleId,
    /// Its name.
    pub name: RoleName,
    /// Where it stands among the tenant's roles.
    pub rank: Rank,
    /// What a member in it may do, permission by permission: patterns were spelt out when it was written, so that a later
    /// catalogue gives nobody more.
    pub permissions: Permissions,
    /// What it is for.
    pub description: String,
    /// Rises with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Reads what an own role may do: at most 200 permissions and patterns, each of which stands for something, spelt out.
///
/// # Errors
/// What is wrong, as a sentence for the field.
pub fn spell_out(names: &[String], known: &Permissions) -> Result<Permissions, String> {
    if names.len() > 200 {
        return Err("must be at most 200".to_owned());
    }
    let known = known.names();
    let mut set = Vec::new();
    for name in names {
        let pattern = Permissions::any_of(&[name]);
        let well_formed = name == "*" || is_permission(name, true);
        let before = set.len();
        set.extend(known.iter().filter(|known| well_formed && pattern.contains(known)).map(String::as_str));
        if set.len() == before {
            return Err("must be permissions that ListPermissions shows, or patterns such as members.* or *".to_owned());
        }
    }
    Ok(Permissions::all().expand(set))
}

impl Roles {
    /// These roles of a catalogue together with a tenant's own. `known` are the permissions that there are.
    #[must_use]
    pub fn with_own(&self, own: &[OwnRole], known: &Permissions) -> Self {
        let top = self.top();
        let own: Vec<Role> = own
            .iter()
            .filter(|role| role.name != top.name)
            .map(|role| Role {
                name: role.name.clone(),
                rank: Rank(role.rank.0.min(top.rank.0 - 1)),
                permissions: role.permissions.within(known),
                own: true,
            })
            .collect();
        let kept = self.ascending.iter().filter(|role| own.iter().all(|other| other.name != role.name)).cloned();
        let mut ascending: Vec<Role> = kept.chain(own.iter().cloned()).collect();
        ascending.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
        Self { ascending, default: self.default.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::role::RoleNames;
    use uuid::Uuid;

    fn own(name: &str, rank: i64, permissions: &[&str]) -> OwnRole {
        OwnRole {
            role_id: RoleId(Uuid::nil()),
            name: RoleName::new(name),
            rank: Rank(rank),
            permissions: Permissions::any_of(permissions),
            description: String::new(),
            version: 1,
            created_at: Timestamp::from_micros(0),
            updated_at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn patterns_are_spelt_out_and_must_stand_for_something() {
        let known = Permissions::any_of(&["members.read", "members.manage", "quizzes.mark"]);
        let read = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            spell_out(&names, &known).map(|set| set.names())
        };
        assert_eq!(read(&["members.*", "members.read"]).unwrap(), ["members.manage", "members.read"]);
        assert_eq!(read(&["*"]).unwrap().len(), 3);
        assert!(read(&[]).unwrap().is_empty());
        for bad in ["", "members", "mem*", "*.read", "usage.correct", "quizzes.eat", "Members.read"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn own_roles_stand_among_those_of_the_catalogue_and_below_the_top() {
        let known = Permissions::any_of(&["members.read", "quizzes.mark"]);
        let own = [
            own("marker", 25, &["quizzes.mark", "quizzes.gone"]),
            own("almighty", 1_000_000, &["members.read"]),
            own("viewer", 45, &[]),
            own("owner", 5, &[]),
        ];
        let roles = Roles::built_in(&[]).with_own(&own, &known);
        let names: Vec<&str> = roles.ascending().map(|role| role.name.as_str()).collect();
        assert_eq!(names, ["member", "marker", "manager", "admin", "viewer", "almighty", "owner"]);
        assert_eq!(roles.top().name.as_str(), "owner");
        assert!(!roles.top().own && roles.top().rank > roles.rank(&RoleName::new("almighty")));
        assert_eq!(roles.below_top().name.as_str(), "admin");
        let both = RoleNames::with(RoleName::new("marker"), [RoleName::new("viewer"), RoleName::new("nobody")]);
        assert_eq!(roles.permissions_of(&both).names(), ["quizzes.mark"]);
        assert_eq!(roles.rank_of(&both), Rank(45));
    }
}
