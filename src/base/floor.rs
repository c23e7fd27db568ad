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
/// loopback unless it is allowed; both also in the IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64, 6to4).
pub fn check(address: IpAddr, allow_loopback: bool) -> Result<(), Code> {
    let address = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let forbidden = match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() || METADATA_V6.contains(&v6),
    };
    if forbidden {
        Err(Code::AddressForbidden)
    } else if address.is_loopback() && !allow_loopback {
        Err(Code::LoopbackForbidden)
    } else {
        Ok(())
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does: `::ffff:0:0/96` (RFC 4291, 2.5.5.2), `::/96` (2.5.5.1, but
/// not `::` and `::1`), `64:ff9b::/96` (RFC 6052), `64:ff9b:1::/48` (RFC 8215, with the /96 form), `2002::/16` (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => last(high, low),
        _ => None,
    }
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
    fn ordinary_addresses_pass() {
        for address in
            ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.64.0.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "fec0::1"]
        {
            assert_eq!(verdict(address), Ok(()), "{address}");
        }
    }
}
