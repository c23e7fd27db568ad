//! What comes in: frames out of any pieces of bytes, and what each does. A frame that breaks a rule costs the peer that stream;
//! one that can't be understood ends the connection. Refuses to know what goes out.

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::Side;
use super::engine::Engine;
use super::entry::{End, Entry, Greeting, Last};
use super::frame::{Flags, HEADER, Header, Kind};
use crate::base::code::Code;
use crate::base::limits::{CHURN_BURST, CHURN_PER_SECOND, CONTROL_QUEUE, SESSION_BUFFER, SPARED_BUFFER, STREAM_WINDOW_MAX};

/// Where in a frame the next byte is.
#[derive(Default)]
pub(super) struct Parser {
    header: [u8; HEADER],
    /// Bytes of the header that are there.
    have: usize,
    /// The frame whose body is being read, and how much of it is missing.
    body: Option<(Header, usize)>,
}

/// Streams that the peer dropped, or had dropped, before they came to their end, as far as they are forgiven.
pub(super) struct Churn {
    left: u32,
    since: Instant,
}

/// Why the connection can't go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("yamux: {0}")]
    Header(#[from] super::frame::BadHeader),
    #[error("yamux: stream {0} is opened with an id of this side's")]
    Parity(u32),
    #[error("yamux: stream {0} is opened again")]
    InUse(u32),
    #[error("yamux: a frame of {0} bytes, more than any window")]
    Length(u32),
}

impl Engine {
    /// Takes what came.
    pub(super) fn receive(&mut self, mut bytes: Bytes, now: Instant) -> Result<(), Violation> {
        while !bytes.is_empty() {
            match self.parser.body.take() {
                Some((header, missing)) => {
                    let part = bytes.split_to(missing.min(bytes.len()));
                    let missing = missing - part.len();
                    self.body(header.stream, part);
                    self.begin_or_end(header, missing, now);
                }
                None => {
                    if let Some(header) = self.parser.next_header(&mut bytes)? {
                        self.frame(header, now)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether so much waits to be answered that nothing more may be read: who doesn't collect the answers gets no further ones.
    pub(super) fn is_congested(&self) -> bool {
        self.control.len() >= CONTROL_QUEUE
    }

    fn frame(&mut self, header: Header, now: Instant) -> Result<(), Violation> {
        match header.kind {
            Kind::Data | Kind::WindowUpdate => {
                if header.flags.has(Flags::SYN) && header.stream != 0 {
                    self.arrive(header.stream, now)?;
                }
                if header.kind == Kind::WindowUpdate {
                    self.credit(header.stream, header.length, now);
                } else if header.length > STREAM_WINDOW_MAX {
                    return Err(Violation::Length(header.length));
                } else {
                    self.account(header.stream, header.length, now);
                }
                self.begin_or_end(header, header.body(), now);
            }
            Kind::Ping if header.flags.has(Flags::SYN) => {
                self.control.push_back(Header::new(Kind::Ping, Flags::ACK, 0, header.length));
            }
            // Nobody here asked: heartbeats are WebSocket's.
            Kind::Ping => {}
            Kind::GoAway => self.farewell = true,
        }
        Ok(())
    }

    /// Either the body is still to come or the frame is whole, and with it what its flags say.
    fn begin_or_end(&mut self, header: Header, missing: usize, now: Instant) {
        if missing > 0 {
            self.parser.body = Some((header, missing));
        } else if header.flags.has(Flags::RST) {
            self.reset(header.stream, now);
        } else if header.flags.has(Flags::FIN) {
            self.finish(header.stream);
        }
    }

    /// A stream that the peer opens.
    fn arrive(&mut self, id: u32, now: Instant) -> Result<(), Violation> {
        let odd = id % 2 == 1;
        if odd == (self.side == Side::Agent) {
            return Err(Violation::Parity(id));
        }
        if self.streams.contains_key(&id) {
            return Err(Violation::InUse(id));
        }
        if self.lost || self.streams.len() >= self.limit || !self.churn.forgives(now) {
            self.control.push_back(Header::new(Kind::Data, Flags::RST, id, 0));
            return Ok(());
        }
        self.streams.insert(id, Entry::new(Greeting::Acknowledge, now));
        self.live += 1;
        self.arrived.push_back(id);
        self.wakes.extend(self.acceptor.take());
        Ok(())
    }

    /// More room at the peer. An overflow is the stream's ruin (GHSA-4w32-2493-32g7).
    fn credit(&mut self, id: u32, more: u32, now: Instant) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        match entry.writing.credit.checked_add(more) {
            Some(credit) => {
                entry.writing.credit = credit;
                self.schedule(id);
            }
            None => self.violated(id, now),
        }
    }

    /// A body is about to come: within its window, or the stream is broken and the body passed over.
    fn account(&mut self, id: u32, length: u32, now: Instant) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        match entry.reading.left.checked_sub(length) {
            Some(left) => entry.reading.left = left,
            None => self.violated(id, now),
        }
    }

    /// Making this side reset a stream costs a peer as much as resetting it.
    fn violated(&mut self, id: u32, now: Instant) {
        self.count_churn(id, now);
        self.fail(id, Code::ProtocolViolation);
    }

    /// A stream ended before its time; those of this side's are its own affair.
    fn count_churn(&mut self, id: u32, now: Instant) {
        if id % 2 != u32::from(self.side == Side::Agent) {
            self.churn.count(now);
        }
    }

    fn body(&mut self, id: u32, part: Bytes) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if entry.orphan || entry.failed.is_some() || entry.reading.end.is_some() {
            return;
        }
        self.held += entry.reading.deliver(part);
        self.memory.keeps(self.held);
        self.wakes.extend(entry.reading.waker.take());
        self.shed();
    }

    /// Resets the stream that holds most, as long as all together hold too much.
    pub(super) fn shed(&mut self) {
        while self.held > SESSION_BUFFER || (self.held > SPARED_BUFFER && self.memory.is_short()) {
            let Some((id, _)) = self.streams.iter().max_by_key(|(_, entry)| entry.reading.held) else { return };
            self.fail(*id, Code::MemoryBudget);
        }
    }

    fn finish(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.reading.end = entry.reading.end.or(Some(End::Finished));
        self.wakes.extend(entry.reading.waker.take());
        if entry.orphan && entry.writing.end == Last::Finished {
            self.forget(id);
        }
    }

    fn reset(&mut self, id: u32, now: Instant) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        // An end of file that came before stays one.
        entry.reading.end = entry.reading.end.or(Some(End::Reset));
        entry.writing.clear();
        entry.writing.end = Last::Closed;
        entry.wake(&mut self.wakes);
        let orphan = entry.orphan;
        self.count_churn(id, now);
        if orphan {
            self.forget(id);
        }
    }
}

impl Parser {
    /// Bytes to the end of the frame that has begun, if its header is whole, else of its header.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn missing(&self) -> usize {
        match self.body {
            Some((_, missing)) => missing,
            None => (HEADER - self.have) % HEADER,
        }
    }

    fn next_header(&mut self, bytes: &mut Bytes) -> Result<Option<Header>, Violation> {
        let count = bytes.len().min(HEADER - self.have);
        bytes.copy_to_slice(&mut self.header[self.have..self.have + count]);
        self.have += count;
        if self.have < HEADER {
            return Ok(None);
        }
        self.have = 0;
        Ok(Some(Header::decode(&self.header)?))
    }
}

impl Churn {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: CHURN_BURST, since: now }
    }

    /// A stream of the peer's was dropped by it, or for what it did.
    fn count(&mut self, now: Instant) {
        self.refill(now);
        self.left = self.left.saturating_sub(1);
    }

    fn forgives(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            self.refill(now);
        }
        self.left > 0
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            self.since = now;
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(CHURN_PER_SECOND);
            self.left = self.left.saturating_add(more).min(CHURN_BURST);
        }
    }
}

#[cfg(test)]
mod tests;
