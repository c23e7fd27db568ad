//! A bulk stream: threads that write as fast as they can, threads that read and count. Either end of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

/// Bytes received, by whatever counts them together.
pub(crate) type Tally = AtomicU64;

/// One read or write. Large, so that the load generator's own cost is small.
const CHUNK: usize = 256 * 1024;

/// One end of a stream with its threads.
pub(crate) struct Stream {
    socket: TcpStream,
    received: Arc<Tally>,
    sent: Arc<Tally>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Stream {
    /// Starts the threads; `total` counts what is received beside the stream's own count.
    pub(crate) fn start(socket: TcpStream, receives: bool, sends: bool, total: &Arc<Tally>) -> io::Result<Self> {
        let (received, sent) = (Arc::new(Tally::default()), Arc::new(Tally::default()));
        let mut threads = Vec::new();
        if receives {
            let (socket, total, own) = (socket.try_clone()?, total.clone(), received.clone());
            threads.push(spawn(move || read_all(&socket, &total, &own))?);
        }
        if sends {
            let (socket, own) = (socket.try_clone()?, sent.clone());
            threads.push(spawn(move || write_on(&socket, &own))?);
        }
        Ok(Self { socket, received, sent, threads })
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Whether bytes have moved at all.
    pub(crate) fn flows(&self) -> bool {
        self.received() > 0 || self.sent.load(Relaxed) > 0
    }

    /// Whether a thread has ended although nobody asked for it.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Cuts the connection and waits for the threads, which meet an error or an end by that.
    pub(crate) fn end(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in self.threads {
            let _ = thread.join();
        }
    }

    /// Waits until the peer ends the stream.
    pub(crate) fn wait(self) {
        for thread in self.threads {
            // An error is the peer's way to end an upload.
            let _ = thread.join();
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }
}

fn spawn(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().stack_size(64 * 1024).spawn(work)
}

fn read_all(mut socket: &TcpStream, total: &Tally, own: &Tally) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let bytes = socket.read(&mut chunk)?;
        if bytes == 0 {
            return Ok(());
        }
        total.fetch_add(bytes as u64, Relaxed);
        own.fetch_add(bytes as u64, Relaxed);
    }
}

fn write_on(mut socket: &TcpStream, own: &Tally) -> io::Result<()> {
    let chunk: Vec<u8> = (0..CHUNK).map(|at| (at * 31 % 251) as u8).collect();
    loop {
        own.fetch_add(socket.write(&chunk)? as u64, Relaxed);
    }
}
