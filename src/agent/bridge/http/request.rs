//! A client's request, checked, and made anew for the origin. Pure. Refuses to know rules, connections and bodies.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use http::header::{COOKIE, EXPECT, FORWARDED, HOST, HeaderValue, SEC_WEBSOCKET_KEY, UPGRADE};
pub(super) use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version};
use uuid::Uuid;

use super::headers::{self, TRACESTATE};
use crate::base::code::{Code, Failure};
use crate::base::id::{RequestId, printable};
use crate::rules::http::{Header, List};
use crate::wire::hop::{self, REQUEST_ID, TRACEPARENT};
use crate::wire::trace;

/// What a stream's requests have in common.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Whether a gateway made the requests: then its request ids, `Forwarded` and trace context are believed. Else a client did, of
    /// which only the address is known.
    pub(super) by_gateway: bool,
    /// The client's address.
    pub(super) source: Option<SocketAddr>,
    /// The trace that the stream belongs to.
    pub(super) trace: Option<String>,
}

/// Another protocol for the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Its name, as the client wrote it.
    pub(super) protocol: HeaderValue,
    /// Of a WebSocket: the key that the answer has to prove (RFC 6455, 4.1).
    pub(super) key: Option<HeaderValue>,
}

impl Wish {
    fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }
}

/// Checks what of a head could be read in two ways.
///
/// # Errors
/// `request_invalid`, or `request_denied` for CONNECT.
pub(super) fn check(parts: &Parts) -> Result<(), Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::new(Code::RequestDenied, "CONNECT is never passed on"));
    }
    let one_hop = parts.version < Version::HTTP_2;
    if one_hop && parts.uri.authority().is_some() {
        return Err(invalid("a request to a target names its path alone, not a whole URL"));
    }
    match parts.headers.get_all(HOST).iter().count() {
        0 if parts.version == Version::HTTP_11 => return Err(invalid("no `Host`")),
        0 | 1 => {}
        _ => return Err(invalid("more than one `Host`")),
    }
    hop::check_codings(&parts.headers)?;
    hop::check_connection(&parts.headers)
}

/// The protocol that a request wants its connection to become. HTTP/2 in clear text (`h2c`) is passed over, as any server may.
///
/// # Errors
/// `request_invalid` for one that cannot be.
pub(super) fn wish(parts: &Parts) -> Result<Option<Wish>, Failure> {
    let Some(protocol) = hop::upgrade(parts)? else { return Ok(None) };
    let mut wish = Wish { protocol, key: None };
    if wish.is_websocket() {
        let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
        wish.key = keys.next().cloned();
        if parts.method != Method::GET || wish.key.is_none() || keys.next().is_some() {
            return Err(invalid("a WebSocket begins with GET and one `Sec-WebSocket-Key`"));
        }
    }
    Ok(Some(wish))
}

/// The id under which both ends' logs have a request.
pub(super) fn id(parts: &Parts, caller: &Caller) -> RequestId {
    let told =
        parts.headers.get(REQUEST_ID).filter(|_| caller.by_gateway).and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
    told.and_then(|id| RequestId::from_bytes(id.as_bytes())).unwrap_or_else(RequestId::fresh)
}

/// Makes a client's headers those of our own request to the origin.
pub(super) fn rebuild(
    headers: &mut HeaderMap,
    request: RequestId,
    caller: &Caller,
    wish: Option<&Wish>,
    list: Option<&List<Header>>,
) {
    let forwarded = forwarded(headers, caller);
    let trace = traceparent(headers, request, caller);
    headers::strip_hop_by_hop(headers);
    headers::remove(headers, |name| hop::is_own(name) || hop::is_claim(name));
    let listed = |name: &HeaderName| list.is_some_and(|list| list.contains(name.as_str()));
    headers::remove(headers, |name| hop::is_override(name) && !listed(name));
    headers.remove(HOST);
    headers::keep_listed(headers, list);
    join_cookies(headers);
    if let Some(wish) = wish {
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, wish.protocol.clone());
    }
    if let Some(forwarded) = forwarded {
        headers.insert(FORWARDED, forwarded);
    }
    if let Some(trace) = trace {
        headers.insert(TRACEPARENT, trace);
    }
    let id = HeaderValue::from_str(&request.to_string()).expect("an id is plain text");
    headers.insert(REQUEST_ID, id);
}

/// Whether the client waits for leave to send the body that it has. Takes every other expectation away, which nobody has.
pub(super) fn expects(parts: &mut Parts, has_body: bool) -> bool {
    let leave = parts.headers.get(EXPECT).is_some_and(|what| what.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let expects = leave && has_body && parts.version == Version::HTTP_11;
    if !expects {
        parts.headers.remove(EXPECT);
    }
    expects
}

/// HTTP/2 may send cookies one by one (RFC 9113, 8.2.3); a server of HTTP/1.1 reads one line.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// What the origin is told of the client (RFC 7239, 4): what the gateway says, or what we know of a client of raw bytes.
fn forwarded(headers: &mut HeaderMap, caller: &Caller) -> Option<HeaderValue> {
    if caller.by_gateway {
        return headers.remove(FORWARDED);
    }
    let mut text = match caller.source.map(|source| source.ip().to_canonical()) {
        Some(IpAddr::V4(ip)) => format!("for={ip}"),
        Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
        None => "for=unknown".to_owned(),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(&b);
    if let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| host.bytes().all(plain)) {
        let _ = write!(text, ";host=\"{host}\"");
    }
    text.push_str(";proto=http");
    HeaderValue::from_str(&text).ok()
}

/// The trace that the request belongs to: the client's if it is one, the stream's, or a new one.
fn traceparent(headers: &mut HeaderMap, request: RequestId, caller: &Caller) -> Option<HeaderValue> {
    let mut told = headers.get_all(TRACEPARENT).iter();
    let (first, more) = (told.next(), told.next().is_some());
    if first.filter(|_| !more).and_then(|first| first.to_str().ok()).is_some_and(trace::is_traceparent) {
        return headers.remove(TRACEPARENT);
    }
    headers.remove(TRACESTATE);
    let of_stream = caller.trace.as_deref().filter(|trace| trace::is_traceparent(trace));
    let text = of_stream.map_or_else(|| trace::traceparent(request), str::to_owned);
    HeaderValue::from_str(&text).ok()
}

fn invalid(why: &str) -> Failure {
    Failure::new(Code::RequestInvalid, printable(why, 256))
}

#[cfg(test)]
mod tests;

/// What fuzzers hold a request to: whatever a client writes, what would go on to the origin is one request, made of what was decided about.
///
/// # Panics
/// When that is not so.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn exercise(mut parts: Parts) {
    if let Err(failure) = check(&parts) {
        assert!(matches!(failure.code, Code::RequestInvalid | Code::RequestDenied));
        return;
    }
    let Ok(wish) = wish(&parts) else { return };
    let Some(path) = parts.uri.path_and_query().cloned() else { return };
    if crate::rules::path::Path::parse(path.as_str()).is_err() {
        return;
    }
    let expects = expects(&mut parts, true);
    let (id, caller) = (RequestId::fresh(), Caller { by_gateway: false, source: "192.0.2.1:1".parse().ok(), trace: None });
    rebuild(&mut parts.headers, id, &caller, wish.as_ref(), None);
    let upgrades = |name: &HeaderName| wish.is_some() && (name == UPGRADE || name == http::header::CONNECTION);
    for (name, value) in &parts.headers {
        let trailers = name == http::header::TE && value == "trailers";
        assert!(!hop::is_of_connection(name) || upgrades(name) || trailers, "{name}");
        assert!(!hop::is_own(name) || name == REQUEST_ID, "{name}");
        assert!(!hop::is_claim(name) || name == FORWARDED, "{name}");
        assert!(name != HOST && !hop::is_override(name) && (name != EXPECT || expects), "{name}");
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{name}");
    }
    for only in [REQUEST_ID, FORWARDED, TRACEPARENT] {
        assert_eq!(parts.headers.get_all(&only).iter().count(), 1, "{only}");
    }
}
