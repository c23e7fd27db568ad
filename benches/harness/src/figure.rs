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
    /// Of one stream beside no other.
    OneStream,
    /// Of four streams together.
    FourStreams,
    /// Of what plain TCP could carry over the line.
    OfLink,
    /// In the third second after the start.
    ThroughputEarly,
    P50,
    P99,
    P999,
    /// Of the throughput without pings beside.
    ThroughputKept,
    /// Without TLS between client and target.
    P50Clear,
    /// Of small answers.
    RequestsPerSecond,
    /// Of the end near to the client, for one request.
    NearPerRequest,
    /// The same of the end near to the target.
    FarPerRequest,
    /// Connect, a byte there and back, close.
    OpensPerSecond,
    /// Of the tunnel's processes together, for 10,000 opens.
    CpuPerOpens,
    /// How many idle streams could be held.
    StreamsHeld,
    /// Growth of the resident memory of the end near to the client.
    NearPerStream,
    /// The same of the end near to the target.
    FarPerStream,
    /// The larger of the two.
    WorstPerStream,
    /// Before the streams.
    NearBase,
    /// The same of the other end.
    FarBase,
    /// Connect to first echo, in round trips of the path.
    FirstEcho,
    /// The most that was resident, in the end near to the client.
    NearPeak,
    /// The same of the other end.
    FarPeak,
    /// Slowest over fastest stream.
    Fairness,
}

impl Figure {
    /// As it is kept in files.
    pub(crate) fn name(self) -> String {
        // The names that serde gives its variants.
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }

    /// Whether it is about a tunnel's processes, so that there is none without a tunnel.
    pub(crate) fn is_of_tunnel(self) -> bool {
        matches!(
            self,
            Self::CpuPerGb | Self::CpuPerOpens | Self::NearPeak | Self::FarPeak | Self::NearPerRequest | Self::FarPerRequest
        )
    }

    /// The column's head, with the unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Throughput => "MB/s",
            Self::CpuPerGb => "CPU s/GB",
            Self::OneStream => "1 stream MB/s",
            Self::FourStreams => "4 streams MB/s",
            Self::OfLink => "bulk, % of link",
            Self::ThroughputEarly => "MB/s in 3rd second",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::ThroughputKept => "bulk kept %",
            Self::P50Clear => "p50 µs without TLS",
            Self::RequestsPerSecond => "requests/s",
            Self::NearPerRequest => "near CPU µs each",
            Self::FarPerRequest => "far CPU µs each",
            Self::OpensPerSecond => "opens/s",
            Self::CpuPerOpens => "CPU s/10,000",
            Self::StreamsHeld => "streams",
            Self::NearPerStream => "near KiB/stream",
            Self::FarPerStream => "far KiB/stream",
            Self::WorstPerStream => "larger KiB/stream",
            Self::NearBase => "near MiB before",
            Self::FarBase => "far MiB before",
            Self::FirstEcho => "round trips",
            Self::NearPeak => "near peak MiB",
            Self::FarPeak => "far peak MiB",
            Self::Fairness => "slowest/fastest",
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
