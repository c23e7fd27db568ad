//! A gateway and its agents as an operator sets them up: only by the command line and the two configuration files.
//! Refuses to know what any test wants of them.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Finished, Process, Program};
use super::{SOON, Scratch, eventually, free_port, loopback, write_private};

/// The name of every test's PKI.
pub(crate) const TRUST_DOMAIN: &str = "corp.test";

/// A gateway's state directory and, while it runs, its process.
pub(crate) struct Gateway {
    scratch: Scratch,
    /// Where agents reach it.
    pub(crate) at: SocketAddr,
    endpoint: String,
    metrics: u16,
    netns: Option<String>,
    envs: Vec<(String, String)>,
    group: Option<PathBuf>,
    process: Option<Process>,
}

impl Gateway {
    /// `gateway init` for an endpoint on loopback, and a configuration without listeners.
    pub(crate) async fn init() -> Self {
        Self::init_at(Ipv4Addr::LOCALHOST.into(), None).await
    }

    /// The same for another address, to be run in a network namespace.
    pub(crate) async fn init_at(address: IpAddr, netns: Option<&str>) -> Self {
        let at = SocketAddr::new(address, free_port());
        Self::make(at.to_string(), at, netns).await
    }

    /// The same on loopback, known to agents by a name.
    pub(crate) async fn init_named(name: &str) -> Self {
        Self::init_named_at(name, Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same at another address.
    pub(crate) async fn init_named_at(name: &str, address: IpAddr) -> Self {
        let at = SocketAddr::new(address, free_port());
        Self::make(format!("{name}:{}", at.port()), at, None).await
    }

    async fn make(host: String, at: SocketAddr, netns: Option<&str>) -> Self {
        let (scratch, netns, endpoint) = (Scratch::new(), netns.map(str::to_owned), format!("wss://{host}"));
        let gateway = Self {
            scratch,
            at,
            endpoint: endpoint.clone(),
            metrics: free_port(),
            netns,
            envs: Vec::new(),
            group: None,
            process: None,
        };
        let init = ["gateway", "init", "--endpoint", &endpoint, "--trust-domain", TRUST_DOMAIN];
        gateway.admin(&init).run().await.ok();
        gateway.configure("");
        gateway
    }

    /// A gateway of the same name, PKI and agents at another port, before either was started.
    pub(crate) async fn twin(&self) -> Self {
        let (scratch, at) = (Scratch::new(), SocketAddr::new(self.at.ip(), free_port()));
        Program::new("cp").arg("-a").arg(self.dir()).arg(scratch.path("gateway")).run().await.ok();
        let (endpoint, netns) = (self.endpoint.clone(), self.netns.clone());
        let twin = Self { scratch, at, endpoint, metrics: free_port(), netns, envs: Vec::new(), group: None, process: None };
        twin.configure("");
        twin
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.path("gateway")
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Writes gateway.yaml: what every test needs, and then `more` (top-level keys).
    pub(crate) fn configure(&self, more: &str) {
        self.configure_gateway("", more);
    }

    /// The same, with more keys under `gateway:` (each line indented by two spaces).
    pub(crate) fn configure_gateway(&self, keys: &str, more: &str) {
        let (endpoint, at, metrics) = (self.endpoint(), self.at, self.metrics);
        let text = format!(
            "version: 1\ngateway:\n  id: gw1\n  endpoints: [\"{endpoint}\"]\n  listen: \"{at}\"\n{keys}\
             metrics: {{listen: \"127.0.0.1:{metrics}\"}}\nlog: {{format: json, level: debug}}\n{more}\n"
        );
        write_private(&self.dir().join("gateway.yaml"), text);
    }

    /// `listeners:` for these pairs of a port on loopback and a target.
    pub(crate) fn listeners(pairs: &[(u16, &str)]) -> String {
        pairs.iter().fold("listeners:\n".to_owned(), |mut text, (port, target)| {
            let _ = writeln!(text, "  - {{listen: \"127.0.0.1:{port}\", target: {target}}}");
            text
        })
    }

    pub(crate) async fn start(&mut self) {
        self.process = None;
        let mut program = Program::underpass().args(["gateway", "run", "--state-dir"]).arg(self.dir());
        if let Some(netns) = &self.netns {
            program = program.netns(netns);
        }
        if let Some(group) = &self.group {
            program = program.group(group);
        }
        program = self.envs.iter().fold(program, |program, (name, value)| program.env(name, value));
        self.process = Some(program.start());
        eventually("the gateway is ready", SOON, async || {
            assert!(self.process.as_mut().unwrap().is_running(), "the gateway ended");
            self.admin(&["agents", "list", "--json"]).run().await.status.success().then_some(())
        })
        .await;
    }

    /// The environment of the process from its next start on.
    pub(crate) fn set_env(&mut self, envs: &[(String, String)]) {
        self.envs = envs.to_vec();
    }

    /// The control group of the process from its next start on.
    pub(crate) fn set_group(&mut self, group: &Path) {
        self.group = Some(group.to_owned());
    }

    /// A command of the operator's, on this state directory.
    pub(crate) fn admin(&self, args: &[&str]) -> Program {
        Program::underpass().args(args).arg("--state-dir").arg(self.dir())
    }

    pub(crate) async fn token(&self, tenant: &str, group: &str) -> String {
        let made = self.admin(&["token", "create", "--tenant", tenant, "--group", group]).run().await;
        made.ok().trim().to_owned()
    }

    pub(crate) async fn agents(&self) -> Value {
        serde_json::from_str(&self.admin(&["agents", "list", "--json"]).run().await.ok()).unwrap()
    }

    pub(crate) async fn revoke(&self, agent: &str) -> Finished {
        self.admin(&["agents", "revoke", agent]).run().await
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the gateway was started")
    }

    /// The same for who only looks at it and signals.
    pub(crate) fn running(&self) -> &Process {
        self.process.as_ref().expect("the gateway was started")
    }

    /// Takes the process out, to wait for its end.
    pub(crate) fn take_process(&mut self) -> Process {
        self.process.take().expect("the gateway was started")
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        audit(&self.dir())
    }

    /// Waits for an event of the audit of which `wanted` holds.
    pub(crate) async fn audited(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        audited(&self.dir(), event, wanted).await
    }

    /// GETs a path of the metrics listener.
    pub(crate) async fn probe(&self, path: &str) -> Option<(u16, String)> {
        http_get(loopback(self.metrics), path).await
    }

    pub(crate) async fn metrics(&self) -> String {
        let (status, text) = self.probe("/metrics").await.expect("metrics answer");
        assert_eq!(status, 200);
        text
    }
}

/// An agent's state directory and, while it runs, its process.
pub(crate) struct Agent {
    scratch: Scratch,
    name: String,
    endpoint: String,
    netns: Option<String>,
    resolver: Option<PathBuf>,
    envs: Vec<(String, String)>,
    process: Option<Process>,
}

impl Agent {
    /// Makes a token for `acme/dc1` and enrolls with it.
    pub(crate) async fn enroll(gateway: &Gateway, name: &str) -> Self {
        Self::enroll_in(gateway, "acme", "dc1", name).await
    }

    pub(crate) async fn enroll_in(gateway: &Gateway, tenant: &str, group: &str, name: &str) -> Self {
        let agent = Self::blank(gateway, name);
        let token = gateway.token(tenant, group).await;
        agent.enrollment(&token).run().await.ok();
        agent.configure("");
        agent
    }

    /// An agent that is not enrolled yet.
    pub(crate) fn blank(gateway: &Gateway, name: &str) -> Self {
        let endpoint = gateway.endpoint();
        let netns = None;
        Self {
            scratch: Scratch::new(),
            name: name.to_owned(),
            endpoint,
            netns,
            resolver: None,
            envs: Vec::new(),
            process: None,
        }
    }

    /// The same agent on another machine, before it runs: its state directory was copied with its key.
    pub(crate) async fn clone_of(&self) -> Self {
        let scratch = Scratch::new();
        Program::new("cp").arg("-a").arg(self.dir()).arg(scratch.path("agent")).run().await.ok();
        let (name, endpoint) = (self.name.clone(), self.endpoint.clone());
        Self { scratch, name, endpoint, netns: None, resolver: None, envs: Vec::new(), process: None }
    }

    /// The command that enrolls it with a token.
    pub(crate) fn enrollment(&self, token: &str) -> Program {
        let file = self.scratch.write("token", token);
        let program = self.wrapped(&["agent", "enroll", "--name", &self.name, "--state-dir"]).arg(self.dir());
        program.arg("--token-file").arg(file)
    }

    /// Makes it run in a network namespace.
    pub(crate) fn in_netns(mut self, netns: &str) -> Self {
        self.netns = Some(netns.to_owned());
        self
    }

    /// Makes it use another resolv.conf.
    pub(crate) fn with_resolver(mut self, file: &Path) -> Self {
        self.resolver = Some(file.to_owned());
        self
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What its commands and its process, from its next start on, have beside the test's own environment.
    pub(crate) fn set_env(&mut self, envs: &[(String, String)]) {
        self.envs = envs.to_vec();
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.scratch.path("agent")
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Writes agent.yaml: the endpoint and then `more` (top-level keys).
    pub(crate) fn configure(&self, more: &str) {
        self.configure_endpoint(&self.endpoint, more);
    }

    pub(crate) fn configure_endpoint(&self, endpoint: &str, more: &str) {
        let text =
            format!("version: 1\ngateway: {{endpoints: [\"{endpoint}\"]}}\nlog: {{format: json, level: debug}}\n{more}\n");
        write_private(&self.dir().join("agent.yaml"), text);
    }

    /// `targets:` of kind tcp on loopback.
    pub(crate) fn targets(pairs: &[(&str, SocketAddr)]) -> String {
        if pairs.is_empty() {
            return String::new();
        }
        pairs.iter().fold("targets:\n".to_owned(), |mut text, (name, address)| {
            let _ = writeln!(text, "  {name}: {{kind: tcp, address: \"{address}\", allow_loopback: true}}");
            text
        })
    }

    /// Starts it and waits until it is connected.
    pub(crate) async fn start(&mut self) {
        self.launch();
        self.connected().await;
    }

    /// Starts it without waiting.
    pub(crate) fn launch(&mut self) {
        self.process = None;
        self.process = Some(self.wrapped(&["agent", "run", "--state-dir"]).arg(self.dir()).start());
    }

    /// A command on its state directory.
    pub(crate) fn command(&self, args: &[&str]) -> Program {
        self.wrapped(args).arg("--state-dir").arg(self.dir())
    }

    fn wrapped(&self, args: &[&str]) -> Program {
        let mut program = Program::underpass().args(args);
        if let Some(netns) = &self.netns {
            program = program.netns(netns);
        }
        if let Some(file) = &self.resolver {
            program = program.resolver(file);
        }
        self.envs.iter().fold(program, |program, (name, value)| program.env(name, value))
    }

    /// `agent status --json`, when a running agent answers.
    pub(crate) async fn status(&self) -> Option<Value> {
        let done = self.command(&["agent", "status", "--json"]).run().await;
        serde_json::from_str(&done.stdout).ok().filter(|status: &Value| status["sessions"].is_array())
    }

    /// The first session's part of the status.
    pub(crate) async fn session(&self) -> Option<Value> {
        self.status().await.map(|status| status["sessions"][0].clone())
    }

    pub(crate) async fn is_connected(&self) -> bool {
        self.session().await.is_some_and(|session| session["tunnel"] == "connected")
    }

    pub(crate) async fn connected(&mut self) {
        eventually("the agent is connected", SOON, async || {
            assert!(self.process().is_running(), "the agent ended");
            self.is_connected().await.then_some(())
        })
        .await;
    }

    /// Waits until the status shows this code as the last error, and yields its detail.
    pub(crate) async fn fails_with(&self, code: &str) -> String {
        let mut last = Value::Null;
        let within = Duration::from_secs(40);
        eventually(&format!("the agent's status shows {code}"), within, async || {
            let session = self.session().await?;
            if session["last_error"] != last {
                last = session["last_error"].clone();
                eprintln!("status: {session}");
            }
            (last["code"] == code).then(|| last["detail"].as_str().unwrap().to_owned())
        })
        .await
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the agent was started")
    }

    /// The same for who only looks at it and signals.
    pub(crate) fn running(&self) -> &Process {
        self.process.as_ref().expect("the agent was started")
    }

    pub(crate) fn take_process(&mut self) -> Process {
        self.process.take().expect("the agent was started")
    }

    pub(crate) fn audit(&self) -> Vec<Value> {
        audit(&self.dir())
    }

    pub(crate) async fn audited(&self, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        audited(&self.dir(), event, wanted).await
    }
}

/// One gateway and one agent with a listener for each target: what most tests need.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) agent: Agent,
    ports: Vec<(String, u16)>,
}

impl Site {
    pub(crate) async fn new(targets: &[(&str, SocketAddr)]) -> Self {
        let names: Vec<_> = targets.iter().map(|(name, _)| *name).collect();
        Self::with(&names, "", &Agent::targets(targets)).await
    }

    /// Listeners for `names`, more of gateway.yaml (top-level keys), and the rest of agent.yaml.
    pub(crate) async fn with(names: &[&str], gateway_more: &str, agent_more: &str) -> Self {
        let ports: Vec<_> = names.iter().map(|name| ((*name).to_owned(), free_port())).collect();
        let mut gateway = Gateway::init().await;
        gateway.configure(&(Self::listeners(&ports) + gateway_more));
        gateway.start().await;
        let mut agent = Agent::enroll(&gateway, "a1").await;
        agent.configure(agent_more);
        agent.start().await;
        Self::of(gateway, agent, ports)
    }

    /// A site of parts that run already.
    pub(crate) fn of(gateway: Gateway, agent: Agent, ports: Vec<(String, u16)>) -> Self {
        Self { gateway, agent, ports }
    }

    /// `listeners:` for the site's targets, to write gateway.yaml anew.
    pub(crate) fn listeners(ports: &[(String, u16)]) -> String {
        if ports.is_empty() {
            return String::new();
        }
        let targets: Vec<_> = ports.iter().map(|(name, port)| (*port, format!("acme/dc1/{name}"))).collect();
        Gateway::listeners(&targets.iter().map(|(port, target)| (*port, target.as_str())).collect::<Vec<_>>())
    }

    /// Where clients reach a target.
    pub(crate) fn at(&self, target: &str) -> SocketAddr {
        loopback(self.ports.iter().find(|(name, _)| name == target).expect("the site has that target").1)
    }

    /// A client's connection to a target.
    pub(crate) async fn client(&self, target: &str) -> TcpStream {
        TcpStream::connect(self.at(target)).await.unwrap()
    }
}

/// Every whole line of a state directory's audit, the rotated files first.
fn audit(dir: &Path) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(dir.join("audit")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| (path.ends_with("audit.jsonl"), path.clone()));
    let text: String = files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn audited(dir: &Path, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let what = format!("the audit of {} has such a `{event}`", dir.display());
    let _shown = ShownOnFailure(dir);
    eventually(&what, SOON, async || audit(dir).into_iter().find(|row| row["event"] == event && wanted(row))).await
}

/// Shows a state directory's audit when the test fails meanwhile.
struct ShownOnFailure<'a>(&'a Path);

impl Drop for ShownOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            audit(self.0).iter().rev().take(20).rev().for_each(|row| eprintln!("audit: {row}"));
        }
    }
}

/// A GET over plain HTTP: status and body, or nothing when nobody answers.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}
