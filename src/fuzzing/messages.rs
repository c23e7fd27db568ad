//! What a peer says on the control stream, at a stream's beginning, in a heartbeat and in the header of a further lane. Refuses to
//! know what is done about it.

use std::fmt::Debug;

use bytes::BytesMut;
use prost::Message;

use super::shown;
use crate::base::limits::{MAX_CONTROL_MESSAGE, MAX_DETAIL};
use crate::wire::codec::{self, Malformed, Wire};
use crate::wire::heartbeat::Heartbeat;
use crate::wire::hello::{Hello, Kind};
use crate::wire::notice::Control;
use crate::wire::open::Open;
use crate::wire::refusal::Refusal;
use crate::wire::reply::Reply;
use crate::wire::resume::Resume;

/// A length takes three bytes at most.
const MAX_LENGTH: usize = 3;

/// What the agent's version and its capabilities are cut at, and what the caller and the trace context are, in characters.
const MAX_WORD: usize = 64;
const MAX_TEXT: usize = 256;

/// The control stream over an input. The first byte says what follows, and how it is cut into pieces: messages as they come, one
/// message without its length, the header of a further lane, or a heartbeat. What is read is the same whatever the cuts and again
/// when it is said anew; what waits for its end is no longer than a message.
///
/// # Panics
/// When that is not so.
pub fn control(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let pieces = usize::from(how >> 2) + 1;
    match how & 3 {
        0 => messages(rest, pieces),
        1 => messages(&framed(rest), pieces),
        2 => resume(rest),
        _ => heartbeat(rest),
    }
}

/// A stream's beginning over an input. The first byte says whether it is a request or its answer, whether it has its length, and
/// how it is cut into pieces. What follows the message stays as it is; texts are printable and bounded.
///
/// # Panics
/// When that is not so.
pub fn preface(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let pieces = usize::from(how >> 2) + 1;
    let wire = if how & 2 == 0 { rest.to_vec() } else { framed(rest) };
    if how & 1 == 0 {
        first(&wire, pieces, |open: &Open| {
            shown(&open.caller, MAX_TEXT);
            shown(open.trace.as_deref().unwrap_or_default(), MAX_TEXT);
            assert!(open.deadline.as_millis() <= u32::MAX.into(), "{:?}", open.deadline);
            fits(open);
        });
    } else {
        first(&wire, pieces, |reply: &Reply| {
            if let Reply::Refused(refusal) = reply {
                shown(&refusal.detail, MAX_DETAIL);
            }
            fits(reply);
        });
    }
}

fn messages(wire: &[u8], pieces: usize) {
    let whole = read_all(wire.chunks(wire.len().max(1)));
    assert_eq!(read_all(wire.chunks(pieces)), whole, "in pieces of {pieces}");
}

/// Every message of pieces and why it stopped, if it did.
fn read_all<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<<Control as Wire>::Proto>, Option<Malformed>) {
    let (mut inbound, mut read) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        inbound.extend_from_slice(piece);
        loop {
            match codec::decode::<Control>(&mut inbound) {
                Ok(Some(message)) => {
                    check(&message);
                    again(&message);
                    read.push(message.to_proto());
                }
                Ok(None) => break,
                Err(malformed) => return (read, Some(malformed)),
            }
        }
        kept(&inbound);
    }
    (read, None)
}

fn check(message: &Control) {
    match message {
        Control::Hello(Hello { agent_version, targets, capabilities, .. }) => {
            shown(agent_version, MAX_WORD);
            capabilities.iter().for_each(|word| shown(word, MAX_WORD));
            assert!(targets.iter().all(|target| matches!(target.kind, Kind::Tcp | Kind::Http | Kind::Ldap)));
        }
        Control::Welcome(welcome) => {
            assert!(welcome.max_lanes > 0 && welcome.resume_window.as_millis() <= u32::MAX.into(), "{welcome:?}");
            let secret = welcome.resume_secret.as_ref().map(|secret| secret.expose()).unwrap_or_default();
            let debug = format!("{welcome:?}");
            assert!(secret.len() < 16 || !debug.contains(secret), "{debug}");
        }
        Control::Refused(Refusal { detail, .. }) => shown(detail, MAX_DETAIL),
        Control::Notice(_) | Control::Unknown => {}
    }
}

/// The one message at the beginning, whole and in pieces, and what follows it.
fn first<M: Wire + Debug + PartialEq>(wire: &[u8], pieces: usize, check: impl Fn(&M)) {
    let whole = read_first::<M>(wire.chunks(wire.len().max(1)));
    assert_eq!(read_first(wire.chunks(pieces)), whole, "in pieces of {pieces}");
    let Ok((Some(message), rest)) = whole else { return };
    assert!(wire.ends_with(&rest), "what follows is changed");
    check(&message);
    again(&message);
}

/// A message, and all bytes that are not of it.
fn read_first<'a, M: Wire>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<(Option<M>, BytesMut), Malformed> {
    let mut inbound = BytesMut::new();
    while let Some(piece) = pieces.next() {
        inbound.extend_from_slice(piece);
        if let Some(message) = codec::decode::<M>(&mut inbound)? {
            pieces.for_each(|piece| inbound.extend_from_slice(piece));
            return Ok((Some(message), inbound));
        }
        kept(&inbound);
    }
    Ok((None, inbound))
}

fn kept(inbound: &BytesMut) {
    assert!(inbound.len() < MAX_LENGTH + MAX_CONTROL_MESSAGE, "{} bytes are kept", inbound.len());
}

/// What was read is the same when it is said anew and read again.
fn again<M: Wire>(message: &M) {
    let bytes = message.to_proto().encode_to_vec();
    let read = M::Proto::decode(&bytes[..]).expect("what was written can be read");
    let anew = M::from_proto(read).expect("what was taken is taken again").to_proto().encode_to_vec();
    assert!(anew == bytes, "{bytes:x?} becomes {anew:x?}");
}

/// What was read can be sent on.
fn fits<M: Wire + Debug + PartialEq>(message: &M) {
    let mut wire = BytesMut::new();
    codec::encode(message, &mut wire);
    let read = codec::decode::<M>(&mut wire);
    assert!(matches!(&read, Ok(Some(same)) if same == message), "{message:?} becomes {read:?}");
    assert!(wire.is_empty(), "more is sent than it");
}

fn resume(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match text.parse::<Resume>() {
        Ok(resume) => {
            let header = resume.to_string();
            assert_eq!(header.parse().as_ref(), Ok(&resume), "{header}");
            let proof = header.rsplit(", ").next().expect("a header has five parts");
            assert!(!format!("{resume:?}").contains(proof), "the proof is not for logs");
        }
        Err(Malformed(detail)) => shown(&detail, MAX_TEXT),
    }
}

fn heartbeat(bytes: &[u8]) {
    match Heartbeat::from_bytes(bytes) {
        Some(heartbeat) => assert_eq!(heartbeat.to_bytes(), bytes),
        None => assert_ne!(bytes.len(), 17),
    }
}

/// A message's bytes behind their length.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    prost::encode_length_delimiter(body.len(), &mut wire).expect("memory takes every write");
    wire.extend_from_slice(body);
    wire
}
