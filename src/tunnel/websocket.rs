//! A WebSocket connection as a pipe of bytes: binary messages one way and the other, heartbeats beside them.
//! It refuses to know what the bytes are; message boundaries mean nothing.
//!
//! The mux above writes a header and a body and flushes after each; one message, one TLS record and one system call for both come
//! from two rules: what is written is gathered into one message of up to 64 KiB, and it is sent when the mux has nothing
//! more to do, that is, when it waits for reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{AsyncRead, AsyncWrite, Sink, Stream};
use tokio::io::{AsyncRead as TokioRead, AsyncWrite as TokioWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::lane::Pulse;
use crate::base::code::{Code, Failure};
use crate::base::limits::{HEARTBEAT, MAX_MESSAGE};
use crate::wire::heartbeat::Heartbeat;

/// The pipe over one upgraded connection.
pub struct Pipe<S> {
    socket: WebSocketStream<S>,
    /// What is left of the last message.
    incoming: Bytes,
    /// The message being gathered.
    outgoing: BytesMut,
    pulse: Pulse,
    beat: Interval,
    /// The last heartbeat sent: its sequence, and when.
    sent: (u64, Instant),
    /// Bytes received, for the heartbeats.
    received: u64,
}

/// What both ends ask of tungstenite: our limits, and buffers no larger than one message.
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(MAX_MESSAGE)
        .write_buffer_size(MAX_MESSAGE)
        .max_write_buffer_size(4 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl<S: TokioRead + TokioWrite + Unpin> Pipe<S> {
    /// Takes an upgraded connection on which `sequence` heartbeats have been sent.
    pub fn new(socket: WebSocketStream<S>, sequence: u64) -> Self {
        let mut beat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            socket,
            incoming: Bytes::new(),
            outgoing: BytesMut::new(),
            pulse: Pulse::new(),
            beat,
            sent: (sequence, Instant::now()),
            received: 0,
        }
    }

    /// The signs of life.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Hands the gathered message to the socket's buffer.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
            let message = Message::Binary(self.outgoing.split().freeze());
            Pin::new(&mut self.socket).start_send(message).map_err(into_io)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends a heartbeat when it is due; a socket that takes nothing leaves it due.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.beat.poll_tick(cx).is_ready() {
            if Pin::new(&mut self.socket).poll_ready(cx).map_err(into_io)?.is_pending() {
                continue;
            }
            self.sent = (self.sent.0 + 1, Instant::now());
            let heartbeat = Heartbeat { kind: Heartbeat::PING, sequence: self.sent.0, received: self.received };
            let ping = Message::Ping(Bytes::copy_from_slice(&heartbeat.to_bytes()));
            Pin::new(&mut self.socket).start_send(ping).map_err(into_io)?;
        }
        Ok(())
    }

    /// Fills `incoming`; `false` at the end of the connection.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            let Some(message) = ready!(Pin::new(&mut self.socket).poll_next(cx)) else { return Poll::Ready(Ok(false)) };
            let message = message.map_err(into_io)?;
            self.pulse.frame();
            match message {
                Message::Binary(bytes) if bytes.is_empty() => {}
                Message::Binary(bytes) => {
                    self.received += bytes.len() as u64;
                    self.incoming = bytes;
                    return Poll::Ready(Ok(true));
                }
                // tungstenite answers a Ping with the same bytes.
                Message::Ping(_) | Message::Frame(_) => {}
                Message::Pong(bytes) => {
                    let ours = |echo: &Heartbeat| echo.kind == Heartbeat::PING && echo.sequence == self.sent.0;
                    if Heartbeat::from_bytes(&bytes).filter(ours).is_some() {
                        self.pulse.echoed(self.sent.1.elapsed());
                    }
                }
                Message::Close(_) => return Poll::Ready(Ok(false)),
                Message::Text(_) => return Poll::Ready(Err(violation("a text message"))),
            }
        }
    }
}

impl<S: TokioRead + TokioWrite + Unpin> AsyncRead for Pipe<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.incoming.is_empty() {
            this.poll_beat(cx)?;
            match this.poll_message(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if let Poll::Ready(sent) = this.poll_send(cx) {
                        sent?;
                        if let Poll::Ready(flushed) = Pin::new(&mut this.socket).poll_flush(cx) {
                            flushed.map_err(into_io)?;
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        let count = buffer.len().min(this.incoming.len());
        buffer[..count].copy_from_slice(&this.incoming[..count]);
        this.incoming.advance(count);
        Poll::Ready(Ok(count))
    }
}

impl<S: TokioRead + TokioWrite + Unpin> AsyncWrite for Pipe<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outgoing.len() >= MAX_MESSAGE {
            ready!(this.poll_send(cx))?;
        }
        let count = bytes.len().min(MAX_MESSAGE - this.outgoing.len());
        this.outgoing.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    /// Does nothing: the mux flushes after every frame; see the module's first lines.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.socket).poll_close(cx)) {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

/// An error that keeps its code on the way through the mux.
fn violation(what: &str) -> io::Error {
    io::Error::other(Failure::new(Code::ProtocolViolation, what))
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => io::ErrorKind::UnexpectedEof.into(),
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::ConnectionReset.into()
        }
        other => violation(&format!("WebSocket: {other}")),
    }
}
