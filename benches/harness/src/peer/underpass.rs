//! Underpass as an operator sets it up: init, token, enroll, run; audit and metrics on, nothing switched off, and only the
//! limits raised that the many streams of some cases need. It refuses to know the product's library.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Site, Tunnel, write_private};
use crate::clock;
use crate::place::{Place, free_port};
use crate::process::{Process, run};

/// More streams than any case opens.
const STREAMS: usize = 20_000;

/// Another build of the product, or another environment for it, can be a peer of its own.
pub(super) fn start(site: &Site, scratch: &Path, program: &Path, environment: Environment) -> Result<Tunnel> {
    let setup = Setup::new(site, scratch, program, environment);
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
    Ok(Tunnel { entry: setup.entry, near: vec![gateway], far: vec![agent] })
}

/// Names and values.
type Environment = &'static [(&'static str, &'static str)];

struct Setup<'a> {
    site: &'a Site,
    program: &'a Path,
    environment: Environment,
    gateway_dir: PathBuf,
    agent_dir: PathBuf,
    listen: SocketAddr,
    entry: SocketAddr,
    metrics: [SocketAddr; 2],
}

impl<'a> Setup<'a> {
    fn new(site: &'a Site, scratch: &Path, program: &'a Path, environment: Environment) -> Self {
        let metrics = [free_port(), free_port()].map(Place::inside);
        let (gateway_dir, agent_dir) = (scratch.join("gateway"), scratch.join("agent"));
        let (listen, entry) = (site.near.outside(free_port()), Place::inside(free_port()));
        Self { site, program, environment, gateway_dir, agent_dir, listen, entry, metrics }
    }

    fn endpoint(&self) -> String {
        format!("wss://{}", self.listen)
    }

    fn gateway_yaml(&self) -> String {
        let (endpoint, listen, entry, metrics) = (self.endpoint(), self.listen, self.entry, self.metrics[0]);
        format!(
            "version: 1
gateway: {{id: gw1, endpoints: [\"{endpoint}\"], listen: \"{listen}\"}}
listeners: [{{listen: \"{entry}\", target: acme/dc1/load}}]
limits: {{max_connections: {STREAMS}, max_streams: {STREAMS}}}
audit: {{on_full: drop}}
metrics: {{listen: \"{metrics}\"}}
"
        )
    }

    fn agent_yaml(&self) -> String {
        let (endpoint, target, metrics) = (self.endpoint(), self.site.local_target(), self.metrics[1]);
        format!(
            "version: 1
gateway: {{endpoints: [\"{endpoint}\"]}}
targets:
  load: {{kind: tcp, address: \"{target}\", allow_loopback: true, limits: {{max_streams: {STREAMS}}}}}
limits: {{max_streams: {STREAMS}}}
audit: {{on_full: drop}}
metrics: {{listen: \"{metrics}\"}}
"
        )
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
