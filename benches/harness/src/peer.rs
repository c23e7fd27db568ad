//! The peers that are measured: how each is set up as a tunnel from the near end to the target at the far end.
//! Refuses to know what is measured on them.

mod haproxy;
mod nginx;
mod rathole;
mod relay;
mod ssh;
mod stunnel;
mod underpass;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::directory::Reach;
use crate::load::WebEntry;
use crate::place::Place;
use crate::process::Process;
use crate::service::Service;

use underpass::Kind;

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
    /// This project, with a target of kind tcp where the other one has http or ldap
    UnderpassTcp,
    /// A pair of nginx, reverse proxies with mutual TLS 1.3 between them
    Nginx,
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
            Self::UnderpassTcp => "underpass-tcp",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Stunnel => "stunnel",
            Self::Rathole => "rathole",
            Self::Ssh => "ssh",
        }
    }

    /// The program that a package brings for it.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::Direct | Self::Relay | Self::Underpass | Self::UnderpassTcp | Self::Rathole => None,
            Self::Nginx => Some("nginx"),
            Self::Haproxy => Some("haproxy"),
            Self::Stunnel => Some("stunnel4"),
            Self::Ssh => Some("ssh"),
        }
    }

    /// Whether it has processes between client and target.
    pub(crate) fn is_tunnel(self) -> bool {
        self != Self::Direct
    }

    /// Whether it can be between a client and a target of such a service.
    pub(crate) fn carries(self, service: Service) -> bool {
        match self {
            Self::Nginx => matches!(service, Service::Http | Service::Stream),
            // It would be the same peer again.
            Self::UnderpassTcp => service != Service::Bytes,
            _ => true,
        }
    }

    /// Starts its processes and waits until the target answers through them.
    pub(crate) fn start(self, site: &Site) -> Result<Tunnel> {
        let scratch = site.scratch.join(self.name());
        // What an earlier tunnel of this peer has left.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch)?;
        let mut tunnel = match self {
            Self::Direct => Ok(Tunnel { approach: site.approach(), ..Tunnel::plain(site.target(), Vec::new(), Vec::new()) }),
            Self::Relay => relay::start(site),
            Self::Underpass => underpass::start(site, &scratch, &site.programs.underpass, &[], Kind::of(site.service)),
            Self::UnderpassTcp => underpass::start(site, &scratch, &site.programs.underpass, &[], Kind::Tcp),
            Self::Nginx => nginx::start(site, &scratch),
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
    /// What the target serves.
    pub(crate) service: Service,
    /// The target's port, which is open at the far end's loopback, too.
    pub(crate) target_port: u16,
    /// How the target is reached if it is a directory.
    pub(crate) directory: Option<Reach>,
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

    /// What a client that reaches the target by itself must know.
    fn approach(&self) -> Approach {
        self.directory.as_ref().map_or(Approach::Plain, |directory| Approach::Tls {
            root: directory.root.clone(),
            clear: self.far.outside(directory.clear_port),
        })
    }
}

/// A tunnel that is up.
pub(crate) struct Tunnel {
    /// Where clients connect, at the near end.
    pub(crate) entry: SocketAddr,
    /// What they must know beside.
    pub(crate) approach: Approach,
    near: Vec<Process>,
    far: Vec<Process>,
}

/// What a client must know beside the address.
pub(crate) enum Approach {
    /// Nothing: it speaks at the entry as it would speak with the target.
    Plain,
    /// The target has a path of an HTTP server that wants a token.
    Path { prefix: String, token: String },
    /// The target's own TLS comes through, under a certificate of this root; and there is an entry without TLS.
    Tls { root: PathBuf, clear: SocketAddr },
}

impl Tunnel {
    /// One at whose entry clients speak as they would speak with the target.
    fn plain(entry: SocketAddr, near: Vec<Process>, far: Vec<Process>) -> Self {
        Self { entry, approach: Approach::Plain, near, far }
    }

    /// The entry for HTTP.
    pub(crate) fn web_entry(&self) -> WebEntry {
        let (prefix, token) = match &self.approach {
            Approach::Path { prefix, token } => (prefix.clone(), Some(token.clone())),
            Approach::Plain | Approach::Tls { .. } => (String::new(), None),
        };
        WebEntry { to: self.entry, prefix, token }
    }

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
