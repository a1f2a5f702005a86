//! What a host name says about the tenant: a label under the base domain is a slug, another domain may be one that a
//! tenant has proven, and the server's own names, addresses and single labels say nothing.

use std::net::IpAddr;

use super::domain::DomainName;
use super::name::{Slug, TenantName};

/// What a host says about the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostClaim {
    /// Nothing: it is one of the server's own names, or no name at all.
    #[default]
    Nothing,
    /// It should be a tenant's, and can be nobody's.
    Nobody,
    /// It is the tenant's of this name.
    Tenant(TenantName),
    /// It is the tenant's that has proven this domain; nobody's when none has.
    Domain(DomainName),
}

/// The server's own names.
#[derive(Debug, Clone, Default)]
pub struct OwnHosts {
    /// Under which tenants are found by subdomain. Without it hosts claim nothing.
    pub base_domain: Option<String>,
    /// Names that the server itself is reached by, in their plain form.
    pub api: Vec<String>,
}

impl OwnHosts {
    /// What a host in its plain form says about the tenant.
    #[must_use]
    pub fn claim(&self, host: &str) -> HostClaim {
        let Some(base) = &self.base_domain else { return HostClaim::Nothing };
        if host == base || self.api.iter().any(|own| own == host) || is_address(host) || !host.contains('.') {
            return HostClaim::Nothing;
        }
        let Some(label) = below(host, base) else {
            return DomainName::parse(host).map_or(HostClaim::Nobody, HostClaim::Domain);
        };
        match Slug::parse(label) {
            // `api` and the like are no tenant's to take: such hosts are ours.
            Ok(slug) if slug.is_reserved() => HostClaim::Nothing,
            Ok(slug) => HostClaim::Tenant(TenantName::Slug(slug)),
            Err(_) => HostClaim::Nobody,
        }
    }

    /// Reads a domain as a tenant may add it: not one of the server's own, nor a public mail provider's.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the field.
    pub fn choose_domain(&self, text: &str) -> Result<DomainName, &'static str> {
        let domain = DomainName::choose(text)?;
        let own = |name: &str| domain.as_str() == name || below(domain.as_str(), name).is_some();
        if self.base_domain.as_deref().is_some_and(own) || self.api.iter().any(|name| own(name)) {
            return Err("is the server's own, or below it");
        }
        Ok(domain)
    }
}

/// What stands before a domain in a host below it.
fn below<'h>(host: &'h str, domain: &str) -> Option<&'h str> {
    host.strip_suffix(domain)?.strip_suffix('.')
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

/// A host in its plain form: without port and final dot, in lower case. None when it is no host.
#[must_use]
pub fn host_name(text: &str) -> Option<String> {
    let without_port = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    let host = without_port.strip_suffix('.').unwrap_or(without_port).to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    ((1..=253).contains(&host.len()) && host.bytes().all(plain)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnHosts {
        OwnHosts {
            base_domain: Some("example.com".to_owned()),
            api: vec!["tenantry.internal.corp".to_owned(), "grpc.example.org".to_owned()],
        }
    }

    #[test]
    fn a_host_is_compared_in_its_plain_form() {
        assert_eq!(host_name("Acme.Example.COM.:8443").as_deref(), Some("acme.example.com"));
        for bad in ["", ".", "a b", "user@host", &"x".repeat(254)] {
            assert!(host_name(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn our_own_names_addresses_and_single_labels_claim_nothing() {
        let nothing = [
            "example.com",
            "grpc.example.com",
            "tenantry.internal.corp",
            "grpc.example.org",
            "127.0.0.1",
            "[::1]",
            "localhost",
            "tenantry",
        ];
        for host in nothing {
            assert_eq!(own().claim(host), HostClaim::Nothing, "{host}");
        }
        for host in ["acme.example.com", "example.org", "a_b.example.org"] {
            assert_eq!(OwnHosts::default().claim(host), HostClaim::Nothing, "{host}");
        }
    }

    #[test]
    fn every_other_name_is_somebodys_or_nobodys() {
        for nobody in ["a.b.example.com", "xn--x.example.com", "a_b.example.org", "1.2.3", "-.org", "a..org"] {
            assert_eq!(own().claim(nobody), HostClaim::Nobody, "{nobody}");
        }
        assert!(matches!(own().claim("acme.example.com"), HostClaim::Tenant(TenantName::Slug(_))));
        for domain in ["acme.org", "acmeexample.com", "example.org", "other.internal.corp", "www.xn--bcher-kva.example"]
        {
            assert!(matches!(own().claim(domain), HostClaim::Domain(name) if name.as_str() == domain), "{domain}");
        }
    }

    #[test]
    fn the_servers_own_names_are_not_to_be_had() {
        for own_name in
            ["example.com", "acme.example.com", "a.b.example.com", "Grpc.Example.ORG.", "x.grpc.example.org"]
        {
            assert!(own().choose_domain(own_name).is_err(), "{own_name}");
        }
        for free in ["notexample.com", "example.org", "internal.corp"] {
            assert_eq!(own().choose_domain(free).unwrap().as_str(), free);
        }
    }
}
