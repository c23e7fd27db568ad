//! Where connections come from: allow-lists, and what counts as one source. Refuses to know what they want.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks that may connect; without a list, all may. They are disjoint and in order, so that ten thousand cost no more than a few.
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
        Self(networks.map(|networks| {
            let mut disjoint = IpNet::aggregate(&networks);
            disjoint.sort_by_key(IpNet::network);
            disjoint
        }))
    }

    /// Whether an address may connect. IPv4-mapped addresses count as the IPv4 address that they are.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.as_ref().is_none_or(|networks| {
            let begun = networks.partition_point(|network| network.network() <= ip);
            begun > 0 && networks[begun - 1].contains(&ip)
        })
    }
}

/// What one party can easily take addresses from: a whole IPv6 /64, and one IPv4 address however it is written.
#[must_use]
pub fn network(source: IpAddr) -> IpAddr {
    prefix(source, 64)
}

/// What one party may be given at most: a whole IPv6 /48 (RFC 6177), and one IPv4 address. For shares that many who sit there can do with.
#[must_use]
pub fn site(source: IpAddr) -> IpAddr {
    prefix(source, 48)
}

fn prefix(source: IpAddr, bits: u32) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !(u128::MAX >> bits)).into()),
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

    #[test]
    fn d6_ten_thousand_networks_are_decided_as_if_each_were_asked() {
        // Neighbours, nested ones, single addresses, both families, in no order.
        let mut seed = 4711_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(seed >> 33).unwrap()
        };
        let address = |random: &mut dyn FnMut() -> u32| match random() % 4 {
            0 => IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(random()) << 64).into()),
            _ => IpAddr::V4((0x0a00_0000 | random() & 0x00ff_ffff).into()),
        };
        let networks: Vec<IpNet> = (0..10_000)
            .map(|_| {
                let (least, most) = (14 + u8::try_from(random() % 19).unwrap(), address(&mut random));
                IpNet::new(most, if most.is_ipv6() { least + 32 } else { least }).unwrap().trunc()
            })
            .collect();
        let list = AllowFrom::only(Some(networks.clone()));
        let kept = list.0.as_ref().unwrap();
        assert!(kept.len() < networks.len() && kept.windows(2).all(|pair| pair[0].broadcast() < pair[1].network()));
        for _ in 0..2_000 {
            let ip = address(&mut random);
            assert_eq!(list.admits(ip), networks.iter().any(|network| network.contains(&ip)), "{ip}");
        }
    }
}
