//! The place of an experiment: a path, a client at its near end, a target at its far end, and one tunnel at a time between.
//! Refuses to know what is asked of them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock;
use crate::directory::Directory;
use crate::load::{Load, Times, Way};
use crate::peer::{Approach, Peer, Programs, Site, Tunnel};
use crate::place::{Place, free_port};
use crate::process;
use crate::service::Service;
use crate::wan::{Line, Wan};

/// How long connections that were cut may take to be gone before the next peer is measured.
const SETTLE: Duration = Duration::from_millis(60);

/// The two ends, their load processes, and the path between.
pub(crate) struct Lab {
    client: Load,
    target: Load,
    site: Site,
    line: Option<Line>,
    _directory: Option<Directory>,
    _wan: Option<Wan>,
}

impl Lab {
    /// Both ends on loopback, or a slow line between them; the target serves what the case needs.
    pub(crate) fn new(line: Option<Line>, service: Service, scratch: &Path, programs: Programs) -> Result<Self> {
        let wan = line.map(Wan::new).transpose()?;
        let (near, far) = match &wan {
            Some(wan) => (wan.near.clone(), wan.far.clone()),
            None => (Place::loopback(), Place::loopback()),
        };
        let directory = match service {
            Service::Directory => Some(Directory::start(&far, &scratch.join("directory"))?),
            Service::Bytes | Service::Http | Service::Stream => None,
        };
        let reach = directory.as_ref().map(|directory| directory.reach.clone());
        let target_port = reach.as_ref().map_or_else(free_port, |reach| reach.tls_port);
        let site = Site { near, far, service, target_port, directory: reach, scratch: scratch.to_owned(), programs };
        let client = Load::start(&site.near, "the client")?;
        let mut target = Load::start(&site.far, "the target")?;
        target.serve((Ipv4Addr::UNSPECIFIED, site.target_port).into(), service)?;
        Ok(Self { client, target, site, line, _directory: directory, _wan: wan })
    }

    /// How long what was cut may take to be gone from the path.
    fn settle(&self, effort: Effort) -> Duration {
        let rtt = self.line.map_or(Duration::ZERO, Line::rtt);
        // One for the cut, one for what is in the queue, and some for what is in the tunnel's buffers.
        SETTLE + rtt * if effort == Effort::Full { 5 } else { 1 }
    }

    /// Brings a tunnel up.
    pub(crate) fn tunnel(&self, peer: Peer) -> Result<Tunnel> {
        peer.start(&self.site)
    }

    /// Ends what a failed measurement has left.
    pub(crate) fn recover(&mut self) {
        let _ = self.client.stop();
        let _ = self.client.urgent(false);
        let _ = self.target.urgent(false);
    }

    /// The tunnel as it is measured now.
    pub(crate) fn cell<'a>(&'a mut self, tunnel: &'a mut Tunnel, effort: Effort) -> Cell<'a> {
        Cell { lab: self, tunnel, effort, notes: Vec::new() }
    }
}

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Long enough for figures that mean something.
    Full,
    /// Only so long that every part has worked once.
    Smoke,
}

impl Effort {
    /// A stretch of time under this effort.
    pub(crate) fn millis(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Smoke => (full / 10).min(150),
        }
    }

    /// A number of things under this effort.
    pub(crate) fn count(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Smoke => full.min(50),
        }
    }
}

/// One peer in one round of one case.
pub(crate) struct Cell<'a> {
    pub(crate) lab: &'a mut Lab,
    pub(crate) tunnel: &'a mut Tunnel,
    pub(crate) effort: Effort,
    /// What is to be told beside the figures.
    pub(crate) notes: Vec<String>,
}

impl Cell<'_> {
    /// Pings through the tunnel.
    pub(crate) fn ping(&mut self, millis: u64, every_us: u64) -> Result<Times> {
        self.lab.client.ping(self.tunnel.entry, self.effort.millis(millis), every_us)
    }

    /// Opens streams through the tunnel: how many, and in how many seconds.
    pub(crate) fn opens(&mut self, concurrency: usize, millis: u64) -> Result<(u64, f64)> {
        self.lab.client.opens(self.tunnel.entry, concurrency, self.effort.millis(millis))
    }

    /// Opens streams until so many are open: how many are, and what stopped it.
    pub(crate) fn hold(&mut self, streams: usize, bytes: usize) -> Result<(usize, Option<String>)> {
        self.lab.client.hold(self.tunnel.entry, streams, bytes)
    }

    /// Pings through the tunnel every so often, whether or not earlier ones have come back.
    pub(crate) fn ping_steadily(&mut self, millis: u64, every_us: u64) -> Result<Times> {
        self.lab.client.ping_steadily(self.tunnel.entry, self.effort.millis(millis), every_us)
    }

    /// Asks for small answers: in how many seconds all came, and how long each took.
    pub(crate) fn requests(&mut self, connections: usize, millis: u64) -> Result<(f64, Times)> {
        self.lab.client.requests(self.tunnel.web_entry(), connections, self.effort.millis(millis))
    }

    /// Moves a body of so many bytes: in how many seconds.
    pub(crate) fn body(&mut self, way: Way, bytes: u64) -> Result<f64> {
        self.lab.client.body(self.tunnel.web_entry(), way, bytes)
    }

    /// Sends messages on one stream of HTTP/2, each after the echo of the last.
    pub(crate) fn chat(&mut self, millis: u64) -> Result<Times> {
        self.lab.client.chat(self.tunnel.web_entry(), self.effort.millis(millis))
    }

    /// Searches the directory for one entry after another, as the tunnel wants it: over TLS, or without.
    pub(crate) fn search(&mut self, millis: u64) -> Result<Times> {
        let root = match &self.tunnel.approach {
            Approach::Tls { root, .. } => Some(root.as_path()),
            Approach::Plain | Approach::Path { .. } => None,
        };
        self.lab.client.search(self.tunnel.entry, root, self.effort.millis(millis))
    }

    /// The same through the tunnel's other entry, without TLS; none where there is no such entry.
    pub(crate) fn search_clear(&mut self, millis: u64) -> Result<Option<Times>> {
        let Approach::Tls { clear, .. } = self.tunnel.approach else { return Ok(None) };
        self.lab.client.search(clear, None, self.effort.millis(millis)).map(Some)
    }

    /// The path's round trip as a ping without any tunnel sees it.
    pub(crate) fn path_rtt(&mut self) -> Result<Times> {
        self.lab.client.ping(self.lab.site.target(), self.effort.millis(300), 0)
    }

    /// Times from a connect to the first echo.
    pub(crate) fn first_echo(&mut self, times: usize) -> Result<Times> {
        self.lab.client.first_echo(self.tunnel.entry, times)
    }

    /// Lets time pass until so many milliseconds after a start.
    pub(crate) fn pass_until(&self, start: Instant, millis: u64) {
        let end = start + Duration::from_millis(self.effort.millis(millis));
        clock::pass(end.saturating_duration_since(Instant::now()));
    }

    /// The slow line between the ends.
    pub(crate) fn line(&self) -> Result<Line> {
        self.lab.line.context("this case has a line")
    }

    /// Adds to what is told beside the figures.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Processor time so far of the near and the far end of the tunnel.
    pub(crate) fn cpu_of_ends(&self) -> Result<[Duration; 2]> {
        Ok([process::cpu(&self.tunnel.near_pids())?, process::cpu(&self.tunnel.far_pids())?])
    }

    /// Processor time of the tunnel so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(&self.tunnel.pids())
    }

    /// Raises (or lowers again) the priority of the threads that ping and echo.
    pub(crate) fn urgent(&mut self, on: bool) -> Result<()> {
        self.lab.client.urgent(on)?;
        self.lab.target.urgent(on)
    }

    /// Starts bulk streams and lets them warm up.
    pub(crate) fn start_bulk(&mut self, streams: usize, way: Way, warm_up_ms: u64) -> Result<()> {
        let start = Instant::now();
        self.lab.client.bulk(self.tunnel.entry, streams, way)?;
        self.pass_until(start, warm_up_ms);
        Ok(())
    }

    /// Ends all streams, and waits until the cut has gone through.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.lab.client.stop()?;
        clock::pass(self.lab.settle(self.effort));
        self.tunnel.check()
    }

    /// Counters now.
    pub(crate) fn sample(&mut self) -> Result<Sample> {
        let cpu = self.cpu()?;
        let (down, streams) = self.lab.client.count().context("the client")?;
        let (up, _) = self.lab.target.count()?;
        Ok(Sample { at: Instant::now(), down, up, streams, cpu })
    }

    /// Counters over a stretch of time from now.
    pub(crate) fn window(&mut self, millis: u64) -> Result<Window> {
        let start = self.sample()?;
        clock::pass(Duration::from_millis(self.effort.millis(millis)));
        Ok(self.sample()?.since(&start))
    }
}

/// Counters at an instant.
pub(crate) struct Sample {
    at: Instant,
    down: u64,
    up: u64,
    streams: Vec<u64>,
    cpu: Duration,
}

impl Sample {
    /// What has happened since an earlier sample.
    pub(crate) fn since(&self, earlier: &Self) -> Window {
        Window {
            seconds: (self.at - earlier.at).as_secs_f64(),
            bytes: (self.down - earlier.down + self.up - earlier.up) as f64,
            streams: self.streams.iter().zip(&earlier.streams).map(|(now, then)| (now - then) as f64).collect(),
            cpu: self.cpu.saturating_sub(earlier.cpu).as_secs_f64(),
        }
    }
}

/// What has happened between two instants.
pub(crate) struct Window {
    /// How long it was.
    pub(crate) seconds: f64,
    /// Payload bytes that arrived, both ways.
    pub(crate) bytes: f64,
    /// Payload bytes that arrived at the client, per stream.
    pub(crate) streams: Vec<f64>,
    /// Processor seconds of the tunnel.
    pub(crate) cpu: f64,
}

impl Window {
    /// In MB/s, of 10^6 bytes.
    pub(crate) fn throughput(&self) -> f64 {
        self.bytes / 1e6 / self.seconds
    }

    /// In seconds per 10^9 bytes.
    pub(crate) fn cpu_per_gb(&self) -> f64 {
        self.cpu / (self.bytes / 1e9)
    }
}
