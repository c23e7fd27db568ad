//! HTTP CONNECT between a client and the gateway (RFC 9110, 9.3.6; RFC 9112): the request's head, read and written, and the
//! answers. Refuses to know sockets, and who may do what.
//!
//! A head is read whole or not at all: before its last line nothing of it counts, and nothing behind it is looked at. It is
//! taken in one spelling only (CRLF at every line's end, no folded line), and the target from the request line alone: a `Host`
//! that says something else refuses, so that no two readers can be told two things.

mod answer;

use std::fmt;

use httparse::{Header, Request, Status};
use zeroize::Zeroizing;

pub use self::answer::{Refused, Verdict, accepted, answer, refused};
use super::{login, name};
use crate::base::code::{Code, Failure};
use crate::base::id::TargetId;
use crate::base::limits::{CLIENT_HEAD, CLIENT_HEADERS};
use crate::base::secret::Secret;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Head {
    /// The target that the request line names.
    pub target: TargetId,
    /// The token, if it shows one.
    pub login: Option<Secret>,
}

/// Reads a request's head from the first bytes of a connection. Yields it with its length in bytes, behind which the client's
/// early data begin; `None` as long as the head is not whole.
///
/// # Errors
/// `request_invalid`, saying what is not taken; never showing a token.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Failure> {
    let Some(head) = whole(bytes)? else { return Ok(None) };
    let mut headers = [httparse::EMPTY_HEADER; CLIENT_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(len)) if len == head.len() => {}
        Ok(_) => return Err(invalid("the head ends in two places")),
        Err(error) => return Err(invalid(error)),
    }
    if request.method != Some("CONNECT") {
        return Err(invalid("this listener takes CONNECT alone, as programs send it for https://; curl needs -p for http://"));
    }
    let asked = authority(request.path.unwrap_or_default())?;
    check_headers(&asked, request.headers)?;
    let login = only(request.headers, "proxy-authorization")?.map(login::of_header).transpose()?;
    Ok(Some((Head { target: asked.target, login }, head.len())))
}

/// The request that shows a token and asks for a target.
#[must_use]
pub fn request(target: &TargetId, token: &Secret) -> Zeroizing<String> {
    let (host, authorization) = (name::host_of(target), login::to_header(token));
    Zeroizing::new(format!(
        "CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\nUser-Agent: underpass/{}\r\nProxy-Authorization: {}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        *authorization
    ))
}

/// The syntax wants a port, and the agent knows it better.
const PORT: u16 = 443;

/// What the request line's `host:port` says.
struct Authority {
    target: TargetId,
    port: u16,
}

fn authority(text: &str) -> Result<Authority, Failure> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("CONNECT is followed by HOST:PORT"))?;
    let target = name::target_of(host)?;
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port != 0 => Ok(Authority { target, port }),
        _ => Err(invalid("the port is a number from 1 to 65535")),
    }
}

/// Refuses what a CONNECT has no use for and two readers read differently: a body, an upgrade, a second target.
fn check_headers(asked: &Authority, headers: &[Header<'_>]) -> Result<(), Failure> {
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("transfer-encoding") || is("upgrade") || is("content-length") && header.value != b"0" {
            return Err(invalid("a CONNECT has neither body nor upgrade"));
        }
    }
    let Some(host) = only(headers, "host")? else { return Ok(()) };
    let agrees = std::str::from_utf8(host).is_ok_and(|host| match host.rsplit_once(':') {
        Some(_) => authority(host).is_ok_and(|named| named.target == asked.target && named.port == asked.port),
        None => name::target_of(host).is_ok_and(|target| target == asked.target),
    });
    if agrees { Ok(()) } else { Err(invalid("the Host header and the request line name different targets")) }
}

/// The value of a header that may come once.
fn only<'a>(headers: &[Header<'a>], name: &str) -> Result<Option<&'a [u8]>, Failure> {
    let mut values = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(invalid(format_args!("the header {name} comes twice"))),
    }
}

/// The first bytes up to the end of the head: an empty line.
///
/// They are looked through from the front, and what can be in no head refuses at once, so that somebody who speaks another
/// protocol isn't waited for. What is found does not depend on how many bytes are there.
fn whole(bytes: &[u8]) -> Result<Option<&[u8]>, Failure> {
    let window = &bytes[..bytes.len().min(CLIENT_HEAD)];
    match window.first() {
        Some(0x16) => return Err(invalid("TLS was begun on a listener without TLS")),
        Some(4 | 5) => return Err(invalid("SOCKS was spoken on a listener for HTTP CONNECT")),
        Some(first) if !first.is_ascii_alphabetic() => return Err(invalid("it is no HTTP")),
        _ => {}
    }
    for (at, byte) in window.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).map(|before| window[before]), window.get(at + 1));
        match byte {
            b'\n' if before != Some(b'\r') => return Err(invalid("a line ends without CR")),
            b'\n' if window[..=at].ends_with(b"\r\n\r\n") => return Ok(Some(&window[..=at])),
            b'\r' if after.is_some_and(|after| *after != b'\n') => return Err(invalid("there is a CR within a line")),
            0 => return Err(invalid("there is a NUL in the head")),
            _ => {}
        }
    }
    if window.len() == CLIENT_HEAD {
        return Err(invalid(format_args!("the head is longer than {CLIENT_HEAD} bytes")));
    }
    Ok(None)
}

fn invalid(why: impl fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

#[cfg(test)]
mod tests;
