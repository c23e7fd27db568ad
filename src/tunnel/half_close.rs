//! A TLS stream that ends its writing by TLS's own end, `close_notify` (RFC 8446, 6.1), and leaves TCP's to the closing of the
//! connection: proxies and firewalls between take a FIN for the end of both ways. Refuses to know what is carried.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

/// A stream whose shutdown is heard at its other end and nowhere between.
pub struct HalfClose<S> {
    stream: S,
    ended: bool,
}

impl<S> HalfClose<S> {
    /// Of a stream through its handshake.
    pub fn new(stream: S) -> Self {
        Self { stream, ended: false }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

/// Either end of TLS.
pub trait Tls {
    /// Queues the end of what this side writes.
    fn end(&mut self);
}

impl<Io> Tls for client::TlsStream<Io> {
    fn end(&mut self) {
        self.get_mut().1.send_close_notify();
    }
}

impl<Io> Tls for server::TlsStream<Io> {
    fn end(&mut self) {
        self.get_mut().1.send_close_notify();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HalfClose<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Tls + Unpin> AsyncWrite for HalfClose<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            self.ended = true;
            self.stream.end();
        }
        self.poll_flush(cx)
    }
}
