//! What a client asks (RFC 4511, 4.2 to 4.12), where it lies in its message. Refuses to know whether it may.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Message, Operation};
use crate::ldap::ber::{Element, Malformed, tag};
use crate::ldap::filter::Filter;

/// A request.
#[derive(Debug)]
pub enum Request<'a> {
    /// Logs in.
    Bind(Bind<'a>),
    /// Says farewell; it is not answered.
    Unbind,
    /// Finds entries.
    Search(Box<Search<'a>>),
    /// Changes the attributes of an entry.
    Modify(Changed<'a>),
    /// Adds an entry with attributes.
    Add(Changed<'a>),
    /// Deletes the entry of this name.
    Delete(&'a [u8]),
    /// Renames or moves an entry.
    ModifyDn(ModifyDn<'a>),
    /// Asks whether an entry has a value.
    Compare(Compare<'a>),
    /// Takes back the request of this id; it is not answered.
    Abandon(u32),
    /// Anything else, by OID.
    Extended(&'a str),
}

/// A bind.
#[derive(Debug)]
pub struct Bind<'a> {
    /// The protocol's version: 3.
    pub version: u32,
    /// As whom.
    pub name: &'a [u8],
    /// By what.
    pub proof: Proof<'a>,
}

/// How a client proves who it is.
#[derive(Debug)]
pub enum Proof<'a> {
    /// By a password.
    Simple(Password<'a>),
    /// By a mechanism of this name (RFC 4513, 5.2).
    Sasl(&'a str),
    /// By a way that is not LDAP's: Active Directory has some for NTLM.
    Other,
}

/// A password, of which only one thing can be told.
pub struct Password<'a>(&'a [u8]);

impl Password<'_> {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// How far below its base a search looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// At the base alone.
    Base,
    /// At the entries right below it.
    One,
    /// At all below it; with or without the base, which some directories tell apart.
    Subtree,
}

impl Scope {
    /// The name that is printed and configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::One => "one",
            Self::Subtree => "subtree",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A search.
#[derive(Debug)]
pub struct Search<'a> {
    /// Where it begins.
    pub base: &'a [u8],
    /// How far it goes.
    pub scope: Scope,
    /// Which aliases it follows: none, those below the base, those on the way to it, all (0 to 3).
    pub aliases: u32,
    /// Entries that are wanted at most; 0 is any number.
    pub size_limit: u32,
    /// Seconds that it may take; 0 is any time.
    pub time_limit: u32,
    /// What is looked for.
    pub filter: Filter,
    /// Which attributes are wanted, as they were written.
    pub attributes: Vec<&'a [u8]>,
    /// The elements that aliases and limits stand between.
    parts: Parts<'a>,
}

#[derive(Debug)]
struct Parts<'a> {
    before: [&'a [u8]; 2],
    after: [&'a [u8]; 3],
}

impl<'a> Search<'a> {
    /// Its operation again, with another way with aliases and other limits.
    #[must_use]
    pub fn altered(&self, aliases: u32, size: u32, time: u32) -> Vec<u8> {
        let mut writer = crate::ldap::ber::Writer::default();
        writer.constructed(0x63, |writer| {
            self.parts.before.iter().for_each(|part| writer.whole(part));
            writer.number(tag::ENUMERATED, aliases);
            writer.number(tag::INTEGER, size);
            writer.number(tag::INTEGER, time);
            self.parts.after.iter().for_each(|part| writer.whole(part));
        });
        writer.into_bytes()
    }

    fn read(op: Element<'a>) -> Result<Self, Malformed> {
        let mut children = op.children();
        let base = children.expect(tag::OCTETS, "a search's base")?;
        let scope = children.expect(tag::ENUMERATED, "a search's scope")?;
        let aliases = children.expect(tag::ENUMERATED, "a search's way with aliases")?;
        let size_limit = children.expect(tag::INTEGER, "a search's size limit")?.number("a search's size limit")?;
        let time_limit = children.expect(tag::INTEGER, "a search's time limit")?.number("a search's time limit")?;
        let types_only = children.expect(tag::BOOLEAN, "a search's choice of values")?;
        let filter = children.next()?.ok_or(Malformed::new("a search without a filter"))?;
        let selection = children.expect(tag::SEQUENCE, "a search's attributes")?;
        children.end("a search")?;
        types_only.truth("a search's choice of values")?;
        let aliases = aliases.number("a search's way with aliases")?;
        if aliases > 3 {
            return Err(Malformed::new("a search with an unknown way with aliases"));
        }
        Ok(Self {
            base: base.content,
            scope: match scope.number("a search's scope")? {
                0 => Scope::Base,
                1 => Scope::One,
                2 | 3 => Scope::Subtree,
                _ => return Err(Malformed::new("a search with an unknown scope")),
            },
            aliases,
            size_limit,
            time_limit,
            filter: Filter::from_ber(filter)?,
            attributes: octets_of(selection, "a search's attributes")?,
            parts: Parts { before: [base.whole, scope.whole], after: [types_only.whole, filter.whole, selection.whole] },
        })
    }
}

/// A modify or an add.
#[derive(Debug)]
pub struct Changed<'a> {
    /// The entry.
    pub dn: &'a [u8],
    /// The attributes that are changed, or that the new entry has; as they were written.
    pub attributes: Vec<&'a [u8]>,
}

/// A modifyDN.
#[derive(Debug)]
pub struct ModifyDn<'a> {
    /// The entry.
    pub dn: &'a [u8],
    /// How it is to be called.
    pub rdn: &'a [u8],
    /// Whether the values that name it now are taken from it.
    pub deletes_old: bool,
    /// Below which entry, if elsewhere.
    pub superior: Option<&'a [u8]>,
}

/// A compare.
#[derive(Debug)]
pub struct Compare<'a> {
    /// The entry.
    pub dn: &'a [u8],
    /// The attribute, as it was written.
    pub attribute: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a client's message.
    ///
    /// # Errors
    /// [`Malformed`], also for what is no request.
    pub fn read(message: &Message<'a>) -> Result<Self, Malformed> {
        let op = message.op;
        Ok(match op.tag {
            0x60 => Self::Bind(Bind::read(op)?),
            0x42 if op.content.is_empty() => Self::Unbind,
            0x42 => return Err(Malformed::new("an unbind with something in it")),
            0x63 => Self::Search(Box::new(Search::read(op)?)),
            0x66 => Self::Modify(modify(op)?),
            0x68 => Self::Add(add(op)?),
            0x4a => Self::Delete(op.content),
            0x6c => Self::ModifyDn(modify_dn(op)?),
            0x6e => Self::Compare(compare(op)?),
            0x50 => Self::Abandon(op.number("the id of an abandoned operation")?),
            0x77 => Self::Extended(extended(op)?),
            _ => return Err(Malformed::new("a message that is no request")),
        })
    }

    /// What answers it; nothing does an abandon and an unbind.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        match self {
            Self::Bind(_) => Some(Operation::Bind),
            Self::Search(_) => Some(Operation::Search),
            Self::Modify(_) => Some(Operation::Modify),
            Self::Add(_) => Some(Operation::Add),
            Self::Delete(_) => Some(Operation::Delete),
            Self::ModifyDn(_) => Some(Operation::ModifyDn),
            Self::Compare(_) => Some(Operation::Compare),
            Self::Extended(_) => Some(Operation::Extended),
            Self::Unbind | Self::Abandon(_) => None,
        }
    }
}

impl<'a> Bind<'a> {
    fn read(op: Element<'a>) -> Result<Self, Malformed> {
        let mut children = op.children();
        let version = children.expect(tag::INTEGER, "a bind's version")?.number("a bind's version")?;
        let name = children.expect(tag::OCTETS, "a bind's name")?.content;
        let proof = children.next()?.ok_or(Malformed::new("a bind without a proof"))?;
        children.end("a bind")?;
        let proof = match proof.tag {
            0x80 => Proof::Simple(Password(proof.content)),
            0xa3 => Proof::Sasl(proof.children().expect(tag::OCTETS, "a bind's mechanism")?.text("a bind's mechanism")?),
            _ => Proof::Other,
        };
        Ok(Self { version, name, proof })
    }
}

fn modify<'a>(op: Element<'a>) -> Result<Changed<'a>, Malformed> {
    let mut children = op.children();
    let dn = children.expect(tag::OCTETS, "a modify's entry")?.content;
    let mut changes = children.expect(tag::SEQUENCE, "a modify's changes")?.children();
    children.end("a modify")?;
    let mut attributes = Vec::new();
    while let Some(change) = changes.optional(tag::SEQUENCE)? {
        let mut parts = change.children();
        parts.expect(tag::ENUMERATED, "a change's kind")?;
        attributes.push(attribute_of(parts.expect(tag::SEQUENCE, "a change's attribute")?)?);
        parts.end("a change")?;
    }
    changes.end("a modify's changes")?;
    Ok(Changed { dn, attributes })
}

fn add<'a>(op: Element<'a>) -> Result<Changed<'a>, Malformed> {
    let mut children = op.children();
    let dn = children.expect(tag::OCTETS, "an add's entry")?.content;
    let mut list = children.expect(tag::SEQUENCE, "an add's attributes")?.children();
    children.end("an add")?;
    let mut attributes = Vec::new();
    while let Some(attribute) = list.optional(tag::SEQUENCE)? {
        attributes.push(attribute_of(attribute)?);
    }
    list.end("an add's attributes")?;
    Ok(Changed { dn, attributes })
}

/// The description of an attribute with its values.
fn attribute_of<'a>(element: Element<'a>) -> Result<&'a [u8], Malformed> {
    let mut parts = element.children();
    let description = parts.expect(tag::OCTETS, "an attribute's name")?.content;
    parts.expect(tag::SET, "an attribute's values")?;
    parts.end("an attribute")?;
    Ok(description)
}

fn modify_dn<'a>(op: Element<'a>) -> Result<ModifyDn<'a>, Malformed> {
    let mut children = op.children();
    let dn = children.expect(tag::OCTETS, "a modifyDN's entry")?.content;
    let rdn = children.expect(tag::OCTETS, "a modifyDN's new name")?.content;
    let deletes_old = children.expect(tag::BOOLEAN, "a modifyDN's choice")?.truth("a modifyDN's choice")?;
    let superior = children.optional(tag::context(0))?.map(|it| it.content);
    children.end("a modifyDN")?;
    Ok(ModifyDn { dn, rdn, deletes_old, superior })
}

fn compare<'a>(op: Element<'a>) -> Result<Compare<'a>, Malformed> {
    let mut children = op.children();
    let dn = children.expect(tag::OCTETS, "a compare's entry")?.content;
    let mut assertion = children.expect(tag::SEQUENCE, "a compare's assertion")?.children();
    children.end("a compare")?;
    let attribute = assertion.expect(tag::OCTETS, "a compare's attribute")?.content;
    assertion.expect(tag::OCTETS, "a compare's value")?;
    assertion.end("a compare's assertion")?;
    Ok(Compare { dn, attribute })
}

fn extended<'a>(op: Element<'a>) -> Result<&'a str, Malformed> {
    let mut children = op.children();
    let oid = children.expect(tag::context(0), "an extended operation's OID")?.text("an extended operation's OID")?;
    children.optional(tag::context(1))?;
    children.end("an extended operation")?;
    Ok(oid)
}

/// The contents of octet strings, and of nothing else.
pub(super) fn octets_of<'a>(list: Element<'a>, what: &'static str) -> Result<Vec<&'a [u8]>, Malformed> {
    let (mut children, mut found) = (list.children(), Vec::new());
    while let Some(element) = children.optional(tag::OCTETS)? {
        found.push(element.content);
    }
    children.end(what)?;
    Ok(found)
}
