//! What is measured: the figures with their units and how they are printed. Refuses to know which case yields which.

use serde::{Deserialize, Serialize};

/// A measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Payload bytes that arrived.
    Throughput,
    /// Of the tunnel's processes together.
    CpuPerGb,
    P50,
    P99,
    P999,
}

impl Figure {
    /// The column's head, with the unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Throughput => "MB/s",
            Self::CpuPerGb => "CPU s/GB",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
        }
    }

    /// A value with as many digits as mean something.
    pub(crate) fn show(self, value: f64) -> String {
        match value.abs() {
            large if large >= 100.0 => format!("{value:.0}"),
            middle if middle >= 10.0 => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        }
    }
}

/// What one run of a case on one peer has yielded.
pub(crate) type Figures = Vec<(Figure, f64)>;
