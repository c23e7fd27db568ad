//! The client's side of every kind of load. Refuses to know through what it connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::bulk::{Stream, Tally};
use super::protocol::{Answer, Times, Way};
use crate::clock;

/// The byte that asks for an echo.
const ECHO: u8 = b'e';

/// Longer than any path needs; without it a stream that hangs would hang the run.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Threads that open streams to be held.
const HOLDERS: usize = 32;

/// What a client has open.
pub(crate) struct Client {
    total: Arc<Tally>,
    bulk: Vec<Stream>,
    held: Vec<TcpStream>,
}

impl Client {
    pub(crate) fn new(total: Arc<Tally>) -> Self {
        Self { total, bulk: Vec::new(), held: Vec::new() }
    }

    pub(crate) fn bulk(&mut self, to: SocketAddr, streams: usize, way: Way) -> Result<()> {
        for _ in 0..streams {
            let mut socket = connect(to)?;
            socket.write_all(&[way.byte()])?;
            self.bulk.push(Stream::start(socket, way.is_down(), way.is_up(), &self.total)?);
        }
        let start = Instant::now();
        while !self.bulk.iter().all(Stream::flows) {
            ensure!(start.elapsed() < PATIENCE, "a bulk stream to {to} moves no bytes");
            clock::pass(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> Answer {
        let ended = self.bulk.iter().position(Stream::has_ended);
        Answer::Counted {
            total: self.total.load(Relaxed),
            streams: self.bulk.iter().map(Stream::received).collect(),
            broken: ended.map(|number| format!("bulk stream {number}")),
        }
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.held.clear();
        self.bulk.drain(..).for_each(Stream::end);
        Ok(())
    }

    /// By many threads, because some peers take long for one.
    pub(crate) fn hold(&mut self, to: SocketAddr, streams: usize, bytes: usize) -> Result<Answer> {
        let wanted = AtomicUsize::new(streams.saturating_sub(self.held.len()));
        let take = || wanted.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        let open = || {
            let (mut held, mut stopped) = (Vec::new(), None);
            while stopped.is_none() && take() {
                match open_and_echo(to, bytes) {
                    Ok(socket) => held.push(socket),
                    Err(error) => stopped = Some(format!("{error:#}")),
                }
            }
            (held, stopped)
        };
        let mut stopped = None;
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..HOLDERS).map(|_| scope.spawn(open)).collect();
            for (held, why) in threads.into_iter().filter_map(|thread| thread.join().ok()) {
                self.held.extend(held);
                stopped = stopped.take().or(why);
            }
        });
        Ok(Answer::Held { streams: self.held.len(), stopped })
    }
}

/// Sends messages and waits for the echo of each.
pub(crate) fn ping(to: SocketAddr, bytes: usize, run_ms: u64, every_us: u64) -> Result<Times> {
    let mut socket = connect(to)?;
    let (message, mut echo) = (vec![ECHO; bytes], vec![0; bytes]);
    let (run, every) = (Duration::from_millis(run_ms), Duration::from_micros(every_us));
    // The first echo includes the opening of the stream, which other figures are about.
    echo_once(&mut socket, &message, &mut echo)?;
    let (mut nanos, start) = (Vec::new(), Instant::now());
    while start.elapsed() < run {
        let sent = Instant::now();
        echo_once(&mut socket, &message, &mut echo)?;
        let took = sent.elapsed();
        nanos.push(took.as_nanos() as u64);
        if took < every {
            clock::pass(every - took);
        }
    }
    Times::of(nanos).context("no ping came back")
}

/// Sends messages at a steady pace by a thread of its own, and times the echo of each.
pub(crate) fn ping_steadily(to: SocketAddr, bytes: usize, run_ms: u64, every_us: u64) -> Result<Times> {
    let mut socket = connect(to)?;
    let (message, mut echo) = (vec![ECHO; bytes], vec![0; bytes]);
    echo_once(&mut socket, &message, &mut echo)?;
    let (mut writer, count, start) = (socket.try_clone()?, run_ms * 1_000 / every_us, Instant::now());
    let sends_at = |number: u64| start + Duration::from_micros(every_us * number);
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || -> Result<()> {
            for number in 0..count {
                clock::pass(sends_at(number).saturating_duration_since(Instant::now()));
                writer.write_all(&message)?;
            }
            Ok(())
        });
        let mut nanos = Vec::new();
        for number in 0..count {
            socket.read_exact(&mut echo).context("waiting for an echo")?;
            // From when it was due, so that a sender that was held up doesn't look fast.
            nanos.push(sends_at(number).elapsed().as_nanos() as u64);
        }
        ensure!(sender.join().is_ok_and(|sent| sent.is_ok()), "pings could not be sent");
        Times::of(nanos).context("no ping came back")
    })
}

/// Opens streams by `concurrency` threads for a time.
pub(crate) fn opens(to: SocketAddr, concurrency: usize, run_ms: u64) -> Result<Answer> {
    let start = Instant::now();
    let end = start + Duration::from_millis(run_ms);
    let count = || -> Result<u64> {
        let mut opens = 0;
        while Instant::now() < end {
            open_and_echo(to, 1)?;
            opens += 1;
        }
        Ok(opens)
    };
    let opens = std::thread::scope(|scope| -> Result<u64> {
        let threads: Vec<_> = (0..concurrency).map(|_| scope.spawn(count)).collect();
        let mut sum = 0;
        for thread in threads {
            let Ok(opens) = thread.join() else { bail!("a thread that opens streams panicked") };
            sum += opens?;
        }
        Ok(sum)
    })?;
    Ok(Answer::Opened { opens, nanos: start.elapsed().as_nanos() as u64 })
}

/// The time from the start of a connect to the first echo.
pub(crate) fn first_echo(to: SocketAddr, times: usize) -> Result<Times> {
    let mut nanos = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        open_and_echo(to, 1)?;
        nanos.push(start.elapsed().as_nanos() as u64);
    }
    Times::of(nanos).context("no echo was asked for")
}

fn open_and_echo(to: SocketAddr, bytes: usize) -> Result<TcpStream> {
    let mut socket = connect(to)?;
    echo_once(&mut socket, &vec![ECHO; bytes], &mut vec![0; bytes])?;
    Ok(socket)
}

fn echo_once(socket: &mut TcpStream, message: &[u8], echo: &mut [u8]) -> Result<()> {
    socket.write_all(message).context("sending")?;
    socket.read_exact(echo).context("waiting for the echo")?;
    ensure!(message == echo, "the echo is not what was sent");
    Ok(())
}

/// A connection whose reads don't wait for ever.
pub(super) fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connecting to {to}"))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}
