//! Pins: which root an agent trusts, by the hash of the root's public key. Refuses to verify chains.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;

/// The SHA-256 of a root's SubjectPublicKeyInfo in DER (as in RFC 7469, 2.4), written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a certificate.
    ///
    /// # Errors
    /// `state_invalid` if the certificate cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Failure> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| Failure::new(Code::StateInvalid, format_args!("not a certificate: {error}")))?;
        let hash = digest::digest(&digest::SHA256, parsed.public_key().raw);
        Ok(Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A pin of 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong =
            || Failure::new(Code::TokenInvalid, format_args!("`{}` is no pin: 64 hexadecimal digits", printable(text, 80)));
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// The roots of `certs/pinned-ca.pem` at compile time; none by default.
#[must_use]
pub fn built_in() -> &'static [CertificateDer<'static>] {
    static ROOTS: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
        let pem = include_str!(concat!(env!("OUT_DIR"), "/pinned-ca.pem"));
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("the build script has checked the PEM")
    });
    &ROOTS
}

/// Whether this binary may follow a token with this pin: any if no root is built in, else only those of the built-in roots.
///
/// # Errors
/// `token_pin` if another root is built in.
pub fn check_built_in(pin: Pin) -> Result<(), Failure> {
    check_among(pin, built_in())
}

fn check_among(pin: Pin, roots: &[CertificateDer<'static>]) -> Result<(), Failure> {
    let pins: Vec<Pin> = roots.iter().map(Pin::of).collect::<Result<_, _>>()?;
    if pins.is_empty() || pins.contains(&pin) {
        return Ok(());
    }
    let built_in = pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(", ");
    Err(Failure::new(Code::TokenPin, format_args!("the token's root has the pin {pin}, the built-in one {built_in}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::hostile::Authority;

    #[test]
    fn a_pin_is_the_hash_of_the_key_and_not_of_the_certificate() {
        let (one, other) = (Authority::fresh("acme.example"), Authority::fresh("acme.example"));
        assert_eq!(Pin::of(&one.root).unwrap(), Pin::of(&one.root_anew()).unwrap());
        assert_ne!(one.root, one.root_anew());
        assert_ne!(Pin::of(&one.root).unwrap(), Pin::of(&other.root).unwrap());
        assert_eq!(Pin::of(&CertificateDer::from(vec![0x30, 0])).unwrap_err().code, Code::StateInvalid);
    }

    #[test]
    fn a_pin_is_written_as_64_lower_case_digits() {
        let pin = Pin::from_bytes(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
        let upper = pin.to_string().to_uppercase();
        for text in ["", "00", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"ä".repeat(32), &upper] {
            assert_eq!(text.parse::<Pin>().unwrap_err().code, Code::TokenInvalid, "{text}");
        }
    }

    #[test]
    fn a_built_in_root_overrides_the_token() {
        let (ours, next, foreign) =
            (Authority::fresh("a.example"), Authority::fresh("a.example"), Authority::fresh("b.example"));
        let roots = [ours.root.clone(), next.root.clone()];
        let pin = |authority: &Authority| Pin::of(&authority.root).unwrap();
        check_among(pin(&ours), &roots).unwrap();
        check_among(pin(&next), &roots).unwrap();
        assert_eq!(check_among(pin(&foreign), &roots).unwrap_err().code, Code::TokenPin);
        check_among(pin(&foreign), &[]).unwrap();
    }

    #[test]
    fn the_built_in_roots_can_be_pinned() {
        for root in built_in() {
            check_built_in(Pin::of(root).unwrap()).unwrap();
        }
    }
}
