//! One stream, from its `Open` to its end: authorize, connect, reply, splice. The straight line of the agent.
//! It refuses to know sessions' beginnings and ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Agent;
use super::bridge::ldap::{self, Directory};
use super::bridge::tcp::{self, Connected};
use super::bridge::{Hop, Way, http};
use super::echo;
use super::policy::{Permit, Service};
use crate::base::code::Code;
use crate::base::id::{RequestId, SessionId};
use crate::base::limits::OPEN_DEADLINE;
use crate::base::memory::{PROCESS, unboxed};
use crate::tunnel::ledger::{Asked, Ledger};
use crate::tunnel::listen::reset_on_close;
use crate::tunnel::mux::{Stream, lost, lost_because};
use crate::tunnel::session::lanes::{Lane, Lanes};
use crate::tunnel::session::{Notifier, Wired};
use crate::tunnel::splice::{Direction, End, Outcome, Socket, Toll, splice};
use crate::wire::open::{Open, Spoken};
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

/// What becomes of a stream that a gateway has opened.
pub(crate) trait Serve: Send + Sync {
    /// Serves it to its end. The end of its lane is the end of a stream, however stuck it is.
    fn serve(&self, context: Arc<Context>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Serves streams by the agent's policy.
pub(super) struct Acceptor;

impl Serve for Acceptor {
    fn serve(&self, context: Arc<Context>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(serve(context, stream))
    }
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
    far: Far,
    ledger: Ledger<()>,
    slot: OwnedSemaphorePermit,
}

/// The target's side of a stream, once it is accepted.
enum Far {
    /// Bytes, which go to a connected target as they are.
    Bytes(TcpStream),
    /// Messages, which the agent reads itself.
    Messages(Messages),
}

/// What is read of a stream.
enum Messages {
    /// Nothing is connected yet: each request is decided, and brings its connection about.
    Http,
    /// For a directory that is connected, with TLS.
    Ldap(Box<Directory>),
    /// As for HTTP.
    Search,
}

async fn serve(context: Arc<Context>, stream: Stream) {
    let Some(arrived) = arrive(&context, stream).await else { return };
    let agent = &context.agent;
    if arrived.open.spoken == Spoken::Echo {
        return Box::pin(echo::serve(agent, arrived.wired)).await;
    }
    let Open { request, target, caller, source, .. } = &arrived.open;
    let identity = Some(agent.settings.agent.clone());
    let mut asked = Asked::new(&agent.audit, *request, target.to_string(), caller.clone(), *source, identity);
    let bridged = tokio::select! {
        biased;
        why = context.lane.link().ended() => Err(Refusal::new(Code::SessionLost, why)),
        // Boxed, so that an open stream does not hold the room that its beginning took.
        bridged = Box::pin(bridge(&context, &arrived, &mut asked)) => bridged,
    };
    match bridged {
        Ok(bridged) => carry(&context, arrived, bridged).await,
        Err(refusal) => {
            asked.refused(&refusal);
            refuse(arrived.wired, refusal).await;
        }
    }
}

/// Reads the `Open`. A stream that says nothing understandable is answered if it can be, and dropped.
async fn arrive(context: &Context, stream: Stream) -> Option<Box<Arrived>> {
    let since = Instant::now();
    let mut wired = Wired::new(stream);
    let problem = match tokio::time::timeout(OPEN_DEADLINE, wired.receive::<Open>()).await {
        Ok(Ok(Some(open))) => return Some(Box::new(Arrived { open, wired, since })),
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
async fn bridge(context: &Context, arrived: &Arrived, asked: &mut Asked) -> Result<Box<Bridged>, Refusal> {
    let Arrived { open, since, .. } = arrived;
    let agent = &context.agent;
    if agent.drain.begun() {
        return Err(Refusal::new(Code::AgentDraining, "this agent is shutting down"));
    }
    PROCESS.ready()?;
    let slot = agent.slots.clone().try_acquire_owned().map_err(|_| {
        let limit = agent.settings.max_streams;
        Refusal::new(Code::AgentStreams, format_args!("this agent has its {limit} streams"))
    })?;
    let permit = agent.policy().authorize(open)?;
    let limit = open.deadline.saturating_sub(since.elapsed());
    let way = Way { resolver: &agent.resolver, floor: &agent.settings.floor, limit };
    let (far, address) = match (&*permit.service(), open.spoken) {
        (Service::Tcp { .. }, _) => {
            let Connected { stream, address } = tcp::connect(&permit, way, open.source).await?;
            (Far::Bytes(stream), Some(address))
        }
        (Service::Http(_), _) => (Far::Messages(Messages::Http), None),
        (Service::Ldap(_), Spoken::Search) => (Far::Messages(Messages::Search), None),
        (Service::Ldap(_), _) => {
            let directory = Box::new(Box::pin(ldap::connect(&permit, way)).await?);
            let address = directory.address;
            (Far::Messages(Messages::Ldap(directory)), Some(address))
        }
    };
    let ledger = asked.opened(context.session, &agent.settings.agent, address, ())?;
    Ok(Box::new(Bridged { permit, far, ledger, slot }))
}

pub(super) async fn refuse(mut wired: Wired<Stream>, refusal: Refusal) {
    if wired.send(&Reply::Refused(refusal)).await.is_ok() {
        let (mut stream, _) = wired.into_parts();
        // So that the reply is not overtaken by a reset.
        let _ = stream.shutdown().await;
    }
}

/// Reply, then what is spoken until the end.
async fn carry(context: &Context, arrived: Box<Arrived>, bridged: Box<Bridged>) {
    let Arrived { open, mut wired, .. } = unboxed(arrived);
    let Bridged { permit, far, ledger, slot } = unboxed(bridged);
    if let Far::Bytes(target) = &far {
        // Also if this task or the whole process is cut: the target must not take a cut stream for a finished one.
        reset_on_close(target, true);
    }
    if wired.send(&Reply::Accepted).await.is_err() {
        return ledger.close(Some(if context.lane.link().is_lost() { Code::SessionLost } else { Code::ClientReset }));
    }
    match far {
        Far::Bytes(target) => carry_bytes(context, wired, permit, target, ledger, slot).await,
        Far::Messages(messages) => {
            let (stream, early) = wired.into_parts();
            let (agent, permit, ledger) = (context.agent.clone(), Arc::new(permit), Arc::new(ledger));
            let hop = Hop { agent, permit, open, stream, early, ledger };
            Box::pin(carry_messages(context, hop, messages)).await;
            drop(slot);
        }
    }
}

/// What the agent reads itself, until the end.
async fn carry_messages(context: &Context, hop: Hop, messages: Messages) {
    let (lane, id) = (context.lane.number(), hop.stream.id());
    let (permit, ledger) = (hop.permit.clone(), hop.ledger.clone());
    let serve = async {
        match messages {
            Messages::Http => http::serve(hop).await,
            Messages::Ldap(directory) => ldap::serve(hop, *directory).await,
            Messages::Search => ldap::searches(hop).await,
        }
    };
    let code = tokio::select! {
        biased;
        () = permit.withdrawn() => Some(Code::TargetRemoved),
        code = serve => code,
        why = context.lane.link().ended() => Some(context.lanes.lost(lost_because(&why))),
    };
    ledger.ends(code);
    if let Some(code) = code
        && !context.lane.link().is_lost()
    {
        context.notifier.closing(lane, id, code);
    }
}

/// Early bytes, then both ways until the end.
async fn carry_bytes(
    context: &Context,
    wired: Wired<Stream>,
    permit: Permit,
    mut target: TcpStream,
    ledger: Ledger<()>,
    slot: OwnedSemaphorePermit,
) {
    let (mut stream, early) = wired.into_parts();
    let idle = permit.target().spec.limits.idle_timeout;
    let code = tokio::select! {
        biased;
        () = permit.withdrawn() => Some(Code::TargetRemoved),
        outcome = both_ways(&mut stream, &mut target, early, idle, &ledger) => code_of(outcome, &context.lanes),
        why = context.lane.link().ended() => Some(context.lanes.lost(lost_because(&why))),
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
fn code_of(outcome: Outcome, lanes: &Lanes) -> Option<Code> {
    match outcome {
        _ if outcome.own_code().is_some() => outcome.own_code(),
        Outcome::Finished => None,
        Outcome::Idle => Some(Code::IdleTimeout),
        Outcome::Broken(End::Far, _) => Some(Code::TargetReset),
        Outcome::Broken(End::Near, error) => lost(&error).map(|why| lanes.lost(why)).or(Some(Code::ClientReset)),
    }
}

#[cfg(test)]
mod tests;
