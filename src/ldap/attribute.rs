//! Which attribute a description means, however it is spelled: names in any case, aliases, OIDs, options (RFC 4512, 2.5). Refuses to know who
//! may see one.

mod known;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use super::ber::Malformed;
use known::{KNOWN, Known};

/// An attribute's type. Spellings that are known for the same one are equal: `userPassword`, `USERPASSWORD;x-old` and `2.5.4.35`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attribute(Cow<'static, str>);

impl Attribute {
    /// The attribute that a description names; its options say nothing about that.
    ///
    /// # Errors
    /// [`Malformed`] for what is neither a name nor an OID.
    pub fn of(description: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(description).ok().and_then(|text| text.split(';').next());
        let text = text.ok_or(Malformed::new("an attribute's name that is not UTF-8"))?;
        let text = match text.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("oid.") => &text[4..],
            _ => text,
        };
        if !is_name(text) && !is_oid(text) {
            return Err(Malformed::new("an attribute that is neither a name nor an OID"));
        }
        let folded = text.to_ascii_lowercase();
        Ok(Self(SPELLINGS.get(folded.as_str()).map_or(Cow::Owned(folded), |known| Cow::Borrowed(known.names[0]))))
    }

    /// Whether it is an OID whose names are not known here: whatever is said of names, it may be one of them.
    #[must_use]
    pub fn is_unknown_oid(&self) -> bool {
        self.0.starts_with(|first: char| first.is_ascii_digit())
    }

    /// Its usual name, or as it is spelled in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The attributes of which it is a subtype (RFC 4512, 2.5.1): asked for one of these, a directory looks at it, too.
    pub fn superiors(&self) -> impl Iterator<Item = Self> {
        let superior = |name: &str| SPELLINGS.get(name.to_ascii_lowercase().as_str()).and_then(|known| known.superior);
        std::iter::successors(superior(&self.0), move |name| superior(name)).map(|name| Self(Cow::Borrowed(name)))
    }

    /// Every attribute whose names, OIDs and superiors are known here.
    pub fn all_known() -> impl Iterator<Item = Self> {
        KNOWN.iter().map(|known| Self(Cow::Borrowed(known.names[0])))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// By each name in lower case, and by each OID.
static SPELLINGS: LazyLock<HashMap<String, &'static Known>> = LazyLock::new(|| {
    let spellings = KNOWN.iter().flat_map(|known| known.names.iter().map(move |name| (name.to_ascii_lowercase(), known)));
    spellings.collect()
});

/// Some directories let names have underscores.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Whether this is an OID in its one form: numbers without leading zeros, and dots between them.
#[must_use]
pub fn is_oid(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'))
    };
    text.contains('.') && text.split('.').all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(description: &str) -> Attribute {
        Attribute::of(description.as_bytes()).unwrap()
    }

    #[test]
    fn spellings_of_one_attribute_are_equal() {
        for spelling in ["USERPASSWORD", "userpassword;x-old", "2.5.4.35", "2.5.4.35;binary", "oid.2.5.4.35", "OID.2.5.4.35"] {
            assert_eq!(of(spelling), of("userPassword"), "{spelling}");
        }
        assert_eq!(of("1.2.840.113556.1.4.90"), of("unicodePwd"));
        assert_eq!(of("commonName"), of("cn"));
        assert_eq!(of("member;range=0-1499"), of("2.5.4.31"));
        assert_eq!(of("xCustom;lang-en"), of("XCUSTOM"));
        assert_ne!(of("cn"), of("sn"));
        assert!(of("1.2.3.4").is_unknown_oid() && !of("2.5.4.3").is_unknown_oid());
    }

    #[test]
    fn what_is_no_attribute_is_refused() {
        for wrong in [
            "",
            " userPassword",
            "userPassword ",
            "user password",
            "2.5.4.035",
            "2.5.4.",
            "2",
            ".2.5",
            "a.b",
            "*",
            "(cn",
            "ｃｎ",
            ";x",
        ] {
            assert!(Attribute::of(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(Attribute::of(b"c\xffn").is_err());
    }

    #[test]
    fn a_spelling_belongs_to_one_attribute_and_superiors_are_known() {
        let count: usize = KNOWN.iter().map(|known| known.names.len()).sum();
        assert_eq!(SPELLINGS.len(), count, "a spelling is there twice");
        for known in KNOWN {
            assert!(known.names.iter().all(|name| is_name(name) || is_oid(name)), "{:?}", known.names);
            assert!(known.superior.is_none_or(|superior| KNOWN.iter().any(|other| other.names[0] == superior)));
        }
        let superiors: Vec<_> = of("2.5.4.4").superiors().collect();
        assert_eq!(superiors, [of("name")]);
    }
}
