//! An LDAP message where it lies (RFC 4511, 4.1.1): its id, its operation, its controls. What is read of a message is exactly what another
//! reader reads: whatever is out of place refuses it. Refuses to know who may send it.

pub mod answer;
pub mod request;
pub mod response;

use std::fmt;

use super::ber::{Element, Malformed, tag};
use crate::base::limits::LDAP_CONTROLS;

/// One message. It is read of bytes that are sound ([`super::ber::validate`]).
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Which operation it belongs to; 0 in what a server says unasked.
    pub id: u32,
    /// What it says: a request or a response.
    pub op: Element<'a>,
    /// What extends it.
    pub controls: Controls<'a>,
}

/// An operation that a client asks a server for, and that the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Logs in.
    Bind,
    /// Finds entries.
    Search,
    /// Changes an entry's attributes.
    Modify,
    /// Adds an entry.
    Add,
    /// Deletes an entry.
    Delete,
    /// Renames or moves an entry.
    ModifyDn,
    /// Asks whether an entry has a value.
    Compare,
    /// Anything else, by OID.
    Extended,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Bind, Self::Search, Self::Modify, Self::Add, Self::Delete, Self::ModifyDn, Self::Compare, Self::Extended];

    /// The name that is printed and configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Search => "search",
            Self::Modify => "modify",
            Self::Add => "add",
            Self::Delete => "delete",
            Self::ModifyDn => "modify_dn",
            Self::Compare => "compare",
            Self::Extended => "extended",
        }
    }

    /// The tag of its last, or only, response.
    #[must_use]
    pub fn response_tag(self) -> u8 {
        match self {
            Self::Bind => 0x61,
            Self::Search => 0x65,
            Self::Modify => 0x67,
            Self::Add => 0x69,
            Self::Delete => 0x6b,
            Self::ModifyDn => 0x6d,
            Self::Compare => 0x6f,
            Self::Extended => 0x78,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> Message<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut children = Element::only(bytes, "a message")?.children();
        let id = children.expect(tag::INTEGER, "a message's id")?.number("a message's id")?;
        let op = children.next()?.ok_or(Malformed::new("a message without an operation"))?;
        // Active Directory writes the name of its notice of disconnection here instead of into the notice.
        if id == 0 {
            children.optional(tag::context(10))?;
        }
        let controls = Controls { list: children.optional(tag::context_constructed(0))? };
        children.end("a message")?;
        Ok(Self { id, op, controls })
    }
}

/// What extends a message.
#[derive(Clone, Copy, Debug)]
pub struct Controls<'a> {
    list: Option<Element<'a>>,
}

/// One control (RFC 4511, 4.1.11).
#[derive(Clone, Copy, Debug)]
pub struct Control<'a> {
    /// Which.
    pub oid: &'a str,
    /// Whether the operation must not be done without it.
    pub critical: bool,
    /// What it says, by its own specification.
    pub value: Option<&'a [u8]>,
    /// All of it.
    pub whole: &'a [u8],
}

impl<'a> Controls<'a> {
    /// Each of them.
    ///
    /// # Errors
    /// [`Malformed`], also for more than [`LDAP_CONTROLS`] and for one that is there twice.
    pub fn read(&self) -> Result<Vec<Control<'a>>, Malformed> {
        let Some(list) = self.list else { return Ok(Vec::new()) };
        let (mut children, mut controls) = (list.children(), Vec::<Control<'a>>::new());
        while let Some(element) = children.next()? {
            let control = Control::read(element)?;
            if controls.len() == LDAP_CONTROLS {
                return Err(Malformed(format!("a message with more than {LDAP_CONTROLS} controls").into()));
            }
            if controls.iter().any(|other| other.oid == control.oid) {
                return Err(Malformed::new("a message with a control that is there twice"));
            }
            controls.push(control);
        }
        Ok(controls)
    }

    /// All of their element, if there is one.
    #[must_use]
    pub fn whole(&self) -> &'a [u8] {
        self.list.map_or(&[], |list| list.whole)
    }
}

impl<'a> Control<'a> {
    fn read(element: Element<'a>) -> Result<Self, Malformed> {
        let what = "a control";
        if element.tag != tag::SEQUENCE {
            return Err(Malformed::new("a control that is none"));
        }
        let mut children = element.children();
        let oid = children.expect(tag::OCTETS, what)?.text(what)?;
        let critical = children.optional(tag::BOOLEAN)?.map(|it| it.truth(what)).transpose()?.unwrap_or(false);
        let value = children.optional(tag::OCTETS)?.map(|it| it.content);
        children.end(what)?;
        Ok(Self { oid, critical, value, whole: element.whole })
    }
}

#[cfg(test)]
mod tests;
