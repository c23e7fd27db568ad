//! What the other side presented: its certificate or its first bytes, kept so that an error can name it. Refuses to judge it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base::code::{Code, Failure};
use crate::base::id::printable;

/// As many of the first bytes as an HTTP status line needs.
const KEPT: usize = 64;

/// Names the certificate that stands in the place of the gateway's.
pub(super) fn intercepted(leaf: &CertificateDer<'_>) -> Failure {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return Failure::new(Code::TlsIntercepted, "something that is no certificate was presented");
    };
    let (issuer, subject) = (certificate.issuer().to_string(), certificate.subject().to_string());
    let detail = format!("presented: issuer=\"{}\" subject=\"{}\"", printable(&issuer, 300), printable(&subject, 300));
    Failure::new(Code::TlsIntercepted, detail)
}

/// A connection that remembers the first bytes that were read from it; put under TLS, it tells what answered instead of TLS.
#[derive(Debug)]
pub struct FirstBytes<IO> {
    io: IO,
    first: [u8; KEPT],
    kept: usize,
}

impl<IO> FirstBytes<IO> {
    /// Wraps a connection that nothing was read from yet.
    pub fn new(io: IO) -> Self {
        Self { io, first: [0; KEPT], kept: 0 }
    }

    /// The first bytes that were read, up to 64.
    pub fn first_bytes(&self) -> &[u8] {
        &self.first[..self.kept]
    }

    /// The connection.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The connection alone.
    pub fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FirstBytes<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if this.kept < KEPT {
            let read = &buf.filled()[before..];
            let more = read.len().min(KEPT - this.kept);
            this.first[this.kept..this.kept + more].copy_from_slice(&read[..more]);
            this.kept += more;
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FirstBytes<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_are_kept_and_all_are_passed_on() {
        let (mut near, far) = tokio::io::duplex(1024);
        let mut far = FirstBytes::new(far);
        near.write_all(b"HTTP/1.1 ").await.unwrap();
        let mut read = vec![0; 9];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(far.first_bytes(), b"HTTP/1.1 ");
        near.write_all(&[b'x'; 200]).await.unwrap();
        drop(near);
        assert_eq!(far.read_to_end(&mut read).await.unwrap(), 200);
        assert_eq!(far.first_bytes().len(), KEPT);
        assert!(far.first_bytes().starts_with(b"HTTP/1.1 xxx"));
    }
}
