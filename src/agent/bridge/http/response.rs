//! An origin's answer on its way to the client, and the answers of our own. Pure. Refuses to know connections and bodies.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, Response};

use super::headers;
use super::request::Wish;
use crate::base::code::{Code, Failure};
use crate::base::id::RequestId;
use crate::rules::http::{Header, List};
use crate::wire::hop::{self, REFUSAL, REQUEST_ID};
use crate::wire::problem::{self, Problem, status};

/// What is hashed behind a WebSocket's key (RFC 6455, 1.3).
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes an origin's headers those of our own answer.
pub(super) fn rebuild(headers: &mut HeaderMap, list: Option<&List<Header>>) {
    headers::strip_hop_by_hop(headers);
    headers::remove(headers, hop::is_own);
    headers::keep_listed(headers, list);
}

/// Makes a 101 our own if it is the answer to what was wished; anything else would have bytes read as what they are not.
///
/// # Errors
/// `response_invalid`.
pub(super) fn switch(parts: &mut Parts, wish: &Wish, list: Option<&List<Header>>) -> Result<(), Failure> {
    check_switch(&parts.headers, wish).map_err(|why| Failure::new(Code::ResponseInvalid, why))?;
    rebuild(&mut parts.headers, list);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, wish.protocol.clone());
    Ok(())
}

fn check_switch(headers: &HeaderMap, wish: &Wish) -> Result<(), &'static str> {
    let upgrades = hop::connection_has(headers, "upgrade");
    let mut protocols = hop::tokens(headers, UPGRADE);
    let same = |protocol: &str| protocol.as_bytes().eq_ignore_ascii_case(wish.protocol.as_bytes());
    if !upgrades || !protocols.next().is_some_and(same) || protocols.next().is_some() {
        return Err("its 101 is for another protocol than the one that was wished for");
    }
    let Some(key) = &wish.key else { return Ok(()) };
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let right = accepts.next().is_some_and(|accept| accept.as_bytes() == accept_of(key).as_bytes());
    if right && accepts.next().is_none() { Ok(()) } else { Err("its 101 has the wrong `Sec-WebSocket-Accept`") }
}

/// What proves that a key was read (RFC 6455, 4.2.2).
fn accept_of(key: &HeaderValue) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), WEBSOCKET_GUID].concat()))
}

/// The answer that tells a refusal from the origin's own errors. Its detail may name what is inside the site, so only what is wrong with
/// the request itself is told.
pub(super) fn refusal(failure: &Failure, request: RequestId) -> Response<Bytes> {
    let told = matches!(failure.code, Code::RequestInvalid | Code::RequestPath);
    let detail = told.then_some(failure.detail.as_str());
    let problem = Problem { code: failure.code, status: status(failure.code), detail, request: Some(request) };
    let mut response = Response::new(Bytes::from(problem.body()));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(REFUSAL, HeaderValue::from_static(failure.code.as_str()));
    headers.insert(REQUEST_ID, HeaderValue::from_str(&request.to_string()).expect("an id is plain text"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(protocol: &'static str, key: Option<&'static str>) -> Wish {
        Wish { protocol: HeaderValue::from_static(protocol), key: key.map(HeaderValue::from_static) }
    }

    fn answered(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut response = Response::builder().status(101);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    /// The example of RFC 6455, 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    #[test]
    fn e4_only_the_101_that_was_asked_for_is_one() {
        let websocket = wish("websocket", Some(KEY));
        for (headers, fine) in [
            (&[("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-accept", ACCEPT)][..], true),
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], false),
            (&[("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", KEY)], false),
            (&[("upgrade", "websocket"), ("sec-websocket-accept", ACCEPT)], false),
            (&[("connection", "Upgrade"), ("upgrade", "h2c"), ("sec-websocket-accept", ACCEPT)], false),
            (&[("connection", "Upgrade"), ("upgrade", "websocket, h2c"), ("sec-websocket-accept", ACCEPT)], false),
            (&[("connection", "Upgrade"), ("sec-websocket-accept", ACCEPT)], false),
        ] {
            let mut parts = answered(headers);
            let switched = switch(&mut parts, &websocket, None);
            assert_eq!(switched.map_err(|failure| failure.code).err(), (!fine).then_some(Code::ResponseInvalid), "{headers:?}");
        }
        let mut parts = answered(&[("connection", "upgrade"), ("upgrade", "spdy/3.1")]);
        assert!(switch(&mut parts, &wish("SPDY/3.1", None), None).is_ok());
    }

    #[test]
    fn a_refusal_has_its_code_and_its_detail_only_where_it_is_the_requests_own() {
        let request = RequestId::fresh();
        for (code, status, told) in [
            (Code::RequestPath, 400, true),
            (Code::RequestDenied, 403, false),
            (Code::BodyTooLarge, 413, false),
            (Code::UpgradeDenied, 403, false),
            (Code::TargetRefused, 502, false),
            (Code::ResponseInvalid, 502, false),
            (Code::ResponseTimeout, 504, false),
            (Code::AddressForbidden, 403, false),
        ] {
            let response = refusal(&Failure::new(code, "what and why"), request);
            assert_eq!(response.status().as_u16(), status, "{code}");
            assert_eq!(response.headers()[&REFUSAL], code.as_str());
            let body = String::from_utf8(response.body().to_vec()).unwrap();
            assert!(body.contains("what and why") == told && body.contains(&request.to_string()), "{body}");
        }
    }
}
