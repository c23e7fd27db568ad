//! Our end of a connection that speaks plain yamux: the mux as it is run, and between it and the wire an adapter that takes its
//! WebSocket frames off. Refuses to know who is at the other end.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex;
use underpass::base::tasks::Tasks;
use underpass::tunnel::mux::{self, Incoming, Link, Opener, Side};
use underpass::tunnel::upgrade::Upgraded;
use underpass::tunnel::websocket::{Decoder, Event, Opcode, Sender, head};

/// Long enough for anything that works.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What a pipe between two ends holds.
const PIPE: usize = 256 * 1024;

/// Where the wire is cut: how many bytes are read and written at once, in turn.
#[derive(Clone, Debug)]
pub(crate) struct Cuts(pub(crate) Vec<usize>);

/// The mux.
pub(crate) struct End {
    pub(crate) opener: Opener,
    pub(crate) incoming: Incoming,
    pub(crate) link: Link,
    /// Owns what runs it.
    _tasks: Running,
}

struct Running(Tasks);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl End {
    /// The mux with its plain yamux on `wire`.
    pub(crate) fn over<S>(wire: S, side: Side, cuts: Cuts) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = Tasks::new();
        let (framed, other) = tokio::io::duplex(PIPE);
        let (opener, incoming, link) =
            mux::start(Upgraded { io: Box::new(framed), beats: 0, echo: None, received: None }, side, &tasks);
        let (reader, writer) = split(other);
        let writer = Arc::new(Mutex::new(writer));
        let (from_wire, to_wire) = split(wire);
        let (sends, peer) = match side {
            Side::Agent => (Sender::Client, Sender::Server),
            Side::Gateway => (Sender::Server, Sender::Client),
        };
        tasks.spawn(unframe(reader, sends, to_wire, writer.clone(), peer, cuts.clone()));
        tasks.spawn(wrap(from_wire, writer, peer, cuts));
        Self { opener, incoming, link, _tasks: Running(tasks) }
    }
}

/// A pipe for plain yamux.
pub(crate) fn wire() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(PIPE)
}

/// What the mux sends: data to the wire, heartbeats back to itself.
async fn unframe<W: AsyncWrite>(
    mut reader: ReadHalf<DuplexStream>,
    sends: Sender,
    mut wire: WriteHalf<W>,
    back: Arc<Mutex<WriteHalf<DuplexStream>>>,
    peer: Sender,
    cuts: Cuts,
) {
    let (mut decoder, mut inbound) = (Decoder::new(sends), BytesMut::with_capacity(PIPE));
    while reader.read_buf(&mut inbound).await.is_ok_and(|count| count > 0) {
        while let Some(event) = decoder.next(&mut inbound).expect("the mux frames as it should") {
            let done = match event {
                Event::Data(bytes) => write_cut(&mut wire, &bytes, &cuts).await,
                Event::Ping(bytes) => write(&back, peer, Opcode::Pong, &bytes).await,
                Event::Pong(_) | Event::Close(_) => Ok(()),
            };
            if done.is_err() {
                return;
            }
        }
        let _ = wire.flush().await;
        inbound.reserve(1 << 16);
    }
    let _ = wire.shutdown().await;
}

/// Writes in pieces, each of which the other end may see alone.
async fn write_cut<W: AsyncWrite>(wire: &mut WriteHalf<W>, mut bytes: &[u8], cuts: &Cuts) -> std::io::Result<()> {
    for cut in cuts.0.iter().cycle() {
        let (now, later) = bytes.split_at((*cut).min(bytes.len()));
        wire.write_all(now).await?;
        bytes = later;
        if bytes.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// What comes on the wire, in the pieces that the cuts make of it.
async fn wrap<R: AsyncRead>(mut wire: ReadHalf<R>, to: Arc<Mutex<WriteHalf<DuplexStream>>>, peer: Sender, cuts: Cuts) {
    let mut buffer = vec![0; cuts.0.iter().copied().max().unwrap_or(1)];
    for cut in cuts.0.iter().cycle() {
        let count = wire.read(&mut buffer[..*cut]).await.unwrap_or_default();
        if count == 0 || write(&to, peer, Opcode::Binary, &buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.lock().await.shutdown().await;
}

async fn write(to: &Mutex<WriteHalf<DuplexStream>>, from: Sender, opcode: Opcode, payload: &[u8]) -> std::io::Result<()> {
    let (head, len) = head(from, opcode, payload.len());
    let mut to = to.lock().await;
    to.write_all(&head[..len]).await?;
    to.write_all(payload).await
}
