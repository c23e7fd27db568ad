//! LDAP from both sides, and the texts that people write about it. Refuses to know how inputs are found.

use std::sync::Arc;

use bytes::BytesMut;

use crate::base::limits::{LDAP_REQUEST, LDAP_RESPONSE};
use crate::ldap::ber::{Element, take_message, validate};
use crate::ldap::dn::Dn;
use crate::ldap::filter::{Filter, Named};
use crate::ldap::message::Message;
use crate::ldap::message::request::Request;
use crate::ldap::message::response::Response;
use crate::rules::ldap::{Conversation, Down, Rules, Up};

/// A conversation: its first byte says under which rules and how the wire is cut, then each part begins with who says it and its length.
///
/// # Panics
/// When the cuts change what is taken, when what passes is not sound, or when it names what is denied.
pub fn messages(input: &[u8]) {
    let Some((how, mut rest)) = input.split_first() else { return };
    let mut conversation = Conversation::new(rules(how & 3));
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    while let [who, length, tail @ ..] = rest {
        let (part, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        let (buffer, max) = if who & 1 == 0 { (&mut up, LDAP_REQUEST) } else { (&mut down, LDAP_RESPONSE) };
        buffer.extend_from_slice(part);
        loop {
            let before = buffer.clone();
            let Ok(taken) = take_message(buffer, max) else { return };
            let Some(message) = taken else { break };
            assert_eq!(take_message(&mut BytesMut::from(&message[..]), max).as_ref(), Ok(&Some(message.clone())));
            assert_eq!([&message[..], buffer].concat(), before, "what follows stays");
            if !(if who & 1 == 0 {
                from_client(&mut conversation, &message)
            } else {
                from_directory(&mut conversation, &message)
            }) {
                return;
            }
        }
    }
}

/// Rules of each kind.
fn rules(which: u8) -> Arc<Rules> {
    let allow = match which {
        0 => r#"{}"#,
        1 => r#"{"base": "dc=x", "scope": "one", "size_limit": 5, "time_limit": "9s", "attributes": ["cn", "mail"]}"#,
        2 => {
            r#"{"operations": ["search", "bind", "modify", "add", "modify_dn", "delete", "extended", "compare"],
                 "modify_attributes": ["cn"], "extended": ["1.2"], "referrals": "pass", "deny_attributes": ["sn"]}"#
        }
        _ => {
            r#"{"filter_size": 3, "filter_depth": 2, "controls": ["1.3.6.1.1.12", "1.3.6.1.1.13.1"], "operations": ["search", "bind"]}"#
        }
    };
    Arc::new(serde_json::from_str(allow).expect("these are rules"))
}

/// Whether the conversation goes on.
fn from_client(conversation: &mut Conversation, bytes: &[u8]) -> bool {
    match conversation.client(bytes) {
        Err(_) | Ok(Up::Last) => false,
        Ok(Up::Pass) => sound(bytes),
        Ok(Up::Replace(bytes)) => sound(&bytes),
        Ok(Up::Answer(bytes, denial)) => {
            super::shown(&denial.map(|denial| denial.why).unwrap_or_default(), 512);
            validate(&bytes).is_ok() && Message::parse(&bytes).is_ok_and(|message| Response::read(&message).is_ok())
        }
        Ok(Up::Drop) => true,
    }
}

/// What goes to a directory is a request that asks for no secret.
fn sound(bytes: &[u8]) -> bool {
    validate(bytes).expect("it is sound");
    let message = Message::parse(bytes).expect("it is a message");
    if let Request::Search(search) = Request::read(&message).expect("it is a request") {
        for named in search.filter.named() {
            let Named::Attribute(name) = named else { panic!("{} asks about any attribute", search.filter) };
            assert!(!secret(name.as_bytes()), "{} asks about a secret", search.filter);
        }
    }
    true
}

fn from_directory(conversation: &mut Conversation, bytes: &[u8]) -> bool {
    let replaced;
    let bytes = match conversation.directory(bytes) {
        Err(_) | Ok(Down::Last) => return false,
        Ok(Down::Drop) => return true,
        Ok(Down::Pass) => bytes,
        Ok(Down::Replace(bytes)) => {
            replaced = bytes;
            &replaced
        }
    };
    validate(bytes).expect("it is sound");
    let message = Message::parse(bytes).expect("it is a message");
    if let Response::Entry(mut entry) = Response::read(&message).expect("it is a response") {
        while let Some(attribute) = entry.next_attribute().expect("its attributes are sound") {
            assert!(!secret(attribute.description), "a secret passes");
        }
    }
    true
}

/// By other means than the rules use.
fn secret(description: &[u8]) -> bool {
    let text = String::from_utf8_lossy(description).to_ascii_lowercase();
    let base = text.split(';').next().unwrap_or_default();
    ["userpassword", "2.5.4.35", "unicodepwd", "1.2.840.113556.1.4.90", "ms-mcs-admpwd"]
        .contains(&base.trim_start_matches("oid."))
}

/// A filter, a DN, rules and a filter's bytes.
///
/// # Panics
/// When one is written otherwise than read.
pub fn texts(input: &[u8]) {
    if let Ok(filter) = Element::only(input, "a filter").and_then(Filter::from_ber) {
        same(&filter);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(filter) = text.parse::<Filter>() {
        same(&filter);
    }
    if let Ok(filter) = serde_json::from_str::<Filter>(text) {
        same(&filter);
    }
    if let Ok(dn) = text.parse::<Dn>() {
        assert!(dn.is_within(&dn) && dn.as_str() == text);
        assert_eq!(dn.to_string().parse::<Dn>().as_ref(), Ok(&dn));
    }
    if let Ok(rules) = serde_json::from_str::<Rules>(text) {
        let shown = serde_json::to_string(&rules).expect("rules can be shown");
        assert_eq!(serde_json::from_str::<Rules>(&shown).ok().as_ref(), Some(&rules), "{shown}");
    }
}

/// A filter is the same in each of its forms.
fn same(filter: &Filter) {
    let (text, ber) = (filter.to_string(), filter.to_ber());
    assert_eq!(text.parse::<Filter>().as_ref(), Ok(filter), "{text}");
    assert_eq!(Element::only(&ber, "a filter").and_then(Filter::from_ber).as_ref(), Ok(filter), "{text}");
    validate(&ber).expect("it is sound");
    let json = serde_json::to_string(filter).expect("a filter can be shown");
    assert_eq!(serde_json::from_str::<Filter>(&json).ok().as_ref(), Some(filter), "{json}");
}
