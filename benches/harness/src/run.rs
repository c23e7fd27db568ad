//! The run: every case, in rounds, in each round every peer once. Refuses to know what a case does and who the peers are.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::case::Case;
use crate::figure::Figures;
use crate::lab::{Effort, Lab};
use crate::machine::Machine;
use crate::peer::{Peer, Programs, Tunnel};
use crate::record::{Record, Records};

/// What to measure.
pub(crate) struct Plan {
    pub(crate) cases: Vec<&'static Case>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rounds: usize,
    pub(crate) effort: Effort,
    pub(crate) programs: Programs,
}

impl Plan {
    /// Measures everything.
    ///
    /// # Errors
    /// When it can't begin; a peer or a case that fails is noted.
    pub(crate) fn run(&self, machine: Machine) -> Result<Records> {
        let scratch = tempfile::Builder::new().prefix("underpass-bench-").tempdir()?;
        let mut records = Records { machine, rounds: self.rounds, ..Records::default() };
        let mut progress = Progress::new(self);
        for case in &self.cases {
            if let Err(error) = self.run_case(case, scratch.path(), &mut records, &mut progress) {
                // The other cases' figures are worth having.
                self.peers_of(case).for_each(|peer| records.note(case.name, peer, format!("{error:#}"), true));
            }
        }
        progress.end();
        Ok(records)
    }

    fn run_case(&self, case: &'static Case, scratch: &Path, records: &mut Records, progress: &mut Progress) -> Result<()> {
        let mut lab = Lab::new(case.line, case.service, scratch, self.programs.clone())?;
        let mut seats: Vec<_> = self.peers_of(case).map(|peer| Seat { peer, tunnel: None, failures: 0 }).collect();
        for round in 1..=self.rounds {
            for seat in &mut seats {
                progress.show(case, seat.peer, round, self.rounds);
                let mut notes = Vec::new();
                match seat.measure(case, &mut lab, self.effort, &mut notes) {
                    Ok(Some(figures)) => records.records.push(Record {
                        case: case.name.to_owned(),
                        peer: seat.peer,
                        round,
                        figures: figures
                            .into_iter()
                            .filter(|(figure, _)| seat.peer.is_tunnel() || !figure.is_of_tunnel())
                            .collect(),
                    }),
                    Ok(None) => {}
                    Err(error) => records.note(case.name, seat.peer, format!("{error:#}"), true),
                }
                notes.into_iter().for_each(|note| records.note(case.name, seat.peer, note, false));
                progress.advance(case);
            }
        }
        Ok(())
    }

    fn peers_of(&self, case: &Case) -> impl Iterator<Item = Peer> {
        self.peers.iter().copied().filter(|peer| case.measures(*peer))
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
    fn measure(&mut self, case: &Case, lab: &mut Lab, effort: Effort, notes: &mut Vec<String>) -> Result<Option<Figures>> {
        if self.failures == 2 {
            return Ok(None);
        }
        let figures = self.try_measure(case, lab, effort, notes);
        if figures.is_err() {
            self.failures += 1;
            self.tunnel = None;
            lab.recover();
        }
        figures.map(Some)
    }

    fn try_measure(&mut self, case: &Case, lab: &mut Lab, effort: Effort, notes: &mut Vec<String>) -> Result<Figures> {
        if case.fresh {
            self.tunnel = None;
        }
        let tunnel = match &mut self.tunnel {
            Some(tunnel) => tunnel,
            empty => empty.insert(lab.tunnel(self.peer)?),
        };
        let mut cell = lab.cell(tunnel, effort);
        let figures = (case.measure)(&mut cell);
        notes.append(&mut cell.notes);
        figures
    }
}

/// Says how far the run is, and how long it may take.
struct Progress {
    start: Instant,
    /// Seconds that the estimates give for all cells, and for those that are done.
    all: f64,
    done: f64,
    shown: Option<(&'static str, usize)>,
}

impl Progress {
    fn new(plan: &Plan) -> Self {
        Self { start: Instant::now(), all: plan.seconds(), done: 0.0, shown: None }
    }

    fn show(&mut self, case: &'static Case, peer: Peer, round: usize, rounds: usize) {
        // The estimates are corrected by how long what is done has really taken.
        let pace = if self.done > 10.0 { self.start.elapsed().as_secs_f64() / self.done } else { 1.1 };
        let left = (self.all - self.done) * pace;
        let left = if left > 90.0 { format!("{:.0} min", left / 60.0) } else { format!("{left:.0} s") };
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[Kround {round}/{rounds} · {} · {} · {left} left ", case.name, peer.name());
        } else if self.shown != Some((case.name, round)) {
            // A log file needs no more than this.
            self.shown = Some((case.name, round));
            eprintln!("round {round}/{rounds} · {} · {left} left", case.name);
        }
    }

    fn advance(&mut self, case: &Case) {
        self.done += case.seconds;
    }

    fn end(&self) {
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
        eprintln!("{clear}measured for {:.0} s", self.start.elapsed().as_secs_f64());
    }
}
