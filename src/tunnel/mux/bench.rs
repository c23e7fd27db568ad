//! For benchmarks: one end of a connection, whose user and peer are the benchmark. Refuses to measure, and to check anything.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::Side;
use super::batch::Batch;
use super::engine::Engine;
use super::frame::{Flags, Header, Kind};
use crate::base::limits::SENT_MESSAGE;
use crate::tunnel::websocket::{MAX_HEAD, Opcode, Sender, head};

/// What a peer's credit is filled up to.
const CREDIT: u32 = 1 << 30;

/// A gateway's end with streams that it has opened and its peer has acknowledged. Its time stands still, so windows don't grow.
pub struct End {
    engine: Engine,
    ids: Vec<u32>,
    now: Instant,
}

impl End {
    /// An end with so many streams, all idle.
    ///
    /// # Panics
    /// Beyond ids.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        let now = Instant::now();
        let mut engine = Engine::new(Side::Gateway, streams, now);
        let ids: Vec<u32> = (0..streams).map(|_| engine.open(now).expect("there are ids for all")).collect();
        let mut end = Self { engine, ids, now };
        for id in end.ids.clone() {
            end.write(id, Bytes::from_static(b"?"));
            end.receive(Header::new(Kind::WindowUpdate, Flags::ACK, id, 0).encode().to_vec().into());
        }
        end.send(&mut VecDeque::new());
        end
    }

    /// The streams' ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// A data frame as the peer sends it.
    ///
    /// # Panics
    /// When the body is longer than a frame.
    #[must_use]
    pub fn frame(id: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("a body is no longer than a frame");
        [&Header::new(Kind::Data, Flags::default(), id, length).encode()[..], body].concat()
    }

    /// Takes what the peer sent.
    ///
    /// # Panics
    /// When that is not yamux.
    pub fn receive(&mut self, bytes: Bytes) {
        self.engine.receive(bytes, self.now).expect("the benchmark speaks yamux");
    }

    /// Reads all that has come on a stream; yields how much.
    pub fn read(&mut self, id: u32) -> usize {
        let (mut cx, mut count) = (Context::from_waker(Waker::noop()), 0);
        while self.engine.has_unread(id) {
            match self.engine.poll_read(id, usize::MAX, &mut cx, || self.now) {
                Poll::Ready(Ok(bytes)) => count += bytes.len(),
                _ => break,
            }
        }
        count
    }

    /// Queues bytes on a stream.
    ///
    /// # Panics
    /// When its queue is full.
    pub fn write(&mut self, id: u32, bytes: Bytes) {
        let written = self.engine.poll_write(id, &mut Context::from_waker(Waker::noop()), || bytes);
        assert_eq!(written, Poll::Ready(Ok(())), "the queue has room");
    }

    /// The peer takes a gigabyte more of each stream.
    pub fn grant(&mut self) {
        for id in self.ids.clone() {
            let left = self.engine.streams.get(&id).map_or(CREDIT, |entry| entry.writing.credit);
            let more = CREDIT.saturating_sub(left);
            self.receive(Header::new(Kind::WindowUpdate, Flags::default(), id, more).encode().to_vec().into());
        }
    }

    /// Frames all that there is to send, message by message; yields how many bytes of frames that is.
    pub fn send(&mut self, outbound: &mut VecDeque<Bytes>) -> usize {
        let mut count = 0;
        loop {
            outbound.clear();
            let mut batch = Batch::new(MAX_HEAD, SENT_MESSAGE);
            self.engine.gather(&mut batch);
            if batch.is_empty() {
                return count;
            }
            count += batch.len();
            let (head, len) = head(Sender::Server, Opcode::Binary, batch.len());
            batch.finish(&head[..len], outbound, |_| {});
        }
    }
}
