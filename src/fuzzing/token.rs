//! The enrollment token, as somebody pastes it. Refuses to know who enrolls.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::told;
use crate::base::code::Code;
use crate::base::limits::{MAX_TOKEN, MAX_TOKEN_ENDPOINTS};
use crate::wire::token::{EnrollmentToken, PREFIX, TokenSecret};

/// So much of a token in a row is a quotation.
const QUOTED: usize = 16;

/// The token over an input: a text as it is, or, after an even first byte, a message that is given prefix and checksum. A token has
/// one spelling; an error quotes none of it.
///
/// # Panics
/// When that is not so.
pub fn token(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    if how & 1 == 0 {
        read(&wrapped(rest));
    } else if let Ok(text) = std::str::from_utf8(rest) {
        read(text);
        secret(text);
    }
}

fn read(text: &str) {
    match EnrollmentToken::parse(text) {
        Ok(token) => {
            assert_eq!(token.encode().expose(), text.trim_ascii(), "another spelling");
            assert!(text.trim_ascii().len() <= MAX_TOKEN);
            assert!((1..=MAX_TOKEN_ENDPOINTS).contains(&token.endpoints.len()), "{token:?}");
            let debug = format!("{token:?}");
            assert!(!debug.contains(token.secret.encode().expose()), "{debug}");
        }
        Err(failure) => {
            assert_eq!(failure.code, Code::TokenInvalid);
            told(&failure);
            assert!(!quotes(&failure.detail, text), "{failure} quotes {text}");
        }
    }
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
    let words = words.replace(PREFIX, "");
    let runs = words.as_bytes().split(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(byte));
    let body = text.split_once('.').map_or(text, |(_, body)| body).as_bytes();
    runs.flat_map(|run| run.windows(QUOTED)).any(|part| body.windows(QUOTED).any(|quoted| quoted == part))
}

/// A message as a token, with the right checksum (the specification, 3).
fn wrapped(message: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, &[PREFIX.as_bytes(), message].concat());
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([message, &sum.as_ref()[..4]].concat()))
}
