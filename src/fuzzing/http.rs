//! The heads of HTTP requests, read by the library that both hops read them with. Refuses to know targets and rules.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::base::limits::{HTTP_BUFFER, HTTP_HEAD};

/// How often a connection is looked at; each look reads all that is there.
const LOOKS: usize = 64;

/// A client's bytes on a connection. Each request that is read from it is what the gateway would send to an agent, and an agent to an
/// origin: one request, made of what was decided about.
///
/// # Panics
/// When that is not so.
pub fn http(input: &[u8]) {
    let service = service_fn(|request: Request<_>| async {
        let (parts, _): (_, hyper::body::Incoming) = request.into_parts();
        crate::gateway::http::exercise(&parts);
        crate::agent::bridge::http::exercise(parts);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut builder = http1::Builder::new();
    builder.max_header_size(HTTP_HEAD).max_buf_size(HTTP_BUFFER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Said(input)), service));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..LOOKS {
        if connection.as_mut().poll(&mut context).is_ready() {
            return;
        }
    }
}

/// A connection whose client has said this, and hears nothing.
struct Said<'a>(&'a [u8]);

impl AsyncRead for Said<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (part, rest) = self.0.split_at(self.0.len().min(buffer.remaining()));
        buffer.put_slice(part);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
