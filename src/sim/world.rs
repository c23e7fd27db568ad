//! One world of a simulation: a gateway, agents at their sites, and the network between them; the real ones but for their sockets and
//! targets. Refuses to know what goes wrong when, and what travels.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::book::Book;
use super::chance::Chance;
use super::network::{Heard, Network};
use super::plan::Plan;
use super::streams;
use super::trace::Trace;
use crate::agent::acceptor::{Context, Serve};
use crate::agent::echo;
use crate::agent::reach::{Reach, Reaching, Secured};
use crate::agent::reauthorise::Grounds;
use crate::agent::{Agent, fixture as agents};
use crate::base::code::{Code, Failure};
use crate::base::drain::Drain;
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::id::{InstanceId, SessionId, TargetId};
use crate::base::random;
use crate::base::tasks::Tasks;
use crate::gateway::port::{self, Shown};
use crate::gateway::registry::Live;
use crate::gateway::{Gateway, fixture as gateways};
use crate::observe::audit::Audit;
use crate::pki::identity::{Identity, Role, Serial};
use crate::tunnel::mux::Stream;
use crate::tunnel::session::Wired;
use crate::tunnel::session::lanes::Lane;
use crate::wire::open::{Open, Spoken};

/// What agents dial, and the address at which their gateway says that it is reached directly.
const ENDPOINT: &str = "wss://203.0.113.1:443";
const DIRECT: &str = "203.0.113.9:443";

/// The one group, and the one target.
pub(super) const GROUP: &str = "acme/dc1";
pub(super) const TARGET: &str = "db";

/// Everything there is.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) trace: Arc<Trace>,
    pub(super) network: Network,
    pub(super) book: Book,
    audit: Audit,
    gateway: Mutex<(Arc<Gateway>, Tasks)>,
    sites: Mutex<Vec<Site>>,
    heard: Mutex<BTreeMap<InstanceId, Heard>>,
    /// Agents' ends of lanes that have carried streams.
    lanes: Mutex<Vec<(SessionId, Lane)>>,
    /// What runs beside gateway and agents.
    pub(super) tasks: Tasks,
}

/// A host with an agent on it.
#[derive(Clone)]
struct Site {
    agent: Arc<Agent>,
    drain: Drain,
    tasks: Tasks,
}

impl World {
    pub(super) fn new(plan: Plan, mut chance: Chance, trace: Arc<Trace>) -> Arc<Self> {
        let (audit, rows) = Audit::discard().observed();
        let tasks = Tasks::new();
        let world = Arc::new(Self {
            network: Network::new(trace.clone(), plan.narrow, chance.fork()),
            book: Book::new(trace.clone(), plan.strict),
            gateway: Mutex::new(gateway(&plan, &audit)),
            sites: Mutex::default(),
            heard: Mutex::default(),
            lanes: Mutex::default(),
            plan,
            trace,
            audit,
            tasks,
        });
        world.tasks.spawn(tell(world.trace.clone(), rows));
        let sites = (0..world.plan.sites).map(|site| world.agent(site)).collect();
        *world.sites() = sites;
        world
    }

    /// The gateway that is dialled now.
    pub(super) fn gateway(&self) -> Arc<Gateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// A session of the group that takes streams, as a client's request finds one.
    pub(super) fn pick(&self) -> Option<Arc<Live>> {
        let target: TargetId = format!("{GROUP}/{TARGET}").parse().expect("a target");
        let live = self.gateway().registry().pick(&target.group, &target.target, &[]).ok()?;
        // A session that ends before its agent has said that it knows of it, is over with its streams.
        (!self.plan.strict || live.link.standing().is_some_and(|standing| standing.known)).then_some(live)
    }

    /// Whether every site's agent can be given streams.
    pub(super) fn serves_everywhere(&self) -> bool {
        let sessions = self.gateway().registry().sessions();
        self.sites().iter().all(|site| sessions.iter().any(|live| live.instance == site.agent.instance() && live.usable()))
    }

    /// For how long nothing of this agent's process has reached a gateway.
    pub(super) fn silence(&self, instance: InstanceId) -> Duration {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&instance).map_or(Duration::MAX, |heard| heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed())
    }

    /// Another gateway takes over; the one before drains, or its process is killed.
    pub(super) async fn replace_gateway(&self, drains: bool) {
        self.trace.note(format_args!("the gateway is replaced, drains: {drains}"));
        let next = gateway(&self.plan, &self.audit);
        let (before, tasks) = std::mem::replace(&mut *self.gateway.lock().unwrap_or_else(PoisonError::into_inner), next);
        if drains {
            let _ = before.drain().await;
        }
        tasks.abort().await;
    }

    /// A site's agent is started anew, after it was shut down, killed, or its host is gone.
    pub(super) async fn replace_agent(self: &Arc<Self>, site: usize, end: AgentEnd) {
        self.trace.note(format_args!("the agent of site {site} is replaced: {end:?}"));
        let before = self.sites()[site].clone();
        match end {
            AgentEnd::Drains => {
                let _ = before.drain.finish(&before.tasks, self.plan.drain).await;
            }
            AgentEnd::Killed => {}
            AgentEnd::Unplugged => self.network.unplug(site),
        }
        before.tasks.abort().await;
        let next = self.agent(site);
        self.sites()[site] = next;
    }

    /// A site's host, or the gateway's, has been suspended for so long that its connections may be gone.
    pub(super) fn sleeps(&self, site: Option<usize>) {
        self.trace.note(format_args!("the host of {site:?} has slept"));
        self.network.troubles(Duration::ZERO);
        match site {
            Some(site) => self.sites()[site].agent.wakes().tell(Duration::from_secs(60)),
            // One after the other, as the runtime's own channel would not do it: it wakes several receivers in an order that no seed sets.
            None => self.gateway().registry().sessions().iter().for_each(|live| live.lanes.woken(Duration::from_secs(60))),
        }
    }

    /// Shuts everything down. Whatever is left then should not be.
    pub(super) async fn end(self: &Arc<Self>) {
        let sites = std::mem::take(&mut *self.sites());
        for Site { drain, tasks, .. } in &sites {
            let _ = drain.finish(tasks, self.plan.drain).await;
        }
        let (gateway, tasks) = self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = gateway.drain().await;
        let late = tokio::time::timeout(Duration::from_secs(30), tasks.join()).await.is_err();
        let (sessions, cables) = (gateway.registry().sessions().len(), self.network.count());
        if late || sessions + cables > 0 {
            self.trace.wrong(format_args!("left at the end: tasks {late}, {sessions} sessions, {cables} cables"));
        }
        self.tasks.abort().await;
    }

    /// An agent's process at this site.
    fn agent(self: &Arc<Self>, site: usize) -> Site {
        let (drain, tasks, heard) = (Drain::new(), Tasks::new(), Heard::new(Mutex::new(Instant::now())));
        let mut settings = agents::settings(self.plan.max_streams);
        settings.endpoints = vec![ENDPOINT.parse().expect("an endpoint")];
        settings.agent = format!("{GROUP}/a{site}").parse().expect("an agent");
        settings.drain_timeout = self.plan.drain;
        let policy = agents::policy(&[(TARGET, agents::spec("192.0.2.1:1", false))]);
        let road = Road { world: Arc::downgrade(self), site, heard: heard.clone() };
        let answers = Answers(Arc::downgrade(self));
        let (audit, end) = (self.audit.clone(), drain.clone());
        let agent = Agent::with(settings, policy, audit, end, tasks.clone(), Box::new(road), Box::new(answers));
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(agent.instance(), heard);
        agent.dial();
        Site { agent, drain, tasks }
    }

    /// Agents' ends of the lanes that are there.
    pub(super) fn lanes(&self) -> MutexGuard<'_, Vec<(SessionId, Lane)>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|(_, lane)| !lane.link().has_ended());
        lanes
    }

    fn sites(&self) -> MutexGuard<'_, Vec<Site>> {
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an agent's process.
#[derive(Clone, Copy, Debug)]
pub(super) enum AgentEnd {
    Drains,
    Killed,
    Unplugged,
}

fn gateway(plan: &Plan, audit: &Audit) -> (Arc<Gateway>, Tasks) {
    let mut settings = gateways::settings();
    settings.max_lanes = plan.max_lanes;
    settings.max_streams = plan.max_streams;
    settings.drain_timeout = plan.drain;
    settings.resume_window = plan.window;
    settings.direct_address = plan.direct.then(|| DIRECT.parse().expect("an address"));
    let tasks = Tasks::new();
    (gateways::gateway_with(settings, audit.clone(), &tasks), tasks)
}

/// Both sides' rows are events.
async fn tell(trace: Arc<Trace>, mut rows: broadcast::Receiver<Arc<str>>) {
    loop {
        match rows.recv().await {
            Ok(row) => {
                let row: Value = serde_json::from_str(&row).unwrap_or_default();
                trace.row(row["event"].as_str().unwrap_or_default());
                let part = |key: &str| row.get(key).map(|value| format!(" {key}={value}")).unwrap_or_default();
                let parts: String = ["event", "agent", "lane", "generation", "code", "detail"].into_iter().map(part).collect();
                trace.note(format_args!("row{parts}"));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => trace.wrong(format_args!("more rows than can be read")),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The way from a site to the gateway.
struct Road {
    world: Weak<World>,
    site: usize,
    heard: Heard,
}

impl Reach for Road {
    fn proxy(&self, _: &Endpoint) -> Result<Option<HostPort>, Failure> {
        Ok(None)
    }

    fn secure<'a>(&'a self, at: &'a HostPort, _: &'a Endpoint) -> Reaching<'a> {
        Box::pin(async move {
            let gone = || Failure::new(Code::GatewayRefused, "the world has ended");
            let world = self.world.upgrade().ok_or_else(gone)?;
            world.trace.note(format_args!("site {} dials {at}", self.site));
            let (theirs, ours, peer) = world.network.dial(self.site, self.heard.clone()).await?;
            let direct = at.to_string() == DIRECT;
            if direct && !world.plan.direct_works {
                return Err(Failure::new(Code::GatewayUnreachable, "nothing is there"));
            }
            let mut exporter = [0; 32];
            random::fill(&mut exporter)?;
            let serial = Serial::random()?;
            let role = format!("spiffe://test.example/tenant/acme/group/dc1/agent/a{}", self.site);
            let role = Role::parse(&role).expect("a role");
            let until = OffsetDateTime::now_utc() + time::Duration::days(30);
            let identity = Identity { role, serial, not_before: OffsetDateTime::UNIX_EPOCH, not_after: until };
            // Its end is the gateway's.
            drop(port::take(&world.gateway(), Shown { io: Box::new(ours), identity, exporter, peer }));
            let gateway = Role::parse("spiffe://test.example/gateway/gw").expect("a role");
            let address = at.to_string().parse().ok();
            let (root, not_after) = (Vec::new().into(), until);
            let grounds = Grounds { serial, not_after, gateway_not_after: until, root };
            Ok(Secured { io: Box::new(theirs), gateway, exporter, address, grounds })
        })
    }
}

/// The agents' end of streams.
struct Answers(Weak<World>);

impl Serve for Answers {
    fn serve(&self, context: Arc<Context>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let world = self.0.upgrade();
        Box::pin(async move {
            let Some(world) = world else { return };
            let mut wired = Wired::new(stream);
            // A stream that is lost before it said what it wants is its client's to tell.
            let Ok(Some(open)) = wired.receive::<Open>().await else { return };
            // The gateway's canary.
            if open.spoken == Spoken::Echo {
                return echo::serve(&context.agent, wired).await;
            }
            world.lanes().push((context.session, context.lane.clone()));
            streams::answer(wired, context.lane.number(), &context.notifier, &world.book).await;
        })
    }
}
