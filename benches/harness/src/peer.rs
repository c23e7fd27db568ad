//! The peers that are measured: how each is set up as a tunnel from the near end to the target at the far end.
//! Refuses to know what is measured on them.

mod haproxy;
mod rathole;
mod relay;
mod ssh;
mod stunnel;
mod underpass;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::place::Place;
use crate::process::Process;

/// Who is measured. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// No tunnel: the client connects to the target
    Direct,
    /// Two plain TCP relays in a row, without encryption
    Relay,
    /// This project
    Underpass,
    /// A pair of haproxy with mutual TLS 1.3 between them
    Haproxy,
    /// A pair of stunnel with mutual TLS 1.3 between them
    Stunnel,
    /// rathole with TLS
    Rathole,
    /// OpenSSH with a reverse forwarding
    Ssh,
}

impl Peer {
    /// All of them.
    pub(crate) fn all() -> &'static [Self] {
        clap::ValueEnum::value_variants()
    }

    /// Its name in tables and options.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Underpass => "underpass",
            Self::Haproxy => "haproxy",
            Self::Stunnel => "stunnel",
            Self::Rathole => "rathole",
            Self::Ssh => "ssh",
        }
    }

    /// Whether it has processes between client and target.
    pub(crate) fn is_tunnel(self) -> bool {
        self != Self::Direct
    }

    /// Starts its processes and waits until the target answers through them.
    pub(crate) fn start(self, site: &Site) -> Result<Tunnel> {
        let scratch = site.scratch.join(self.name());
        // What an earlier tunnel of this peer has left.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch)?;
        let mut tunnel = match self {
            Self::Direct => Ok(Tunnel { entry: site.target(), near: Vec::new(), far: Vec::new() }),
            Self::Relay => relay::start(site),
            Self::Underpass => underpass::start(site, &scratch, &site.programs.underpass, &[]),
            Self::Haproxy => haproxy::start(site, &scratch),
            Self::Stunnel => stunnel::start(site, &scratch),
            Self::Rathole => rathole::start(site, &scratch),
            Self::Ssh => ssh::start(site, &scratch),
        }
        .with_context(|| format!("starting {}", self.name()))?;
        tunnel.check()?;
        Ok(tunnel)
    }
}

/// The two ends between which a tunnel is made.
pub(crate) struct Site {
    /// Where clients are.
    pub(crate) near: Place,
    /// Where the target is.
    pub(crate) far: Place,
    /// The target's port, which is open at the far end's loopback, too.
    pub(crate) target_port: u16,
    /// For configuration files and keys.
    pub(crate) scratch: PathBuf,
    /// What is not found by its name alone.
    pub(crate) programs: Programs,
}

/// Where programs are that no package has put into the search path.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) underpass: PathBuf,
    pub(crate) rathole: PathBuf,
}

impl Site {
    /// The target as it is reached without a tunnel.
    pub(crate) fn target(&self) -> SocketAddr {
        self.far.outside(self.target_port)
    }

    /// The target as the tunnel's far end reaches it.
    pub(crate) fn local_target(&self) -> SocketAddr {
        Place::inside(self.target_port)
    }
}

/// A tunnel that is up.
pub(crate) struct Tunnel {
    /// Where clients connect, at the near end.
    pub(crate) entry: SocketAddr,
    near: Vec<Process>,
    far: Vec<Process>,
}

impl Tunnel {
    /// The ids of all processes of the near end.
    pub(crate) fn near_pids(&self) -> Vec<u32> {
        self.near.iter().flat_map(Process::family).collect()
    }

    /// The ids of all processes of the far end.
    pub(crate) fn far_pids(&self) -> Vec<u32> {
        self.far.iter().flat_map(Process::family).collect()
    }

    /// The ids of all its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.near_pids().into_iter().chain(self.far_pids()).collect()
    }

    /// # Errors
    /// When one of its processes has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.near.iter_mut().chain(&mut self.far).try_for_each(Process::check)
    }
}

/// Writes a file only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}
