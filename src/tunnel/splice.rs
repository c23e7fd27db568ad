//! Two ends joined, each way by itself: half-close passes on, back-pressure reaches the source, an error resets the other
//! side. It refuses to know who is at either end, and why.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, interval};
use tokio_util::io::poll_read_buf;

use super::mux::Stream;
use super::vectored::poll_write_chunks;
use crate::base::code::{Code, Failure};
use crate::base::limits::{CHUNK_COST, RATE_LOOK, READ_BUFFER, SEND_QUEUE, SPLICE_BUFFER, SPLICE_BUFFER_MIN, TURN};
use crate::base::memory::{Account, PROCESS};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
}

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one nearer to the client.
    Near,
    /// The one nearer to the target.
    Far,
}

/// How a splice ended.
#[derive(Debug)]
pub enum Outcome {
    /// Both directions reached their end of file.
    Finished,
    /// One end broke; the other must be reset.
    Broken(End, io::Error),
    /// Nothing moved for the idle timeout; both must be reset.
    Idle,
}

impl Outcome {
    /// Why this side itself broke the stream of a tunnel: for its memory, or for what the peer sent.
    #[must_use]
    pub fn own_code(&self) -> Option<Code> {
        match self {
            Self::Broken(_, error) if error.kind() == io::ErrorKind::ConnectionReset => {
                error.get_ref()?.downcast_ref::<Failure>().map(|failure| failure.code)
            }
            _ => None,
        }
    }
}

/// What every chunk passes: slowed to a rate before it is written on, counted after.
pub trait Toll: Sync {
    /// Ends when some of these bytes may go on, with how many; `None` when all may at once.
    fn pace(&self, bytes: usize) -> Option<Delay<'_>>;

    /// So much was written on.
    fn count(&self, direction: Direction, bytes: usize);
}

/// A wait for a rate, to the number of bytes that may go on then: at least one. What remains waits again.
pub type Delay<'a> = Pin<Box<dyn Future<Output = usize> + Send + 'a>>;

/// What was read of the ends before they were joined. It goes first, and passes the toll like all that follows.
#[derive(Default)]
pub struct Said {
    /// By the near end.
    pub near: Bytes,
    /// By the far end.
    pub far: Bytes,
}

/// Either end: chunks out of it and into it. Nothing is copied on the way, and an end with nothing to say holds no buffer.
pub trait Duplex {
    /// Appends what came, up to some [`SPLICE_BUFFER`] bytes; nothing at the end of file.
    ///
    /// # Errors
    /// When this end is gone.
    fn poll_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>>;

    /// Ready when all of `chunks` has been taken away.
    ///
    /// # Errors
    /// When this end takes no more.
    fn poll_take(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>>;

    /// Ready when the end of file has been passed on.
    ///
    /// # Errors
    /// When this end takes no more.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that were taken and have not gone on, when no more are taken.
    fn queued(&self) -> usize {
        0
    }

    /// Whether this end is known to be gone although it has not been read to its end. Asked while what it said waits for a rate.
    fn gone(&self) -> Option<io::Error> {
        None
    }
}

/// Moves bytes both ways until both ends are done or one breaks. `idle` ends a splice in which nothing moves for that long.
///
/// The ends stay the caller's, who resets them unless the outcome is [`Outcome::Finished`].
pub async fn splice<N, F, T>(near: &mut N, far: &mut F, idle: Option<Duration>, toll: &T) -> Outcome
where
    N: Duplex,
    F: Duplex,
    T: Toll,
{
    splice_said(Said::default(), near, far, idle, toll).await
}

/// The same of ends of which something was read already.
pub async fn splice_said<N, F, T>(said: Said, near: &mut N, far: &mut F, idle: Option<Duration>, toll: &T) -> Outcome
where
    N: Duplex,
    F: Duplex,
    T: Toll,
{
    let moved = LastMove::now();
    let mut up = Pump::new(End::Near, said.near, toll, &moved);
    let mut down = Pump::new(End::Far, said.far, toll, &moved);
    let both = poll_fn(|cx| {
        let upward = up.poll(cx, near, far);
        let downward = down.poll(cx, far, near);
        join(upward, downward)
    });
    tokio::select! {
        biased;
        outcome = both => outcome,
        () = idles(idle, &moved) => Outcome::Idle,
    }
}

/// An end that can't be read from is gone, so both ways stop; one that can't be written to may still be answering ("413, and the
/// rest of your upload is not wanted"), so the other way goes on to its own end.
fn join(up: Poll<&mut Half>, down: Poll<&mut Half>) -> Poll<Outcome> {
    let gone = |way: &mut Half| match way {
        Half::ReadBroken(end, error) => Some(Outcome::Broken(*end, take(error))),
        _ => None,
    };
    let (up, down) = match (up, down) {
        (Poll::Ready(up), Poll::Ready(down)) => (up, down),
        (Poll::Ready(way), Poll::Pending) | (Poll::Pending, Poll::Ready(way)) => {
            return gone(way).map_or(Poll::Pending, Poll::Ready);
        }
        (Poll::Pending, Poll::Pending) => return Poll::Pending,
    };
    let broken = [up, down].into_iter().find_map(|way| match way {
        Half::ReadBroken(end, error) | Half::WriteBroken(end, error) => Some(Outcome::Broken(*end, take(error))),
        Half::Finished => None,
    });
    Poll::Ready(broken.unwrap_or(Outcome::Finished))
}

fn take(error: &mut io::Error) -> io::Error {
    std::mem::replace(error, io::ErrorKind::Other.into())
}

/// How one way ended.
enum Half {
    Finished,
    /// The reading end is gone, and with it what it still wanted to say.
    ReadBroken(End, io::Error),
    /// The writing end takes no more; it may still have something to say.
    WriteBroken(End, io::Error),
}

/// One way.
struct Pump<'a, T> {
    from: End,
    to: End,
    direction: Direction,
    /// What is on its way, and what it must wait for.
    chunks: VecDeque<Bytes>,
    length: usize,
    wait: Option<Wait<'a>>,
    /// What was read with it and has not its turn yet; only a rate leaves something here.
    rest: VecDeque<Bytes>,
    /// The source has said its last byte.
    ending: bool,
    ended: Option<Half>,
    toll: &'a T,
    moved: &'a LastMove,
    /// What is told of `chunks` while nobody takes them.
    memory: Account,
}

/// A wait for a rate, which is no idleness.
struct Wait<'a> {
    delay: Delay<'a>,
    look: Interval,
    _held: Hold<'a>,
}

impl<'a, T: Toll> Pump<'a, T> {
    fn new(from: End, said: Bytes, toll: &'a T, moved: &'a LastMove) -> Self {
        let (to, direction) = match from {
            End::Near => (End::Far, Direction::Up),
            End::Far => (End::Near, Direction::Down),
        };
        let (chunks, rest, memory) = (VecDeque::new(), VecDeque::new(), PROCESS.account());
        let (length, wait, ending, ended) = (0, None, false, None);
        let mut pump = Self { from, to, direction, chunks, length, wait, rest, ending, ended, toll, moved, memory };
        if !said.is_empty() {
            pump.chunks.push_back(said);
            pump.charge();
        }
        pump
    }

    /// Moves what can be moved; ready with how this way ended, also when asked again.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut impl Duplex, to: &mut impl Duplex) -> Poll<&mut Half> {
        if self.ended.is_none() {
            let ended = ready!(self.poll_end(cx, from, to));
            self.ended = Some(ended);
        }
        Poll::Ready(self.ended.as_mut().expect("it has just been set"))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, from: &mut impl Duplex, to: &mut impl Duplex) -> Poll<Half> {
        let mut moved = 0;
        loop {
            if self.length > 0 {
                if let Err(error) = ready!(self.poll_wait(cx, from)) {
                    return Poll::Ready(Half::ReadBroken(self.from, error));
                }
                let taken = to.poll_take(cx, &mut self.chunks);
                self.memory.keeps(if taken.is_pending() { self.kept() + to.queued() } else { 0 });
                if let Err(error) = ready!(taken) {
                    return Poll::Ready(Half::WriteBroken(self.to, error));
                }
                self.toll.count(self.direction, self.length);
                self.moved.set();
                moved += std::mem::take(&mut self.length);
                if !self.rest.is_empty() {
                    std::mem::swap(&mut self.chunks, &mut self.rest);
                    self.charge();
                }
                if moved >= TURN {
                    // Others of this thread have waited long enough.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if self.length > 0 {
                    continue;
                }
            }
            if self.ending {
                return Poll::Ready(match ready!(to.poll_finish(cx)) {
                    Ok(()) => Half::Finished,
                    // A peer that has closed both ways already has nothing against our end of file.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Half::Finished,
                    Err(error) => Half::WriteBroken(self.to, error),
                });
            }
            if let Err(error) = ready!(from.poll_chunks(cx, &mut self.chunks)) {
                return Poll::Ready(Half::ReadBroken(self.from, error));
            }
            self.ending = self.chunks.is_empty();
            if !self.ending {
                self.moved.set();
                self.charge();
            }
        }
    }

    /// What `chunks` keep in memory: a large one the whole buffer in which it lies.
    fn kept(&self) -> usize {
        let kept = |chunk: &Bytes| if chunk.len() < READ_BUFFER / 4 { CHUNK_COST + chunk.len() } else { READ_BUFFER };
        self.chunks.iter().map(kept).sum()
    }

    /// Begins the wait for a rate, if there is one, with what has come to `chunks`.
    fn charge(&mut self) {
        self.length = self.chunks.iter().map(Bytes::len).sum();
        let wait = |delay| Wait { delay, look: interval(RATE_LOOK), _held: Hold::new(self.moved) };
        self.wait = self.toll.pace(self.length).map(wait);
    }

    /// Ready when `chunks` may go on, which are then no more than the rate lets pass at once.
    fn poll_wait(&mut self, cx: &mut Context<'_>, from: &impl Duplex) -> Poll<io::Result<()>> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(Ok(())) };
        let Poll::Ready(part) = wait.delay.as_mut().poll(cx) else {
            // Nobody reads this end now, and who has left it should not hold what is his until all that he said has gone.
            while wait.look.poll_tick(cx).is_ready() {
                if let Some(error) = from.gone() {
                    return Poll::Ready(Err(error));
                }
            }
            return Poll::Pending;
        };
        self.wait = None;
        if part < self.length {
            self.rest = split_off(&mut self.chunks, part);
            self.length = part;
        }
        Poll::Ready(Ok(()))
    }
}

/// Leaves the first bytes, so many, and yields the others.
fn split_off(chunks: &mut VecDeque<Bytes>, mut bytes: usize) -> VecDeque<Bytes> {
    let whole = chunks.iter().take_while(|chunk| {
        let fits = chunk.len() <= bytes;
        bytes -= if fits { chunk.len() } else { 0 };
        fits
    });
    let mut rest = chunks.split_off(whole.count());
    if bytes > 0
        && let Some(chunk) = rest.front_mut()
    {
        chunks.push_back(chunk.split_to(bytes));
    }
    rest
}

/// Anything that copies, as an end of a splice. It reads into memory that it takes when something came, by what came before.
pub struct Socket<'a, Io> {
    io: &'a mut Io,
    buffer: usize,
    gone: fn(&Io) -> Option<io::Error>,
    /// What a write was told of a connection that is no more. The kernel tells it once, and reads then end as if in good order.
    torn: Option<io::ErrorKind>,
}

impl<'a, Io: AsyncRead + AsyncWrite + Unpin> Socket<'a, Io> {
    /// The end that `io` is.
    pub fn new(io: &'a mut Io) -> Self {
        Self { io, buffer: SPLICE_BUFFER_MIN, gone: |_| None, torn: None }
    }

    /// The same, of which `gone` tells whether it was reset, also while there is more to read.
    pub fn watched(io: &'a mut Io, gone: fn(&Io) -> Option<io::Error>) -> Self {
        Self { gone, ..Self::new(io) }
    }

    /// A peer that has ended its reading may still be answering; any other error of a write is the connection's end.
    fn note(&mut self, written: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = &written
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected | io::ErrorKind::WriteZero)
        {
            self.torn = Some(error.kind());
        }
        written
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        while !chunks.is_empty() {
            let count = ready!(poll_write_chunks(Pin::new(&mut *self.io), cx, chunks))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Pin::new(&mut *self.io).poll_flush(cx)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Duplex for Socket<'_, Io> {
    fn poll_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        let mut chunk = BytesMut::with_capacity(self.buffer);
        let count = ready!(poll_read_buf(Pin::new(&mut *self.io), cx, &mut chunk))?;
        if let Some(torn) = self.torn.filter(|_| count == 0) {
            return Poll::Ready(Err(torn.into()));
        }
        let sparse = count < self.buffer / 4;
        if count >= self.buffer {
            self.buffer = (self.buffer * 4).min(SPLICE_BUFFER);
        } else if sparse {
            self.buffer = (self.buffer / 2).max(SPLICE_BUFFER_MIN);
        }
        if count > 0 {
            // What waits to be sent must not keep a buffer that is mostly empty.
            chunks.push_back(if sparse { Bytes::copy_from_slice(&chunk) } else { chunk.freeze() });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        let written = self.poll_write_all(cx, chunks);
        self.note(written)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut *self.io).poll_shutdown(cx);
        self.note(ended)
    }

    fn gone(&self) -> Option<io::Error> {
        self.torn.map(io::Error::from).or_else(|| (self.gone)(self.io))
    }
}

impl Duplex for Stream {
    fn poll_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        Self::poll_chunks(self, cx, chunks)
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        self.poll_send(cx, chunks)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_finish(self, cx)
    }

    fn queued(&self) -> usize {
        SEND_QUEUE
    }
}

async fn idles(limit: Option<Duration>, moved: &LastMove) {
    let Some(limit) = limit else { return std::future::pending().await };
    while let Some(left) = limit.checked_sub(moved.age()).filter(|left| !left.is_zero()) {
        // A millisecond more, since ages are kept in whole milliseconds.
        tokio::time::sleep(left + Duration::from_millis(1)).await;
    }
}

/// When bytes last moved either way, or waited for their rate.
struct LastMove {
    start: Instant,
    millis: AtomicU64,
    /// The ways that wait for a rate.
    waiting: AtomicUsize,
}

impl LastMove {
    fn now() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0), waiting: AtomicUsize::new(0) }
    }

    fn set(&self) {
        self.millis.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.start.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

/// Holds idleness off until it is dropped.
struct Hold<'a>(&'a LastMove);

impl<'a> Hold<'a> {
    fn new(moved: &'a LastMove) -> Self {
        moved.waiting.fetch_add(1, Ordering::Relaxed);
        Self(moved)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.set();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
