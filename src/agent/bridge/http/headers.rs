//! Which headers pass a hop: none that belong to one connection (RFC 9110, 7.6.1), none that each hop writes for itself, and of the others
//! those that a rule lists. Refuses to know requests and answers.

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, EXPECT, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, header};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::rules::http::{Header, List};

/// The request's id, from end to end.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("underpass-request");
/// The code of a refusal.
pub(super) const REFUSAL: HeaderName = HeaderName::from_static("underpass-refusal");
/// Whom hops write for whom (RFC 7239).
pub(super) const FORWARDED: HeaderName = header::FORWARDED;
/// W3C trace context.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The prefix of what only hops of ours say.
const OWN: &str = "underpass-";

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What passes whatever a rule lists: without them a body, a range or a WebSocket would mean something else.
const ALWAYS: [HeaderName; 14] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    EXPECT,
    HOST,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    TE,
    TRAILER,
];

/// What no trailer may say, since who merges trailers into the head would take it for the head's (RFC 9110, 6.5.1).
const NEVER_TRAILERS: [HeaderName; 5] = [HOST, CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, header::AUTHORIZATION];

/// The header fields that `Connection` names, in small letters.
pub(super) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = String> {
    tokens(headers, CONNECTION).map(|token| token.to_ascii_lowercase())
}

/// The entries of a header that is a list.
pub(super) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a client's `Connection` names nothing but what belongs to the connection. Whoever could have any header taken away could
/// have those taken away by which others know who asks.
///
/// # Errors
/// `request_invalid`.
pub(super) fn check_nominated(headers: &HeaderMap) -> Result<(), Failure> {
    let connections = |name: &str| matches!(name, "close") || HOP_BY_HOP.iter().any(|own| own == name);
    match nominated(headers).find(|name| !connections(name) && headers.contains_key(name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let detail = format!("`Connection` names `{}`, which does not belong to a connection", printable(&name, 64));
            Err(Failure::new(Code::RequestInvalid, detail))
        }
    }
}

/// Takes away what belongs to the connection, and what `Connection` names; `TE: trailers` stays, since we understand it.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.contains_key(TE) && tokens(headers, TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<_> = nominated(headers).collect();
        for name in nominated {
            headers.remove(name.as_str());
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes away what only our hops may say.
pub(super) fn strip_own(headers: &mut HeaderMap) {
    remove(headers, |name| name.as_str().starts_with(OWN));
}

/// Takes away what a rule does not list; without a list nothing.
pub(super) fn keep_listed(headers: &mut HeaderMap, list: Option<&List<Header>>) {
    if let Some(list) = list {
        remove(headers, |name| !ALWAYS.contains(name) && !list.contains(name.as_str()));
    }
}

/// The same for trailers, which say nothing about framing, routing and who asks.
pub(super) fn keep_trailers(trailers: &mut HeaderMap, list: Option<&List<Header>>) {
    strip_hop_by_hop(trailers);
    let listed = |name: &HeaderName| list.is_none_or(|list| list.contains(name.as_str()));
    remove(trailers, |name| NEVER_TRAILERS.contains(name) || name.as_str().starts_with(OWN) || !listed(name));
}

/// Takes away each header of which this is so.
pub(super) fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&unwanted) {
        let names: Vec<_> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn e3_what_belongs_to_one_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Once"),
            ("x-once", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
            ("trailer", "x-sum"),
            ("cookie", "a=1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["cookie", "te", "trailer"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn e3_connection_cannot_name_headers_away_that_are_no_connections() {
        for (named, fine) in [
            ("keep-alive, Upgrade", true),
            ("close", true),
            ("x-absent", true),
            ("X-Auth", false),
            ("keep-alive, authorization", false),
            ("cookie", false),
        ] {
            let mut headers = map(&[("x-auth", "1"), ("authorization", "x"), ("cookie", "x"), ("keep-alive", "x")]);
            headers.insert(CONNECTION, HeaderValue::from_static(named));
            assert_eq!(
                check_nominated(&headers).map_err(|failure| failure.code).err(),
                (!fine).then_some(Code::RequestInvalid)
            );
        }
    }

    #[test]
    fn d9_headers_that_a_rule_does_not_list_are_taken_away() {
        let rule: crate::rules::http::Rule =
            serde_json::from_str(r#"{"path": "/", "request_headers": ["Accept", "x-sum"]}"#).unwrap();
        let list = rule.request_headers.as_ref();
        let all = [("accept", "x"), ("cookie", "x"), ("content-type", "x"), ("host", "x"), ("x-sum", "1")];
        let mut headers = map(&all);
        keep_listed(&mut headers, list);
        assert_eq!(names(&headers), ["accept", "content-type", "host", "x-sum"]);
        keep_listed(&mut headers, None);
        assert_eq!(headers.len(), 4);
        let mut trailers = map(&all);
        keep_trailers(&mut trailers, list);
        assert_eq!(names(&trailers), ["accept", "x-sum"]);
    }
}
