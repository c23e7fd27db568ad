//! A slow path between two places: two network namespaces, joined by a line that delays, limits and drops. TCP runs through it
//! end to end. Refuses to know what is measured on it.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::place::Place;
use crate::process::{Process, run};

/// The devices at the two ends, in the order of the namespaces.
pub(crate) const NEAR_DEVICE: &str = "wan-near";
pub(crate) const FAR_DEVICE: &str = "wan-far";

const NEAR: (&str, &str, Ipv4Addr) = ("near", NEAR_DEVICE, Ipv4Addr::new(10, 99, 0, 1));
const FAR: (&str, &str, Ipv4Addr) = ("far", FAR_DEVICE, Ipv4Addr::new(10, 99, 0, 2));

/// More packets than wait in a device while the line's process isn't running, so that only the line's own queue drops any.
const DEVICE_QUEUE: &str = "10000";

/// What every namespace is set to, so that results don't depend on the host's settings: Linux's defaults, and no memory of
/// earlier connections, which would slow the start of later ones.
const SETTINGS: &[(&str, &str)] = &[
    ("net/ipv4/tcp_rmem", "4096 131072 6291456"),
    ("net/ipv4/tcp_wmem", "4096 16384 4194304"),
    ("net/ipv4/tcp_no_metrics_save", "1"),
    ("net/ipv4/ip_local_port_range", "10000 65000"),
];

/// Buffers that a gigabit at 80 ms needs: more than the 10 MB on the line, and less than line and full queue together, so that
/// nothing is lost and every run is like the others.
const LARGE_BUFFERS: &[(&str, &str)] =
    &[("net/ipv4/tcp_rmem", "4096 131072 25165824"), ("net/ipv4/tcp_wmem", "4096 16384 25165824")];

/// A line's properties; both ways the same.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Line {
    /// Round trip in milliseconds.
    pub(crate) rtt_ms: u32,
    /// Megabits per second, of IP packets.
    pub(crate) mbit: u32,
    /// The largest IP packet.
    pub(crate) mtu: u16,
    /// Whether TCP's buffers at both ends may grow to what a gigabit at 80 ms needs, beyond Linux's default of 6 MiB.
    #[arg(skip)]
    pub(crate) large_buffers: bool,
}

impl Line {
    /// The round trip with an empty queue.
    pub(crate) fn rtt(self) -> Duration {
        Duration::from_millis(self.rtt_ms.into())
    }

    /// One way's part of the round trip.
    pub(crate) fn delay(self) -> Duration {
        self.rtt() / 2
    }

    /// How long the line takes to put so many bytes onto it.
    pub(crate) fn takes(self, bytes: usize) -> Duration {
        Duration::from_nanos(bytes as u64 * 8_000 / u64::from(self.mbit))
    }

    /// The queue in front of it holds one bandwidth-delay product, so nobody waits longer than a round trip.
    pub(crate) fn longest_wait(self) -> Duration {
        self.rtt()
    }

    /// What TCP can carry over it, in MB/s: the packets less 20 bytes of IP and 32 of TCP each.
    pub(crate) fn payload(self) -> f64 {
        f64::from(self.mbit) / 8.0 * f64::from(self.mtu - 52) / f64::from(self.mtu)
    }
}

/// Two namespaces and the line between them; dropping it takes them away.
pub(crate) struct Wan {
    _line: Process,
    /// The end where clients are.
    pub(crate) near: Place,
    /// The end where the target is.
    pub(crate) far: Place,
}

impl Wan {
    /// Makes both namespaces and starts the line. Needs root, in a sandbox whose /run/netns is its own.
    pub(crate) fn new(line: Line) -> Result<Self> {
        remove_namespaces();
        for (namespace, _, _) in [NEAR, FAR] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            // A kernel may keep this to itself; the report tells what was used.
            let _ = settle(namespace, &[("net/ipv4/tcp_congestion_control", "cubic")]);
            settle(namespace, SETTINGS)?;
            if line.large_buffers {
                settle(namespace, LARGE_BUFFERS)?;
            }
        }
        let process = start(line)?;
        for (namespace, device, address) in [NEAR, FAR] {
            ip(&["link", "set", device, "netns", namespace])?;
            let mtu = line.mtu.to_string();
            ip(&["-n", namespace, "link", "set", device, "mtu", &mtu, "txqueuelen", DEVICE_QUEUE, "up"])?;
            ip(&["-n", namespace, "address", "add", &format!("{address}/30"), "dev", device])?;
        }
        let [near, far] = [NEAR, FAR].map(|(namespace, _, address)| Place::in_netns(namespace, address));
        Ok(Self { _line: process, near, far })
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        remove_namespaces();
    }
}

fn remove_namespaces() {
    for (namespace, _, _) in [NEAR, FAR] {
        // It may not be there.
        let _ = ip(&["netns", "delete", namespace]);
    }
}

/// The line's process, once it has made its devices.
fn start(line: Line) -> Result<Process> {
    let mut command = Place::loopback().own_program(&["forward"])?;
    command.args([line.rtt_ms.to_string(), line.mbit.to_string(), line.mtu.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start("the line", command)?;
    let (_, said) = process.pipes().context("the line has pipes")?;
    let mut ready = String::new();
    BufReader::new(said).read_line(&mut ready)?;
    process.check()?;
    ensure!(ready == "ready\n", "the line said {ready:?}");
    Ok(process)
}

fn settle(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    for (key, value) in settings {
        ip(&["netns", "exec", namespace, "sh", "-c", &format!("echo '{value}' >/proc/sys/{key}")])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command).map(drop)
}
