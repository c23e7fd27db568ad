//! A request in one line, as `agent check --explain` takes it: `ldap TARGET OPERATION KEY=VALUE…`. It is made a message and decided as any
//! client's. Refuses to know connections.

use std::str::FromStr;
use std::sync::Arc;

use super::{Conversation, Rule, Rules, Up};
use crate::base::code::{Code, Failure};
use crate::base::id::{Name, printable};
use crate::ldap::attribute::Attribute;
use crate::ldap::ber::{Writer, tag};
use crate::ldap::filter::Filter;
use crate::ldap::message::Operation;
use crate::ldap::message::answer;
use crate::ldap::message::request::Scope;

/// A request that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The target it is for.
    pub target: Name,
    operation: Operation,
    message: Vec<u8>,
    /// The attributes that a search wants.
    wanted: Vec<String>,
}

/// What the rules say to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it passes.
    pub allowed: bool,
    /// What decided.
    pub rule: Rule,
    /// In words: why it does not pass, or what becomes of it on its way.
    pub why: String,
    /// Attributes that a search asks for and that are left out of its entries.
    pub left_out: Vec<String>,
}

/// The keys of a question; a value goes on to the next of them.
const KEYS: [&str; 12] =
    ["base", "scope", "filter", "attributes", "dn", "attribute", "value", "new_rdn", "new_superior", "oid", "size", "time"];

/// Those that say something about an operation.
fn keys(operation: Operation) -> &'static [&'static str] {
    match operation {
        Operation::Search => &["base", "scope", "filter", "attributes", "size", "time"],
        Operation::Compare => &["dn", "attribute", "value"],
        Operation::Bind | Operation::Delete => &["dn"],
        Operation::Modify | Operation::Add => &["dn", "attributes"],
        Operation::ModifyDn => &["dn", "new_rdn", "new_superior"],
        Operation::Extended => &["oid"],
    }
}

impl Question {
    /// The request as a client would send it.
    #[cfg(test)]
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// What these rules say.
    #[must_use]
    pub fn ask(&self, rules: &Arc<Rules>) -> Answer {
        let up = Conversation::new(rules.clone()).client(&self.message);
        let (allowed, rule, why) = match up {
            Ok(Up::Answer(_, Some(denial))) => (false, denial.rule, denial.why),
            Ok(Up::Answer(_, None)) => (true, Rule::Operations, "the agent answers it".to_owned()),
            Ok(Up::Replace(_)) => (true, Rule::Operations, "its limits are made those of the rules".to_owned()),
            Ok(_) => {
                (true, Rule::Operations, format!("{} is among the operations, and nothing denies this one", self.operation))
            }
            Err(why) => (false, Rule::Operations, why.to_string()),
        };
        let readable = |name: &&String| {
            matches!(name.as_str(), "*" | "+" | "1.1")
                || Attribute::of(name.as_bytes()).is_ok_and(|attribute| rules.is_readable(&attribute))
        };
        let left_out = self.wanted.iter().filter(|name| !readable(name)).cloned().collect();
        Answer { allowed, rule, why, left_out }
    }
}

impl FromStr for Question {
    type Err = Failure;

    /// `usage`, if the line is no such question.
    fn from_str(line: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            let line = printable(line, 256);
            let form = "write `ldap TARGET search base=DN scope=SCOPE filter=FILTER attributes=A,B`, or another operation with its own keys";
            Failure::new(Code::Usage, format_args!("`{line}`: {why}; {form}"))
        };
        let mut words = line.trim().splitn(4, ' ');
        let (Some("ldap"), Some(target), Some(operation)) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("`ldap`, a target and an operation are needed"));
        };
        let target = Name::parse(target).map_err(|error| wrong(&error.to_string()))?;
        let operation = Operation::ALL.into_iter().find(|known| known.as_str() == operation);
        let operation = operation.ok_or_else(|| wrong("the operation is not known"))?;
        let values = Values::read(words.next().unwrap_or_default()).map_err(|why| wrong(&why))?;
        if let Some((key, _)) = values.0.iter().find(|(key, _)| !keys(operation).contains(key)) {
            return Err(wrong(&format!(
                "`{key}=` says nothing about {operation}; of it are said {}",
                keys(operation).join(", ")
            )));
        }
        let message = values.message(operation).map_err(|why| wrong(&why))?;
        Ok(Self { target, operation, message, wanted: values.list("attributes").map(str::to_owned).collect() })
    }
}

/// The values of a question, by key.
struct Values<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Values<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut values: Vec<(&'a str, &'a str)> = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let key = key_of(rest).ok_or_else(|| format!("`{}` is not KEY=VALUE", printable(rest, 64)))?;
            rest = &rest[key.len() + 1..];
            let next = rest.match_indices(' ').find(|(at, _)| key_of(&rest[at + 1..]).is_some());
            let end = next.map_or(rest.len(), |(at, _)| at);
            values.push((key, rest[..end].trim()));
            rest = rest[end..].trim_start();
        }
        Ok(Self(values))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    fn need(&self, key: &str) -> Result<&'a str, String> {
        self.get(key).ok_or_else(|| format!("`{key}=` is missing"))
    }

    fn list(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.get(key).unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty())
    }

    fn number(&self, key: &str) -> Result<u32, String> {
        self.get(key)
            .unwrap_or("0")
            .parse()
            .ok()
            .filter(|number| *number < 1 << 31)
            .ok_or_else(|| format!("`{key}=` is no number"))
    }

    /// The request that is meant, as a client would send it.
    fn message(&self, operation: Operation) -> Result<Vec<u8>, String> {
        let mut writer = Writer::default();
        match operation {
            Operation::Search => self.search(&mut writer)?,
            Operation::Compare => {
                let (dn, attribute, value) = (self.need("dn")?, self.need("attribute")?, self.get("value").unwrap_or_default());
                writer.constructed(0x6e, |it| {
                    it.octets(tag::OCTETS, dn.as_bytes());
                    it.constructed(tag::SEQUENCE, |it| {
                        it.octets(tag::OCTETS, attribute.as_bytes());
                        it.octets(tag::OCTETS, value.as_bytes());
                    });
                });
            }
            Operation::Bind => {
                let name = self.get("dn").unwrap_or_default();
                writer.constructed(0x60, |it| {
                    it.number(tag::INTEGER, 3);
                    it.octets(tag::OCTETS, name.as_bytes());
                    it.octets(tag::context(0), if name.is_empty() { b"" } else { b"-" });
                });
            }
            Operation::Modify | Operation::Add => self.change(operation, &mut writer)?,
            Operation::Delete => writer.octets(0x4a, self.need("dn")?.as_bytes()),
            Operation::ModifyDn => {
                let (dn, rdn, superior) = (self.need("dn")?, self.need("new_rdn")?, self.get("new_superior"));
                writer.constructed(0x6c, |it| {
                    it.octets(tag::OCTETS, dn.as_bytes());
                    it.octets(tag::OCTETS, rdn.as_bytes());
                    it.truth(tag::BOOLEAN, true);
                    superior.into_iter().for_each(|superior| it.octets(tag::context(0), superior.as_bytes()));
                });
            }
            Operation::Extended => {
                let oid = self.need("oid")?;
                writer.constructed(0x77, |it| it.octets(tag::context(0), oid.as_bytes()));
            }
        }
        Ok(answer::request(1, &writer.into_bytes(), &[]))
    }

    fn search(&self, writer: &mut Writer) -> Result<(), String> {
        let filter: Filter = self.get("filter").unwrap_or("(objectClass=*)").parse().map_err(|why| format!("{why}"))?;
        let scope = match self.get("scope").unwrap_or("subtree") {
            "base" => Scope::Base,
            "one" => Scope::One,
            "subtree" => Scope::Subtree,
            _ => return Err("`scope=` is base, one or subtree".to_owned()),
        };
        let (size, time) = (self.number("size")?, self.number("time")?);
        writer.constructed(0x63, |it| {
            it.octets(tag::OCTETS, self.get("base").unwrap_or_default().as_bytes());
            it.number(tag::ENUMERATED, scope as u32);
            it.number(tag::ENUMERATED, 0);
            it.number(tag::INTEGER, size);
            it.number(tag::INTEGER, time);
            it.truth(tag::BOOLEAN, false);
            filter.write(it);
            it.constructed(tag::SEQUENCE, |it| {
                self.list("attributes").for_each(|name| it.octets(tag::OCTETS, name.as_bytes()))
            });
        });
        Ok(())
    }

    /// A modify that replaces attributes by nothing, or an add of attributes without values: rules look at neither.
    fn change(&self, operation: Operation, writer: &mut Writer) -> Result<(), String> {
        let dn = self.need("dn")?;
        let attribute = |it: &mut Writer, name: &str| {
            it.constructed(tag::SEQUENCE, |it| {
                it.octets(tag::OCTETS, name.as_bytes());
                it.constructed(tag::SET, |_| {});
            });
        };
        let modify = operation == Operation::Modify;
        writer.constructed(if modify { 0x66 } else { 0x68 }, |it| {
            it.octets(tag::OCTETS, dn.as_bytes());
            it.constructed(tag::SEQUENCE, |it| {
                for name in self.list("attributes") {
                    if modify {
                        it.constructed(tag::SEQUENCE, |it| {
                            it.number(tag::ENUMERATED, 2);
                            attribute(it, name);
                        });
                    } else {
                        attribute(it, name);
                    }
                }
            });
        });
        Ok(())
    }
}

/// The key that a text begins with.
fn key_of(text: &str) -> Option<&str> {
    let (key, _) = text.split_once('=')?;
    KEYS.contains(&key).then_some(key)
}
