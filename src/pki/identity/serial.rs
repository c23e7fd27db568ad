//! A certificate's serial number. Refuses to know which certificate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;
use crate::base::random;

/// RFC 5280, 4.1.2.2: at most 20 octets.
const MAX: usize = 20;

/// A certificate's serial number: a positive number of at most 20 octets, written as lower-case hexadecimal pairs without leading
/// zero octets, as `openssl x509 -serial` does but in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial([u8; MAX]);

impl Serial {
    /// A random serial of 16 octets; the highest two bits are fixed so that it is positive and always 16 octets long.
    ///
    /// # Errors
    /// `internal` if the system has no randomness.
    pub fn random() -> Result<Self, Failure> {
        let mut octets = [0; 16];
        random::fill(&mut octets)?;
        octets[0] = octets[0] & 0x3f | 0x40;
        Self::from_be_bytes(&octets)
    }

    /// A serial from its big-endian octets; leading zero octets don't count.
    ///
    /// # Errors
    /// `certificate_refused` if it is zero, negative or longer than 20 octets.
    pub fn from_be_bytes(octets: &[u8]) -> Result<Self, Failure> {
        let negative = octets.first().is_some_and(|first| first & 0x80 != 0);
        let start = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len());
        let digits = &octets[start..];
        if negative || digits.is_empty() || digits.len() > MAX {
            return Err(Failure::new(Code::CertificateRefused, "a serial is a positive number of at most 20 octets"));
        }
        let mut padded = [0; MAX];
        padded[MAX - digits.len()..].copy_from_slice(digits);
        Ok(Self(padded))
    }

    /// The octets, big-endian, without leading zero octets.
    #[must_use]
    pub fn as_be_bytes(&self) -> &[u8] {
        let start = self.0.iter().position(|octet| *octet != 0).unwrap_or(MAX - 1);
        &self.0[start..]
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_be_bytes().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::new(Code::Usage, format_args!("`{}` is no serial: hexadecimal pairs", printable(text, 64)));
        if text.is_empty()
            || text.len() > 2 * MAX
            || !text.len().is_multiple_of(2)
            || !text.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(wrong());
        }
        // A leading zero octet keeps a high first bit from being read as a sign.
        let mut octets = vec![0];
        for start in (0..text.len()).step_by(2) {
            octets.push(u8::from_str_radix(&text[start..start + 2], 16).map_err(|_| wrong())?);
        }
        Self::from_be_bytes(&octets).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Serial {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_are_random_positive_and_16_octets_long() {
        let (one, other) = (Serial::random().unwrap(), Serial::random().unwrap());
        assert_ne!(one, other);
        for serial in [one, other] {
            assert_eq!(serial.as_be_bytes().len(), 16);
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
            assert_eq!(serde_json::from_str::<Serial>(&serde_json::to_string(&serial).unwrap()).unwrap(), serial);
        }
    }

    #[test]
    fn one_number_has_one_serial() {
        let serial: Serial = "00ff01".parse().unwrap();
        assert_eq!(serial.to_string(), "ff01");
        assert_eq!(serial, Serial::from_be_bytes(&[0, 0, 0xff, 1]).unwrap());
        assert_eq!(serial, "FF01".parse().unwrap());
        assert!("0100".parse::<Serial>().unwrap() > "ff".parse().unwrap());
        for text in ["", "0", "00", "0g", "+1", "ää", &"11".repeat(21)] {
            assert_eq!(text.parse::<Serial>().unwrap_err().code, Code::Usage, "{text}");
        }
        for octets in [&[][..], &[0], &[0x80], &[1; 21]] {
            assert_eq!(Serial::from_be_bytes(octets).unwrap_err().code, Code::CertificateRefused);
        }
    }
}
