//! Messages out of chunks as they are read, and chunks again of what passes. A message that lies in one chunk is never copied, and those that
//! pass side by side go on as one chunk. Refuses to know what is in a message.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::ber::{Malformed, message_len, validate};

/// Takes chunks and yields messages.
#[derive(Debug)]
pub struct Framer {
    max: usize,
    chunks: VecDeque<Bytes>,
    /// The beginning of a message that goes on in another chunk.
    partial: BytesMut,
}

/// A message, and the chunk from its beginning on.
#[derive(Clone, Debug)]
pub struct Framed {
    /// All of it, and nothing else; sound ([`validate`]).
    pub message: Bytes,
    chunk: Bytes,
}

impl Framer {
    /// For messages of at most so many bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, chunks: VecDeque::new(), partial: BytesMut::new() }
    }

    /// Where to put what was read.
    pub fn chunks(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.chunks
    }

    /// What there is of a message that has begun and not ended, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// The next whole message; nothing while there is none, and then no chunk is left either.
    ///
    /// # Errors
    /// [`Malformed`], as soon as what was read can't begin a message.
    pub fn next_message(&mut self) -> Result<Option<Framed>, Malformed> {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.is_empty() {
                self.chunks.pop_front();
                continue;
            }
            let message = if self.partial.is_empty() {
                match message_len(chunk, self.max)?.filter(|length| *length <= chunk.len()) {
                    Some(length) => {
                        let rest = chunk.clone();
                        Some(Framed { message: chunk.split_to(length), chunk: rest })
                    }
                    None => {
                        self.partial.extend_from_slice(&chunk.split_to(chunk.len()));
                        None
                    }
                }
            } else {
                complete(&mut self.partial, chunk, self.max)?
            };
            if let Some(framed) = message {
                validate(&framed.message)?;
                return Ok(Some(framed));
            }
        }
        Ok(None)
    }
}

/// Moves what belongs to the message from the chunk to its beginning. A head's bytes go one by one: only then is it known what belongs to it.
fn complete(partial: &mut BytesMut, chunk: &mut Bytes, max: usize) -> Result<Option<Framed>, Malformed> {
    let length = loop {
        if let Some(length) = message_len(partial, max)? {
            break length;
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        partial.extend_from_slice(&[chunk.get_u8()]);
    };
    let missing = (length - partial.len()).min(chunk.len());
    partial.extend_from_slice(&chunk.split_to(missing));
    if partial.len() < length {
        return Ok(None);
    }
    let message = std::mem::take(partial).freeze();
    Ok(Some(Framed { chunk: message.clone(), message }))
}

/// Chunks on their way out.
#[derive(Debug, Default)]
pub struct Outgoing {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// What the last chunk is the beginning of, and may be made longer in.
    source: Bytes,
}

impl Outgoing {
    /// Puts a message there that passes as it is.
    pub fn pass(&mut self, framed: &Framed) {
        let message = &framed.message;
        if let Some(last) = self.chunks.back_mut() {
            let both = last.len() + message.len();
            // They lie side by side in one chunk.
            if both <= self.source.len() && std::ptr::eq(self.source[last.len()..].as_ptr(), message.as_ptr()) {
                *last = self.source.slice(..both);
                self.bytes += message.len();
                return;
            }
        }
        self.push(message.clone());
        self.source = framed.chunk.clone();
    }

    /// Puts something else there.
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.source = Bytes::new();
        self.bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// How much there is.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All that is there, for whoever takes it away; parts that are not taken stay.
    pub fn chunks(&mut self) -> &mut VecDeque<Bytes> {
        // Whoever takes a part of the last chunk shortens it from the front.
        self.source = Bytes::new();
        &mut self.chunks
    }

    /// Counts anew after some was taken; yields how much that was.
    pub fn settle(&mut self) -> usize {
        let left = self.chunks.iter().map(Bytes::len).sum();
        std::mem::replace(&mut self.bytes, left) - left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ldap::ber::{Writer, tag};

    fn message(length: usize) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.constructed(tag::SEQUENCE, |it| it.octets(tag::OCTETS, &vec![u8::try_from(length % 251).unwrap(); length]));
        writer.into_bytes()
    }

    fn all(framer: &mut Framer) -> Vec<Bytes> {
        std::iter::from_fn(|| framer.next_message().unwrap()).map(|framed| framed.message).collect()
    }

    #[test]
    fn messages_side_by_side_pass_as_one_chunk_and_are_not_copied() {
        let messages = [message(3), message(300), message(0)];
        let chunk = Bytes::from(messages.concat());
        let (mut framer, mut out) = (Framer::new(1000), Outgoing::default());
        framer.chunks().push_back(chunk.clone());
        while let Some(framed) = framer.next_message().unwrap() {
            out.pass(&framed);
        }
        assert_eq!((out.bytes(), out.chunks().len()), (chunk.len(), 1));
        assert_eq!(out.chunks()[0].as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn what_is_left_out_or_put_in_between_keeps_its_place() {
        let messages = [message(1), message(2), message(3), message(4)];
        let (mut framer, mut out) = (Framer::new(1000), Outgoing::default());
        framer.chunks().push_back(Bytes::from(messages.concat()));
        for at in 0..4 {
            let framed = framer.next_message().unwrap().unwrap();
            match at {
                1 => {}
                2 => out.push(&b"new"[..]),
                _ => out.pass(&framed),
            }
        }
        let expected = [&messages[0][..], b"new", &messages[3]].concat();
        assert_eq!(out.chunks().iter().flatten().copied().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn d7_a_message_over_the_limit_is_refused_by_its_head_also_when_that_is_cut() {
        let mut framer = Framer::new(1000);
        for byte in [0x30, 0x84, 0, 1, 0] {
            framer.chunks().push_back(Bytes::from(vec![byte]));
            assert!(framer.next_message().unwrap().is_none());
        }
        framer.chunks().push_back(Bytes::from_static(&[0]));
        assert!(framer.next_message().is_err());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(lengths in proptest::collection::vec(0..400usize, 1..8), cuts in proptest::collection::vec(1..60usize, 1..40)) {
            let messages: Vec<_> = lengths.into_iter().map(message).collect();
            let (mut framer, mut out, mut found) = (Framer::new(1000), Outgoing::default(), Vec::new());
            let mut wire = Bytes::from(messages.concat());
            let mut cuts = cuts.into_iter().cycle();
            while !wire.is_empty() {
                let part = wire.split_to(cuts.next().unwrap().min(wire.len()));
                framer.chunks().push_back(part);
                while let Some(framed) = framer.next_message().unwrap() {
                    out.pass(&framed);
                    found.push(framed.message);
                }
            }
            prop_assert_eq!(&found, &messages);
            prop_assert!(framer.held() == 0 && all(&mut framer).is_empty());
            prop_assert_eq!(out.chunks().iter().flatten().copied().collect::<Vec<_>>(), messages.concat());
        }
    }
}
