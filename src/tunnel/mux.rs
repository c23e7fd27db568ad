//! The seam behind which streams are multiplexed: open, accept, a stream of bytes, close, stats. Behind it is the `yamux`
//! crate; nothing else names it. It refuses to know what streams carry.
//!
//! What the crate can't tell exactly: after this end has closed its writing half, a reset by the peer reads as an end of
//! file, and a peer that drops a stream after our end of file sends an end of file instead of a reset. The session's
//! `stream closed` notices fill the gap as far as their order allows.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, Mode};

use super::lane::Pulse;
use super::websocket::Pipe;
use crate::base::code::{Code, Failure};
use crate::base::limits::{
    ACCEPT_BACKLOG, HANDSHAKE_DEADLINE, MAX_STREAMS, MUX_SLACK, OPEN_QUEUE, STREAM_WINDOW, WINDOW_GROWTH,
};
use crate::base::tasks::Tasks;

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
    _slot: Option<OwnedSemaphorePermit>,
    _open: OpenCount,
}

struct State {
    /// Set before the streams of a lost connection are woken, as far as the pipe sees the loss.
    lost: AtomicBool,
    open: Arc<AtomicUsize>,
    ended: CancellationToken,
    why: std::sync::OnceLock<Failure>,
}

struct OpenCount(Arc<AtomicUsize>);

/// Runs the mux over a pipe until it ends or `tasks` are cancelled.
pub fn start<S>(pipe: Pipe<S>, side: Side, tasks: &Tasks) -> (Opener, Incoming, Link)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::new(State {
        lost: AtomicBool::new(false),
        open: Arc::new(AtomicUsize::new(0)),
        ended: CancellationToken::new(),
        why: std::sync::OnceLock::new(),
    });
    let (requests, wanted) = mpsc::channel(OPEN_QUEUE);
    let (arrived, incoming) = mpsc::channel(ACCEPT_BACKLOG);
    let link = Link { close: CancellationToken::new(), state: state.clone(), pulse: pipe.pulse() };
    let opener = Opener { requests, slots: Arc::new(Semaphore::new(MAX_STREAMS)), state: state.clone() };
    let mode = if side == Side::Agent { Mode::Client } else { Mode::Server };
    let driver = Driver {
        connection: Connection::new(Watched { pipe, state: state.clone() }, config(), mode),
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
    config.set_split_send_size(crate::base::limits::SPLICE_BUFFER - 12);
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
        self.state.open.load(Ordering::Relaxed)
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
        self.state.open.load(Ordering::Relaxed)
    }
}

impl Stream {
    fn new(inner: yamux::Stream, state: &Arc<State>, slot: Option<OwnedSemaphorePermit>) -> Self {
        state.open.fetch_add(1, Ordering::Relaxed);
        Self { inner, finished: false, state: state.clone(), _slot: slot, _open: OpenCount(state.open.clone()) }
    }

    /// Its id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.inner.id().val()
    }

    /// Whether this end has closed its writing half.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// What an end of reading really is.
    fn end_of_reading(&self) -> io::Result<()> {
        if self.state.lost.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, self.state.why("the session was lost")));
        }
        if self.inner.is_closed() && !self.finished {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer.initialize_unfilled()))?;
        if count == 0 && buffer.remaining() > 0 {
            return Poll::Ready(self.end_of_reading());
        }
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes).map_err(broken_pipe)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(broken_pipe)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            let reset = self.inner.is_closed();
            ready!(Pin::new(&mut self.inner).poll_close(cx)).map_err(broken_pipe)?;
            self.finished = !reset;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    fn why(&self, otherwise: &str) -> Failure {
        self.why.get().cloned().unwrap_or_else(|| Failure::new(Code::SessionLost, otherwise))
    }

    fn end(&self, why: Failure) {
        self.lost.store(true, Ordering::Release);
        let _ = self.why.set(why);
        self.ended.cancel();
    }
}

/// The crate says `WriteZero` of a stream that takes no more; everybody else says this.
fn broken_pipe(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WriteZero { io::ErrorKind::BrokenPipe.into() } else { error }
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
            match ready!(self.connection.poll_next_inbound(cx)) {
                Some(Ok(inner)) => {
                    // Full: dropped, and by that reset.
                    let _ = self.arrived.try_send(Stream::new(inner, &self.state, None));
                }
                Some(Err(error)) => return Poll::Ready(explain(error)),
                None => return Poll::Ready(Failure::new(Code::LinkClosed, "closed by the peer")),
            }
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
        ConnectionError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
            Some(failure) => failure.clone(),
            None => Failure::new(Code::LinkClosed, error),
        },
        ConnectionError::Closed => Failure::new(Code::LinkClosed, "closed by the peer"),
        other => Failure::new(Code::ProtocolViolation, format_args!("yamux: {other}")),
    }
}

/// The pipe, noting its loss before the mux can wake a stream for it.
struct Watched<S> {
    pipe: Pipe<S>,
    state: Arc<State>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> futures_util::AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.pipe).poll_read(cx, buffer));
        if matches!(read, Ok(0) | Err(_)) {
            self.state.lost.store(true, Ordering::Release);
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
        self.state.lost.store(true, Ordering::Release);
        Pin::new(&mut self.pipe).poll_close(cx)
    }
}
