//! Further lanes at the gateway: which connection may join which session, and a lane's life. It refuses to know when a session
//! needs one.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Gateway;
use super::reauthorise::Certificate;
use super::registry::Live;
use crate::base::code::{Code, Failure};
use crate::base::id::AgentId;
use crate::base::limits::LANES_PER_MINUTE;
use crate::observe::metrics;
use crate::pki::identity::Identity;
use crate::tunnel::ledger::LaneAttendance;
use crate::tunnel::mux::{Incoming, Side};
use crate::tunnel::session::lanes::{Lane, Seat};
use crate::tunnel::upgrade::Upgraded;
use crate::wire::resume::{Exporter, Resume};

/// A connection that may become this session's lane.
pub(super) struct Joining {
    live: Arc<Live>,
    seat: Seat,
    /// What the connection has shown.
    certificate: Option<Certificate>,
}

impl Joining {
    /// The same on a connection that has shown this identity.
    pub(super) fn showing(self, identity: &Identity) -> Self {
        Self { certificate: Some(identity.into()), ..self }
    }
}

/// Checks a connection that asks to be a further lane: `agent` is whose certificate it showed, `exporter` its own.
///
/// # Errors
/// `not_here` when this instance has no such session of the agent's group, `lane_refused` when it is another agent's, the proof
/// is wrong or the lane is an old one, `session_lanes` when there are enough lanes or attempts.
pub(super) fn admit(gateway: &Gateway, agent: &AgentId, resume: &Resume, exporter: &Exporter) -> Result<Joining, Failure> {
    if gateway.joined.check_key(agent).is_err() {
        let detail = format!("{agent} has tried {LANES_PER_MINUTE} lanes in a minute");
        return Err(Failure::new(Code::SessionLanes, detail));
    }
    let claim = resume.claim;
    let refused = |why: &str| {
        let detail = format!("{agent}, session {} lane {}: {why}", claim.session, claim.lane);
        Failure::new(Code::LaneRefused, detail)
    };
    let not_here = || Failure::new(Code::NotHere, format_args!("{agent}: no session {} at this instance", claim.session));
    let live = gateway.registry.find(&agent.group, claim.session).ok_or_else(not_here)?;
    if live.agent != *agent {
        return Err(refused("the session is another agent's"));
    }
    let secret = live.resume_secret.as_ref().ok_or_else(|| refused("the session has one lane"))?;
    if !resume.is_proved(secret, exporter) {
        return Err(refused("the proof is wrong"));
    }
    if (claim.generation, claim.received) != (0, 0) {
        return Err(refused("lanes are not resumed"));
    }
    if live.draining() {
        return Err(Failure::new(Code::SessionLanes, format_args!("{agent}: session {} is ending", claim.session)));
    }
    let seat = live.lanes.take_seat(claim.lane).map_err(|failure| failure.context(agent))?;
    Ok(Joining { live, seat, certificate: None })
}

/// A lane's life, to its end or its session's.
pub(super) async fn serve<S>(gateway: &Gateway, joining: Joining, upgraded: Upgraded<S>, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Joining { live, seat, certificate } = joining;
    let tasks = gateway.sessions.child();
    let (lane, mut incoming) = seat.attach(upgraded, Side::Gateway, &tasks);
    let attendance = LaneAttendance::open(&gateway.audit, live.session, &live.agent, lane.number(), &peer.to_string());
    let open = metrics::lane(gateway.settings.id.as_str());
    if let Some(certificate) = certificate {
        live.certificates().shown(lane.number(), certificate);
    }
    let why = attend(&live, &lane, &mut incoming).await;
    // The number of lanes is told right also while the rest of this one ends.
    drop((seat, open));
    live.certificates().forget(lane.number());
    lane.link().ended().await;
    tasks.abort().await;
    attendance.close(why);
}

/// Yields why the lane broke; nothing when it was closed in good order.
async fn attend(live: &Live, lane: &Lane, incoming: &mut Incoming) -> Option<Failure> {
    loop {
        tokio::select! {
            biased;
            why = lane.link().ended() => return Some(why).filter(|why| why.code != Code::Stopping),
            _ = live.link.ended() => break,
            () = live.lanes.idles(lane) => break,
            // Agents open no streams on further lanes: dropped, and by that reset.
            stream = incoming.accept() => if stream.is_none() { return Some(lane.link().ended().await) },
        }
    }
    lane.link().close();
    None
}

#[cfg(test)]
mod tests;
