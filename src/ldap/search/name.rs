//! A name, as its text (RFC 4514) or in parts that need no escaping. Refuses to know whose it is.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::ldap::attribute::Attribute;
use crate::ldap::ber::Malformed;
use crate::ldap::dn::Dn;

/// A name as LDAP has it.
///
/// In JSON it is its text, or a list, the entry's own level first: `[{"cn": "Doe, Jane"}, "ou=people,dc=corp,dc=example"]`. A value within
/// an object is taken as it is, whatever is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name: its text, or a list of its parts such as [{\"uid\": \"jdoe\"}, \"dc=corp,dc=example\"]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Name, A::Error> {
                let mut texts = Vec::new();
                while let Some(Part(text)) = parts.next_element()? {
                    texts.push(text);
                }
                Ok(Name(texts.join(",")))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// One level as an object, or several as their text.
struct Part(String);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part of a name: {\"uid\": \"jdoe\"}, or the text of a name")
            }

            /// A text that is a name by itself, so that it ends where it ends.
            fn visit_str<E: Error>(self, text: &str) -> Result<Part, E> {
                let dn: Dn = text.parse().map_err(E::custom)?;
                match dn.levels() {
                    0 => Err(E::custom("a part of a name is empty")),
                    _ => Ok(Part(text.to_owned())),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut parts: Vec<(String, String)> = Vec::new();
                while let Some((attribute, value)) = map.next_entry::<String, String>()? {
                    if parts.iter().any(|(other, _)| *other == attribute) {
                        return Err(A::Error::custom("a part of a name has an attribute twice"));
                    }
                    parts.push((attribute, value));
                }
                rdn(&parts).map(Part).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn rdn(parts: &[(String, String)]) -> Result<String, Malformed> {
    if parts.is_empty() {
        return Err(Malformed::new("a part of a name is empty"));
    }
    let mut texts = Vec::with_capacity(parts.len());
    for (attribute, value) in parts {
        if attribute.contains(';') {
            return Err(Malformed::new("a part of a name has an attribute's options"));
        }
        Attribute::of(attribute.as_bytes())?;
        texts.push(format!("{attribute}={}", escaped(value)));
    }
    Ok(texts.join("+"))
}

/// A value as a DN has it (RFC 4514, 2.4). Whatever could mean something is written as hex, which every reader reads the same.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let outside = at == 0 || at + c.len_utf8() == value.len();
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' | '#') || c.is_ascii_control();
        if special || (c == ' ' && outside) {
            text.push_str(&format!("\\{:02x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(json: &serde_json::Value) -> Result<Name, serde_json::Error> {
        serde_json::from_value(json.clone())
    }

    #[test]
    fn a_name_is_its_text_or_its_parts() {
        let json = r#"[{"cn": "Doe, Jane #1 "}, {"ou": "a", "l": "b"}, "dc=corp,dc=example"]"#;
        let made: Name = serde_json::from_str(json).unwrap();
        assert_eq!(made.as_str(), "cn=Doe\\2c Jane \\231\\20,ou=a+l=b,dc=corp,dc=example");
        assert_eq!(name(&serde_json::json!("<GUID=1234>")).unwrap().as_str(), "<GUID=1234>");
        assert_eq!(name(&serde_json::json!([])).unwrap(), Name::default());
    }

    #[test]
    fn e6_a_part_cannot_reach_into_the_next() {
        for wrong in [
            r#"["ou=x\\"]"#,
            r#"["ou=x", ""]"#,
            r#"["ou=\"x"]"#,
            r#"[{}]"#,
            r#"[{"uid=x,ou": "y"}]"#,
            r#"[{"cn;binary": "y"}]"#,
            r#"[{"cn": "y", "cn": "z"}]"#,
            r#"[{"cn": 1}]"#,
            r#"[["cn", "y"]]"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<Name>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn e6_a_value_stays_one_value_of_one_level(value in "\\PC*|[\\x00 \\\\,+=\"<>;#a]{0,12}") {
            let made = name(&serde_json::json!([{"uid": value}, "ou=people,dc=corp,dc=example"])).unwrap();
            let dn: Dn = made.as_str().parse().unwrap();
            prop_assert_eq!(dn.levels(), 4);
            prop_assert!(dn.is_within(&"ou=people,dc=corp,dc=example".parse().unwrap()));
            // Another reader's words for the same.
            let theirs: Dn = format!("uid={},ou=people,dc=corp,dc=example", ldap3::dn_escape(value.as_str())).parse().unwrap();
            prop_assert_eq!(dn, theirs);
        }
    }
}
