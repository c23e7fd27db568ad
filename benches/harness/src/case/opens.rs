//! Streams opened and closed as fast as can be, and the first echo on a new one. Refuses to know who carries them.

use anyhow::Result;

use crate::figure::{Figure, Figures};
use crate::lab::Cell;

/// Opens per second, and what 10,000 of them cost.
pub(super) fn opens(cell: &mut Cell, concurrency: usize) -> Result<Figures> {
    // The first opens of a new tunnel fill its caches.
    cell.opens(concurrency, 100)?;
    let before = cell.cpu()?;
    let (opens, seconds) = cell.opens(concurrency, 1_400)?;
    let cpu = cell.cpu()? - before;
    cell.stop()?;
    let opens = opens as f64;
    Ok(vec![(Figure::OpensPerSecond, opens / seconds), (Figure::CpuPerOpens, cpu.as_secs_f64() / opens * 1e4)])
}
