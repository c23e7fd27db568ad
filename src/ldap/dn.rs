//! Distinguished names, read from their text (RFC 4514) and compared by what they mean. Refuses to know which of them a client may name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::attribute::Attribute;
use super::ber::{Element, Malformed};

/// A distinguished name. Two are equal if their parts are: types by whatever spelling, values without regard to case and to the number of
/// spaces (RFC 4517, 4.2.11 `caseIgnoreMatch`).
///
/// Quoted values (RFC 2253), semicolons between parts, and the forms in angle brackets that Active Directory knows beside DNs are refused.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dn {
    text: String,
    /// The entry's own first, the root's last.
    rdns: Vec<Rdn>,
}

/// The parts of one level, in an order of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rdn(Vec<(Attribute, Value)>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Folded.
    Text(String),
    /// Of a type that is no text: BER as it is.
    Other(Vec<u8>),
}

impl Dn {
    /// Reads a DN as a message has it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(text).map_err(|_| Malformed::new("a DN that is not UTF-8"))?;
        if text.starts_with('<') {
            return Err(Malformed::new("a name in angle brackets, which Active Directory knows beside DNs, and which is none"));
        }
        Ok(Self { text: text.to_owned(), rdns: Cursor { rest: text }.dn()? })
    }

    /// Whether this is `base` or below it. Everything is within the root, which is empty.
    #[must_use]
    pub fn is_within(&self, base: &Self) -> bool {
        self.rdns.ends_with(&base.rdns)
    }

    /// The attributes of its own level.
    pub fn naming_attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.rdns.first().into_iter().flat_map(|rdn| rdn.0.iter().map(|(attribute, _)| attribute))
    }

    /// The attributes of all its levels.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.rdns.iter().flat_map(|rdn| rdn.0.iter().map(|(attribute, _)| attribute))
    }

    /// How many levels it has.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.rdns.len()
    }

    /// The name of an entry that is called `rdn` below `superior`, or in this one's place.
    #[must_use]
    pub fn renamed(&self, rdn: &Self, superior: Option<&Self>) -> Self {
        let above = superior.map_or_else(|| self.rdns.get(1..).unwrap_or_default(), |superior| &superior.rdns[..]);
        Self { text: rdn.text.clone(), rdns: [&rdn.rdns[..], above].concat() }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Dn {
    fn eq(&self, other: &Self) -> bool {
        self.rdns == other.rdns
    }
}

impl Eq for Dn {}

impl fmt::Display for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Dn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl FromStr for Dn {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::parse(text.as_bytes())
    }
}

impl TryFrom<String> for Dn {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Dn> for String {
    fn from(dn: Dn) -> Self {
        dn.text
    }
}

/// What of the text has not been read yet.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn dn(&mut self) -> Result<Vec<Rdn>, Malformed> {
        let mut rdns = Vec::new();
        self.skip_spaces();
        if self.rest.is_empty() {
            return Ok(rdns);
        }
        loop {
            rdns.push(self.rdn()?);
            match self.take() {
                None => return Ok(rdns),
                Some(',') => {}
                Some(_) => return Err(Malformed::new("a DN with something other than a comma between its parts")),
            }
        }
    }

    fn rdn(&mut self) -> Result<Rdn, Malformed> {
        let mut parts = Vec::new();
        loop {
            parts.push(self.part()?);
            if !self.rest.starts_with('+') {
                break;
            }
            self.take();
        }
        parts.sort();
        Ok(Rdn(parts))
    }

    /// `type=value`, with the spaces around that older clients write.
    fn part(&mut self) -> Result<(Attribute, Value), Malformed> {
        let Some((name, rest)) = self.rest.split_once('=') else {
            return Err(Malformed::new("a DN with a part that is no `type=value`"));
        };
        let name = name.trim_matches(' ');
        if name.contains(';') {
            return Err(Malformed::new("a DN with options of an attribute"));
        }
        let attribute = Attribute::of(name.as_bytes())?;
        self.rest = rest;
        self.skip_spaces();
        let value = if self.rest.starts_with('#') { self.encoded()? } else { Value::Text(folded(&self.text()?)) };
        self.skip_spaces();
        Ok((attribute, value))
    }

    /// A value with its escapes undone, to the separator behind it.
    fn text(&mut self) -> Result<String, Malformed> {
        let mut value = Vec::new();
        // Spaces that end it don't belong to it, unless one is escaped.
        let mut kept = 0;
        while let Some(next) = self.rest.chars().next().filter(|next| !matches!(next, ',' | '+')) {
            self.rest = &self.rest[next.len_utf8()..];
            match next {
                '\\' => value.push(self.escaped()?),
                '"' | ';' | '<' | '>' | '\0' => return Err(Malformed::new("a DN with a character that must be escaped")),
                other => value.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            if next != ' ' {
                kept = value.len();
            }
        }
        value.truncate(kept);
        String::from_utf8(value).map_err(|_| Malformed::new("a DN with a value that is not UTF-8"))
    }

    /// What a backslash stands before: a special character, or two hex digits.
    fn escaped(&mut self) -> Result<u8, Malformed> {
        let bytes = self.rest.as_bytes();
        let wrong = || Malformed::new("a DN with a backslash before something that needs none");
        let first = *bytes.first().ok_or_else(wrong)?;
        if br##" "#+,;<=>\"##.contains(&first) {
            self.rest = &self.rest[1..];
            return Ok(first);
        }
        let byte = bytes.get(..2).and_then(hex_byte).ok_or_else(wrong)?;
        self.rest = &self.rest[2..];
        Ok(byte)
    }

    /// `#` and a value's BER in hex. A text is the same as if it had been written as text.
    fn encoded(&mut self) -> Result<Value, Malformed> {
        let end = self.rest.find([',', '+', ' ']).unwrap_or(self.rest.len());
        let (digits, rest) = (&self.rest.as_bytes()[1..end], &self.rest[end..]);
        self.rest = rest;
        let bytes: Option<Vec<u8>> = if digits.len() % 2 == 0 { digits.chunks(2).map(hex_byte).collect() } else { None };
        let bytes = bytes.ok_or(Malformed::new("a DN with a `#` and no hex digits behind it"))?;
        let element = Element::only(&bytes, "a DN with a `#` and no BER behind it")?;
        match element.tag {
            // OCTET STRING, UTF8String, PrintableString, IA5String.
            0x04 | 0x0c | 0x13 | 0x16 => Ok(Value::Text(folded(element.text("a DN's value")?))),
            _ => Ok(Value::Other(bytes)),
        }
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    }
}

/// Lower case, single spaces, none at the ends.
fn folded(value: &str) -> String {
    let mut folded = String::with_capacity(value.len());
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.extend(word.chars().flat_map(char::to_lowercase));
    }
    folded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dn(text: &str) -> Dn {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn names_are_equal_by_what_they_mean() {
        for (one, other) in [
            ("OU=People,DC=Corp,DC=Example", "ou=people,dc=corp,dc=example"),
            ("ou = people , dc = corp", "ou=people,dc=corp"),
            ("2.5.4.11=People,dc=corp", "organizationalUnitName=people,DC=corp"),
            ("OID.2.5.4.11=People", "ou=people"),
            ("cn=Smith\\, John,dc=x", "cn=smith\\2c  john,dc=x"),
            ("cn=a+sn=b,dc=x", "SN=B+CN=A,dc=x"),
            ("cn=\\4a\\6fe", "cn=joe"),
            ("cn=#04024869", "cn=hi"),
            ("cn=#0c024869 , dc=x", "cn=Hi,dc=x"),
            ("cn=  a   b  ", "cn=a b"),
            ("cn=Lu\\C4\\8Di\\C4\\87", "cn=lučić"),
            ("cn=\\ a", "cn=a"),
            ("", "   "),
            ("cn=", "cn= "),
        ] {
            assert_eq!(dn(one), dn(other), "{one} {other}");
        }
        for (one, other) in
            [("cn=a,dc=x", "cn=a"), ("cn=a\\,dc=x", "cn=a,dc=x"), ("cn=a+sn=b", "cn=a,sn=b"), ("cn=#020101", "cn=1")]
        {
            assert_ne!(dn(one), dn(other), "{one} {other}");
        }
    }

    #[test]
    fn within_is_decided_by_whole_levels() {
        let base = dn("ou=people,dc=corp,dc=example");
        assert!(dn("uid=x,OU=People,DC=corp,DC=example").is_within(&base));
        assert!(dn("OU=People,DC=corp,DC=example").is_within(&base));
        assert!(base.is_within(&dn("")));
        for outside in [
            "dc=corp,dc=example",
            "ou=groups,dc=corp,dc=example",
            "uid=x\\,ou=people\\,dc=corp\\,dc=example",
            "uid=x,ou=people,dc=corp,dc=example,dc=evil",
            "xou=people,dc=corp,dc=example",
            "uid=x\\,ou=people,dc=corp,dc=example",
            "cn=\"x,ou=people,dc=corp,dc=example",
            "",
        ] {
            assert!(!outside.parse::<Dn>().is_ok_and(|it| it.is_within(&base)), "{outside}");
        }
    }

    #[test]
    fn what_readers_read_differently_is_refused() {
        for wrong in [
            "<GUID=b3d8d7e0f0a54c4f9a5b0c8f0d0a1b2c>",
            "<SID=S-1-5-21>",
            "<WKGUID=aa312825768811d1aded00c04fd8d5cd,dc=corp>",
            "<GUID=x>;<SID=y>;cn=a",
            "cn=a;dc=x",
            "cn=\"a,b\",dc=x",
            "cn=a,",
            ",cn=a",
            "cn=a,,dc=x",
            "cn=a++sn=b",
            "cn",
            "=a",
            "cn=a\0",
            "cn=a\\",
            "cn=a\\z",
            "cn=\\ff",
            "cn=\\c0\\af",
            "cn=#",
            "cn=#0",
            "cn=#04",
            "cn=#0401",
            "cn=#zz",
            "cn=#04016100",
            "cn;lang-en=a",
        ] {
            assert!(wrong.parse::<Dn>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_renamed_entry_lies_where_it_was_or_below_its_new_superior() {
        let entry = dn("uid=x,ou=people,dc=corp");
        assert_eq!(entry.renamed(&dn("uid=y"), None), dn("uid=y,ou=people,dc=corp"));
        assert_eq!(entry.renamed(&dn("uid=y"), Some(&dn("dc=corp"))), dn("uid=y,dc=corp"));
    }

    proptest! {
        /// E6: whatever a value is, escaped it stays one value.
        #[test]
        fn e6_an_escaped_value_never_becomes_another_level(value in "\\PC{0,12}|[ ,+=\"\\\\<>;#\u{0}]{0,8}") {
            let escaped: String = value.bytes().map(|byte| format!("\\{byte:02x}")).collect();
            let named = dn(&format!("cn={escaped},ou=people,dc=corp"));
            prop_assert_eq!(named.levels(), 3);
            prop_assert!(named.is_within(&dn("ou=people,dc=corp")));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-c=,+\\\\#\" 0-9<>;]{0,24}") {
            if let Ok(read) = text.parse::<Dn>() {
                prop_assert!(read.is_within(&read) && read.is_within(&dn("")));
            }
        }
    }
}
