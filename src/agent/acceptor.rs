//! One stream, from its `Open` to its end: authorize, connect, reply, splice. The straight line of the agent.
//! It refuses to know sessions' beginnings and ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Agent;
use super::bridge::tcp::{self, Connected};
use super::policy::Permit;
use crate::base::code::Code;
use crate::base::id::{RequestId, SessionId};
use crate::base::limits::OPEN_DEADLINE;
use crate::tunnel::ledger::{Asked, Ledger};
use crate::tunnel::listen::reset_on_close;
use crate::tunnel::mux::Stream;
use crate::tunnel::session::lanes::{Lane, Lanes};
use crate::tunnel::session::{Notifier, Wired};
use crate::tunnel::splice::{Direction, End, Outcome, Socket, Toll, splice};
use crate::wire::open::Open;
use crate::wire::refusal::Refusal;
use crate::wire::reply::Reply;

/// What every stream of a session needs.
pub struct Context {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Whose stream it is.
    pub session: SessionId,
    /// Tells the gateway why a stream was reset.
    pub notifier: Notifier,
    /// The stream's lane, with which it ends.
    pub lane: Lane,
    /// All lanes of the session.
    pub lanes: Lanes,
}

/// A stream with its complete `Open`, and what came after it.
struct Arrived {
    open: Open,
    wired: Wired<Stream>,
    since: Instant,
}

/// A permitted stream with its connected target, in the audit as open.
struct Bridged {
    permit: Permit,
    target: TcpStream,
    ledger: Ledger<()>,
    slot: OwnedSemaphorePermit,
}

/// Serves one stream to its end. The end of its lane is the end of a stream, however stuck it is.
pub async fn serve(context: Arc<Context>, stream: Stream) {
    let Some(arrived) = arrive(&context, stream).await else { return };
    let agent = &context.agent;
    let Open { request, target, caller, source, .. } = &arrived.open;
    let identity = Some(agent.settings.agent.clone());
    let mut asked = Asked::new(&agent.audit, *request, target.to_string(), caller.clone(), *source, identity);
    let bridged = tokio::select! {
        biased;
        why = context.lane.link().ended() => Err(Refusal::new(Code::SessionLost, why)),
        bridged = bridge(&context, &arrived, &mut asked) => bridged,
    };
    match bridged {
        Ok(bridged) => carry(&context, arrived.wired, bridged).await,
        Err(refusal) => {
            asked.refused(&refusal);
            refuse(arrived.wired, refusal).await;
        }
    }
}

/// Reads the `Open`. A stream that says nothing understandable is answered if it can be, and dropped.
async fn arrive(context: &Context, stream: Stream) -> Option<Arrived> {
    let since = Instant::now();
    let mut wired = Wired::new(stream);
    let problem = match tokio::time::timeout(OPEN_DEADLINE, wired.receive::<Open>()).await {
        Ok(Ok(Some(open))) => return Some(Arrived { open, wired, since }),
        Ok(Ok(None)) => return None,
        // The session broke in the middle of it: nobody waits for an answer.
        Ok(Err(failure)) if failure.code == Code::SessionLost => return None,
        Ok(Err(failure)) => failure.detail,
        Err(_) => "no complete open within 5 s".to_owned(),
    };
    let refusal = Refusal::new(Code::OpenInvalid, problem);
    let agent = &context.agent;
    let (unknown, identity) = ("unknown".to_owned(), Some(agent.settings.agent.clone()));
    Asked::new(&agent.audit, RequestId::fresh(), unknown.clone(), unknown, None, identity).refused(&refusal);
    refuse(wired, refusal).await;
    None
}

/// Permit, connection, and the row that says so: only then is anything accepted.
async fn bridge(context: &Context, arrived: &Arrived, asked: &mut Asked) -> Result<Bridged, Refusal> {
    let Arrived { open, since, .. } = arrived;
    let agent = &context.agent;
    if agent.drain.begun() {
        return Err(Refusal::new(Code::AgentDraining, "this agent is shutting down"));
    }
    let slot = agent.slots.clone().try_acquire_owned().map_err(|_| {
        let limit = agent.settings.max_streams;
        Refusal::new(Code::AgentStreams, format_args!("this agent has its {limit} streams"))
    })?;
    let permit = agent.policy().authorize(open)?;
    let left = open.deadline.saturating_sub(since.elapsed());
    let Connected { stream: target, address } =
        tcp::connect(&permit, &agent.resolver, &agent.settings.floor, open.source, left).await?;
    let ledger = asked.opened(context.session, &agent.settings.agent, Some(address), ())?;
    Ok(Bridged { permit, target, ledger, slot })
}

async fn refuse(mut wired: Wired<Stream>, refusal: Refusal) {
    if wired.send(&Reply::Refused(refusal)).await.is_ok() {
        let (mut stream, _) = wired.into_parts();
        // So that the reply is not overtaken by a reset.
        let _ = stream.shutdown().await;
    }
}

/// Reply, early bytes, then both ways until the end.
async fn carry(context: &Context, mut wired: Wired<Stream>, bridged: Bridged) {
    let Bridged { permit, mut target, ledger, slot } = bridged;
    // Also if this task or the whole process is cut: the target must not take a cut stream for a finished one.
    reset_on_close(&target, true);
    if wired.send(&Reply::Accepted).await.is_err() {
        return ledger.close(Some(if context.lane.link().is_lost() { Code::SessionLost } else { Code::ClientReset }));
    }
    let (mut stream, early) = wired.into_parts();
    let idle = permit.target().spec.limits.idle_timeout;
    let code = tokio::select! {
        biased;
        () = permit.withdrawn() => Some(Code::TargetRemoved),
        outcome = both_ways(&mut stream, &mut target, early, idle, &ledger) => code_of(outcome),
        _ = context.lane.link().ended() => Some(Code::SessionLost),
    };
    let (lane, id) = (context.lane.number(), stream.id());
    match code {
        // With its lane, the other end loses it by itself.
        Some(_) if context.lane.link().is_lost() => {}
        Some(code) => context.notifier.closing(lane, id, code),
        None => reset_on_close(&target, false),
    }
    if code != Some(Code::ClientReset) {
        return ledger.close(code);
    }
    // Neither the target nor the next stream waits for the reason.
    drop((target, stream, permit, slot));
    ledger.close(context.notifier.why_reset(lane, id).await.or(code));
}

async fn both_ways(
    stream: &mut Stream,
    target: &mut TcpStream,
    early: BytesMut,
    idle: Option<Duration>,
    ledger: &Ledger<()>,
) -> Outcome {
    if !early.is_empty() {
        if let Err(error) = target.write_all(&early).await {
            return Outcome::Broken(End::Far, error);
        }
        ledger.count(Direction::Up, early.len());
    }
    splice(stream, &mut Socket::new(target), idle, ledger).await
}

/// What the closing row says, and the notice to the gateway, unless the gateway knows better.
fn code_of(outcome: Outcome) -> Option<Code> {
    match outcome {
        Outcome::Finished => None,
        Outcome::Idle => Some(Code::IdleTimeout),
        Outcome::Broken(End::Far, _) => Some(Code::TargetReset),
        Outcome::Broken(End::Near, error) if error.kind() == io::ErrorKind::ConnectionAborted => Some(Code::SessionLost),
        Outcome::Broken(End::Near, _) => Some(Code::ClientReset),
    }
}

#[cfg(test)]
mod tests;
