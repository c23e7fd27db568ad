//! One connection of a lane: reads it into the flow, writes what the flow has, keeps the time. Refuses to know what comes after it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::flow::{Aside, Break, Flow};
use crate::base::code::{Code, Failure};
use crate::base::limits::{ACKNOWLEDGE_AFTER, READ_BUFFER};
use crate::tunnel::Io;
use crate::tunnel::lane::{Heart, Pulse};
use crate::tunnel::upgrade::Upgraded;
use crate::tunnel::vectored::poll_write_chunks;
use crate::tunnel::websocket::Decoder;

/// What is left of a read buffer below which another is taken.
const READ_MIN: usize = READ_BUFFER / 4;

/// A connection and what is on its way through it.
pub(super) struct Transport {
    io: Box<dyn Io>,
    decoder: Decoder,
    aside: Aside,
    /// Read, not yet decoded; without memory while nothing comes.
    inbound: BytesMut,
    /// Framed, not yet written.
    outbound: VecDeque<Bytes>,
    /// Written, not yet flushed.
    unflushed: bool,
    /// When bytes that came are to be acknowledged.
    acknowledge_at: Option<Instant>,
    /// Wakes the task when something is to be done at a time.
    alarm: Pin<Box<Sleep>>,
    /// Why writing failed while another than the task did it.
    failed: Option<io::Error>,
}

impl Transport {
    pub(super) fn new(upgraded: Upgraded, flow: &Flow, pulse: Pulse) -> Self {
        let now = Instant::now();
        let aside = Aside::new(Heart::new(pulse, upgraded.beats, now), upgraded.echo);
        Self {
            io: upgraded.io,
            decoder: flow.decoder(),
            inbound: BytesMut::new(),
            outbound: VecDeque::new(),
            unflushed: false,
            acknowledge_at: None,
            alarm: Box::pin(tokio::time::sleep_until(aside.heart.deadline())),
            aside,
            failed: None,
        }
    }

    /// What is due at this time; ready with the verdict when the connection is dead. Yields whether a heartbeat is due: then is
    /// the time to look after the streams, too.
    pub(super) fn poll_time(&mut self, pulse: &Pulse, cx: &mut Context<'_>) -> Poll<Result<bool, Break>> {
        let mut beats = false;
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(why) = pulse.dead(now) {
                return Poll::Ready(Err(Break::Broken(Failure::new(Code::LinkDead, why))));
            }
            beats |= self.aside.heart.beats(now);
            if self.acknowledge_at.is_some_and(|at| at <= now) {
                (self.acknowledge_at, self.aside.acknowledge) = (None, true);
            }
            let deadline = self.aside.heart.deadline();
            self.alarm.as_mut().reset(self.acknowledge_at.map_or(deadline, |at| at.min(deadline)));
        }
        Poll::Ready(Ok(beats))
    }

    /// One read, and what it brought.
    pub(super) fn poll_receive(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Poll<Result<(), Break>> {
        if self.inbound.capacity() - self.inbound.len() < READ_MIN {
            let rest = std::mem::replace(&mut self.inbound, BytesMut::with_capacity(READ_BUFFER));
            self.inbound.extend_from_slice(&rest);
        }
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.inbound) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(broken(&io::ErrorKind::UnexpectedEof.into()))),
            Poll::Ready(Ok(_)) => Poll::Ready(self.received(flow, cx)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(broken(&error))),
            Poll::Pending => {
                if self.inbound.is_empty() {
                    self.inbound = BytesMut::new();
                }
                Poll::Pending
            }
        }
    }

    fn received(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Result<(), Break> {
        let now = Instant::now();
        self.aside.heart.heard(now);
        flow.receive(&mut self.decoder, &mut self.inbound, &mut self.aside, now)?;
        if self.acknowledge_at.is_none() && flow.owes() {
            self.acknowledge_at = Some(now + ACKNOWLEDGE_AFTER);
            self.wake_by(now + ACKNOWLEDGE_AFTER, cx);
        }
        if self.aside.heart.is_in_doubt() {
            self.wake_by(self.aside.heart.deadline(), cx);
        }
        Ok(())
    }

    /// Lets the alarm go off then, if it is not to do so sooner.
    fn wake_by(&mut self, at: Instant, cx: &mut Context<'_>) {
        if at < self.alarm.deadline() {
            self.alarm.as_mut().reset(at);
            // Polled again by whoever it wakes.
            if self.alarm.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
    }

    /// Tells the peer at once what has come, if it is to be told.
    pub(super) fn acknowledge(&mut self) {
        self.aside.acknowledge = true;
    }

    /// Writes until there is nothing more to write, or the connection takes nothing more; ready in the first case.
    pub(super) fn poll_send(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            if self.outbound.is_empty() {
                flow.fill(&mut self.aside, &mut self.outbound);
            }
            if self.outbound.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Ready(Ok(()));
            }
            if ready!(poll_write_chunks(Pin::new(&mut self.io), cx, &mut self.outbound))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
        }
    }

    /// The same for another than the task, who is to learn of a failure: then `true`.
    pub(super) fn send(&mut self, flow: &mut Flow, cx: &mut Context<'_>) -> bool {
        if self.failed.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(flow, cx)
        {
            self.failed = Some(error);
        }
        self.failed.is_some()
    }

    /// Frames the last words.
    pub(super) fn say_close(&mut self, flow: &mut Flow, code: Code) {
        flow.fill(&mut self.aside, &mut self.outbound);
        self.outbound.push_back(flow.close(code));
    }

    /// Ends the writing half.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// As a killed process, or whoever cut the connection, leaves it.
pub(super) fn broken(error: &io::Error) -> Break {
    Break::Broken(match error.kind() {
        io::ErrorKind::UnexpectedEof => Failure::new(Code::LinkClosed, "the connection ended without a farewell"),
        _ => Failure::new(Code::LinkClosed, error),
    })
}
