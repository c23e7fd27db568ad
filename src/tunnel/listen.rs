//! One accept loop for every listener: a cap on connections, a pause when descriptors run out, single failed sockets passed
//! over, handshakes off the loop, under a deadline and a cap of their own that sources share, every task owned, and a drain.
//! It refuses to know what is spoken on a connection.

mod places;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::base::code::{Code, Failure, OrFail};
use crate::base::drain::Drain;
use crate::base::limits::{
    HANDSHAKE_DEADLINE, HANDSHAKE_SHARES, HANDSHAKES_WAITING, MAX_CONNECTIONS, MAX_HANDSHAKES, TCP_KEEPALIVE,
    TCP_NOTSENT_LOWAT, TCP_USER_TIMEOUT,
};
use crate::base::tasks::Tasks;
use crate::observe::metrics;
use places::Places;

/// Connections the kernel keeps for us while we are busy; the usual `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The pause after running out of descriptors: long enough not to spin, short enough not to be noticed.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Without running out again for this long, it is over.
const EXHAUSTED_OVER: Duration = Duration::from_secs(1);

/// How many connections a listener serves, and how many of them may still be in their handshake.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// All connections.
    pub connections: usize,
    /// Those not yet through their handshake.
    pub handshakes: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { connections: MAX_CONNECTIONS, handshakes: MAX_HANDSHAKES }
    }
}

/// What a listener does with a connection.
pub trait Service<Io: Send, Peer: Send>: Send + Sync + 'static {
    /// What a handshake yields.
    type Ready: Send;

    /// Whether this peer may connect at all; asked on the loop, so it must not wait.
    fn admits(&self, peer: &Peer) -> bool;

    /// What comes before all else, such as a balancer's word about where a connection comes from; `None` for one that is let go, which
    /// has been reported.
    fn arrive(&self, io: Io, peer: Peer) -> impl Future<Output = Option<(Io, Peer)>> + Send {
        std::future::ready(Some((io, peer)))
    }

    /// Whose share of the handshakes this peer's counts against; none for a peer behind which are many.
    fn source(&self, peer: &Peer) -> Option<IpAddr>;

    /// Everything before the connection is known: TLS, upgrade, login. Dropped at the deadline; it reports its own failures.
    fn handshake(&self, io: Io, peer: Peer) -> impl Future<Output = Option<Self::Ready>> + Send;

    /// The connection's life. Runs on when the listener drains.
    fn serve(&self, ready: Self::Ready) -> impl Future<Output = ()> + Send;

    /// A handshake ran into the deadline.
    fn timed_out(&self, peer: Peer);

    /// So many of this peer's source wait for their handshake, or for so long, that it was let go.
    fn crowded(&self, peer: Peer);
}

/// What can be accepted from.
pub trait Acceptor: Send + 'static {
    /// A connection.
    type Io: Send + 'static;
    /// Who is at its other end.
    type Peer: Clone + Send + 'static;

    /// The next connection.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;
}

/// Opens a listening TCP socket.
///
/// # Errors
/// `listen_failed`, naming the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        // Accepted connections inherit it, at no cost to each.
        set_up(SockRef::from(&socket));
        TcpListener::from_std(socket.into())
    };
    open().or_fail(Code::ListenFailed, format_args!("listening on {address}"))
}

/// Sets what every TCP connection of ours has: no delay of small writes, and keep-alive.
pub fn prepare(stream: &TcpStream) {
    set_up(SockRef::from(stream));
}

/// Sets what a tunnel's connection has beside: an end when the peer acknowledges nothing, and a short queue of what the kernel has
/// not sent yet, behind which an urgent frame would wait.
pub fn prepare_tunnel(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
    let _ = socket.set_tcp_notsent_lowat(TCP_NOTSENT_LOWAT);
}

/// Says whether closing a connection resets it, which its peer can't take for an end of file.
pub fn reset_on_close(stream: &TcpStream, reset: bool) {
    let _ = SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO));
}

fn set_up(socket: SockRef<'_>) {
    let _ = socket.set_tcp_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE / 3).with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Accepts until the drain begins. Connections run on as tasks of `tasks`.
pub async fn serve<A, S>(mut listener: A, caps: Caps, service: Arc<S>, drain: Drain, tasks: Tasks)
where
    A: Acceptor,
    S: Service<A::Io, A::Peer>,
{
    let connections = Arc::new(Semaphore::new(caps.connections));
    let places = Places::new(caps.handshakes, (caps.handshakes / HANDSHAKE_SHARES).max(1), HANDSHAKES_WAITING);
    let mut exhaustion = Exhaustion::default();
    loop {
        // The permit first: what we can't serve waits in the kernel's backlog, at no cost to us.
        let accepted = async {
            let slot = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            biased;
            () = drain.begins() => return,
            accepted = accepted => accepted,
        };
        if accepted.is_ok() {
            exhaustion.passed();
        }
        match accepted {
            Ok((io, peer)) if service.admits(&peer) => {
                let (places, service) = (places.clone(), service.clone());
                tasks.spawn(async move {
                    connection(io, peer, &*service, &places).await;
                    drop(slot);
                });
            }
            Ok(_) => {}
            Err(error) if is_exhaustion(&error) => {
                exhaustion.met(&error);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The one connection failed before it was ours.
            Err(error) => tracing::debug!(%error, "a connection was lost before it was accepted"),
        }
    }
}

/// A lack of descriptors, told once when it begins and once when it is over, however often it is met between.
#[derive(Default)]
struct Exhaustion {
    /// When it was first and last met.
    met: Option<(Instant, Instant)>,
}

impl Exhaustion {
    fn met(&mut self, error: &io::Error) {
        let now = Instant::now();
        if self.met.is_none() {
            metrics::accept_paused();
            tracing::warn!(code = %Code::OutOfDescriptors, %error, "accepting pauses: the system has no descriptors or memory left");
        }
        self.met = Some((self.met.map_or(now, |(first, _)| first), now));
    }

    /// A connection was accepted.
    fn passed(&mut self) {
        if let Some((first, last)) = self.met
            && last.elapsed() >= EXHAUSTED_OVER
        {
            self.met = None;
            tracing::info!(seconds = first.elapsed().as_secs(), "accepting goes on");
        }
    }
}

async fn connection<Io: Send, Peer: Clone + Send, S: Service<Io, Peer>>(io: Io, peer: Peer, service: &S, places: &Arc<Places>) {
    let (io, peer) = match tokio::time::timeout(HANDSHAKE_DEADLINE, service.arrive(io, peer.clone())).await {
        Ok(Some(arrived)) => arrived,
        Ok(None) => return,
        Err(_) => return service.timed_out(peer),
    };
    let Ok(Some(place)) = tokio::time::timeout(HANDSHAKE_DEADLINE, places.take(service.source(&peer))).await else {
        return service.crowded(peer);
    };
    let Ok(ready) = tokio::time::timeout(HANDSHAKE_DEADLINE, service.handshake(io, peer.clone())).await else {
        return service.timed_out(peer);
    };
    drop(place);
    if let Some(ready) = ready {
        service.serve(ready).await;
    }
}

/// No descriptor (this process, the system), no buffer space, no memory: the next attempt would fail too.
fn is_exhaustion(error: &io::Error) -> bool {
    let no_buffers = Errno::from_io_error(error) == Some(Errno::NOBUFS);
    error.kind() == io::ErrorKind::OutOfMemory || no_buffers || is_out_of_descriptors(error)
}

/// This process, or the system, has no file descriptor left.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NFILE | Errno::MFILE))
}

impl Acceptor for TcpListener {
    type Io = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())))
    }
}

impl Acceptor for UnixListener {
    type Io = UnixStream;
    /// The user id at the other end.
    type Peer = Option<u32>;

    async fn accept(&mut self) -> io::Result<(UnixStream, Option<u32>)> {
        let (stream, _) = Self::accept(self).await?;
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        Ok((stream, uid))
    }
}

#[cfg(test)]
mod tests;
