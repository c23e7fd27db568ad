//! Round trips of small messages. Refuses to know who carries them.

use anyhow::Result;

use crate::figure::{Figure, Figures};
use crate::lab::Cell;
use crate::load::Times;

/// One message after another with nothing beside.
pub(super) fn idle(cell: &mut Cell) -> Result<Figures> {
    let run = cell.effort.millis(1_000);
    let (client, entry) = cell.client();
    Ok(figures(client.ping(entry, run, 0)?))
}

fn figures(times: Times) -> Figures {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    vec![(Figure::P50, micros(times.p50)), (Figure::P99, micros(times.p99)), (Figure::P999, micros(times.p999))]
}
