//! A session: the greeting on the control stream, then notices both ways, over one or more lanes. Both ends live here, so that
//! they can't drift apart. It refuses to know registries, policies and reconnecting.

mod ends;
pub mod lanes;
mod load;

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use self::ends::Ends;
use self::lanes::Lanes;
use super::mux::{self, Incoming, Link, Side, Stream};
use super::upgrade::Upgraded;
use crate::base::code::{Code, Failure};
use crate::base::limits::{HELLO_DEADLINE, MAX_LANES_CONFIGURED, MAX_RESUME_WINDOW, MAX_STREAMS_CONFIGURED, NOTICE_QUEUE};
use crate::base::tasks::Tasks;
use crate::wire::codec::{self, Wire};
use crate::wire::hello::{Hello, VERSIONS, Welcome, negotiate};
use crate::wire::notice::{Control, Notice};
use crate::wire::refusal::Refusal;

/// An agreed session, at either end.
pub struct Session {
    /// Its connections; opens streams on them (the gateway does).
    pub lanes: Lanes,
    /// The peer's streams on lane 0 (the agent serves them).
    pub incoming: Incoming,
    /// What the peer tells; `stream closed` is kept apart in [`Notifier::closed`].
    pub notices: mpsc::Receiver<Notice>,
    /// Tells the peer.
    pub notifier: Notifier,
    /// The connection of lane 0, with which the session ends.
    pub link: Link,
}

/// Tells the peer, without waiting: a notice that finds the queue full is dropped, since each only hastens what the peer
/// would learn anyway.
#[derive(Clone)]
pub struct Notifier {
    queue: mpsc::Sender<Notice>,
    ends: Ends,
}

impl Notifier {
    /// Queues a notice.
    pub fn tell(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            tracing::debug!("a notice was dropped");
        }
    }

    /// Says why a stream is about to be reset. Call it before dropping the stream.
    pub fn closing(&self, lane: u32, stream: u32, code: Code) {
        self.tell(Notice::StreamClosed { lane, stream, code });
    }

    /// Takes what the peer said about a stream's end, if it came.
    #[must_use]
    pub fn closed(&self, lane: u32, stream: u32) -> Option<Code> {
        self.ends.take((lane, stream))
    }

    /// The same for a stream that the peer has reset: what it says of it may come a moment later.
    pub async fn why_reset(&self, lane: u32, stream: u32) -> Option<Code> {
        self.ends.awaited((lane, stream)).await
    }
}

/// The agent's end of the greeting, over a fresh pipe.
///
/// # Errors
/// The gateway's refusal, `protocol_violation`, or the connection's end.
pub async fn greet(upgraded: Upgraded, hello: Hello, tasks: &Tasks) -> Result<(Welcome, Session), Failure> {
    let (opener, incoming, link) = mux::start(upgraded, Side::Agent, tasks);
    let capacity = hello.capacity;
    let greeting = async {
        let mut control = Wired::new(opener.open().await?);
        control.send(&Control::Hello(hello)).await?;
        match control.receive().await? {
            Some(Control::Welcome(welcome)) if VERSIONS.contains(&welcome.version) => Ok((welcome, control)),
            Some(Control::Refused(refusal)) => Err(refusal.into()),
            Some(_) => Err(violation("the answer to Hello was no Welcome")),
            None => Err(violation("the control stream ended without a Welcome")),
        }
    };
    let (welcome, control) = in_time(greeting, &link, Code::GatewayTimeout).await?;
    let lanes = Lanes::new(opener, link, max_lanes(&welcome), max_streams(capacity, &welcome), resume_window(&welcome));
    Ok((welcome, Session::start(lanes, incoming, control, tasks)))
}

/// The gateway's end: reads the `Hello`, lets `decide` answer it.
///
/// # Errors
/// The refusal that was sent, `protocol_violation`, or the connection's end.
pub async fn welcome(
    upgraded: Upgraded,
    decide: impl FnOnce(&Hello, u32) -> Result<Welcome, Refusal>,
    tasks: &Tasks,
) -> Result<(Hello, Welcome, Session), Failure> {
    let (opener, mut incoming, link) = mux::start(upgraded, Side::Gateway, tasks);
    let greeting = async {
        let Some(stream) = incoming.accept().await else { return Err(link.ended().await) };
        let mut control = Wired::new(stream);
        let hello = match control.receive().await? {
            Some(Control::Hello(hello)) => hello,
            Some(_) => return Err(violation("the first message was no Hello")),
            None => return Err(violation("the control stream ended without a Hello")),
        };
        match negotiate(&VERSIONS, &hello.versions).and_then(|version| decide(&hello, version)) {
            Ok(welcome) => {
                control.send(&Control::Welcome(welcome.clone())).await?;
                // An agent that never read it has no session to take up.
                link.introduces();
                Ok((hello, welcome, control))
            }
            Err(refusal) => {
                control.send(&Control::Refused(refusal.clone())).await?;
                Err(refusal.into())
            }
        }
    };
    let (hello, welcome, control) = in_time(greeting, &link, Code::ProtocolViolation).await?;
    let streams = max_streams(hello.capacity, &welcome);
    let lanes = Lanes::new(opener, link, max_lanes(&welcome), streams, resume_window(&welcome));
    Ok((hello, welcome, Session::start(lanes, incoming, control, tasks)))
}

/// A greeting that fails, is dropped or takes too long closes its connection, with what it still has to say sent.
async fn in_time<T>(greeting: impl Future<Output = Result<T, Failure>>, link: &Link, late: Code) -> Result<T, Failure> {
    let unfinished = link.close_on_drop();
    let result = tokio::time::timeout(HELLO_DEADLINE, greeting).await;
    let result = result.unwrap_or_else(|_| Err(Failure::new(late, "no greeting within 5 s")));
    match result {
        Ok(done) => {
            unfinished.disarm();
            Ok(done)
        }
        // The connection knows better why it broke.
        Err(failure) if failure.code == Code::SessionLost && link.is_lost() => Err(link.ended().await),
        Err(failure) => {
            link.close_because(failure.clone());
            Err(failure)
        }
    }
}

/// Without a secret no further lane could prove that it belongs here.
fn max_lanes(welcome: &Welcome) -> usize {
    let offered = usize::try_from(welcome.max_lanes).unwrap_or(usize::MAX);
    if welcome.resume_secret.is_some() { offered.clamp(1, MAX_LANES_CONFIGURED) } else { 1 }
}

/// The same for a broken one.
fn resume_window(welcome: &Welcome) -> Duration {
    if welcome.resume_secret.is_some() { welcome.resume_window.min(MAX_RESUME_WINDOW) } else { Duration::ZERO }
}

/// The fewer of what the two ends carry.
fn max_streams(capacity: u32, welcome: &Welcome) -> usize {
    usize::try_from(capacity.min(welcome.max_streams)).unwrap_or(MAX_STREAMS_CONFIGURED).clamp(1, MAX_STREAMS_CONFIGURED)
}

fn violation(what: &str) -> Failure {
    Failure::new(Code::ProtocolViolation, what)
}

impl Session {
    fn start(lanes: Lanes, incoming: Incoming, control: Wired<Stream>, tasks: &Tasks) -> Self {
        // More than there are streams, so that all may be closed at once.
        let room = NOTICE_QUEUE.max(2 * lanes.max_streams());
        let (told, notices) = mpsc::channel(room);
        let (queue, to_tell) = mpsc::channel(room);
        let notifier = Notifier { queue, ends: Ends::new(lanes.max_streams()) };
        let (reader, writer) = control.split();
        tasks.spawn(read_notices(reader, told, notifier.clone(), lanes.clone()));
        tasks.spawn(write_notices(writer, to_tell));
        let link = lanes.first().link().clone();
        Self { lanes, incoming, notices, notifier, link }
    }
}

/// Ends the session with the control stream: without it neither end can say anything any more.
async fn read_notices(mut control: Wired<ReadHalf<Stream>>, told: mpsc::Sender<Notice>, notifier: Notifier, lanes: Lanes) {
    let link = lanes.first().link();
    loop {
        match control.receive().await {
            Ok(Some(Control::Notice(Notice::StreamClosed { lane, stream, code }))) => {
                notifier.ends.note((lane, stream), code);
            }
            Ok(Some(Control::Notice(notice))) => {
                if told.send(notice).await.is_err() {
                    return;
                }
            }
            Ok(Some(Control::Unknown)) => {}
            Ok(Some(_)) => return link.close_because(violation("a second greeting")),
            Ok(None) => return link.close_because(violation("the control stream was closed")),
            // The connection knows better why it broke.
            Err(_) if link.is_lost() => return,
            Err(failure) => return link.close_because(failure),
        }
    }
}

async fn write_notices(mut control: Wired<WriteHalf<Stream>>, mut queue: mpsc::Receiver<Notice>) {
    while let Some(notice) = queue.recv().await {
        if control.send(&Control::Notice(notice)).await.is_err() {
            return;
        }
    }
}

/// Messages over a stream; what follows a message stays available.
pub struct Wired<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S> Wired<S> {
    /// Nothing read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The stream, and the bytes that were read beyond the last message.
    pub fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.buffer)
    }
}

impl<S: AsyncRead + Unpin> Wired<S> {
    /// The next message; `None` at the end of the stream. Safe to drop in the middle: nothing read is lost.
    ///
    /// # Errors
    /// `protocol_violation` for malformed ones, `session_lost` when the stream breaks, also within a message.
    pub async fn receive<M: Wire>(&mut self) -> Result<Option<M>, Failure> {
        loop {
            if let Some(message) = codec::decode(&mut self.buffer).map_err(|error| violation(&error.0))? {
                return Ok(Some(message));
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            match read.map_err(|error| Failure::new(Code::SessionLost, error))? {
                0 if self.buffer.is_empty() => return Ok(None),
                0 => return Err(Failure::new(Code::SessionLost, "the stream ended within a message")),
                _ => {}
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Wired<S> {
    /// Sends a message.
    ///
    /// # Errors
    /// `session_lost`.
    pub async fn send<M: Wire>(&mut self, message: &M) -> Result<(), Failure> {
        let mut bytes = BytesMut::new();
        codec::encode(message, &mut bytes);
        let sent = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|error| Failure::new(Code::SessionLost, error))
    }
}

impl<S: AsyncRead + AsyncWrite> Wired<S> {
    fn split(self) -> (Wired<ReadHalf<S>>, Wired<WriteHalf<S>>) {
        let (reader, writer) = tokio::io::split(self.stream);
        (Wired { stream: reader, buffer: self.buffer }, Wired { stream: writer, buffer: BytesMut::new() })
    }
}

#[cfg(test)]
mod tests;
