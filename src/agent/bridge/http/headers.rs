//! Which headers pass a hop: none that belong to one connection (RFC 9110, 7.6.1), none that each hop writes for itself, and of the others
//! those that a rule lists. Refuses to know requests and answers.

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, EXPECT, HOST,
    HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, SET_COOKIE, TE, TRAILER,
};

use crate::rules::http::{Header, List};
use crate::wire::hop::{is_claim, is_of_connection, is_override, is_own, tokens};

/// What belongs to a trace beside its `traceparent`.
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

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
const NEVER_TRAILERS: [HeaderName; 9] =
    [AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE, TE, TRAILER];

/// Takes away what belongs to the connection, and what `Connection` names; `TE: trailers` stays, since we understand it.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let trailers = headers.contains_key(TE) && tokens(headers, TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    if headers.contains_key(CONNECTION) {
        let named: Vec<_> = tokens(headers, CONNECTION).map(str::to_owned).collect();
        for name in named {
            headers.remove(name.as_str());
        }
    }
    remove(headers, is_of_connection);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
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
    remove(trailers, |name| {
        NEVER_TRAILERS.contains(name) || is_own(name) || is_claim(name) || is_override(name) || !listed(name)
    });
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
