//! The echo as a client of a suite's server, which says how many cases there are and runs each on a connection of its own. Refuses
//! to know frames, and how a case went.

use std::io;

use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use underpass::tunnel::websocket::Sender;

use crate::{echo, upgrade};

/// Runs every case of the server at `ws://HOST:PORT`, then has it write its reports; `tell` is told of each case and why it broke.
pub(crate) async fn run(url: &str, agent: &str, tell: impl Fn(&str)) -> io::Result<()> {
    let host = url.strip_prefix("ws://").ok_or_else(|| io::Error::other("expected ws://HOST:PORT"))?.trim_end_matches('/');
    let count = count(host).await?;
    for case in 1..=count {
        tell(&format!("case {case} of {count}"));
        // A case may end as badly as it likes.
        if let Err(error) = converse(host, &format!("/runCase?case={case}&agent={agent}")).await {
            tell(&error.to_string());
        }
    }
    converse(host, &format!("/updateReports?agent={agent}")).await
}

/// Echoes what comes at a path.
async fn converse(host: &str, path: &str) -> io::Result<()> {
    let mut stream = connect(host).await?;
    let rest = upgrade::client(&mut stream, host, path).await?;
    echo::echo(stream, Sender::Server, rest).await
}

/// The number of cases: a text message, which the product's codec refuses, so another one reads it.
async fn count(host: &str) -> io::Result<u32> {
    let mut stream = connect(host).await?;
    let rest = upgrade::client(&mut stream, host, "/getCaseCount").await?;
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Client, None).await;
    let message = socket.next().await.ok_or(io::ErrorKind::UnexpectedEof)?.map_err(io::Error::other)?;
    let count = message.to_text().map_err(io::Error::other)?;
    count.trim().parse().map_err(|_| io::Error::other(format!("`{count}` is no number of cases")))
}

async fn connect(host: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
