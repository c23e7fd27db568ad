//! The target's side of the loads. Refuses to know through what its clients come.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::Result;
use rustix::thread::Pid;

use super::bulk::{Stream, Tally};
use super::origin::Origin;
use super::protocol::Way;
use super::reactor::{self, Next, Serve};
use super::stream;
use crate::service::Service;

/// What is echoed at a time.
const ECHO_CHUNK: usize = 64 * 1024;

/// A target that listens, or may.
pub(crate) struct Target {
    total: Arc<Tally>,
    server: Option<Pid>,
}

impl Target {
    pub(crate) fn new(total: Arc<Tally>) -> Self {
        Self { total, server: None }
    }

    /// Listens and serves in a thread of its own.
    pub(crate) fn serve(&mut self, at: SocketAddr, service: Service) -> Result<()> {
        match service {
            Service::Bytes => self.server = Some(reactor::start(at, Echo::new(self.total.clone()))?),
            Service::Http => self.server = Some(reactor::start(at, Origin::default())?),
            Service::Stream => stream::serve(at)?,
            // A program of its own.
            Service::Directory => {}
        }
        Ok(())
    }

    /// Sets the nice value of the thread that serves.
    pub(crate) fn urgent(&self, nice: i32) {
        if let Some(thread) = self.server {
            let _ = rustix::process::setpriority_process(Some(thread), nice);
        }
    }
}

/// Echoes what comes, unless the first byte asks for bulk.
struct Echo {
    total: Arc<Tally>,
    chunk: Vec<u8>,
}

impl Echo {
    fn new(total: Arc<Tally>) -> Self {
        Self { total, chunk: vec![0; ECHO_CHUNK] }
    }

    fn bulk(&self, way: Way) -> Next {
        let total = self.total.clone();
        Next::HandOver(Box::new(move |socket| {
            if let Ok(stream) = Stream::start(socket, way.is_up(), way.is_down(), &total) {
                stream.wait();
            }
        }))
    }
}

impl Serve for Echo {
    type Connection = ();

    fn ready(&mut self, (): &mut (), socket: &mut TcpStream) -> io::Result<Next> {
        let bytes = socket.read(&mut self.chunk)?;
        if bytes == 0 {
            return Ok(Next::Close);
        }
        if let Some(way) = Way::from_byte(self.chunk[0]) {
            return Ok(self.bulk(way));
        }
        // Echoes are small and answered one by one, so they always fit into the socket's buffer; what does not is a broken client.
        let fits = socket.write_all(&self.chunk[..bytes]).is_ok();
        Ok(if fits { Next::Keep } else { Next::Close })
    }
}
