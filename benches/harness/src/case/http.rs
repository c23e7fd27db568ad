//! Requests, bodies and streams of messages over HTTP. Refuses to know who carries them.

use anyhow::Result;

use super::latency;
use crate::figure::{Figure, Figures};
use crate::lab::{Cell, Effort};
use crate::load::Way;
use crate::process::{memory, reset_peak};

/// Requests per second, how long each takes, and the processor time of each end for one.
pub(super) fn requests(cell: &mut Cell, connections: usize) -> Result<Figures> {
    // Opens the connections between the hops, where they are kept.
    cell.requests(connections, 200)?;
    let before = cell.cpu_of_ends()?;
    let (seconds, times) = cell.requests(connections, 1_400)?;
    let after = cell.cpu_of_ends()?;
    cell.stop()?;
    let micros = |end: usize| (after[end] - before[end]).as_secs_f64() * 1e6 / times.count as f64;
    let mut figures = latency::figures(times);
    figures.extend([
        (Figure::RequestsPerSecond, times.count as f64 / seconds),
        (Figure::NearPerRequest, micros(0)),
        (Figure::FarPerRequest, micros(1)),
    ]);
    Ok(figures)
}

/// Bytes per second, processor time per byte and the highest memory of one body of 1 GiB.
pub(super) fn body(cell: &mut Cell, way: Way) -> Result<Figures> {
    let bytes: u64 = if cell.effort == Effort::Full { 1 << 30 } else { 1 << 24 };
    let (near, far) = (cell.tunnel.near_pids(), cell.tunnel.far_pids());
    reset_peak(&cell.tunnel.pids());
    let before = cell.cpu()?;
    let seconds = cell.body(way, bytes)?;
    let cpu = cell.cpu()? - before;
    let peak = |pids: &[u32]| Ok::<_, anyhow::Error>(memory(pids)?.peak as f64 / 1024.0 / 1024.0);
    let figures = vec![
        (Figure::Throughput, bytes as f64 / 1e6 / seconds),
        (Figure::CpuPerGb, cpu.as_secs_f64() / (bytes as f64 / 1e9)),
        (Figure::NearPeak, peak(&near)?),
        (Figure::FarPeak, peak(&far)?),
    ];
    cell.stop()?;
    Ok(figures)
}

/// How long a message there and back takes.
pub(super) fn chat(cell: &mut Cell) -> Result<Figures> {
    let times = cell.chat(1_000)?;
    cell.stop()?;
    Ok(latency::figures(times))
}
