//! The port that agents dial: TLS by ALPN, the upgrade, the greeting, then the session's life.
//! It refuses to know how certificates are issued, and of clients all but that they may come in here, too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::callers::passes;
use super::canary;
use super::ingress::socks5::Refused;
use super::ingress::{Wanted, dismiss};
use super::lanes::{self, Joining};
use super::reauthorise::{Certificate, disabled, holds, reauthorise};
use super::registry::{Facts, Live};
use super::relay::relay;
use super::shares::Share;
use super::{Gateway, Settings, enrollment};
use crate::base::allow::{network, site};
use crate::base::backoff::Backoff;
use crate::base::code::{Code, Failure};
use crate::base::id::{AgentId, SessionId};
use crate::base::limits::{
    AUDIT_SESSIONS, DUPLICATE_AFTER, HANDSHAKE_DEADLINE, MAX_SESSIONS_PER_AGENT, REAUTHORISE, SESSIONS_PER_MINUTE,
    SOCKET_BUFFER,
};
use crate::base::secret::Secret;
use crate::observe::audit::{Event, Holder};
use crate::observe::metrics;
use crate::pki::identity::{Identity, Role};
use crate::pki::tls::{self, Protocol};
use crate::tunnel::Io;
use crate::tunnel::half_close::HalfClose;
use crate::tunnel::ledger::Attendance;
use crate::tunnel::listen::{self, Service, prepare_tunnel};
use crate::tunnel::proxy_header;
use crate::tunnel::session::{self, Session};
use crate::tunnel::upgrade::{self, Upgraded};
use crate::wire::hello::{Hello, RESUME, Welcome};
use crate::wire::notice::Notice;
use crate::wire::open::CAPABILITY_ECHO;
use crate::wire::refusal::Refusal;
use crate::wire::resume::{self, Exporter, Resume};

/// Targets of one session that are remembered for routing.
const MAX_OFFERS: usize = 10_000;

/// How long a revoked agent has to read that it is.
const LAST_WORD: Duration = Duration::from_millis(500);

type Secured = TlsStream<BufReader<TcpStream>>;

/// Serves the port on an open socket.
pub fn serve(gateway: &Arc<Gateway>, socket: TcpListener) {
    let port = Arc::new(Port(gateway.clone()));
    let (caps, drain, tasks) = (gateway.settings.caps, gateway.drain.clone(), gateway.sessions.clone());
    gateway.sessions.spawn(listen::serve(socket, caps, port, drain, tasks));
}

struct Port(Arc<Gateway>);

/// A connection behind TLS, with the certificate that was shown on it: the seam below which a simulation has its own network.
pub(crate) struct Shown {
    /// What is said from here on is confidential.
    pub(crate) io: Box<dyn Io>,
    /// Who shows it.
    pub(crate) identity: Identity,
    /// What this connection alone has.
    pub(crate) exporter: Exporter,
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
}

/// What came through the handshake.
#[allow(clippy::large_enum_variant, reason = "both are large, few, and boxed")]
enum Ready {
    Tunnel { upgraded: Upgraded, identity: Identity, agent: AgentId, peer: SocketAddr },
    Lane { upgraded: Upgraded, joining: Joining, certificate: Certificate, peer: SocketAddr },
    Enroll { stream: Secured, peer: SocketAddr, share: Share<IpAddr> },
    Client { stream: HalfClose<Secured>, wanted: Result<Wanted, Vec<u8>> },
}

impl Service<TcpStream, SocketAddr> for Port {
    type Ready = Box<Ready>;

    fn admits(&self, peer: &SocketAddr) -> bool {
        let admitted = if self.0.settings.proxy_from.admits(peer.ip()) { Ok(()) } else { self.admitted(*peer) };
        admitted.map_err(|failure| self.report(*peer, &failure)).is_ok()
    }

    async fn arrive(&self, mut io: TcpStream, peer: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
        if !self.0.settings.proxy_from.admits(peer.ip()) {
            return Some((io, peer));
        }
        let source = proxy_header::read(&mut io, peer).await;
        let admitted = source.and_then(|source| self.admitted(source).map(|()| source));
        admitted.map_err(|failure| self.report(peer, &failure)).ok().map(|source| (io, source))
    }

    fn source(&self, peer: &SocketAddr) -> Option<IpAddr> {
        Some(site(peer.ip()))
    }

    async fn handshake(&self, io: TcpStream, peer: SocketAddr) -> Option<Box<Ready>> {
        self.secure(io, peer).await.map(Box::new).map_err(|failure| self.report(peer, &failure)).ok()
    }

    async fn serve(&self, ready: Box<Ready>) {
        match *ready {
            Ready::Tunnel { upgraded, identity, agent, peer } => self.tunnel(upgraded, identity, agent, peer).await,
            Ready::Lane { upgraded, joining, certificate, peer } => {
                lanes::serve(&self.0, joining, upgraded, certificate, peer).await;
            }
            Ready::Enroll { stream, peer, share: _share } => enrollment::serve(&self.0, stream, peer.ip()).await,
            Ready::Client { mut stream, wanted: Err(say) } => dismiss(&mut stream, &say).await,
            Ready::Client { stream, wanted: Ok(wanted) } => {
                let gateway = self.0.clone();
                // Among the clients, so that a drain waits for it.
                let relayed = self.0.clients.spawn(async move { relay(&gateway, stream, Box::new(wanted)).await });
                let _ = relayed.await;
            }
        }
    }

    fn timed_out(&self, peer: SocketAddr) {
        self.report(peer, &Failure::new(Code::TlsFailed, "TLS, the upgrade or the request took longer than 5 s"));
    }

    fn crowded(&self, peer: SocketAddr) {
        metrics::connect_refused(Code::HandshakeLimited);
        self.0.crowded(peer, "connection refused");
    }
}

fn denied(peer: SocketAddr) -> Failure {
    Failure::new(Code::SourceDenied, format_args!("{} is not in `allow_from`", peer.ip()))
}

impl Port {
    /// Whether somebody from there may anything here.
    fn admitted(&self, source: SocketAddr) -> Result<(), Failure> {
        let Settings { allow_from, enroll_from, clients_from, .. } = &self.0.settings;
        let admitted = [allow_from, enroll_from, clients_from].into_iter().any(|from| from.admits(source.ip()));
        if admitted { Ok(()) } else { Err(denied(source)) }
    }

    /// Everything before a connection is known.
    async fn secure(&self, io: TcpStream, peer: SocketAddr) -> Result<Ready, Failure> {
        let gateway = &self.0;
        let io = BufReader::with_capacity(SOCKET_BUFFER, io);
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await;
        let start = start.map_err(|error| tls::refusal_of(&error))?;
        let protocol = tls::choose(start.client_hello().alpn())?;
        let (allowed, config) = match protocol {
            Protocol::Tunnel => (&gateway.settings.allow_from, gateway.tls.tunnel()),
            Protocol::Enroll => (&gateway.settings.enroll_from, gateway.tls.enroll()),
            Protocol::Client => (&gateway.settings.clients_from, gateway.tls.client()),
        };
        if !allowed.admits(peer.ip()) {
            return Err(denied(peer));
        }
        if protocol == Protocol::Enroll {
            let full = || Failure::new(Code::EnrollLimited, "too many connections that enroll, from this address or in all");
            // Before the handshake, which is what costs.
            let share = gateway.enrolling.take(&network(peer.ip())).ok_or_else(full)?;
            let stream = start.into_stream(config).await.map_err(|error| tls::refusal_of(&error))?;
            return Ok(Ready::Enroll { stream, peer, share });
        }
        let mut stream = start.into_stream(config).await.map_err(|error| tls::refusal_of(&error))?;
        if protocol == Protocol::Client {
            let wanted = gateway.settings.client_terms.wanted(gateway, &mut stream, peer, Ok(None)).await;
            let wanted = wanted.map_err(|Refused { failure, say }| {
                self.report(peer, &failure);
                say
            });
            return Ok(Ready::Client { stream: HalfClose::new(stream), wanted });
        }
        // Not a client's, whose reader may rest for as long as it likes: that looks like acknowledging nothing.
        prepare_tunnel(stream.get_ref().0.get_ref());
        let identity = tls::peer_identity(stream.get_ref().1)?;
        let exporter = tls::exporter(stream.get_ref().1, resume::EXPORTER_LABEL)?;
        self.upgrade(Shown { io: Box::new(stream), identity, exporter, peer }).await
    }

    /// From there to a tunnel, or to a further lane of one.
    async fn upgrade(&self, shown: Shown) -> Result<Ready, Failure> {
        let gateway = &self.0;
        let Shown { io, identity, exporter, peer } = shown;
        let Role::Agent { agent, .. } = identity.role.clone() else {
            return Err(Failure::new(Code::CertificateRefused, "the certificate is no agent's"));
        };
        let admit = |resume: Option<Resume>| {
            if gateway.drain.begun() {
                return Err(Failure::new(Code::Stopping, "the gateway is shutting down"));
            }
            if gateway.revocations.disables(&agent) {
                return Err(disabled(&agent));
            }
            let admitted = resume.map(|resume| lanes::admit(gateway, &agent, &resume, &exporter)).transpose()?;
            Ok(admitted.map_or((None, None), |(joining, received)| (Some(joining), received)))
        };
        Ok(match upgrade::server(io, gateway.instance, admit).await? {
            (upgraded, None) => Ready::Tunnel { upgraded, identity, agent, peer },
            (upgraded, Some(joining)) => Ready::Lane { upgraded, joining, certificate: Certificate::from(&identity), peer },
        })
    }

    fn report(&self, peer: SocketAddr, failure: &Failure) {
        metrics::connect_refused(failure.code);
        self.0.refused(peer, failure, "connection refused");
    }

    async fn tunnel(&self, upgraded: Upgraded, identity: Identity, agent: AgentId, peer: SocketAddr) {
        let gateway = &self.0;
        let tasks = gateway.sessions.child();
        // Until the session's end.
        let share = gateway.held.take(&agent).filter(|_| gateway.begun.check_key(&agent).is_ok());
        let decide = |hello: &Hello, version| decide(gateway, hello, version, share.is_some());
        match session::welcome(upgraded, decide, &tasks).await {
            Ok((hello, welcome, session)) => {
                let live = enter(gateway, &hello, welcome, &session, identity, agent, peer);
                self.live(live, session).await;
            }
            Err(failure) => {
                self.report(peer, &failure.context(agent));
                // The agent learns why: what was refused goes out before the connection is dropped.
                let _ = tokio::time::timeout(HANDSHAKE_DEADLINE, tasks.join()).await;
            }
        }
        tasks.abort().await;
    }

    async fn live(&self, live: Arc<Live>, mut session: Session) {
        let gateway = &self.0;
        let serial = live.certificates().first().serial.to_string();
        let peer = live.peer.to_string();
        tracing::info!(session = %live.session, agent = %live.agent, %peer, version = live.version, "agent connected");
        let attendance = Attendance::open(&gateway.audit, live.session, &live.agent, &serial, &peer);
        let entered = Entered(gateway, &live);
        let id = gateway.settings.id.as_str();
        let _open = (metrics::session(id), metrics::lane(id));
        let failure = tokio::select! {
            biased;
            failure = attend(gateway, &live, &mut session) => failure,
            never = lanes::watch(gateway, &live, live.lanes.first()) => match never {},
        };
        drop(entered);
        // Whatever ended the first lane.
        live.lanes.close();
        attendance.close(failure);
    }
}

/// A session in the registry, for as long as somebody attends to it.
struct Entered<'a>(&'a Gateway, &'a Live);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.registry.remove(self.1);
    }
}

fn decide(gateway: &Gateway, hello: &Hello, version: u32, has_share: bool) -> Result<Welcome, Refusal> {
    if !has_share {
        let limits = format!("{MAX_SESSIONS_PER_AGENT} at a time, {SESSIONS_PER_MINUTE} begun in a minute");
        return Err(Refusal::new(Code::AgentSessions, limits));
    }
    if gateway.drain.begun() {
        return Err(Refusal::new(Code::Stopping, "the gateway is shutting down"));
    }
    let max_lanes = gateway.settings.max_lanes;
    let resumes = hello.capabilities.iter().any(|capability| capability == RESUME);
    let resume_window = if resumes { gateway.settings.resume_window } else { Duration::ZERO };
    let resume_secret = if max_lanes > 1 || !resume_window.is_zero() { Some(Secret::random()?) } else { None };
    Ok(Welcome {
        version,
        gateway: gateway.instance,
        session: SessionId::fresh(),
        resume_secret,
        resume_window,
        direct_address: gateway.settings.direct_address.clone(),
        max_streams: u32::try_from(gateway.settings.max_streams).unwrap_or(u32::MAX),
        max_lanes: u32::try_from(max_lanes).unwrap_or(u32::MAX),
    })
}

fn enter(
    gateway: &Gateway,
    hello: &Hello,
    welcome: Welcome,
    session: &Session,
    identity: Identity,
    agent: AgentId,
    peer: SocketAddr,
) -> Arc<Live> {
    let facts = Facts {
        session: welcome.session,
        agent,
        certificate: Certificate::from(&identity),
        instance: hello.instance,
        version: hello.agent_version.clone(),
        peer,
        capacity: session.lanes.max_streams(),
        resume_secret: welcome.resume_secret,
        echoes: hello.capabilities.iter().any(|capability| capability == CAPABILITY_ECHO),
    };
    let live = Live::new(facts, &hello.targets, session.lanes.clone(), session.notifier.clone());
    let live = Arc::new(live);
    gateway.registry.replaced(&live);
    gateway.registry.add(live.clone());
    live
}

/// A session's life: what the agent tells, what is to be told, and whether what it was granted on still holds.
async fn attend(gateway: &Gateway, live: &Arc<Live>, session: &mut Session) -> Failure {
    let mut revoked = gateway.revocations.subscribe();
    let mut told = false;
    let (expiring, canary) = (expires(gateway, live), canary::watch(gateway, live));
    tokio::pin!(expiring, canary);
    let mut reauthorised = tokio::time::interval_at(live.began + REAUTHORISE, REAUTHORISE);
    reauthorised.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut woken = gateway.wakes.subscribe();
    // After the first time by lot: who knew when could be between two connections just then.
    let (doubts, mut lot) = (sleep_until(live.began + DUPLICATE_AFTER), Backoff::new(2 * DUPLICATE_AFTER, 2 * DUPLICATE_AFTER));
    tokio::pin!(doubts);
    let mut doubted = false;
    loop {
        // Also before the first change: the certificate may have been revoked during the handshake.
        if let Err(why) = holds(gateway, live) {
            return end(live, why).await;
        }
        tokio::select! {
            biased;
            failure = live.link.ended() => return failure,
            Ok(()) = revoked.changed() => {}
            () = &mut expiring => return end(live, expired(live)).await,
            // What no longer holds is found above.
            _ = reauthorised.tick() => drop(reauthorise(gateway, live)),
            () = &mut canary => {}
            Ok(()) = woken.changed() => live.lanes.woken(*woken.borrow_and_update()),
            notice = session.notices.recv() => match notice {
                Some(notice) => noticed(live, notice),
                None => return live.link.ended().await,
            },
            () = gateway.drain.begins(), if !told => {
                session.notifier.tell(Notice::Drain { deadline: gateway.settings.drain_timeout });
                live.drain();
                told = true;
            }
            () = &mut doubts, if !doubted => {
                doubted = report_duplicate(gateway, live);
                doubts.as_mut().reset(Instant::now() + lot.draw());
            }
            () = live.lanes.wear_out(), if !live.draining() => replace(gateway, live),
            count = live.lanes.wanted(), if !live.draining() => {
                tracing::info!(session = %live.session, agent = %live.agent, count, "asking for more lanes");
                session.notifier.tell(Notice::Lanes { count });
            }
            // Agents open no streams but the control stream: dropped, and by that reset.
            stream = session.incoming.accept() => if stream.is_none() { return live.link.ended().await },
        }
    }
}

/// Ends a session with whose grounds it is over.
async fn end(live: &Live, why: Failure) -> Failure {
    live.drain();
    live.lanes.ends_with(why.code);
    if why.code == Code::Revoked {
        live.notifier.tell(Notice::Revoked);
        // An honest agent ends the session when it reads this; the others have it ended for them.
        let _ = tokio::time::timeout(LAST_WORD, live.link.ended()).await;
    }
    live.lanes.close_because(&why);
    live.link.ended().await;
    why
}

fn expired(live: &Live) -> Failure {
    Failure::new(Code::CertificateExpired, format_args!("at {}", live.certificates().until()))
}

/// Ends when the certificate has ended and its session's streams had the time of a drain. A session must not outlive what it was
/// granted on: after a new enrollment, nobody who revokes the agent would think of it.
async fn expires(gateway: &Gateway, live: &Live) {
    // One that is replaced by a longer one in time, at a resume, doesn't count.
    loop {
        let until = live.certificates().until();
        passes(until).await;
        if live.certificates().until() <= until {
            break;
        }
    }
    live.drain();
    let deadline = gateway.settings.drain_timeout;
    live.notifier.tell(Notice::Drain { deadline });
    tracing::warn!(session = %live.session, agent = %live.agent, code = %Code::CertificateExpired, "the session's certificate has ended");
    tokio::time::sleep(deadline).await;
}

/// Has the agent begin another session before this one runs out of ids for streams. It serves until the agent says that it has one, and
/// what is open then ends in its own time.
fn replace(gateway: &Gateway, live: &Live) {
    tracing::info!(session = %live.session, agent = %live.agent, "the session's ids for streams run out: asking for another session");
    live.notifier.tell(Notice::Drain { deadline: gateway.settings.drain_timeout });
}

/// Tells of an agent whose identity another process has held for longer; whether there is one. Each process that joins others is
/// told of once, by its eldest session.
fn report_duplicate(gateway: &Gateway, live: &Live) -> bool {
    // Nearly always, and without a look through its group.
    if gateway.held.held_by(&live.agent) < 2 {
        return false;
    }
    let holders = gateway.registry.holders(&live.agent);
    if !holders.iter().skip(1).any(|holder| holder.session == live.session) {
        return false;
    }
    let sessions: Vec<_> = holders
        .iter()
        .take(AUDIT_SESSIONS)
        .map(|holder| Holder { session: holder.session, instance: holder.instance, peer: holder.peer })
        .collect();
    let peers: Vec<_> = sessions.iter().map(|holder| holder.peer.to_string()).collect();
    let (agent, instances) = (&live.agent, holders.len());
    tracing::warn!(%agent, instances, peers = peers.join(" "), code = %Code::DuplicateIdentity, "several processes hold one agent's identity");
    // Both serve on, whether or not the row can be kept.
    let _ = gateway.audit.record(&Event::DuplicateIdentity { agent, instances, sessions: &sessions });
    true
}

fn noticed(live: &Live, notice: Notice) {
    match notice {
        Notice::Drain { deadline } => {
            tracing::info!(session = %live.session, agent = %live.agent, seconds = deadline.as_secs(), "the agent takes no more streams");
            live.drain();
            // Said back, so that the agent knows when no further stream will come.
            live.notifier.tell(Notice::Drain { deadline });
        }
        Notice::TargetsChanged { added, removed } => live.offers_changed(added, &removed, MAX_OFFERS),
        _ => {}
    }
}

/// Serves a connection that came in by another way than a socket's, as the port serves its own, to its end.
#[cfg(test)]
pub(crate) fn take(gateway: &Arc<Gateway>, shown: Shown) -> tokio::task::JoinHandle<Option<()>> {
    let (port, peer) = (Port(gateway.clone()), shown.peer);
    gateway.sessions.spawn(async move {
        match tokio::time::timeout(HANDSHAKE_DEADLINE, port.upgrade(shown)).await {
            Ok(Ok(ready)) => port.serve(Box::new(ready)).await,
            Ok(Err(failure)) => port.report(peer, &failure),
            Err(_) => port.timed_out(peer),
        }
    })
}

#[cfg(test)]
mod tests;
