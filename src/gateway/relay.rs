//! A client's connection, from what it wants to its end: route, admit, open on an agent (or another), splice.
//! The straight line of the gateway. It refuses to know how clients say what they want.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::Gateway;
use super::ingress::{Answer, ClientIo, Wanted};
use super::quota::{self, Slot};
use super::registry::Live;
use super::router::Route;
use crate::base::code::Code;
use crate::base::id::{RequestId, SessionId};
use crate::base::limits::{EARLY_DATA, REPLY_DEADLINE, RESUME_PATIENCE};
use crate::base::memory::{PROCESS, unboxed};
use crate::tunnel::ledger::{Asked, Ledger, Pace};
use crate::tunnel::mux::{self, Stream};
use crate::tunnel::session::Wired;
use crate::tunnel::session::lanes::{Lane, Place};
use crate::tunnel::splice::{Delay, Direction, End, Outcome, Said, Socket, Toll, splice_said};
use crate::wire::codec;
use crate::wire::open::Open;
use crate::wire::refusal::Refusal;
use crate::wire::reply::Reply;

/// One client, and what it wants.
struct Ask<'a> {
    request: RequestId,
    wanted: &'a Wanted,
    route: Route,
    /// Client bytes go ahead of the reply. With a rate in force none does, since what a refusal takes back was moved all the same.
    ahead: bool,
}

/// Client bytes that came before the reply, kept so that another agent can have them too.
struct Early {
    kept: BytesMut,
    /// The client has said its last byte.
    ended: bool,
    /// The agent that is tried was sent some of them. One that refused has kept them from its target.
    sent: bool,
}

/// A stream that an agent accepted, and what the target said with the reply.
struct Opened {
    live: Arc<Live>,
    stream: Stream,
    place: Place,
    first: BytesMut,
}

/// An open stream: the agent's end of it, and its account.
pub(super) struct Begun {
    pub(super) agent: AgentEnd,
    /// What the target said with the reply.
    pub(super) first: Bytes,
    pub(super) ledger: Ledger<Held>,
}

/// The agent's end of an open stream.
pub(super) struct AgentEnd {
    pub(super) live: Arc<Live>,
    pub(super) lane: u32,
    pub(super) stream: Stream,
}

/// What a stream counts against.
struct Slots {
    tenant: Slot,
    caller: Slot,
}

/// An open stream's claims: its slots and the place on a lane.
pub(super) struct Held {
    slots: Slots,
    place: Place,
}

impl Pace for Held {
    fn pace(&self, bytes: usize) -> Option<Delay<'_>> {
        quota::pace(&self.slots.caller, &self.slots.tenant, bytes)
    }

    fn moved(&self, bytes: usize) {
        self.place.moved(bytes);
    }
}

/// Relays one client to its end.
pub async fn relay<Io: ClientIo>(gateway: &Gateway, mut client: Io, mut wanted: Box<Wanted>) {
    // Also if this task or the whole process is cut: only a finished stream may look finished.
    client.reset_on_close(true);
    let mut early = Early { kept: std::mem::take(&mut wanted.early), ended: false, sent: false };
    let request = RequestId::fresh();
    // Boxed, so that an open stream does not hold the room that its beginning took.
    match Box::pin(begin(gateway, request, &wanted, &mut client, &mut early)).await {
        Ok(begun) => carry(client, early, begun, &wanted).await,
        Err(refusal) => wanted.answer.refuse(&mut client, &refusal, request).await,
    }
}

/// Opens a stream for a protocol that the gateway speaks itself: no client's bytes go ahead. Its account is begun, or the refusal recorded.
///
/// # Errors
/// Why it is refused.
pub(super) async fn open_silent(gateway: &Gateway, request: RequestId, wanted: &Wanted) -> Result<Box<Begun>, Refusal> {
    let mut early = Early { kept: BytesMut::new(), ended: true, sent: false };
    begin(gateway, request, wanted, &mut Silent, &mut early).await
}

/// Opens, and begins the account or records the refusal.
async fn begin<Io: ClientIo>(
    gateway: &Gateway,
    request: RequestId,
    wanted: &Wanted,
    client: &mut Io,
    early: &mut Early,
) -> Result<Box<Begun>, Refusal> {
    let (target, caller) = (wanted.target.to_string(), wanted.caller.name().to_owned());
    let mut asked = Asked::new(&gateway.audit, request, target, caller, Some(wanted.source), None);
    let since = asked.since;
    let opened = tokio::select! {
        // First, so that nobody is let in who was revoked since the login.
        biased;
        () = wanted.ends() => Err(Refusal::new(Code::CallerRevoked, "before the stream was open")),
        opened = open_or_make_room(gateway, request, since, wanted, client, early) => opened,
    };
    let begun = opened.and_then(|(Opened { live, stream, place, first }, slots)| {
        let agent = AgentEnd { lane: place.lane().number(), live, stream };
        let ledger = asked.opened(agent.live.session, &agent.live.agent, None, Held { slots, place })?;
        Ok(Box::new(Begun { agent, first: first.freeze(), ledger }))
    });
    if let Err(refusal) = &begun {
        asked.refused(refusal);
    }
    begun
}

/// Where there are too many streams, those that are kept for nothing but a next request give way.
async fn open_or_make_room<Io: ClientIo>(
    gateway: &Gateway,
    request: RequestId,
    since: Instant,
    wanted: &Wanted,
    client: &mut Io,
    early: &mut Early,
) -> Result<(Opened, Slots), Refusal> {
    let opened = open(gateway, request, since, wanted, client, early).await;
    let short = |refusal: &Refusal| {
        matches!(refusal.code, Code::QuotaExceeded | Code::SessionStreams | Code::AgentStreams | Code::TargetStreams)
    };
    if opened.as_ref().is_err_and(short) && gateway.streams.give_way(wanted).await {
        return open(gateway, request, since, wanted, client, early).await;
    }
    opened
}

/// Admits, then tries the group's agents in turn as long as a refusal says that another could do it.
async fn open<Io: ClientIo>(
    gateway: &Gateway,
    request: RequestId,
    since: Instant,
    wanted: &Wanted,
    client: &mut Io,
    early: &mut Early,
) -> Result<(Opened, Slots), Refusal> {
    gateway.ready()?;
    PROCESS.ready()?;
    // Asked before anything is sent: once a target has had bytes, a refusal would come too late.
    gateway.audit.ready()?;
    wanted.caller.may(&wanted.target)?;
    let route = gateway.table.route(wanted);
    let slots = Slots { tenant: route.tenant.admit()?, caller: wanted.caller.quota().admit()? };
    let rated = slots.tenant.rate().or(slots.caller.rate()).is_some();
    let ask = Ask { request, wanted, route, ahead: wanted.early_data && !rated };
    if ask.ahead && wanted.answer == Answer::Nothing {
        first_words(client, early).await?;
    }
    let deadline = since + REPLY_DEADLINE;
    let mut tried = Vec::new();
    let mut last = None;
    loop {
        let live = match pick(gateway, &ask.route, &tried, since).await {
            Ok(live) => live,
            Err(nobody) => return Err(last.unwrap_or(nobody)),
        };
        let attempt = tokio::time::timeout_at(deadline, attempt(&ask, &live, client, early, deadline)).await;
        let went = |outcome| live.tried(&ask.route.target, ask.wanted.spoken, outcome);
        let refusal = match attempt {
            Ok(Ok(opened)) => {
                went(Ok(()));
                return Ok((opened, slots));
            }
            Ok(Err(refusal)) => {
                went(Err(refusal.code));
                refusal
            }
            Err(_) => {
                let detail = format!("{} did not answer within {} s", live.agent, REPLY_DEADLINE.as_secs());
                return Err(Refusal::new(Code::OpenTimeout, detail));
            }
        };
        if !refusal.elsewhere() {
            return Err(refusal);
        }
        if refusal.code == Code::SessionLost && early.sent {
            return Err(Refusal::new(Code::OutcomeUnknown, refusal.detail));
        }
        if !live.is_resuming() {
            tried.push(live.session);
        }
        tracing::debug!(%request, agent = %live.agent, code = %refusal.code, "trying another agent");
        last = Some(refusal);
    }
}

/// The group's next agent; where all that there are have lost their connection just now, the first that has another one soon.
async fn pick(gateway: &Gateway, route: &Route, tried: &[SessionId], since: Instant) -> Result<Arc<Live>, Refusal> {
    let mut picked = gateway.registry.pick(&route.group, &route.target, tried);
    while picked.is_err() {
        let resuming = gateway.registry.resuming(&route.group, tried);
        // Away from what every open holds, of which few come here.
        if !Box::pin(one_goes_on(&resuming, since + RESUME_PATIENCE)).await {
            break;
        }
        picked = gateway.registry.pick(&route.group, &route.target, tried);
    }
    picked
}

/// Whether one of these has another connection by then.
async fn one_goes_on(resuming: &[Arc<Live>], by: Instant) -> bool {
    if resuming.is_empty() {
        return false;
    }
    let any = futures_util::future::select_all(resuming.iter().map(|live| Box::pin(live.link.goes_on())));
    tokio::time::timeout_at(by, any).await.is_ok()
}

/// One agent's chance: `Open` and the early bytes go out at once, then the reply is waited for.
async fn attempt<Io: ClientIo>(
    ask: &Ask<'_>,
    live: &Arc<Live>,
    client: &mut Io,
    early: &mut Early,
    deadline: Instant,
) -> Result<Opened, Refusal> {
    // What an agent before this one was sent has not reached a target: it refused.
    early.sent = false;
    let (stream, place) = live.lanes.open().await.map_err(|failure| match failure.code {
        Code::SessionStreams => failure.into(),
        // Whatever ended the session: nothing of this client was sent over it.
        _ => lost(live, &failure.to_string()),
    })?;
    let id = stream.id();
    let (reader, mut writer) = tokio::io::split(stream);
    let mut head = BytesMut::new();
    codec::encode(&message(ask, deadline), &mut head);
    if ask.ahead {
        head.extend_from_slice(&early.kept);
        early.sent = !early.kept.is_empty();
    }
    writer.write_all(&head).await.map_err(|error| lost(live, &error.to_string()))?;
    writer.flush().await.map_err(|error| lost(live, &error.to_string()))?;
    let mut wired = Wired::new(reader);
    let reply = reply(&mut wired, &mut writer, client, early, ask, live, place.lane()).await;
    if reply.as_ref().is_err_and(|refusal| refusal.code == Code::ClientReset) {
        live.notifier.closing(place.lane().number(), id, Code::ClientReset);
    }
    match reply? {
        Reply::Accepted => {
            let (reader, first) = wired.into_parts();
            Ok(Opened { live: live.clone(), stream: reader.unsplit(writer), place, first })
        }
        Reply::Refused(refusal) => Err(refusal),
    }
}

/// What the client has said already, if anything: it goes with the `Open` then, in one message instead of two. Giving way once lets
/// the runtime see that it is there; nothing is waited for.
async fn first_words<Io: ClientIo>(client: &mut Io, early: &mut Early) -> Result<(), Refusal> {
    tokio::task::yield_now().await;
    early.kept.reserve(EARLY_DATA / 16);
    match read_at_most(client, &mut early.kept, EARLY_DATA).now_or_never() {
        Some(Ok(0)) => early.ended = true,
        Some(Ok(_)) | None => {}
        Some(Err(error)) => return Err(Refusal::new(Code::ClientReset, error)),
    }
    Ok(())
}

fn message(ask: &Ask<'_>, deadline: Instant) -> Open {
    Open {
        request: ask.request,
        target: ask.route.target.clone(),
        spoken: ask.wanted.spoken,
        caller: ask.wanted.caller.name().to_owned(),
        source: Some(ask.wanted.source),
        deadline: deadline.saturating_duration_since(Instant::now()),
        trace: None,
    }
}

/// Waits for the reply while the client's first bytes go ahead, up to what can be kept.
async fn reply<Io: ClientIo>(
    wired: &mut Wired<ReadHalf<Stream>>,
    writer: &mut WriteHalf<Stream>,
    client: &mut Io,
    early: &mut Early,
    ask: &Ask<'_>,
    live: &Live,
    lane: &Lane,
) -> Result<Reply, Refusal> {
    let mut takes = true;
    let broken = lane.link().paused();
    tokio::pin!(broken);
    loop {
        let room = EARLY_DATA - early.kept.len();
        let listens = ask.ahead && !early.ended && room > 0 && takes;
        early.kept.reserve(room.min(EARLY_DATA / 16));
        let before = early.kept.len();
        tokio::select! {
            biased;
            reply = wired.receive::<Reply>() => return match reply {
                Ok(Some(reply)) => Ok(reply),
                Ok(None) => Err(lost(live, "the stream ended without a reply")),
                Err(failure) if failure.code == Code::ProtocolViolation => Err(Refusal::new(Code::OpenInvalid, failure.detail)),
                Err(failure) => Err(lost(live, &failure.detail)),
            },
            // Another agent need not wait. Once client's bytes have gone ahead, only this one knows what became of them.
            why = &mut broken, if !early.sent => {
                return Err(lost(live, &why.map_or_else(|| "the session ended".to_owned(), |why| why.to_string())));
            }
            read = read_at_most(client, &mut early.kept, room), if listens => match read {
                Ok(0) => early.ended = true,
                Ok(_) => {
                    early.sent = true;
                    let sent = async {
                        writer.write_all(&early.kept[before..]).await?;
                        writer.flush().await
                    };
                    // Why it takes no more is in the reply, or the lack of one.
                    takes = sent.await.is_ok();
                }
                Err(error) => return Err(Refusal::new(Code::ClientReset, error)),
            },
        }
    }
}

async fn read_at_most<Io: ClientIo>(client: &mut Io, into: &mut BytesMut, room: usize) -> io::Result<usize> {
    use bytes::BufMut;
    client.read_buf(&mut into.limit(room)).await
}

fn lost(live: &Live, why: &str) -> Refusal {
    Refusal::new(Code::SessionLost, format_args!("{}: {why}", live.agent))
}

/// Both ways until the end, or until the caller's rights have ended.
async fn carry<Io: ClientIo>(mut client: Io, early: Early, begun: Box<Begun>, wanted: &Wanted) {
    let Begun { mut agent, first, ledger } = unboxed(begun);
    let mut said = Said { near: early.kept.freeze(), far: first };
    if early.sent {
        ledger.count(Direction::Up, said.near.len());
        said.near = Bytes::new();
    }
    let ended = tokio::select! {
        biased;
        () = wanted.ends() => None,
        outcome = both_ways(&mut client, &mut agent.stream, said, &ledger, wanted) => Some(outcome),
    };
    let code = ended.as_ref().map_or(Some(Code::CallerRevoked), |outcome| code_of(&agent, outcome));
    match code {
        // What the agent can't know by itself: why this side ended.
        Some(code) if is_own(ended.as_ref()) => {
            agent.live.notifier.closing(agent.lane, agent.stream.id(), code);
        }
        Some(_) => {}
        None => client.reset_on_close(false),
    }
    if code != Some(Code::TargetReset) {
        return ledger.close(code);
    }
    // The client doesn't wait for the reason.
    drop(client);
    ledger.close(agent.live.notifier.why_reset(agent.lane, agent.stream.id()).await.or(code));
}

async fn both_ways<Io: ClientIo>(
    client: &mut Io,
    stream: &mut Stream,
    said: Said,
    ledger: &Ledger<Held>,
    wanted: &Wanted,
) -> Outcome {
    let answer = wanted.answer.accepted();
    if !answer.is_empty() {
        let told = async {
            client.write_all(&answer).await?;
            client.flush().await
        };
        if let Err(error) = told.await {
            return Outcome::Broken(End::Near, error);
        }
    }
    splice_said(said, &mut Socket::watched(client, Io::gone), stream, wanted.idle, ledger).await
}

/// A client that says nothing: the gateway speaks in its place.
struct Silent;

impl ClientIo for Silent {
    fn reset_on_close(&self, _: bool) {}

    fn gone(&self) -> Option<io::Error> {
        None
    }
}

impl AsyncRead for Silent {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Silent {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether this side ended a stream, and not the agent's.
fn is_own(ended: Option<&Outcome>) -> bool {
    ended.is_none_or(|outcome| matches!(outcome, Outcome::Broken(End::Near, _) | Outcome::Idle) || outcome.own_code().is_some())
}

/// What the closing row says. A clean end of which the agent said otherwise was a reset that the mux could not tell.
fn code_of(agent: &AgentEnd, outcome: &Outcome) -> Option<Code> {
    match outcome {
        _ if outcome.own_code().is_some() => outcome.own_code(),
        Outcome::Finished => agent.live.notifier.closed(agent.lane, agent.stream.id()),
        Outcome::Idle => Some(Code::IdleTimeout),
        Outcome::Broken(End::Near, _) => Some(Code::ClientReset),
        Outcome::Broken(End::Far, error) => mux::lost(error).map(|why| agent.live.lanes.lost(why)).or(Some(Code::TargetReset)), // Unless the agent says otherwise.
    }
}

#[cfg(test)]
mod tests;
