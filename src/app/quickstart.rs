//! Gateway and agent in one process on loopback, through the real enrollment, with throwaway state and a sample target: see it
//! work before installing anything. It refuses to be a way to run in production.

mod cable;

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use self::cable::Cable;
use super::{Place, agent, gateway, ops, process};
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Exit, Failure, OrFail};
use crate::base::drain::{Drain, Drained};
use crate::base::endpoint::{Endpoint, Host, HostPort};
use crate::base::id::{GroupId, Name};
use crate::base::tasks::Tasks;
use crate::config;
use crate::control::Caller;
use crate::observe::audit::Audit;
use crate::observe::log::{self, Color, Format, Level, LogSettings};
use crate::observe::metrics;
use crate::pki::tls;
use crate::tunnel::dial::Egress;
use crate::tunnel::listen::bind;
use crate::wire::token::EnrollmentToken;

/// How long open streams may go on once the end was asked for: somebody sits there and waits.
const DRAIN: Duration = Duration::from_secs(5);

/// The largest download that the sample target gives.
const MAX_SAMPLE_MIB: u64 = 64 * 1024;

/// What is shown while it runs.
#[derive(Debug)]
pub enum Shown {
    /// Everything is connected; this is where to go.
    Ready {
        /// `http://…` for the sample, `tcp://…` otherwise; it leads there from this host.
        url: String,
        /// What is behind it.
        target: String,
        /// Whether somebody sits there of whom each line cuts the link.
        keys: bool,
        /// Where clients connect, if others than those of this host can.
        open: Option<SocketAddr>,
    },
    /// The link between agent and gateway was cut.
    Cut,
    /// A row of the gateway's audit, as JSON.
    Row(Arc<str>),
    /// Ctrl-C: open streams may finish within this time.
    Draining(Duration),
    /// That is over.
    Ended(Exit),
}

/// Runs until Ctrl-C. Without a target it brings its own, a small HTTP server.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn run(target: Option<HostPort>, listen: SocketAddr, mut show: impl FnMut(Shown)) -> Result<Exit, Failure> {
    tls::install_provider();
    // What happens to streams is shown; what both ends log of it beside that would say it three times.
    let _log = log::init(&LogSettings { format: Format::Human, level: Level::Error, color: Color::Auto })?;
    process::raise_descriptor_limit();
    metrics::install("quickstart")?;
    let mut signals = process::Signals::listen()?;
    let tasks = Tasks::new();
    let state = tempfile::tempdir().or_fail(Code::StateUnwritable, "the throwaway state")?;
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let port = socket.local_addr().or_fail(Code::ListenFailed, "the gateway's port")?;
    let (cable, endpoint) = Cable::lay(port, &tasks)?;
    let (scheme, target) = match target {
        Some(target) => ("tcp", target),
        None => ("http", sample(cable.clone(), &tasks)?.into()),
    };
    let (mut stage, mut rows) = Stage::set(&state, socket, Endpoint(endpoint.into()), &target, listen).await?;
    let at = stage.gateway.listeners.first().copied().unwrap_or(listen);
    stage.connected(&mut rows).await?;
    let (mut keys, mut cuts) = (Keys::new(), cable.cuts());
    show(Shown::Ready {
        url: format!("{scheme}://{}", from_here(at)),
        target: target.to_string(),
        keys: keys.announced,
        open: Some(at).filter(|at| !at.ip().is_loopback()),
    });
    loop {
        tokio::select! {
            biased;
            wish = signals.next() => if wish == process::Wish::End { break },
            () = keys.line() => cable.cut(),
            Ok(()) = cuts.changed() => show(Shown::Cut),
            never = show_rows(&mut rows, &mut show) => match never {},
        }
    }
    show(Shown::Draining(DRAIN));
    let exit = tokio::select! {
        biased;
        exit = signals.drain(stage.end()) => exit,
        never = show_rows(&mut rows, &mut show) => match never {},
    };
    tasks.abort().await;
    // What ended last.
    while let Ok(row) = rows.try_recv() {
        show(Shown::Row(row));
    }
    show(Shown::Ended(exit));
    Ok(exit)
}

/// Shows the audit as it is written.
async fn show_rows(rows: &mut Rows, show: &mut impl FnMut(Shown)) -> Infallible {
    loop {
        match rows.recv().await {
            Ok(row) => show(Shown::Row(row)),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// An address by which this host reaches what listens there.
fn from_here(mut at: SocketAddr) -> SocketAddr {
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    at
}

/// The gateway's audit.
type Rows = broadcast::Receiver<Arc<str>>;

/// Both ends, connected.
struct Stage {
    gateway: gateway::Running,
    agent: agent::Running,
}

impl Stage {
    /// A gateway on the socket, and an agent that reaches it at the endpoint.
    async fn set(
        state: &TempDir,
        socket: TcpListener,
        endpoint: Endpoint,
        target: &HostPort,
        listen: SocketAddr,
    ) -> Result<(Self, Rows), Failure> {
        let (near, far) = (state.path().join("gateway"), state.path().join("agent"));
        let (audit, rows) = Audit::discard().observed();
        let gateway = start_gateway(&near, &endpoint, socket, listen, audit).await?;
        enroll(&gateway, &far).await?;
        let agent = start_agent(&far, &endpoint, target)?;
        Ok((Self { gateway, agent }, rows))
    }

    /// Waits for the first session.
    async fn connected(&mut self, rows: &mut Rows) -> Result<(), Failure> {
        loop {
            if !self.gateway.gateway.registry().sessions().is_empty() {
                return Ok(());
            }
            // The session's row comes after its entry in the registry.
            match rows.recv().await {
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(error) => return Err(Failure::new(Code::Internal, error)),
            }
        }
    }

    /// Both at once, so that neither takes the other's end for a fault.
    async fn end(self) -> Drained {
        let (gateway, agent) = tokio::join!(self.gateway.end(), self.agent.end());
        if gateway == Drained::Clean { agent } else { gateway }
    }
}

fn names() -> (GroupId, Name) {
    let name = |text| Name::parse(text).expect("a valid name");
    (GroupId { tenant: name("demo"), group: name("here") }, name("sample"))
}

async fn start_gateway(
    state_dir: &Path,
    endpoint: &Endpoint,
    socket: TcpListener,
    listen: SocketAddr,
    audit: Audit,
) -> Result<gateway::Running, Failure> {
    let place = Place { state_dir: state_dir.to_owned(), config: None };
    let id = Name::parse("gw1").expect("a valid name");
    let port = socket.local_addr().or_fail(Code::ListenFailed, "the gateway's port")?;
    gateway::init(&place, &id, endpoint, port, None)?;
    let (group, target) = names();
    let allow = if listen.ip().is_loopback() { String::new() } else { ", allow_from: [\"0.0.0.0/0\", \"::/0\"]".to_owned() };
    let drain = DRAIN.as_secs();
    let text = format!(
        "version: 1\ngateway: {{id: {id}, endpoints: [\"{endpoint}\"], listen: \"{port}\"}}\nlisteners: [{{listen: \"{listen}\", target: {group}/{target}{allow}}}]\ndrain: {{timeout: {drain}s}}\n"
    );
    let config = config::parse_gateway("quickstart", &text)?;
    let running = gateway::Running::start(config, state_dir, audit, socket, vec![endpoint.clone()]).await?;
    Ok(running)
}

/// The same way as everywhere: a token, a key made here, a signing request over pinned TLS.
async fn enroll(gateway: &gateway::Running, state_dir: &Path) -> Result<(), Failure> {
    let caller = Caller { by: "quickstart".to_owned() };
    let token = gateway.control.create_token(&names().0, None, &caller).await?.token;
    let token = EnrollmentToken::parse(token.expose())?;
    let place = Place { state_dir: state_dir.to_owned(), config: None };
    agent::enroll(&place, &token, Some(&Name::parse("laptop").expect("a valid name")), &Egress::default()).await?;
    Ok(())
}

fn start_agent(state_dir: &Path, endpoint: &Endpoint, target: &HostPort) -> Result<agent::Running, Failure> {
    let loopback = match &target.host {
        Host::Ip(ip) => ip.to_canonical().is_loopback(),
        Host::Dns(name) => name == "localhost",
    };
    let text = format!(
        "version: 1\ngateway: {{endpoints: [\"{endpoint}\"]}}\ntargets: {{{}: {{kind: tcp, address: \"{target}\", allow_loopback: {loopback}}}}}\ndrain: {{timeout: {}s}}\n",
        names().1,
        DRAIN.as_secs()
    );
    agent::Running::start(config::parse_agent("quickstart", &text)?, state_dir, Audit::discard())
}

/// A small HTTP server on loopback, in the place of a system behind the agent.
fn sample(cable: Cable, tasks: &Tasks) -> Result<SocketAddr, Failure> {
    let router = Router::new()
        .route("/", get(|| async { Html(include_str!("quickstart/sample.html")) }))
        .route("/mib/{count}", get(mebibytes))
        .route("/echo", post(|body: Body| async { body }))
        // Through the very link that it cuts; the answer comes all the same.
        .route(
            "/cut",
            post(async move || {
                cable.cut();
                "cut\n"
            }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, "not here; there are /, /mib/COUNT, POST /echo and POST /cut\n") });
    ops::serve_sample((Ipv4Addr::LOCALHOST, 0).into(), router, AllowFrom::all(), &Drain::new(), tasks)
}

/// What is typed on standard input.
struct Keys {
    input: Option<tokio::fs::File>,
    /// Whether somebody sits there, and is to be told that it counts.
    announced: bool,
}

impl Keys {
    /// A process in the background is stopped when it reads its terminal.
    fn new() -> Self {
        let stdin = io::stdin();
        let foreground = || rustix::termios::tcgetpgrp(&stdin).ok() == Some(rustix::process::getpgrp());
        let announced = stdin.is_terminal() && foreground();
        let input = Some(&stdin).filter(|stdin| announced || !stdin.is_terminal());
        let input = input.and_then(|stdin| rustix::io::dup(stdin).ok());
        Self { input: input.map(|input| tokio::fs::File::from_std(input.into())), announced }
    }

    /// Ends with each line.
    async fn line(&mut self) {
        while let Some(input) = &mut self.input {
            match input.read_u8().await {
                Ok(b'\n') => return,
                Ok(_) => {}
                Err(_) => self.input = None,
            }
        }
        std::future::pending().await
    }
}

/// So many MiB of zeros, one at a time.
async fn mebibytes(UrlPath(count): UrlPath<u64>) -> impl IntoResponse {
    let block = Bytes::from_static(&[0; 1024 * 1024]);
    let blocks = (0..count.min(MAX_SAMPLE_MIB)).map(move |_| Ok::<_, std::convert::Infallible>(block.clone()));
    Body::from_stream(futures_util::stream::iter(blocks))
}
