//! The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt), as a receiver: who a balancer says its connection is
//! from. It refuses to decide which balancers are believed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::base::code::{Code, Failure, OrFail};
use crate::base::limits::PROXY_HEADER;

/// What a header of version 1 begins with.
const TEXT: &[u8] = b"PROXY ";
/// The shortest of version 1.
const TEXT_MIN: usize = b"PROXY UNKNOWN\r\n".len();
/// The longest.
const TEXT_MAX: usize = 107;
/// What a header of version 2 begins with.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What of version 2 comes before its length counts.
const BINARY_MIN: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header, of which at least so many bytes are missing.
    More(usize),
    /// A whole header: its length in bytes, and whom it names; nobody if the balancer speaks for itself.
    Whole(usize, Option<SocketAddr>),
}

/// Reads a header, and nothing of what follows it. Yields whom the connection is from: the source that it names, or `peer` if
/// it names none (`LOCAL`, `UNKNOWN`). The caller sets a deadline.
///
/// # Errors
/// `proxy_header`, saying why it is none.
pub async fn read(io: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> Result<SocketAddr, Failure> {
    let mut header = Vec::new();
    loop {
        match parse(&header)? {
            Parsed::Whole(_, source) => return Ok(canonical(source.unwrap_or(peer))),
            Parsed::More(missing) => {
                let mut next = (&mut *io).take(missing as u64);
                let read = next.read_buf(&mut header).await.or_fail(Code::ProxyHeader, "reading it")?;
                if read == 0 {
                    return Err(broken(format_args!("the connection ended after {} bytes of it", header.len())));
                }
            }
        }
    }
}

/// Reads a header from the first bytes of a connection.
///
/// # Errors
/// `proxy_header`, at the first byte that cannot be one's.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Failure> {
    let len = if begins(bytes, TEXT) {
        text_len(bytes)?
    } else if begins(bytes, BINARY) {
        binary_len(bytes)?
    } else {
        return Err(broken("the connection begins with something else"));
    };
    let Some(whole) = bytes.get(..len) else { return Ok(Parsed::More(len - bytes.len())) };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(whole, config) {
        Ok((header, parsed)) if parsed == len => Ok(Parsed::Whole(len, source(&header)?)),
        Ok(_) | Err(Error::BufferTooShort) => Err(broken("it ends elsewhere than it says")),
        Err(error) => Err(broken(error)),
    }
}

/// Whether bytes, as far as they go, are the beginning of a header that begins so.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

/// How long a header of version 1 is, or is at least: it ends with its line.
fn text_len(bytes: &[u8]) -> Result<usize, Failure> {
    let window = &bytes[..bytes.len().min(TEXT_MAX)];
    let end = window.iter().position(|byte| *byte == b'\n');
    // Ports are read by a function that takes a sign, too.
    if window[..end.unwrap_or(window.len())].contains(&b'+') {
        return Err(broken("a number has a sign"));
    }
    match end {
        Some(end) => Ok(end + 1),
        None if window.len() == TEXT_MAX => Err(broken(format_args!("its line is longer than {TEXT_MAX} bytes"))),
        None => Ok(TEXT_MIN.max(window.len() + 1)),
    }
}

/// How long a header of version 2 is, or is at least: it says so itself.
fn binary_len(bytes: &[u8]) -> Result<usize, Failure> {
    let Some(fixed) = bytes.first_chunk::<BINARY_MIN>() else { return Ok(BINARY_MIN) };
    let len = BINARY_MIN + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > PROXY_HEADER {
        return Err(broken(format_args!("it has {len} bytes, and {PROXY_HEADER} are taken")));
    }
    Ok(len)
}

fn source(header: &ProxyHeader<'_>) -> Result<Option<SocketAddr>, Failure> {
    match header.proxied_address() {
        Some(named) if named.protocol != Protocol::Stream => Err(broken("it is of a datagram")),
        named => Ok(named.map(|named| canonical(named.source))),
    }
}

/// One address has one spelling in allow-lists and audits: an IPv4 address that is written as IPv6 is an IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port())
}

fn broken(why: impl fmt::Display) -> Failure {
    Failure::new(Code::ProxyHeader, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};
    use tokio::io::AsyncWriteExt;

    use super::*;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 52953 443\r\n";

    fn v2(source: &str, tlvs: Vec<Tlv<'static>>) -> Vec<u8> {
        let source: SocketAddr = source.parse().unwrap();
        let destination = SocketAddr::new(source.ip(), 443);
        let mut bytes = Vec::new();
        let address = ProxiedAddress::stream(source, destination);
        ProxyHeader::with_tlvs(Some(address), tlvs).encode_v2(&mut bytes).unwrap();
        bytes
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        let failure = parse(bytes).unwrap_err();
        assert_eq!(failure.code, Code::ProxyHeader);
        failure.detail
    }

    #[tokio::test]
    async fn f41_a_header_names_the_client_and_what_follows_is_left() {
        let mut local = Vec::new();
        ProxyHeader::with_local().encode_v2(&mut local).unwrap();
        let unix = [BINARY, &[0x21, 0x31, 0, 216], &[b'x'; 216]].concat();
        let some = Tlv::UniqueId(vec![7; 128].into());
        for (header, source) in [
            (V1.to_vec(), "192.0.2.1:52953"),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n".to_vec(), "[2001:db8::1]:1"),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 80 80\r\n".to_vec(), "192.0.2.1:80"),
            (b"PROXY UNKNOWN\r\n".to_vec(), "10.0.0.9:5000"),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "10.0.0.9:5000"),
            (v2("192.0.2.1:52953", vec![]), "192.0.2.1:52953"),
            (v2("[2001:db8::1]:1", vec![some]), "[2001:db8::1]:1"),
            (v2("[::ffff:192.0.2.1]:80", vec![]), "192.0.2.1:80"),
            (local, "10.0.0.9:5000"),
            (unix, "10.0.0.9:5000"),
        ] {
            let (mut near, mut far) = tokio::io::duplex(64 * 1024);
            near.write_all(&[header.as_slice(), b"PROXY early\r\n"].concat()).await.unwrap();
            drop(near);
            assert_eq!(read(&mut far, at("[::ffff:10.0.0.9]:5000")).await.unwrap(), at(source), "{header:?}");
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"PROXY early\r\n");
        }
    }

    #[tokio::test]
    async fn a_header_that_ends_early_is_none() {
        for len in [0, 3, 20] {
            let (mut near, mut far) = tokio::io::duplex(1024);
            near.write_all(&V1[..len]).await.unwrap();
            drop(near);
            let failure = read(&mut far, at("10.0.0.9:5000")).await.unwrap_err();
            assert!(failure.code == Code::ProxyHeader && failure.detail.contains(&format!("after {len} bytes")), "{failure}");
        }
    }

    #[test]
    fn s1_what_is_nearly_a_header_is_none() {
        for text in [
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXYxTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            "PROXY TCP4 0xc0.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 3221225985 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UNKNOWN\n and one more line\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            refusal(text.as_bytes());
        }
        for (fixed, why) in [
            (&[0x11, 0x11, 0, 12][..], "version 1"),
            (&[0x22, 0x11, 0, 12], "an unknown command"),
            (&[0x21, 0x11, 0, 11], "no room for addresses"),
            (&[0x21, 0x21, 0, 35], "no room for addresses of IPv6"),
            (&[0x21, 0x31, 0, 215], "no room for those of Unix sockets"),
            (&[0x21, 0x12, 0, 12], "a datagram"),
            (&[0x21, 0x22, 0, 36], "a datagram of IPv6"),
            (&[0x21, 0x41, 0, 12], "an unknown family"),
            (&[0x21, 0x11, 0xff, 0xff], "65535 bytes"),
        ] {
            let bytes = [BINARY, fixed, &[0; 512]].concat();
            assert!(parse(&bytes).is_err(), "{why}");
        }
    }

    #[test]
    fn d2_a_header_has_a_limit_and_is_refused_by_its_length_alone() {
        let longest = v2("192.0.2.1:1", vec![Tlv::Noop(PROXY_HEADER - 16 - 12 - 3)]);
        assert_eq!(longest.len(), PROXY_HEADER);
        assert_eq!(parse(&longest).unwrap(), Parsed::Whole(PROXY_HEADER, Some(at("192.0.2.1:1"))));
        let longer = v2("192.0.2.1:1", vec![Tlv::Noop(PROXY_HEADER - 16 - 12 - 2)]);
        assert!(refusal(&longer[..16]).contains("2049 bytes"));
        let line = format!("PROXY UNKNOWN {}", "x".repeat(TEXT_MAX));
        assert_eq!(parse(&line.as_bytes()[..TEXT_MAX - 1]).unwrap(), Parsed::More(1));
        assert!(refusal(line.as_bytes()).contains("longer than 107"));
        assert_eq!(refusal(&line.as_bytes()[..TEXT_MAX]), refusal(line.as_bytes()));
    }

    #[test]
    fn what_cannot_be_a_header_is_refused_at_its_first_byte_that_differs() {
        for (whole, at) in [(V1, 4), (V1, 5), (BINARY, 0), (BINARY, 11)] {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            assert!(refusal(&bytes[..=at]).contains("something else"));
            assert!(at == 0 || matches!(parse(&bytes[..at]), Ok(Parsed::More(_))));
        }
    }

    /// Bytes that are nearly headers.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            b"PROXY ".to_vec(),
            b"UNKNOWN".to_vec(),
            b"TCP4 192.0.2.1 192.0.2.2 1 2".to_vec(),
            b"TCP6 ::1 ::1 1 2".to_vec(),
            b"\r\n".to_vec(),
            b"\n".to_vec(),
            b"+".to_vec(),
            vec![b'x'; 60],
            BINARY.to_vec(),
            vec![0x21, 0x11, 0, 12],
            vec![0x20, 0, 0, 0],
            vec![1; 12],
            V1.to_vec(),
            v2("[2001:db8::1]:1", vec![]),
        ]);
        prop::collection::vec(word, 0..6).prop_map(|words| words.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn cuts_do_not_change_what_is_read(bytes in nearly()) {
            let whole = parse(&bytes);
            let first = (0..=bytes.len()).map(|end| parse(&bytes[..end])).find(|told| !matches!(told, Ok(Parsed::More(_))));
            match &whole {
                Ok(Parsed::More(missing)) => prop_assert!(first.is_none() && *missing > 0),
                told => prop_assert_eq!(first.as_ref(), Some(told)),
            }
            if let Ok(Parsed::Whole(len, _)) = whole {
                prop_assert!(len <= PROXY_HEADER && len <= bytes.len());
                for end in 0..len {
                    let Ok(Parsed::More(missing)) = parse(&bytes[..end]) else { panic!("{end} of {len}") };
                    prop_assert!(end + missing <= len, "nothing of what follows is asked for");
                }
            }
        }
    }
}
