//! The heads of requests on their way to an agent, and of answers on their way back: made anew from what came, without what belongs to a
//! connection, what only hops of ours may say, and the caller's token. Pure. Refuses to know targets, streams and bodies.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, FORWARDED, HOST, HeaderMap, TE};
use http::header::{RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::address::Address;
use crate::base::code::{Code, Failure};
use crate::base::id::RequestId;
use crate::wire::hop::{
    REFUSAL, REQUEST_ID, TRACEPARENT, check_codings, check_connection, is_claim, is_of_connection, is_own, tokens,
};
use crate::wire::problem::{self, Problem};
use crate::wire::trace;

/// What the gateway says of a request to the agent.
pub(super) struct Told<'a> {
    /// Its id.
    pub(super) request: RequestId,
    /// Where its client is.
    pub(super) source: SocketAddr,
    /// The host that the client named.
    pub(super) host: Option<&'a str>,
    /// Whether the client came by TLS.
    pub(super) secure: bool,
    /// Whether its `Authorization` was for the gateway.
    pub(super) by_authorization: bool,
    /// The protocol that it wants its connection to become.
    pub(super) upgrade: Option<&'a HeaderValue>,
    /// Whether HTTP/2 is spoken to the agent.
    pub(super) http2: bool,
}

/// Checks what of a request's head two readers could read differently, or what this entry point is not for.
///
/// # Errors
/// `request_invalid`, saying what is wrong.
pub(super) fn check(parts: &Parts) -> Result<(), Failure> {
    if parts.method == Method::CONNECT {
        return Err(invalid("CONNECT is for a listener of `kind: connect`; this one takes requests to targets of kind http"));
    }
    if parts.version == Version::HTTP_11 && !parts.headers.contains_key(HOST) {
        return Err(invalid("no `Host`"));
    }
    check_codings(&parts.headers)?;
    if parts.headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(invalid("more than one `Content-Length`"));
    }
    check_connection(&parts.headers)
}

/// The request to the agent, without its body.
pub(super) fn request(parts: &Parts, address: &Address, authority: &HeaderValue, told: &Told<'_>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    let http2 = told.http2;
    *request.uri_mut() = if http2 { absolute(authority, address) } else { Uri::from(address.path.clone()) };
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let headers = request.headers_mut();
    headers.reserve(parts.headers.len() + 5);
    for (name, value) in &parts.headers {
        let not_ours = name == AUTHORIZATION && told.by_authorization || name == HOST || name == TRACEPARENT;
        if !not_ours && !is_of_connection(name) && !is_own(name) && !is_claim(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if http2 {
        // It is asked for by nobody there.
        headers.remove(EXPECT);
    } else {
        headers.insert(HOST, authority.clone());
    }
    if tokens(&parts.headers, TE).any(|token| token.eq_ignore_ascii_case("trailers")) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = told.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    headers.insert(FORWARDED, forwarded(told));
    headers.insert(TRACEPARENT, traceparent(&parts.headers, told.request));
    headers.insert(REQUEST_ID, id(told.request));
    request
}

/// The answer for the client, of what the agent sent. `upgraded` is the protocol that the connection becomes.
pub(super) fn answer(headers: &mut HeaderMap, request: RequestId, upgraded: Option<&HeaderValue>) {
    let unwanted = |name: &http::HeaderName| is_of_connection(name) || is_own(name) && name != REFUSAL;
    let names: Vec<_> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    headers.insert(REQUEST_ID, id(request));
    if let Some(protocol) = upgraded {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
}

/// The gateway's own answer to what it refuses. What is wrong with a request is told in full; of the rest only the code, since details may
/// name what is inside a site.
pub(super) fn refusal(failure: &Failure, method: &Method, request: RequestId) -> Response<String> {
    let code = failure.code;
    let connect = *method == Method::CONNECT && code == Code::RequestInvalid;
    let status = if connect { StatusCode::METHOD_NOT_ALLOWED } else { problem::status(code) };
    let told = code == Code::RequestInvalid || code == Code::TargetUnknown && failure.detail.contains("/t/");
    let problem = Problem { code, status, detail: told.then_some(failure.detail.as_str()), request: Some(request) };
    let mut response = Response::new(problem.body());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    headers.insert(REFUSAL, HeaderValue::from_static(code.as_str()));
    headers.insert(REQUEST_ID, id(request));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(problem::CHALLENGE));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(problem::RETRY_AFTER));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            // No method is: the URL of a CONNECT names no resource.
            headers.insert(http::header::ALLOW, HeaderValue::from_static(""));
        }
        _ => {}
    }
    response
}

fn absolute(authority: &HeaderValue, address: &Address) -> Uri {
    let parts = Uri::builder().scheme("http").authority(authority.as_bytes()).path_and_query(address.path.clone());
    parts.build().expect("a target's host and a path make a URL")
}

fn id(request: RequestId) -> HeaderValue {
    HeaderValue::from_str(&request.to_string()).expect("an id is plain text")
}

/// Who asked for what, as RFC 7239 writes it.
fn forwarded(told: &Told<'_>) -> HeaderValue {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(96);
    // Writing to a text fails never.
    let _ = match told.source.ip() {
        IpAddr::V4(ip) => write!(text, "for={ip}"),
        IpAddr::V6(ip) => write!(text, "for=\"[{ip}]\""),
    };
    if let Some(host) = told.host {
        let _ = write!(text, ";host=\"{host}\"");
    }
    text.push_str(if told.secure { ";proto=https" } else { ";proto=http" });
    HeaderValue::try_from(text).expect("addresses and hosts are plain text without quotes")
}

fn traceparent(headers: &HeaderMap, request: RequestId) -> HeaderValue {
    let mut given = headers.get_all(TRACEPARENT).iter();
    match (given.next(), given.next()) {
        (Some(one), None) if one.to_str().is_ok_and(trace::is_traceparent) => one.clone(),
        _ => HeaderValue::try_from(trace::traceparent(request)).expect("a trace context is plain text"),
    }
}

fn invalid(why: &str) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

/// What fuzzers hold a request to: whatever a client writes, what would go on to the agent is one request, in origin form, without the
/// caller's token.
///
/// # Panics
/// When that is not so.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn exercise(parts: &Parts) {
    if check(parts).is_err() {
        return;
    }
    let (Ok(upgrade), Ok(address)) = (crate::wire::hop::upgrade(parts), super::address::address(parts, Some("base.example")))
    else {
        return;
    };
    let host = super::address::host(parts).expect("its address was read");
    let told = Told {
        request: RequestId::fresh(),
        source: "192.0.2.1:1".parse().expect("an address"),
        host: host.as_deref(),
        secure: false,
        by_authorization: true,
        upgrade: upgrade.as_ref(),
        http2: false,
    };
    let request = request(parts, &address, &HeaderValue::from_static("erp.dc1.acme"), &told);
    let path = request.uri().to_string();
    assert!(path.starts_with('/') && parts.uri.to_string().ends_with(path.trim_start_matches('/')), "{path}");
    for (name, value) in request.headers() {
        let ours = name == REQUEST_ID || name == FORWARDED || name == TE && value == "trailers";
        let upgrades = upgrade.is_some() && (name == UPGRADE || name == CONNECTION);
        assert!(ours || upgrades || !(is_of_connection(name) || is_own(name) || is_claim(name)), "{name}");
        assert_ne!(name, AUTHORIZATION);
    }
    for only in [HOST, REQUEST_ID, FORWARDED, TRACEPARENT] {
        assert_eq!(request.headers().get_all(&only).iter().count(), 1, "{only}");
    }
}

#[cfg(test)]
mod tests;
