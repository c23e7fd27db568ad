//! The place of an experiment: a path, a client at its near end, a target at its far end, and one tunnel at a time between.
//! Refuses to know what is asked of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock;
use crate::load::{Load, Way};
use crate::peer::{Peer, Site, Tunnel};
use crate::place::{Place, free_port};
use crate::process;

/// How long connections that were cut may take to be gone before the next peer is measured.
const SETTLE: Duration = Duration::from_millis(60);

/// The two ends and their load processes.
pub(crate) struct Lab {
    site: Site,
    client: Load,
    target: Load,
}

impl Lab {
    /// Both ends on loopback.
    pub(crate) fn on_loopback(scratch: &Path, underpass: PathBuf) -> Result<Self> {
        let (near, far) = (Place::loopback(), Place::loopback());
        let site = Site { near, far, target_port: free_port(), scratch: scratch.to_owned(), underpass };
        let client = Load::start(&site.near, "the client")?;
        let mut target = Load::start(&site.far, "the target")?;
        target.serve((std::net::Ipv4Addr::UNSPECIFIED, site.target_port).into())?;
        Ok(Self { site, client, target })
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
        Cell { lab: self, tunnel, effort }
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
}

impl Cell<'_> {
    /// The client, and where it connects.
    pub(crate) fn client(&mut self) -> (&mut Load, std::net::SocketAddr) {
        (&mut self.lab.client, self.tunnel.entry)
    }

    /// Raises (or lowers again) the priority of the threads that ping and echo.
    pub(crate) fn urgent(&mut self, on: bool) -> Result<()> {
        self.lab.client.urgent(on)?;
        self.lab.target.urgent(on)
    }

    /// Starts bulk streams and lets them warm up.
    pub(crate) fn start_bulk(&mut self, streams: usize, way: Way, warm_up_ms: u64) -> Result<()> {
        self.lab.client.bulk(self.tunnel.entry, streams, way)?;
        clock::pass(Duration::from_millis(self.effort.millis(warm_up_ms)));
        Ok(())
    }

    /// Ends all streams, and waits until the cut has gone through.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.lab.client.stop()?;
        clock::pass(SETTLE);
        self.tunnel.check()
    }

    /// Counters now.
    pub(crate) fn sample(&mut self) -> Result<Sample> {
        let pids: Vec<_> = self.tunnel.near_pids().into_iter().chain(self.tunnel.far_pids()).collect();
        let cpu = process::cpu(&pids)?;
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
