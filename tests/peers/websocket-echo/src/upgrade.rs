//! WebSocket's opening handshake (RFC 6455, 4) of both ends. Unlike a library's it hands on what came right behind it: a suite's
//! server may speak first. Refuses to know frames.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The largest head of a request or an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Answers an upgrade on any path; yields what came behind the request.
pub(crate) async fn server<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) -> io::Result<BytesMut> {
    let (head, rest) = read_head(io).await?;
    accept_async(tokio::io::join(&head[..], io)).await.map_err(io::Error::other)?;
    Ok(rest)
}

/// Asks for an upgrade; yields what came behind the answer.
pub(crate) async fn client<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, host: &str, path: &str) -> io::Result<BytesMut> {
    let key = generate_key();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    let (head, rest) = read_head(io).await?;
    let head = String::from_utf8_lossy(&head);
    let accept = head.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        let found = name.eq_ignore_ascii_case("sec-websocket-accept");
        found.then_some(value.trim())
    });
    if head.starts_with("HTTP/1.1 101 ") && accept == Some(&derive_accept_key(key.as_bytes())) {
        return Ok(rest);
    }
    Err(io::Error::other(format!("not upgraded: {}", head.lines().next().unwrap_or_default())))
}

/// Everything up to the first empty line, and what came with it.
async fn read_head<S: AsyncRead + Unpin>(io: &mut S) -> io::Result<(BytesMut, BytesMut)> {
    let mut head = BytesMut::with_capacity(4096);
    loop {
        if let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            let rest = head.split_off(at + 4);
            return Ok((head, rest));
        }
        if head.len() > MAX_HEAD {
            return Err(io::Error::other("the head is too long"));
        }
        if io.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
