//! Which addresses are the public Internet's, and so may be called because a tenant says so. Everything else could be a
//! neighbour of the server: itself, its cloud's metadata, a database.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// The address that a URL writes out; none when it names a host, whose addresses are looked at when it is looked up.
#[must_use]
pub fn written_out(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
    }
}

/// Whether a tenant's address may be called: it is public, or the operator has allowed its network.
#[must_use]
pub fn may_call(address: IpAddr, allowed: &[IpNet]) -> bool {
    is_allowed(address, allowed) || is_public(address)
}

/// Whether the operator has allowed its network.
#[must_use]
pub fn is_allowed(address: IpAddr, allowed: &[IpNet]) -> bool {
    allowed.iter().any(|network| network.contains(&address.to_canonical()) || network.contains(&address))
}

/// Whether the address is one of the public Internet.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Not what RFC 6890 and its successors keep for special use.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Global unicast (`2000::/3`), without what is written about in books or leads to an IPv4 address by a detour.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let detour = a == 0x2002 || (a == 0x2001 && b < 0x200);
    (0x2000..=0x3fff).contains(&a) && !detour && !(a == 0x2001 && b == 0xdb8) && a != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_may_be_called() {
        for public in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8"]
        {
            assert!(may_call(public.parse().unwrap(), &[]), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
        ] {
            assert!(!may_call(private.parse().unwrap(), &[]), "{private}");
        }
    }

    #[test]
    fn an_operator_allows_networks() {
        let allowed = ["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (address, may) in [("10.1.2.3", true), ("10.2.0.1", false), ("::ffff:10.1.2.3", true), ("fd00::1", true)] {
            assert_eq!(may_call(address.parse().unwrap(), &allowed), may, "{address}");
        }
    }
}
