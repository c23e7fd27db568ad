//! The first bytes of a client of the HTTP entry point: a whole head, or HTTP/2's preface, before anything else is done for it. Refuses to
//! know what heads mean.

use bytes::{Bytes, BytesMut};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::base::code::{Code, Failure};
use crate::base::limits::HTTP_HEAD;
use crate::wire::hop::PREFACE;

/// What is read at once: most heads whole.
const READ: usize = 2048;

/// What was read before the connection was known, and what is spoken on it.
#[derive(Debug)]
pub(super) struct First {
    pub(super) bytes: Bytes,
    pub(super) http2: bool,
}

/// Reads it.
///
/// # Errors
/// `client_reset` if it said nothing at all, `request_invalid` for what is no HTTP, too long or cut off.
pub(super) async fn read<Io: AsyncRead + Unpin>(io: &mut Io) -> Result<First, Failure> {
    let mut said = BytesMut::with_capacity(READ);
    loop {
        if let Some(http2) = speaks(&said)? {
            return Ok(First { bytes: said.freeze(), http2 });
        }
        said.reserve(READ);
        match io.read_buf(&mut said).await {
            Ok(1..) => {}
            // As balancers look whether somebody listens.
            _ if said.is_empty() => return Err(Failure::new(Code::ClientReset, "the connection ended before its first byte")),
            Ok(0) => return Err(invalid("the connection ended before the request did")),
            Err(error) => return Err(invalid(format_args!("the connection ended before the request did: {error}"))),
        }
    }
}

/// Whether it is HTTP/2; `None` as long as neither a head nor the preface is whole.
fn speaks(said: &[u8]) -> Result<Option<bool>, Failure> {
    match said.first() {
        Some(0x16) => return Err(invalid("TLS was begun on a listener without TLS")),
        Some(4 | 5) => return Err(invalid("SOCKS was spoken on a listener for HTTP")),
        _ => {}
    }
    let common = said.len().min(PREFACE.len());
    if said[..common] == PREFACE[..common] {
        return Ok((common == PREFACE.len()).then_some(true));
    }
    let ends = |lines: &[u8]| said.windows(lines.len()).any(|window| window == lines);
    if ends(b"\n\r\n") || ends(b"\n\n") {
        return Ok(Some(false));
    }
    if said.len() >= HTTP_HEAD {
        return Err(invalid(format_args!("the head is longer than {HTTP_HEAD} bytes")));
    }
    Ok(None)
}

fn invalid(why: impl fmt::Display) -> Failure {
    Failure::new(Code::RequestInvalid, why)
}

/// A connection of which something was read already.
pub(super) struct Rewound<Io> {
    first: Bytes,
    io: Io,
}

impl<Io> Rewound<Io> {
    pub(super) fn new(first: Bytes, io: Io) -> Self {
        Self { first, io }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewound<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let part = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first.split_to(part));
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Rewound<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn first(said: &[u8]) -> Result<(Vec<u8>, bool), Code> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(said).await.unwrap();
        drop(theirs);
        let mut first = read(&mut ours).await.map_err(|failure| failure.code)?;
        let http2 = first.http2;
        let mut all = Vec::new();
        Rewound::new(std::mem::take(&mut first.bytes), ours).read_to_end(&mut all).await.unwrap();
        Ok((all, http2))
    }

    #[tokio::test]
    async fn e10_a_head_is_there_as_a_whole_before_it_counts_and_nothing_of_it_is_lost() {
        for whole in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody"[..], b"GET / HTTP/1.1\n\n", b"no HTTP at all\r\n\r\n"] {
            assert_eq!(first(whole).await, Ok((whole.to_vec(), false)));
        }
        let http2 = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
        assert_eq!(first(&http2).await, Ok((http2.clone(), true)));
        let long = ["GET / HTTP/1.1\r\nX: ", &"x".repeat(HTTP_HEAD)].concat();
        for wrong in [
            &b"\x16\x03\x01\x02\0"[..],
            b"\x05\x01\0",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"PRI * HTTP/2.0\r\n",
            long.as_bytes(),
        ] {
            assert_eq!(first(wrong).await, Err(Code::RequestInvalid));
        }
        assert_eq!(first(b"").await, Err(Code::ClientReset));
    }
}
