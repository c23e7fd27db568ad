//! The one task of a lane: reads the connection into the engine, writes what the engine gathers, keeps the heartbeat.
//! It never waits for a consumer, and for nothing that it could do the other way meanwhile. Refuses to know streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use super::batch::Batch;
use super::{Link, Shared, Side};
use crate::base::code::{Code, Failure};
use crate::base::limits::{EMPTY_FRAMES_PER_SECOND, HANDSHAKE_DEADLINE, READ_BUFFER, SENT_MESSAGE, TURN};
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
    /// The task's, once it has run.
    waker: Option<Waker>,
    /// Why writing failed while another had the turn.
    failed: Option<io::Error>,
}

/// Runs a lane to its end.
pub(super) async fn drive<S: AsyncRead + AsyncWrite + Unpin>(driver: Arc<Mutex<Driver<S>>>, link: Link) {
    let shared = &link.shared;
    let _ends = EndOnDrop(shared.clone());
    let why = tokio::select! {
        biased;
        () = shared.close.cancelled() => {
            // Bounded, since the peer may take nothing any more.
            let _ = tokio::time::timeout(HANDSHAKE_DEADLINE, close(&driver, shared)).await;
            Failure::new(Code::Stopping, "closed by this side")
        }
        () = link.pulse.dies() => Failure::new(Code::LinkDead, "nothing received for 5 s"),
        why = poll_fn(|cx| shared.turn.take(&driver, cx, |driver, cx| driver.poll(cx))) => why,
    };
    shared.end(why);
}

/// Sends what streams have left to say, then the farewell.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(driver: &Mutex<Driver<S>>, shared: &Shared) -> io::Result<()> {
    let sent = || poll_fn(|cx| shared.turn.take(driver, cx, |driver, cx| driver.poll_rest(cx)));
    shared.drive(super::engine::Engine::lose);
    sent().await?;
    shared.drive(super::engine::Engine::say_farewell);
    driver.lock().unwrap_or_else(PoisonError::into_inner).say_close();
    sent().await?;
    poll_fn(|cx| shared.turn.take(driver, cx, |driver, cx| Pin::new(&mut driver.io).poll_shutdown(cx))).await
}

/// Whoever has something to send may do so himself, while the driver's task has nothing to do with it: a wake-up less, and what was
/// just read is still in the processor's cache. One at a time; who comes second leaves a note.
#[derive(Default)]
pub(super) struct Turn {
    again: AtomicBool,
}

/// What may be done by others than the driver's task.
pub(super) trait Sends: Send {
    /// Writes what can be written now. The driver's task is woken for the rest, and to learn of a failure.
    fn send(&mut self);

    /// The driver's task, once it has run.
    fn waker(&self) -> Option<Waker>;
}

impl Turn {
    /// The driver's turn; pending when another has it, who then wakes the task of `cx`.
    fn take<S, T>(
        &self,
        driver: &Mutex<Driver<S>>,
        cx: &mut Context<'_>,
        use_it: impl FnOnce(&mut Driver<S>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut driver = ready!(self.try_lock(driver));
        if !driver.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            driver.waker = Some(cx.waker().clone());
        }
        let result = use_it(&mut driver, cx);
        drop(driver);
        if self.again.swap(false, Ordering::AcqRel) {
            cx.waker().wake_by_ref();
        }
        result
    }

    /// Anybody's turn.
    pub(super) fn send(&self, driver: &Mutex<dyn Sends>) {
        let Poll::Ready(mut driver) = self.try_lock(driver) else { return };
        driver.send();
        let waker = driver.waker();
        drop(driver);
        if let Some(waker) = waker.filter(|_| self.again.swap(false, Ordering::AcqRel)) {
            waker.wake();
        }
    }

    /// The lock, or a note for whoever has it.
    fn try_lock<'a, T: ?Sized>(&self, driver: &'a Mutex<T>) -> Poll<MutexGuard<'a, T>> {
        for _ in 0..2 {
            match driver.try_lock() {
                Ok(driver) => return Poll::Ready(driver),
                Err(TryLockError::Poisoned(poisoned)) => return Poll::Ready(poisoned.into_inner()),
                // Once more: he may have looked for notes just before this one.
                Err(TryLockError::WouldBlock) => self.again.store(true, Ordering::Release),
            }
        }
        Poll::Pending
    }
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
            waker: None,
            failed: None,
        }
    }

    /// Moves everything that can be moved; ready with the connection's failure.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(broken(&error));
        }
        if self.heart.poll_beat(cx) {
            self.shared.drive(|engine| engine.tick(Instant::now()));
        }
        for _ in 0..TURN / READ_BUFFER {
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
        // Others of this thread have waited long enough.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, and what it brought.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.inbound.capacity() - self.inbound.len() < READ_MIN {
            let rest = std::mem::replace(&mut self.inbound, BytesMut::with_capacity(READ_BUFFER));
            self.inbound.extend_from_slice(&rest);
        }
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.inbound) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(broken(&io::ErrorKind::UnexpectedEof.into()))),
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
                    Event::Close(_) => return Err(Failure::new(Code::LinkClosed, "closed by the peer")),
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

    /// Writes all that there is to write.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        self.poll_send(cx)
    }

    /// Frames the last words.
    fn say_close(&mut self) {
        self.fill();
        self.control(Opcode::Close, &1000_u16.to_be_bytes());
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Sends for Driver<S> {
    fn send(&mut self) {
        // Before its first turn the task will look for itself.
        let Some(waker) = self.waker.clone() else { return };
        if self.failed.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(&mut Context::from_waker(&waker))
        {
            self.failed = Some(error);
            waker.wake();
        }
    }

    fn waker(&self) -> Option<Waker> {
        self.waker.clone()
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
