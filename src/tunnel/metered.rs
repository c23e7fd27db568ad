//! A stream in the hands of a protocol that reads and writes it by itself, such as HTTP: its bytes wait for their rate and are counted
//! on the way, as a splice's are. It refuses to know what they say.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ledger::{Ledger, Pace};
use super::splice::{Direction, Toll};

/// A stream whose bytes pass a ledger, both ways.
pub struct Metered<Io, P> {
    io: Io,
    ledger: Arc<Ledger<P>>,
    /// Which way the bytes go that are read of it; those written go the other one.
    reads: Direction,
    /// What was read and has not been given out yet.
    read: Bytes,
    read_turn: Turn,
    write_turn: Turn,
}

impl<Io, P: Pace + 'static> Metered<Io, P> {
    /// A stream of which `first` was read already and counted by nobody. What is read of it goes `reads`: down at the gateway, up at
    /// the agent.
    pub fn new(io: Io, first: Bytes, reads: Direction, ledger: Arc<Ledger<P>>) -> Self {
        Self { io, ledger, reads, read: first, read_turn: Turn::default(), write_turn: Turn::default() }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &Io {
        &self.io
    }

    fn writes(&self) -> Direction {
        match self.reads {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }

    /// Gives out of what was read as much as may pass now.
    fn poll_give(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<()> {
        let bytes = self.read.len().min(buffer.remaining());
        let part = ready!(self.read_turn.poll(cx, &self.ledger, bytes));
        buffer.put_slice(&self.read[..part]);
        self.read.advance(part);
        self.read_turn.spend(part);
        self.ledger.count(self.reads, part);
        Poll::Ready(())
    }

    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        write: impl FnOnce(Pin<&mut Io>, &mut Context<'_>, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>>
    where
        Io: Unpin,
    {
        let part = ready!(self.write_turn.poll(cx, &self.ledger, bytes));
        let written = ready!(write(Pin::new(&mut self.io), cx, part))?;
        self.write_turn.spend(written);
        self.ledger.count(self.writes(), written);
        Poll::Ready(Ok(written))
    }
}

impl<Io: AsyncRead + Unpin, P: Pace + 'static> AsyncRead for Metered<Io, P> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.read.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            let bytes = buffer.filled().len() - before;
            if bytes == 0 || this.ledger.pace(bytes).is_none() {
                this.ledger.count(this.reads, bytes);
                return Poll::Ready(Ok(()));
            }
            // It must not be seen before its turn.
            this.read = Bytes::copy_from_slice(&buffer.filled()[before..]);
            buffer.set_filled(before);
        }
        this.poll_give(cx, buffer).map(Ok)
    }
}

impl<Io: AsyncWrite + Unpin, P: Pace + 'static> AsyncWrite for Metered<Io, P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_written(cx, bytes.len(), |io, cx, part| io.poll_write(cx, &bytes[..part]))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().poll_written(cx, all, |io, cx, part| {
            if part == all {
                return io.poll_write_vectored(cx, slices);
            }
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            io.poll_write(cx, &first[..part.min(first.len())])
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The wait of one way for its rate, and what it has been given and not used.
#[derive(Default)]
struct Turn {
    wait: Option<Pin<Box<dyn Future<Output = usize> + Send>>>,
    given: usize,
}

impl Turn {
    /// Ready with how many of so many bytes may pass: all without a rate, else at least one.
    fn poll<P: Pace + 'static>(&mut self, cx: &mut Context<'_>, ledger: &Arc<Ledger<P>>, bytes: usize) -> Poll<usize> {
        if self.given == 0 {
            if self.wait.is_none() {
                if ledger.pace(bytes).is_none() {
                    return Poll::Ready(bytes);
                }
                let ledger = ledger.clone();
                self.wait = Some(Box::pin(async move {
                    match ledger.pace(bytes) {
                        Some(delay) => delay.await,
                        None => bytes,
                    }
                }));
            }
            let wait = self.wait.as_mut().expect("it has just been set");
            self.given = ready!(wait.as_mut().poll(cx));
            self.wait = None;
        }
        Poll::Ready(self.given.min(bytes))
    }

    fn spend(&mut self, bytes: usize) {
        self.given = self.given.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::base::id::{AgentId, RequestId, SessionId};
    use crate::observe::audit::Audit;
    use crate::tunnel::ledger::Asked;
    use crate::tunnel::splice::Delay;

    /// So many bytes a second, at most four at once; all at once for 0.
    struct Rate(u64);

    impl Pace for Rate {
        fn pace(&self, bytes: usize) -> Option<Delay<'_>> {
            let part = bytes.min(4);
            (self.0 > 0).then(|| -> Delay<'_> {
                Box::pin(async move {
                    sleep(Duration::from_secs(part as u64) / u32::try_from(self.0).unwrap()).await;
                    part
                })
            })
        }
    }

    fn metered(rate: u64, first: &'static [u8]) -> (Metered<DuplexStream, Rate>, DuplexStream, impl Fn() -> (u64, u64)) {
        let (audit, mut rows) = Audit::discard().observed();
        let agent: AgentId = "acme/dc1/a".parse().unwrap();
        let mut asked = Asked::new(&audit, RequestId::fresh(), "t".into(), "c".into(), None, None);
        let ledger = Arc::new(asked.opened(SessionId::fresh(), &agent, None, Rate(rate)).unwrap());
        let (near, far) = duplex(1024);
        let metered = Metered::new(near, Bytes::from_static(first), Direction::Down, ledger.clone());
        let counted = move || ledger.moved();
        rows.try_recv().unwrap();
        (metered, far, counted)
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_all_is_counted_its_way() {
        let (mut stream, mut far, counted) = metered(0, b"early, ");
        far.write_all(b"late").await.unwrap();
        stream.write_all(b"asked").await.unwrap();
        let (mut read, mut written) = ([0; 11], [0; 5]);
        stream.read_exact(&mut read).await.unwrap();
        far.read_exact(&mut written).await.unwrap();
        assert_eq!((&read, &written), (b"early, late", b"asked"));
        assert_eq!(counted(), (5, 11));
        drop(far);
        assert_eq!(stream.read(&mut read).await.unwrap(), 0, "an end of file passes");
    }

    #[tokio::test(start_paused = true)]
    async fn both_ways_wait_for_their_rate() {
        let (mut stream, mut far, counted) = metered(10, b"0123456789");
        far.write_all(b"0123456789").await.unwrap();
        let begun = Instant::now();
        let mut read = [0; 20];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!((begun.elapsed(), &read), (Duration::from_secs(2), b"01234567890123456789"));

        let slices = [IoSlice::new(b""), IoSlice::new(b"01234"), IoSlice::new(b"56789")];
        let first = stream.write_vectored(&slices).await.unwrap();
        assert_eq!(first, 4, "no more than its turn lets pass");
        stream.write_all(b"456789").await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        far.read_exact(&mut read[..10]).await.unwrap();
        assert_eq!((&read[..10], counted()), (&b"0123456789"[..], (10, 20)));
    }
}
