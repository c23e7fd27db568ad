//! What the reader takes and refuses, and that it reads what the writer wrote. Refuses to know LDAP's messages.

use proptest::prelude::*;

use super::*;
use crate::base::limits::LDAP_RESPONSE;

/// So many sequences in each other, around nothing.
fn nested(depth: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    let open: Vec<_> = (0..depth).map(|_| writer.begin(tag::SEQUENCE)).collect();
    open.into_iter().rev().for_each(|element| writer.end(element));
    writer.into_bytes()
}

fn taken(bytes: &[u8]) -> Result<Option<Bytes>, Malformed> {
    take_message(&mut BytesMut::from(bytes), LDAP_RESPONSE)
}

fn why(bytes: &[u8]) -> String {
    taken(bytes).unwrap_err().to_string()
}

#[test]
fn d7_nesting_is_taken_to_its_limit_and_no_deeper() {
    assert!(taken(&nested(LDAP_DEPTH)).unwrap().is_some());
    assert!(why(&nested(LDAP_DEPTH + 1)).contains("deep"));
    assert!(why(&nested(10_000)).contains("deep"));
}

#[test]
fn d7_lengths_that_lie_are_refused_as_soon_as_they_are_seen() {
    assert!(why(&[0x30, 0x80]).contains("indefinite"));
    assert!(why(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).contains("4294967301 bytes"));
    assert!(why(&[0x30, 0x85]).contains("more than 4"));
    assert!(why(&[0x30, 0xff]).contains("more than 4"));
    assert!(why(&[0x30, 0x03, 0x04, 0x02, 0x41]).contains("beyond"));
    assert!(why(&[0x30, 0x02, 0x30, 0x80]).contains("indefinite"));
    assert!(why(&[0x30, 0x01, 0x04]).contains("beyond"));
}

#[test]
fn d7_what_is_no_ldap_is_refused_by_its_first_byte() {
    assert!(why(&[0x16]).contains("TLS"));
    assert!(why(b"G").contains("no LDAP"));
    assert!(why(&[0x30, 0x02, 0x1f, 0x00]).contains("tag"));
    assert!(why(&[0x30, 0x02, 0x24, 0x00]).contains("parts"));
    assert!(why(&[0x30, 0x02, 0x00, 0x00]).contains("end of contents"));
}

#[test]
fn d7_more_elements_than_the_limit_are_refused() {
    let many = |count: usize| {
        let mut writer = Writer::default();
        writer.constructed(tag::SEQUENCE, |it| (0..count).for_each(|_| it.octets(tag::OCTETS, b"")));
        writer.into_bytes()
    };
    assert!(taken(&many(LDAP_ELEMENTS - 1)).unwrap().is_some());
    assert!(why(&many(LDAP_ELEMENTS)).contains("elements"));
}

#[test]
fn a_message_cut_anywhere_is_incomplete_and_what_follows_it_stays() {
    let mut writer = Writer::default();
    writer.constructed(tag::SEQUENCE, |it| it.octets(tag::OCTETS, &[b'x'; 300]));
    let whole = writer.into_bytes();
    for cut in 0..whole.len() {
        assert_eq!(taken(&whole[..cut]), Ok(None), "{cut}");
    }
    let mut buffer = BytesMut::from(&whole[..]);
    buffer.extend_from_slice(b"0next");
    assert_eq!(take_message(&mut buffer, 1024).unwrap().unwrap(), whole);
    assert_eq!(&buffer[..], b"0next");
    assert!(take_message(&mut BytesMut::from(&whole[..]), whole.len() - 1).is_err());
}

#[test]
fn longer_forms_of_a_length_are_read_as_active_directory_writes_them() {
    let bytes = [0x30, 0x84, 0, 0, 0, 8, 0x02, 0x84, 0, 0, 0, 2, 0x01, 0x00];
    let message = taken(&bytes).unwrap().unwrap();
    let element = Element::only(&message, "message").unwrap();
    assert_eq!(element.children().expect(tag::INTEGER, "number").unwrap().number("number"), Ok(256));
}

#[test]
fn numbers_are_from_zero_to_two_to_the_31_less_one() {
    let number = |content: &[u8]| Element { tag: tag::INTEGER, content, whole: content }.number("id");
    assert_eq!(number(&[0x7f, 0xff, 0xff, 0xff]), Ok(i32::MAX.unsigned_abs()));
    assert_eq!(number(&[0, 0, 1]), Ok(1));
    for wrong in [&[][..], &[0x80], &[0xff], &[0, 0x80, 0, 0, 0], &[0, 0, 0, 0, 1]] {
        assert!(number(wrong).is_err(), "{wrong:x?}");
    }
}

proptest! {
    #[test]
    fn numbers_and_octets_of_any_length_are_read_as_written(number in 0..=i32::MAX.unsigned_abs(), length in 0..70_000usize) {
        let mut writer = Writer::default();
        writer.constructed(tag::SEQUENCE, |it| {
            it.number(tag::INTEGER, number);
            it.octets(tag::OCTETS, &vec![7; length]);
        });
        let bytes = writer.into_bytes();
        let message = taken(&bytes).unwrap().unwrap();
        let mut children = Element::only(&message, "message").unwrap().children();
        prop_assert_eq!(children.expect(tag::INTEGER, "number").unwrap().number("number"), Ok(number));
        prop_assert_eq!(children.expect(tag::OCTETS, "octets").unwrap().content.len(), length);
        prop_assert!(children.end("message").is_ok());
    }

    /// What is sound can be walked by readers to its last element.
    #[test]
    fn whatever_is_taken_is_exactly_nested(bytes in proptest::collection::vec(prop_oneof![Just(0x30u8), Just(4), Just(2), 0..8u8, any::<u8>()], 0..64)) {
        let mut wire = vec![0x30, u8::try_from(bytes.len()).unwrap()];
        wire.extend_from_slice(&bytes);
        if let Ok(Some(message)) = taken(&wire) {
            let mut open = vec![Reader::new(&message)];
            while let Some(reader) = open.last_mut() {
                match reader.next().unwrap() {
                    Some(element) if element.tag & tag::CONSTRUCTED != 0 => open.push(element.children()),
                    Some(_) => {}
                    None => { open.pop(); }
                }
            }
        }
    }
}
