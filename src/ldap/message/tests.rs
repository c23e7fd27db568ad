//! Messages as clients and directories send them, read and made. Refuses to know rules.

use super::answer::{self, ResultCode};
use super::request::{Proof, Request, Scope};
use super::response::Response;
use super::*;
use crate::ldap::ber::{Writer, validate};
use crate::ldap::filter::Filter;

fn message(bytes: &[u8]) -> Message<'_> {
    validate(bytes).unwrap();
    Message::parse(bytes).unwrap()
}

fn refused(bytes: &[u8]) -> bool {
    let read = || {
        validate(bytes)?;
        let message = Message::parse(bytes)?;
        message.controls.read()?;
        Request::read(&message).map(drop).or_else(|_| response(&message))
    };
    read().is_err()
}

fn response(message: &Message<'_>) -> Result<(), Malformed> {
    if let Response::Entry(mut entry) = Response::read(message)? {
        while entry.next_attribute()?.is_some() {}
    }
    Ok(())
}

/// `(&(uid=j)(cn=*))` below `dc=x`, for its `cn`.
fn search(id: u32, controls: &[&[u8]]) -> Vec<u8> {
    let mut op = Writer::default();
    op.constructed(0x63, |writer| {
        writer.octets(tag::OCTETS, b"dc=x");
        writer.number(tag::ENUMERATED, 2);
        writer.number(tag::ENUMERATED, 0);
        writer.number(tag::INTEGER, 0);
        writer.number(tag::INTEGER, 0);
        writer.truth(tag::BOOLEAN, false);
        "(&(uid=j)(cn=*))".parse::<Filter>().unwrap().write(writer);
        writer.constructed(tag::SEQUENCE, |writer| writer.octets(tag::OCTETS, b"cn"));
    });
    answer::request(id, &op.into_bytes(), controls)
}

#[test]
fn binds_are_read_and_their_passwords_are_never_shown() {
    let anonymous = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00";
    let Request::Bind(bind) = Request::read(&message(anonymous)).unwrap() else { panic!() };
    assert!(bind.version == 3 && bind.name.is_empty() && matches!(&bind.proof, Proof::Simple(it) if it.is_empty()));
    let named = b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x02cn\x80\x04geek";
    let shown = format!("{:?}", Request::read(&message(named)).unwrap());
    assert!(shown.contains("Simple") && !shown.contains("geek") && !shown.contains("103"), "{shown}");
    let sasl = b"\x30\x18\x02\x01\x01\x60\x13\x02\x01\x03\x04\x00\xa3\x0c\x04\x06GSSAPI\x04\x02\x01\x02";
    let Request::Bind(bind) = Request::read(&message(sasl)).unwrap() else { panic!() };
    assert!(matches!(bind.proof, Proof::Sasl("GSSAPI")));
    let ntlm = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x89\x00";
    let Request::Bind(bind) = Request::read(&message(ntlm)).unwrap() else { panic!() };
    assert!(matches!(bind.proof, Proof::Other));
}

#[test]
fn a_search_is_read_and_its_limits_can_be_changed_alone() {
    let paged = b"\x30\x1d\x04\x161.2.840.113556.1.4.319\x01\x01\xff\x04\x00";
    let bytes = search(7, &[paged]);
    let whole = message(&bytes);
    let controls = whole.controls.read().unwrap();
    assert_eq!((controls[0].oid, controls[0].critical, controls[0].value), ("1.2.840.113556.1.4.319", true, Some(&b""[..])));
    let Request::Search(search) = Request::read(&whole).unwrap() else { panic!() };
    assert_eq!((whole.id, search.base, search.scope, search.size_limit), (7, &b"dc=x"[..], Scope::Subtree, 0));
    assert_eq!((search.filter.to_string(), &search.attributes), ("(&(uid=j)(cn=*))".to_owned(), &vec![&b"cn"[..]]));
    let changed = answer::request(7, &search.altered(search.aliases, 500, 60), &[controls[0].whole]);
    let again = message(&changed);
    assert_eq!(again.controls.whole(), whole.controls.whole());
    let Request::Search(limited) = Request::read(&again).unwrap() else { panic!() };
    assert_eq!((limited.size_limit, limited.time_limit), (500, 60));
    assert_eq!(
        (limited.base, limited.scope, &limited.filter, &limited.attributes),
        (search.base, search.scope, &search.filter, &search.attributes)
    );
    assert_eq!(answer::request(7, &limited.altered(limited.aliases, 0, 0), &[controls[0].whole]), bytes);
}

#[test]
fn the_other_requests_are_read() {
    let read = |op: &[u8]| format!("{:?}", Request::read(&message(&answer::request(3, op, &[]))).unwrap());
    assert_eq!(read(b"\x42\x00"), "Unbind");
    assert_eq!(read(b"\x50\x01\x02"), "Abandon(2)");
    assert_eq!(read(b"\x4a\x04cn=x"), format!("Delete({:?})", b"cn=x"));
    assert_eq!(read(b"\x77\x05\x80\x031.2"), "Extended(\"1.2\")");
    let changes = b"\x66\x1b\x04\x02dn\x30\x15\x30\x09\x0a\x01\x02\x30\x04\x04\x00\x31\x00\x30\x08\x0a\x01\x00\x30\x03";
    assert!(refused(&answer::request(3, changes, &[])), "a change ends beyond its list");
    let modify = b"\x66\x13\x04\x02dn\x30\x0d\x30\x0b\x0a\x01\x02\x30\x06\x04\x02cn\x31\x00";
    assert!(read(modify).starts_with("Modify(") && read(modify).contains("[[99, 110]]"));
    let add = b"\x68\x0e\x04\x02dn\x30\x08\x30\x06\x04\x02cn\x31\x00";
    assert!(read(add).starts_with("Add(") && read(add).contains("[[99, 110]]"));
    let rename = b"\x6c\x11\x04\x02dn\x04\x04cn=y\x01\x01\xff\x80\x02up";
    assert!(read(rename).contains("superior: Some([117, 112])"));
    let compare = b"\x6e\x0d\x04\x02dn\x30\x07\x04\x02cn\x04\x01x";
    assert!(read(compare).contains("attribute: [99, 110]"));
}

#[test]
fn d7_messages_that_two_readers_would_read_differently_are_refused() {
    assert!(!refused(&search(1, &[])));
    let control = b"\x30\x05\x04\x031.2";
    for wrong in [
        answer::message(1, &[], |_| {}),
        answer::message(1, b"\x04\x00", |it| it.octets(0x42, b"")),
        answer::message(1, b"\x8a\x00", |it| it.octets(0x42, b"")),
        answer::request(1, b"\x42\x00", &[control, control]),
        answer::request(1, b"\x42\x00", &[b"\x04\x00"]),
        answer::request(1, b"\x42\x00", &[b"\x30\x00"]),
        answer::request(1, b"\x7f\x00", &[]),
        answer::request(1, b"\x41\x00", &[]),
        b"\x30\x09\x02\x05\x00\x80\x00\x00\x00\x42\x00".to_vec(),
        b"\x30\x08\x02\x04\x80\x00\x00\x00\x42\x00".to_vec(),
        b"\x30\x04\x02\x00\x42\x00".to_vec(),
        b"\x30\x00".to_vec(),
    ] {
        assert!(refused(&wrong), "{wrong:x?}");
    }
    let many = vec![0; LDAP_CONTROLS + 1].into_iter().enumerate().map(|(at, _)| {
        let mut control = Writer::default();
        control.constructed(tag::SEQUENCE, |it| it.octets(tag::OCTETS, format!("1.{at}").as_bytes()));
        control.into_bytes()
    });
    let many: Vec<_> = many.collect();
    let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
    assert!(refused(&answer::request(1, b"\x42\x00", &many)));
    assert!(!refused(&answer::request(1, b"\x42\x00", &many[1..])));
}

#[test]
fn answers_are_read_as_they_were_meant() {
    for operation in Operation::ALL {
        let bytes = answer::done(9, operation, ResultCode::Busy, "later");
        let message = message(&bytes);
        let Response::Done(read, done) = Response::read(&message).unwrap() else { panic!() };
        assert_eq!((message.id, read, done.code, done.diagnostic, done.referral), (9, operation, 51, "later", false));
    }
    let notice = answer::notice_of_disconnection(ResultCode::Unavailable, "");
    let Response::Done(Operation::Extended, done) = Response::read(&message(&notice)).unwrap() else { panic!() };
    assert_eq!((message(&notice).id, done.oid), (0, Some(answer::NOTICE_OF_DISCONNECTION)));
    let active_directory = b"\x30\x14\x02\x01\x00\x78\x0b\x0a\x01\x34\x04\x00\x04\x04bye\0\x8a\x021.";
    let Response::Done(Operation::Extended, done) = Response::read(&message(active_directory)).unwrap() else { panic!() };
    assert_eq!((done.code, done.diagnostic), (52, "bye\0"));
}

#[test]
fn an_entry_is_put_together_of_its_parts() {
    let bytes = answer::entry(4, b"\x04\x04cn=x", &[b"\x30\x07\x04\x02cn\x31\x01", b""], b"");
    assert!(refused(&bytes), "a value ends beyond its attribute");
    let (cn, sn) = (&b"\x30\x09\x04\x02cn\x31\x03\x04\x01x"[..], &b"\x30\x06\x04\x02sn\x31\x00"[..]);
    let bytes = answer::entry(4, b"\x04\x04cn=x", &[cn, sn], b"");
    let Response::Entry(mut entry) = Response::read(&message(&bytes)).unwrap() else { panic!() };
    assert_eq!((entry.dn, entry.name), ("cn=x", &b"\x04\x04cn=x"[..]));
    let mut found = Vec::new();
    while let Some(attribute) = entry.next_attribute().unwrap() {
        found.push((attribute.description, attribute.whole));
    }
    assert_eq!(found, [(&b"cn"[..], cn), (&b"sn"[..], sn)]);
    for wrong in
        [&b"\x30\x07\x04\x02cn\x31\x01\x04"[..], b"\x30\x08\x04\x02cn\x31\x02\x30\x00", b"\x30\x06\x04\x02\xff\xff\x31\x00"]
    {
        assert!(refused(&answer::entry(4, b"\x04\x04cn=x", &[wrong], b"")), "{wrong:x?}");
    }
}
