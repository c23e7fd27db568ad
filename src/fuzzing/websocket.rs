//! WebSocket frames, as a peer sends them. Refuses to know what they carry.

use bytes::{Bytes, BytesMut};

use crate::tunnel::websocket::{Decoder, Event, MAX_CONTROL, MAX_HEAD, Sender, Violation};

/// The decoder over an input: the first byte says who sends and how what follows is cut into pieces. What it tells must not depend
/// on the cuts, and what it keeps is less than a header and a control frame.
///
/// # Panics
/// When that is not so.
pub fn websocket(input: &[u8]) {
    let Some((how, wire)) = input.split_first() else { return };
    let sender = if how & 1 == 0 { Sender::Client } else { Sender::Server };
    let whole = decode(sender, [wire]);
    let pieces = usize::from(how >> 1) % 19 + 1;
    assert_eq!(decode(sender, wire.chunks(pieces)), whole, "in pieces of {pieces}");
}

/// What a decoder tells of pieces: the events, data joined, and why it stopped.
fn decode<'a>(sender: Sender, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Violation>) {
    let (mut decoder, mut inbound, mut events) = (Decoder::new(sender), BytesMut::new(), Vec::new());
    let mut fed = 0;
    for piece in pieces {
        inbound.extend_from_slice(piece);
        fed += piece.len();
        loop {
            let before = inbound.len();
            match decoder.next(&mut inbound) {
                Ok(Some(event)) => {
                    assert!(inbound.len() < before, "an event takes something");
                    note(&mut events, event);
                }
                Ok(None) => break,
                Err(violation) => return (events, Some(violation)),
            }
        }
        assert!(inbound.len() < MAX_HEAD + MAX_CONTROL, "{} bytes are kept", inbound.len());
    }
    let told: usize = events.iter().map(length).sum();
    assert!(told <= fed, "{told} bytes were made of {fed}");
    (events, None)
}

fn note(events: &mut Vec<Event>, event: Event) {
    if let (Some(Event::Data(before)), Event::Data(more)) = (events.last_mut(), &event) {
        *before = Bytes::from([&before[..], more].concat());
    } else {
        events.push(event);
    }
}

fn length(event: &Event) -> usize {
    match event {
        Event::Data(bytes) | Event::Ping(bytes) | Event::Pong(bytes) | Event::Close(bytes) => bytes.len(),
    }
}
