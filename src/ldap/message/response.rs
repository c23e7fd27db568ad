//! What a directory answers (RFC 4511, 4.1.9, 4.5.2), where it lies in its message. Every part is looked at, so that whoever reads it after
//! us finds what the specification says. Refuses to know what a client may see.

use super::{Message, Operation};
use crate::ldap::ber::{Element, Malformed, Reader, tag};

/// A response.
#[derive(Debug)]
pub enum Response<'a> {
    /// An entry that a search found.
    Entry(Entry<'a>),
    /// Where else to search.
    Reference,
    /// How an operation ended.
    Done(Operation, Done<'a>),
    /// Something before the end (RFC 4511, 4.13).
    Intermediate,
}

/// An entry.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub dn: &'a str,
    /// Its name's element.
    pub name: &'a [u8],
    attributes: Reader<'a>,
}

/// An attribute of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// Its description, as the directory writes it.
    pub description: &'a [u8],
    /// All of it, with its values.
    pub whole: &'a [u8],
}

/// How an operation ended.
#[derive(Debug)]
pub struct Done<'a> {
    /// The result's code (RFC 4511, appendix A).
    pub code: u32,
    /// The name that was found nearest to one that wasn't.
    pub matched: &'a str,
    /// The directory's own words.
    pub diagnostic: &'a str,
    /// Whether it says where else to ask.
    pub referral: bool,
    /// What an extended operation, or an unasked message, is called.
    pub oid: Option<&'a str>,
}

impl<'a> Response<'a> {
    /// Reads a directory's message.
    ///
    /// # Errors
    /// [`Malformed`], also for what is no response.
    pub fn read(message: &Message<'a>) -> Result<Self, Malformed> {
        let op = message.op;
        if let Some(operation) = Operation::ALL.into_iter().find(|operation| operation.response_tag() == op.tag) {
            return Done::read(op, operation).map(|done| Self::Done(operation, done));
        }
        match op.tag {
            0x64 => Entry::read(op).map(Self::Entry),
            0x73 => {
                let mut uris = op.children();
                while let Some(uri) = uris.optional(tag::OCTETS)? {
                    uri.text("a reference")?;
                }
                uris.end("a reference")?;
                Ok(Self::Reference)
            }
            0x79 => {
                let mut children = op.children();
                if let Some(name) = children.optional(tag::context(0))? {
                    name.text("an intermediate response")?;
                }
                children.optional(tag::context(1))?;
                children.end("an intermediate response")?;
                Ok(Self::Intermediate)
            }
            _ => Err(Malformed::new("a message that is no response")),
        }
    }
}

impl<'a> Entry<'a> {
    /// The next of its attributes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn next_attribute(&mut self) -> Result<Option<Attribute<'a>>, Malformed> {
        let Some(element) = self.attributes.optional(tag::SEQUENCE)? else {
            self.attributes.end("an entry's attributes")?;
            return Ok(None);
        };
        let mut parts = element.children();
        let description = parts.expect(tag::OCTETS, "an attribute's name")?;
        description.text("an attribute's name")?;
        let mut values = parts.expect(tag::SET, "an attribute's values")?.children();
        while values.optional(tag::OCTETS)?.is_some() {}
        values.end("an attribute's values")?;
        parts.end("an attribute")?;
        Ok(Some(Attribute { description: description.content, whole: element.whole }))
    }

    fn read(op: Element<'a>) -> Result<Self, Malformed> {
        let mut children = op.children();
        let name = children.expect(tag::OCTETS, "an entry's name")?;
        let attributes = children.expect(tag::SEQUENCE, "an entry's attributes")?.children();
        children.end("an entry")?;
        Ok(Self { dn: name.text("an entry's name")?, name: name.whole, attributes })
    }
}

impl<'a> Done<'a> {
    fn read(op: Element<'a>, operation: Operation) -> Result<Self, Malformed> {
        let mut children = op.children();
        let code = children.expect(tag::ENUMERATED, "a result's code")?.number("a result's code")?;
        let matched = children.expect(tag::OCTETS, "a result's name")?.text("a result's name")?;
        let diagnostic = children.expect(tag::OCTETS, "a result's words")?.text("a result's words")?;
        let mut referral = false;
        if let Some(list) = children.optional(tag::context_constructed(3))? {
            referral = true;
            let mut uris = list.children();
            while let Some(uri) = uris.optional(tag::OCTETS)? {
                uri.text("a referral")?;
            }
            uris.end("a referral")?;
        }
        let mut oid = None;
        match operation {
            Operation::Bind => drop(children.optional(tag::context(7))?),
            Operation::Extended => {
                oid = children.optional(tag::context(10))?.map(|it| it.text("a response's OID")).transpose()?;
                children.optional(tag::context(11))?;
            }
            _ => {}
        }
        children.end("a result")?;
        Ok(Self { code, matched, diagnostic, referral, oid })
    }
}
