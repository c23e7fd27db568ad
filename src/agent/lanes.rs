//! Further lanes of a session, as its gateway asks for them: how often they are dialled at most, and a lane's life. Whatever goes wrong here, the session goes on with the lanes it has. It refuses to know what streams carry.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acceptor::Context;
use super::connector::Connector;
use super::resume;
use crate::base::code::{Code, Failure};
use crate::base::limits::{DIAL_DEADLINE, LANE_DIALS_PER_MINUTE, LANE_MISSES, LANE_PAUSE};
use crate::base::tasks::Tasks;
use crate::observe::metrics;
use crate::tunnel::ledger::LaneAttendance;
use crate::tunnel::mux::{Incoming, Side};
use crate::tunnel::session::Notifier;
use crate::tunnel::session::lanes::{Lanes, Seat};
use crate::wire::resume::Claim;

/// What a session's further lanes need.
pub(super) struct Further {
    /// Makes their connections.
    pub(super) connector: Arc<Connector>,
    /// Tells the gateway why a stream was reset.
    pub(super) notifier: Notifier,
    /// The lanes it has.
    pub(super) lanes: Lanes,
    /// Owner of the session's streams.
    pub(super) streams: Tasks,
    /// Owner of its further lanes.
    pub(super) serving: Tasks,
}

/// Dials what is asked for, until the session takes no more streams.
pub(super) async fn keep(further: Further, wanted: watch::Receiver<u32>, released: CancellationToken) {
    let (drain, lanes) = (further.connector.agent.drain.clone(), further.lanes.clone());
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
    /// One attempt, each turn at the next address.
    async fn dial_next(self: &Arc<Self>, turn: usize) -> Result<(), Failure> {
        let late = || Failure::new(Code::GatewayTimeout, format_args!("{}: no lane in time", self.connector.endpoint));
        let dialled = tokio::time::timeout(DIAL_DEADLINE, self.dial(turn)).await.unwrap_or_else(|_| Err(late()));
        if let Err(Failure { code, detail }) = &dialled {
            tracing::info!(session = %self.connector.session, %code, detail, "no further lane");
        }
        dialled
    }

    /// From TCP to the lane's task.
    async fn dial(self: &Arc<Self>, turn: usize) -> Result<(), Failure> {
        let Connector { agent, session, .. } = &*self.connector;
        let (address, secured) = self.connector.reach(turn).await?;
        let seat = self.lanes.next_seat()?;
        let pipe = self.connector.upgrade(secured, Claim::new_lane(*session, seat.number())).await?;
        let (lane, incoming) = seat.attach(pipe, Side::Agent, &self.serving);
        self.serving.spawn(resume::keep(self.connector.clone(), lane.clone(), CancellationToken::new()));
        let (agent, session, notifier, lanes) = (agent.clone(), *session, self.notifier.clone(), self.lanes.clone());
        let context = Arc::new(Context { agent, session, notifier, lane, lanes });
        self.serving.spawn(serve(self.clone(), context, seat, incoming, address.to_string()));
        Ok(())
    }
}

/// A lane's life: its streams are served as those of the first.
async fn serve(further: Arc<Further>, context: Arc<Context>, seat: Seat, mut incoming: Incoming, peer: String) {
    let Connector { agent, endpoint, session, .. } = &*further.connector;
    let link = context.lane.link();
    let attendance = LaneAttendance::open(&agent.audit, *session, &agent.settings.agent, seat.number(), &peer);
    let _open = metrics::lane(&endpoint.to_string());
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
