//! One stream's state at one end: what was received and not read, what was written and not sent, and how far each way is.
//! Refuses to know other streams and the connection.

use std::collections::VecDeque;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::base::code::Code;
use crate::base::limits::{
    CHUNK_COST, CREDIT_STEP, READ_BUFFER, ROUND_TRIP_MIN, SEND_CHUNKS, SEND_QUEUE, STREAM_WINDOW, STREAM_WINDOW_MAX,
    WINDOW_PERIOD,
};

#[allow(clippy::cast_possible_truncation, reason = "256 KiB")]
const INITIAL_WINDOW: u32 = STREAM_WINDOW as u32;

/// A stream.
pub(super) struct Entry {
    pub(super) reading: Reading,
    pub(super) writing: Writing,
    /// What the next frame says of the stream's beginning.
    pub(super) greeting: Greeting,
    /// This end has broken the stream, for this reason.
    pub(super) failed: Option<Code>,
    /// Nobody holds the stream any more; it stays until what is left to say is said.
    pub(super) orphan: bool,
}

/// What is still to be said of a stream's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Opened here, the peer doesn't know yet.
    Open,
    /// Opened by the peer, not yet acknowledged.
    Acknowledge,
    /// Nothing.
    Done,
}

/// The way in.
pub(super) struct Reading {
    inbox: VecDeque<Chunk>,
    /// Bytes in the inbox.
    pub(super) unread: usize,
    /// What they keep in memory.
    pub(super) held: usize,
    /// Bytes that the peer may still send.
    pub(super) left: u32,
    /// What the window is when all is read.
    window: u32,
    /// Bytes read since the peer was last told.
    consumed: u32,
    /// When that was.
    told: Instant,
    /// Bytes read since the rate was last looked at, and when that was.
    measured: u64,
    since: Instant,
    /// Credit that is about to be told.
    pub(super) credit: u32,
    pub(super) end: Option<End>,
    pub(super) waker: Option<Waker>,
}

/// A part of what came.
struct Chunk {
    bytes: Bytes,
    /// Memory that it keeps: its own length or that of the buffer in which it lies, and what keeps it.
    held: usize,
}

/// How the peer ended its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Reset,
}

/// The way out.
pub(super) struct Writing {
    pub(super) outbox: VecDeque<Bytes>,
    /// Bytes in the outbox.
    pub(super) queued: usize,
    /// Bytes that the peer takes.
    pub(super) credit: u32,
    pub(super) end: Last,
    pub(super) waker: Option<Waker>,
    /// Whether it is in one of the schedule's queues.
    pub(super) scheduled: bool,
    /// What it may send in this round.
    pub(super) deficit: isize,
}

/// What follows the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// More may come.
    Open,
    /// A FIN.
    Finish,
    /// Nothing: the FIN was sent.
    Finished,
    /// A FIN, then a reset: the stream was dropped before the peer's end.
    FinishReset,
    /// A reset.
    Reset,
    /// Nothing: a reset was sent or received.
    Closed,
}

impl Entry {
    pub(super) fn new(greeting: Greeting, now: Instant) -> Self {
        Self {
            reading: Reading {
                inbox: VecDeque::new(),
                unread: 0,
                held: 0,
                left: INITIAL_WINDOW,
                window: INITIAL_WINDOW,
                consumed: 0,
                told: now,
                measured: 0,
                since: now,
                credit: 0,
                end: None,
                waker: None,
            },
            writing: Writing {
                outbox: VecDeque::new(),
                queued: 0,
                credit: INITIAL_WINDOW,
                end: Last::Open,
                waker: None,
                scheduled: false,
                deficit: 0,
            },
            greeting,
            failed: None,
            orphan: false,
        }
    }

    /// Whether anything of it could go out now.
    pub(super) fn has_something_to_send(&self) -> bool {
        let Writing { queued, credit, end, .. } = &self.writing;
        (*queued > 0 && *credit > 0) || (*queued == 0 && matches!(end, Last::Finish | Last::FinishReset | Last::Reset))
    }

    /// Whoever waits for the stream is to be woken.
    pub(super) fn wake(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reading.waker.take());
        wakes.extend(self.writing.waker.take());
    }

    /// Whether both ways have come to their end of file.
    pub(super) fn is_finished(&self) -> bool {
        self.reading.end == Some(End::Finished) && matches!(self.writing.end, Last::Finish | Last::Finished)
    }
}

impl Reading {
    /// Takes what came, which lies in a buffer of [`READ_BUFFER`]; yields what it adds to the memory held. What is much smaller
    /// than its buffer is copied out of it, and so is everything for a reader that lags behind: it then holds what it says and no more.
    pub(super) fn deliver(&mut self, bytes: Bytes) -> usize {
        let lags = self.unread > READ_BUFFER;
        let chunk = if lags || bytes.len() < READ_BUFFER / 4 {
            Chunk { held: CHUNK_COST + bytes.len(), bytes: Bytes::copy_from_slice(&bytes) }
        } else {
            Chunk { held: CHUNK_COST + READ_BUFFER, bytes }
        };
        let held = chunk.held;
        self.held += held;
        self.unread += chunk.bytes.len();
        self.inbox.push_back(chunk);
        held
    }

    /// Hands out up to `max` bytes of what came, and says how much less memory is held.
    pub(super) fn take(&mut self, max: usize) -> Option<(Bytes, usize)> {
        let first = self.inbox.front_mut()?;
        let (bytes, freed) = if first.bytes.len() > max {
            (first.bytes.split_to(max), 0)
        } else {
            let Chunk { bytes, held } = self.inbox.pop_front()?;
            (bytes, held)
        };
        self.unread -= bytes.len();
        self.held -= freed;
        if self.inbox.is_empty() && self.inbox.capacity() > 16 {
            self.inbox = VecDeque::new();
        }
        Some((bytes, freed))
    }

    /// Throws away what nobody will read; yields the memory freed.
    pub(super) fn discard(&mut self) -> usize {
        self.inbox = VecDeque::new();
        self.unread = 0;
        std::mem::take(&mut self.held)
    }

    /// Counts bytes that were read; yields whether the peer is to be told of the room and nobody else has said so. The window grows out of `budget`.
    pub(super) fn consume(
        &mut self,
        count: usize,
        now: impl FnOnce() -> Instant,
        round_trip: Duration,
        budget: &mut usize,
    ) -> bool {
        self.consumed = self.consumed.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.consumed < (self.window / 2).min(CREDIT_STEP) || self.end.is_some() {
            return false;
        }
        let now = now();
        let growth = self.growth(now, round_trip, *budget);
        *budget -= growth as usize;
        self.window += growth;
        self.consumed = 0;
        self.told = now;
        let granted = self.left.saturating_add(u32::try_from(self.unread).unwrap_or(u32::MAX));
        // Nothing while the window shrinks: what was granted before stays granted.
        let credit = self.window.saturating_sub(granted);
        let told_already = self.credit > 0;
        self.credit += credit;
        self.left += credit;
        credit > 0 && !told_already
    }

    /// The window grows when two round trips at the rate of the last while would empty it: then it, and not the path, is what
    /// the sender waits for. A while is a round trip at least, and long enough that a reader's bursts don't look like a rate.
    fn growth(&mut self, now: Instant, round_trip: Duration, budget: usize) -> u32 {
        self.measured += u64::from(self.consumed);
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < round_trip.max(WINDOW_PERIOD) {
            return 0;
        }
        let round_trip = round_trip.max(ROUND_TRIP_MIN);
        let in_two_round_trips = self.measured as f64 * 2.0 * (round_trip.as_secs_f64() / elapsed.as_secs_f64());
        (self.measured, self.since) = (0, now);
        if in_two_round_trips < f64::from(self.window) {
            return 0;
        }
        // A step costs a round trip, so on a long path it is a large one.
        let factor = if round_trip >= WINDOW_PERIOD { 4 } else { 2 };
        let growth = self.window.saturating_mul(factor).min(STREAM_WINDOW_MAX) - self.window;
        growth.min(u32::try_from(budget).unwrap_or(u32::MAX))
    }

    /// How long ago the peer was last granted anything.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.told)
    }

    /// What the window has grown by.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn grown(&self) -> usize {
        (self.window - INITIAL_WINDOW) as usize
    }

    /// Remembers who waits for bytes.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }

    /// Gives back what the window had grown by; the peer is granted less from here on.
    pub(super) fn shrink(&mut self) -> usize {
        let grown = self.window - INITIAL_WINDOW;
        self.window = INITIAL_WINDOW;
        grown as usize
    }
}

impl Writing {
    /// Whether more may be written: not beyond so many bytes, nor so many crumbs.
    pub(super) fn has_room(&self) -> bool {
        self.queued < SEND_QUEUE && self.outbox.len() < SEND_CHUNKS
    }

    /// Remembers who waits for room.
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }

    /// Throws away what can't or needn't be sent any more.
    pub(super) fn clear(&mut self) {
        self.outbox = VecDeque::new();
        self.queued = 0;
    }
}

#[cfg(test)]
mod tests;
