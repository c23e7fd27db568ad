//! Messages that are made here: what is answered instead of the directory, and what is put together anew. Refuses to know when.

use super::Operation;
use crate::ldap::ber::{Writer, tag};

/// A result's code (RFC 4511, appendix A), of those that are answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResultCode {
    /// Done.
    Success = 0,
    /// The request is no LDAP.
    ProtocolError = 2,
    /// That way of logging in is not had.
    AuthMethodNotSupported = 7,
    /// A control that must be heeded can't be.
    UnavailableCriticalExtension = 12,
    /// A name that is none.
    InvalidDnSyntax = 34,
    /// The name and the password don't fit.
    InvalidCredentials = 49,
    /// That may not be done.
    InsufficientAccessRights = 50,
    /// Not now.
    Busy = 51,
    /// What would be needed is not there.
    Unavailable = 52,
    /// That is not done.
    UnwillingToPerform = 53,
}

/// The OID of the notice that a server sends before it closes a connection (RFC 4511, 4.4.1).
pub const NOTICE_OF_DISCONNECTION: &str = "1.3.6.1.4.1.1466.20036";

/// StartTLS (RFC 4511, 4.14).
pub const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

/// The last response to the operation of this id.
#[must_use]
pub fn done(id: u32, operation: Operation, code: ResultCode, diagnostic: &str) -> Vec<u8> {
    message(id, &[], |writer| {
        writer.constructed(operation.response_tag(), |writer| result(writer, code as u32, "", diagnostic));
    })
}

/// The same with a directory's own code and words, and without where else to ask.
#[must_use]
pub fn done_as(id: u32, operation: Operation, code: u32, matched: &str, diagnostic: &str, controls: &[u8]) -> Vec<u8> {
    message(id, controls, |writer| {
        writer.constructed(operation.response_tag(), |writer| result(writer, code, matched, diagnostic));
    })
}

/// The last message before a connection is closed.
#[must_use]
pub fn notice_of_disconnection(code: ResultCode, diagnostic: &str) -> Vec<u8> {
    message(0, &[], |writer| {
        writer.constructed(Operation::Extended.response_tag(), |writer| {
            result(writer, code as u32, "", diagnostic);
            writer.octets(tag::context(10), NOTICE_OF_DISCONNECTION.as_bytes());
        });
    })
}

/// An entry of some of its attributes: elements as they lie, those of its name, its attributes and its controls.
#[must_use]
pub fn entry(id: u32, name: &[u8], attributes: &[&[u8]], controls: &[u8]) -> Vec<u8> {
    message(id, controls, |writer| {
        writer.constructed(0x64, |writer| {
            writer.whole(name);
            writer.constructed(tag::SEQUENCE, |writer| attributes.iter().for_each(|attribute| writer.whole(attribute)));
        });
    })
}

/// A request of an operation as it lies, with these controls of it.
#[must_use]
pub fn request(id: u32, op: &[u8], controls: &[&[u8]]) -> Vec<u8> {
    let mut list = Writer::default();
    if !controls.is_empty() {
        list.constructed(tag::context_constructed(0), |list| controls.iter().for_each(|control| list.whole(control)));
    }
    message(id, &list.into_bytes(), |writer| writer.whole(op))
}

/// A message whose operation `op` writes; `controls` is their whole element, or nothing.
pub fn message(id: u32, controls: &[u8], op: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |writer| {
        writer.number(tag::INTEGER, id);
        op(writer);
        writer.whole(controls);
    });
    writer.into_bytes()
}

fn result(writer: &mut Writer, code: u32, matched: &str, diagnostic: &str) {
    writer.number(tag::ENUMERATED, code);
    writer.octets(tag::OCTETS, matched.as_bytes());
    writer.octets(tag::OCTETS, diagnostic.as_bytes());
}
