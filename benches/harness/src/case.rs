//! The cases: each a name, what it needs and what it does with one peer in one round. Refuses to know about rounds and goals.

mod directory;
mod http;
mod latency;
mod memory;
mod opens;
mod throughput;
mod wide;

use anyhow::Result;

use crate::figure::Figures;
use crate::lab::Cell;
use crate::load::Way;
use crate::peer::Peer;
use crate::service::Service;
use crate::wan::Line;

/// One experiment.
pub(crate) struct Case {
    /// As it is given to `--case`.
    pub(crate) name: &'static str,
    /// What it measures, in one line.
    pub(crate) about: &'static str,
    /// Seconds that one peer takes in one round.
    pub(crate) seconds: f64,
    /// The slow line between the ends; without one they are on loopback.
    pub(crate) line: Option<Line>,
    /// What the target serves.
    pub(crate) service: Service,
    /// Which of the peers that carry the service are measured.
    includes: fn(Peer) -> bool,
    /// Whether each round needs a new tunnel.
    pub(crate) fresh: bool,
    /// One peer in one round.
    pub(crate) measure: fn(&mut Cell) -> Result<Figures>,
}

impl Case {
    /// Whether a peer is measured: some can't be, some needn't.
    pub(crate) fn measures(&self, peer: Peer) -> bool {
        peer.carries(self.service) && (self.includes)(peer)
    }
}

const CASE: Case = Case {
    name: "",
    about: "",
    seconds: 1.7,
    line: None,
    service: Service::Bytes,
    includes: |_| true,
    fresh: false,
    measure: |_| Ok(Vec::new()),
};

/// All cases, in the order of the tables.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "throughput-1-down",
        about: "one bulk stream, target to client",
        measure: |cell| throughput::bulk(cell, 1, Way::Down),
        ..CASE
    },
    Case {
        name: "throughput-1-up",
        about: "one bulk stream, client to target",
        measure: |cell| throughput::bulk(cell, 1, Way::Up),
        ..CASE
    },
    Case {
        name: "throughput-1-both",
        about: "one bulk stream, both ways at once",
        includes: |peer| tunnels(peer) && closest(peer),
        measure: |cell| throughput::bulk(cell, 1, Way::Both),
        ..CASE
    },
    Case {
        name: "throughput-8-down",
        about: "eight bulk streams, target to client",
        includes: core,
        measure: |cell| throughput::bulk(cell, 8, Way::Down),
        ..CASE
    },
    Case {
        name: "throughput-8-up",
        about: "eight bulk streams, client to target",
        includes: |peer| tunnels(peer) && closest(peer),
        measure: |cell| throughput::bulk(cell, 8, Way::Up),
        ..CASE
    },
    Case {
        name: "throughput-8-both",
        about: "eight bulk streams, both ways at once",
        includes: |peer| tunnels(peer) && closest(peer),
        measure: |cell| throughput::bulk(cell, 8, Way::Both),
        ..CASE
    },
    Case {
        name: "idle-latency",
        about: "round trip of 64 bytes, nothing else going on",
        seconds: 1.2,
        includes: core,
        measure: latency::idle,
        ..CASE
    },
    Case {
        name: "latency-under-load",
        about: "round trip of 64 bytes beside four bulk downloads that saturate the machine",
        seconds: 2.9,
        includes: |peer| tunnels(peer) && closest(peer),
        measure: |cell| latency::under_load(cell, 4),
        ..CASE
    },
    Case {
        name: "opens-1",
        about: "streams opened one after another: connect, a byte there and back, close",
        seconds: 1.7,
        includes: |peer| tunnels(peer) && core(peer),
        measure: |cell| opens::opens(cell, 1),
        ..CASE
    },
    Case {
        name: "opens-32",
        about: "the same by 32 threads at once",
        seconds: 1.7,
        includes: |peer| tunnels(peer) && core(peer),
        measure: |cell| opens::opens(cell, 32),
        ..CASE
    },
    Case {
        name: "fairness",
        about: "sixteen equal bulk downloads",
        includes: |peer| tunnels(peer) && closest(peer),
        measure: |cell| throughput::fairness(cell, 16),
        ..CASE
    },
    Case {
        name: "memory",
        about: "5,000 idle streams on which 16 KiB have flowed each way",
        seconds: 7.0,
        includes: |peer| matches!(peer, Peer::Relay | Peer::Underpass),
        fresh: true,
        measure: |cell| memory::idle_streams(cell, 5_000),
        ..CASE
    },
    Case {
        name: "memory-10000",
        about: "10,000 such streams on one tunnel",
        seconds: 5.0,
        includes: |peer| peer == Peer::Underpass,
        fresh: true,
        measure: |cell| memory::idle_streams(cell, 10_000),
        ..CASE
    },
    Case {
        name: "http-requests",
        about: "HTTP/1.1 requests for answers of 128 bytes on 64 connections that are kept, on each one after another",
        service: Service::Http,
        includes: web,
        measure: |cell| http::requests(cell, 64),
        ..CASE
    },
    Case {
        name: "http-requests-1",
        about: "the same on one connection",
        service: Service::Http,
        includes: web,
        measure: |cell| http::requests(cell, 1),
        ..CASE
    },
    Case {
        name: "http-body-down",
        about: "one HTTP answer of 1 GiB",
        seconds: 2.4,
        service: Service::Http,
        includes: web,
        measure: |cell| http::body(cell, Way::Down),
        ..CASE
    },
    Case {
        name: "http-body-up",
        about: "one HTTP request of 1 GiB",
        seconds: 2.4,
        service: Service::Http,
        includes: web,
        measure: |cell| http::body(cell, Way::Up),
        ..CASE
    },
    Case {
        name: "grpc-stream",
        about: "messages of 64 bytes there and back on one stream of HTTP/2, as gRPC has it",
        seconds: 1.2,
        service: Service::Stream,
        includes: web,
        measure: http::chat,
        ..CASE
    },
    Case {
        name: "ldap-search",
        about: "searches for one entry by its uid, one after another on one connection",
        seconds: 2.3,
        service: Service::Directory,
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass | Peer::UnderpassTcp),
        measure: directory::searches,
        ..CASE
    },
    Case {
        name: "wan-20",
        about: "bulk downloads over a line of 1 Gbit/s and 20 ms, with Linux's default buffers",
        seconds: 3.6,
        line: Some(gigabit(20)),
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass),
        measure: wide::bulk,
        ..CASE
    },
    Case {
        name: "wan-80",
        about: "the same at 80 ms",
        seconds: 5.6,
        line: Some(gigabit(80)),
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass),
        measure: wide::bulk,
        ..CASE
    },
    Case {
        name: "wan-200",
        about: "the same at 200 ms",
        seconds: 8.0,
        line: Some(gigabit(200)),
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass),
        measure: wide::bulk,
        ..CASE
    },
    Case {
        name: "wan-100mbit",
        about: "round trip of 64 bytes beside four bulk downloads that fill a line of 100 Mbit/s and 80 ms",
        seconds: 6.5,
        line: Some(Line { rtt_ms: 80, mbit: 100, mtu: 1_500, large_buffers: false }),
        includes: |peer| matches!(peer, Peer::Relay | Peer::Underpass | Peer::Rathole | Peer::Ssh),
        measure: wide::shared_line,
        ..CASE
    },
    Case {
        name: "first-echo-80",
        about: "from the connect to the first echo, in round trips of the path (80 ms)",
        seconds: 1.8,
        line: Some(gigabit(80)),
        includes: core,
        measure: wide::first_echo,
        ..CASE
    },
    Case {
        name: "wan-gbit-down",
        about: "one bulk download from its start over a line of 1 Gbit/s and 80 ms, with buffers that fit it",
        seconds: 6.0,
        line: Some(Line { large_buffers: true, ..gigabit(80) }),
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass),
        measure: |cell| wide::from_start(cell, Way::Down),
        ..CASE
    },
    Case {
        name: "wan-gbit-up",
        about: "the same, an upload",
        seconds: 6.0,
        line: Some(Line { large_buffers: true, ..gigabit(80) }),
        includes: |peer| matches!(peer, Peer::Direct | Peer::Underpass),
        measure: |cell| wide::from_start(cell, Way::Up),
        ..CASE
    },
];

/// Large packets, so that the line's process and the two kernels leave the machine to those who are measured.
const fn gigabit(rtt_ms: u32) -> Line {
    Line { rtt_ms, mbit: 1_000, mtu: 9_000, large_buffers: false }
}

/// Those whom the goals name; the others do what one of these does, or are far from it. A run of everything stays within 40 minutes.
fn core(peer: Peer) -> bool {
    closest(peer) || matches!(peer, Peer::Haproxy | Peer::Rathole)
}

/// Whether there is anything between client and target.
fn tunnels(peer: Peer) -> bool {
    peer != Peer::Direct
}

/// No tunnel at all, the plain relay and this project, and haproxy where it can be compared.
fn closest(peer: Peer) -> bool {
    matches!(peer, Peer::Direct | Peer::Relay | Peer::Underpass | Peer::Haproxy)
}

/// Those who know what HTTP is, and those who show what that costs.
fn web(peer: Peer) -> bool {
    matches!(peer, Peer::Direct | Peer::Underpass | Peer::UnderpassTcp | Peer::Nginx)
}
