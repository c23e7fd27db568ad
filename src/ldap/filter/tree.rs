//! A filter as a tree, for JSON: `{"and": [{"equal": {"attribute": "uid", "value": "jdoe"}}, …]}`; or its text, as a string. Refuses to know
//! what a filter asks.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Assertion, Extensible, Filter, Substrings, Term, named};
use crate::ldap::ber::Malformed;
use crate::ldap::object::object;

/// One filter with those in it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tree {
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
    #[serde(deserialize_with = "object")]
    Equal(Compared),
    #[serde(deserialize_with = "object")]
    GreaterOrEqual(Compared),
    #[serde(deserialize_with = "object")]
    LessOrEqual(Compared),
    #[serde(deserialize_with = "object")]
    Approximate(Compared),
    Present(String),
    #[serde(deserialize_with = "object")]
    Substrings(Parts),
    #[serde(deserialize_with = "object")]
    Extensible(Matched),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compared {
    attribute: String,
    value: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    attribute: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    any: Vec<Value>,
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Matched {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attribute: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    value: Value,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dn: bool,
}

/// A value: text as it is meant, nothing escaped; or bytes, as `{"base64": "…"}`.
struct Value(Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Filter;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a filter: its text, or an object such as {\"equal\": {\"attribute\": \"uid\", \"value\": \"jdoe\"}}",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Filter, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Filter, A::Error> {
                Tree::deserialize(MapAccessDeserializer::new(map))?.flat().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Tree::of(self).serialize(serializer)
    }
}

impl Tree {
    /// The same in one list. What is left to do is kept here and not on the stack.
    fn flat(self) -> Result<Filter, Malformed> {
        let mut filter = Filter { terms: Vec::new() };
        let mut left = vec![(self, 0)];
        while let Some((tree, within)) = left.pop() {
            let many = |trees: Vec<Self>, left: &mut Vec<_>| {
                let count = trees.len();
                left.extend(trees.into_iter().rev().map(|tree| (tree, within + 1)));
                count
            };
            let term = match tree {
                Self::And(trees) => Term::And(many(trees, &mut left)),
                Self::Or(trees) => Term::Or(many(trees, &mut left)),
                Self::Not(tree) => {
                    left.push((*tree, within + 1));
                    Term::Not
                }
                Self::Equal(it) => Term::Equal(it.try_into()?),
                Self::GreaterOrEqual(it) => Term::GreaterOrEqual(it.try_into()?),
                Self::LessOrEqual(it) => Term::LessOrEqual(it.try_into()?),
                Self::Approximate(it) => Term::Approximate(it.try_into()?),
                Self::Present(attribute) => Term::Present(named(attribute.as_bytes())?),
                Self::Substrings(it) => Term::Substrings(it.try_into()?),
                Self::Extensible(it) => Term::Extensible(it.try_into()?),
            };
            filter.push(term, within)?;
        }
        Ok(filter)
    }

    /// From the end: what a connective connects is there when it comes.
    fn of(filter: &Filter) -> Self {
        let mut trees: Vec<Self> = Vec::new();
        for term in filter.terms.iter().rev() {
            let take = |count: usize, trees: &mut Vec<Self>| trees.split_off(trees.len() - count).into_iter().rev().collect();
            let tree = match term {
                Term::And(count) => Self::And(take(*count, &mut trees)),
                Term::Or(count) => Self::Or(take(*count, &mut trees)),
                Term::Not => Self::Not(Box::new(trees.pop().expect("a filter follows its `not`"))),
                Term::Equal(it) => Self::Equal(it.into()),
                Term::GreaterOrEqual(it) => Self::GreaterOrEqual(it.into()),
                Term::LessOrEqual(it) => Self::LessOrEqual(it.into()),
                Term::Approximate(it) => Self::Approximate(it.into()),
                Term::Present(attribute) => Self::Present(attribute.clone()),
                Term::Substrings(it) => Self::Substrings(it.into()),
                Term::Extensible(it) => Self::Extensible(it.into()),
            };
            trees.push(tree);
        }
        trees.pop().expect("a filter has a term")
    }
}

impl TryFrom<Compared> for Assertion {
    type Error = Malformed;
    fn try_from(it: Compared) -> Result<Self, Malformed> {
        Ok(Self { attribute: named(it.attribute.as_bytes())?, value: it.value.0 })
    }
}

impl From<&Assertion> for Compared {
    fn from(it: &Assertion) -> Self {
        Self { attribute: it.attribute.clone(), value: Value(it.value.clone()) }
    }
}

impl TryFrom<Parts> for Substrings {
    type Error = Malformed;
    fn try_from(it: Parts) -> Result<Self, Malformed> {
        let attribute = named(it.attribute.as_bytes())?;
        let any = it.any.into_iter().map(|part| part.0).collect();
        Self { attribute, initial: it.initial.map(|part| part.0), any, last: it.last.map(|part| part.0) }.checked()
    }
}

impl From<&Substrings> for Parts {
    fn from(it: &Substrings) -> Self {
        let value = |part: &Vec<u8>| Value(part.clone());
        Self {
            attribute: it.attribute.clone(),
            initial: it.initial.as_ref().map(value),
            any: it.any.iter().map(value).collect(),
            last: it.last.as_ref().map(value),
        }
    }
}

impl TryFrom<Matched> for Extensible {
    type Error = Malformed;
    fn try_from(it: Matched) -> Result<Self, Malformed> {
        let attribute = it.attribute.map(|attribute| named(attribute.as_bytes())).transpose()?;
        Self { rule: it.rule, attribute, value: it.value.0, dn: it.dn }.checked()
    }
}

impl From<&Extensible> for Matched {
    fn from(it: &Extensible) -> Self {
        Self { attribute: it.attribute.clone(), rule: it.rule.clone(), value: Value(it.value.clone()), dn: it.dn }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value: text, or {\"base64\": \"…\"}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(text.as_bytes().to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                let encoded = Encoded::deserialize(MapAccessDeserializer::new(map))?;
                STANDARD.decode(encoded.base64).map(Value).map_err(|_| A::Error::custom("a value's base64 is none"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}
