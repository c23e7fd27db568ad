//! The cases: each a name, what it needs and what it does with one peer in one round. Refuses to know about rounds and goals.

mod latency;
mod throughput;

use anyhow::Result;

use crate::figure::Figures;
use crate::lab::Cell;
use crate::load::Way;
use crate::peer::Peer;

/// One experiment.
pub(crate) struct Case {
    /// As it is given to `--case`.
    pub(crate) name: &'static str,
    /// What it measures, in one line.
    pub(crate) about: &'static str,
    /// Seconds that one peer takes in one round.
    pub(crate) seconds: f64,
    /// Those that can't or needn't be measured.
    pub(crate) without: &'static [Peer],
    /// One peer in one round.
    pub(crate) measure: fn(&mut Cell) -> Result<Figures>,
}

const CASE: Case = Case { name: "", about: "", seconds: 2.2, without: &[], measure: |_| Ok(Vec::new()) };

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
        measure: |cell| throughput::bulk(cell, 1, Way::Both),
        ..CASE
    },
    Case {
        name: "throughput-8-down",
        about: "eight bulk streams, target to client",
        measure: |cell| throughput::bulk(cell, 8, Way::Down),
        ..CASE
    },
    Case {
        name: "throughput-8-up",
        about: "eight bulk streams, client to target",
        measure: |cell| throughput::bulk(cell, 8, Way::Up),
        ..CASE
    },
    Case {
        name: "throughput-8-both",
        about: "eight bulk streams, both ways at once",
        measure: |cell| throughput::bulk(cell, 8, Way::Both),
        ..CASE
    },
    Case {
        name: "idle-latency",
        about: "round trip of 64 bytes, nothing else going on",
        seconds: 1.2,
        measure: latency::idle,
        ..CASE
    },
];
