//! The live sessions by group, and which of them gets the next stream. It refuses to know clients and bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::reauthorise::{Certificate, Certificates};
use crate::base::code::{Code, Failure};
use crate::base::id::{AgentId, GroupId, InstanceId, Name, SessionId};
use crate::base::light::{Lamp, Light, Lights, Reach, Serving, Tunnel};
use crate::base::limits::DUPLICATE_AFTER;
use crate::base::secret::Secret;
use crate::tunnel::mux::Link;
use crate::tunnel::session::Notifier;
use crate::tunnel::session::lanes::Lanes;
use crate::wire::hello::{Kind, Offer};
use crate::wire::open::Spoken;
use crate::wire::refusal::Refusal;

/// Sessions by group.
#[derive(Default)]
pub struct Registry {
    groups: RwLock<HashMap<GroupId, Vec<Arc<Live>>>>,
    /// Breaks ties, so that equally loaded sessions take turns.
    turn: AtomicUsize,
}

/// One live session.
pub struct Live {
    /// Its id.
    pub session: SessionId,
    /// Whose it is, from the verified certificate.
    pub agent: AgentId,
    /// The agent's process.
    pub instance: InstanceId,
    /// The agent's program version.
    pub version: String,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Since when.
    pub since: OffsetDateTime,
    /// The same, by a clock that does not jump.
    pub began: Instant,
    /// Streams it takes.
    pub capacity: usize,
    /// What a further lane must prove to know; none: there is one lane alone.
    pub resume_secret: Option<Secret>,
    /// Its connections; opens streams on them.
    pub lanes: Lanes,
    /// Tells the agent, and what it told of streams' ends.
    pub notifier: Notifier,
    /// The connection of lane 0, with which the session ends.
    pub link: Link,
    /// Whether the agent answers a canary.
    pub echoes: bool,
    /// Whether it has answered the last one.
    pub serving: Lamp<Serving>,
    certificates: Certificates,
    offers: RwLock<HashMap<Name, Offered>>,
    draining: AtomicBool,
}

/// A target of a session, and how the last attempt at it went.
struct Offered {
    kind: Kind,
    lamp: Lamp<Reach>,
}

/// What is fixed about a session when it begins.
pub struct Facts {
    /// See [`Live`].
    pub session: SessionId,
    /// See [`Live`].
    pub agent: AgentId,
    /// What lane 0 has shown.
    pub certificate: Certificate,
    /// See [`Live`].
    pub instance: InstanceId,
    /// See [`Live`].
    pub version: String,
    /// See [`Live`].
    pub peer: SocketAddr,
    /// See [`Live`].
    pub capacity: usize,
    /// See [`Live`].
    pub resume_secret: Option<Secret>,
    /// See [`Live`].
    pub echoes: bool,
}

impl Registry {
    /// Takes a session in.
    pub fn add(&self, live: Arc<Live>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        groups.entry(live.agent.group.clone()).or_default().push(live);
    }

    /// A process of the same agent takes the place of one that is gone: what waits for that one's connections waits no more. A connection
    /// can't be taken up by another process, which doesn't have what was sent on it.
    pub fn replaced(&self, by: &Live) {
        for live in self.of_agent(&by.agent) {
            if live.instance != by.instance && live.is_resuming() {
                live.gives_way();
            }
        }
    }

    /// The same for one whose end was noticed only after the other had come. What drains beside the other is not gone.
    pub fn gives_way(&self, live: &Live) {
        let replaces = |other: &Arc<Live>| other.instance != live.instance && other.began > live.began;
        if !live.draining() && self.of_agent(&live.agent).iter().any(replaces) {
            live.gives_way();
        }
    }

    /// Forgets a session.
    pub fn remove(&self, live: &Live) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = groups.get_mut(&live.agent.group) {
            sessions.retain(|other| other.session != live.session);
            if sessions.is_empty() {
                groups.remove(&live.agent.group);
            }
        }
    }

    /// The least loaded live session of the group that offers the target and was not `tried`.
    ///
    /// # Errors
    /// `no_agent`, or `target_unknown` when agents are there but none offers the target.
    pub fn pick(&self, group: &GroupId, target: &Name, tried: &[SessionId]) -> Result<Arc<Live>, Refusal> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let sessions = groups.get(group).map(Vec::as_slice).unwrap_or_default();
        let mut usable = sessions.iter().filter(|live| live.usable() && !tried.contains(&live.session)).peekable();
        if usable.peek().is_none() {
            let resuming = sessions.iter().any(|live| live.waits(tried));
            let why = if resuming { "; its agents' connections are being resumed" } else { "" };
            return Err(Refusal::new(Code::NoAgent, format_args!("no agent of {group} is connected{why}")));
        }
        let offering: Vec<_> = usable.filter(|live| live.offers(target)).collect();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % offering.len().max(1);
        let (before, from) = offering.split_at(first.min(offering.len()));
        let least = from.iter().chain(before).min_by_key(|live| live.load());
        least.map(|live| Arc::clone(live)).ok_or_else(|| {
            Refusal::new(Code::TargetUnknown, format_args!("no connected agent of {group} has a target `{target}`"))
        })
    }

    /// The group's sessions that were not `tried` and wait for another connection.
    #[must_use]
    pub fn resuming(&self, group: &GroupId, tried: &[SessionId]) -> Vec<Arc<Live>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let sessions = groups.get(group).map(Vec::as_slice).unwrap_or_default().iter();
        sessions.filter(|live| live.waits(tried)).cloned().collect()
    }

    /// A session of this group by its id.
    #[must_use]
    pub fn find(&self, group: &GroupId, session: SessionId) -> Option<Arc<Live>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(group)?.iter().find(|live| live.session == session).cloned()
    }

    /// Those who hold this agent's identity: of each process its eldest serving session.
    #[must_use]
    pub fn holders(&self, agent: &AgentId) -> Vec<Arc<Live>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let own = groups.get(&agent.group).into_iter().flatten().filter(|live| live.agent == *agent && live.usable());
        holders(own.map(held).collect(), Instant::now())
    }

    /// The agents whose identity several processes hold, with the eldest session of each process.
    #[must_use]
    pub fn duplicates(&self) -> BTreeMap<AgentId, Vec<Arc<Live>>> {
        let mut serving: BTreeMap<AgentId, Vec<_>> = BTreeMap::new();
        for live in self.sessions().iter().filter(|live| live.usable()) {
            serving.entry(live.agent.clone()).or_default().push(held(live));
        }
        let now = Instant::now();
        let all = serving.into_iter().map(|(agent, serving)| (agent, holders(serving, now)));
        all.filter(|(_, holders)| holders.len() > 1).collect()
    }

    /// This agent's sessions, without a look at other groups': when a network breaks, that of thousands is asked for at once.
    fn of_agent(&self, agent: &AgentId) -> Vec<Arc<Live>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&agent.group).into_iter().flatten().filter(|live| live.agent == *agent).cloned().collect()
    }

    /// Every session, in the order of the agents' names.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Live>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = groups.values().flatten().cloned().collect();
        all.sort_by(|a, b| (&a.agent, a.session).cmp(&(&b.agent, b.session)));
        all
    }

    /// Closes every session's connection.
    pub fn close_all(&self) {
        for live in self.sessions() {
            live.lanes.close();
        }
    }
}

impl Live {
    /// A session as the greeting left it.
    #[must_use]
    pub fn new(facts: Facts, targets: &[Offer], lanes: Lanes, notifier: Notifier) -> Self {
        let Facts { session, agent, certificate, instance, version, peer, capacity, resume_secret, echoes } = facts;
        let link = lanes.first().link().clone();
        let offers = RwLock::new(targets.iter().map(|offer| (offer.name.clone(), Offered::new(offer.kind))).collect());
        let (since, began, draining) = (OffsetDateTime::now_utc(), Instant::now(), AtomicBool::new(false));
        Self {
            session,
            agent,
            instance,
            version,
            peer,
            since,
            began,
            capacity,
            resume_secret,
            lanes,
            notifier,
            link,
            echoes,
            serving: Lamp::new(Serving::Unknown),
            certificates: Certificates::of_first(certificate),
            offers,
            draining,
        }
    }

    fn gives_way(&self) {
        self.link.close_because(Failure::new(Code::ResumeExpired, "the agent's process was replaced by another one"));
    }

    /// Whether its connection has broken and another one is waited for.
    #[must_use]
    pub fn is_resuming(&self) -> bool {
        self.link.is_paused() && !self.link.has_ended()
    }

    /// Whether it could take a stream but for its broken connection, and was not `tried`.
    fn waits(&self, tried: &[SessionId]) -> bool {
        self.is_resuming() && !self.draining() && !tried.contains(&self.session)
    }

    /// The agent offers other targets now; at most `max` are remembered.
    pub fn offers_changed(&self, added: Vec<Offer>, removed: &[Name], max: usize) {
        let mut offers = self.offers.write().unwrap_or_else(PoisonError::into_inner);
        for name in removed {
            offers.remove(name);
        }
        for offer in added {
            if offers.len() < max || offers.contains_key(&offer.name) {
                offers.insert(offer.name, Offered::new(offer.kind));
            }
        }
    }

    /// Takes no new streams from here on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no new streams.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Streams open at this moment, the control stream not counted.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.lanes.streams().saturating_sub(1)
    }

    /// The certificates that its lanes have shown.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    fn tunnel(&self) -> Tunnel {
        if self.link.has_ended() {
            Tunnel::Down
        } else if self.link.is_paused() {
            Tunnel::Resuming
        } else if self.link.pulse().alive() {
            Tunnel::Connected
        } else {
            Tunnel::Silent
        }
    }

    /// What is known of its tunnel, its agent and its targets. Of an agent that can't be asked nothing is.
    #[must_use]
    pub fn lights(&self) -> Lights {
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        let targets = offers.iter().map(|(name, offered)| (name.clone(), offered.lamp.light())).collect();
        let tunnel = self.tunnel();
        let agent = match tunnel {
            Tunnel::Connected => self.serving.light(),
            Tunnel::Resuming | Tunnel::Silent | Tunnel::Down => Light { state: Serving::Unknown, since: None, code: None },
        };
        Lights { tunnel, agent, targets }
    }

    /// A stream that was opened for the target has its reply. Of a target of kind `http`, and for searches, an acceptance says nothing:
    /// nothing is connected then.
    pub(super) fn tried(&self, target: &Name, spoken: Spoken, outcome: Result<(), Code>) {
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(offered) = offers.get(target) else { return };
        if outcome.is_err() || (spoken == Spoken::Raw && offered.kind != Kind::Http) {
            offered.lamp.tried(outcome);
        }
    }

    /// A request to the target was answered, by the target unless a code says why not.
    pub(super) fn answered(&self, target: &Name, refusal: Option<Code>) {
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(offered) = offers.get(target) {
            offered.lamp.tried(refusal.map_or(Ok(()), Err));
        }
    }

    fn offers(&self, target: &Name) -> bool {
        self.offers.read().unwrap_or_else(PoisonError::into_inner).contains_key(target)
    }

    /// Whether it takes streams, and requests on those that it has.
    pub(crate) fn usable(&self) -> bool {
        !self.draining() && !self.link.has_ended() && self.link.pulse().alive()
    }

    /// In thousandths of what it can take. One that does not serve comes after all that may.
    fn load(&self) -> (bool, usize) {
        let silent = self.serving.light().state == Serving::NotServing;
        (silent, self.lanes.streams().saturating_mul(1000) / self.capacity.max(1))
    }
}

impl Offered {
    fn new(kind: Kind) -> Self {
        Self { kind, lamp: Lamp::new(Reach::Unknown) }
    }
}

fn held(live: &Arc<Live>) -> (Instant, InstanceId, Arc<Live>) {
    (live.began, live.instance, live.clone())
}

/// Who holds one identity, of its serving sessions with their beginnings and processes: the eldest of each process, in the order in
/// which they came, once it has lasted [`DUPLICATE_AFTER`]. More than one are clones. An agent that has restarted while its old
/// session lingers is not, nor is one that reaches this gateway twice.
fn holders<S>(mut serving: Vec<(Instant, InstanceId, S)>, now: Instant) -> Vec<S> {
    serving.sort_by_key(|(began, ..)| *began);
    let mut processes = HashSet::new();
    let eldest = serving.into_iter().filter(|(_, process, _)| processes.insert(*process));
    let lasting = eldest.filter(|(began, ..)| now.saturating_duration_since(*began) >= DUPLICATE_AFTER);
    lasting.map(|(.., session)| session).collect()
}

#[cfg(test)]
mod tests;
