//! Further lanes at the gateway: which connection may join which session, and a lane's life. It refuses to know when a session
//! needs one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Gateway;
use super::reauthorise::{Certificate, holds, reauthorise};
use super::registry::Live;
use crate::base::code::{Code, Failure};
use crate::base::id::AgentId;
use crate::base::limits::{LANES_PER_MINUTE, RESUMES_PER_MINUTE};
use crate::observe::metrics;
use crate::tunnel::ledger::{LaneAccount, LaneAttendance};
use crate::tunnel::mux::{Incoming, Side};
use crate::tunnel::session::lanes::{Lane, Seat};
use crate::tunnel::upgrade::Upgraded;
use crate::wire::resume::{Exporter, Resume};

/// A connection that may become a session's lane.
pub(super) enum Joining {
    /// A further one.
    Further { live: Arc<Live>, seat: Seat },
    /// One that is there already, and had another connection.
    Again { live: Arc<Live>, lane: Lane, generation: u64 },
}

/// Checks a connection that asks to be a lane: `agent` is whose certificate it showed, `exporter` its own. If it takes up a lane that is
/// there, that lane's older connection counts for nothing from here on, and with it comes how many bytes had been received.
///
/// # Errors
/// `not_here` when this instance has no such session of the agent's group; `lane_refused` when it is another agent's, the proof
/// is wrong, a further lane is an old one, or a lane that is taken up again is not where that is claimed; `session_lanes` when there are enough
/// lanes or attempts.
pub(super) fn admit(
    gateway: &Gateway,
    agent: &AgentId,
    resume: &Resume,
    exporter: &Exporter,
) -> Result<(Joining, Option<u64>), Failure> {
    let claim = resume.claim;
    let (limiter, limit) = match claim.generation {
        0 => (&gateway.joined, LANES_PER_MINUTE),
        _ => (&gateway.resumed, RESUMES_PER_MINUTE),
    };
    if limiter.check_key(agent).is_err() {
        return Err(Failure::new(Code::SessionLanes, format_args!("{agent} has tried {limit} lanes in a minute")));
    }
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
    if claim.generation > 0 {
        let lane = live.lanes.get(claim.lane).ok_or_else(|| refused("there is no such lane"))?;
        let received = lane.link().fence(claim.generation, claim.received).map_err(|failure| match failure.code {
            Code::LaneRefused => refused(&failure.detail),
            _ => not_here(),
        })?;
        return Ok((Joining::Again { live, lane, generation: claim.generation }, Some(received)));
    }
    if claim.received != 0 {
        return Err(refused("a new lane has received nothing"));
    }
    if live.draining() {
        return Err(Failure::new(Code::SessionLanes, format_args!("{agent}: session {} is ending", claim.session)));
    }
    let seat = live.lanes.take_seat(claim.lane).map_err(|failure| failure.context(agent))?;
    Ok((Joining::Further { live, seat }, None))
}

/// A further lane's life, to its end or its session's. A connection that takes one up is the lane's when this returns: it needs no place of
/// its own among the listener's, since the lane's first one keeps its place as long as there is the lane.
pub(super) async fn serve(gateway: &Gateway, joining: Joining, upgraded: Upgraded, certificate: Certificate, peer: SocketAddr) {
    match joining {
        Joining::Further { live, seat } => further(gateway, live, seat, upgraded, certificate, peer).await,
        Joining::Again { live, lane, generation } => {
            let account = account(gateway, &live, &lane);
            match lane.link().attach(generation, upgraded) {
                Ok(paused) => {
                    live.certificates().shown(lane.number(), certificate);
                    let told = account.resumed(generation, &certificate.serial.to_string(), &peer.to_string(), paused);
                    // A lane that breaks without end has no more rows of this than of that.
                    let may = if told { reauthorise(gateway, &live) } else { holds(gateway, &live) };
                    if let Err(why) = may {
                        live.lanes.close_because(&why);
                    }
                }
                Err(failure) => gateway.refused(peer, &failure.context(&live.agent), "connection refused"),
            }
        }
    }
}

/// A further lane's life.
async fn further(
    gateway: &Gateway,
    live: Arc<Live>,
    seat: Seat,
    upgraded: Upgraded,
    certificate: Certificate,
    peer: SocketAddr,
) {
    let tasks = gateway.sessions.child();
    let (lane, mut incoming) = seat.attach(upgraded, Side::Gateway, &tasks);
    let attendance = LaneAttendance::open(&gateway.audit, live.session, &live.agent, lane.number(), &peer.to_string());
    let open = metrics::lane(gateway.settings.id.as_str());
    live.certificates().shown(lane.number(), certificate);
    // It may have been revoked since the handshake, and nobody else would look.
    if let Err(why) = holds(gateway, &live) {
        live.lanes.close_because(&why);
    }
    tokio::select! {
        biased;
        () = attend(&live, &lane, &mut incoming) => {}
        never = watch(gateway, &live, &lane) => match never {},
    }
    // The number of lanes is told right also while the rest of this one ends.
    drop((seat, open));
    live.certificates().forget(lane.number());
    let why = lane.link().ended().await;
    tasks.abort().await;
    attendance.close(Some(why).filter(|why| why.code != Code::Stopping));
}

/// Writes down each time that a lane's connection breaks and another one is waited for.
pub(super) async fn watch(gateway: &Gateway, live: &Live, lane: &Lane) -> Infallible {
    while let Some(why) = lane.link().paused().await {
        account(gateway, live, lane).broken(&why);
        if lane.number() == 0 {
            gateway.registry.gives_way(live);
        }
        if lane.link().goes_on().await.is_none() {
            break;
        }
    }
    std::future::pending().await
}

fn account<'a>(gateway: &'a Gateway, live: &'a Live, lane: &Lane) -> LaneAccount<'a> {
    LaneAccount { audit: &gateway.audit, session: live.session, agent: &live.agent, lane: lane.number() }
}

/// Until the lane is over, or to be closed in good order.
async fn attend(live: &Live, lane: &Lane, incoming: &mut Incoming) {
    loop {
        tokio::select! {
            biased;
            _ = lane.link().ended() => return,
            _ = live.link.ended() => break,
            () = live.lanes.idles(lane) => break,
            // Agents open no streams on further lanes: dropped, and by that reset.
            stream = incoming.accept() => if stream.is_none() { return },
        }
    }
    lane.link().close();
}

#[cfg(test)]
mod tests;
