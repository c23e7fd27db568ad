//! Everything that a run has measured, as it is kept in a file. Refuses to know how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::stats::Spread;

/// One peer in one round of one case.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) case: String,
    pub(crate) peer: Peer,
    pub(crate) round: usize,
    pub(crate) figures: BTreeMap<Figure, f64>,
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) machine: Machine,
    /// How often each peer was measured in each case.
    pub(crate) rounds: usize,
    pub(crate) records: Vec<Record>,
    /// What went otherwise than it should, by case and peer.
    pub(crate) notes: Vec<Note>,
}

/// Why figures are missing or partial.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) case: String,
    pub(crate) peer: Peer,
    pub(crate) text: String,
    /// Whether the measurement failed, in at least one round.
    pub(crate) failed: bool,
}

impl Records {
    /// A figure over the rounds.
    pub(crate) fn spread(&self, case: &str, peer: Peer, figure: Figure) -> Option<Spread> {
        Spread::of(self.values(case, peer, figure).into_values())
    }

    /// A figure beside the baseline's, round by round.
    pub(crate) fn beside(
        &self,
        case: &str,
        peer: Peer,
        baseline: Peer,
        figure: Figure,
        beside: impl Fn(f64, f64) -> f64,
    ) -> Option<Spread> {
        let (own, base) = (self.values(case, peer, figure), self.values(case, baseline, figure));
        Spread::of(own.iter().filter_map(|(round, value)| Some(beside(*value, *base.get(round)?))))
    }

    /// The figures that a case has yielded, in their order.
    pub(crate) fn figures(&self, case: &str) -> Vec<Figure> {
        let mut figures: Vec<_> = self.of(case).flat_map(|record| record.figures.keys().copied()).collect();
        figures.sort_unstable();
        figures.dedup();
        figures
    }

    /// The peers on which a case was measured, in their order.
    pub(crate) fn peers(&self, case: &str) -> Vec<Peer> {
        let mut peers: Vec<_> = self.of(case).map(|record| record.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Adds a note unless it is there.
    pub(crate) fn note(&mut self, case: &str, peer: Peer, text: String, failed: bool) {
        let note = Note { case: case.to_owned(), peer, text, failed };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// As it is kept: a record a line, so that two runs can be compared by their lines.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let lines = |rows: Vec<String>| rows.join(",\n");
        let records = self.records.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let notes = self.notes.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let (machine, rounds) = (serde_json::to_string(&self.machine)?, self.rounds);
        let (records, notes) = (lines(records), lines(notes));
        Ok(format!("{{\"machine\":{machine},\n\"rounds\":{rounds},\n\"records\":[\n{records}],\n\"notes\":[\n{notes}]}}\n"))
    }

    fn of(&self, case: &str) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.case == case)
    }

    fn values(&self, case: &str, peer: Peer, figure: Figure) -> BTreeMap<usize, f64> {
        let own = self.of(case).filter(|record| record.peer == peer);
        own.filter_map(|record| Some((record.round, *record.figures.get(&figure)?))).collect()
    }
}
