//! Single sign-on: how members of a tenant sign in through the tenant's own identity provider, and what that may give them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::domain::DomainName;
use super::membership::Authority;
use super::name::Email;
use super::role::{Permissions, Rank, Role, RoleName, Roles};
use crate::time::Timestamp;

/// The feature that a plan must include, where the catalogue has a feature of this name.
pub const FEATURE: &str = "sso";

/// How many scopes, redirect addresses and domains there may be.
pub const MOST: usize = 10;

/// How many groups may stand for roles.
pub const MOST_GROUPS: usize = 100;

/// Bytes of an issuer, a redirect address or a client id.
pub const LONGEST: usize = 500;

/// Bytes of a provider's own name for somebody (OpenID Connect Core, section 2).
const LONGEST_SUBJECT: usize = 255;

/// What a group stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRole {
    /// The group, as the provider writes it.
    pub group: String,
    /// The role.
    pub role: RoleName,
}

/// What a tenant says of its provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The provider's name for itself.
    pub issuer: String,
    /// What the provider knows the product by.
    pub client_id: String,
    /// What is asked for besides `openid`.
    pub scopes: Vec<String>,
    /// Where the provider may send people back to.
    pub redirect_uris: Vec<String>,
    /// The claim that lists a person's groups; empty when roles follow none.
    pub group_claim: String,
    /// What groups stand for.
    pub group_roles: Vec<GroupRole>,
    /// The role of who joins by signing in.
    pub default_role: RoleName,
    /// Domains whose addresses may sign in; all that the tenant has verified when empty.
    pub domains: Vec<DomainName>,
    /// Whether the tenant is entered this way only.
    pub required: bool,
}

impl Terms {
    /// The role that somebody's groups stand for, the highest of several; none when they stand for none.
    #[must_use]
    pub fn role_of<'r>(&self, groups: &[String], roles: &'r Roles) -> Option<&'r Role> {
        let held = self.group_roles.iter().filter(|mapped| groups.contains(&mapped.group));
        held.filter_map(|mapped| roles.get(&mapped.role)).max_by_key(|role| role.rank)
    }

    /// Whether somebody can get this role by signing in.
    #[must_use]
    pub fn gives(&self, role: &RoleName) -> bool {
        self.default_role == *role || self.group_roles.iter().any(|mapped| mapped.role == *role)
    }

    /// Whether the roles of members follow their groups.
    #[must_use]
    pub const fn follows_groups(&self) -> bool {
        !self.group_claim.is_empty() && !self.group_roles.is_empty()
    }

    /// Whether the tenant may vouch for an address: it has verified the domain, and lets it sign in.
    #[must_use]
    pub fn vouches_for(&self, email: &Email, verified: &[DomainName]) -> bool {
        let Some((_, domain)) = email.as_str().rsplit_once('@') else { return false };
        let among = |domains: &[DomainName]| domains.iter().any(|one| one.as_str() == domain);
        among(verified) && (self.domains.is_empty() || among(&self.domains))
    }
}

/// A connection with a provider, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SsoConnection {
    /// Which connection: another one when issuer or client are others, so that old sessions end.
    pub connection_id: Uuid,
    /// What the tenant says.
    pub terms: Terms,
    /// What it may give, and to whom it serves.
    pub ceiling: Ceiling,
    /// Whether there is a client secret.
    pub has_secret: bool,
    /// Rises with each change.
    pub version: i64,
    /// When anything of it last changed.
    pub updated_at: Timestamp,
}

/// What whoever last changed a connection had themselves then: nobody signs in by it who has more, and nobody is given more.
/// Whoever may change settings could otherwise point it to a provider of their own, and come back as an owner. Kept as rank
/// and permissions and not as a role, which the tenant may change or delete.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ceiling {
    /// Their rank; none is below every role.
    pub rank: Option<Rank>,
    /// What they were allowed.
    pub permissions: Permissions,
}

impl Ceiling {
    /// What may be given of these roles.
    #[must_use]
    pub fn in_roles(&self, roles: &Arc<Roles>) -> Authority {
        Authority { rank: self.rank, permissions: self.permissions.clone(), roles: roles.clone() }
    }

    /// The highest of these roles that is within.
    #[must_use]
    pub fn highest<'r>(&self, roles: &'r Arc<Roles>) -> Option<&'r Role> {
        let authority = self.in_roles(roles);
        roles.descending().find(|role| authority.may_give([&role.name]).is_ok())
    }
}

/// What the connection means for who enters the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsoRule {
    /// The connection that there is.
    pub connection_id: Uuid,
    /// Whether the tenant is entered through it only.
    pub required: bool,
}

/// The groups in a claim: a list of texts, or a single one. None where nothing is said, which is not the same as none at all.
#[must_use]
pub fn groups(claim: Option<&serde_json::Value>) -> Option<Vec<String>> {
    match claim {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(one)) => Some(vec![one.clone()]),
        Some(serde_json::Value::Array(list)) => {
            Some(list.iter().filter_map(|one| one.as_str().map(ToOwned::to_owned)).collect())
        }
        Some(_) => Some(Vec::new()),
    }
}

/// Whether a provider's name for somebody can be kept.
#[must_use]
pub fn is_subject(text: &str) -> bool {
    (1..=LONGEST_SUBJECT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// Reads a scope: a word of RFC 6749.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn scope(text: &str) -> Result<String, &'static str> {
    let word = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if word { Ok(text.to_owned()) } else { Err("must be 1 to 100 printable ASCII characters without blanks") }
}

/// Reads a group's name.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn group(text: &str) -> Result<String, &'static str> {
    let good = (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err("must be 1 to 200 characters, without control characters") }
}

/// Reads the name of a claim; empty is none.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn claim(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= 200 && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("must be at most 200 printable ASCII characters without blanks") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn terms() -> Terms {
        let mapped = |group: &str, role: &str| GroupRole { group: group.to_owned(), role: RoleName::new(role) };
        Terms {
            issuer: "https://idp.example.com".to_owned(),
            client_id: "us".to_owned(),
            scopes: Vec::new(),
            redirect_uris: Vec::new(),
            group_claim: "groups".to_owned(),
            group_roles: vec![mapped("staff", "member"), mapped("heads", "manager"), mapped("old", "gone")],
            default_role: RoleName::new("viewer"),
            domains: Vec::new(),
            required: false,
        }
    }

    #[test]
    fn the_highest_of_several_groups_counts_and_a_role_that_is_gone_does_not() {
        let roles = Roles::built_in(&[]);
        let role = |claim: serde_json::Value| {
            terms().role_of(&groups(Some(&claim))?, &roles).map(|role| role.name.as_str().to_owned())
        };
        assert_eq!(role(json!(["staff", "heads"])).as_deref(), Some("manager"));
        assert_eq!(role(json!("staff")).as_deref(), Some("member"));
        assert_eq!(role(json!(["old", "others", 3])), None);
        assert_eq!(role(json!({ "staff": true })), None);
        assert_eq!((groups(None), groups(Some(&json!(null)))), (None, None));
        assert_eq!(groups(Some(&json!([]))), Some(Vec::new()));
    }

    #[test]
    fn a_tenant_vouches_for_its_own_domains_only() {
        let domain = |text: &str| DomainName::parse(text).unwrap();
        let verified = [domain("acme.example.org"), domain("acme.example.net")];
        let vouched = |terms: &Terms, email: &str| terms.vouches_for(&Email::parse(email).unwrap(), &verified);
        let all = terms();
        assert!(vouched(&all, "a@acme.example.org") && vouched(&all, "A@ACME.example.net"));
        for other in
            ["a@example.org", "a@sub.acme.example.org", "a@evilacme.example.org", "a@acme.example.org.evil.net"]
        {
            assert!(!vouched(&all, other), "{other}");
        }
        let one = Terms { domains: vec![domain("acme.example.org"), domain("other.example.org")], ..all };
        assert!(vouched(&one, "a@acme.example.org"));
        assert!(!vouched(&one, "a@acme.example.net") && !vouched(&one, "a@other.example.org"));
    }
}
