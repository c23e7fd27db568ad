//! Addresses that are never dialled, whoever asks: what a permitted name must not turn into. Refuses to know names and targets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::code::Code;

/// Metadata services that are not link-local: Alibaba, Oracle, Azure's wire server.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];

/// The same of AWS and Google in IPv6.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Whether an address may be dialled.
///
/// # Errors
/// `address_forbidden` for link-local, metadata, multicast, broadcast and unspecified addresses, `loopback_forbidden` for
/// loopback unless it is allowed; both also in the IPv6 forms that carry an IPv4 address.
pub fn check(address: IpAddr, allow_loopback: bool) -> Result<(), Code> {
    let mut loopback = false;
    for meaning in meanings(address) {
        if forbidden(meaning) {
            return Err(Code::AddressForbidden);
        }
        loopback |= meaning.is_loopback();
    }
    if loopback && !allow_loopback { Err(Code::LoopbackForbidden) } else { Ok(()) }
}

/// Whether an address is one of a site's own, that the internet does not lead to: loopback, private (RFC 1918, RFC 4193),
/// shared (RFC 6598), in whatever form.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    meanings(address).any(|meaning| match meaning {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    })
}

fn forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() || METADATA_V6.contains(&v6),
    }
}

/// An address and every IPv4 address that it embeds: IPv4-mapped and -compatible (RFC 4291, 2.5.5), NAT64 (RFC 6052 and
/// RFC 8215), 6to4 (RFC 3056).
fn meanings(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let v4 = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    let embedded = match address {
        IpAddr::V4(_) => [None; 2],
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 2],
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [v4(high, low), None],
            // The local-use prefix allows several lengths: read as /96 and as /48, whose octet 8 is skipped.
            [0x64, 0xff9b, 1, high, mid, rest, a, b] => [v4(a, b), v4(high, ((mid & 0xff) << 8) | (rest >> 8))],
            [0x2002, high, low, ..] => [v4(high, low), None],
            _ => [None; 2],
        },
    };
    std::iter::once(address).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(address: &str) -> Result<(), Code> {
        check(address.parse().unwrap(), false)
    }

    #[test]
    fn e1_forbidden_addresses_are_refused_in_every_form() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "64:ff9b:1:a9fe:a9:fe00::",
            "::ffff:255.255.255.255",
        ] {
            assert_eq!(verdict(address), Err(Code::AddressForbidden), "{address}");
            assert_eq!(check(address.parse().unwrap(), true), Err(Code::AddressForbidden), "{address}");
        }
    }

    #[test]
    fn e1_loopback_needs_to_be_allowed_in_every_form() {
        for address in ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "::127.0.0.1"] {
            assert_eq!(verdict(address), Err(Code::LoopbackForbidden), "{address}");
            assert_eq!(check(address.parse().unwrap(), true), Ok(()), "{address}");
        }
    }

    #[test]
    fn e1_a_sites_own_addresses_are_known_in_every_form() {
        let private = |address: &str| is_private(address.parse().unwrap());
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "172.31.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
        ] {
            assert!(private(address), "{address}");
        }
        for address in ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(!private(address), "{address}");
        }
    }

    #[test]
    fn ordinary_addresses_pass() {
        for address in
            ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.64.0.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "fec0::1"]
        {
            assert_eq!(verdict(address), Ok(()), "{address}");
        }
    }
}
