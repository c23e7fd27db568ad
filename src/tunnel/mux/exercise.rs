//! An engine driven by arbitrary bytes, as a program for its user and its peer: for fuzzing, and for tests with random programs. After
//! each step it checks what must always hold. Refuses to know what a stream's bytes should be.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Side;
use super::batch::Batch;
use super::engine::{Broken, Engine};
use super::entry::Last;
use super::frame::{Flags, HEADER, Header, Kind};
use crate::base::limits::{CONTROL_QUEUE, SENT_MESSAGE, SESSION_BUFFER, SESSION_GROWTH, STREAM_WINDOW};

/// Few, so that programs reach it.
const LIMIT: usize = 6;

/// Lengths at which something changes.
const LENGTHS: [u32; 16] =
    [0, 1, 11, 12, 100, 1024, 1025, 16_383, 16_384, 65_536, 131_072, 262_144, 262_145, 1 << 24, (1 << 24) + 1, u32::MAX];

/// Runs a program to its end and lets everything go.
///
/// # Panics
/// When the engine breaks an invariant.
pub fn exercise(program: &[u8]) {
    let Some((first, rest)) = program.split_first() else { return };
    let mut run = Run::new(if first & 1 == 0 { Side::Agent } else { Side::Gateway });
    let mut input = Input(rest);
    while let Some(step) = input.byte() {
        run.step(step, &mut input);
        run.send();
        run.check();
    }
    run.let_go();
}

/// What is left of a program.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn small(&mut self) -> usize {
        usize::from(self.byte().unwrap_or_default())
    }

    /// A length at which something changes, or any short one.
    fn length(&mut self) -> u32 {
        let byte = self.byte().unwrap_or_default();
        LENGTHS.get(usize::from(byte)).copied().unwrap_or(u32::from(byte) * 257)
    }
}

struct Run {
    engine: Engine,
    /// Streams that the user holds.
    held: Vec<u32>,
    now: Instant,
    /// Whether the connection takes nothing.
    blocked: bool,
    /// What has gone in, by wire, by writes, and how many steps and gatherings there were.
    received: usize,
    written: usize,
    steps: usize,
    gathered: usize,
    /// What has come out.
    sent: usize,
    /// The last of what has gone in, less than a header.
    tail: Vec<u8>,
    /// The streams opened here, as the peer sees them.
    seen: BTreeMap<u32, Seen>,
}

/// One stream of this side's, at its peer.
struct Seen {
    credit: u64,
    begun: bool,
    finished: bool,
    reset: bool,
}

impl Run {
    fn new(side: Side) -> Self {
        let now = Instant::now();
        let mut engine = Engine::new(side, LIMIT, now);
        engine.limit = LIMIT;
        engine.round_trip = Duration::from_millis(50);
        Self {
            engine,
            held: Vec::new(),
            now,
            blocked: false,
            received: 0,
            written: 0,
            steps: 0,
            gathered: 0,
            sent: 0,
            tail: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        self.steps += 1;
        let mut cx = Context::from_waker(Waker::noop());
        match step % 16 {
            0..=4 => self.peer_sends(input),
            5 => {
                let count = input.small().min(input.0.len());
                let (bytes, rest) = input.0.split_at(count);
                input.0 = rest;
                self.receive(bytes);
            }
            6 => {
                if let Some(id) = self.engine.open(self.now) {
                    self.held.push(id);
                    self.seen.insert(id, Seen { credit: STREAM_WINDOW as u64, begun: false, finished: false, reset: false });
                }
            }
            7 => {
                if let Poll::Ready(Some(id)) = self.engine.poll_accept(&mut cx) {
                    self.held.push(id);
                }
            }
            8 | 9 => self.write(input),
            10 => self.read(input),
            11 => {
                if let Some(id) = self.one(input) {
                    let _ = self.engine.poll_finish(id, &mut cx);
                }
            }
            12 => {
                if let Some(id) = self.one(input) {
                    self.held.retain(|other| *other != id);
                    self.engine.release(id);
                }
            }
            13 => {
                self.now += Duration::from_millis(u64::from(input.length()) % 20_000);
                self.engine.tick(self.now);
            }
            14 => self.blocked = !self.blocked,
            _ => match input.small() {
                250 => self.engine.lose(),
                251 => self.engine.die(),
                252 => self.engine.say_farewell(),
                _ => {}
            },
        }
    }

    /// A frame made of the input; what it claims to bring comes as zeros, unless that is too much.
    fn peer_sends(&mut self, input: &mut Input<'_>) {
        let (kind, flags, stream, length) = (input.small(), input.small(), input.small(), input.length());
        let mut bytes = vec![u8::from(kind == 255), u8::try_from(kind % 5).expect("below 5")];
        bytes.extend(u16::try_from(flags).expect("a byte").to_be_bytes());
        bytes.extend(u32::try_from(stream % 12).expect("below 12").to_be_bytes());
        bytes.extend(length.to_be_bytes());
        if kind % 5 == 0 && length <= 1 << 19 {
            bytes.resize(HEADER + length as usize, 7);
        }
        self.receive(&bytes);
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.engine.dead || self.engine.is_congested() {
            return;
        }
        self.received += bytes.len();
        self.note_credit(bytes);
        if self.engine.receive(Bytes::copy_from_slice(bytes), self.now).is_err() {
            self.engine.die();
        }
    }

    /// Remembers what the peer grants, whatever it writes it in: no stream may send more.
    fn note_credit(&mut self, bytes: &[u8]) {
        // Frames are made at the beginning of what is received, or were begun before.
        let mut wire = std::mem::take(&mut self.tail);
        wire.extend_from_slice(&bytes[..bytes.len().min(1024)]);
        for header in wire.windows(HEADER).filter_map(|frame| Header::decode(frame.first_chunk()?).ok()) {
            if let (Kind::WindowUpdate, Some(seen)) = (header.kind, self.seen.get_mut(&header.stream)) {
                seen.credit += u64::from(header.length);
            }
        }
        self.tail = wire.split_off(wire.len().saturating_sub(HEADER - 1));
    }

    fn one(&self, input: &mut Input<'_>) -> Option<u32> {
        let index = input.small();
        self.held.get(index % self.held.len().max(1)).copied()
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let (Some(id), length) = (self.one(input), input.length().min(70_000) as usize) else { return };
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Ok(())) = self.engine.poll_write(id, &mut cx, || Bytes::from(vec![1; length])) {
            self.written += length;
        }
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let (Some(id), max) = (self.one(input), input.length().max(1) as usize) else { return };
        let mut cx = Context::from_waker(Waker::noop());
        match self.engine.poll_read(id, max, &mut cx, || self.now) {
            Poll::Ready(Ok(bytes)) => assert!(bytes.len() <= max, "no more than was asked for"),
            Poll::Ready(Err(Broken::Closed)) => panic!("reading knows no broken pipe"),
            _ => {}
        }
    }

    /// Gathers until there is nothing more, unless the connection is blocked.
    fn send(&mut self) {
        while !self.blocked && !self.engine.dead {
            let mut batch = Batch::new(0, SENT_MESSAGE);
            self.engine.gather(&mut batch);
            self.gathered += 1;
            if batch.is_empty() {
                return;
            }
            assert!(batch.len() <= SENT_MESSAGE, "a message fits");
            self.sent += batch.len();
            let mut parts = Vec::new();
            batch.finish(&[], &mut parts, |_| {});
            self.see(&parts.concat());
        }
    }

    /// What the peer sees of the streams opened here.
    fn see(&mut self, mut wire: &[u8]) {
        while let Some((header, rest)) = wire.split_first_chunk::<HEADER>() {
            let header = Header::decode(header).expect("our own frames can be read");
            wire = rest.get(header.body()..).expect("our own frames are whole");
            let Some(seen) = self.seen.get_mut(&header.stream) else { continue };
            assert_eq!(header.flags.has(Flags::SYN), !seen.begun, "{header:?}: a stream begins with its first frame");
            assert!(!seen.reset, "{header:?} after a reset");
            seen.begun = true;
            if header.kind == Kind::Data {
                assert!(!seen.finished || header.flags.has(Flags::RST), "{header:?} after the end of file");
                seen.credit = seen.credit.checked_sub(header.body() as u64).expect("no more than was granted");
            }
            seen.finished |= header.flags.has(Flags::FIN);
            seen.reset |= header.flags.has(Flags::RST);
        }
    }

    fn check(&self) {
        let engine = &self.engine;
        let sum = |what: fn(&super::entry::Entry) -> usize| engine.streams.values().map(what).sum::<usize>();
        assert_eq!(engine.held, sum(|entry| entry.reading.held), "what is held");
        assert!(engine.held <= SESSION_BUFFER, "{} bytes are held", engine.held);
        assert_eq!(engine.growth + sum(|entry| entry.reading.grown()), SESSION_GROWTH, "what windows may grow by");
        assert_eq!(engine.live, sum(|entry| usize::from(!entry.orphan)), "streams that somebody holds");
        assert!(engine.streams.len() <= LIMIT, "{} streams", engine.streams.len());
        let frames = self.received / HEADER;
        let most = CONTROL_QUEUE + frames.min(CONTROL_QUEUE) + LIMIT * self.steps;
        assert!(engine.control.len() <= most, "{} answers wait", engine.control.len());
        let bound = self.written + HEADER * (frames + self.written / SENT_MESSAGE + self.gathered + 4 * self.steps);
        assert!(self.sent <= bound, "{} bytes were sent, where {bound} are enough", self.sent);
        if !engine.dead {
            self.check_queues();
        }
    }

    /// Whatever has something to send is in the schedule, once; nothing else is.
    fn check_queues(&self) {
        let engine = &self.engine;
        let scheduled: Vec<u32> = engine.sparse.iter().chain(&engine.bulk).copied().collect();
        let once: BTreeSet<u32> = scheduled.iter().copied().collect();
        assert_eq!(scheduled.len(), once.len(), "each once: {scheduled:?}");
        for (id, entry) in &engine.streams {
            assert_eq!(once.contains(id), entry.writing.scheduled, "{id} is scheduled");
            assert!(entry.writing.scheduled || !entry.has_something_to_send(), "{id} would never send");
            let left_to_say = matches!(entry.writing.end, Last::Finish | Last::FinishReset | Last::Reset);
            assert!(!entry.orphan || left_to_say, "{id} would stay for ever");
            let updates = engine.updates.iter().filter(|other| *other == id).count();
            assert!(
                updates == usize::from(entry.reading.credit > 0) || entry.orphan && updates <= 1,
                "{id} tells its credit once"
            );
        }
        assert!(once.iter().chain(&engine.updates).chain(&engine.arrived).all(|id| engine.streams.contains_key(id)));
    }

    /// Everybody lets go of everything, the peer takes all: nothing stays.
    fn let_go(mut self) {
        self.blocked = false;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(id)) = self.engine.poll_accept(&mut cx) {
            self.held.push(id);
        }
        for id in std::mem::take(&mut self.held) {
            self.engine.release(id);
            self.send();
            self.check();
        }
        let missing = self.engine.parser.missing();
        if missing <= 1 << 20 {
            // Whatever frame was begun ends, with or without its consequences.
            self.receive(&vec![0; missing]);
            for id in self.engine.streams.keys().copied().collect::<Vec<_>>() {
                self.receive(&Header::new(Kind::WindowUpdate, Flags::default(), id, 1 << 20).encode());
                self.send();
            }
            while let Poll::Ready(Some(id)) = self.engine.poll_accept(&mut cx) {
                self.engine.release(id);
            }
            self.send();
            assert!(self.engine.streams.is_empty(), "streams that nobody holds stay: {:?}", self.engine.streams.keys());
        }
        self.engine.die();
        assert!(self.engine.streams.is_empty(), "the connection's end leaves streams that nobody holds");
        assert_eq!((self.engine.held, self.engine.growth, self.engine.live), (0, SESSION_GROWTH, 0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::exercise;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn t1_no_program_breaks_the_engine_or_leaves_anything_behind(program in prop::collection::vec(any::<u8>(), 0..400)) {
            exercise(&program);
        }
    }
}
