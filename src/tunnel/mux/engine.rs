//! The yamux state machine of one lane: bytes in, frames out, streams between. No socket, no clock, no task: time is a parameter
//! and waiting is a waker. What goes out when is in `schedule`, what comes in in `receive`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Side;
use super::entry::{End, Entry, Greeting, Last};
use super::frame::{Flags, Header, Kind};
use super::receive::{Churn, Parser};
use crate::base::code::{Code, Failure};
use crate::base::limits::{MUX_SLACK, SESSION_GROWTH, WINDOW_IDLE};
use crate::base::memory::{Account, PROCESS};

/// One end of a yamux connection.
pub(super) struct Engine {
    pub(super) side: Side,
    pub(super) streams: BTreeMap<u32, Entry>,
    /// Streams that somebody holds or may still accept.
    pub(super) live: usize,
    /// Streams of both sides that there may be, and with those that nobody holds any more.
    pub(super) max_live: usize,
    pub(super) limit: usize,
    next: u32,
    pub(super) arrived: VecDeque<u32>,
    pub(super) acceptor: Option<Waker>,
    pub(super) parser: Parser,
    pub(super) churn: Churn,
    /// Pings' answers, resets of streams that were never taken, the farewell.
    pub(super) control: VecDeque<Header>,
    /// Streams with credit to tell.
    pub(super) updates: VecDeque<u32>,
    /// Streams that have sent little of late, then those that would send more than their share: see `schedule`.
    pub(super) sparse: VecDeque<u32>,
    pub(super) bulk: VecDeque<u32>,
    /// Bytes that have gone before the bulk since it last had a turn.
    pub(super) ahead: usize,
    /// What unread bytes keep in memory, and where that is told.
    pub(super) held: usize,
    pub(super) memory: Account,
    /// What windows may still grow by.
    pub(super) growth: usize,
    /// The shortest round trip of late; zero before the first is known.
    pub(super) round_trip: Duration,
    /// The peer takes no further streams.
    pub(super) farewell: bool,
    /// Streams have been told that the connection is over.
    pub(super) lost: bool,
    /// Nothing can be sent any more.
    pub(super) dead: bool,
    /// Whether the driver has something new to do.
    pub(super) kicked: bool,
    /// Who is to be woken once the lock is released.
    pub(super) wakes: Vec<Waker>,
}

impl Engine {
    pub(super) fn new(side: Side, max_live: usize, now: Instant) -> Self {
        Self {
            side,
            streams: BTreeMap::new(),
            live: 0,
            max_live,
            limit: max_live + MUX_SLACK,
            next: if side == Side::Agent { 1 } else { 2 },
            arrived: VecDeque::new(),
            acceptor: None,
            parser: Parser::default(),
            churn: Churn::new(now),
            control: VecDeque::new(),
            updates: VecDeque::new(),
            sparse: VecDeque::new(),
            bulk: VecDeque::new(),
            ahead: 0,
            held: 0,
            memory: PROCESS.account(),
            growth: SESSION_GROWTH,
            round_trip: Duration::ZERO,
            farewell: false,
            lost: false,
            dead: false,
            kicked: false,
            wakes: Vec::new(),
        }
    }

    /// A new stream of this side's; the peer learns of it with its first byte. `None` at the limit, when ids have run out or
    /// the peer takes no more.
    pub(super) fn open(&mut self, now: Instant) -> Option<u32> {
        let full = self.live >= self.max_live || self.streams.len() >= self.limit;
        if self.farewell || self.lost || full || self.next > u32::MAX - 2 {
            return None;
        }
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, Entry::new(Greeting::Open, now));
        self.live += 1;
        Some(id)
    }

    #[cfg(test)]
    pub(super) fn wear(&mut self) {
        self.next = u32::MAX - crate::base::limits::LAST_IDS + (self.next + 1) % 2;
    }

    /// Takes another number of streams from here on; those that are open stay.
    pub(super) fn allow(&mut self, streams: usize) {
        self.max_live = streams;
        self.limit = streams + MUX_SLACK;
    }

    /// The next stream of the peer's; `None` when there will be no more.
    pub(super) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<u32>> {
        if let Some(id) = self.arrived.pop_front() {
            return Poll::Ready(Some(id));
        }
        if self.lost {
            return Poll::Ready(None);
        }
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Up to `max` bytes of what the peer sent; empty at its end of file.
    pub(super) fn poll_read(
        &mut self,
        id: u32,
        max: usize,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
    ) -> Poll<Result<Bytes, Broken>> {
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(Broken::Lost)) };
        if let Some(code) = entry.failed {
            return Poll::Ready(Err(Broken::Failed(code)));
        }
        if let Some((bytes, freed)) = entry.reading.take(max) {
            self.held -= freed;
            self.memory.keeps(self.held);
            if entry.reading.consume(bytes.len(), now, self.round_trip, &mut self.growth) {
                self.updates.push_back(id);
                self.kicked = true;
            }
            return Poll::Ready(Ok(bytes));
        }
        match entry.reading.end {
            Some(End::Finished) => Poll::Ready(Ok(Bytes::new())),
            Some(End::Reset) => Poll::Ready(Err(Broken::Reset)),
            None if self.lost => Poll::Ready(Err(Broken::Lost)),
            None => {
                entry.reading.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Whether something has come that is not read yet.
    pub(super) fn has_unread(&self, id: u32) -> bool {
        self.streams.get(&id).is_some_and(|entry| entry.reading.unread > 0)
    }

    /// Takes `bytes` if the stream's queue has room.
    pub(super) fn poll_write(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        bytes: impl FnOnce() -> Bytes,
    ) -> Poll<Result<(), Broken>> {
        let lost = self.lost;
        let Some(entry) = self.streams.get_mut(&id).filter(|_| !lost) else { return Poll::Ready(Err(Broken::Lost)) };
        if let Some(code) = entry.failed {
            return Poll::Ready(Err(Broken::Failed(code)));
        }
        let writing = &mut entry.writing;
        if writing.end != Last::Open {
            return Poll::Ready(Err(Broken::Closed));
        }
        if !writing.has_room() {
            writing.wait(cx);
            return Poll::Pending;
        }
        let bytes = bytes();
        if !bytes.is_empty() {
            writing.queued += bytes.len();
            writing.outbox.push_back(bytes);
            self.schedule(id);
        }
        Poll::Ready(Ok(()))
    }

    /// Queues the end of file; ready once it and all before it have gone out.
    pub(super) fn poll_finish(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let lost = self.lost;
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(Broken::Lost)) };
        if let Some(code) = entry.failed {
            return Poll::Ready(Err(Broken::Failed(code)));
        }
        match entry.writing.end {
            Last::Finished => Poll::Ready(Ok(())),
            Last::Closed | Last::Reset => Poll::Ready(Err(Broken::Closed)),
            _ if lost => Poll::Ready(Err(Broken::Lost)),
            Last::Open | Last::Finish | Last::FinishReset => {
                entry.writing.end = Last::Finish;
                entry.writing.wait(cx);
                self.schedule(id);
                Poll::Pending
            }
        }
    }

    /// Nobody holds the stream any more. Unless both ways are finished the peer is told that it is dropped, behind what was written and
    /// may be sent.
    pub(super) fn release(&mut self, id: u32) {
        let (dead, lost) = (self.dead, self.lost);
        let Some(entry) = self.streams.get_mut(&id) else { return };
        self.live -= 1;
        self.held -= entry.reading.discard();
        self.memory.keeps(self.held);
        self.growth += entry.reading.shrink();
        entry.orphan = true;
        entry.reading.waker = None;
        entry.writing.waker = None;
        let peer_ended = entry.reading.end.is_some();
        let writing = &mut entry.writing;
        writing.end = match writing.end {
            _ if entry.failed.is_some() => Last::Reset,
            Last::Open => Last::Reset,
            Last::Finish if !peer_ended => Last::FinishReset,
            Last::Finished if !peer_ended => Last::Reset,
            Last::Finished => Last::Closed,
            other => other,
        };
        if writing.end == Last::Reset && (entry.failed.is_some() || writing.queued > writing.credit as usize) {
            writing.clear();
        }
        let unheard_of = entry.greeting == Greeting::Open && writing.queued == 0 && writing.end == Last::Reset;
        let silent = lost && writing.queued == 0;
        if dead || unheard_of || silent || writing.end == Last::Closed {
            self.forget(id);
        } else {
            self.schedule(id);
        }
    }

    /// Breaks one stream from this side: whoever holds it is told, and by dropping it tells the peer.
    pub(super) fn fail(&mut self, id: u32, code: Code) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        self.held -= entry.reading.discard();
        self.memory.keeps(self.held);
        self.growth += entry.reading.shrink();
        entry.failed = entry.failed.or(Some(code));
        entry.writing.clear();
        entry.wake(&mut self.wakes);
        // No end of file for what is broken.
        if entry.orphan {
            entry.writing.end = Last::Reset;
            self.schedule(id);
        } else if entry.writing.end == Last::Finish {
            entry.writing.end = Last::Open;
        }
    }

    /// Nothing more is to be said of a stream, and nobody holds it.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(entry) = self.streams.remove(&id) else { return };
        // A peer that makes streams come and go while it reads nothing must not fill the queues with them.
        if entry.writing.scheduled {
            self.sparse.retain(|other| *other != id);
            self.bulk.retain(|other| *other != id);
        }
        if entry.reading.credit > 0 {
            self.updates.retain(|other| *other != id);
        }
    }

    /// Tells every stream that the connection is over.
    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.wakes.extend(self.acceptor.take());
        for entry in self.streams.values_mut() {
            entry.wake(&mut self.wakes);
        }
    }

    /// Nothing can be sent any more.
    pub(super) fn die(&mut self) {
        self.lose();
        self.dead = true;
        self.streams.retain(|_, entry| !entry.orphan);
        self.control.clear();
        self.updates.clear();
        self.sparse.clear();
        self.bulk.clear();
    }

    /// What is to be done from time to time: acknowledge streams of which nothing else was said, take back windows that nobody uses, and
    /// memory that others need more.
    pub(super) fn tick(&mut self, now: Instant) {
        self.shed();
        for (id, entry) in &mut self.streams {
            if entry.greeting == Greeting::Acknowledge && !entry.orphan {
                entry.greeting = Greeting::Done;
                self.control.push_back(Header::new(Kind::WindowUpdate, Flags::ACK, *id, 0));
            }
            if entry.reading.idle(now) >= WINDOW_IDLE {
                self.growth += entry.reading.shrink();
            }
        }
    }

    /// Says that no further stream is taken, and why: nothing wrong.
    pub(super) fn say_farewell(&mut self) {
        self.control.push_back(Header::new(Kind::GoAway, Flags::default(), 0, 0));
    }
}

/// Why a stream can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection is over.
    Lost,
    /// The peer dropped the stream.
    Reset,
    /// This end broke it, for this reason.
    Failed(Code),
    /// Nothing more can be written to it.
    Closed,
}

impl Broken {
    /// As an error of reading or writing; `why` explains the connection's end.
    pub(super) fn into_io(self, why: impl FnOnce() -> Failure) -> io::Error {
        match self {
            Self::Lost => io::Error::new(io::ErrorKind::ConnectionAborted, why()),
            Self::Reset => io::ErrorKind::ConnectionReset.into(),
            Self::Failed(code) => io::Error::new(io::ErrorKind::ConnectionReset, Failure::new(code, "broken by this side")),
            Self::Closed => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

#[cfg(test)]
mod tests;
