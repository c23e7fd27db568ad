//! Searches of a directory. Refuses to know who carries them.

use anyhow::Result;

use super::latency;
use crate::figure::{Figure, Figures};
use crate::lab::Cell;

/// How long one search takes, and the processor time of each end for it; and without TLS, where there is such a way.
pub(super) fn searches(cell: &mut Cell) -> Result<Figures> {
    let before = cell.cpu_of_ends()?;
    let times = cell.search(1_000)?;
    let after = cell.cpu_of_ends()?;
    let clear = cell.search_clear(1_000)?;
    cell.stop()?;
    let micros = |end: usize| (after[end] - before[end]).as_secs_f64() * 1e6 / times.count as f64;
    let mut figures = latency::figures(times);
    figures.extend([(Figure::NearPerRequest, micros(0)), (Figure::FarPerRequest, micros(1))]);
    figures.extend(clear.map(|times| (Figure::P50Clear, times.p50 as f64 / 1e3)));
    Ok(figures)
}
