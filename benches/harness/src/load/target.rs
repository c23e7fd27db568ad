//! The target: accepts connections, and by their first byte echoes or moves bulk. One thread serves all echoes, each bulk
//! stream has its own. Refuses to know through what its clients come.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::Pid;

use super::bulk::{Stream, Tally};
use super::protocol::Way;

/// The listener's key among the events; descriptors are smaller.
const LISTENER: u64 = u64::MAX;

/// What is echoed at a time.
const ECHO_CHUNK: usize = 64 * 1024;

/// A target that listens, or may.
pub(crate) struct Target {
    total: Arc<Tally>,
    echoer: Option<Pid>,
}

impl Target {
    pub(crate) fn new(total: Arc<Tally>) -> Self {
        Self { total, echoer: None }
    }

    /// Listens and serves in a thread of its own.
    pub(crate) fn serve(&mut self, at: SocketAddr) -> Result<()> {
        let listener = TcpListener::bind(at).with_context(|| format!("listening on {at}"))?;
        let echoer = Echoer::new(listener, self.total.clone())?;
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let _ = tell.send(rustix::thread::gettid());
            echoer.run()
        });
        self.echoer = Some(told.recv()?);
        Ok(())
    }

    /// Sets the nice value of the thread that echoes.
    pub(crate) fn urgent(&self, nice: i32) {
        if let Some(thread) = self.echoer {
            let _ = rustix::process::setpriority_process(Some(thread), nice);
        }
    }
}

/// The thread that accepts and echoes.
struct Echoer {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: HashMap<u64, TcpStream>,
    total: Arc<Tally>,
    chunk: Vec<u8>,
}

impl Echoer {
    fn new(listener: TcpListener, total: Arc<Tally>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { epoll, listener, connections: HashMap::new(), total, chunk: vec![0; ECHO_CHUNK] })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    key => self.serve(key),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Ok((socket, _)) = self.listener.accept() {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let key = socket.as_raw_fd() as u64;
            epoll::add(&self.epoll, &socket, EventData::new_u64(key), EventFlags::IN)?;
            self.connections.insert(key, socket);
            // The first byte has often come along.
            self.serve(key);
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) {
        let Some(socket) = self.connections.get_mut(&key) else { return };
        match socket.read(&mut self.chunk) {
            Ok(0) => self.forget(key),
            Ok(bytes) => match Way::from_byte(self.chunk[0]) {
                Some(way) => self.hand_over(key, way),
                None => self.echo(key, bytes),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.forget(key),
        }
    }

    /// Echoes are small and answered one by one, so they always fit into the socket's buffer; what does not is a broken client.
    fn echo(&mut self, key: u64, bytes: usize) {
        let Some(socket) = self.connections.get_mut(&key) else { return };
        if socket.write_all(&self.chunk[..bytes]).is_err() {
            self.forget(key);
        }
    }

    fn hand_over(&mut self, key: u64, way: Way) {
        let Some(socket) = self.connections.remove(&key) else { return };
        let _ = epoll::delete(&self.epoll, &socket);
        let total = self.total.clone();
        std::thread::spawn(move || {
            if socket.set_nonblocking(false).is_ok()
                && let Ok(stream) = Stream::start(socket, way.is_up(), way.is_down(), &total)
            {
                stream.wait();
            }
        });
    }

    fn forget(&mut self, key: u64) {
        if let Some(socket) = self.connections.remove(&key) {
            let _ = epoll::delete(&self.epoll, socket.as_fd());
        }
    }
}
