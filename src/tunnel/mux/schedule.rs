//! What goes out next: control frames and window updates, then streams that have sent little of late, then the others, each by its share in
//! turn. Refuses to know what comes in.
//!
//! It is deficit round robin with a queue for sparse flows (RFC 8290, 4.2, without the dropping): a stream that begins to send goes
//! before those that have used up their share, once; so a keystroke waits for no download. What goes before is bounded, too: a flood of
//! short streams leaves a ninth to the others.

use bytes::Bytes;

use super::batch::Batch;
use super::engine::Engine;
use super::entry::{Entry, Greeting, Last};
use super::frame::{Flags, Header, Kind};
use crate::base::limits::{QUANTUM, SPARSE_AHEAD};

/// Below this a body is not split to fill up a message.
const FRAGMENT: usize = 1024;

/// How a stream's turn ended.
enum Turn {
    /// The message is full.
    Full,
    /// The stream has more than its share.
    Spent,
    /// It has nothing that it could send.
    Idle,
}

impl Engine {
    /// Puts a stream with something to send into the queue.
    pub(super) fn schedule(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        if entry.has_something_to_send() && !entry.writing.scheduled {
            entry.writing.scheduled = true;
            entry.writing.deficit = QUANTUM;
            self.sparse.push_back(id);
        }
        self.kicked = true;
    }

    /// Gathers what goes out next.
    pub(super) fn gather(&mut self, batch: &mut Batch) {
        self.gather_answers(batch);
        while self.next_turn(batch) {}
    }

    /// Gathers what the peer must learn to go on itself, and no bytes of streams.
    pub(super) fn gather_answers(&mut self, batch: &mut Batch) {
        while let Some(header) = self.control.front().filter(|_| batch.room().is_some()) {
            batch.push(*header, Bytes::new());
            self.control.pop_front();
        }
        while batch.room().is_some() {
            let Some(id) = self.updates.pop_front() else { break };
            if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.orphan && entry.reading.credit > 0) {
                let credit = std::mem::take(&mut entry.reading.credit);
                let flags = entry.greet();
                batch.push(Header::new(Kind::WindowUpdate, flags, id, credit), Bytes::new());
            }
        }
    }

    /// Lets the next stream send; `false` when there is none or no room.
    fn next_turn(&mut self, batch: &mut Batch) -> bool {
        let patient = self.ahead < SPARSE_AHEAD || self.bulk.is_empty();
        let sparse = patient && !self.sparse.is_empty();
        let Some(id) = (if sparse { self.sparse.pop_front() } else { self.bulk.pop_front() }) else { return false };
        let Some(entry) = self.streams.get_mut(&id) else { return true };
        let before = batch.len();
        let turn = entry.send(id, batch);
        match turn {
            _ if sparse && self.bulk.is_empty() => self.ahead = 0,
            _ if sparse => self.ahead += batch.len() - before,
            Turn::Full => {}
            Turn::Spent | Turn::Idle => self.ahead = 0,
        }
        if entry.writing.has_room() {
            self.wakes.extend(entry.writing.waker.take());
        }
        if entry.orphan && (entry.writing.end == Last::Closed || entry.is_finished_and_sent()) {
            entry.writing.scheduled = false;
            self.forget(id);
            return true;
        }
        match turn {
            Turn::Full => {
                if sparse {
                    self.sparse.push_front(id)
                } else {
                    self.bulk.push_front(id)
                }
                return false;
            }
            Turn::Spent => {
                entry.writing.deficit += QUANTUM;
                self.bulk.push_back(id);
            }
            // Once through the queue of the others, or it would always come back before them.
            Turn::Idle if sparse && !self.bulk.is_empty() => self.bulk.push_back(id),
            Turn::Idle => entry.writing.scheduled = false,
        }
        true
    }
}

impl Entry {
    /// The flags of the next frame that tell of the stream's beginning.
    fn greet(&mut self) -> Flags {
        match std::mem::replace(&mut self.greeting, Greeting::Done) {
            Greeting::Open => Flags::SYN,
            Greeting::Acknowledge => Flags::ACK,
            Greeting::Done => Flags::default(),
        }
    }

    fn send(&mut self, id: u32, batch: &mut Batch) -> Turn {
        loop {
            if !self.has_something_to_send() {
                return Turn::Idle;
            }
            let Some(room) = batch.room() else { return Turn::Full };
            if self.writing.queued == 0 {
                self.send_end(id, batch);
            } else if self.writing.deficit <= 0 {
                return Turn::Spent;
            } else {
                let Some(body) = self.writing.next_body(room, batch.is_empty()) else { return Turn::Full };
                let flags = self.greet();
                let length = u32::try_from(body.len()).expect("a body is no longer than a message");
                batch.push(Header::new(Kind::Data, flags, id, length), body);
            }
        }
    }

    /// The end has a frame of its own: hashicorp's implementation heeds a frame's flags before it has its body,
    /// and a reader that looks in between sees the end first.
    fn send_end(&mut self, id: u32, batch: &mut Batch) {
        let (flag, then) = match self.writing.end {
            Last::Finish => (Flags::FIN, Last::Finished),
            Last::FinishReset => (Flags::FIN, Last::Reset),
            _ => (Flags::RST, Last::Closed),
        };
        self.writing.end = then;
        let flags = self.greet().with(flag);
        batch.push(Header::new(Kind::Data, flags, id, 0), Bytes::new());
    }

    fn is_finished_and_sent(&self) -> bool {
        self.is_finished() && self.writing.end == Last::Finished
    }
}

impl super::entry::Writing {
    /// The next part of the outbox that the peer takes and the message has room for.
    fn next_body(&mut self, room: usize, alone: bool) -> Option<Bytes> {
        let first = self.outbox.front_mut()?;
        let allowed = first.len().min(self.credit as usize);
        let length = allowed.min(room);
        if length < allowed && length < FRAGMENT && !alone {
            return None;
        }
        let body = if length == first.len() { self.outbox.pop_front()? } else { first.split_to(length) };
        self.queued -= length;
        self.credit -= u32::try_from(length).expect("not more than the credit");
        self.deficit -= isize::try_from(length).expect("a body is no longer than a message");
        Some(body)
    }
}

#[cfg(test)]
mod tests;
