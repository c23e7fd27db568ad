//! BER as LDAP has it (X.690, with the restrictions of RFC 4511, 5.1): definite lengths, one-byte tags. Whatever a peer sends costs linear
//! time, no recursion, and no more memory than it takes. Refuses to know what the elements mean.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use crate::base::limits::{LDAP_DEPTH, LDAP_ELEMENTS};

/// Universal tags that LDAP uses.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// OCTET STRING.
    pub const OCTETS: u8 = 0x04;
    /// ENUMERATED.
    pub const ENUMERATED: u8 = 0x0a;
    /// SEQUENCE, SEQUENCE OF.
    pub const SEQUENCE: u8 = 0x30;
    /// SET OF.
    pub const SET: u8 = 0x31;
    /// The bit of a tag whose content are elements.
    pub const CONSTRUCTED: u8 = 0x20;

    /// A context-specific tag whose content are octets.
    #[must_use]
    pub const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// A context-specific tag whose content are elements.
    #[must_use]
    pub const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// Bytes that are no LDAP, or more of it than is taken: what was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub Cow<'static, str>);

impl Malformed {
    /// Says what was wrong.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Self {
        Self(why.into())
    }
}

/// Takes one whole message, of at most `max` bytes, off the front of `buffer`; nothing while it is incomplete. What follows it stays. A message
/// that is taken is sound ([`validate`]).
///
/// # Errors
/// [`Malformed`], as soon as the bytes that are there can't begin a message.
pub fn take_message(buffer: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Malformed> {
    match message_len(buffer, max)?.filter(|length| *length <= buffer.len()) {
        None => Ok(None),
        Some(length) => {
            let message = buffer.split_to(length).freeze();
            validate(&message)?;
            Ok(Some(message))
        }
    }
}

/// How long the message is that these bytes begin, at most `max`; nothing while its head is incomplete.
///
/// # Errors
/// [`Malformed`], as soon as the bytes that are there can't begin a message.
pub fn message_len(bytes: &[u8], max: usize) -> Result<Option<usize>, Malformed> {
    match bytes.first() {
        None | Some(&tag::SEQUENCE) => {}
        Some(0x16) => return Err(Malformed::new("a TLS record, where LDAP in the clear was expected")),
        Some(_) => return Err(Malformed::new("no LDAP message")),
    }
    let Some(head) = Head::read(bytes)? else { return Ok(None) };
    let length = head.len + head.content;
    if length > max {
        return Err(Malformed(format!("a message of {length} bytes; at most {max} are taken").into()));
    }
    Ok(Some(length))
}

/// Whether these bytes are exactly one element, whose elements all lie exactly within each other: at most [`LDAP_DEPTH`] deep and
/// [`LDAP_ELEMENTS`] in all.
///
/// # Errors
/// [`Malformed`].
pub fn validate(bytes: &[u8]) -> Result<(), Malformed> {
    elements(bytes).map(drop)
}

/// How many elements there are in these bytes, if [`validate`] has nothing against them.
///
/// # Errors
/// [`Malformed`].
pub fn elements(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut ends = [0; LDAP_DEPTH];
    let (mut depth, mut at, mut count) = (0, 0, 0);
    loop {
        let end = if depth == 0 { bytes.len() } else { ends[depth - 1] };
        if at == end && count > 0 {
            if depth == 0 {
                return Ok(count);
            }
            depth -= 1;
            continue;
        }
        count += 1;
        if depth == 0 && count > 1 {
            return Err(Malformed::new("bytes behind the end of a message"));
        }
        if count > LDAP_ELEMENTS {
            return Err(Malformed(format!("more than {LDAP_ELEMENTS} elements").into()));
        }
        let (head, inner) = Element::head(&bytes[at..end])?;
        if bytes[at] & tag::CONSTRUCTED == 0 {
            at += head + inner;
        } else if depth == LDAP_DEPTH {
            return Err(Malformed(format!("nested more than {LDAP_DEPTH} deep").into()));
        } else {
            ends[depth] = at + head + inner;
            depth += 1;
            at += head;
        }
    }
}

/// A tag with its length.
struct Head {
    len: usize,
    content: usize,
}

impl Head {
    /// What the first bytes of an element say; nothing while there are too few.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(&tag) = bytes.first() else { return Ok(None) };
        check_tag(tag)?;
        let Some(&first) = bytes.get(1) else { return Ok(None) };
        let octets = match first {
            0..0x80 => return Ok(Some(Self { len: 2, content: usize::from(first) })),
            0x80 => return Err(Malformed::new("an indefinite length")),
            0x81..=0x84 => usize::from(first & 0x7f),
            _ => return Err(Malformed::new("a length of more than 4 bytes")),
        };
        let Some(length) = bytes.get(2..2 + octets) else { return Ok(None) };
        let content = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        Ok(Some(Self { len: 2 + octets, content }))
    }
}

fn check_tag(tag: u8) -> Result<(), Malformed> {
    let universal = tag & 0xc0 == 0;
    if tag & 0x1f == 0x1f {
        Err(Malformed::new("a tag of more than one byte"))
    } else if tag == 0 {
        Err(Malformed::new("an end of contents, which belongs to indefinite lengths"))
    } else if universal && (tag & tag::CONSTRUCTED != 0) != matches!(tag | tag::CONSTRUCTED, tag::SEQUENCE | tag::SET) {
        Err(Malformed::new("a string in parts, or a sequence that is none"))
    } else {
        Ok(())
    }
}

/// One element where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// Its tag: class, whether it is constructed, number.
    pub tag: u8,
    /// What is in it.
    pub content: &'a [u8],
    /// All of it: tag, length and content.
    pub whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The one element that these bytes are.
    ///
    /// # Errors
    /// [`Malformed`] if they are none, or more.
    pub fn only(bytes: &'a [u8], what: &'static str) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let element = reader.next()?.ok_or(Malformed::new(what))?;
        reader.end(what)?;
        Ok(element)
    }

    /// The elements in it.
    #[must_use]
    pub fn children(&self) -> Reader<'a> {
        Reader::new(self.content)
    }

    /// Its content as text.
    ///
    /// # Errors
    /// [`Malformed`] unless it is UTF-8.
    pub fn text(&self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.content).map_err(|_| Malformed(format!("{what}: not UTF-8").into()))
    }

    /// Its content as a number from 0 to 2^31 - 1, as all of LDAP's are (RFC 4511, 4.1.1 `maxInt`).
    ///
    /// # Errors
    /// [`Malformed`] for any other.
    pub fn number(&self, what: &'static str) -> Result<u32, Malformed> {
        let wrong = || Malformed(format!("{what}: no number from 0 to 2147483647").into());
        if self.content.is_empty() || self.content.len() > 4 || self.content[0] & 0x80 != 0 {
            return Err(wrong());
        }
        Ok(self.content.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// Its content as a truth value.
    ///
    /// # Errors
    /// [`Malformed`] unless it is one byte.
    pub fn truth(&self, what: &'static str) -> Result<bool, Malformed> {
        match self.content {
            [byte] => Ok(*byte != 0),
            _ => Err(Malformed(format!("{what}: no BOOLEAN").into())),
        }
    }

    fn head(bytes: &[u8]) -> Result<(usize, usize), Malformed> {
        let head = Head::read(bytes)?.filter(|head| head.content <= bytes.len() - head.len);
        let head = head.ok_or(Malformed::new("an element that ends beyond what it is in"))?;
        Ok((head.len, head.content))
    }
}

/// Elements one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next element, if there is one.
    ///
    /// # Errors
    /// [`Malformed`].
    #[expect(clippy::should_implement_trait, reason = "an iterator would go on behind an error")]
    pub fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (head, content) = Element::head(self.rest)?;
        let (whole, rest) = self.rest.split_at(head + content);
        self.rest = rest;
        Ok(Some(Element { tag: whole[0], content: &whole[head..], whole }))
    }

    /// The next element, which must be `what` and have this tag.
    ///
    /// # Errors
    /// [`Malformed`], naming `what`.
    pub fn expect(&mut self, tag: u8, what: &'static str) -> Result<Element<'a>, Malformed> {
        self.optional(tag)?.ok_or_else(|| Malformed(format!("{what}: missing, or of another type").into()))
    }

    /// The next element if it has this tag.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Malformed> {
        if self.rest.first() == Some(&tag) { self.next() } else { Ok(None) }
    }

    /// Nothing more may come.
    ///
    /// # Errors
    /// [`Malformed`], naming `what`.
    pub fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed(format!("{what}: more than belongs there").into())) }
    }
}

/// Writes elements, with lengths as short as can be.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// An element that has been begun.
#[derive(Debug)]
#[must_use]
pub struct Begun(usize);

impl Writer {
    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// An element whose content are octets.
    pub fn octets(&mut self, tag: u8, content: &[u8]) {
        let element = self.begin(tag);
        self.bytes.extend_from_slice(content);
        self.end(element);
    }

    /// A number; LDAP's are from 0 to 2^31 - 1.
    pub fn number(&mut self, tag: u8, number: u32) {
        let bytes = number.to_be_bytes();
        // A first bit that is set would make it negative.
        let zeros = (0..3).take_while(|at| bytes[*at] == 0 && bytes[*at + 1] & 0x80 == 0).count();
        self.octets(tag, &bytes[zeros..]);
    }

    /// A truth value.
    pub fn truth(&mut self, tag: u8, truth: bool) {
        self.octets(tag, &[if truth { 0xff } else { 0 }]);
    }

    /// An element as it lies elsewhere, or several.
    pub fn whole(&mut self, whole: &[u8]) {
        self.bytes.extend_from_slice(whole);
    }

    /// An element whose content are those that `content` writes.
    pub fn constructed(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        let element = self.begin(tag);
        content(self);
        self.end(element);
    }

    /// Begins an element: what is written until [`Self::end`] is in it.
    pub fn begin(&mut self, tag: u8) -> Begun {
        self.bytes.extend_from_slice(&[tag, 0]);
        Begun(self.bytes.len())
    }

    /// Ends it.
    ///
    /// # Panics
    /// When it is longer than 4 GiB, which nothing is.
    pub fn end(&mut self, element: Begun) {
        let start = element.0;
        let length = self.bytes.len() - start;
        if let Some(short) = u8::try_from(length).ok().filter(|short| *short < 0x80) {
            self.bytes[start - 1] = short;
            return;
        }
        let octets = u32::try_from(length).expect("messages are of some MiB").to_be_bytes();
        let zeros = octets.iter().take_while(|byte| **byte == 0).count();
        self.bytes[start - 1] = 0x84 - u8::try_from(zeros).expect("of four");
        self.bytes.splice(start..start, octets[zeros..].iter().copied());
    }
}

#[cfg(test)]
mod tests;
