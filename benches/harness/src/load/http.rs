//! The client of an HTTP/1.1 origin: many requests for small answers by one thread, and one large body. Refuses to know
//! through what it connects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::client::{PATIENCE, connect};
use super::head::Answered;
use super::origin::{receive, send};
use super::protocol::{Answer, Times, Way, WebEntry};

/// One read of an answer; small answers are smaller.
const CHUNK: usize = 16 * 1024;

/// One read or write of a large body.
const BODY_CHUNK: usize = 256 * 1024;

/// Asks for small answers on so many connections, on each one after another, for a time.
pub(crate) fn requests(entry: &WebEntry, connections: usize, run_ms: u64) -> Result<Answer> {
    let request = head(entry, "GET", "/small", None);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut callers = Vec::new();
    for number in 0..connections {
        let caller = Caller { socket: connect(entry.to)?, sent: Instant::now(), waiting: Vec::new() };
        caller.socket.set_nonblocking(true)?;
        epoll::add(&epoll, &caller.socket, EventData::new_u64(number as u64), EventFlags::IN)?;
        callers.push(caller);
    }
    let start = Instant::now();
    let end = start + Duration::from_millis(run_ms);
    callers.iter_mut().try_for_each(|caller| caller.send(&request))?;
    let (mut open, mut nanos, mut chunk, mut events) = (connections, Vec::new(), vec![0; CHUNK], Vec::with_capacity(256));
    while open > 0 {
        events.clear();
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience))?;
        ensure!(!events.is_empty(), "no answer within {PATIENCE:?}");
        for event in &events {
            let caller = &mut callers[event.data.u64() as usize];
            if !caller.receive(&mut chunk)? {
                continue;
            }
            let now = Instant::now();
            nanos.push((now - caller.sent).as_nanos() as u64);
            if now < end {
                caller.send(&request)?;
            } else {
                open -= 1;
            }
        }
    }
    let took = start.elapsed().as_nanos() as u64;
    Ok(Answer::Requested { nanos: took, times: Times::of(nanos).context("no answer came")? })
}

/// Moves a body of so many bytes, and says how many nanoseconds it took from the request to the last byte (down) or to the
/// answer that follows it (up).
pub(crate) fn body(entry: &WebEntry, way: Way, bytes: u64) -> Result<u64> {
    let mut socket = connect(entry.to)?;
    let mut chunk = vec![b'x'; BODY_CHUNK];
    let start = Instant::now();
    match way {
        Way::Down => socket.write_all(&head(entry, "GET", &format!("/bytes/{bytes}"), None))?,
        Way::Up => {
            socket.write_all(&head(entry, "PUT", "/sink", Some(bytes)))?;
            // One who refuses closes before all is sent, and its answer says why.
            let sent = send(&mut socket, bytes, &chunk);
            if let Err(error) = sent {
                answer(&mut socket, &mut chunk).with_context(|| format!("while sending: {error}"))?;
                bail!("an answer came before the request's end: {error}");
            }
        }
        Way::Both => bail!("a body goes one way"),
    }
    let left = answer(&mut socket, &mut chunk)?;
    receive(&mut socket, left, &mut chunk).context("reading the body")?;
    Ok(start.elapsed().as_nanos() as u64)
}

/// A connection that asks.
struct Caller {
    socket: TcpStream,
    sent: Instant,
    waiting: Vec<u8>,
}

impl Caller {
    fn send(&mut self, request: &[u8]) -> Result<()> {
        self.sent = Instant::now();
        self.socket.write_all(request).context("sending a request")
    }

    /// Whether the answer is whole.
    fn receive(&mut self, chunk: &mut [u8]) -> Result<bool> {
        let bytes = self.socket.read(chunk).context("reading an answer")?;
        ensure!(bytes > 0, "the connection ended instead of an answer");
        self.waiting.extend_from_slice(&chunk[..bytes]);
        let Some(answered) = Answered::parse(&self.waiting)? else { return Ok(false) };
        ensure!(self.waiting.len() as u64 <= answered.whole(), "more than one answer");
        let whole = self.waiting.len() as u64 == answered.whole();
        if whole {
            self.waiting.clear();
        }
        Ok(whole)
    }
}

/// Reads an answer's head, and returns how much of its body is still to come.
fn answer(socket: &mut TcpStream, chunk: &mut [u8]) -> Result<u64> {
    let mut waiting = Vec::new();
    loop {
        let bytes = socket.read(chunk).context("reading an answer")?;
        ensure!(bytes > 0, "the connection ended instead of an answer");
        waiting.extend_from_slice(&chunk[..bytes]);
        if let Some(answered) = Answered::parse(&waiting)? {
            return Ok(answered.whole() - waiting.len() as u64);
        }
    }
}

/// A request's head.
fn head(entry: &WebEntry, method: &str, path: &str, length: Option<u64>) -> Vec<u8> {
    let WebEntry { to, prefix, token } = entry;
    let token = token.as_ref().map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
    format!("{method} {prefix}{path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: bench\r\nAccept: */*\r\n{token}{length}\r\n")
        .into_bytes()
}
