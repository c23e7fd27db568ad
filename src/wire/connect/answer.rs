//! The answers to a CONNECT, written and read. A refusal has its code in a header and for people in a body (RFC 9457).
//! Refuses to know which step refused.

use std::fmt;

use http::StatusCode;
use httparse::{Header, Response, Status};
use serde::Deserialize;

use crate::base::code::{Code, Failure};
use crate::base::id::{RequestId, printable};
use crate::base::limits::{CLIENT_HEAD, CLIENT_HEADERS, MAX_DETAIL};
use crate::wire::problem::{self, CHALLENGE, CONTENT_TYPE, Problem, REFUSAL_HEADER, RETRY_AFTER};

/// What a refused client is told.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Which refusal.
    pub code: Code,
    /// On what, and why; not for everybody.
    pub detail: Option<&'a str>,
    /// Under which the logs of both ends have it, if it came so far.
    pub request: Option<RequestId>,
}

/// What a gateway said: yes, or its refusal.
pub type Verdict = Result<(), Failure>;

/// What our own client reads of it.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    detail: String,
    request: Option<RequestId>,
}

/// The answer after which the target's bytes follow.
#[must_use]
pub fn accepted() -> &'static [u8] {
    b"HTTP/1.1 200 Connection established\r\n\r\n"
}

/// The answer that refuses, after which the connection is closed.
#[must_use]
pub fn refused(refused: &Refused<'_>) -> Vec<u8> {
    let Refused { code, detail, request } = *refused;
    let status = problem::proxy_status(code);
    let body = Problem { code, status, detail, request }.body();
    let more = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => format!("Proxy-Authenticate: {CHALLENGE}\r\n"),
        StatusCode::TOO_MANY_REQUESTS => format!("Retry-After: {RETRY_AFTER}\r\n"),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{REFUSAL_HEADER}: {code}\r\n{more}Connection: close\r\n\
         Content-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Reads a gateway's answer from the first bytes. Yields its length in bytes, behind which the target's begin, and what it
/// says; `None` as long as it is not whole.
///
/// # Errors
/// `protocol_violation` for what is no answer of a gateway.
pub fn answer(bytes: &[u8]) -> Result<Option<(usize, Verdict)>, Failure> {
    let window = &bytes[..bytes.len().min(CLIENT_HEAD)];
    let mut headers = [httparse::EMPTY_HEADER; CLIENT_HEADERS];
    let mut response = Response::new(&mut headers);
    let len = match response.parse(window) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if window.len() < CLIENT_HEAD => return Ok(None),
        Ok(Status::Partial) => return Err(strange(format_args!("its head is longer than {CLIENT_HEAD} bytes"))),
        Err(error) => return Err(strange(error)),
    };
    if response.code == Some(200) {
        return Ok(Some((len, Ok(()))));
    }
    let code = header(response.headers, REFUSAL_HEADER)
        .ok_or_else(|| strange(format_args!("status {} without a code", response.code.unwrap_or_default())))?;
    let length = header(response.headers, "content-length").and_then(|length| length.parse::<usize>().ok());
    let length =
        length.filter(|length| *length <= CLIENT_HEAD).ok_or_else(|| strange("its body has no length or is too long"))?;
    let Some(body) = bytes.get(len..len + length) else { return Ok(None) };
    Ok(Some((len + length, Err(told(code, body)))))
}

/// The refusal as the gateway told it. A code that a newer gateway has and we don't is kept in the detail.
fn told(code: &str, body: &[u8]) -> Failure {
    let Told { detail, request } = serde_json::from_slice(body).unwrap_or(Told { detail: String::new(), request: None });
    let (code, unknown) = match code.parse::<Code>() {
        Ok(code) => (code, None),
        Err(_) => (Code::Internal, Some(code)),
    };
    let request = request.map(|request| format!("request {request}"));
    let parts = [unknown, Some(detail.as_str()), request.as_deref()];
    let parts: Vec<&str> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    let said = if parts.is_empty() { "refused by the gateway".to_owned() } else { parts.join(": ") };
    Failure::new(code, printable(&said, MAX_DETAIL))
}

fn header<'a>(headers: &[Header<'a>], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

fn strange(why: impl fmt::Display) -> Failure {
    Failure::new(Code::ProtocolViolation, format_args!("what answered CONNECT is no gateway of this version: {why}"))
}
