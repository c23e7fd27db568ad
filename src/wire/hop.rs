//! Which HTTP headers belong to one connection, and which to a hop of ours: what gateway and agent both take away before they write their
//! own (RFC 9110, 7.6). Refuses to know requests, answers and rules.

use std::borrow::Cow;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Version};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;

/// How an HTTP/2 connection begins (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request's id, from end to end.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("underpass-request");
/// The code of a refusal.
pub const REFUSAL: HeaderName = HeaderName::from_static("underpass-refusal");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Whether a header belongs to the connection that it came on. `Trailer` does not: what it announces passes.
#[must_use]
pub fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether only hops of ours may say it.
#[must_use]
pub fn is_own(name: &HeaderName) -> bool {
    dashed(name).starts_with("underpass-")
}

/// Whether it says where a request comes from, which nobody believes of a client.
#[must_use]
pub fn is_claim(name: &HeaderName) -> bool {
    let name = dashed(name);
    matches!(&*name, "forwarded" | "x-real-ip" | "x-client-ip" | "true-client-ip" | "x-cluster-client-ip")
        || name.starts_with("x-forwarded")
}

/// Whether some servers believe it more than the request line: what was decided about would not be what is done.
#[must_use]
pub fn is_override(name: &HeaderName) -> bool {
    matches!(
        &*dashed(name),
        "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-original-method"
    )
}

/// A name as servers read it that know no difference between `_` and `-` (RFC 3875, 4.1.18).
fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) }
}

/// The entries of a header that is a list.
pub fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Whether `Connection` names an option.
#[must_use]
pub fn connection_has(headers: &HeaderMap, option: &str) -> bool {
    tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(option))
}

/// Whether `Connection` names nothing but what belongs to the connection. Whoever could have any header taken away could have those
/// taken away by which others know who asks.
///
/// # Errors
/// `request_invalid`.
pub fn check_connection(headers: &HeaderMap) -> Result<(), Failure> {
    let wrong = |token: &&str| {
        let name = HeaderName::from_bytes(token.as_bytes());
        name.is_ok_and(|name| name.as_str() != "close" && !is_of_connection(&name) && headers.contains_key(name))
    };
    match tokens(headers, CONNECTION).find(wrong) {
        None => Ok(()),
        Some(name) => {
            let detail = format!("`Connection` names `{}`, which does not belong to a connection", printable(name, 64));
            Err(Failure::new(Code::RequestInvalid, detail))
        }
    }
}

/// Checks that a message says in one way where its body ends.
///
/// # Errors
/// `request_invalid`.
pub fn check_codings(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|coding| !plain(coding)) || codings.next().is_some() {
        return Err(invalid("of transfer codings only `chunked`, once, is understood"));
    }
    Ok(())
}

/// The protocol that a request wants its connection to become. HTTP/2 in clear text (`h2c`) is passed over, as any server may.
///
/// # Errors
/// `request_invalid` for more than one, or one with a body.
pub fn upgrade(parts: &Parts) -> Result<Option<HeaderValue>, Failure> {
    if parts.version != Version::HTTP_11 || !connection_has(&parts.headers, "upgrade") {
        return Ok(None);
    }
    let mut wanted = tokens(&parts.headers, UPGRADE).filter(|protocol| !protocol.eq_ignore_ascii_case("h2c"));
    let Some(protocol) = wanted.next() else { return Ok(None) };
    if wanted.next().is_some() {
        return Err(invalid("an upgrade to more than one protocol"));
    }
    let empty = parts.headers.get(CONTENT_LENGTH).is_none_or(|length| length.as_bytes() == b"0");
    if parts.headers.contains_key(TRANSFER_ENCODING) || !empty {
        return Err(invalid("an upgrade with a body"));
    }
    HeaderValue::from_str(protocol).map(Some).map_err(|_| invalid("the protocol of an upgrade"))
}

fn invalid(why: &str) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
            let mut headers = HeaderMap::new();
            for name in ["x-auth", "authorization", "cookie", "keep-alive"] {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
            }
            headers.insert(CONNECTION, HeaderValue::from_static(named));
            let refused = check_connection(&headers).map_err(|failure| failure.code).err();
            assert_eq!(refused, (!fine).then_some(Code::RequestInvalid), "{named}");
        }
    }

    #[test]
    fn e3_each_header_is_of_one_kind() {
        let kinds = |name: &'static str| {
            let name = HeaderName::from_static(name);
            (is_of_connection(&name), is_own(&name), is_claim(&name))
        };
        for name in ["connection", "te", "upgrade", "transfer-encoding", "proxy-authorization", "keep-alive"] {
            assert_eq!(kinds(name), (true, false, false), "{name}");
        }
        for name in ["underpass-request", "underpass-anything"] {
            assert_eq!(kinds(name), (false, true, false), "{name}");
        }
        for name in ["forwarded", "x-forwarded-for", "x-forwarded-anything", "x-real-ip"] {
            assert_eq!(kinds(name), (false, false, true), "{name}");
        }
        for name in ["trailer", "cookie", "authorization", "content-length", "expect"] {
            assert_eq!(kinds(name), (false, false, false), "{name}");
        }
    }
}
