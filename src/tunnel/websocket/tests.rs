//! Frames in every form and piece, and everything that is no frame of ours.

use proptest::prelude::*;

use super::*;

/// A frame as any implementation may write it.
fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(mask | length as u8),
        length @ 126..=0xffff => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
    bytes.extend(payload.iter().zip(key.unwrap_or_default().iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A client's, with a key that shows every mistake.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, Some([0x11, 0x22, 0x44, 0x88]), payload)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// What a decoder makes of pieces, with data joined.
fn decode<'a>(from: Sender, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Event>, usize), Violation> {
    let (mut decoder, mut inbound, mut events) = (Decoder::new(from), BytesMut::new(), Vec::new());
    for piece in pieces {
        inbound.extend_from_slice(piece);
        while let Some(event) = decoder.next(&mut inbound)? {
            match (events.last_mut(), event) {
                (Some(Event::Data(before)), Event::Data(more)) => *before = [&before[..], &more].concat().into(),
                (_, event) => events.push(event),
            }
        }
    }
    Ok((events, inbound.len()))
}

fn data(bytes: &[u8]) -> Event {
    Event::Data(Bytes::copy_from_slice(bytes))
}

const LENGTHS: [usize; 12] = [0, 1, 3, 4, 5, 124, 125, 126, 127, 65_534, 65_535, 65_536];

#[test]
fn every_length_is_written_in_its_shortest_form_and_read_back() {
    for sender in [Sender::Client, Sender::Server] {
        for length in LENGTHS {
            let (bytes, len) = head(sender, Opcode::Binary, length);
            let key = if sender == Sender::Client { Some([0; 4]) } else { None };
            let whole = frame(0x82, key, &pattern(length));
            assert_eq!(bytes[..len], whole[..whole.len() - length], "{length}");
            assert_eq!(decode(sender, [&whole[..]]), Ok((vec![data(&pattern(length))], 0)), "{length}");
        }
    }
}

#[test]
fn every_opcode_is_written_and_read() {
    for (opcode, event) in [
        (Opcode::Binary, data(b"hello")),
        (Opcode::Ping, Event::Ping("hello".into())),
        (Opcode::Pong, Event::Pong("hello".into())),
        (Opcode::Close, Event::Close("hello".into())),
    ] {
        let (bytes, len) = head(Sender::Server, opcode, 5);
        assert_eq!(decode(Sender::Server, [&bytes[..len], b"hello"]), Ok((vec![event], 0)), "{opcode:?}");
    }
}

#[test]
fn any_key_is_taken_wherever_the_bytes_are_cut() {
    for key in [[0; 4], [1, 2, 3, 4], [0xff; 4], [0, 0, 0, 1], [9, 0, 0, 0]] {
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 125, 126, 200] {
            let wire = [frame(0x82, Some(key), &pattern(length)), frame(0x89, Some(key), b"ping")].concat();
            let wanted = Ok((vec![data(&pattern(length)), Event::Ping("ping".into())], 0));
            for at in 0..wire.len() {
                assert_eq!(decode(Sender::Client, [&wire[..at], &wire[at..]]), wanted, "{key:?}, {length}, cut at {at}");
            }
            for size in 1..12 {
                assert_eq!(decode(Sender::Client, wire.chunks(size)), wanted, "{key:?}, {length}, pieces of {size}");
            }
        }
    }
}

#[test]
fn a_part_of_a_payload_is_delivered_at_once() {
    let wire = client(0x82, b"hello");
    let (mut decoder, mut inbound) = (Decoder::new(Sender::Client), BytesMut::new());
    inbound.extend_from_slice(&wire[..9]);
    assert_eq!(decoder.next(&mut inbound), Ok(Some(data(b"hel"))));
    assert_eq!((decoder.next(&mut inbound), inbound.len()), (Ok(None), 0));
    inbound.extend_from_slice(&wire[9..]);
    assert_eq!(decoder.next(&mut inbound), Ok(Some(data(b"lo"))));
    assert_eq!((decoder.next(&mut inbound), inbound.len()), (Ok(None), 0));
}

#[test]
fn data_is_not_copied() {
    let mut inbound = BytesMut::from(&frame(0x82, None, &pattern(50_000))[..]);
    let at = inbound[4..].as_ptr();
    match Decoder::new(Sender::Server).next(&mut inbound) {
        Ok(Some(Event::Data(bytes))) => assert_eq!((bytes.as_ptr(), bytes.len()), (at, 50_000)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_control_frame_does_not_keep_the_buffer_that_it_came_in() {
    for first in [0x89, 0x8a] {
        let mut inbound = BytesMut::with_capacity(1 << 16);
        inbound.extend_from_slice(&client(first, b"seventeen bytes.."));
        let buffer = inbound.as_ptr();
        let event = Decoder::new(Sender::Client).next(&mut inbound).unwrap().unwrap();
        // Nobody else holds the buffer, so all of it can be had again while the event is kept.
        assert!(inbound.try_reclaim(1 << 16));
        assert_eq!(inbound.as_ptr(), buffer);
        assert!(matches!(event, Event::Ping(bytes) | Event::Pong(bytes) if bytes.len() == 17));
    }
}

#[test]
fn messages_may_be_fragmented_and_interrupted_by_control_frames() {
    let wire = [
        client(0x02, b"a"),
        client(0x89, b"?"),
        client(0x00, b"bc"),
        client(0x8a, b"!"),
        client(0x00, b""),
        client(0x80, b"d"),
        client(0x82, b"e"),
        client(0x88, b""),
    ]
    .concat();
    let ping = |text: &'static str| Event::Ping(text.into());
    let wanted = vec![data(b"a"), ping("?"), data(b"bc"), Event::Pong("!".into()), data(b"de"), Event::Close("".into())];
    for size in 1..=wire.len() {
        assert_eq!(decode(Sender::Client, wire.chunks(size)), Ok((wanted.clone(), 0)), "pieces of {size}");
    }
}

#[test]
fn a_message_ends_with_the_last_byte_of_its_last_frame() {
    let wire = [client(0x02, b"a"), client(0x89, b"?"), client(0x80, b"bc"), client(0x82, b"")].concat();
    let (mut decoder, mut inbound) = (Decoder::new(Sender::Client), BytesMut::from(&wire[..21]));
    assert!(decoder.is_between_messages());
    for (event, after) in [(data(b"a"), false), (Event::Ping("?".into()), false), (data(b"b"), false)] {
        assert_eq!((decoder.next(&mut inbound), decoder.is_between_messages()), (Ok(Some(event.clone())), after), "{event:?}");
    }
    inbound.extend_from_slice(&wire[21..]);
    for event in [data(b"c"), data(b"")] {
        assert_eq!((decoder.next(&mut inbound), decoder.is_between_messages()), (Ok(Some(event)), true));
    }
}

#[test]
fn t2b_empty_frames_are_told_one_by_one() {
    let wire = [client(0x02, b""), client(0x00, b""), client(0x80, b""), client(0x82, b"")].concat();
    let (mut decoder, mut inbound) = (Decoder::new(Sender::Client), BytesMut::from(&wire[..]));
    for _ in 0..4 {
        assert_eq!(decoder.next(&mut inbound), Ok(Some(data(b""))));
    }
    assert_eq!(decoder.next(&mut inbound), Ok(None));
}

#[test]
fn t2_what_no_peer_of_ours_sends_is_a_violation() {
    let long = |first: u8, marker: u8, length: &[u8]| [&[first, 0x80 | marker][..], length, &[0; 4]].concat();
    for (what, bytes, violation) in [
        ("a reserved bit", client(0xc2, b""), Violation::Reserved),
        ("another one", client(0xa2, b""), Violation::Reserved),
        ("the third", client(0x92, b""), Violation::Reserved),
        ("text", client(0x81, b"hi"), Violation::Opcode(1)),
        ("an opcode that does not exist", client(0x83, b""), Violation::Opcode(3)),
        ("a control opcode that does not exist", client(0x8f, b""), Violation::Opcode(15)),
        ("a continuation of nothing", client(0x80, b"x"), Violation::Order),
        ("a continuation behind the end", [client(0x82, b"x"), client(0x00, b"x")].concat(), Violation::Order),
        ("a message within one", [client(0x02, b"x"), client(0x82, b"x")].concat(), Violation::Order),
        ("no mask", frame(0x82, None, b"x"), Violation::Mask),
        ("no mask on a ping", frame(0x89, None, b"x"), Violation::Mask),
        ("a length of 125 in two bytes", long(0x82, 126, &[0, 125]), Violation::Length),
        ("a length of 65,535 in eight bytes", long(0x82, 127, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]), Violation::Length),
        ("one byte too many", long(0x82, 127, &[0, 0, 0, 0, 0, 1, 0, 1]), Violation::Length),
        ("2^63", long(0x82, 127, &[0x80, 0, 0, 0, 0, 0, 0, 0]), Violation::Length),
        ("2^64 - 1", long(0x82, 127, &[0xff; 8]), Violation::Length),
        ("a ping in pieces", client(0x09, b""), Violation::Control),
        ("a close in pieces", client(0x08, b""), Violation::Control),
        ("a ping of 126 bytes", client(0x89, &[0; 126]), Violation::Control),
        ("a pong of 64 KiB", client(0x8a, &[0; 65_536]), Violation::Control),
    ] {
        assert_eq!(decode(Sender::Client, [&bytes[..]]), Err(violation), "{what}");
        let pieces = bytes.chunks(1);
        assert_eq!(decode(Sender::Client, pieces), Err(violation), "{what}, byte by byte");
    }
    assert_eq!(decode(Sender::Server, [&client(0x82, b"x")[..]]), Err(Violation::Mask), "a server that masks");
}

#[test]
fn the_largest_frames_are_taken() {
    assert_eq!(decode(Sender::Client, [&client(0x89, &[7; 125])[..]]), Ok((vec![Event::Ping(vec![7; 125].into())], 0)));
    let payload = pattern(MAX_MESSAGE);
    assert_eq!(decode(Sender::Client, [&client(0x82, &payload)[..]]), Ok((vec![data(&payload)], 0)));
}

#[test]
fn less_than_a_header_and_a_control_frame_is_kept() {
    let wire = client(0x89, &[1; 125]);
    let (events, kept) = decode(Sender::Client, [&wire[..wire.len() - 1]]).unwrap();
    assert_eq!((events, kept), (vec![], wire.len() - 1));
    let wire = client(0x82, &pattern(1000));
    for cut in 0..8 {
        assert_eq!(decode(Sender::Client, [&wire[..cut]]).unwrap().1, cut, "a header is read when it is whole");
    }
    assert_eq!(decode(Sender::Client, [&wire[..500]]).unwrap().1, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_are_the_same_in_any_pieces(
        frames in prop::collection::vec((prop_oneof![Just(0x82_u8), Just(0x89), Just(0x8a)], any::<[u8; 4]>(), 0_usize..400), 1..8),
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let payload = |first: u8, length: usize| pattern(if first == 0x82 { length } else { length % 126 });
        let wire: Vec<u8> =
            frames.iter().flat_map(|(first, key, length)| frame(*first, Some(*key), &payload(*first, *length))).collect();
        let whole = decode(Sender::Client, [&wire[..]]);
        prop_assert!(whole.is_ok());
        let (mut rest, mut pieces) = (&wire[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (piece, left) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(decode(Sender::Client, pieces), whole);
    }
}
