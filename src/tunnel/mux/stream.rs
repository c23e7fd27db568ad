//! A stream in the hands of whoever uses it: chunks of bytes in and out, and the same as `AsyncRead` and `AsyncWrite` for those who
//! copy. Refuses to know how it is carried.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Shared;
use super::engine::Broken;
use crate::base::limits::SPLICE_BUFFER;

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

    /// Up to `max` bytes of what the peer sent, as they lie; empty at its end of file.
    ///
    /// # Errors
    /// `ConnectionReset` when the peer dropped the stream, or this end broke it (the error then holds the `Failure`),
    /// `ConnectionAborted` when the connection is over.
    pub fn poll_chunk(&self, cx: &mut Context<'_>, max: usize) -> Poll<io::Result<Bytes>> {
        self.shared.with(|engine| engine.poll_read(self.id, max, cx, Instant::now)).map_err(|broken| self.explain(broken))
    }

    /// Takes `bytes` away once there is room for them.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer takes no more, else as [`Stream::poll_chunk`].
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let take = || std::mem::take(bytes);
        self.shared.with(|engine| engine.poll_write(self.id, cx, take)).map_err(|broken| self.explain(broken))
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
        self.poll_chunk(cx, buffer.remaining()).map_ok(|bytes| buffer.put_slice(&bytes))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let part = &bytes[..bytes.len().min(SPLICE_BUFFER)];
        let copy = || Bytes::copy_from_slice(part);
        let queued = self.shared.with(|engine| engine.poll_write(self.id, cx, copy));
        queued.map_ok(|()| part.len()).map_err(|broken| self.explain(broken))
    }

    /// Nothing to do: what is written goes out as soon as the connection takes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }
}
