//! Tokens: what a stranger needs to be let in, as one printable string that survives copy and paste. Owns the form that all
//! kinds have in common, and their secret. Refuses to know who makes tokens, who uses them and how they are kept.
//!
//! # Form
//!
//! A prefix such as `underpass-enroll-1.`, and the base64url text, without padding (RFC 4648, 5), of a Protobuf message followed
//! by the first four bytes of the SHA-256 of prefix and message. The number in the prefix is the version: a later form gets
//! another one, so fields that this version doesn't know are refused, and every token has exactly one spelling.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base::code::{Code, Failure, OrFail};
use crate::base::random;
use crate::base::secret::Secret;

mod client;
mod enrollment;

pub use client::ClientToken;
pub use enrollment::EnrollmentToken;

const CHECKSUM: usize = 4;

const DAMAGED: &str = "the checksum does not match: the token was cut off or mistyped";

/// How one kind of token is written.
struct Form {
    /// Its kind and version, such as `underpass-enroll-1.`; this program knows version 1 of each.
    prefix: &'static str,
    /// The longest text, in bytes.
    max: usize,
}

impl Form {
    /// The text around a message.
    fn seal(&self, message: &impl Message) -> Secret {
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.encoded_len() + CHECKSUM));
        bytes.extend_from_slice(&Zeroizing::new(message.encode_to_vec()));
        let sum = self.checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes));
        Secret::new(&Zeroizing::new(format!("{}{}", self.prefix, &*text)))
    }

    /// The token that a text is, in the one spelling that `encode` gives it.
    ///
    /// # Errors
    /// As [`Form::open`]; also for parts that are written in another way than ours.
    fn read<M: Message + Default, T: TryFrom<M, Error = Failure>>(
        &self,
        text: &str,
        encode: impl FnOnce(&T) -> Secret,
    ) -> Result<T, Failure> {
        let token = T::try_from(self.open::<M>(text)?)?;
        if encode(&token).expose() == text.trim_ascii() {
            return Ok(token);
        }
        Err(invalid("the message inside writes its parts in another way than this version does"))
    }

    /// The message inside a text. White space around it is ignored; nothing else is.
    ///
    /// # Errors
    /// `token_invalid`, saying what is wrong without quoting the token: too long, another version, cut off or mistyped.
    fn open<M: Message + Default>(&self, text: &str) -> Result<M, Failure> {
        let text = text.trim_ascii();
        if text.len() > self.max {
            return Err(invalid(format_args!("{} characters are too many for a token", text.len())));
        }
        let Some(body) = text.strip_prefix(self.prefix) else { return Err(self.not_this(text)) };
        if body.contains(|c: char| c.is_ascii_whitespace()) {
            return Err(invalid("there is white space inside: was it copied over a line break?"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map(Zeroizing::new).map_err(|_| invalid(DAMAGED))?;
        let (message, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(|| invalid(DAMAGED))?;
        if *sum != self.checksum(message) {
            return Err(invalid(DAMAGED));
        }
        let decoded = M::decode(message).or_fail(Code::TokenInvalid, "the message inside")?;
        if *Zeroizing::new(decoded.encode_to_vec()) != *message {
            return Err(invalid("the message inside has parts that this version doesn't know"));
        }
        Ok(decoded)
    }

    fn not_this(&self, text: &str) -> Failure {
        if text.is_empty() {
            return invalid("it is empty");
        }
        if self.prefix.starts_with(text) {
            return invalid(DAMAGED);
        }
        let kind = self.prefix.trim_end_matches("1.");
        match text.strip_prefix(kind).and_then(|rest| rest.split_once('.')) {
            Some((version, _)) if !version.is_empty() && version.len() < 9 && version.bytes().all(|b| b.is_ascii_digit()) => {
                invalid(format_args!("it is of version {version}, and this program reads version 1"))
            }
            _ => invalid(format_args!("it does not begin with `{}`", self.prefix)),
        }
    }

    fn checksum(&self, message: &[u8]) -> [u8; CHECKSUM] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.prefix.as_bytes());
        context.update(message);
        let mut sum = [0; CHECKSUM];
        sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM]);
        sum
    }
}

fn invalid(why: impl fmt::Display) -> Failure {
    Failure::new(Code::TokenInvalid, why)
}

/// The 256 random bits of a token: not printable, wiped when dropped, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// A fresh one.
    ///
    /// # Errors
    /// `internal` if the operating system yields no randomness.
    pub fn generate() -> Result<Self, Failure> {
        let mut bytes = [0; 32];
        random::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The text that the agent sends to redeem the token: 43 characters of base64url.
    #[must_use]
    pub fn encode(&self) -> Secret {
        Secret::new(&Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0)))
    }

    /// Reads that text.
    ///
    /// # Errors
    /// `token_refused`: whoever sends anything else has no token of ours.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bytes =
            Zeroizing::new(if text.len() == 43 { URL_SAFE_NO_PAD.decode(text).unwrap_or_default() } else { Vec::new() });
        let bytes = bytes.as_slice().try_into();
        bytes.map(Self).map_err(|_| Failure::new(Code::TokenRefused, "the secret is not of the right form"))
    }

    /// The bytes, for the one place that must send or hash them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The bytes inside a token.
impl TryFrom<&[u8]> for TokenSecret {
    type Error = Failure;
    fn try_from(bytes: &[u8]) -> Result<Self, Failure> {
        bytes.try_into().map(Self).map_err(|_| invalid("its secret has not 32 bytes"))
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl PartialEq for TokenSecret {
    fn eq(&self, other: &Self) -> bool {
        crate::base::secret::constant_time_eq(&self.0, &other.0)
    }
}

impl Eq for TokenSecret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_a_secret_has_256_fresh_bits() {
        let (one, two) = (TokenSecret::generate().unwrap(), TokenSecret::generate().unwrap());
        assert_eq!(one.expose().len() * 8, 256);
        assert_ne!(one, two);
        assert_eq!(TokenSecret::parse(one.encode().expose()).unwrap(), one);
        for bad in ["", "A", &"A".repeat(44), &"A".repeat(42), &"=".repeat(43), &"B".repeat(43)] {
            assert_eq!(TokenSecret::parse(bad).unwrap_err().code, Code::TokenRefused, "{bad}");
        }
    }
}
