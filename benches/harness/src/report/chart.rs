//! Bar charts as SVG, readable on light and dark pages. Refuses to know which bars are good.

use std::fmt::Write;

use crate::figure::Figure;
use crate::peer::Peer;
use crate::record::Records;
use crate::stats::Spread;

/// What one chart shows.
struct Chart {
    file: &'static str,
    title: &'static str,
    panels: &'static [Panel],
}

/// One figure of one case, a bar for each peer.
struct Panel {
    title: &'static str,
    case: &'static str,
    figure: Figure,
    /// What the figure is divided by to get this unit.
    per: f64,
    unit: &'static str,
    with_direct: bool,
}

const CHARTS: &[Chart] = &[
    Chart {
        file: "throughput",
        title: "Throughput on loopback, 2 processes in the way (longer is better)",
        panels: &[
            panel("1 stream down", "throughput-1-down", Figure::Throughput, "MB/s"),
            panel("1 stream up", "throughput-1-up", Figure::Throughput, "MB/s"),
            panel("8 streams down", "throughput-8-down", Figure::Throughput, "MB/s"),
            panel("8 streams up", "throughput-8-up", Figure::Throughput, "MB/s"),
        ],
    },
    Chart {
        file: "cpu",
        title: "Processor time of both tunnel processes together (shorter is better)",
        panels: &[
            panel("1 stream down", "throughput-1-down", Figure::CpuPerGb, "s/GB"),
            panel("1 stream up", "throughput-1-up", Figure::CpuPerGb, "s/GB"),
            panel("8 streams down", "throughput-8-down", Figure::CpuPerGb, "s/GB"),
            panel("8 streams up", "throughput-8-up", Figure::CpuPerGb, "s/GB"),
        ],
    },
    Chart {
        file: "latency",
        title: "Round trip of 64 bytes on loopback (shorter is better)",
        panels: &[
            panel("idle, p50", "idle-latency", Figure::P50, "µs"),
            panel("idle, p99", "idle-latency", Figure::P99, "µs"),
            millis("beside 4 bulk downloads, p50", "latency-under-load", Figure::P50),
            millis("beside 4 bulk downloads, p99", "latency-under-load", Figure::P99),
        ],
    },
    Chart {
        file: "head-of-line",
        title: "A full line of 100 Mbit/s and 80 ms: round trip of 64 bytes beside 4 downloads",
        panels: &[
            Panel { with_direct: true, ..millis("ping, p50 (shorter is better)", "wan-100mbit", Figure::P50) },
            Panel { with_direct: true, ..millis("ping, p99 (shorter is better)", "wan-100mbit", Figure::P99) },
            panel("the downloads (longer is better)", "wan-100mbit", Figure::OfLink, "% of the line"),
            panel("first echo (shorter is better)", "first-echo-80", Figure::FirstEcho, "round trips"),
        ],
    },
    Chart {
        file: "lines",
        title: "Downloads over 1 Gbit/s with Linux's default buffers (longer is better)",
        panels: &[
            panel("20 ms, 1 stream", "wan-20", Figure::OneStream, "MB/s"),
            panel("20 ms, 4 streams", "wan-20", Figure::FourStreams, "MB/s"),
            panel("80 ms, 1 stream", "wan-80", Figure::OneStream, "MB/s"),
            panel("80 ms, 4 streams", "wan-80", Figure::FourStreams, "MB/s"),
            panel("200 ms, 1 stream", "wan-200", Figure::OneStream, "MB/s"),
            panel("200 ms, 4 streams", "wan-200", Figure::FourStreams, "MB/s"),
        ],
    },
    Chart {
        file: "opens",
        title: "Streams opened per second: connect, a byte there and back, close (longer is better)",
        panels: &[
            panel("one after another", "opens-1", Figure::OpensPerSecond, "opens/s"),
            panel("32 at once", "opens-32", Figure::OpensPerSecond, "opens/s"),
        ],
    },
    Chart {
        file: "http",
        title: "HTTP and LDAP on loopback",
        panels: &[
            panel("64 connections (longer is better)", "http-requests", Figure::RequestsPerSecond, "requests/s"),
            millis("64 connections, p99 (shorter is better)", "http-requests", Figure::P99),
            panel("answer of 1 GiB (longer is better)", "http-body-down", Figure::Throughput, "MB/s"),
            panel("request of 1 GiB (longer is better)", "http-body-up", Figure::Throughput, "MB/s"),
            panel("gRPC message, p50 (shorter is better)", "grpc-stream", Figure::P50, "µs"),
            panel("LDAP search, p50 (shorter is better)", "ldap-search", Figure::P50, "µs"),
        ],
    },
    Chart {
        file: "memory",
        title: "Memory per idle stream, 5,000 of them (shorter is better)",
        panels: &[
            panel("the process near the client", "memory", Figure::NearPerStream, "KiB"),
            panel("the process near the target", "memory", Figure::FarPerStream, "KiB"),
        ],
    },
];

const fn panel(title: &'static str, case: &'static str, figure: Figure, unit: &'static str) -> Panel {
    Panel { title, case, figure, per: 1.0, unit, with_direct: false }
}

const fn millis(title: &'static str, case: &'static str, figure: Figure) -> Panel {
    Panel { per: 1_000.0, ..panel(title, case, figure, "ms") }
}

/// Sizes in pixels.
const WIDTH: usize = 800;
const MARGIN: usize = 16;
const HEAD: usize = 44;
const PANEL_HEAD: usize = 26;
const ROW: usize = 22;
const PANEL_FOOT: usize = 16;
const NAME: f64 = 96.0;
const BAR: f64 = 188.0;
const COLUMN: f64 = 392.0;

const STYLE: &str = "
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}.panel{font-weight:600}.value{fill:#59636e}.own{font-weight:600;fill:#0f766e}
.bar{fill:#afb8c1}.limit{fill:#d8dee4}.ours{fill:#14a697}.axis{stroke:#8c959f}.spread{stroke:#1f2328;opacity:.65}
.page{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.value{fill:#9198a1}.own{fill:#3fd0bf}
.bar{fill:#57606a}.limit{fill:#3a424b}.ours{fill:#1f9e91}.axis{stroke:#6e7681}.spread{stroke:#e6edf3}.page{fill:#0d1117}}
";

/// Every chart of which the run has something: its file's name, what it shows, and the SVG.
pub(super) fn charts(records: &Records) -> Vec<(&'static str, &'static str, String)> {
    let shown = CHARTS.iter().filter_map(|chart| Some((chart.file, chart.title, svg(chart, records)?)));
    shown.collect()
}

/// One bar.
struct Bar {
    peer: Peer,
    spread: Spread,
}

fn svg(chart: &Chart, records: &Records) -> Option<String> {
    let filled: Vec<_> =
        chart.panels.iter().map(|panel| (panel, bars(panel, records))).filter(|(_, bars)| !bars.is_empty()).collect();
    let rows = filled.iter().map(|(_, bars)| bars.len()).max()?;
    let panel_height = PANEL_HEAD + rows * ROW + PANEL_FOOT;
    let height = HEAD + filled.len().div_ceil(2) * panel_height;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" \
         height=\"{height}\" rx=\"6\"/>\n<text class=\"title\" x=\"{MARGIN}\" y=\"27\">{0}</text>\n",
        chart.title
    );
    for (number, (panel, bars)) in filled.iter().enumerate() {
        let left = MARGIN as f64 + (number % 2) as f64 * COLUMN;
        let top = HEAD + number / 2 * panel_height;
        draw(&mut svg, panel, bars, left, top);
    }
    svg += "</svg>\n";
    Some(svg)
}

fn bars(panel: &Panel, records: &Records) -> Vec<Bar> {
    let peers = records.peers(panel.case).into_iter().filter(|peer| panel.with_direct || *peer != Peer::Direct);
    let bar = |peer| {
        let spread = records.spread(panel.case, peer, panel.figure)?;
        let scale = |value: f64| value / panel.per;
        let spread = Spread { median: scale(spread.median), low: scale(spread.low), high: scale(spread.high) };
        Some(Bar { peer, spread })
    };
    peers.filter_map(bar).collect()
}

fn draw(svg: &mut String, panel: &Panel, bars: &[Bar], left: f64, top: usize) {
    let longest = bars.iter().map(|bar| bar.spread.high).fold(f64::MIN_POSITIVE, f64::max);
    let axis = left + NAME;
    let at = |value: f64| axis + value / longest * BAR;
    let _ = writeln!(svg, "<text class=\"panel\" x=\"{left}\" y=\"{}\">{}, {}</text>", top + 14, panel.title, panel.unit);
    for (number, bar) in bars.iter().enumerate() {
        let (y, spread) = (top + PANEL_HEAD + number * ROW, bar.spread);
        let (kind, text) = match bar.peer {
            Peer::Underpass => ("ours", "own"),
            Peer::Direct | Peer::Relay => ("limit", ""),
            _ => ("bar", ""),
        };
        let (middle, baseline, tick) = (y + ROW / 2, y + ROW / 2 + 4, y + ROW / 2 - 3);
        let (name, low, high) = (axis - 6.0, at(spread.low), at(spread.high));
        let _ = writeln!(
            svg,
            "<text class=\"{text}\" x=\"{name:.1}\" y=\"{baseline}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{kind}\" x=\"{axis:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>\
             <path class=\"spread\" d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {tick}v6M{high:.1} {tick}v6\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{baseline}\">{}</text>",
            bar.peer.name(),
            y + 3,
            at(spread.median) - axis,
            ROW - 6,
            high + 6.0,
            panel.figure.show(spread.median),
        );
    }
    let (from, to) = (top + PANEL_HEAD, top + PANEL_HEAD + bars.len() * ROW);
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{axis:.1} {from}V{to}\"/>");
}
