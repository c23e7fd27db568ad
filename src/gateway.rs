//! The gateway: takes clients on one side and agents' sessions on the other, and relays between them.
//! It refuses to know the agent's side, the store, who administers it, and files of configuration.

pub mod callers;
mod canary;
pub mod enrollment;
#[cfg(test)]
pub(crate) mod fixture;
pub(crate) mod http;
pub mod ingress;
pub mod issuer;
mod lanes;
pub mod listener;
pub mod port;
pub mod quota;
pub mod reauthorise;
pub mod registry;
pub mod relay;
pub mod router;
pub mod shares;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use time::OffsetDateTime;

use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Failure};
use crate::base::drain::{Drain, Drained};
use crate::base::endpoint::HostPort;
use crate::base::id::{AgentId, InstanceId, Name};
use crate::base::limits::{
    HANDSHAKE_DEADLINE, LANES_PER_MINUTE, LOGIN_FAILURES_PER_MINUTE, MAX_ENROLLING, MAX_ENROLLING_PER_SOURCE,
    MAX_SESSIONS_PER_AGENT, RESUMES_PER_MINUTE, SESSIONS_PER_MINUTE, THROTTLED_SOURCES,
};
use crate::base::secret::Secret;
use crate::base::suspend::Wakes;
use crate::base::tasks::Tasks;
use crate::base::throttle::{Throttle, Verdict};
use crate::observe::audit::{Audit, Event};
use crate::pki::revoke::Revocations;
use crate::pki::tls::GatewayTls;
use crate::tunnel::listen::Caps;
use callers::{Caller, Callers};
use ingress::Terms;
use issuer::Issuer;
use registry::Registry;
use router::Table;
use shares::Shares;

/// What a gateway is told by whoever starts it.
pub struct Settings {
    /// Its name, as in its certificate.
    pub id: Name,
    /// Who may, for a tunnel.
    pub allow_from: AllowFrom,
    /// Who may, for an enrollment.
    pub enroll_from: AllowFrom,
    /// Who may, for a client's CONNECT.
    pub clients_from: AllowFrom,
    /// What is settled for those.
    pub client_terms: Terms,
    /// Balancers before the port: their connections begin with a PROXY header.
    pub proxy_from: AllowFrom,
    /// Connections per listener.
    pub caps: Caps,
    /// Streams of one session.
    pub max_streams: usize,
    /// Lanes of one session.
    pub max_lanes: usize,
    /// Where agents reach this instance past any balancer, for further lanes.
    pub direct_address: Option<HostPort>,
    /// How long a broken lane waits for another connection; zero: not at all.
    pub resume_window: Duration,
    /// How long open streams may go on at the end.
    pub drain_timeout: Duration,
}

/// One gateway process.
pub struct Gateway {
    settings: Settings,
    instance: InstanceId,
    tls: Arc<GatewayTls>,
    revocations: Revocations,
    callers: Callers,
    issuer: Arc<dyn Issuer>,
    registry: Registry,
    table: Table,
    audit: Audit,
    drain: Drain,
    wakes: Wakes,
    /// Clients whose login failed.
    failed_logins: Mutex<Throttle>,
    /// Connections of strangers who enroll, by source.
    enrolling: Arc<Shares<IpAddr>>,
    /// Agents' sessions, from before their greeting, and how fast each agent begins them.
    held: Arc<Shares<AgentId>>,
    begun: PerMinute,
    /// How fast each agent tries further lanes.
    joined: PerMinute,
    /// How fast it tries to take up broken ones.
    resumed: PerMinute,
    /// Streams that clients' requests share.
    streams: http::Streams,
    /// Clients' connections, which a drain waits for.
    clients: Tasks,
    /// Agents' sessions, which end after the last client.
    sessions: Tasks,
}

impl Gateway {
    /// A gateway that listens nowhere yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        tls: Arc<GatewayTls>,
        revocations: Revocations,
        callers: Callers,
        issuer: Arc<dyn Issuer>,
        audit: Audit,
        tasks: &Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            instance: InstanceId::fresh(),
            tls,
            revocations,
            callers,
            issuer,
            registry: Registry::default(),
            table: Table::default(),
            audit,
            drain: Drain::new(),
            wakes: Wakes::new(),
            failed_logins: Mutex::new(Throttle::new(LOGIN_FAILURES_PER_MINUTE, THROTTLED_SOURCES)),
            enrolling: Shares::new(MAX_ENROLLING_PER_SOURCE, MAX_ENROLLING),
            held: Shares::new(MAX_SESSIONS_PER_AGENT, usize::MAX),
            begun: per_minute(SESSIONS_PER_MINUTE),
            joined: per_minute(LANES_PER_MINUTE),
            resumed: per_minute(RESUMES_PER_MINUTE),
            streams: http::Streams::default(),
            clients: tasks.child(),
            sessions: tasks.child(),
        })
    }

    /// This run of the process.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// The live sessions.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Tenants' limits.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Whether it takes clients and agents.
    ///
    /// # Errors
    /// `stopping`.
    pub fn ready(&self) -> Result<(), Failure> {
        if self.drain.begun() { Err(Failure::new(Code::Stopping, "shutting down")) } else { Ok(()) }
    }

    /// The caller whose token this is. A right one is always taken: who shares an address with somebody who guesses is not to suffer for it.
    ///
    /// # Errors
    /// `login_failed`; `login_limited` instead when too many from there have failed within a minute.
    pub(in crate::gateway) fn login(&self, token: &Secret, source: IpAddr) -> Result<Arc<Caller>, Failure> {
        self.callers.login(token.expose(), OffsetDateTime::now_utc()).map_err(|failure| {
            let mut failed = self.failed_logins.lock().unwrap_or_else(PoisonError::into_inner);
            match failed.admit(source, Instant::now()) {
                Verdict::Admitted => failure,
                Verdict::Limited { .. } => Failure::new(Code::LoginLimited, failure.detail),
            }
        })
    }

    /// A connection of which too many of the same source wait.
    pub(in crate::gateway) fn crowded(&self, peer: SocketAddr, what: &'static str) {
        let detail = format_args!("too many connections of {} wait for their handshake", peer.ip());
        self.refused(peer, &Failure::new(Code::HandshakeLimited, detail), what);
    }

    /// Records a connection of somebody who has proved nothing and was refused, and logs it as long as its source is told of.
    pub(in crate::gateway) fn refused(&self, peer: SocketAddr, failure: &Failure, what: &'static str) {
        let event = Event::ConnectRefused { source: peer.ip(), code: failure.code, detail: &failure.detail };
        if self.audit.limited(&event) {
            tracing::info!(source = %peer, code = %failure.code, detail = %failure.detail, "{what}");
        }
    }

    /// Notices when this process has slept. Runs until it is dropped.
    pub async fn watch_clock(&self) {
        self.wakes.watch().await;
    }

    /// Closes streams that were kept for a next request for long enough. Runs until it is dropped.
    pub async fn tidy_streams(&self) {
        self.streams.tidy().await;
    }

    /// Ends well: nothing new, agents told, streams given their time, then sessions closed.
    pub async fn drain(&self) -> Drained {
        self.drain.begin();
        self.streams.close_idle();
        let drained = self.drain.finish(&self.clients, self.settings.drain_timeout).await;
        self.registry.close_all();
        if tokio::time::timeout(HANDSHAKE_DEADLINE, self.sessions.join()).await.is_err() {
            self.sessions.abort().await;
        }
        drained
    }
}

/// So many of each agent in a minute.
type PerMinute = RateLimiter<AgentId, DefaultKeyedStateStore<AgentId>, Monotonic, NoOpMiddleware<Duration>>;

/// The runtime's clock, which a simulation sets.
struct Monotonic(tokio::time::Instant);

impl Clock for Monotonic {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

fn per_minute(count: u32) -> PerMinute {
    let quota = Quota::per_minute(NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN));
    RateLimiter::new(quota, DefaultKeyedStateStore::default(), Monotonic(tokio::time::Instant::now()))
}
