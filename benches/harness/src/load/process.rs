//! A load process as the measuring process holds it: started, asked, ended. Refuses to know what the asks do.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, bail};

use super::protocol::{Answer, Ask, Times, Way, WebEntry};
use crate::place::Place;
use crate::process::Process;
use crate::service::Service;

/// A running load process.
pub(crate) struct Load {
    _process: Process,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Load {
    /// Starts one; its name is for error messages.
    pub(crate) fn start(place: &Place, name: &str) -> Result<Self> {
        let mut command = place.own_program(&["load"])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(name, command)?;
        let (asks, answers) = process.pipes().context("a load process has pipes")?;
        Ok(Self { _process: process, asks, answers: BufReader::new(answers) })
    }

    pub(crate) fn serve(&mut self, at: SocketAddr, service: Service) -> Result<()> {
        self.done(&Ask::Serve { at, service })
    }

    pub(crate) fn bulk(&mut self, to: SocketAddr, streams: usize, way: Way) -> Result<()> {
        self.done(&Ask::Bulk { to, streams, way })
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.done(&Ask::Stop)
    }

    pub(crate) fn urgent(&mut self, on: bool) -> Result<()> {
        self.done(&Ask::Urgent { on })
    }

    /// Bytes received so far: all, and by each bulk stream. An error once a bulk stream has ended by itself.
    pub(crate) fn count(&mut self) -> Result<(u64, Vec<u64>)> {
        match self.ask(&Ask::Count)? {
            Answer::Counted { broken: Some(why), .. } => bail!("a stream ended by itself: {why}"),
            Answer::Counted { total, streams, .. } => Ok((total, streams)),
            other => unexpected(&other),
        }
    }

    pub(crate) fn ping(&mut self, to: SocketAddr, run_ms: u64, every_us: u64) -> Result<Times> {
        self.timed(&Ask::Ping { to, bytes: 64, run_ms, every_us })
    }

    pub(crate) fn ping_steadily(&mut self, to: SocketAddr, run_ms: u64, every_us: u64) -> Result<Times> {
        self.timed(&Ask::PingSteadily { to, bytes: 64, run_ms, every_us })
    }

    pub(crate) fn first_echo(&mut self, to: SocketAddr, times: usize) -> Result<Times> {
        self.timed(&Ask::FirstEcho { to, times })
    }

    /// How many opens, and in how many seconds.
    pub(crate) fn opens(&mut self, to: SocketAddr, concurrency: usize, run_ms: u64) -> Result<(u64, f64)> {
        match self.ask(&Ask::Opens { to, concurrency, run_ms })? {
            Answer::Opened { opens, nanos } => Ok((opens, nanos as f64 / 1e9)),
            other => unexpected(&other),
        }
    }

    /// How many streams are held now, and what stopped it before `streams`.
    pub(crate) fn hold(&mut self, to: SocketAddr, streams: usize, bytes: usize) -> Result<(usize, Option<String>)> {
        match self.ask(&Ask::Hold { to, streams, bytes })? {
            Answer::Held { streams, stopped } => Ok((streams, stopped)),
            other => unexpected(&other),
        }
    }

    /// In how many seconds all requests were answered, and how long each took.
    pub(crate) fn requests(&mut self, entry: WebEntry, connections: usize, run_ms: u64) -> Result<(f64, Times)> {
        match self.ask(&Ask::Requests { entry, connections, run_ms })? {
            Answer::Requested { nanos, times } => Ok((nanos as f64 / 1e9, times)),
            other => unexpected(&other),
        }
    }

    /// In how many seconds a body of so many bytes was moved.
    pub(crate) fn body(&mut self, entry: WebEntry, way: Way, bytes: u64) -> Result<f64> {
        match self.ask(&Ask::Body { entry, way, bytes })? {
            Answer::Moved { nanos } => Ok(nanos as f64 / 1e9),
            other => unexpected(&other),
        }
    }

    pub(crate) fn chat(&mut self, entry: WebEntry, run_ms: u64) -> Result<Times> {
        self.timed(&Ask::Chat { entry, run_ms })
    }

    pub(crate) fn search(&mut self, to: SocketAddr, root: Option<&Path>, run_ms: u64) -> Result<Times> {
        self.timed(&Ask::Search { to, root: root.map(Path::to_owned), run_ms })
    }

    fn done(&mut self, ask: &Ask) -> Result<()> {
        match self.ask(ask)? {
            Answer::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    fn timed(&mut self, ask: &Ask) -> Result<Times> {
        match self.ask(ask)? {
            Answer::Timed(times) => Ok(times),
            other => unexpected(&other),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Answer> {
        writeln!(self.asks, "{}", serde_json::to_string(ask)?).context("the load process has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match serde_json::from_str(&line).with_context(|| format!("the load process ended at {ask:?}"))? {
            Answer::Failed(why) => bail!("{why}"),
            answer => Ok(answer),
        }
    }
}

fn unexpected<T>(answer: &Answer) -> Result<T> {
    bail!("the load process answered {answer:?}")
}
