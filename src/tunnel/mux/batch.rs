//! What goes out in one message: headers and small bodies copied together, large bodies by reference.
//! Refuses to know what is worth sending.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::frame::{HEADER, Header};

/// Bodies up to this size are copied beside their headers: a copy costs less than one more slice to encrypt from.
const SMALL: usize = 1024;

/// What is copied together begins with so much memory: a small frame or two, or the headers of large ones. It may be kept for long.
const SCRATCH: usize = 128;

/// Frames gathered for one message of at most `limit` bytes.
pub(in crate::tunnel) struct Batch {
    scratch: BytesMut,
    parts: Vec<Part>,
    len: usize,
    limit: usize,
    headroom: usize,
}

enum Part {
    /// A range of `scratch`.
    Copied(Range<usize>),
    Body(Bytes),
}

impl Batch {
    /// An empty batch; `headroom` bytes before it are left to whoever frames it.
    pub(in crate::tunnel) fn new(headroom: usize, limit: usize) -> Self {
        let mut scratch = BytesMut::with_capacity(SCRATCH);
        scratch.resize(headroom, 0);
        Self { scratch, parts: vec![Part::Copied(0..headroom)], len: 0, limit, headroom }
    }

    /// Bytes of frames.
    pub(in crate::tunnel) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to send.
    pub(in crate::tunnel) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How large a body may still be; none if not even a header fits.
    pub(super) fn room(&self) -> Option<usize> {
        (self.limit - self.len).checked_sub(HEADER)
    }

    /// Appends a frame; it must fit.
    pub(super) fn push(&mut self, header: Header, body: Bytes) {
        debug_assert_eq!(header.body(), body.len(), "the header tells the body's length");
        self.len += HEADER + body.len();
        self.copy(&header.encode());
        if body.len() <= SMALL {
            self.copy(&body);
        } else {
            self.parts.push(Part::Body(body));
        }
    }

    /// The parts in order, the first one behind `head`, which fills the end of the headroom; each is shown to `keep` without it.
    pub(in crate::tunnel) fn finish(mut self, head: &[u8], out: &mut impl Extend<Bytes>, mut keep: impl FnMut(&Bytes)) {
        let start = self.headroom - head.len();
        self.scratch[start..self.headroom].copy_from_slice(head);
        let scratch = self.scratch.freeze();
        let headroom = self.headroom;
        out.extend(self.parts.into_iter().map(|part| match part {
            Part::Copied(Range { start: 0, end }) => {
                keep(&scratch.slice(headroom..end));
                scratch.slice(start..end)
            }
            Part::Copied(range) => {
                let part = scratch.slice(range);
                keep(&part);
                part
            }
            Part::Body(body) => {
                keep(&body);
                body
            }
        }));
    }

    fn copy(&mut self, bytes: &[u8]) {
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        match self.parts.last_mut() {
            Some(Part::Copied(range)) if range.end == start => range.end = self.scratch.len(),
            _ => self.parts.push(Part::Copied(start..self.scratch.len())),
        }
    }
}

#[cfg(test)]
mod tests;
