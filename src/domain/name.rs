//! Names that people choose: slugs, e-mail addresses, display names. Each is bounded and in its one written form
//! before anything else sees it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Slugs that nobody may take: names of our own, of infrastructure, and of pages that people trust.
const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "app",
    "apps",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "console",
    "dashboard",
    "default",
    "dev",
    "dns",
    "docs",
    "email",
    "ftp",
    "git",
    "grpc",
    "help",
    "host",
    "hostmaster",
    "imap",
    "internal",
    "invite",
    "localhost",
    "login",
    "logout",
    "mail",
    "media",
    "metrics",
    "mx",
    "news",
    "no-reply",
    "noreply",
    "ns1",
    "ns2",
    "null",
    "oauth",
    "ops",
    "pop",
    "postmaster",
    "private",
    "prod",
    "production",
    "public",
    "register",
    "root",
    "secure",
    "security",
    "settings",
    "shop",
    "sign-in",
    "sign-up",
    "signin",
    "signup",
    "smtp",
    "sso",
    "staging",
    "static",
    "stats",
    "status",
    "store",
    "support",
    "system",
    "tenant",
    "tenantry",
    "tenants",
    "test",
    "undefined",
    "usage",
    "user",
    "users",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

/// A tenant's name in URLs and host names: a lower-case DNS label of 3 to 63 characters (RFC 1035, without the labels
/// that RFC 5891 keeps for internationalised names).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slug(String);

impl Slug {
    /// Reads a slug as it may be looked up: any slug that was ever given out.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !(3..=63).contains(&text.len()) {
            return Err("must be 3 to 63 characters long");
        }
        if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err("may hold only lower-case letters a-z, digits and hyphens");
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err("must begin and end with a letter or digit");
        }
        if text.as_bytes().get(2..4) == Some(b"--") {
            return Err(
                "must not have hyphens in third and fourth place: such labels are kept for international names",
            );
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err("must not be all digits");
        }
        if Uuid::try_parse(text).is_ok() {
            return Err("must not look like a UUID");
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a slug as it may be chosen for a new tenant: reserved names are refused as well.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn choose(text: &str) -> Result<Self, &'static str> {
        let slug = Self::parse(text)?;
        if slug.is_reserved() { Err("is reserved") } else { Ok(slug) }
    }

    /// Whether nobody may take it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED.binary_search(&self.0.as_str()).is_ok()
    }

    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An e-mail address in lower case, at most 254 characters (RFC 5321). Whether mail arrives there is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// What follows the @.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// Reads an address and writes it in lower case.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be an e-mail address such as ann@example.com";
        if text.len() > 254 {
            return Err("must be at most 254 characters long");
        }
        let (local, domain) = text.rsplit_once('@').ok_or(WRONG)?;
        let local_ok = !local.is_empty()
            && local.len() <= 64
            && !local.starts_with('.')
            && !local.ends_with('.')
            && !local.contains("..")
            && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b));
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !local_ok || !domain.contains('.') || !domain.split('.').all(label_ok) {
            return Err(WRONG);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a name that people see: 1 to 200 characters, trimmed, without control characters.
///
/// # Errors
/// What is wrong with it, as a sentence for the field.
pub fn display_name(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 200 {
        return Err("must be 1 to 200 characters long");
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters");
    }
    Ok(text.to_owned())
}

/// A tenant as somebody named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantName {
    /// By id.
    Id(super::id::TenantId),
    /// By slug.
    Slug(Slug),
}

impl TenantName {
    /// Reads an id or slug; what parses as a UUID is an id, so no slug looks like one.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(Self::Id(super::id::TenantId(id)));
        }
        Slug::parse(text).map(Self::Slug).map_err(|_| "must be a tenant's id or slug")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, texts};
    use crate::domain::host::host_name;

    #[test]
    fn reserved_slugs_are_sorted_for_the_binary_search() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn a_slug_is_a_plain_dns_label() {
        for good in ["acme", "a-1", "a1b", "x".repeat(63).as_str()] {
            assert!(Slug::choose(good).is_ok(), "{good}");
        }
        let uuid = "0192d3a4-5b6c-7d8e-9f00-112233445566";
        for bad in ["", "ab", "Acme", "-acme", "acme-", "ac me", "äcme", "xn--abc", "ab--c", "12345", "admin", uuid] {
            assert!(Slug::choose(bad).is_err(), "{bad}");
        }
        assert!(Slug::choose(&"x".repeat(64)).is_err());
    }

    #[test]
    fn a_fuzzed_slug_is_a_label_and_no_id() {
        let longest = "a".repeat(63);
        let own =
            ["acme", "a-b", "a1-b2", "www", "12a", "ab-c", "xn-abc", "0192d3a45b6c7d8e9f00112233445566", &longest];
        fuzz("slug", texts(&own.map(str::to_owned)), |text| {
            let slug = Slug::parse(&text);
            // Whatever is a slug is the name of a tenant and the first label of its host, as it is.
            if let Ok(slug) = &slug {
                prop_assert!(matches!(TenantName::parse(&text), Ok(TenantName::Slug(name)) if name == *slug));
                let host = host_name(&format!("{text}.example.com"));
                prop_assert_eq!(host, Some(format!("{slug}.example.com", slug = slug.as_str())));
                prop_assert!((3..=63).contains(&text.len()) && !text.starts_with("xn--"));
            }
            prop_assert_eq!(Slug::choose(&text).is_ok(), slug.as_ref().is_ok_and(|slug| !slug.is_reserved()));
            Ok(slug.is_ok())
        });
    }

    #[test]
    fn a_fuzzed_address_is_written_in_one_way() {
        let own = ["ann@example.com", "Ann.Lee+x@Example.COM", "a!#$%&'*/=?^_`{|}~@b-c.d"];
        fuzz("e-mail address", texts(&own.map(str::to_owned)), |text| {
            let Ok(email) = Email::parse(&text) else { return Ok(false) };
            prop_assert_eq!(Email::parse(email.as_str()), Ok(email.clone()));
            prop_assert_eq!(email.as_str(), text.to_ascii_lowercase());
            prop_assert!(email.as_str().ends_with(email.domain()) && email.as_str().matches('@').count() == 1);
            Ok(true)
        });
    }

    #[test]
    fn an_address_is_kept_in_lower_case() {
        assert_eq!(Email::parse("Ann.Lee+x@Example.COM").unwrap().as_str(), "ann.lee+x@example.com");
        for bad in ["", "ann", "@example.com", "ann@", "ann@localhost", "a b@example.com", "ann@-x.com", "ann@x..com"] {
            assert!(Email::parse(bad).is_err(), "{bad}");
        }
    }
}
