//! A stream in the hands of whoever uses it: chunks of bytes in and out, and the same as `AsyncRead` and `AsyncWrite` for those who
//! copy. Refuses to know how it is carried.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Shared;
use super::engine::Broken;
use crate::base::limits::{CHUNK_COST, SPLICE_BUFFER};

/// One multiplexed stream. Dropping it before both its ends of file resets it.
pub struct Stream {
    id: u32,
    shared: Arc<Shared>,
}

impl Stream {
    pub(super) fn new(id: u32, shared: Arc<Shared>) -> Self {
        Self { id, shared }
    }

    /// Its id on the wire.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Appends what the peer sent, as it lies, up to some [`SPLICE_BUFFER`] bytes; nothing at its end of file.
    ///
    /// # Errors
    /// `ConnectionReset` when the peer dropped the stream, or this end broke it (the error then holds the `Failure`),
    /// `ConnectionAborted` when the connection is over.
    pub fn poll_chunks(&self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        let read = self.shared.with(|engine| {
            let mut count = 0;
            while count < SPLICE_BUFFER && (count == 0 || engine.has_unread(self.id)) {
                let chunk = ready!(engine.poll_read(self.id, usize::MAX, cx, Instant::now))?;
                if chunk.is_empty() {
                    break;
                }
                count += chunk.len() + CHUNK_COST;
                chunks.push_back(chunk);
            }
            Poll::Ready(Ok(()))
        });
        read.map_err(|broken| self.explain(broken))
    }

    /// Takes `chunks` away once there is room for them.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer takes no more, else as [`Stream::poll_chunks`].
    pub fn poll_send(&self, cx: &mut Context<'_>, chunks: &mut VecDeque<Bytes>) -> Poll<io::Result<()>> {
        let sent = self.shared.with(|engine| {
            while let Some(chunk) = chunks.front() {
                ready!(engine.poll_write(self.id, cx, || chunk.clone()))?;
                chunks.pop_front();
            }
            Poll::Ready(Ok(()))
        });
        sent.map_err(|broken| self.explain(broken))
    }

    /// Sends the end of file behind what was written; ready when it has gone out.
    ///
    /// # Errors
    /// As [`Stream::poll_send`].
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|engine| engine.poll_finish(self.id, cx)).map_err(|broken| self.explain(broken))
    }

    fn explain(&self, broken: Broken) -> io::Error {
        broken.into_io(|| self.shared.why("the session was lost"))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.release(self.id));
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let max = buffer.remaining();
        let read = self.shared.with(|engine| engine.poll_read(self.id, max, cx, Instant::now));
        read.map_ok(|bytes| buffer.put_slice(&bytes)).map_err(|broken| self.explain(broken))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = &bytes[..bytes.len().min(SPLICE_BUFFER)];
        let copy = || Bytes::copy_from_slice(part);
        let queued = self.shared.with(|engine| engine.poll_write(self.id, cx, copy));
        queued.map_ok(|()| part.len()).map_err(|broken| self.explain(broken))
    }

    /// One chunk of all the slices, so that a head and its body are one frame.
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum::<usize>().min(SPLICE_BUFFER);
        let gather = || {
            let mut chunk = BytesMut::with_capacity(all);
            for slice in slices {
                chunk.extend_from_slice(&slice[..slice.len().min(all - chunk.len())]);
            }
            chunk.freeze()
        };
        let queued = self.shared.with(|engine| engine.poll_write(self.id, cx, gather));
        queued.map_ok(|()| all).map_err(|broken| self.explain(broken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: what is written goes out as soon as the connection takes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }
}
