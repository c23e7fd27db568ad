//! The run: every case, in rounds, in each round every peer once. Refuses to know what a case does and who the peers are.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::case::Case;
use crate::figure::Figures;
use crate::lab::{Effort, Lab};
use crate::peer::{Peer, Tunnel};
use crate::record::{Record, Records};

/// What to measure.
pub(crate) struct Plan<'a> {
    pub(crate) cases: Vec<&'static Case>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: usize,
    pub(crate) effort: Effort,
    /// The product's program.
    pub(crate) underpass: &'a Path,
}

impl Plan<'_> {
    /// Measures everything.
    ///
    /// # Errors
    /// When the harness itself fails; a peer that fails is noted.
    pub(crate) fn run(&self) -> Result<Records> {
        let scratch = tempfile::Builder::new().prefix("underpass-bench-").tempdir()?;
        let mut records = Records::default();
        let mut progress = Progress::new(self);
        for case in &self.cases {
            self.run_case(case, scratch.path(), &mut records, &mut progress).with_context(|| case.name)?;
        }
        progress.end();
        Ok(records)
    }

    fn run_case(&self, case: &'static Case, scratch: &Path, records: &mut Records, progress: &mut Progress) -> Result<()> {
        let mut lab = Lab::on_loopback(scratch, self.underpass.to_owned())?;
        let mut seats: Vec<_> = self.peers_of(case).map(|peer| Seat { peer, tunnel: None, failures: 0 }).collect();
        for round in 1..=self.rounds {
            for seat in &mut seats {
                progress.show(case, seat.peer, round, self.rounds);
                match seat.measure(case, &mut lab, self.effort) {
                    Ok(Some(figures)) => records.records.push(Record {
                        case: case.name.to_owned(),
                        peer: seat.peer,
                        round,
                        figures: figures.into_iter().collect(),
                    }),
                    Ok(None) => {}
                    Err(error) => records.note(case.name, seat.peer, format!("{error:#}")),
                }
                progress.advance(case);
            }
        }
        Ok(())
    }

    fn peers_of(&self, case: &Case) -> impl Iterator<Item = Peer> {
        self.peers.iter().copied().filter(|peer| !case.without.contains(peer))
    }

    fn seconds(&self) -> f64 {
        self.cases.iter().map(|case| case.seconds * (self.peers_of(case).count() * self.rounds) as f64).sum()
    }
}

/// A peer during a case: its tunnel stays up over the rounds.
struct Seat {
    peer: Peer,
    tunnel: Option<Tunnel>,
    failures: usize,
}

impl Seat {
    /// A peer that has failed is started anew; one that fails twice is left out from then on.
    fn measure(&mut self, case: &Case, lab: &mut Lab, effort: Effort) -> Result<Option<Figures>> {
        if self.failures == 2 {
            return Ok(None);
        }
        let figures = self.try_measure(case, lab, effort);
        if figures.is_err() {
            self.failures += 1;
            self.tunnel = None;
            lab.recover();
        }
        figures.map(Some)
    }

    fn try_measure(&mut self, case: &Case, lab: &mut Lab, effort: Effort) -> Result<Figures> {
        if self.tunnel.is_none() {
            self.tunnel = Some(lab.tunnel(self.peer)?);
        }
        let tunnel = self.tunnel.as_mut().context("the tunnel was made")?;
        (case.measure)(&mut lab.cell(tunnel, effort))
    }
}

/// Says how far the run is, and how long it may take.
struct Progress {
    start: Instant,
    /// Seconds that the estimates give for all cells, and for those that are done.
    all: f64,
    done: f64,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        Self { start: Instant::now(), all: plan.seconds(), done: 0.0 }
    }

    fn show(&self, case: &Case, peer: Peer, round: usize, rounds: usize) {
        // The estimates are corrected by how long what is done has really taken.
        let pace = if self.done > 10.0 { self.start.elapsed().as_secs_f64() / self.done } else { 1.1 };
        let left = (self.all - self.done) * pace;
        let left = if left > 90.0 { format!("{:.0} min", left / 60.0) } else { format!("{left:.0} s") };
        eprint!("\r\x1b[Kround {round}/{rounds} · {} · {} · {left} left ", case.name, peer.name());
    }

    fn advance(&mut self, case: &Case) {
        self.done += case.seconds;
    }

    fn end(&self) {
        eprintln!("\r\x1b[Kmeasured for {:.0} s", self.start.elapsed().as_secs_f64());
    }
}
