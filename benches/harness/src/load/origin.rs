//! The origin server: HTTP/1.1 with small answers by one thread, and large bodies by a thread for each connection.
//! Refuses to know through what its requests come.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use anyhow::Result;

use super::head::Asked;
use super::reactor::{Next, Serve};

/// What a small answer carries, in bytes.
const SMALL: usize = 128;

/// One read of a request. Requests without a body are smaller.
const HEAD_CHUNK: usize = 16 * 1024;

/// One read or write of a body. Large, so that the load generator's own cost is small.
const BODY_CHUNK: usize = 256 * 1024;

/// Serves all connections.
pub(crate) struct Origin {
    chunk: Vec<u8>,
    small: Vec<u8>,
}

impl Default for Origin {
    fn default() -> Self {
        let small = [head(SMALL as u64).as_bytes(), &[b'x'; SMALL]].concat();
        Self { chunk: vec![0; HEAD_CHUNK], small }
    }
}

impl Serve for Origin {
    /// What has come of a head that is not whole.
    type Connection = Vec<u8>;

    fn ready(&mut self, waiting: &mut Vec<u8>, socket: &mut TcpStream) -> io::Result<Next> {
        let bytes = socket.read(&mut self.chunk)?;
        if bytes == 0 {
            return Ok(Next::Close);
        }
        waiting.extend_from_slice(&self.chunk[..bytes]);
        match Asked::parse(waiting).map_err(io::Error::other)? {
            None => Ok(Next::Keep),
            // An answer is small and the next request comes after it, so that it fits into the socket's buffer.
            Some((Asked::Small, _)) => {
                waiting.clear();
                let fits = socket.write_all(&self.small).is_ok();
                Ok(if fits { Next::Keep } else { Next::Close })
            }
            Some(_) => {
                let (waiting, small) = (std::mem::take(waiting), self.small.clone());
                // An error is the other side's way to end the connection.
                Ok(Next::HandOver(Box::new(move |socket| drop(serve_bodies(socket, waiting, &small)))))
            }
        }
    }
}

/// Serves a connection from a request for a large body on to its end.
fn serve_bodies(mut socket: TcpStream, mut waiting: Vec<u8>, small: &[u8]) -> Result<()> {
    let mut chunk: Vec<u8> = (0..BODY_CHUNK).map(|at| (at * 31 % 251) as u8).collect();
    loop {
        match Asked::parse(&waiting)? {
            None => {
                let bytes = socket.read(&mut chunk)?;
                if bytes == 0 {
                    return Ok(());
                }
                waiting.extend_from_slice(&chunk[..bytes]);
                continue;
            }
            Some((Asked::Small, _)) => socket.write_all(small)?,
            Some((Asked::Download(bytes), _)) => {
                socket.write_all(head(bytes).as_bytes())?;
                send(&mut socket, bytes, &chunk)?;
            }
            Some((Asked::Upload(bytes), head)) => {
                receive(&mut socket, bytes - (waiting.len() - head) as u64, &mut chunk)?;
                socket.write_all(small)?;
            }
        }
        waiting.clear();
    }
}

/// Writes a chunk again and again until so many bytes are sent.
pub(crate) fn send(socket: &mut TcpStream, mut bytes: u64, chunk: &[u8]) -> io::Result<()> {
    while bytes > 0 {
        let part = chunk.len().min(bytes as usize);
        socket.write_all(&chunk[..part])?;
        bytes -= part as u64;
    }
    Ok(())
}

/// Reads so many bytes.
pub(crate) fn receive(socket: &mut TcpStream, mut bytes: u64, chunk: &mut [u8]) -> io::Result<()> {
    while bytes > 0 {
        let part = chunk.len().min(bytes as usize);
        let read = socket.read(&mut chunk[..part])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes -= read as u64;
    }
    Ok(())
}

fn head(bytes: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n")
}
