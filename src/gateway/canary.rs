//! The canary of a session: a stream to the agent's own echo now and then, which tells an agent that serves from a tunnel that merely
//! stands. Its failure is a light and no end of anything. Refuses to know clients and targets.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Gateway;
use super::registry::Live;
use crate::base::code::{Code, Failure, OrFail};
use crate::base::id::{Name, RequestId};
use crate::base::light::Serving;
use crate::base::limits::{CANARY_DEADLINE, CANARY_FIRST, CANARY_PERIOD, HEARTBEAT};
use crate::observe::audit::Event;
use crate::tunnel::session::Wired;
use crate::wire::codec;
use crate::wire::open::{ECHO, Open, Spoken};
use crate::wire::reply::Reply;

/// Asks for as long as the session lives.
pub(super) async fn watch(gateway: &Gateway, live: &Live) {
    if !live.echoes {
        return std::future::pending().await;
    }
    let mut pause = CANARY_FIRST;
    loop {
        sleep(pause).await;
        // One that is resuming, silent or ending is not asked: what it would answer is said already.
        if live.usable() {
            let connection = live.link.generation();
            let outcome = timeout(CANARY_DEADLINE, ask(gateway, live)).await.unwrap_or_else(|_| Err(late()));
            // Of one that waited for another connection nobody knows how long the agent took.
            let waited = outcome.is_err() && live.link.generation() != connection;
            if let Some((state, why)) = verdict(live, outcome).filter(|_| !waited) {
                show(gateway, live, state, why.as_ref());
            }
        }
        // What is not well is asked sooner, so that the light goes on again when it is.
        pause = if live.serving.light().state == Serving::Serving { CANARY_PERIOD } else { CANARY_DEADLINE };
    }
}

/// One canary: what was sent must come back.
async fn ask(gateway: &Gateway, live: &Live) -> Result<(), Failure> {
    let mut stream = live.lanes.open_canary().await?;
    let request = RequestId::fresh();
    let open = Open {
        request,
        target: Name::parse("echo").expect("a name"),
        spoken: Spoken::Echo,
        caller: gateway.settings.id.to_string(),
        source: None,
        deadline: CANARY_DEADLINE,
        trace: None,
    };
    let (sent, mut bytes) = (request.as_bytes(), BytesMut::new());
    codec::encode(&open, &mut bytes);
    bytes.extend_from_slice(sent);
    stream.write_all(&bytes).await.or_fail(Code::SessionLost, "the canary")?;
    stream.shutdown().await.or_fail(Code::SessionLost, "the canary")?;
    let mut wired = Wired::new(stream);
    match wired.receive().await.map_err(mute)? {
        Some(Reply::Accepted) => {}
        Some(Reply::Refused(refusal)) => return Err(refusal.into()),
        None => return Err(mute("the stream ended without a reply")),
    }
    let (stream, mut back) = wired.into_parts();
    let mut rest = stream.take(ECHO as u64);
    while back.len() <= ECHO && rest.read_buf(&mut back).await.map_err(mute)? > 0 {}
    if *back == *sent { Ok(()) } else { Err(mute("something else came back")) }
}

/// What follows from a canary for the light; nothing when it says nothing of the agent.
fn verdict(live: &Live, outcome: Result<(), Failure>) -> Option<(Serving, Option<Failure>)> {
    let Err(why) = outcome else { return Some((Serving::Serving, None)) };
    match why.code {
        // Of a build that doesn't know echoes, whatever it says that it can.
        Code::OpenInvalid | Code::TargetKindMismatch | Code::TargetUnknown => Some((Serving::Unknown, None)),
        // It has too much to do, or has said that it ends.
        Code::AgentStreams | Code::SessionStreams | Code::AgentDraining | Code::Stopping => None,
        // The tunnel's own trouble is the other light's: of two heartbeats that were due one has not come.
        _ if !live.usable() || live.link.pulse().age() > HEARTBEAT + HEARTBEAT / 2 => None,
        _ => Some((Serving::NotServing, Some(why))),
    }
}

/// Only a change from or to "not serving" is a row: that a fresh session serves goes without saying.
fn show(gateway: &Gateway, live: &Live, state: Serving, why: Option<&Failure>) {
    let code = why.map(|why| why.code);
    let Some(before) = live.serving.show(state, code) else { return };
    let (session, agent, detail) = (live.session, &live.agent, why.map(|why| why.detail.as_str()));
    match code {
        Some(code) => tracing::warn!(%session, %agent, %code, detail, "agent light: not serving"),
        None if before == Serving::NotServing => tracing::info!(%session, %agent, "agent light: {state}"),
        None => tracing::debug!(%session, %agent, "agent light: {state}"),
    }
    if before == Serving::NotServing || state == Serving::NotServing {
        // The light shows it, whether or not the row can be kept.
        let _ = gateway.audit.record(&Event::AgentLight { session, agent, state, code, detail });
    }
}

fn late() -> Failure {
    mute(format_args!("no echo within {} s", CANARY_DEADLINE.as_secs()))
}

fn mute(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::AgentNotServing, why)
}

#[cfg(test)]
mod tests;
