//! Small target servers inside the test itself, for what real servers cannot be made to do.
//! Refuses to know how their bytes were carried.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use underpass::base::tasks::Tasks;

use super::SOON;

/// A TCP server on loopback that runs one handler per connection; dropped, it and its connections end.
pub(crate) struct Target {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Target {
    pub(crate) async fn start<F, H>(handler: H) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
    {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), handler).await
    }

    /// One on another address of this machine.
    pub(crate) async fn start_at<F, H>(at: IpAddr, handler: H) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
    {
        Self::serve(TcpListener::bind((at, 0)).await.unwrap(), handler)
    }

    /// One with small socket buffers, so that back-pressure shows after few bytes.
    pub(crate) async fn start_small<F, H>(handler: H) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
    {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self::serve(socket.listen(1024).unwrap(), handler)
    }

    fn serve<F, H>(listener: TcpListener, handler: H) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        H: Fn(TcpStream) -> F + Send + Sync + 'static,
    {
        let address = listener.local_addr().unwrap();
        let (tasks, connections) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let (owner, counted) = (tasks.child(), connections.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                // A connection's error is the test's business at the other end.
                owner.spawn(handler(stream));
            }
        });
        Self { address, connections, tasks }
    }

    /// Sends back what it receives, and ends when the client has.
    pub(crate) async fn echo() -> Self {
        Self::echo_at(super::loopback(0)).await
    }

    /// The same at an address.
    pub(crate) async fn echo_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self::serve(listener, |stream| async move {
            let (mut from, mut to) = split(stream);
            copy(&mut from, &mut to).await?;
            to.shutdown().await
        })
    }

    /// Says a line and ends: tells which target answered.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            stream.write_all(name.as_bytes()).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        })
        .await
    }

    /// Sends without end.
    pub(crate) async fn endless() -> Self {
        Self::start(|mut stream| async move {
            let block = pattern(64 * 1024);
            loop {
                stream.write_all(&block).await?;
            }
        })
        .await
    }

    /// Accepts and says nothing until the client ends.
    pub(crate) async fn silent() -> Self {
        Self::start(|mut stream| async move { stream.read_to_end(&mut Vec::new()).await.map(drop) }).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// What a fresh client is told, until it is let go: nothing when it is refused.
pub(crate) async fn told(address: SocketAddr) -> String {
    let mut said = Vec::new();
    // A refusal may be as fast as the connection itself.
    if let Ok(mut client) = TcpStream::connect(address).await {
        let _ = timeout(SOON, client.read_to_end(&mut said)).await.expect("a client is answered or let go");
    }
    String::from_utf8(said).unwrap()
}

/// Sends `bytes` through an echo and checks that they come back, while both directions stay open.
pub(crate) async fn echoes(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (mut from, mut to) = stream.split();
    let mut back = vec![0; bytes.len()];
    let (sent, received) = tokio::join!(to.write_all(bytes), from.read_exact(&mut back));
    sent?;
    received?;
    assert!(back == bytes, "{} bytes came back changed", bytes.len());
    Ok(())
}

/// Whether a fresh client gets its bytes back.
pub(crate) async fn serves(address: SocketAddr) -> bool {
    // A refusal may be as fast as the connection itself.
    let Ok(mut client) = TcpStream::connect(address).await else { return false };
    matches!(timeout(SOON, echoes(&mut client, b"hello")).await, Ok(Ok(())))
}

/// Bytes that repeat after no power of two, so that a lost or doubled buffer shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 65_521) as u8).collect()
}
