//! What a slow line between the ends does to bulk and to small messages. Refuses to know who carries them.

use std::time::Instant;

use anyhow::Result;

use super::latency;
use crate::figure::{Figure, Figures};
use crate::lab::{Cell, Sample};
use crate::load::Way;
use crate::process::{memory, reset_peak};

/// One download, then four at once, each after its connections have found the line's capacity.
pub(super) fn bulk(cell: &mut Cell) -> Result<Figures> {
    let rtt = u64::from(cell.line()?.rtt_ms);
    let (warm_up, run) = (200 + 9 * rtt, (6 * rtt).max(1_200));
    let mut figures = Vec::new();
    for (figure, streams) in [(Figure::OneStream, 1), (Figure::FourStreams, 4)] {
        cell.start_bulk(streams, Way::Down, warm_up)?;
        figures.push((figure, cell.window(run)?.throughput()));
        cell.stop()?;
    }
    Ok(figures)
}

/// Pings beside downloads that fill the line.
pub(super) fn shared_line(cell: &mut Cell) -> Result<Figures> {
    let link = cell.line()?.payload();
    cell.start_bulk(4, Way::Down, 2_500)?;
    let start = cell.sample()?;
    let times = cell.ping_steadily(3_000, 10_000)?;
    let bulk = cell.sample()?.since(&start).throughput();
    cell.stop()?;
    let mut figures = latency::figures(times);
    figures.extend([(Figure::Throughput, bulk), (Figure::OfLink, bulk / link * 100.0)]);
    Ok(figures)
}

/// From the connect to the first echo, in units of a round trip on a connection that was there before.
pub(super) fn first_echo(cell: &mut Cell) -> Result<Figures> {
    let path = cell.path_rtt()?;
    let echo = cell.first_echo(5)?;
    cell.stop()?;
    Ok(vec![(Figure::FirstEcho, echo.p50 as f64 / path.p50 as f64)])
}

/// A stream from its start on: over five seconds, and how fast it is once two of them have passed.
pub(super) fn from_start(cell: &mut Cell, way: Way) -> Result<Figures> {
    let (near, far) = (cell.tunnel.near_pids(), cell.tunnel.far_pids());
    reset_peak(&near);
    reset_peak(&far);
    let start = Instant::now();
    let mut samples: Vec<Sample> = vec![cell.sample()?];
    cell.start_bulk(1, way, 0)?;
    for millis in [2_000, 3_000, 5_000] {
        cell.pass_until(start, millis);
        samples.push(cell.sample()?);
    }
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    let peaks = [mib(memory(&near)?.peak), mib(memory(&far)?.peak)];
    cell.stop()?;
    Ok(vec![
        (Figure::Throughput, samples[3].since(&samples[0]).throughput()),
        (Figure::ThroughputEarly, samples[2].since(&samples[1]).throughput()),
        (Figure::NearPeak, peaks[0]),
        (Figure::FarPeak, peaks[1]),
    ])
}
