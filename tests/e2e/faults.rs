//! Faults of networks and processes, each applied to real agents and gateways that carry traffic of which every byte is known.
//! Refuses to know how a tunnel survives them.

mod chaos;
mod checker;
mod cuts;
mod detection;
mod flow;
mod impairment;
mod processes;
mod targets;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::fixtures::forwarder::{Break, Forwarder, Manner};
use crate::fixtures::routed::{GATEWAY, Routed, Way};
use crate::harness::process::Process;
use crate::harness::site::{Agent, Gateway};
use crate::harness::{SOON, always, eventually, free_port, loopback};
use checker::{Load, Report, Traffic};

/// A dead path is noticed within 6 s; the rest is what a busy machine and the looking itself take.
const NOTICED: Duration = Duration::from_secs(7);

/// What can be done to an agent's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Packets vanish in both directions.
    Silence,
    /// Packets of one direction vanish.
    SilenceOf(Way),
    /// Every packet is answered with a reset.
    Resets,
    /// So many packets of a hundred vanish.
    Loss(u8),
    /// Large packets vanish, small ones pass.
    LargeLost,
    /// The router's link is down.
    LinkDown,
    /// The link carries so much and no more.
    Rate(&'static str),
    /// The agent's process is stopped.
    AgentStopped,
    /// The gateway's is.
    GatewayStopped,
    /// The router has another address from now on, and has forgotten every connection.
    RouterRenumbered,
    /// The router has forgotten every connection, and drops what comes of them.
    RouterForgot,
    /// The site has another address.
    SiteRenumbered,
    /// A program in the middle breaks the connection.
    Broken(Break),
}

impl Fault {
    /// Whether nothing passes until it is mended, however often an agent tries.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Self::Silence | Self::SilenceOf(_) | Self::LargeLost | Self::LinkDown)
    }
}

/// An agent whose way to the gateway can fail.
pub(crate) struct Member {
    pub(crate) networks: Routed,
    pub(crate) forwarder: Forwarder,
    pub(crate) agent: Agent,
}

/// A gateway in the cloud, agents of one group behind a router each, and a listener for their target.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) members: Vec<Member>,
    pub(crate) entry: SocketAddr,
    pub(crate) traffic: Traffic,
}

impl Rig {
    /// One agent.
    pub(crate) async fn new() -> Self {
        Self::with(1, "", Manner::default()).await
    }

    /// Several, with more keys under `gateway:` (each line indented by two spaces), over paths on which bytes pass so.
    pub(crate) async fn with(agents: usize, keys: &str, manner: Manner) -> Self {
        let mut networks = Vec::new();
        for _ in 0..agents {
            networks.push(Routed::new().await);
        }
        let traffic = Traffic::new([0, 0, 0, 0].into()).await;
        let (mut gateway, entry) = (Gateway::init_at(GATEWAY, None).await, loopback(free_port()));
        gateway.configure_gateway(keys, &Gateway::listeners(&[(entry.port(), "acme/dc1/any")]));
        gateway.start().await;
        let mut members = Vec::new();
        for (number, networks) in networks.into_iter().enumerate() {
            let forwarder = Forwarder::start((GATEWAY, 0).into(), gateway.at).await;
            forwarder.pass(manner);
            let agent = Agent::enroll(&gateway, &format!("a{number}")).await.in_netns(networks.site());
            let target = SocketAddr::new(networks.lan(), traffic.target().port());
            let targets = format!("targets:\n  any: {{kind: tcp, address: \"{target}\"}}\n");
            agent.configure_endpoint(&format!("wss://{}", forwarder.address()), &targets);
            members.push(Member { networks, forwarder, agent });
        }
        for member in &mut members {
            member.agent.start().await;
        }
        Self { gateway, members, entry, traffic }
    }

    /// One agent with traffic through it.
    pub(crate) async fn loaded(load: Load) -> Self {
        let rig = Self::new().await;
        rig.traffic.start(rig.entry, load).await;
        rig
    }

    /// Lets an agent's way fail.
    pub(crate) async fn apply(&self, number: usize, fault: Fault) {
        let Member { networks, forwarder, agent } = &self.members[number];
        match fault {
            Fault::Silence => networks.does(&[Way::Up, Way::Down], "", "drop").await,
            Fault::SilenceOf(way) => networks.does(&[way], "", "drop").await,
            Fault::Resets => networks.does(&[Way::Up, Way::Down], "meta l4proto tcp", "reject with tcp reset").await,
            Fault::Loss(percent) => {
                networks.does(&[Way::Up, Way::Down], &format!("numgen random mod 100 < {percent}"), "drop").await;
            }
            Fault::LargeLost => networks.does(&[Way::Up, Way::Down], "meta length > 1000", "drop").await,
            Fault::LinkDown => networks.link("down").await,
            Fault::Rate(rate) => networks.slows_to(rate).await,
            Fault::AgentStopped => agent.running().signal(Signal::STOP),
            Fault::GatewayStopped => self.gateway.running().signal(Signal::STOP),
            Fault::RouterRenumbered => networks.renumber_router().await,
            Fault::RouterForgot => networks.forgets().await,
            Fault::SiteRenumbered => networks.renumber_site().await,
            Fault::Broken(how) => forwarder.break_all(how),
        }
    }

    /// Ends a fault that does not end by itself.
    pub(crate) async fn mend(&self, number: usize, fault: Fault) {
        let Member { networks, agent, .. } = &self.members[number];
        match fault {
            Fault::AgentStopped => agent.running().signal(Signal::CONT),
            Fault::GatewayStopped => self.gateway.running().signal(Signal::CONT),
            Fault::RouterRenumbered | Fault::RouterForgot | Fault::SiteRenumbered | Fault::Broken(_) => {}
            _ => networks.mend().await,
        }
    }

    /// Waits until the agent no longer says that it is connected, or, since it may be again at once, that it was not.
    pub(crate) async fn noticed_by_agent(&self) {
        let agent = &self.members[0].agent;
        let noticed = async || !breaks(&agent.audit()).is_empty() || !agent.is_connected().await;
        eventually("the agent no longer says connected", NOTICED, async || noticed().await.then_some(())).await;
    }

    /// Waits until the gateway's audit has more rows of a broken link than before.
    pub(crate) async fn noticed_by_gateway(&self, before: usize) -> Value {
        let rows = async || breaks(&self.gateway.audit()).into_iter().nth(before);
        eventually("the gateway has noticed", NOTICED, rows).await
    }

    /// How many broken links the gateway's audit has.
    pub(crate) fn breaks(&self) -> usize {
        breaks(&self.gateway.audit()).len()
    }

    /// Lets time pass, in which no end may take the link for broken.
    pub(crate) async fn stays_connected(&self, what: &str, during: Duration) {
        let before = self.breaks();
        always(what, during, async || self.breaks() == before).await;
        assert!(self.members[0].agent.is_connected().await, "{what}");
    }

    /// Ends all traffic, which has to have been whole.
    pub(crate) async fn finish(self) -> Report {
        let report = self.traffic.finish(SOON).await;
        assert!(report.is_whole(), "{report}");
        report
    }
}

/// How long a fault of ten minutes lasts: its full length when the environment says so.
pub(crate) fn shortened(seconds: u64) -> Duration {
    Duration::from_secs(if std::env::var_os("FULL").is_some() { 600 } else { seconds })
}

/// Lets a fault last.
pub(crate) async fn lasts(during: Duration) {
    always("time passes", during, async || true).await;
}

/// The rows of an audit that tell of a link that was broken.
pub(crate) fn breaks(rows: &[Value]) -> Vec<Value> {
    rows.iter().filter(|row| row["event"] == "lane_broken" || row["event"] == "disconnected").cloned().collect()
}

/// The seconds of processor time that a process has used.
pub(crate) fn cpu_seconds(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    // After the name in brackets: the 12th and 13th fields, in hundredths.
    let (_, rest) = stat.rsplit_once(") ").expect("a process has a name");
    rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Prints a figure that a report can quote.
pub(crate) fn measured(what: &str, since: Instant) {
    eprintln!("measured: {what}: {:.1} s", since.elapsed().as_secs_f64());
}
