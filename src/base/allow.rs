//! Where connections come from: allow-lists, and what counts as one source. Refuses to know what they want.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that may connect; without a list, all may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowFrom(Option<Vec<IpNet>>);

impl AllowFrom {
    /// Everybody.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// Nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self(Some(Vec::new()))
    }

    /// These networks alone; `None` for everybody.
    #[must_use]
    pub fn only(networks: Option<Vec<IpNet>>) -> Self {
        Self(networks)
    }

    /// Whether an address may connect. IPv4-mapped addresses count as the IPv4 address that they are.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.as_ref().is_none_or(|networks| networks.iter().any(|network| network.contains(&ip)))
    }
}

/// What one party can easily take addresses from: a whole IPv6 /64, and one IPv4 address however it is written.
#[must_use]
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_admits_its_networks_alone_and_no_list_admits_all() {
        let list = AllowFrom::only(Some(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()]));
        for (ip, admitted) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.0.0.1", false), ("fd00::1", true), ("fd01::1", false)]
        {
            assert_eq!(list.admits(ip.parse().unwrap()), admitted, "{ip}");
        }
        assert!(AllowFrom::all().admits("203.0.113.1".parse().unwrap()));
        assert!(!AllowFrom::nobody().admits("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn one_source_is_one_ipv4_address_or_one_ipv6_network() {
        for (one, other, same) in [
            ("2001:db8::1", "2001:db8::ffff:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            assert_eq!(network(one.parse().unwrap()) == network(other.parse().unwrap()), same, "{one} and {other}");
        }
    }
}
