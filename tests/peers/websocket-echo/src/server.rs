//! The echo as a server, one task for each connection. Refuses to know frames.

use std::io;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use underpass::tunnel::websocket::Sender;

use crate::{echo, upgrade};

/// Connections at a time: a suite makes one after the other.
const MAX_CONNECTIONS: usize = 64;

/// Serves until accepting fails.
pub(crate) async fn run(listener: TcpListener) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        connections.spawn(serve(stream));
    }
}

/// What goes wrong on a connection is the suite's to see.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let rest = upgrade::server(&mut stream).await?;
    echo::echo(stream, Sender::Client, rest).await
}
