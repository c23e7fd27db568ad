//! Bulk streams on loopback. Refuses to know who carries them.

use anyhow::Result;

use crate::figure::{Figure, Figures};
use crate::lab::Cell;
use crate::load::Way;

/// Bytes per second and processor time per byte of some streams.
pub(super) fn bulk(cell: &mut Cell, streams: usize, way: Way) -> Result<Figures> {
    cell.start_bulk(streams, way, 300)?;
    let window = cell.window(1_300)?;
    cell.stop()?;
    Ok(vec![(Figure::Throughput, window.throughput()), (Figure::CpuPerGb, window.cpu_per_gb())])
}

/// The slowest of equal streams over the fastest.
pub(super) fn fairness(cell: &mut Cell, streams: usize) -> Result<Figures> {
    cell.start_bulk(streams, Way::Down, 300)?;
    // Long enough for the kernel's scheduler to be fair to the load's own threads.
    let window = cell.window(2_400)?;
    cell.stop()?;
    let slowest = window.streams.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = window.streams.iter().copied().fold(0.0, f64::max);
    Ok(vec![(Figure::Throughput, window.throughput()), (Figure::Fairness, slowest / fastest)])
}
