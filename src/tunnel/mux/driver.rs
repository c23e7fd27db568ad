//! The one task of a lane: reads the connection into the engine, writes what the engine gathers, keeps the heartbeat.
//! It never waits for a consumer, and for nothing that it could do the other way meanwhile. Refuses to know streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::batch::Batch;
use super::{Link, Shared, Side};
use crate::base::code::{Code, Failure};
use crate::base::limits::{EMPTY_FRAMES_PER_SECOND, HANDSHAKE_DEADLINE, READ_BUFFER, SENT_MESSAGE};
use crate::tunnel::lane::Heart;
use crate::tunnel::vectored::poll_write_chunks;
use crate::tunnel::websocket::{Decoder, Event, MAX_HEAD, Opcode, Sender, head};

/// Echoes that wait to be sent; an honest peer asks for one in two seconds.
const ECHOES: usize = 64;

/// What is left of a read buffer below which another is taken.
const READ_MIN: usize = READ_BUFFER / 4;

/// The connection and what is on its way through it.
pub(super) struct Driver<S> {
    io: S,
    shared: Arc<Shared>,
    sender: Sender,
    decoder: Decoder,
    /// Read, not yet decoded; without memory while nothing comes.
    inbound: BytesMut,
    /// Framed, not yet written.
    outbound: VecDeque<Bytes>,
    /// Written, not yet flushed.
    unflushed: bool,
    echoes: VecDeque<Bytes>,
    empties: Empties,
    heart: Heart,
}

/// Runs a lane to its end.
pub(super) async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut driver: Driver<S>, link: Link) {
    let _ends = EndOnDrop(driver.shared.clone());
    let why = tokio::select! {
        biased;
        () = link.close.cancelled() => {
            // Bounded, since the peer may take nothing any more.
            let _ = tokio::time::timeout(HANDSHAKE_DEADLINE, driver.close()).await;
            Failure::new(Code::Stopping, "closed by this side")
        }
        () = link.pulse.dies() => Failure::new(Code::LinkDead, "nothing received for 5 s"),
        why = poll_fn(|cx| driver.poll(cx)) => why,
    };
    driver.shared.end(why);
}

/// A driver that is dropped in the middle, with its tasks, has ended too.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Failure::new(Code::Stopping, "closed by this side"));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(io: S, echo: Option<Bytes>, side: Side, shared: Arc<Shared>, heart: Heart) -> Self {
        let (sender, peer) = match side {
            Side::Agent => (Sender::Client, Sender::Server),
            Side::Gateway => (Sender::Server, Sender::Client),
        };
        Self {
            io,
            shared,
            sender,
            decoder: Decoder::new(peer),
            inbound: BytesMut::new(),
            outbound: VecDeque::new(),
            unflushed: false,
            echoes: echo.into_iter().collect(),
            empties: Empties::default(),
            heart,
        }
    }

    /// Moves everything that can be moved; ready with the connection's failure.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        self.shared.drives(cx.waker());
        if self.heart.poll_beat(cx) {
            self.shared.drive(|engine| engine.tick(Instant::now()));
        }
        loop {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(broken(&error));
            }
            if self.shared.drive(|engine| engine.is_congested()) {
                return Poll::Pending;
            }
            match ready!(self.poll_receive(cx)) {
                Ok(()) => {}
                Err(failure) => return Poll::Ready(failure),
            }
        }
    }

    /// One read, and what it brought.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.inbound.capacity() - self.inbound.len() < READ_MIN {
            let rest = std::mem::replace(&mut self.inbound, BytesMut::with_capacity(READ_BUFFER));
            self.inbound.extend_from_slice(&rest);
        }
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.inbound) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Failure::new(Code::LinkClosed, "the connection ended without a farewell"))),
            Poll::Ready(Ok(_)) => Poll::Ready(self.decode()),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(&error))),
            Poll::Pending => {
                if self.inbound.is_empty() {
                    self.inbound = BytesMut::new();
                }
                Poll::Pending
            }
        }
    }

    fn decode(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        self.heart.heard();
        let Self { shared, decoder, inbound, echoes, empties, heart, .. } = self;
        shared.drive(|engine| {
            while let Some(event) = decoder.next(inbound).map_err(violation)? {
                match event {
                    Event::Data(bytes) if bytes.is_empty() => empties.count(now)?,
                    Event::Data(bytes) => {
                        heart.received(bytes.len());
                        engine.receive(bytes, now).map_err(violation)?;
                    }
                    Event::Ping(bytes) if echoes.len() < ECHOES => echoes.push_back(bytes),
                    // Who asks so often can't want each answered.
                    Event::Ping(_) => empties.count(now)?,
                    Event::Pong(bytes) => {
                        if let Some(round_trip) = heart.echoed(&bytes) {
                            engine.round_trip = round_trip;
                        }
                    }
                    Event::Close => return Err(Failure::new(Code::LinkClosed, "closed by the peer")),
                }
            }
            Ok(())
        })
    }

    /// Writes until there is nothing more to write, or the connection takes nothing more; ready in the first case.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.outbound.is_empty() {
                self.fill();
            }
            if self.outbound.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Ready(Ok(()));
            }
            if ready!(poll_write_chunks(Pin::new(&mut self.io), cx, &mut self.outbound))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
        }
    }

    /// Frames what is to go out next: heartbeats and echoes, then one message.
    fn fill(&mut self) {
        if let Some(beat) = self.heart.take_due() {
            self.control(Opcode::Ping, &beat);
        }
        while let Some(echo) = self.echoes.pop_front() {
            self.control(Opcode::Pong, &echo);
        }
        let mut batch = Batch::new(MAX_HEAD, SENT_MESSAGE);
        self.shared.drive(|engine| engine.gather(&mut batch));
        if !batch.is_empty() {
            let (head, len) = head(self.sender, Opcode::Binary, batch.len());
            batch.finish(&head[..len], &mut self.outbound);
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        let (head, len) = head(self.sender, opcode, payload.len());
        self.outbound.push_back([&head[..len], payload].concat().into());
    }

    /// Sends what streams have left to say, then the farewell.
    async fn close(&mut self) {
        self.shared.drive(super::engine::Engine::lose);
        let rest = poll_fn(|cx| {
            self.shared.drives(cx.waker());
            self.poll_send(cx)
        });
        if rest.await.is_err() {
            return;
        }
        self.shared.drive(super::engine::Engine::say_farewell);
        self.fill();
        self.control(Opcode::Close, &1000_u16.to_be_bytes());
        let farewell = async {
            poll_fn(|cx| self.poll_send(cx)).await?;
            poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await
        };
        let _ = farewell.await;
    }
}

/// Frames that ask for work and bring nothing, in this second.
#[derive(Default)]
struct Empties {
    count: u32,
    since: Option<Instant>,
}

impl Empties {
    fn count(&mut self, now: Instant) -> Result<(), Failure> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since).as_secs() >= 1) {
            *self = Self { count: 0, since: Some(now) };
        }
        self.count += 1;
        if self.count > EMPTY_FRAMES_PER_SECOND {
            return Err(violation("more than 1,000 empty frames in a second"));
        }
        Ok(())
    }
}

fn violation(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::ProtocolViolation, what)
}

/// As a killed process, or whoever cut the connection, leaves it.
fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::new(Code::LinkClosed, "the connection ended without a farewell"),
        _ => Failure::new(Code::LinkClosed, error),
    }
}
