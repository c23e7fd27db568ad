//! What clients and balancers say first, over an input. Its first byte says what it is tried as, and how what follows is cut
//! into pieces: what is told must not depend on the cuts. Refuses to know how inputs are found.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

#[cfg(feature = "gateway")]
use bytes::BytesMut;
use proxy_header::{ProxiedAddress, ProxyHeader};

use crate::base::code::{Code, Failure};
use crate::base::id::unprintable;
#[cfg(feature = "gateway")]
use crate::base::limits::MAX_CLIENT_TOKEN;
use crate::base::limits::{CLIENT_HEAD, MAX_DETAIL, PROXY_HEADER};
use crate::base::secret::Secret;
#[cfg(feature = "gateway")]
use crate::gateway::ingress::socks5::{Socks5, Step};
use crate::tunnel::proxy_header::{self as proxy_protocol, Parsed};
use crate::wire::connect;
#[cfg(feature = "gateway")]
use crate::wire::name::host_of;

/// A CONNECT's head, or a gateway's answer.
///
/// # Panics
/// When what is told depends on the cuts, exceeds its limit, shows a token, or is written otherwise than read.
pub fn connect(input: &[u8]) {
    let Some((how, wire)) = input.split_first() else { return };
    if how & 1 == 0 { request(wire, how >> 1) } else { answer(wire, how >> 1) }
}

fn request(wire: &[u8], cuts: u8) {
    let read = |bytes: &[u8]| {
        let simple = |(head, len): (connect::Head, usize)| (head.target, head.login.map(|it| it.expose().to_owned()), len);
        connect::parse(bytes).map(|found| found.map(simple))
    };
    match in_pieces(wire, cuts, read) {
        Ok(None) => assert!(wire.len() < CLIENT_HEAD, "{} bytes are kept", wire.len()),
        Ok(Some((target, login, len))) => {
            assert!(len <= CLIENT_HEAD && wire[..len].ends_with(b"\r\n\r\n"), "a head of {len} bytes");
            let token = Secret::new(login.as_deref().unwrap_or("t0ken"));
            let rendered = connect::request(&target, &token);
            assert_eq!(read(rendered.as_bytes()), Ok(Some((target, Some(token.expose().to_owned()), rendered.len()))));
        }
        Err(failure) => {
            told(&failure, Code::RequestInvalid);
            let text = String::from_utf8_lossy(wire).to_ascii_lowercase();
            let (line, headers) = text.split_once('\n').unwrap_or((&text, ""));
            for credentials in headers.lines().filter_map(|header| header.strip_prefix("proxy-authorization:")) {
                hides(&failure, credentials, line);
            }
        }
    }
}

fn answer(wire: &[u8], cuts: u8) {
    match in_pieces(wire, cuts, connect::answer) {
        Ok(None) => assert!(wire.len() < 2 * CLIENT_HEAD, "{} bytes are kept", wire.len()),
        Ok(Some((len, verdict))) => {
            assert!(len <= 2 * CLIENT_HEAD && len <= wire.len(), "an answer of {len} bytes");
            if let Err(failure) = verdict {
                told(&failure, failure.code);
                let refused = connect::Refused { code: failure.code, detail: Some(&failure.detail), request: None };
                let rendered = connect::refused(&refused);
                assert!(rendered.len() < 2 * CLIENT_HEAD && connect::answer(&rendered).is_ok_and(|found| found.is_some()));
            }
        }
        Err(failure) => told(&failure, Code::ProtocolViolation),
    }
}

/// SOCKS5 with a gateway that knows a token, or none; with a client whose certificate it knows, or not.
///
/// # Panics
/// When what is told depends on the cuts, a target is wanted without a login, more is kept than a message, or a token is shown.
#[cfg(feature = "gateway")]
pub fn socks5(input: &[u8]) {
    let Some((how, wire)) = input.split_first() else { return };
    let (certified, knows) = (how & 1 != 0, how & 2 != 0);
    let whole = Talk::of(certified, knows, [wire]);
    let size = usize::from(how >> 2) % 19 + 1;
    assert_eq!(Talk::of(certified, knows, wire.chunks(size)), whole, "in pieces of {size}");
    if let Some(target) = &whole.target {
        assert!(certified || whole.logins == 1 && knows, "nobody has logged in");
        let (greeting, begin) =
            ([5, 1, 0], [5, 1, 0, 3, u8::try_from(target.len()).expect("a host has 131 characters at most")]);
        let again = [&greeting[..], &begin, target.as_bytes(), &[0, 0]].concat();
        assert_eq!(Talk::of(true, false, [again.as_slice()]).target.as_ref(), Some(target));
    }
}

/// What a client of SOCKS5 gets.
#[cfg(feature = "gateway")]
#[derive(Debug, Default, PartialEq, Eq)]
struct Talk {
    said: Vec<u8>,
    logins: usize,
    target: Option<String>,
    failure: Option<Failure>,
    left: Vec<u8>,
}

#[cfg(feature = "gateway")]
impl Talk {
    fn of<'a>(certified: bool, knows: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut socks, mut bytes, mut talk) = (Socks5::new(certified), BytesMut::new(), Self::default());
        let mut over = false;
        for piece in pieces {
            bytes.extend_from_slice(piece);
            loop {
                match socks.next(&mut bytes) {
                    Ok(None) => break,
                    Ok(Some(Step::Say(said))) => talk.said.extend_from_slice(said),
                    Ok(Some(Step::Login(token))) => {
                        assert!((1..=MAX_CLIENT_TOKEN).contains(&token.expose().len()));
                        talk.logins += 1;
                        talk.said.extend_from_slice(socks.verdict(knows));
                        over |= !knows;
                    }
                    Ok(Some(Step::Wanted(target))) => {
                        assert!(talk.target.replace(host_of(&target)).is_none(), "there is one request");
                        over = true;
                    }
                    Err(refused) => {
                        assert!(!over, "nothing is read after the end");
                        assert!(matches!(refused.failure.code, Code::RequestInvalid | Code::LoginRequired));
                        told(&refused.failure, refused.failure.code);
                        talk.said.extend_from_slice(&refused.say);
                        talk.failure = Some(refused.failure);
                        over = true;
                    }
                }
            }
            assert!(over || bytes.len() < 513, "{} bytes are kept", bytes.len());
        }
        talk.left = bytes.to_vec();
        talk
    }
}

/// A PROXY header.
///
/// # Panics
/// When what is told depends on the cuts, what follows is asked for, a limit is exceeded, or a source is written otherwise than
/// read.
pub fn proxy(input: &[u8]) {
    let Some((how, wire)) = input.split_first() else { return };
    let read = |bytes: &[u8]| match proxy_protocol::parse(bytes)? {
        Parsed::More(_) => Ok(None),
        Parsed::Whole(len, source) => Ok(Some((len, source))),
    };
    let whole = in_pieces(wire, *how, read);
    // As a connection is read: no more than was asked for.
    let mut end = 0;
    while let Ok(Parsed::More(missing)) = proxy_protocol::parse(&wire[..end]) {
        assert!(missing > 0 && end + missing <= PROXY_HEADER, "{missing} bytes more than {end}");
        if end + missing > wire.len() {
            break;
        }
        end += missing;
    }
    match whole {
        Ok(None) => {}
        Ok(Some((len, source))) => {
            assert_eq!(end, len, "what follows is left alone");
            if let Some(source) = source {
                assert_eq!(source.ip(), source.ip().to_canonical());
                assert_eq!(read(&rendered(source)).map(|found| found.and_then(|found| found.1)), Ok(Some(source)));
            }
        }
        Err(failure) => told(&failure, Code::ProxyHeader),
    }
}

fn rendered(source: SocketAddr) -> Vec<u8> {
    let destination = SocketAddr::new(if source.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }, 1);
    let mut bytes = Vec::new();
    let header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
    header.encode_v2(&mut bytes).expect("both addresses are of one family");
    bytes
}

/// What a reader tells of an input, which is the same when it comes in pieces: the first that is not "more".
fn in_pieces<T: Debug + PartialEq>(
    wire: &[u8],
    cuts: u8,
    read: impl Fn(&[u8]) -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let whole = read(wire);
    // A long input in single bytes would only be slow.
    let size = (usize::from(cuts) * 3 + 1).max(wire.len() / 256);
    let ends = (0..wire.len()).step_by(size).chain([wire.len()]);
    let first = ends.map(|end| read(&wire[..end])).find(|told| !matches!(told, Ok(None))).unwrap_or(Ok(None));
    assert_eq!(first, whole, "in pieces of {size}");
    whole
}

/// The longest error in characters: a detail of a gateway, of which each may be written as an escape.
const MAX_TOLD: usize = 10 * MAX_DETAIL + 100;

/// An error is one short line that a log can show, of the code that is meant.
fn told(failure: &Failure, code: Code) {
    assert_eq!(failure.code, code, "{failure}");
    assert!(!failure.detail.contains(unprintable), "{failure:?}");
    assert!(failure.detail.chars().count() < MAX_TOLD, "{failure}");
}

/// What may be a secret is not in an error, unless it was also said where no secret belongs.
fn hides(failure: &Failure, secret: &str, elsewhere: &str) {
    let detail = failure.detail.to_ascii_lowercase();
    for word in secret.split_ascii_whitespace().filter(|word| word.len() >= 16 && word.contains(|c: char| c.is_ascii_digit())) {
        assert!(!detail.contains(word) || elsewhere.contains(word), "{failure}");
    }
}
