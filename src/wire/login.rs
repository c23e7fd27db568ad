//! A client's token as callers show it: a password of Basic authentication or SOCKS5, or a bearer token. Refuses to know whose
//! it is and what it grants.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::base::code::{Code, Failure};
use crate::base::limits::MAX_CLIENT_TOKEN;
use crate::base::secret::Secret;

/// The user name that our own client gives. Which one it is means nothing: the token alone says who calls.
const USER: &str = "underpass";

/// Takes a token in: 1 to 255 visible characters of ASCII, so that what is compared is to the byte what was sent.
///
/// # Errors
/// `login_required` for none, else `request_invalid`, without the token.
pub fn token(bytes: &[u8]) -> Result<Secret, Failure> {
    if bytes.is_empty() {
        return Err(Failure::new(Code::LoginRequired, "the password is empty; the token goes there"));
    }
    if bytes.len() > MAX_CLIENT_TOKEN {
        return Err(refused(format_args!("the token has {} characters, not 1 to {MAX_CLIENT_TOKEN}", bytes.len())));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(text)),
        _ => Err(refused("the token has characters that no token has")),
    }
}

/// The token in the value of an `Authorization` or `Proxy-Authorization` header: the password of `Basic` (RFC 7617), whatever
/// the user, or that of `Bearer` (RFC 6750).
///
/// # Errors
/// `login_required`, `request_invalid`, without the value.
pub fn of_header(value: &[u8]) -> Result<Secret, Failure> {
    let separator = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at(separator);
    let credentials = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return token(credentials);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return Err(refused("the authorization is neither Basic nor Bearer"));
    }
    let pair = STANDARD.decode(credentials).map(Zeroizing::new).map_err(|_| refused("the Basic authorization is no base64"))?;
    let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(|| refused("the Basic authorization has no colon"))?;
    token(&pair[colon + 1..])
}

/// The value of the header that shows a token: Basic, whose base64 takes any text without harm to the header.
#[must_use]
pub fn to_header(token: &Secret) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{USER}:{}", token.expose()));
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Zeroizing::new(format!("Basic {}", *encoded))
}

fn refused(why: impl fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_token_is_a_password_or_a_bearers() {
        let long = "x".repeat(255);
        for (value, token) in [
            (basic("any:t0ken"), "t0ken"),
            (basic(":t0ken"), "t0ken"),
            (basic("a:b:c"), "b:c"),
            (basic(&format!("u:{long}")), long.as_str()),
            ("bAsIc YTpi".to_owned(), "b"),
            ("Basic   YTpi".to_owned(), "b"),
            ("Bearer t0ken".to_owned(), "t0ken"),
            ("BEARER  t0ken ".to_owned(), "t0ken"),
        ] {
            assert_eq!(of_header(value.as_bytes()).unwrap().expose(), token, "{value}");
        }
        assert_eq!(of_header(to_header(&Secret::new("t0ken")).as_bytes()).unwrap().expose(), "t0ken");
    }

    #[test]
    fn i1_anything_else_is_refused_and_not_shown() {
        for value in [
            String::new(),
            "Basic".to_owned(),
            "hunter2".to_owned(),
            "Digest hunter2".to_owned(),
            "Basic hunter2!".to_owned(),
            "Basic\tYTpi".to_owned(),
            "Basic YTpi YTpi".to_owned(),
            "Bearer hunter2 hunter2".to_owned(),
            basic("hunter2"),
            basic("a:hunter2\r\nX: y"),
            basic("a:hunter2 "),
            basic("a:hunter2é"),
            basic(&format!("a:{}", "hunter2".repeat(37))),
        ] {
            let failure = of_header(value.as_bytes()).unwrap_err();
            assert_eq!(failure.code, Code::RequestInvalid, "{value}");
            let encoded = STANDARD.encode("hunter2");
            assert!(!failure.detail.contains("hunter2") && !failure.detail.contains(&encoded[..8]), "{failure}");
        }
        assert!(of_header(b"Bearer \xff").is_err());
        for empty in ["Bearer ".to_owned(), basic("hunter2:")] {
            assert_eq!(of_header(empty.as_bytes()).unwrap_err().code, Code::LoginRequired, "{empty}");
        }
    }
}
