//! What was sent and is not acknowledged yet, by reference, so that a new connection can go on from where the other end has got to.
//! Counts bytes of the lane's yamux stream, from its beginning. Refuses to know connections and frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::base::limits::{RETAINED, RETAINED_CHUNK, SENT_MESSAGE, SPARED_BUFFER};
use crate::base::memory::{Account, PROCESS};

/// The end of a lane's outgoing yamux stream that its peer may not have.
pub(super) struct Retained {
    /// From `acknowledged` to `sent`; empty when nothing is kept.
    chunks: VecDeque<Bytes>,
    /// What of that is still to go out on this connection, after an earlier one took it away.
    again: VecDeque<Bytes>,
    /// How much that is.
    left: u64,
    acknowledged: u64,
    sent: u64,
    /// How much was acknowledged at the last look whether this is too slow.
    looked: u64,
    /// What the chunks keep in memory.
    cost: usize,
    /// What the process is told of that.
    pub(super) memory: Account,
    /// A broken connection will be the end, so that nothing need be kept.
    forgetful: bool,
}

/// An offset beyond what was sent, or before what was acknowledged and is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset} is not within {acknowledged} and {sent}")]
pub(super) struct OutOfRange {
    offset: u64,
    acknowledged: u64,
    sent: u64,
}

impl Default for Retained {
    fn default() -> Self {
        let (chunks, again, memory) = (VecDeque::new(), VecDeque::new(), PROCESS.account());
        Self { chunks, again, left: 0, acknowledged: 0, sent: 0, looked: 0, cost: 0, memory, forgetful: false }
    }
}

impl Retained {
    /// Keeps nothing from here on; what goes out again still does.
    pub(super) fn forget(&mut self) {
        self.forgetful = true;
        (self.chunks, self.cost) = (VecDeque::new(), 0);
        self.memory.keeps(0);
    }

    /// What it keeps in memory.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    /// Whether more bytes of streams may be sent before something is acknowledged.
    pub(super) fn has_room(&self) -> bool {
        self.cost < room()
    }

    /// Whether answers, which must go out beyond that, have taken as much again.
    pub(super) fn is_overfull(&self) -> bool {
        self.cost >= 2 * room()
    }

    /// Whether it is to give way where memory is tight, asked once each heartbeat: it keeps much, and the peer has acknowledged less of
    /// late than that. A peer that takes what it is sent does so many times as fast.
    pub(super) fn gives_way(&mut self) -> bool {
        let of_late = self.acknowledged - std::mem::replace(&mut self.looked, self.acknowledged);
        self.cost > SPARED_BUFFER && of_late < self.cost as u64 && self.memory.is_tight()
    }

    /// Bytes sent since the lane began.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes sent that this connection, or one before it, has carried; the rest is still to go out again.
    pub(super) fn gone_out(&self) -> u64 {
        self.sent - self.left
    }

    /// Bytes that the peer has.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Bytes that the peer may not have.
    pub(super) fn outstanding(&self) -> u64 {
        self.sent - self.acknowledged
    }

    /// Some bytes go out for the first time.
    pub(super) fn send(&mut self, chunk: Bytes) {
        self.sent += chunk.len() as u64;
        if !self.forgetful {
            self.cost += chunk.len() + RETAINED_CHUNK;
            self.memory.keeps(self.cost);
            self.chunks.push_back(chunk);
        }
    }

    /// The peer has all up to `offset`; yields whether that is news. What it has said before may come late.
    pub(super) fn acknowledge(&mut self, offset: u64) -> Result<bool, OutOfRange> {
        if offset > self.sent {
            return Err(self.out_of_range(offset));
        }
        let Some(mut gone) = offset.checked_sub(self.acknowledged).filter(|gone| *gone > 0) else { return Ok(false) };
        self.acknowledged = offset;
        while let Some(first) = self.chunks.front_mut().filter(|_| gone > 0) {
            let part = first.len().min(usize::try_from(gone).unwrap_or(usize::MAX));
            gone -= part as u64;
            self.cost -= part;
            if part < first.len() {
                first.advance(part);
            } else {
                self.cost -= RETAINED_CHUNK;
                self.chunks.pop_front();
            }
        }
        if self.chunks.is_empty() {
            // An idle lane keeps no memory for what it once had under way.
            self.chunks = VecDeque::new();
        }
        self.memory.keeps(self.cost);
        Ok(true)
    }

    /// Whether a new connection can go on from `offset`.
    pub(super) fn check(&self, offset: u64) -> Result<(), OutOfRange> {
        let within = (self.acknowledged..=self.sent).contains(&offset);
        if within && (!self.forgetful || offset == self.sent) { Ok(()) } else { Err(self.out_of_range(offset)) }
    }

    /// Goes on from `offset`: what lies behind it goes out again.
    pub(super) fn rewind(&mut self, offset: u64) -> Result<(), OutOfRange> {
        self.check(offset)?;
        self.acknowledge(offset)?;
        (self.again, self.left) = (self.chunks.clone(), self.outstanding());
        Ok(())
    }

    /// The next message's worth of what goes out again; `None` when there is nothing left of it.
    pub(super) fn take_again(&mut self) -> Option<(Vec<Bytes>, usize)> {
        let (mut parts, mut len) = (Vec::new(), 0);
        while let Some(first) = self.again.front_mut().filter(|_| len < SENT_MESSAGE) {
            let room = SENT_MESSAGE - len;
            let part = if first.len() <= room { self.again.pop_front()? } else { first.split_to(room) };
            len += part.len();
            parts.push(part);
        }
        if self.again.is_empty() {
            self.again = VecDeque::new();
        }
        self.left -= len as u64;
        (len > 0).then_some((parts, len))
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        (self.chunks, self.again, self.left, self.cost) = (VecDeque::new(), VecDeque::new(), 0, 0);
        self.memory.keeps(0);
    }

    fn out_of_range(&self, offset: u64) -> OutOfRange {
        OutOfRange { offset, acknowledged: self.acknowledged, sent: self.sent }
    }
}

/// A simulation has less, so that it comes to its end with few bytes.
fn room() -> usize {
    #[cfg(test)]
    if let Some(room) = ROOM.get() {
        return room;
    }
    RETAINED
}

#[cfg(test)]
thread_local! {
    /// What lanes of this thread retain, if not as much as all others.
    pub(crate) static ROOM: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(chunks: &[&'static [u8]]) -> Retained {
        let mut retained = Retained::default();
        chunks.iter().for_each(|chunk| retained.send(Bytes::from_static(chunk)));
        retained
    }

    fn again(retained: &mut Retained) -> Vec<u8> {
        std::iter::from_fn(|| retained.take_again()).flat_map(|(parts, _)| parts.concat()).collect()
    }

    #[test]
    fn a_new_connection_goes_on_from_any_byte_that_was_sent_and_not_acknowledged() {
        for from in 0..=9 {
            let mut retained = sent(&[b"abc", b"", b"defg", b"hi"]);
            retained.rewind(from).unwrap();
            assert_eq!(again(&mut retained), &b"abcdefghi"[usize::try_from(from).unwrap()..]);
            retained.rewind(9).unwrap();
            assert_eq!((again(&mut retained), retained.cost, retained.outstanding()), (Vec::new(), 0, 0));
        }
    }

    #[test]
    fn a_connection_that_breaks_while_it_repeats_loses_nothing() {
        let mut retained = sent(&[b"abc", b"def"]);
        retained.rewind(1).unwrap();
        assert_eq!(retained.gone_out(), 1, "what lies behind is still to go out again");
        let (parts, len) = retained.take_again().unwrap();
        assert_eq!((parts.concat(), len, retained.gone_out()), (b"bcdef".to_vec(), 5, 6));
        retained.send(Bytes::from_static(b"g"));
        retained.rewind(2).unwrap();
        assert_eq!(again(&mut retained), b"cdefg");
    }

    #[test]
    fn an_offset_that_can_not_be_is_refused_and_changes_nothing() {
        let mut retained = sent(&[b"abcd"]);
        assert_eq!(retained.acknowledge(2), Ok(true));
        assert_eq!((retained.acknowledge(1), retained.acknowledge(2)), (Ok(false), Ok(false)), "late");
        assert!(retained.acknowledge(5).is_err() && retained.rewind(5).is_err(), "never sent");
        assert!(retained.rewind(1).is_err(), "gone");
        retained.rewind(2).unwrap();
        assert_eq!(again(&mut retained), b"cd");
    }

    #[test]
    fn what_is_kept_is_bounded_with_its_overhead() {
        let mut retained = Retained::default();
        let mut count = 0;
        while retained.has_room() {
            retained.send(Bytes::from_static(b"x"));
            count += 1;
        }
        assert_eq!(count, RETAINED.div_ceil(1 + RETAINED_CHUNK) as u64);
        assert_eq!(retained.acknowledge(count - 1), Ok(true));
        assert!(retained.has_room());
        retained.forget();
        retained.send(Bytes::from_static(b"y"));
        assert_eq!((retained.chunks.len(), retained.cost, retained.outstanding()), (0, 0, 2));
        assert!(retained.check(count).is_err(), "it is not kept");
        assert_eq!(retained.check(count + 1), Ok(()));
    }

    #[test]
    fn f31_the_process_is_told_of_what_is_kept() {
        let mut retained = Retained::default();
        for _ in 0..4 {
            retained.send(Bytes::from(vec![7; SENT_MESSAGE]));
        }
        assert_eq!(retained.memory.counted(), retained.cost);
        retained.acknowledge(2 * SENT_MESSAGE as u64).unwrap();
        assert_eq!(retained.memory.counted(), 2 * (SENT_MESSAGE + RETAINED_CHUNK));
        retained.clear();
        assert_eq!(retained.memory.counted(), 0);
    }

    #[test]
    fn what_goes_out_again_comes_in_messages_that_may_be_sent() {
        let mut retained = Retained::default();
        for _ in 0..5 {
            retained.send(Bytes::from(vec![7; SENT_MESSAGE / 2 + 1]));
        }
        retained.rewind(0).unwrap();
        let lens: Vec<_> = std::iter::from_fn(|| retained.take_again()).map(|(_, len)| len).collect();
        assert_eq!(lens, [SENT_MESSAGE, SENT_MESSAGE, SENT_MESSAGE / 2 + 5 - SENT_MESSAGE % 2]);
    }
}
