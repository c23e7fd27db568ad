//! For tests: an engine in the hands of a test that is its user, its peer and its clock. Refuses to know what is right.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Side;
use super::batch::Batch;
use super::engine::{Broken, Engine};
use super::frame::{Flags, HEADER, Header, Kind};
use super::receive::Violation;
use crate::base::limits::SENT_MESSAGE;

pub(super) const NONE: Flags = Flags(0);
pub(super) const SYN: Flags = Flags::SYN;
pub(super) const ACK: Flags = Flags::ACK;
pub(super) const FIN: Flags = Flags::FIN;
pub(super) const RST: Flags = Flags::RST;

/// A frame that came out.
pub(super) type Frame = (Header, Bytes);

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) now: Instant,
    pub(super) woken: Arc<Woken>,
}

/// Counts how often it was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Rig {
    /// A gateway's: the peer's streams are odd, its own even.
    pub(super) fn new() -> Self {
        Self::of(Side::Gateway, 1 << 20)
    }

    pub(super) fn of(side: Side, limit: usize) -> Self {
        let now = Instant::now();
        let mut engine = Engine::new(side, limit, now);
        engine.limit = limit;
        Self { engine, now, woken: Arc::default() }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn receive(&mut self, bytes: impl Into<Bytes>) -> Result<(), Violation> {
        self.engine.receive(bytes.into(), self.now)
    }

    /// The peer sends data.
    pub(super) fn data(&mut self, flags: Flags, id: u32, body: &[u8]) {
        self.receive(data(flags, id, body)).unwrap();
    }

    /// The peer sends a frame without a body.
    pub(super) fn control(&mut self, kind: Kind, flags: Flags, id: u32, length: u32) {
        self.receive(Header::new(kind, flags, id, length).encode().to_vec()).unwrap();
    }

    pub(super) fn credit(&mut self, id: u32, more: u32) {
        self.control(Kind::WindowUpdate, NONE, id, more);
    }

    /// A stream of the peer's, opened with nothing and accepted.
    pub(super) fn accepted(&mut self, id: u32) -> u32 {
        self.data(SYN, id, b"");
        self.accept().unwrap()
    }

    /// A stream of this side's, of which the peer knows.
    pub(super) fn announced(&mut self) -> u32 {
        let id = self.open();
        self.write(id, b"?");
        self.sent();
        id
    }

    pub(super) fn open(&mut self) -> u32 {
        self.engine.open(self.now).unwrap()
    }

    pub(super) fn accept(&mut self) -> Option<u32> {
        match self.ask(Engine::poll_accept) {
            Poll::Ready(Some(id)) => Some(id),
            _ => None,
        }
    }

    pub(super) fn poll_write(&mut self, id: u32, bytes: &[u8]) -> Poll<Result<(), Broken>> {
        self.ask(|engine, cx| engine.poll_write(id, cx, || Bytes::copy_from_slice(bytes)))
    }

    pub(super) fn write(&mut self, id: u32, bytes: &[u8]) {
        assert_eq!(self.poll_write(id, bytes), Poll::Ready(Ok(())));
    }

    pub(super) fn poll_read(&mut self, id: u32) -> Poll<Result<Bytes, Broken>> {
        let now = self.now;
        self.ask(|engine, cx| engine.poll_read(id, usize::MAX, cx, || now))
    }

    /// All that can be read now, and what follows it.
    pub(super) fn read(&mut self, id: u32) -> (Vec<u8>, Poll<Result<(), Broken>>) {
        let mut all = Vec::new();
        loop {
            match self.poll_read(id) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => return (all, Poll::Ready(Ok(()))),
                Poll::Ready(Ok(bytes)) => all.extend_from_slice(&bytes),
                Poll::Ready(Err(broken)) => return (all, Poll::Ready(Err(broken))),
                Poll::Pending => return (all, Poll::Pending),
            }
        }
    }

    pub(super) fn finish(&mut self, id: u32) -> Poll<Result<(), Broken>> {
        self.ask(|engine, cx| engine.poll_finish(id, cx))
    }

    /// One message.
    pub(super) fn message(&mut self) -> Vec<Frame> {
        let mut batch = Batch::new(0, SENT_MESSAGE);
        self.engine.gather(&mut batch);
        assert!(batch.len() <= SENT_MESSAGE);
        let mut parts = Vec::new();
        batch.finish(&[], &mut parts, |_| {});
        frames(parts.concat().into())
    }

    /// All that goes out now.
    pub(super) fn sent(&mut self) -> Vec<Frame> {
        let mut all = Vec::new();
        loop {
            let message = self.message();
            if message.is_empty() {
                return all;
            }
            all.extend(message);
        }
    }

    /// The same without bodies, as kind, flags, stream and length.
    pub(super) fn told(&mut self) -> Vec<(Kind, u16, u32, u32)> {
        self.sent().iter().map(|(header, _)| (header.kind, header.flags.0, header.stream, header.length)).collect()
    }

    /// How often somebody who waited has been woken since it was last asked.
    pub(super) fn wakes(&mut self) -> usize {
        self.engine.wakes.drain(..).for_each(Waker::wake);
        self.woken.0.swap(0, Ordering::SeqCst)
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let waker = Waker::from(self.woken.clone());
        ask(&mut self.engine, &mut Context::from_waker(&waker))
    }
}

/// A data frame.
pub(super) fn data(flags: Flags, id: u32, body: &[u8]) -> Vec<u8> {
    let header = Header::new(Kind::Data, flags, id, u32::try_from(body.len()).unwrap());
    [&header.encode()[..], body].concat()
}

/// The frames of what came out.
fn frames(mut wire: Bytes) -> Vec<Frame> {
    let mut all = Vec::new();
    while !wire.is_empty() {
        let header = Header::decode(wire.split_to(HEADER)[..].try_into().unwrap()).unwrap();
        let body = wire.split_to(header.body());
        all.push((header, body));
    }
    all
}
