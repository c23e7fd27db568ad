//! Round trips of small messages, alone and beside bulk. Refuses to know who carries them.

use anyhow::Result;

use crate::figure::{Figure, Figures};
use crate::lab::Cell;
use crate::load::{Times, Way};

/// Between two pings beside bulk: often enough for percentiles, seldom enough to be no load by itself.
pub(super) const PING_EVERY_US: u64 = 1_000;

/// One message after another with nothing beside.
pub(super) fn idle(cell: &mut Cell) -> Result<Figures> {
    Ok(figures(cell.ping(1_000, 0)?))
}

/// Pings while bulk streams saturate the machine, at raised priority at both ends, and what the bulk loses by them.
pub(super) fn under_load(cell: &mut Cell, streams: usize) -> Result<Figures> {
    cell.start_bulk(streams, Way::Down, 300)?;
    let alone = cell.window(800)?.throughput();
    cell.urgent(true)?;
    let start = cell.sample()?;
    let times = cell.ping(1_600, PING_EVERY_US)?;
    let beside = cell.sample()?.since(&start).throughput();
    cell.urgent(false)?;
    cell.stop()?;
    let mut figures = figures(times);
    figures.extend([(Figure::Throughput, beside), (Figure::ThroughputKept, beside / alone * 100.0)]);
    Ok(figures)
}

/// The percentiles of some times.
pub(super) fn figures(times: Times) -> Figures {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    vec![(Figure::P50, micros(times.p50)), (Figure::P99, micros(times.p99)), (Figure::P999, micros(times.p999))]
}
