//! What the measuring process asks of its load processes, one JSON object a line over their standard input and output.
//! Refuses to know how they do it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::service::Service;

/// Which way the bytes of a bulk stream go, as its first byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Way {
    /// Target to client.
    Down,
    /// Client to target.
    Up,
    /// Both at once.
    Both,
}

impl Way {
    /// The first byte a client sends: it tells the target what the connection is for.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Down => b'd',
            Self::Up => b'u',
            Self::Both => b'b',
        }
    }

    /// The way that such a byte asks for; any other byte asks for an echo.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Down, Self::Up, Self::Both].into_iter().find(|way| way.byte() == byte)
    }

    pub(crate) fn is_down(self) -> bool {
        self != Self::Up
    }

    pub(crate) fn is_up(self) -> bool {
        self != Self::Down
    }
}

/// Where an origin server is reached, and what its requests must carry for that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WebEntry {
    pub(crate) to: SocketAddr,
    /// What comes before the origin's own paths.
    pub(crate) prefix: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
}

/// One line to a load process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Be a target at this address.
    Serve { at: SocketAddr, service: Service },
    /// Start bulk streams; answered when bytes flow on each.
    Bulk { to: SocketAddr, streams: usize, way: Way },
    /// The bytes received so far.
    Count,
    /// End all streams.
    Stop,
    /// Send messages one after another and wait for the echo of each; `every_us` apart, or at once when the echo took longer.
    Ping { to: SocketAddr, bytes: usize, run_ms: u64, every_us: u64 },
    /// Send a message every `every_us`, whether or not earlier ones have come back.
    PingSteadily { to: SocketAddr, bytes: usize, run_ms: u64, every_us: u64 },
    /// Connect, send a byte, get it back, close; by so many threads.
    Opens { to: SocketAddr, concurrency: usize, run_ms: u64 },
    /// The same a number of times, each timed from the start of its connect to the echo.
    FirstEcho { to: SocketAddr, times: usize },
    /// Open streams one after another, send and get back `bytes` on each, and keep them open.
    Hold { to: SocketAddr, streams: usize, bytes: usize },
    /// Ask for small answers on so many connections, on each one after another.
    Requests { entry: WebEntry, connections: usize, run_ms: u64 },
    /// Move a body of so many bytes.
    Body { entry: WebEntry, way: Way, bytes: u64 },
    /// Send messages on one stream of HTTP/2 and wait for the echo of each.
    Chat { entry: WebEntry, run_ms: u64 },
    /// Search a directory for one entry after another; with its root's file over TLS.
    Search { to: SocketAddr, root: Option<PathBuf>, run_ms: u64 },
    /// Raise (or lower again) the priority of the threads that ping and echo.
    Urgent { on: bool },
}

/// One line from a load process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// Bytes received: by all, and by each bulk stream of this process. `broken` tells of a stream that ended by itself.
    Counted {
        total: u64,
        streams: Vec<u64>,
        broken: Option<String>,
    },
    Timed(Times),
    Opened {
        opens: u64,
        nanos: u64,
    },
    /// How long each request took, and all of them together.
    Requested {
        nanos: u64,
        times: Times,
    },
    Moved {
        nanos: u64,
    },
    /// How many streams are held, and why not more.
    Held {
        streams: usize,
        stopped: Option<String>,
    },
    Failed(String),
}

/// The distribution of some times, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

impl Times {
    /// None of an empty list.
    pub(crate) fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let last = nanos.len().checked_sub(1)?;
        let at = |part: f64| nanos[((nanos.len() as f64 * part) as usize).min(last)];
        Some(Self { count: nanos.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}
