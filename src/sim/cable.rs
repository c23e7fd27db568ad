//! A connection of the simulated network: two ways between two ends, each with its delay, its room and its troubles. As TCP does, a way
//! that is quiet keeps what it was given, and brings it when it isn't any more. Refuses to know what travels.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::chance::Chance;
use super::trace::Trace;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Agent,
    Gateway,
}

/// How a cable breaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// Both ends are told, by a reset.
    Reset,
    /// Both ends are told, by an end of file.
    EndOfFile,
    /// One end alone is told; the other hears nothing any more.
    HalfOpen(Side),
}

/// A connection.
pub(super) struct Cable {
    id: u64,
    trace: Arc<Trace>,
    /// When the gateway last read something that came over a cable of this agent's process.
    heard: Arc<Mutex<Instant>>,
    /// What the agent writes, what the gateway writes.
    ways: [Mutex<Way>; 2],
}

/// One of its ends; dropping it ends what is written to it, and breaks what is read from it.
pub(super) struct End {
    cable: Arc<Cable>,
    side: Side,
    timer: Pin<Box<Sleep>>,
}

/// What one end writes and the other reads.
struct Way {
    chance: Chance,
    delay: Duration,
    /// Bytes that it holds at most.
    room: usize,
    parcels: VecDeque<Parcel>,
    held: usize,
    /// What its reader gets behind the last parcel.
    last: Option<Result<(), io::ErrorKind>>,
    /// What its writer gets.
    broken: Option<io::ErrorKind>,
    /// Nothing arrives before then.
    quiet: Option<Instant>,
    /// What arrives comes in such small parts until then.
    trickles: Option<(Instant, usize, Duration)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Parcel {
    due: Instant,
    bytes: Bytes,
}

/// Later than anything that a run waits for.
const FOREVER: Duration = Duration::from_secs(1_000_000);

impl Cable {
    /// A cable that behaves, and its ends: the agent's first.
    pub(super) fn lay(id: u64, trace: Arc<Trace>, heard: Arc<Mutex<Instant>>, chance: &mut Chance) -> (Arc<Self>, End, End) {
        let delay = Duration::from_millis(chance.any_size(150));
        let mut way = || {
            Mutex::new(Way {
                delay,
                room: chance.pick(&[4 << 10, 16 << 10, 64 << 10, 256 << 10]),
                chance: chance.fork(),
                parcels: VecDeque::new(),
                held: 0,
                last: None,
                broken: None,
                quiet: None,
                trickles: None,
                reader: None,
                writer: None,
            })
        };
        let ways = [way(), way()];
        let cable = Arc::new(Self { id, trace, heard, ways });
        let end = |side| End { cable: cable.clone(), side, timer: Box::pin(tokio::time::sleep(Duration::ZERO)) };
        let ends = (end(Side::Agent), end(Side::Gateway));
        (cable, ends.0, ends.1)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Breaks it. What is under way is lost but for a part, which may end within a frame.
    pub(super) fn cut(&self, cut: Cut) {
        let quiet_for = match cut {
            Cut::HalfOpen(told) => Some(told),
            _ => None,
        };
        let error = if matches!(cut, Cut::EndOfFile) { Ok(()) } else { Err(io::ErrorKind::ConnectionReset) };
        for reader in [Side::Agent, Side::Gateway] {
            if quiet_for.is_none_or(|told| told == reader) {
                self.to(reader).end(error);
                self.from(reader).refuse(io::ErrorKind::ConnectionReset);
            } else {
                self.to(reader).hush(FOREVER);
            }
        }
    }

    /// Nothing arrives at this end for so long; then everything does.
    pub(super) fn hush(&self, reader: Side, time: Duration) {
        self.to(reader).hush(time);
    }

    /// Nothing ever arrives again.
    pub(super) fn silence(&self) {
        self.hush(Side::Agent, FOREVER);
        self.hush(Side::Gateway, FOREVER);
    }

    /// What arrives at this end comes in parts of so many bytes, one in each `pause`.
    pub(super) fn trickle(&self, reader: Side, time: Duration, part: usize, pause: Duration) {
        self.to(reader).trickles = Some((Instant::now() + time, part, pause));
    }

    /// What this end reads.
    fn to(&self, reader: Side) -> MutexGuard<'_, Way> {
        self.ways[usize::from(reader == Side::Agent)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it writes.
    fn from(&self, writer: Side) -> MutexGuard<'_, Way> {
        self.ways[usize::from(writer == Side::Gateway)].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    /// Keeps a part of what is under way, and ends behind it.
    fn end(&mut self, last: Result<(), io::ErrorKind>) {
        if self.last.is_none() {
            let mut kept = usize::try_from(self.chance.within(0..=self.held as u64)).unwrap_or(0);
            for parcel in &mut self.parcels {
                parcel.bytes.truncate(kept);
                kept -= parcel.bytes.len();
            }
            self.parcels.retain(|parcel| !parcel.bytes.is_empty());
            self.held = self.parcels.iter().map(|parcel| parcel.bytes.len()).sum();
        }
        self.last = Some(last);
        self.quiet = None;
        self.wake();
    }

    fn refuse(&mut self, why: io::ErrorKind) {
        self.broken = Some(why);
        self.wake();
    }

    fn hush(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.quiet = Some(self.quiet.map_or(until, |other| other.max(until)));
    }

    fn is_quiet(&self) -> bool {
        self.quiet.is_some_and(|until| until > Instant::now())
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// How much of `bytes` there is room for.
    fn put(&mut self, bytes: &[u8]) -> usize {
        let part = bytes.len().min(self.room - self.held);
        self.held += part;
        // Its reader has seen the end: what is written from here on is lost, and nobody says so.
        if self.last.is_some() {
            return part;
        }
        let jitter = self.chance.any_size(20);
        let due = Instant::now() + self.delay + Duration::from_millis(jitter);
        // Bytes arrive in their order.
        let due = self.parcels.back().map_or(due, |last| last.due.max(due));
        self.parcels.push_back(Parcel { due, bytes: Bytes::copy_from_slice(&bytes[..part]) });
        self.reader.take().into_iter().for_each(Waker::wake);
        part
    }

    /// Some of what has arrived, or when there will be something.
    fn take(&mut self, most: usize) -> Result<Result<Bytes, io::ErrorKind>, Option<Instant>> {
        let now = Instant::now();
        if let Some(until) = self.quiet.filter(|until| *until > now) {
            return Err(Some(until).filter(|until| *until - now < FOREVER / 2));
        }
        let Some(first) = self.parcels.front() else {
            return self.last.map(|last| last.map(|()| Bytes::new())).ok_or(None);
        };
        if first.due > now {
            return Err(Some(first.due));
        }
        let trickles = self.trickles.filter(|(until, ..)| *until > now);
        let part = match trickles {
            Some((_, part, pause)) => {
                self.quiet = Some(now + pause);
                part
            }
            // Now and then a single byte.
            None if self.chance.percent(3) => 1,
            None => most,
        };
        let bytes = self.collect(part.min(most), now);
        self.held -= bytes.len();
        // Many small writes would follow from many small reads.
        if self.held <= self.room / 2 {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
        Ok(Ok(bytes))
    }

    /// Up to so many of the bytes that have arrived.
    fn collect(&mut self, most: usize, now: Instant) -> Bytes {
        let mut bytes = BytesMut::new();
        while let Some(first) = self.parcels.front_mut().filter(|first| first.due <= now && bytes.len() < most) {
            let part = first.bytes.len().min(most - bytes.len());
            bytes.extend_from_slice(&first.bytes.split_to(part));
            if first.bytes.is_empty() {
                self.parcels.pop_front();
            }
        }
        bytes.freeze()
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { cable, side, timer } = &mut *self;
        loop {
            let mut way = cable.to(*side);
            match way.take(buffer.remaining()) {
                Ok(Ok(bytes)) => {
                    drop(way);
                    cable.trace.moved(cable.id << 1 | u64::from(*side == Side::Agent), bytes.len());
                    if *side == Side::Gateway {
                        *cable.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                    buffer.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error.into())),
                Err(due) => {
                    way.reader = Some(cx.waker().clone());
                    drop(way);
                    let Some(due) = due else { return Poll::Pending };
                    timer.as_mut().reset(due);
                    ready!(timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut way = self.cable.from(self.side);
        if let Some(error) = way.broken {
            return Poll::Ready(Err(error.into()));
        }
        if way.held >= way.room {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(way.put(bytes)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut way = self.cable.from(self.side);
        way.last.get_or_insert(Ok(()));
        way.broken.get_or_insert(io::ErrorKind::BrokenPipe);
        way.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut written = self.cable.from(self.side);
        written.last.get_or_insert(Ok(()));
        written.wake();
        drop(written);
        let mut read = self.cable.to(self.side);
        // Who writes into a silent network is told nothing.
        if !read.is_quiet() {
            read.refuse(io::ErrorKind::ConnectionReset);
        }
    }
}
