//! Which addresses downloads may go to: definitions come from strangers, and what a server reaches on its own machine
//! and network is not theirs to read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Result};

/// Which addresses may be connected to. Loopback, private, link-local and other addresses that are not of the public
/// internet are refused unless the host or the address is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    any: bool,
    hosts: Vec<String>,
    networks: Vec<IpNet>,
}

/// An address that the policy refuses, and the host that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedAddress {
    /// The host of the URL.
    pub host: String,
    /// Where it leads.
    pub address: IpAddr,
}

impl fmt::Display for RefusedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leads to {}, which is no public address", self.host, self.address)
    }
}

impl std::error::Error for RefusedAddress {}

impl AddressPolicy {
    /// Everything is allowed: whoever names the address is the operator.
    pub fn allow_any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Allows a host by its name, an address, or a network such as `10.1.0.0/16`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else.
    pub fn allow(&mut self, place: &str) -> Result<()> {
        let plain = place.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = plain.parse::<IpAddr>() {
            self.networks.push(IpNet::from(address));
        } else if let Ok(network) = place.parse::<IpNet>() {
            self.networks.push(network.trunc());
        } else if is_host_name(place) {
            self.hosts.push(host_key(place));
        } else {
            return Err(Error::invalid(format!("{place:?} is no host, address or network")).hint(
                "write a host such as `repo.internal`, an address, or a network such as `10.1.0.0/16`",
            ));
        }
        Ok(())
    }

    /// Whether everything is allowed.
    pub fn allows_any(&self) -> bool {
        self.any
    }

    /// Whether a connection to `address` on behalf of `host` is allowed.
    ///
    /// # Errors
    /// The address that is refused.
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), RefusedAddress> {
        let plain = unmapped(address);
        let allowed = self.any
            || is_public(plain)
            || self.hosts.contains(&host_key(host))
            || self.networks.iter().any(|network| network.contains(&plain) || network.contains(&address));
        if allowed { Ok(()) } else { Err(RefusedAddress { host: host.to_owned(), address }) }
    }
}

fn host_key(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

/// The IPv4 address that an IPv6 address stands for, or the address itself.
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let segments = six.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Mapped, and translated between the families.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        // Tunnelled.
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

/// Whether an address is of the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = (a, b, c) == (192, 0, 0);
    let benchmark = a == 198 && (18..20).contains(&b);
    !(a == 0
        || a >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocols
        || benchmark)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Global unicast is 2000::/3; within it, documentation and Teredo lead nowhere or elsewhere.
    let [first, second, ..] = address.segments();
    (0x2000..0x4000).contains(&first) && (first, second) != (0x2001, 0xdb8) && (first, second) != (0x2001, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass_unless_allowed() {
        let mut policy = AddressPolicy::default();
        let check = |policy: &AddressPolicy, host: &str, address: &str| {
            policy.check(host, address.parse().unwrap()).is_ok()
        };
        for refused in [
            "127.0.0.1",
            "127.8.9.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.5.5",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::7f00:1",
            "fec0::1",
        ] {
            assert!(!check(&policy, "h", refused), "{refused}");
            assert!(check(&AddressPolicy::allow_any(), "h", refused), "{refused}");
        }
        for public in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
        {
            assert!(check(&policy, "h", public), "{public}");
        }
        for place in ["Repo.Internal", "10.1.0.0/16", "[::1]", "127.0.0.2"] {
            policy.allow(place).unwrap();
        }
        for (host, address, allowed) in [
            ("repo.internal.", "192.168.0.1", true),
            ("other", "10.1.2.3", true),
            ("other", "::ffff:10.1.2.3", true),
            ("other", "10.2.0.1", false),
            ("other", "::1", true),
            ("other", "127.0.0.2", true),
            ("other", "127.0.0.1", false),
        ] {
            assert_eq!(check(&policy, host, address), allowed, "{host} {address}");
        }
        for wrong in ["", "a b", "http://x", "10.0.0.0/33", "a..b"] {
            assert!(policy.allow(wrong).is_err(), "{wrong}");
        }
    }
}
