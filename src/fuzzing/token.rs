//! Enrollment tokens and client tokens, as somebody pastes them. Refuses to know who uses them.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::told;
use crate::base::code::{Code, Failure};
use crate::base::limits::{MAX_CLIENT_TOKEN, MAX_TOKEN, MAX_TOKEN_ENDPOINTS};
use crate::wire::token::{ClientToken, EnrollmentToken, TokenSecret};

/// So much of a token in a row is a quotation.
const QUOTED: usize = 16;

const PREFIXES: [&str; 2] = [EnrollmentToken::PREFIX, ClientToken::PREFIX];

/// The token over an input: a text as it is, or, after an even first byte, a message that is given prefix and checksum, those of a
/// client's when the byte's second bit is set. A token has one spelling; an error quotes none of it.
///
/// # Panics
/// When that is not so.
pub fn token(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    if how & 1 == 0 {
        let prefix = PREFIXES[usize::from(how >> 1 & 1)];
        read(&wrapped(prefix, rest));
    } else if let Ok(text) = std::str::from_utf8(rest) {
        read(text);
        secret(text);
    }
}

fn read(text: &str) {
    if let Some(token) = taken(text, EnrollmentToken::parse(text)) {
        assert_eq!(token.encode().expose(), text.trim_ascii(), "another spelling");
        assert!(text.trim_ascii().len() <= MAX_TOKEN);
        assert!((1..=MAX_TOKEN_ENDPOINTS).contains(&token.endpoints.len()), "{token:?}");
        hidden(&token, &token.secret);
    }
    if let Some(token) = taken(text, ClientToken::parse(text)) {
        assert_eq!(token.encode().expose(), text.trim_ascii(), "another spelling");
        assert!(text.trim_ascii().len() <= MAX_CLIENT_TOKEN);
        hidden(&token, &token.secret);
    }
}

fn taken<T>(text: &str, read: Result<T, Failure>) -> Option<T> {
    let failure = match read {
        Ok(token) => return Some(token),
        Err(failure) => failure,
    };
    assert_eq!(failure.code, Code::TokenInvalid);
    told(&failure);
    assert!(!quotes(&failure.detail, text), "{failure} quotes {text}");
    None
}

fn hidden(token: &impl fmt::Debug, secret: &TokenSecret) {
    let debug = format!("{token:?}");
    assert!(!debug.contains(secret.encode().expose()), "{debug}");
}

fn secret(text: &str) {
    match TokenSecret::parse(text) {
        Ok(secret) => assert_eq!(secret.encode().expose(), text, "another spelling"),
        Err(failure) => {
            assert_eq!(failure.code, Code::TokenRefused);
            assert!(!quotes(&failure.detail, text), "{failure} quotes {text}");
        }
    }
}

/// Whether the words hold a part of what follows the token's prefix; a token has no blanks.
fn quotes(words: &str, text: &str) -> bool {
    let words = PREFIXES.iter().fold(words.to_owned(), |words, prefix| words.replace(prefix, ""));
    let runs = words.as_bytes().split(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte));
    let body = text.split_once('.').map_or(text, |(_, body)| body).as_bytes();
    runs.flat_map(|run| run.windows(QUOTED)).any(|part| body.windows(QUOTED).any(|quoted| quoted == part))
}

/// A message as a token, with the right checksum (the specification, 3).
fn wrapped(prefix: &str, message: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, &[prefix.as_bytes(), message].concat());
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode([message, &sum.as_ref()[..4]].concat()))
}
