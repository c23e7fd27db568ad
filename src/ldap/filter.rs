//! Search filters: one typed form, and from it and to it the text of RFC 4515, the bytes of RFC 4511 (4.5.1.7) and a tree for JSON. Nothing
//! here recurses. Refuses to know which attributes a client may ask about.

mod text;
mod tree;

use super::attribute::Attribute;
use super::ber::{Begun, Element, Malformed, Reader, Writer, tag};
use crate::base::limits::{LDAP_FILTER_DEPTH, LDAP_FILTER_TERMS};

/// A filter: its terms from the outermost inwards, each connective before what it connects. Never deeper than [`LDAP_FILTER_DEPTH`], and
/// never of more than [`LDAP_FILTER_TERMS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

/// One term of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// All of so many filters that follow; of none: true (RFC 4526).
    And(usize),
    /// One of so many filters that follow; of none: false.
    Or(usize),
    /// Not the filter that follows.
    Not,
    /// `attribute=value`.
    Equal(Assertion),
    /// `attribute>=value`.
    GreaterOrEqual(Assertion),
    /// `attribute<=value`.
    LessOrEqual(Assertion),
    /// `attribute~=value`.
    Approximate(Assertion),
    /// `attribute=*`.
    Present(String),
    /// `attribute=initial*any*any*final`.
    Substrings(Substrings),
    /// `attribute:dn:rule:=value`.
    Extensible(Extensible),
}

/// A value that an attribute is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// The attribute's description.
    pub attribute: String,
    /// The value.
    pub value: Vec<u8>,
}

/// Parts that a value has in this order; at least one, none of them empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substrings {
    /// The attribute's description.
    pub attribute: String,
    /// How the value begins.
    pub initial: Option<Vec<u8>>,
    /// What is in it.
    pub any: Vec<Vec<u8>>,
    /// How it ends.
    pub last: Option<Vec<u8>>,
}

/// A match by a rule of its own: it names an attribute, a rule or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extensible {
    /// The matching rule's name or OID.
    pub rule: Option<String>,
    /// The attribute's description; without one every attribute is looked at that the rule fits.
    pub attribute: Option<String>,
    /// The value.
    pub value: Vec<u8>,
    /// Whether the entry's DN is looked at, too.
    pub dn: bool,
}

/// What a filter says about an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// It names this one, by description.
    Attribute(&'a str),
    /// It may mean any: an extensible match without a type.
    Any,
}

impl Filter {
    /// Reads a filter's element.
    ///
    /// # Errors
    /// [`Malformed`], also for what is too deep or too large, and for a kind of term that RFC 4511 doesn't have.
    pub fn from_ber(element: Element<'_>) -> Result<Self, Malformed> {
        let mut filter = Self { terms: Vec::new() };
        let mut open: Vec<Open<'_>> = Vec::new();
        let mut next = Some(element);
        loop {
            if let Some(element) = next {
                if let Some(connective) = connective(element.tag) {
                    open.push(Open { at: filter.push(connective, open.len())?, count: 0, children: element.children() });
                } else {
                    filter.push(Term::leaf(element)?, open.len())?;
                }
            }
            let Some(innermost) = open.last_mut() else { return Ok(filter) };
            next = innermost.children.next()?;
            if next.is_some() {
                innermost.count += 1;
            } else {
                let Open { at, count, .. } = open.pop().expect("it is the innermost");
                filter.close(at, count)?;
            }
        }
    }

    /// Writes its element.
    pub fn write(&self, writer: &mut Writer) {
        let mut open: Vec<(Begun, usize)> = Vec::new();
        for term in &self.terms {
            match term {
                Term::And(count) => open.push((writer.begin(tag::context_constructed(0)), *count)),
                Term::Or(count) => open.push((writer.begin(tag::context_constructed(1)), *count)),
                Term::Not => open.push((writer.begin(tag::context_constructed(2)), 1)),
                leaf => {
                    leaf.write(writer);
                    count_down(&mut open);
                }
            }
            while open.last().is_some_and(|(_, left)| *left == 0) {
                let (element, _) = open.pop().expect("there is a last");
                writer.end(element);
                count_down(&mut open);
            }
        }
    }

    /// Its element.
    #[must_use]
    pub fn to_ber(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// Its terms, each connective before what it connects.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// How deep its terms lie in each other: 1 for a comparison by itself.
    #[must_use]
    pub fn depth(&self) -> usize {
        let (mut deepest, mut open) = (0, Vec::new());
        for term in &self.terms {
            deepest = deepest.max(open.len() + 1);
            match term {
                Term::And(count) | Term::Or(count) => open.push(*count),
                Term::Not => open.push(1),
                _ => drop(open.last_mut().map(|left| *left -= 1)),
            }
            while open.last() == Some(&0) {
                open.pop();
                let _ = open.last_mut().map(|left| *left -= 1);
            }
        }
        deepest
    }

    /// What it says about which attributes, one for each comparison.
    pub fn named(&self) -> impl Iterator<Item = Named<'_>> {
        self.terms.iter().filter_map(|term| match term {
            Term::And(_) | Term::Or(_) | Term::Not => None,
            Term::Equal(it) | Term::GreaterOrEqual(it) | Term::LessOrEqual(it) | Term::Approximate(it) => {
                Some(Named::Attribute(&it.attribute))
            }
            Term::Present(attribute) => Some(Named::Attribute(attribute)),
            Term::Substrings(it) => Some(Named::Attribute(&it.attribute)),
            Term::Extensible(it) => Some(it.attribute.as_deref().map_or(Named::Any, Named::Attribute)),
        })
    }

    /// Appends a term that lies in so many others, and yields its place.
    fn push(&mut self, term: Term, within: usize) -> Result<usize, Malformed> {
        if within >= LDAP_FILTER_DEPTH {
            return Err(Malformed(format!("a filter that is more than {LDAP_FILTER_DEPTH} deep").into()));
        }
        if self.terms.len() >= LDAP_FILTER_TERMS {
            return Err(Malformed(format!("a filter of more than {LDAP_FILTER_TERMS} terms").into()));
        }
        self.terms.push(term);
        Ok(self.terms.len() - 1)
    }

    /// The connective at this place has so many filters behind it.
    fn close(&mut self, at: usize, found: usize) -> Result<(), Malformed> {
        match &mut self.terms[at] {
            Term::And(count) | Term::Or(count) => *count = found,
            _ if found != 1 => return Err(Malformed::new("a filter with a `not` of other than one filter")),
            _ => {}
        }
        Ok(())
    }
}

/// A connective whose filters are being read.
struct Open<'a> {
    at: usize,
    count: usize,
    children: Reader<'a>,
}

fn connective(tag: u8) -> Option<Term> {
    match tag {
        0xa0 => Some(Term::And(0)),
        0xa1 => Some(Term::Or(0)),
        0xa2 => Some(Term::Not),
        _ => None,
    }
}

fn count_down(open: &mut [(Begun, usize)]) {
    if let Some((_, left)) = open.last_mut() {
        *left -= 1;
    }
}

impl Term {
    /// A comparison. Matched values (RFC 3876) are lists of these.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn leaf(element: Element<'_>) -> Result<Self, Malformed> {
        match element.tag {
            0xa3 => Assertion::read(element).map(Self::Equal),
            0xa4 => Substrings::read(element).map(Self::Substrings),
            0xa5 => Assertion::read(element).map(Self::GreaterOrEqual),
            0xa6 => Assertion::read(element).map(Self::LessOrEqual),
            0x87 => description(element).map(Self::Present),
            0xa8 => Assertion::read(element).map(Self::Approximate),
            0xa9 => Extensible::read(element).map(Self::Extensible),
            _ => Err(Malformed::new("a filter with a kind of term that is not known")),
        }
    }

    fn write(&self, writer: &mut Writer) {
        let assertion = |writer: &mut Writer, tag, it: &Assertion| {
            writer.constructed(tag, |writer| {
                writer.octets(tag::OCTETS, it.attribute.as_bytes());
                writer.octets(tag::OCTETS, &it.value);
            });
        };
        match self {
            Self::And(_) | Self::Or(_) | Self::Not => unreachable!("connectives are begun and ended by the filter"),
            Self::Equal(it) => assertion(writer, 0xa3, it),
            Self::Substrings(it) => it.write(writer),
            Self::GreaterOrEqual(it) => assertion(writer, 0xa5, it),
            Self::LessOrEqual(it) => assertion(writer, 0xa6, it),
            Self::Present(attribute) => writer.octets(0x87, attribute.as_bytes()),
            Self::Approximate(it) => assertion(writer, 0xa8, it),
            Self::Extensible(it) => it.write(writer),
        }
    }
}

impl Assertion {
    fn read(element: Element<'_>) -> Result<Self, Malformed> {
        let what = "a filter's comparison";
        let mut children = element.children();
        let attribute = description(children.expect(tag::OCTETS, what)?)?;
        let value = children.expect(tag::OCTETS, what)?.content.to_vec();
        children.end(what)?;
        Ok(Self { attribute, value })
    }
}

impl Substrings {
    fn read(element: Element<'_>) -> Result<Self, Malformed> {
        let what = "a filter's substrings";
        let mut children = element.children();
        let attribute = description(children.expect(tag::OCTETS, what)?)?;
        let mut parts = children.expect(tag::SEQUENCE, what)?.children();
        children.end(what)?;
        let initial = parts.optional(tag::context(0))?.map(|it| it.content.to_vec());
        let mut any = Vec::new();
        while let Some(part) = parts.optional(tag::context(1))? {
            any.push(part.content.to_vec());
        }
        let last = parts.optional(tag::context(2))?.map(|it| it.content.to_vec());
        parts.end(what)?;
        Self { attribute, initial, any, last }.checked()
    }

    /// One without parts would be a presence, and one with an empty part another filter for each reader.
    fn checked(self) -> Result<Self, Malformed> {
        let mut parts = self.initial.iter().chain(&self.any).chain(&self.last).peekable();
        if parts.peek().is_none() || parts.any(Vec::is_empty) {
            return Err(Malformed::new("a filter with substrings of which one is empty, or with none"));
        }
        Ok(self)
    }

    fn write(&self, writer: &mut Writer) {
        writer.constructed(0xa4, |writer| {
            writer.octets(tag::OCTETS, self.attribute.as_bytes());
            writer.constructed(tag::SEQUENCE, |writer| {
                let parts = |parts: &mut dyn Iterator<Item = &Vec<u8>>, number, writer: &mut Writer| {
                    parts.for_each(|part| writer.octets(tag::context(number), part));
                };
                parts(&mut self.initial.iter(), 0, writer);
                parts(&mut self.any.iter(), 1, writer);
                parts(&mut self.last.iter(), 2, writer);
            });
        });
    }
}

impl Extensible {
    fn read(element: Element<'_>) -> Result<Self, Malformed> {
        let what = "a filter's extensible match";
        let mut children = element.children();
        let rule = children.optional(tag::context(1))?.map(|it| it.text(what).map(str::to_owned)).transpose()?;
        let attribute = children.optional(tag::context(2))?.map(description).transpose()?;
        let value = children.expect(tag::context(3), what)?.content.to_vec();
        let dn = children.optional(tag::context(4))?.map(|it| it.truth(what)).transpose()?.unwrap_or(false);
        children.end(what)?;
        Self { rule, attribute, value, dn }.checked()
    }

    fn checked(self) -> Result<Self, Malformed> {
        // A rule is named as an attribute is.
        self.rule.as_deref().map(|rule| named(rule.as_bytes())).transpose()?;
        if self.rule.is_none() && self.attribute.is_none() {
            return Err(Malformed::new("a filter with an extensible match that names neither an attribute nor a rule"));
        }
        Ok(self)
    }

    fn write(&self, writer: &mut Writer) {
        writer.constructed(0xa9, |writer| {
            self.rule.iter().for_each(|rule| writer.octets(tag::context(1), rule.as_bytes()));
            self.attribute.iter().for_each(|attribute| writer.octets(tag::context(2), attribute.as_bytes()));
            writer.octets(tag::context(3), &self.value);
            if self.dn {
                writer.truth(tag::context(4), true);
            }
        });
    }
}

fn description(element: Element<'_>) -> Result<String, Malformed> {
    named(element.content)
}

/// An attribute's description, or a rule's name: something that the text of a filter can hold, whatever it is then part of.
fn named(bytes: &[u8]) -> Result<String, Malformed> {
    Attribute::of(bytes)?;
    let options = bytes.iter().skip_while(|byte| **byte != b';');
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b';' | b'-' | b'_' | b'.');
    if !{ options }.all(plain) {
        return Err(Malformed::new("a filter with an attribute's options that are none"));
    }
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
