//! Secrets that cannot be printed. Refuses to know where they come from.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::code::Failure;
use super::random;

/// A text that no log, error, debug output or metric can show; wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text in; surrounding white space (a file's last newline) is cut off.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text.trim().to_owned()))
    }

    /// Takes a text in as it is.
    #[must_use]
    pub fn exactly(text: &str) -> Self {
        Self(SecretString::from(text.to_owned()))
    }

    /// 32 random bytes as base64url without padding (RFC 4648, 5).
    ///
    /// # Errors
    /// `internal` if the operating system yields no randomness.
    pub fn random() -> Result<Self, Failure> {
        let mut bytes = Zeroizing::new([0; 32]);
        random::fill(&mut *bytes)?;
        Ok(Self(SecretString::from(URL_SAFE_NO_PAD.encode(*bytes))))
    }

    /// The text, for the one place that must send or compare it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Compares in a time that depends on the lengths alone.
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i1_a_secret_is_not_printed() {
        let secret = Secret::new("hunter2\n");
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.expose(), "hunter2");
        let random = [Secret::random().unwrap(), Secret::random().unwrap()];
        assert!(random[0].expose().len() == 43 && random[0].expose() != random[1].expose());
        assert!(constant_time_eq(b"a", b"a") && !constant_time_eq(b"a", b"b") && !constant_time_eq(b"a", b"aa"));
    }
}
