//! One thread with epoll that accepts connections and serves all of them, as long as each needs only moments.
//! Refuses to know what is spoken on them.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::Pid;

/// The listener's key among the events; descriptors are smaller.
const LISTENER: u64 = u64::MAX;

/// What is spoken on the connections.
pub(crate) trait Serve: Send + 'static {
    /// What is kept of one connection.
    type Connection: Default;

    /// Called when bytes wait, or the end of a connection. Its sockets don't block; an error ends the connection.
    fn ready(&mut self, connection: &mut Self::Connection, socket: &mut TcpStream) -> io::Result<Next>;
}

/// What becomes of a connection.
pub(crate) enum Next {
    /// It is served again when more waits.
    Keep,
    /// It is over.
    Close,
    /// It takes longer than moments: it gets a thread of its own, and its socket blocks.
    HandOver(Box<dyn FnOnce(TcpStream) + Send>),
}

/// Listens and serves in a thread of its own, whose id it returns.
///
/// # Errors
/// When the address can't be listened on.
pub(crate) fn start<S: Serve>(at: SocketAddr, server: S) -> Result<Pid> {
    let listener = TcpListener::bind(at).with_context(|| format!("listening on {at}"))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let _ = tell.send(rustix::thread::gettid());
        Reactor { epoll, listener, connections: HashMap::new(), server }.run()
    });
    Ok(told.recv()?)
}

struct Reactor<S: Serve> {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: HashMap<u64, (TcpStream, S::Connection)>,
    server: S,
}

impl<S: Serve> Reactor<S> {
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
            self.connections.insert(key, (socket, S::Connection::default()));
            // The first byte has often come along.
            self.serve(key);
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) {
        let Some((socket, connection)) = self.connections.get_mut(&key) else { return };
        match self.server.ready(connection, socket) {
            Ok(Next::Keep) => {}
            Ok(Next::HandOver(work)) => self.hand_over(key, work),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(Next::Close) | Err(_) => drop(self.forget(key)),
        }
    }

    fn hand_over(&mut self, key: u64, work: Box<dyn FnOnce(TcpStream) + Send>) {
        let Some(socket) = self.forget(key) else { return };
        std::thread::spawn(move || {
            if socket.set_nonblocking(false).is_ok() {
                work(socket);
            }
        });
    }

    fn forget(&mut self, key: u64) -> Option<TcpStream> {
        let (socket, _) = self.connections.remove(&key)?;
        let _ = epoll::delete(&self.epoll, socket.as_fd());
        Some(socket)
    }
}
