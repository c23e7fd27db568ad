//! Two streams joined, each way by itself: half-close passes on, back-pressure reaches the source, an error resets the other
//! side. It refuses to know who is at either end, and why.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::base::limits::SPLICE_BUFFER;

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

/// What every chunk passes: slowed to a rate before it is written on, counted after.
pub trait Toll: Sync {
    /// Ends when a chunk may go on.
    fn pace(&self, bytes: usize) -> impl Future<Output = ()> + Send;

    /// A chunk was written on.
    fn count(&self, direction: Direction, bytes: usize);
}

/// Copies both ways until both ends are done or one breaks. `idle` ends a splice in which nothing moves for that long.
///
/// The streams come back to the caller, who resets them unless the outcome is [`Outcome::Finished`].
pub async fn splice<N, F, T>(near: &mut N, far: &mut F, idle: Option<Duration>, toll: &T) -> Outcome
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
    T: Toll,
{
    let moved = LastMove::now();
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let upward = Pump { from: End::Near, direction: Direction::Up, moved: &moved };
    let downward = Pump { from: End::Far, direction: Direction::Down, moved: &moved };
    let both =
        join_until_broken(upward.run(&mut near_read, &mut far_write, toll), downward.run(&mut far_read, &mut near_write, toll));
    tokio::select! {
        biased;
        result = both => match result {
            Ok(()) => Outcome::Finished,
            Err((end, error)) => Outcome::Broken(end, error),
        },
        () = idles(idle, &moved) => Outcome::Idle,
    }
}

type Broken = (End, io::Error);

struct Pump<'a> {
    from: End,
    direction: Direction,
    moved: &'a LastMove,
}

/// How one direction ended.
enum Half {
    Finished,
    /// The reading end is gone, and with it what it still wanted to say.
    ReadBroken(Broken),
    /// The writing end takes no more; it may still have something to say.
    WriteBroken(Broken),
}

impl Pump<'_> {
    async fn run<R, W, T>(self, from: &mut R, to: &mut W, toll: &T) -> Half
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        T: Toll,
    {
        let to_end = if self.from == End::Near { End::Far } else { End::Near };
        let mut buffer = vec![0; SPLICE_BUFFER];
        loop {
            let count = match from.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Half::ReadBroken((self.from, error)),
            };
            self.moved.set();
            toll.pace(count).await;
            if let Err(error) = write_on(to, &buffer[..count]).await {
                return Half::WriteBroken((to_end, error));
            }
            toll.count(self.direction, count);
            self.moved.set();
        }
        match to.shutdown().await {
            Ok(()) => Half::Finished,
            // A peer that has closed both ways already has nothing against our end of file.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Half::Finished,
            Err(error) => Half::WriteBroken((to_end, error)),
        }
    }
}

async fn write_on<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Runs both directions. An end that can't be read from is gone, so both stop; an end that can't be written to may still be
/// answering ("413, and the rest of your upload is not wanted"), so the other direction goes on to its own end.
async fn join_until_broken(up: impl Future<Output = Half>, down: impl Future<Output = Half>) -> Result<(), Broken> {
    tokio::pin!(up, down);
    let (first, other) = tokio::select! {
        half = &mut up => (half, Direction::Down),
        half = &mut down => (half, Direction::Up),
    };
    let write_broken = match first {
        Half::ReadBroken(broken) => return Err(broken),
        Half::WriteBroken(broken) => Some(broken),
        Half::Finished => None,
    };
    let second = if other == Direction::Down { down.await } else { up.await };
    match (write_broken, second) {
        (Some(broken), _) | (None, Half::ReadBroken(broken) | Half::WriteBroken(broken)) => Err(broken),
        (None, Half::Finished) => Ok(()),
    }
}

async fn idles(limit: Option<Duration>, moved: &LastMove) {
    let Some(limit) = limit else { return std::future::pending().await };
    while let Some(left) = limit.checked_sub(moved.age()).filter(|left| !left.is_zero()) {
        // A millisecond more, since ages are kept in whole milliseconds.
        tokio::time::sleep(left + Duration::from_millis(1)).await;
    }
}

/// When bytes last moved either way.
struct LastMove {
    start: Instant,
    millis: AtomicU64,
}

impl LastMove {
    fn now() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn set(&self) {
        self.millis.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests;
