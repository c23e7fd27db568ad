//! What idle streams hold in memory. Refuses to know who carries them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock;
use crate::figure::{Figure, Figures};
use crate::lab::Cell;
use crate::process::memory;

/// What flows on each stream, both ways, before it is idle: more than any peer's smallest buffer.
const BYTES: usize = 16 * 1024;

/// How long after the last byte the streams count as idle.
const IDLE: Duration = Duration::from_millis(500);

/// The growth of each end's processes by so many streams, divided by their number.
pub(super) fn idle_streams(cell: &mut Cell, streams: usize) -> Result<Figures> {
    let streams = cell.effort.count(streams);
    // One stream before, so that what the first one sets up once doesn't count.
    cell.hold(1, BYTES)?;
    let before = [memory(&cell.tunnel.near_pids())?, memory(&cell.tunnel.far_pids())?];
    let (held, stopped) = cell.hold(streams, BYTES)?;
    clock::pass(IDLE);
    let after = [memory(&cell.tunnel.near_pids())?, memory(&cell.tunnel.far_pids())?];
    if let Some(why) = stopped {
        cell.note(format!("only {held} of {streams} streams: {why}"));
    }
    ensure!(held > 1, "no streams could be held");
    cell.stop()?;
    let grown = |end: usize| (after[end].rss as f64 - before[end].rss as f64) / 1024.0 / (held - 1) as f64;
    let base = |end: usize| before[end].rss as f64 / 1024.0 / 1024.0;
    Ok(vec![
        (Figure::StreamsHeld, held as f64),
        (Figure::NearPerStream, grown(0)),
        (Figure::FarPerStream, grown(1)),
        (Figure::WorstPerStream, grown(0).max(grown(1))),
        (Figure::NearBase, base(0)),
        (Figure::FarBase, base(1)),
    ])
}
