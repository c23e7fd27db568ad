//! Source allow-lists: which addresses may connect. Refuses to know to what.

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
}
