//! The seam behind which streams are multiplexed: open, accept, a stream of bytes, close, stats. Behind it is the `yamux`
//! crate; nothing else names it. It refuses to know what streams carry.
//!
//! Two cases the crate can't tell: a peer that drops a stream after our end of file sends an end of file instead of a reset,
//! and one that drops a stream after its own end of file sends nothing, so that our writes would wait for ever. The session's
//! `stream closed` notices fill both gaps, the first as far as their order allows: see `Link::abandoned`.

mod frames;
mod signal;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use yamux::{Config, Connection, ConnectionError, FrameDecodeError, Mode};

use super::lane::Pulse;
use super::websocket::Pipe;
use crate::base::code::{Code, Failure};
use crate::base::limits::{
    ACCEPT_BACKLOG, HANDSHAKE_DEADLINE, MAX_STREAMS, MUX_SLACK, OPEN_QUEUE, SPLICE_BUFFER, STREAM_WINDOW, WINDOW_GROWTH,
};
use crate::base::tasks::Tasks;
use frames::Frames;
use signal::{Signal, Signals};

/// Which end this is: agents open odd ids, gateways even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The yamux client.
    Agent,
    /// The yamux server.
    Gateway,
}

/// Opens streams; clones share the limit.
#[derive(Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    slots: Arc<Semaphore>,
    state: Arc<State>,
}

/// The peer's streams, in the order of their arrival.
pub struct Incoming(mpsc::Receiver<Stream>);

/// The connection under the streams: its life, its end.
#[derive(Clone)]
pub struct Link {
    close: CancellationToken,
    state: Arc<State>,
    pulse: Pulse,
}

/// One multiplexed stream. Dropping it before its end resets it.
pub struct Stream {
    inner: yamux::Stream,
    /// Set once this end has closed its writing half: from then on the crate can't tell a reset from an end of file.
    finished: bool,
    state: Arc<State>,
    signal: Arc<Signal>,
    _slot: Option<OwnedSemaphorePermit>,
}

struct State {
    /// Set before any stream of a lost connection is woken.
    lost: AtomicBool,
    streams: Signals,
    ended: CancellationToken,
    why: OnceLock<Failure>,
}

/// Runs the mux over a pipe until it ends or `tasks` are cancelled.
pub fn start<S>(pipe: Pipe<S>, side: Side, tasks: &Tasks) -> (Opener, Incoming, Link)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::new(State {
        lost: AtomicBool::new(false),
        streams: Signals::default(),
        ended: CancellationToken::new(),
        why: OnceLock::new(),
    });
    let (requests, wanted) = mpsc::channel(OPEN_QUEUE);
    let (arrived, incoming) = mpsc::channel(ACCEPT_BACKLOG);
    let link = Link { close: CancellationToken::new(), state: state.clone(), pulse: pipe.pulse() };
    let opener = Opener { requests, slots: Arc::new(Semaphore::new(MAX_STREAMS)), state: state.clone() };
    let mode = if side == Side::Agent { Mode::Client } else { Mode::Server };
    let driver = Driver {
        connection: Connection::new(Watched { pipe, frames: Frames::default(), state: state.clone() }, config(), mode),
        wanted,
        waiting: VecDeque::new(),
        arrived,
        state,
    };
    tasks.spawn(drive(driver, link.clone()));
    (opener, Incoming(incoming), link)
}

fn config() -> Config {
    let streams = MAX_STREAMS + MUX_SLACK;
    let mut config = Config::default();
    config.set_max_num_streams(streams);
    config.set_max_connection_receive_window(Some(streams * STREAM_WINDOW + WINDOW_GROWTH));
    config.set_split_send_size(SPLICE_BUFFER - frames::HEADER);
    config
}

impl Opener {
    /// Opens a stream. Nothing is sent before the first byte is written to it.
    ///
    /// # Errors
    /// `session_streams` at the limit, `session_lost` when the connection is gone.
    pub async fn open(&self) -> Result<Stream, Failure> {
        let slot = self
            .slots
            .clone()
            .try_acquire_owned()
            .map_err(|_| Failure::new(Code::SessionStreams, format_args!("the session has {MAX_STREAMS} streams open")))?;
        let (answer, opened) = oneshot::channel();
        let lost = || self.state.why("session ended");
        self.requests.send(answer).await.map_err(|_| lost())?;
        let inner = opened.await.map_err(|_| lost())?;
        Ok(Stream::new(inner, &self.state, Some(slot)))
    }

    /// Streams open at this moment, whoever opened them.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.state.streams.len()
    }
}

impl Incoming {
    /// The next stream that the peer opened; `None` when the connection is gone.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

impl Link {
    /// Sends what is queued, then GoAway; open streams end with it.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// The same, and this is why, unless the connection has ended for another reason already.
    pub fn close_because(&self, why: Failure) {
        let _ = self.state.why.set(why);
        self.close.cancel();
    }

    /// Closes the connection when the guard is dropped, unless it is disarmed.
    pub(super) fn close_on_drop(&self) -> DropGuard {
        self.close.clone().drop_guard()
    }

    /// The peer has said that it dropped the stream: it reads no more, so writing fails from here on. What it sent before can
    /// still be read.
    pub(super) fn abandoned(&self, stream: u32) {
        self.state.streams.abandoned(stream);
    }

    /// Whether the streams have been told that the connection is lost; its end follows.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state.is_lost()
    }

    /// Ends with the connection, saying why.
    pub async fn ended(&self) -> Failure {
        self.state.ended.cancelled().await;
        self.state.why("the connection ended")
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.ended.is_cancelled()
    }

    /// The signs of life.
    #[must_use]
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Streams open at this moment, whoever opened them.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.state.streams.len()
    }
}

impl Stream {
    fn new(inner: yamux::Stream, state: &Arc<State>, slot: Option<OwnedSemaphorePermit>) -> Self {
        let signal = state.streams.add(inner.id().val());
        Self { inner, finished: false, state: state.clone(), signal, _slot: slot }
    }

    /// Its id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id().val()
    }

    /// What an end of reading really is.
    fn end_of_reading(&self) -> io::Result<()> {
        if self.signal.is_reset() {
            Err(io::ErrorKind::ConnectionReset.into())
        } else if self.signal.is_finished() {
            // Also when the connection was lost since: a session that drains ends right behind its last stream.
            Ok(())
        } else if self.state.is_lost() {
            Err(self.state.aborted())
        } else if self.inner.is_closed() && !self.finished {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }

    /// The crate says `WriteZero` of a stream that takes no more, whatever the reason.
    fn no_more(&self, error: io::Error) -> io::Error {
        if self.state.is_lost() {
            self.state.aborted()
        } else if error.kind() == io::ErrorKind::WriteZero {
            io::ErrorKind::BrokenPipe.into()
        } else {
            error
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.streams.remove(self.id());
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled()) {
            Poll::Ready(Ok(0)) if buffer.remaining() > 0 => Poll::Ready(self.end_of_reading()),
            Poll::Ready(Ok(count)) => {
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.no_more(error))),
            Poll::Pending => {
                // The crate wakes no reader when this end closes the connection.
                self.signal.reads(cx);
                // An end of file that has come is about to be handed on, with what came before it.
                let over = self.state.is_lost() && !self.signal.is_finished();
                if over { Poll::Ready(Err(self.state.aborted())) } else { Poll::Pending }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.signal.writes(cx);
        if self.state.is_lost() {
            return Poll::Ready(Err(self.state.aborted()));
        }
        if self.signal.is_abandoned() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes).map_err(|error| self.no_more(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(|error| self.no_more(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            let reset = self.inner.is_closed();
            ready!(Pin::new(&mut self.inner).poll_close(cx)).map_err(|error| self.no_more(error))?;
            self.finished = !reset;
        }
        Poll::Ready(Ok(()))
    }
}

impl State {
    fn why(&self, otherwise: &str) -> Failure {
        self.why.get().cloned().unwrap_or_else(|| Failure::new(Code::SessionLost, otherwise))
    }

    fn aborted(&self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, self.why("the session was lost"))
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Tells every stream.
    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.streams.wake_all();
    }

    fn end(&self, why: Failure) {
        let _ = self.why.set(why);
        self.lose();
        self.ended.cancel();
    }
}

/// The one task of a connection. It never waits for a consumer: a stream that nobody accepts in time is reset.
struct Driver<S> {
    connection: Connection<Watched<S>>,
    wanted: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    /// Who asked while the crate's acknowledgement backlog was full; at most one, since then `wanted` is not read.
    waiting: VecDeque<oneshot::Sender<yamux::Stream>>,
    arrived: mpsc::Sender<Stream>,
    state: Arc<State>,
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut driver: Driver<S>, link: Link) {
    let _ends = EndOnDrop(driver.state.clone());
    let why = tokio::select! {
        biased;
        () = link.close.cancelled() => {
            driver.state.lose();
            // Bounded, since the peer may take nothing any more.
            let closing = poll_fn(|cx| driver.connection.poll_close(cx));
            let _ = tokio::time::timeout(HANDSHAKE_DEADLINE, closing).await;
            Failure::new(Code::Stopping, "closed by this side")
        }
        () = link.pulse.dies() => Failure::new(Code::LinkDead, "nothing received for 5 s"),
        why = poll_fn(|cx| driver.poll(cx)) => why,
    };
    driver.state.end(why);
}

/// A driver that is dropped in the middle, with its tasks, has ended too.
struct EndOnDrop(Arc<State>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(Failure::new(Code::Stopping, "closed by this side"));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if let Poll::Ready(failed) = self.poll_wanted(cx) {
                return Poll::Ready(failed);
            }
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(inner))) => {
                    // Full: dropped, and by that reset.
                    let _ = self.arrived.try_send(Stream::new(inner, &self.state, None));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(explain(error)),
                Poll::Ready(None) => return Poll::Ready(Failure::new(Code::LinkClosed, "closed by the peer")),
                Poll::Pending => match self.poll_waiting(cx) {
                    Poll::Ready(Some(failed)) => return Poll::Ready(failed),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Whoever waits for the crate's acknowledgement backlog gets another chance after all frames were read: the crate wakes
    /// nobody when the backlog shrinks by a reset. Ready with nothing when somebody was served.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Option<Failure>> {
        if self.waiting.is_empty() {
            return Poll::Pending;
        }
        match self.poll_wanted(cx) {
            Poll::Ready(failed) => Poll::Ready(Some(failed)),
            Poll::Pending if self.waiting.is_empty() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Serves the openers; ready only with the connection's failure.
    fn poll_wanted(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if self.waiting.is_empty() {
                match self.wanted.poll_recv(cx) {
                    Poll::Ready(Some(answer)) => self.waiting.push_back(answer),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                }
            }
            match self.connection.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    let answer = self.waiting.pop_front().expect("one was waiting");
                    let _ = answer.send(stream);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(explain(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Keeps the code that the pipe gave an error, and names the others.
fn explain(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::Io(error) | ConnectionError::Decode(FrameDecodeError::Io(error)) => {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
                Some(failure) => failure.clone(),
                // As a killed process, or whoever cut the connection, leaves it.
                None if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Failure::new(Code::LinkClosed, "the connection ended without a farewell")
                }
                None => Failure::new(Code::LinkClosed, error),
            }
        }
        ConnectionError::Closed => Failure::new(Code::LinkClosed, "closed by the peer"),
        other => Failure::new(Code::ProtocolViolation, format_args!("yamux: {other}")),
    }
}

/// The pipe, noting what the mux is about to learn before it can wake a stream for it.
struct Watched<S> {
    pipe: Pipe<S>,
    frames: Frames,
    state: Arc<State>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> futures_util::AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let read = ready!(Pin::new(&mut this.pipe).poll_read(cx, buffer));
        match read {
            Ok(0) | Err(_) => this.state.lost.store(true, Ordering::Release),
            Ok(count) => this.frames.read(&buffer[..count], |seen| match seen {
                frames::Seen::Finished(stream) => this.state.streams.finished(stream),
                frames::Seen::Reset(stream) => this.state.streams.reset(stream),
                frames::Seen::End => this.state.lost.store(true, Ordering::Release),
            }),
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> futures_util::AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes));
        if wrote.is_err() {
            self.state.lost.store(true, Ordering::Release);
        }
        Poll::Ready(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
