//! Underpass as an operator sets it up: init, token, enroll, run; audit and metrics on, nothing switched off, and only the
//! limits raised that the many streams of some cases need. It refuses to know the product's library.
//!
//! A target of kind http is reached by its path at an HTTP listener, with a client token; one of kind tcp or ldap by a listener
//! of its own. In front of a directory, kind tcp lets the directory's own TLS through, and has a second target without TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Approach, Site, Tunnel, write_private};
use crate::clock;
use crate::directory;
use crate::place::{Place, free_port};
use crate::process::{Process, run};
use crate::service::Service;

/// More streams than any case opens.
const STREAMS: usize = 20_000;

/// What clients of the HTTP listener put before the origin's paths.
const PREFIX: &str = "/t/acme/dc1/load";

/// What the product takes the target for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Http,
    Ldap,
}

impl Kind {
    /// The one that is meant for a service.
    pub(super) fn of(service: Service) -> Self {
        match service {
            Service::Bytes => Self::Tcp,
            Service::Http | Service::Stream => Self::Http,
            Service::Directory => Self::Ldap,
        }
    }
}

/// Another build of the product, or another environment for it, can be a peer of its own.
pub(super) fn start(site: &Site, scratch: &Path, program: &Path, environment: Environment, kind: Kind) -> Result<Tunnel> {
    let setup = Setup::new(site, scratch, program, environment, kind);
    run(setup.gateway(&["gateway", "init", "--endpoint", &setup.endpoint(), "--trust-domain", "bench.test"]))?;
    write_private(&setup.gateway_dir.join("gateway.yaml"), &setup.gateway_yaml())?;
    let mut gateway = Process::start_quiet("gateway", setup.gateway(&["gateway", "run"]))?;
    gateway.listens(setup.listen.port())?;
    let token = clock::until("the gateway makes a token", || {
        gateway.check()?;
        Ok(run(setup.gateway(&["token", "create", "--tenant", "acme", "--group", "dc1"])).ok())
    })?;
    let token_file = scratch.join("token");
    write_private(&token_file, &token)?;
    let token_file = token_file.to_str().context("the scratch directory has a plain name")?;
    run(setup.agent(&["agent", "enroll", "--name", "a1", "--token-file", token_file]))?;
    write_private(&setup.agent_dir.join("agent.yaml"), &setup.agent_yaml())?;
    let mut agent = Process::start_quiet("agent", setup.agent(&["agent", "run"]))?;
    clock::until("the agent is connected", || {
        agent.check()?;
        gateway.check()?;
        Ok(run(setup.agent(&["agent", "status"])).ok())
    })?;
    let approach = setup.approach()?;
    Ok(Tunnel { approach, ..Tunnel::plain(setup.entry, vec![gateway], vec![agent]) })
}

/// Names and values.
type Environment = &'static [(&'static str, &'static str)];

struct Setup<'a> {
    site: &'a Site,
    program: &'a Path,
    environment: Environment,
    kind: Kind,
    gateway_dir: PathBuf,
    agent_dir: PathBuf,
    listen: SocketAddr,
    entry: SocketAddr,
    clear_entry: SocketAddr,
    metrics: [SocketAddr; 2],
}

impl<'a> Setup<'a> {
    fn new(site: &'a Site, scratch: &Path, program: &'a Path, environment: Environment, kind: Kind) -> Self {
        let metrics = [free_port(), free_port()].map(Place::inside);
        let (gateway_dir, agent_dir) = (scratch.join("gateway"), scratch.join("agent"));
        let (listen, [entry, clear_entry]) = (site.near.outside(free_port()), [free_port(), free_port()].map(Place::inside));
        Self { site, program, environment, kind, gateway_dir, agent_dir, listen, entry, clear_entry, metrics }
    }

    fn endpoint(&self) -> String {
        format!("wss://{}", self.listen)
    }

    fn gateway_yaml(&self) -> String {
        let (endpoint, listen, listeners, metrics) = (self.endpoint(), self.listen, self.listeners(), self.metrics[0]);
        format!(
            "version: 1
gateway: {{id: gw1, endpoints: [\"{endpoint}\"], listen: \"{listen}\"}}
listeners:
{listeners}limits: {{max_connections: {STREAMS}, max_streams: {STREAMS}}}
audit: {{on_full: drop}}
metrics: {{listen: \"{metrics}\"}}
"
        )
    }

    fn agent_yaml(&self) -> String {
        let (endpoint, targets, metrics) = (self.endpoint(), self.targets(), self.metrics[1]);
        format!(
            "version: 1
gateway: {{endpoints: [\"{endpoint}\"]}}
targets:
{targets}limits: {{max_streams: {STREAMS}}}
audit: {{on_full: drop}}
metrics: {{listen: \"{metrics}\"}}
"
        )
    }

    fn listeners(&self) -> String {
        let (entry, clear) = (self.entry, self.clear_entry);
        let own = format!("  - {{listen: \"{entry}\", target: acme/dc1/load}}\n");
        match (self.kind, &self.site.directory) {
            (Kind::Http, _) => format!("  - {{listen: \"{entry}\", kind: http}}\n"),
            (Kind::Tcp, Some(_)) => own + &format!("  - {{listen: \"{clear}\", target: acme/dc1/clear}}\n"),
            (Kind::Tcp | Kind::Ldap, _) => own,
        }
    }

    fn targets(&self) -> String {
        let at = self.site.local_target();
        match (self.kind, &self.site.directory) {
            (Kind::Http, _) => {
                let http2 = if self.site.service == Service::Stream { ", http2: true" } else { "" };
                target("load", &format!("kind: http, address: \"http://{at}\"{http2}"))
            }
            (Kind::Ldap, Some(directory)) => {
                let tls = format!("{{ca_file: \"{}\", server_name: {}}}", directory.root.display(), directory::HOST);
                target("load", &format!("kind: ldap, address: \"ldaps://{at}\", tls: {tls}"))
            }
            (Kind::Tcp, Some(directory)) => tcp_target("load", at) + &tcp_target("clear", Place::inside(directory.clear_port)),
            (Kind::Tcp | Kind::Ldap, _) => tcp_target("load", at),
        }
    }

    /// What clients must know; for HTTP that is a new token.
    fn approach(&self) -> Result<Approach> {
        match (self.kind, &self.site.directory) {
            (Kind::Http, _) => {
                let token = run(self.gateway(&["client-token", "create", "--name", "bench", "--grant", "acme/dc1/*"]))?;
                Ok(Approach::Path { prefix: PREFIX.to_owned(), token: token.trim().to_owned() })
            }
            (Kind::Tcp, Some(directory)) => Ok(Approach::Tls { root: directory.root.clone(), clear: self.clear_entry }),
            (Kind::Tcp | Kind::Ldap, _) => Ok(Approach::Plain),
        }
    }

    fn gateway(&self, arguments: &[&str]) -> Command {
        self.command(&self.site.near, arguments, &self.gateway_dir)
    }

    fn agent(&self, arguments: &[&str]) -> Command {
        self.command(&self.site.far, arguments, &self.agent_dir)
    }

    fn command(&self, place: &Place, arguments: &[&str], state_dir: &Path) -> Command {
        let mut command = place.program(self.program);
        command.envs(self.environment.iter().copied());
        command.args(arguments).arg("--state-dir").arg(state_dir);
        command
    }
}

fn tcp_target(name: &str, at: SocketAddr) -> String {
    target(name, &format!("kind: tcp, address: \"{at}\""))
}

/// A line of `targets`.
fn target(name: &str, what: &str) -> String {
    format!("  {name}: {{{what}, allow_loopback: true, limits: {{max_streams: {STREAMS}}}}}\n")
}
