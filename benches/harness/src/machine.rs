//! What a run was made on and with: commit, machine, versions. Refuses to know what was measured.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::peer::Peer;
use crate::process::run;

/// Everything that a reader needs to judge a run's figures, or to repeat it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// When it began, in UTC.
    pub(crate) date: String,
    /// The product's commit; says when the tree had changes.
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// What TCP did about congestion on loopback and on lines.
    pub(crate) congestion_control: String,
    /// Runnable tasks a minute before the run: on an idle machine well below 1.
    pub(crate) load_before: String,
    /// The peers' own words about their versions.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// As it is now, with the product as it is in a repository.
    pub(crate) fn look(root: &Path, peers: &[Peer]) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let git = |arguments: &[&str]| said("git", &[&["-C", &root.to_string_lossy()], arguments].concat());
        // A report that is being made anew is no change of what it is about.
        let changed = if git(&["status", "--porcelain", "--", ":!benches"]).is_empty() { "" } else { ", with changes" };
        let model = file("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|it| it.1.to_owned()));
        Self {
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
            commit: git(&["rev-parse", "--short=12", "HEAD"]) + changed,
            processor: model.unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion_control: file("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            load_before: file("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            versions: peers.iter().filter_map(|peer| version(*peer)).collect(),
        }
    }
}

fn version(peer: Peer) -> Option<String> {
    let text = match peer {
        Peer::Nginx => said("nginx", &["-v"]),
        Peer::Haproxy => said("haproxy", &["-v"]),
        Peer::Stunnel => said("stunnel4", &["-version"]),
        Peer::Ssh => said("ssh", &["-V"]),
        Peer::Rathole => "rathole 0.5.0".to_owned(),
        Peer::Direct | Peer::Relay | Peer::Underpass | Peer::UnderpassTcp => return None,
    };
    text.lines().find(|line| line.contains(char::is_numeric)).map(|line| line.trim().to_owned())
}

/// What a command prints, on either stream; nothing if it fails.
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" 2>&1", "sh", program]).args(arguments);
    run(command).unwrap_or_default().trim().to_owned()
}
