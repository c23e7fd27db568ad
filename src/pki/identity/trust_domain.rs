//! The name of a PKI. Refuses to know who belongs to it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;

/// The longest trust domain; SPIFFE allows 255, but it is a part of every URI and subject.
const MAX: usize = 64;

/// The name of a PKI, the authority of its role URIs (SPIFFE-ID, 2.1): like a DNS name in lower case, at most 64 characters. It is
/// never resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = Failure;
    fn from_str(text: &str) -> Result<Self, Failure> {
        let label_ok = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if text.len() <= MAX && text.split('.').all(label_ok) {
            return Ok(Self(text.into()));
        }
        let shown = printable(text, MAX);
        let expected = "like a DNS name in lower case, at most 64 characters (such as `underpass.example`)";
        Err(Failure::new(Code::ConfigInvalid, format_args!("`{shown}` is not a trust domain: {expected}")))
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = Failure;
    fn try_from(text: String) -> Result<Self, Failure> {
        text.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_domains_look_like_dns_names() {
        for good in ["a", "acme.example", "10.a-b.c", &"a".repeat(64)] {
            assert_eq!(good.parse::<TrustDomain>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "-a", "a-.b", "A", "a_b", "a/b", "a:1", "ä", "a b", &"a".repeat(65)] {
            assert_eq!(bad.parse::<TrustDomain>().unwrap_err().code, Code::ConfigInvalid, "{bad}");
        }
    }
}
