//! One stream, from its `Open` to its end: authorize, connect, reply, splice. The straight line of the agent.
//! It refuses to know sessions' beginnings and ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
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
use crate::observe::audit::Event;
use crate::observe::metrics;
use crate::tunnel::ledger::Ledger;
use crate::tunnel::mux::Stream;
use crate::tunnel::session::{Notifier, Wired};
use crate::tunnel::splice::{Direction, End, Outcome, Toll, splice};
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
}

/// A stream with its complete `Open`, and what came after it.
struct Asked {
    open: Open,
    wired: Wired<Stream>,
    since: Instant,
}

/// A permitted stream with its connected target.
struct Bridged {
    permit: Permit,
    target: Connected,
    _slot: OwnedSemaphorePermit,
}

/// Serves one stream to its end.
pub async fn serve(context: Arc<Context>, stream: Stream) {
    let Some(asked) = ask(&context, stream).await else { return };
    let bridged = {
        let mut pending = Pending { context: &context, open: &asked.open, answered: false };
        let bridged = bridge(&context, &asked).await;
        pending.answered = true;
        bridged
    };
    match bridged {
        Ok(bridged) => carry(&context, asked, bridged).await,
        Err(refusal) => refuse(&context, asked, &refusal).await,
    }
}

/// Reads the `Open`. A stream that says nothing understandable is answered if it can be, and dropped.
async fn ask(context: &Context, stream: Stream) -> Option<Asked> {
    let since = Instant::now();
    let mut wired = Wired::new(stream);
    let problem = match tokio::time::timeout(OPEN_DEADLINE, wired.receive::<Open>()).await {
        Ok(Ok(Some(open))) => return Some(Asked { open, wired, since }),
        Ok(Ok(None)) => return None,
        // The session broke in the middle of it: nobody waits for an answer.
        Ok(Err(failure)) if failure.code == Code::SessionLost => return None,
        Ok(Err(failure)) => failure.detail,
        Err(_) => "no complete open within 5 s".to_owned(),
    };
    let refusal = Refusal::new(Code::OpenInvalid, problem);
    metrics::refused(refusal.code);
    tracing::warn!(session = %context.session, code = %refusal.code, detail = %refusal.detail, "stream refused");
    // The refusal stands whether or not its row can be kept.
    let _ = context.agent.audit.record(&Event::Refused {
        request: RequestId::fresh(),
        target: "unknown",
        agent: Some(&context.agent.settings.agent),
        caller: "unknown",
        source: None,
        code: refusal.code,
        detail: &refusal.detail,
    });
    let _ = wired.send(&Reply::Refused(refusal)).await;
    None
}

/// An ask whose target is being connected. Dropped before there is an answer, the session has ended: that too is an outcome.
struct Pending<'a> {
    context: &'a Context,
    open: &'a Open,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let why = "the session ended before the target was connected";
            record_refused(self.context, self.open, &Refusal::new(Code::SessionLost, why));
        }
    }
}

/// Permit, connection, and the row that says so: only then is anything accepted.
async fn bridge(context: &Context, asked: &Asked) -> Result<Bridged, Refusal> {
    let Asked { open, since, .. } = asked;
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
    let target = tcp::connect(&permit, &agent.resolver, &agent.settings.floor, open.source, left).await?;
    agent.audit.record(&Event::Opened {
        request: open.request,
        session: context.session,
        target: open.target.as_str(),
        agent: Some(&agent.settings.agent),
        caller: &open.caller,
        source: open.source,
        address: Some(target.address),
    })?;
    Ok(Bridged { permit, target, _slot: slot })
}

async fn refuse(context: &Context, asked: Asked, refusal: &Refusal) {
    let Asked { open, mut wired, .. } = asked;
    record_refused(context, &open, refusal);
    if wired.send(&Reply::Refused(refusal.clone())).await.is_ok() {
        let (mut stream, _) = wired.into_parts();
        // So that the reply is not overtaken by a reset.
        let _ = stream.shutdown().await;
    }
}

fn record_refused(context: &Context, open: &Open, refusal: &Refusal) {
    metrics::refused(refusal.code);
    tracing::warn!(request = %open.request, target = %open.target, code = %refusal.code, detail = %refusal.detail, "stream refused");
    // The refusal stands whether or not its row can be kept.
    let _ = context.agent.audit.record(&Event::Refused {
        request: open.request,
        target: open.target.as_str(),
        agent: Some(&context.agent.settings.agent),
        caller: &open.caller,
        source: open.source,
        code: refusal.code,
        detail: &refusal.detail,
    });
}

/// Reply, early bytes, then both ways until the end.
async fn carry(context: &Context, asked: Asked, bridged: Bridged) {
    let Asked { open, mut wired, since } = asked;
    let Bridged { permit, target: Connected { stream: mut target, address }, .. } = bridged;
    tracing::debug!(request = %open.request, target = %open.target, %address, caller = %open.caller, "stream opened");
    metrics::opened(since.elapsed());
    let ledger = Ledger::open(&context.agent.audit, open.request, open.target.to_string(), ());
    if wired.send(&Reply::Accepted).await.is_err() {
        reset(&target);
        return ledger.close(Some(Code::SessionLost));
    }
    let (mut stream, early) = wired.into_parts();
    let idle = permit.target().spec.limits.idle_timeout;
    let code = tokio::select! {
        biased;
        () = permit.withdrawn() => Some(Code::TargetRemoved),
        outcome = both_ways(&mut stream, &mut target, early, idle, &ledger) => code_of(context, &stream, outcome),
    };
    if let Some(code) = code {
        context.notifier.closing(stream.id(), code);
        reset(&target);
    }
    ledger.close(code);
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
    splice(stream, target, idle, ledger).await
}

/// What the closing row says, and the notice to the gateway.
fn code_of(context: &Context, stream: &Stream, outcome: Outcome) -> Option<Code> {
    match outcome {
        Outcome::Finished => None,
        Outcome::Idle => Some(Code::IdleTimeout),
        Outcome::Broken(End::Far, _) => Some(Code::TargetReset),
        Outcome::Broken(End::Near, error) if error.kind() == io::ErrorKind::ConnectionAborted => Some(Code::SessionLost),
        Outcome::Broken(End::Near, _) => Some(context.notifier.closed(stream.id()).unwrap_or(Code::ClientReset)),
    }
}

/// Makes the end of this connection a reset, so that the target can't take a cut stream for a finished one.
fn reset(target: &TcpStream) {
    let _ = SockRef::from(target).set_linger(Some(Duration::ZERO));
}
