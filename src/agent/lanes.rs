//! Further lanes of a session, as its gateway asks for them: where to dial, how often at most, and a lane's life. Whatever goes
//! wrong here, the session goes on with the lanes it has. It refuses to know what streams carry.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::acceptor::Context;
use super::reach::Secured;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::{Endpoint, HostPort};
use crate::base::floor;
use crate::base::id::SessionId;
use crate::base::limits::{DIAL_DEADLINE, LANE_DIALS_PER_MINUTE, LANE_MISSES, LANE_PAUSE};
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::observe::metrics;
use crate::pki::identity::Role;
use crate::tunnel::ledger::LaneAttendance;
use crate::tunnel::mux::{Incoming, Side};
use crate::tunnel::session::Notifier;
use crate::tunnel::session::lanes::{Lanes, Seat};
use crate::tunnel::upgrade;
use crate::wire::resume::Claim;

/// How the session's first lane came to be, and what its further ones need.
pub(super) struct Further {
    /// The agent.
    pub(super) agent: Arc<Agent>,
    /// What its link dials; every lane is verified under this name.
    pub(super) endpoint: Endpoint,
    /// Where the first lane got through.
    pub(super) origin: Origin,
    /// The session.
    pub(super) session: SessionId,
    /// What proves that a lane belongs to it.
    pub(super) secret: Secret,
    /// The gateway's hint where it can be dialled past any balancer.
    pub(super) direct_address: Option<HostPort>,
    /// Tells the gateway why a stream was reset.
    pub(super) notifier: Notifier,
    /// The lanes it has.
    pub(super) lanes: Lanes,
    /// Owner of the session's streams.
    pub(super) streams: Tasks,
    /// Owner of its further lanes.
    pub(super) serving: Tasks,
}

/// Who answered on the first lane, and at which address.
pub(super) struct Origin {
    /// The gateway's role, from its certificate.
    pub(super) gateway: Role,
    /// None through a proxy.
    pub(super) address: Option<SocketAddr>,
}

/// Dials what is asked for, until the session takes no more streams.
pub(super) async fn keep(further: Further, wanted: watch::Receiver<u32>, released: CancellationToken) {
    let (drain, lanes) = (further.agent.drain.clone(), further.lanes.clone());
    let further = Arc::new(further);
    let dialling = follow(wanted, &lanes, |turn| {
        let further = further.clone();
        async move { further.dial_next(turn).await }
    });
    tokio::select! {
        biased;
        () = drain.begins() => {}
        () = released.cancelled() => {}
        () = dialling => {}
    }
}

/// Whenever more lanes are wanted than there are, dials, and after too many misses makes do for a while. `dial` is given the
/// attempt's turn since lanes were last asked for.
async fn follow<F>(mut wanted: watch::Receiver<u32>, lanes: &Lanes, dial: impl Fn(usize) -> F)
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut budget = Budget::default();
    while wanted.changed().await.is_ok() {
        let (mut turn, mut misses) = (0, 0);
        while lanes.count() < usize::try_from(*wanted.borrow_and_update()).unwrap_or(usize::MAX) && misses < LANE_MISSES {
            if !budget.take(Instant::now()) {
                break;
            }
            match dial(turn).await {
                Ok(()) => {}
                // These say that another address would not help.
                Err(failure) if matches!(failure.code, Code::LaneRefused | Code::SessionLanes) => misses = LANE_MISSES,
                Err(_) => misses += 1,
            }
            turn += 1;
        }
        if misses >= LANE_MISSES {
            tokio::time::sleep(LANE_PAUSE).await;
            // What was asked meanwhile is asked again if it is still wanted.
            wanted.mark_unchanged();
        }
    }
}

impl Further {
    /// Where to dial, in this order: the direct address as far as the rules on it allow, where the first lane got through,
    /// every address of the endpoint; through a proxy, which resolves the name, the endpoint itself.
    async fn addresses(&self) -> Vec<HostPort> {
        let resolver = &self.agent.resolver;
        let of_endpoint = resolver.resolve(&self.endpoint.0).await.unwrap_or_default();
        let direct = match &self.direct_address {
            Some(at) => resolver.resolve(at).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let usable = direct.into_iter().filter(|direct| self.may_dial_directly(*direct, &of_endpoint));
        let mut addresses: Vec<SocketAddr> = usable.chain(self.origin.address).collect();
        let is_proxied = self.origin.address.is_none();
        if !is_proxied {
            addresses.extend(of_endpoint);
        }
        let mut addresses: Vec<HostPort> = addresses.into_iter().map(HostPort::from).collect();
        if is_proxied {
            addresses.push(self.endpoint.0.clone());
        }
        let mut seen = Vec::new();
        addresses.retain(|address| {
            !seen.contains(address) && {
                seen.push(address.clone());
                true
            }
        });
        addresses
    }

    /// The direct address comes from the gateway, which must not make the agent dial into its own site.
    fn may_dial_directly(&self, direct: SocketAddr, of_endpoint: &[SocketAddr]) -> bool {
        let settings = &self.agent.settings;
        let any = |is: fn(IpAddr) -> bool| of_endpoint.iter().any(|address| is(address.ip()));
        let loopback = any(|ip| floor::check(ip, false) == Err(Code::LoopbackForbidden));
        settings.endpoints.iter().any(|endpoint| endpoint.0.port == direct.port())
            && settings.floor.check(direct, loopback).is_ok()
            && (!floor::is_private(direct.ip()) || any(floor::is_private))
    }

    /// One attempt, each turn at the next address.
    async fn dial_next(self: &Arc<Self>, turn: usize) -> Result<(), Failure> {
        let attempt = async {
            let addresses = self.addresses().await;
            let nowhere = || Failure::new(Code::GatewayDnsFailed, format_args!("{} has no address", self.endpoint));
            let address = addresses.get(turn % addresses.len().max(1)).ok_or_else(nowhere)?;
            self.dial(address).await
        };
        let late = || Failure::new(Code::GatewayTimeout, format_args!("{}: no lane in time", self.endpoint));
        let dialled = tokio::time::timeout(DIAL_DEADLINE, attempt).await.unwrap_or_else(|_| Err(late()));
        if let Err(Failure { code, detail }) = &dialled {
            tracing::info!(session = %self.session, %code, detail, "no further lane");
        }
        dialled
    }

    /// From TCP to the lane's task.
    async fn dial(self: &Arc<Self>, address: &HostPort) -> Result<(), Failure> {
        let Secured { io, gateway, exporter, .. } = self.agent.reach.secure(address, &self.endpoint).await?;
        if gateway != self.origin.gateway {
            return Err(Failure::new(Code::NotHere, format_args!("{address} is another gateway")));
        }
        let seat = self.lanes.next_seat()?;
        let resume = Claim::new_lane(self.session, seat.number()).prove(&self.secret, &exporter);
        let pipe = upgrade::client(io, &self.endpoint, Some(&resume)).await?;
        let (lane, incoming) = seat.attach(pipe, Side::Agent, &self.serving);
        let context = Arc::new(Context {
            agent: self.agent.clone(),
            session: self.session,
            notifier: self.notifier.clone(),
            lane,
            lanes: self.lanes.clone(),
        });
        self.serving.spawn(serve(self.clone(), context, seat, incoming, address.to_string()));
        Ok(())
    }
}

/// A lane's life: its streams are served as those of the first.
async fn serve(further: Arc<Further>, context: Arc<Context>, seat: Seat, mut incoming: Incoming, peer: String) {
    let (agent, link) = (&further.agent, context.lane.link());
    let attendance = LaneAttendance::open(&agent.audit, further.session, &agent.settings.agent, seat.number(), &peer);
    let _open = metrics::lane(&further.endpoint.to_string());
    let why = loop {
        tokio::select! {
            biased;
            why = link.ended() => break why,
            stream = incoming.accept() => match stream {
                Some(stream) => { further.streams.spawn(agent.serve.serve(context.clone(), stream)); }
                None => break link.ended().await,
            },
        }
    };
    attendance.close(Some(why).filter(|why| why.code != Code::Stopping));
}

/// Attempts within the last minute: a gateway that asks without end makes no flood of them.
#[derive(Default)]
struct Budget(VecDeque<Instant>);

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let minute = std::time::Duration::from_secs(60);
        while self.0.front().is_some_and(|first| now.duration_since(*first) >= minute) {
            self.0.pop_front();
        }
        let left = self.0.len() < LANE_DIALS_PER_MINUTE;
        if left {
            self.0.push_back(now);
        }
        left
    }
}

#[cfg(test)]
mod tests;
