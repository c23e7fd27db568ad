//! The accounts in the audit: of a stream, one row when it is opened or refused and one when it is closed; of a session and of
//! a further lane, one at either end. Whatever ends them, also a task that is dropped in the middle. It refuses to know why
//! they end, and at which end of the tunnel it is kept.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::splice::{Delay, Direction, Toll};
use crate::base::code::{Code, Failure};
use crate::base::id::{AgentId, RequestId, SessionId};
use crate::observe::audit::{Audit, Event};
use crate::observe::metrics;
use crate::wire::refusal::Refusal;

/// A stream that was asked for. It becomes a [`Ledger`] or is refused; dropping it before is a refusal with `stopping`.
pub struct Asked {
    /// The client ask.
    pub request: RequestId,
    /// What is asked for, as the rows name it.
    pub target: String,
    /// Who asks.
    pub caller: String,
    /// From where.
    pub source: Option<SocketAddr>,
    /// This end's agent, if this end is one.
    pub agent: Option<AgentId>,
    /// Since when.
    pub since: Instant,
    audit: Audit,
    settled: bool,
}

impl Asked {
    /// Begins the account.
    pub fn new(
        audit: &Audit,
        request: RequestId,
        target: String,
        caller: String,
        source: Option<SocketAddr>,
        agent: Option<AgentId>,
    ) -> Self {
        Self { request, target, caller, source, agent, since: Instant::now(), audit: audit.clone(), settled: false }
    }

    /// Writes that the stream is open: by that agent, on that session, at that address as far as this end knows it.
    ///
    /// # Errors
    /// `audit_full`; it is then to be refused.
    pub fn opened<P: Pace>(
        &mut self,
        session: SessionId,
        agent: &AgentId,
        address: Option<SocketAddr>,
        pace: P,
    ) -> Result<Ledger<P>, Failure> {
        let Self { request, source, .. } = *self;
        let (target, caller) = (self.target.as_str(), self.caller.as_str());
        self.audit.record(&Event::Opened { request, session, target, agent: Some(agent), caller, source, address })?;
        self.settled = true;
        tracing::debug!(%request, target, %agent, caller, "stream opened");
        metrics::opened(self.since.elapsed());
        Ok(Ledger::open(&self.audit, request, self.target.clone(), pace))
    }

    /// Writes that it is not, unless its caller has had many refused in this minute: they are counted then.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.settled = true;
        let Self { request, source, .. } = *self;
        let (target, caller, code, detail) =
            (self.target.as_str(), self.caller.as_str(), refusal.code, refusal.detail.as_str());
        metrics::refused(code);
        let agent = self.agent.as_ref();
        if self.audit.limited(&Event::Refused { request, target, agent, caller, source, code, detail }) {
            tracing::warn!(%request, target, caller, %code, detail, "stream refused");
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.settled {
            self.refused(&Refusal::new(Code::Stopping, "cut before it was open"));
        }
    }
}

/// The account of a session. Dropping it before [`Attendance::close`] says that this side stopped.
pub struct Attendance {
    audit: Audit,
    session: SessionId,
    agent: AgentId,
    why: Failure,
}

impl Attendance {
    /// Writes that the session begins.
    pub fn open(audit: &Audit, session: SessionId, agent: &AgentId, serial: &str, peer: &str) -> Self {
        // A row that can't be kept refuses the streams, not the session.
        let _ = audit.record(&Event::Connected { session, agent, serial, peer });
        let why = Failure::new(Code::Stopping, "closed by this side");
        Self { audit: audit.clone(), session, agent: agent.clone(), why }
    }

    /// Writes that it has ended.
    pub fn close(mut self, why: Failure) {
        self.why = why;
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let (session, agent, Failure { code, detail }) = (self.session, &self.agent, &self.why);
        tracing::info!(%session, %agent, %code, detail, "session ended");
        let _ = self.audit.record(&Event::Disconnected { session, agent, code: *code, detail });
    }
}

/// The account of a further lane. Dropping it before [`LaneAttendance::close`] says that this side stopped.
pub struct LaneAttendance {
    audit: Audit,
    session: SessionId,
    agent: AgentId,
    lane: u32,
    why: Option<Failure>,
}

impl LaneAttendance {
    /// Writes that the session has got this lane.
    pub fn open(audit: &Audit, session: SessionId, agent: &AgentId, lane: u32, peer: &str) -> Self {
        tracing::info!(%session, %agent, lane, peer, "lane opened");
        let _ = audit.record(&Event::LaneOpened { session, agent, lane, peer });
        let why = Some(Failure::new(Code::Stopping, "closed by this side"));
        Self { audit: audit.clone(), session, agent: agent.clone(), lane, why }
    }

    /// Writes that the lane has ended, and why unless it was closed in good order.
    pub fn close(mut self, why: Option<Failure>) {
        self.why = why;
    }
}

impl Drop for LaneAttendance {
    fn drop(&mut self) {
        let (session, agent, lane) = (self.session, &self.agent, self.lane);
        let (code, detail) = (self.why.as_ref().map(|why| why.code), self.why.as_ref().map(|why| why.detail.as_str()));
        tracing::info!(%session, %agent, lane, code = code.map_or("ok", Code::as_str), detail, "lane closed");
        let _ = self.audit.record(&Event::LaneClosed { session, agent, lane, code, detail });
    }
}

/// Which lane of whose session rows are about.
pub struct LaneAccount<'a> {
    /// Where they are kept.
    pub audit: &'a Audit,
    /// The session.
    pub session: SessionId,
    /// Its agent.
    pub agent: &'a AgentId,
    /// The lane.
    pub lane: u32,
}

impl LaneAccount<'_> {
    /// Writes that its connection broke, and that the lane waits for another, unless many of its agent's have in this minute.
    pub fn broken(&self, why: &Failure) {
        let (session, agent, lane, code, detail) = (self.session, self.agent, self.lane, why.code, why.detail.as_str());
        metrics::lane_broken(code);
        if self.audit.limited(&Event::LaneBroken { session, agent, lane, code, detail }) {
            tracing::warn!(%session, %agent, lane, %code, detail, "lane broken: it waits for another connection");
        }
    }

    /// Writes that it goes on with another one, of that attempt, after so long; whether that is told, and not only counted, as with
    /// [`LaneAccount::broken`].
    pub fn resumed(&self, generation: u64, serial: &str, peer: &str, paused: Duration) -> bool {
        let (session, agent, lane) = (self.session, self.agent, self.lane);
        let paused_ms = u64::try_from(paused.as_millis()).unwrap_or(u64::MAX);
        metrics::lane_resumed(paused);
        let event = Event::LaneResumed { session, agent, lane, generation, serial, peer, paused_ms };
        let told = self.audit.limited(&event);
        if told {
            tracing::info!(%session, %agent, lane, generation, peer, paused_ms, "lane resumed");
        }
        told
    }
}

/// Slows bytes down to a rate, and learns what has moved; `()` does neither.
pub trait Pace: Send + Sync {
    /// Ends when some of these bytes may go on, with how many; `None` when all may at once.
    fn pace(&self, bytes: usize) -> Option<Delay<'_>>;

    /// So many bytes have gone on, either way.
    fn moved(&self, _bytes: usize) {}
}

impl Pace for () {
    fn pace(&self, _: usize) -> Option<Delay<'_>> {
        None
    }
}

/// The account of an open stream: bytes counted as they pass. Dropping it closes the account.
pub struct Ledger<P> {
    audit: Audit,
    request: RequestId,
    target: String,
    since: Instant,
    up: AtomicU64,
    down: AtomicU64,
    up_total: ::metrics::Counter,
    down_total: ::metrics::Counter,
    /// What the row says; if nobody has said it, the task was dropped, so the process is ending.
    code: OnceLock<Option<Code>>,
    pace: P,
    _open: metrics::Held,
}

impl<P: Pace> Ledger<P> {
    fn open(audit: &Audit, request: RequestId, target: String, pace: P) -> Self {
        Self {
            audit: audit.clone(),
            request,
            target,
            since: Instant::now(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            up_total: metrics::bytes_counter(metrics::Direction::Up),
            down_total: metrics::bytes_counter(metrics::Direction::Down),
            code: OnceLock::new(),
            pace,
            _open: metrics::stream(),
        }
    }

    /// Closes it: without a code when both directions reached their end of file.
    pub fn close(self, code: Option<Code>) {
        self.ends(code);
    }

    /// The bytes that have gone up and down so far.
    pub fn moved(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    /// What the row says when the last who counts has dropped the ledger. Who says it first is believed.
    pub fn ends(&self, code: Option<Code>) {
        let _ = self.code.set(code);
    }
}

impl<P: Pace> Toll for Ledger<P> {
    fn pace(&self, bytes: usize) -> Option<Delay<'_>> {
        self.pace.pace(bytes)
    }

    fn count(&self, direction: Direction, bytes: usize) {
        let (sum, total) = match direction {
            Direction::Up => (&self.up, &self.up_total),
            Direction::Down => (&self.down, &self.down_total),
        };
        sum.fetch_add(bytes as u64, Ordering::Relaxed);
        total.increment(bytes as u64);
        self.pace.moved(bytes);
    }
}

impl<P> Drop for Ledger<P> {
    fn drop(&mut self) {
        let (up, down) = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let code = self.code.get().copied().unwrap_or(Some(Code::DrainDeadline));
        let (request, target) = (self.request, self.target.as_str());
        tracing::debug!(%request, target, up, down, millis, code = code.map_or("ok", Code::as_str), "stream closed");
        // A row that can't be kept refuses the next open, not this end.
        let _ = self.audit.record(&Event::Closed { request, target, up, down, millis, code });
    }
}
