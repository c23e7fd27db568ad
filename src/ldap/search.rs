//! A search as programs ask for it that would rather not speak LDAP, in JSON. Every value has its place, so that none can turn into syntax;
//! what is not known is refused. Refuses to know HTTP, who searches, and what they may find.

pub mod found;
pub mod name;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use self::name::Name;
use super::attribute::Attribute;
use super::ber::Malformed;
use super::filter::Filter;
use super::message::request::Scope;
use super::object::object;
use crate::base::limits::{SEARCH_ATTRIBUTES, SEARCH_PAGE, SEARCH_PAGE_DEFAULT, SEARCH_TIME, SEARCH_TIME_DEFAULT};
use crate::base::secret::Secret;

/// What to search. Its JSON:
///
/// ```json
/// {
///   "bind": {"dn": "cn=reader,dc=corp,dc=example", "password": "…"},
///   "base": [{"ou": "people"}, "dc=corp,dc=example"],
///   "scope": "subtree",
///   "filter": {"and": [{"equal": {"attribute": "uid", "value": "jdoe"}}, {"present": "mail"}]},
///   "attributes": ["cn", "mail"],
///   "page_size": 500, "size_limit": 10000, "time_limit": 60
/// }
/// ```
///
/// All of it may be left out. `base` and `filter` may also be their texts (RFC 4514, RFC 4515).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Where it begins; the root unless said otherwise.
    #[serde(default)]
    pub base: Name,
    /// How far below its base it looks; `subtree` unless said otherwise.
    #[serde(default = "subtree", deserialize_with = "scope")]
    pub scope: Scope,
    /// What is looked for; everything unless said otherwise.
    #[serde(default = "everything")]
    pub filter: Filter,
    /// Which attributes are wanted; none of them named: all but operational ones.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Entries that are asked for at a time, from 1 to [`SEARCH_PAGE`].
    #[serde(default = "page_size")]
    pub page_size: u32,
    /// Entries that are wanted in all; 0 is any number.
    #[serde(default)]
    pub size_limit: u32,
    /// Seconds that all of it may take, from 1 to [`SEARCH_TIME`].
    #[serde(default = "time_limit")]
    pub time_limit: u32,
    /// Who searches; nobody logs in unless said otherwise.
    #[serde(default, deserialize_with = "login")]
    pub bind: Option<Bind>,
}

/// A login by name and password.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// The name, in any form that the directory takes.
    pub dn: Name,
    /// Never empty: with an empty password, a directory would let in whoever has the name, as nobody (RFC 4513, 5.1.2).
    #[serde(deserialize_with = "password")]
    pub password: Secret,
}

impl Query {
    /// Reads a search.
    ///
    /// # Errors
    /// [`Malformed`], with the line and column, and without what stands there: it may be the password.
    pub fn parse(json: &[u8]) -> Result<Self, Malformed> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let query = object::<_, Self>(&mut json).and_then(|query| json.end().map(|()| query));
        let query = query.map_err(|error| Malformed(without_value(&error.to_string()).to_owned().into()))?;
        query.check()?;
        Ok(query)
    }

    fn check(&self) -> Result<(), Malformed> {
        if self.attributes.len() > SEARCH_ATTRIBUTES {
            return Err(Malformed(format!("`attributes`: at most {SEARCH_ATTRIBUTES} can be named").into()));
        }
        for attribute in &self.attributes {
            let special = matches!(attribute.as_str(), "*" | "+" | "1.1");
            if !special && !is_description(attribute) {
                return Err(Malformed::new("`attributes`: one is neither an attribute's name or OID, nor `*`, `+` or `1.1`"));
            }
        }
        for (key, value, most) in [("page_size", self.page_size, SEARCH_PAGE), ("time_limit", self.time_limit, SEARCH_TIME)] {
            if !(1..=most).contains(&value) {
                return Err(Malformed(format!("`{key}`: from 1 to {most}").into()));
            }
        }
        if i32::try_from(self.size_limit).is_err() {
            return Err(Malformed::new("`size_limit`: at most 2147483647"));
        }
        match &self.bind {
            Some(bind) if bind.dn.as_str().is_empty() => Err(Malformed::new("`bind`: without a name nobody logs in")),
            Some(bind) if bind.password.expose().is_empty() => {
                Err(Malformed::new("`bind`: an empty password logs nobody in, whatever the directory says"))
            }
            _ => Ok(()),
        }
    }
}

fn subtree() -> Scope {
    Scope::Subtree
}

fn everything() -> Filter {
    "(objectClass=*)".parse().expect("it is a filter")
}

fn page_size() -> u32 {
    SEARCH_PAGE_DEFAULT
}

fn time_limit() -> u32 {
    SEARCH_TIME_DEFAULT
}

fn scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scope, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Base,
        One,
        Subtree,
    }
    Ok(match Word::deserialize(deserializer)? {
        Word::Base => Scope::Base,
        Word::One => Scope::One,
        Word::Subtree => Scope::Subtree,
    })
}

fn login<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bind>, D::Error> {
    #[derive(Deserialize)]
    struct Login(#[serde(deserialize_with = "object")] Bind);
    Ok(Option::<Login>::deserialize(deserializer)?.map(|Login(bind)| bind))
}

/// A text, and an error that doesn't say what else it is.
fn password<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    struct Password;
    impl Visitor<'_> for Password {
        type Value = Secret;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a password: text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
            Ok(Secret::exactly(text))
        }
    }
    deserializer.deserialize_str(Password)
}

fn is_description(text: &str) -> bool {
    let options = text.bytes().skip_while(|byte| *byte != b';');
    Attribute::of(text.as_bytes()).is_ok() && { options }
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b';' | b'-' | b'_' | b'.' | b'=' | b'*'))
}

/// What was expected, and where. What was found instead may be a secret in the wrong place.
fn without_value(error: &str) -> &str {
    let quotes = error.starts_with("invalid type: ") || error.starts_with("invalid value: ");
    error.rfind("expected ").filter(|_| quotes).map_or(error, |at| &error[at..])
}

#[cfg(test)]
mod tests;
