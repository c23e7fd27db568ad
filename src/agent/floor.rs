//! The floor under every configuration: addresses that are never dialled, whatever a name resolves to. Pure.
//! It refuses to resolve and to know targets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::code::Code;
use crate::wire::refusal::Refusal;

/// An address that passed; made here alone, and the only thing that the bridge connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked(SocketAddr);

impl Checked {
    /// The address.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.0
    }
}

/// The rules, and this process's own listeners, which must not be reached through itself.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    own: Vec<SocketAddr>,
}

/// Addresses of cloud metadata services outside the link-local range: AWS, Google and Alibaba, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

impl Floor {
    /// A floor that also keeps streams away from this process's own listeners.
    #[must_use]
    pub fn new(own: Vec<SocketAddr>) -> Self {
        Self { own }
    }

    /// Checks one address that is about to be connected to.
    ///
    /// # Errors
    /// `address_forbidden` or `loopback_forbidden`, naming the address.
    pub fn check(&self, address: SocketAddr, allow_loopback: bool) -> Result<Checked, Refusal> {
        for ip in meanings(address.ip()) {
            if let Some(what) = forbidden(ip) {
                return Err(Refusal::new(Code::AddressForbidden, format_args!("{} is {what}", address.ip())));
            }
            if ip.is_loopback() {
                if !allow_loopback {
                    return Err(Refusal::new(Code::LoopbackForbidden, format_args!("{} is this host", address.ip())));
                }
                if self.own.iter().any(|own| own.port() == address.port()) {
                    return Err(Refusal::new(Code::AddressForbidden, format_args!("{address} is the agent's own listener")));
                }
            }
        }
        Ok(Checked(address))
    }
}

/// An address and every IPv4 address that it embeds: IPv4-mapped and -compatible (RFC 4291), NAT64 (RFC 6052 and 8215),
/// 6to4 (RFC 3056).
fn meanings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let embedded = match ip {
        IpAddr::V4(_) => [None; 2],
        IpAddr::V6(v6) => {
            let s = v6.segments();
            let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
            match s {
                [0, 0, 0, 0, 0, 0xffff, high, low] => [v4(high, low), None],
                [0, 0, 0, 0, 0, 0, high, low] if high != 0 => [v4(high, low), None],
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [v4(high, low), None],
                // The local-use prefix allows several lengths: read it as /96 and as /48 (whose octet 8 is skipped).
                [0x64, 0xff9b, 1, high, mid, rest, a, b] => [v4(a, b), v4(high, ((mid & 0xff) << 8) | (rest >> 8))],
                [0x2002, high, low, ..] => [v4(high, low), None],
                _ => [None; 2],
            }
        }
    };
    std::iter::once(ip).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

fn forbidden(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(ip) if ip.is_link_local() => Some("link-local, where metadata services live"),
        IpAddr::V4(ip) if ip.is_multicast() => Some("multicast"),
        IpAddr::V4(ip) if ip.octets()[0] >= 240 => Some("broadcast or reserved"),
        IpAddr::V4(ip) if METADATA_V4.contains(&ip) => Some("a metadata service"),
        IpAddr::V6(ip) if ip.is_unspecified() => Some("unspecified"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(ip) if ip.is_multicast() => Some("multicast"),
        IpAddr::V6(ip) if METADATA_V6.contains(&ip) => Some("a metadata service"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ip: &str, loopback: bool) -> Result<Checked, Code> {
        Floor::new(vec!["127.0.0.1:9464".parse().unwrap()])
            .check(SocketAddr::new(ip.parse().unwrap(), 80), loopback)
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn e1_the_floor_holds_in_every_spelling_and_cannot_be_opened() {
        for ip in [
            "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1", "::169.254.169.254", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16",
            "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1", "::ffff:0.0.0.0",
            "::ffff:255.255.255.255", "64:ff9b::6464:64c8",
        ] {
            assert_eq!(check(ip, true), Err(Code::AddressForbidden), "{ip}");
        }
    }

    #[test]
    fn e1_loopback_needs_leave_in_every_spelling() {
        for ip in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"] {
            assert_eq!(check(ip, false), Err(Code::LoopbackForbidden), "{ip}");
            assert!(check(ip, true).is_ok(), "{ip}");
        }
    }

    #[test]
    fn e1_the_agents_own_listeners_are_no_targets() {
        let floor = Floor::new(vec!["127.0.0.1:9464".parse().unwrap()]);
        for own in ["127.0.0.1:9464", "[::1]:9464", "127.9.9.9:9464"] {
            assert_eq!(floor.check(own.parse().unwrap(), true).unwrap_err().code, Code::AddressForbidden);
        }
    }

    #[test]
    fn ordinary_addresses_pass_and_come_out_as_they_went_in() {
        for ip in ["10.0.0.1", "192.168.1.1", "172.16.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "100.64.0.1"] {
            assert_eq!(check(ip, false).unwrap().address().ip(), ip.parse::<IpAddr>().unwrap());
        }
    }
}
