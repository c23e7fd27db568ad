//! One link for each endpoint: dial, greet, serve the session, and again, for as long as the process runs.
//! It refuses to know what streams carry.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Agent;
use super::acceptor::Context;
use super::connector::{Connector, Origin};
use super::lanes::{self, Further};
use super::policy::Policy;
use super::reach::Secured;
use super::reauthorise::{Grounds, reauthorise};
use super::resume::{self, Pace};
use super::status::Connected;
use crate::base::backoff::Backoff;
use crate::base::code::{Code, Failure};
use crate::base::endpoint::Endpoint;
use crate::base::limits::{DIAL_DEADLINE, REAUTHORISE, RECONNECT_BASE, RECONNECT_MAX, SESSION_PROVEN};
use crate::base::tasks::Tasks;
use crate::observe::metrics;
use crate::pki::pem;
use crate::pki::renew::Credential;
use crate::pki::tls::AgentTls;
use crate::tunnel::ledger::Attendance;
use crate::tunnel::session::{Session, greet};
use crate::tunnel::upgrade;
use crate::wire::hello::{Hello, OFFERS_PER_MESSAGE, Offer, RESUME, VERSIONS, Welcome};
use crate::wire::notice::Notice;
use crate::wire::open::CAPABILITY_ECHO;

/// How often the agent looks at its certificate's age.
const EXPIRY_CHECK: Duration = Duration::from_secs(3600);

/// Where an agent's identity lies.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    /// Leaf, issuing CA, root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The only trust anchor.
    pub root: PathBuf,
}

impl CredentialFiles {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// `state_missing`, `state_invalid`, `file_permissions`.
    pub fn load(&self) -> Result<Credential, Failure> {
        Credential::load(&self.certificate, &self.key)
    }

    /// The same, and what every connection of the tunnel is secured with.
    pub(super) fn tls(&self) -> Result<(Credential, AgentTls), Failure> {
        let credential = self.load()?;
        let tls = AgentTls::new(&credential, &pem::load_one(&self.root)?)?;
        Ok((credential, tls))
    }
}

/// A session that a link holds, and what it must end with.
struct Held {
    session: Session,
    welcome: Welcome,
    /// What it was begun on.
    grounds: Arc<ArcSwap<Grounds>>,
    origin: Origin,
    /// Its link's.
    pace: Arc<Pace>,
    tasks: Tasks,
}

/// How a session that its gateway wants to end is left.
#[derive(Clone, Default)]
struct Leave {
    /// The gateway has asked for it: another is dialled.
    released: CancellationToken,
    /// That attempt is over, well or not.
    succeeded: CancellationToken,
}

/// How an attempt ended, and how long its session had lived.
struct Ended {
    why: Failure,
    lived: Duration,
}

impl Ended {
    fn unborn(why: Failure) -> Self {
        Self { why, lived: Duration::ZERO }
    }
}

/// Keeps a session with one endpoint until the drain begins.
pub(super) async fn keep(agent: Arc<Agent>, endpoint: Endpoint) {
    let mut backoff = Backoff::new(RECONNECT_BASE, RECONNECT_MAX);
    let (mut woken, mut before, pace) = (agent.wakes.subscribe(), None, Arc::new(Pace::new()));
    while !agent.drain.begun() {
        let Ended { why: failure, lived } = hold(&agent, &endpoint, &pace, &mut before).await;
        if lived >= SESSION_PROVEN {
            backoff.reset();
        }
        let wait = if failure.code == Code::SameGateway { RECONNECT_MAX } else { backoff.draw() };
        metrics::reconnect(failure.code);
        if !agent.drain.begun() {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(%endpoint, code = %failure.code, detail = %failure.detail, wait_ms, "not connected");
        }
        agent.board.waiting(&endpoint, failure, Instant::now() + wait);
        // What made it wait was before the sleep.
        woken.mark_unchanged();
        tokio::select! {
            biased;
            Ok(()) = woken.changed() => backoff.reset(),
            () = agent.drain.begins() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// One session, from the dial until it takes no more streams; yields why. `before` is the session that this one replaces, and then the
/// one to be replaced: its streams go on, and new ones may come until the next attempt is over.
async fn hold(agent: &Arc<Agent>, endpoint: &Endpoint, pace: &Arc<Pace>, before: &mut Option<CancellationToken>) -> Ended {
    agent.board.connecting(endpoint);
    let too_slow =
        || Failure::new(Code::GatewayTimeout, format_args!("{endpoint}: no session within {} s", DIAL_DEADLINE.as_secs()));
    let dialled = tokio::select! {
        biased;
        () = agent.drain.begins() => Ok(Err(Failure::new(Code::Stopping, "closed by this side"))),
        dialled = tokio::time::timeout(DIAL_DEADLINE, connect(agent, endpoint, pace)) => dialled,
    };
    if let Some(before) = before.take() {
        before.cancel();
    }
    let held = match dialled.unwrap_or_else(|_| Err(too_slow())) {
        Ok(held) => held,
        Err(failure) => return Ended::unborn(failure),
    };
    let connected = Connected {
        gateway: held.welcome.gateway,
        session: held.welcome.session,
        pulse: held.session.link.pulse().clone(),
        lanes: held.session.lanes.counted(),
        since: Instant::now(),
    };
    if !agent.board.claim(endpoint, &connected) {
        let detail = format!("{endpoint} leads to gateway instance {}", connected.gateway);
        let why = Failure::new(Code::SameGateway, detail);
        dismiss(held, why.clone()).await;
        return Ended::unborn(why);
    }
    tracing::info!(%endpoint, session = %connected.session, gateway = %connected.gateway, "connected");
    // The session outlives this link's interest in it when the gateway drains: a new one is dialled at once.
    let (leave, why) = (Leave::default(), watch::Sender::new(None));
    let mut ended = why.subscribe();
    agent.tasks.spawn(serve(agent.clone(), endpoint.clone(), held, leave.clone(), why));
    let why = tokio::select! {
        biased;
        () = leave.released.cancelled() => {
            *before = Some(leave.succeeded);
            Failure::new(Code::Stopping, "the gateway asked for another session")
        }
        why = ended.wait_for(Option::is_some) => {
            let why = why.ok().and_then(|why| why.clone());
            why.unwrap_or_else(|| Failure::new(Code::Stopping, "closed by this side"))
        }
    };
    Ended { why, lived: connected.since.elapsed() }
}

/// Ends a session that nobody serves; its tasks end only when the session is gone.
async fn dismiss(held: Held, why: Failure) {
    let Held { session, tasks, .. } = held;
    session.link.close_because(why);
    session.link.ended().await;
    tasks.abort().await;
}

async fn connect(agent: &Arc<Agent>, endpoint: &Endpoint, pace: &Arc<Pace>) -> Result<Held, Failure> {
    let proxy = agent.reach.proxy(endpoint)?;
    agent.board.via(endpoint, proxy.map(|proxy| proxy.to_string()));
    let Secured { io, gateway, address, grounds, .. } = agent.reach.secure(&endpoint.0, endpoint).await?;
    let pipe = upgrade::client(io, endpoint, None).await?;
    let tasks = agent.tasks.child();
    let greeted = greet(pipe, hello(agent), &tasks).await;
    let (welcome, session) = greeted.map_err(|failure| failure.context(endpoint))?;
    tell_offers(&session, agent.policy().offers().into_iter().skip(OFFERS_PER_MESSAGE).collect(), Vec::new());
    let (grounds, origin) = (Arc::new(ArcSwap::from_pointee(grounds)), Origin { gateway, address });
    Ok(Held { session, welcome, grounds, origin, pace: pace.clone(), tasks })
}

/// Warns, as long as the agent runs, when its certificate is in the last third of its life.
pub(super) async fn watch_certificate(agent: Arc<Agent>) {
    let mut tick = tokio::time::interval(EXPIRY_CHECK);
    loop {
        tick.tick().await;
        match agent.settings.credential.load() {
            Ok(credential) => warn_of_expiry(&credential),
            Err(failure) => tracing::error!(code = %failure.code, detail = %failure.detail, "the agent's certificate"),
        }
    }
}

fn warn_of_expiry(credential: &Credential) {
    let not_after = credential.identity().not_after;
    metrics::certificate_not_after("agent", not_after.unix_timestamp());
    if credential.in_last_third(OffsetDateTime::now_utc()) {
        let what = "the certificate is in the last third of its life: enroll again with a fresh token";
        tracing::warn!(code = %Code::CertificateExpiring, %not_after, "{what}");
    }
}

fn hello(agent: &Agent) -> Hello {
    let mut targets = agent.policy().offers();
    targets.truncate(OFFERS_PER_MESSAGE);
    Hello {
        versions: VERSIONS,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: agent.instance,
        targets,
        capacity: u32::try_from(agent.settings.max_streams).unwrap_or(u32::MAX),
        capabilities: vec![RESUME.to_owned(), CAPABILITY_ECHO.to_owned()],
    }
}

fn tell_offers(session: &Session, added: Vec<Offer>, removed: Vec<crate::base::id::Name>) {
    let removals = removed.chunks(OFFERS_PER_MESSAGE).map(|part| (Vec::new(), part.to_vec()));
    let additions = added.chunks(OFFERS_PER_MESSAGE).map(|part| (part.to_vec(), Vec::new()));
    for (added, removed) in removals.chain(additions) {
        session.notifier.tell(Notice::TargetsChanged { added, removed });
    }
}

/// Serves a session to its end, which is: the connection breaks, or one side drains and the last stream is done.
async fn serve(agent: Arc<Agent>, endpoint: Endpoint, held: Held, leave: Leave, why: watch::Sender<Option<Failure>>) {
    let Held { mut session, welcome, grounds, origin, pace, tasks } = held;
    let identity = &agent.settings.agent;
    let peer = endpoint.to_string();
    let attendance = Attendance::open(&agent.audit, welcome.session, identity, &grounds.load().serial.to_string(), &peer);
    let _open = (metrics::session(&peer), metrics::lane(&peer));
    let (notifier, lanes) = (session.notifier.clone(), session.lanes.clone());
    let (streams, serving) = (tasks.child(), tasks.child());
    let wanted = watch::Sender::new(1);
    if let Some(secret) = welcome.resume_secret {
        let Welcome { session, gateway: instance, direct_address, .. } = welcome;
        let (agent, grounds) = (agent.clone(), grounds.clone());
        let connector =
            Arc::new(Connector { agent, endpoint, origin, session, instance, secret, grounds, direct_address, pace });
        tasks.spawn(resume::keep(connector.clone(), lanes.first().clone(), leave.released.clone()));
        let (notifier, lanes, streams, serving) = (notifier.clone(), lanes.clone(), streams.clone(), serving.clone());
        let further = Further { connector, notifier, lanes, streams, serving };
        tasks.spawn(lanes::keep(further, wanted.subscribe(), leave.released.clone()));
    }
    let lane = lanes.first().clone();
    let context = Arc::new(Context { agent: agent.clone(), session: welcome.session, notifier, lane, lanes });
    let failure = attend(&mut session, &context, &grounds, &streams, &leave, &wanted).await;
    session.lanes.close();
    // Each ends with its lane, and says why.
    streams.join().await;
    serving.join().await;
    tasks.abort().await;
    attendance.close(failure.clone());
    why.send_replace(Some(failure));
}

async fn attend(
    session: &mut Session,
    context: &Arc<Context>,
    grounds: &ArcSwap<Grounds>,
    streams: &Tasks,
    leave: &Leave,
    wanted: &watch::Sender<u32>,
) -> Failure {
    let agent = &context.agent;
    let (mut policy, mut woken) = (agent.policy.subscribe(), agent.wakes.subscribe());
    let mut reauthorised = tokio::time::interval_at(Instant::now() + REAUTHORISE, REAUTHORISE);
    reauthorised.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut offered = policy.borrow_and_update().clone();
    let (mut told, mut acknowledged) = (false, false);
    loop {
        // Either side drains: the session ends with its last stream, once no new one can come.
        let finishing = told && acknowledged;
        tokio::select! {
            biased;
            failure = session.link.ended() => return failure,
            stream = session.incoming.accept() => match stream {
                Some(stream) => { streams.spawn(agent.serve.serve(context.clone(), stream)); }
                None => return session.link.ended().await,
            },
            notice = session.notices.recv() => match notice {
                Some(Notice::Drain { deadline }) if told => { let _ = deadline; acknowledged = true; }
                Some(Notice::Drain { deadline }) => gateway_drains(deadline, &leave.released),
                Some(Notice::Revoked) => {
                    let why = Failure::new(Code::Revoked, "the gateway says so; enroll again with a fresh token");
                    session.lanes.close_because(&why);
                    return why;
                }
                Some(Notice::Renew) => tracing::warn!(code = %Code::CertificateExpiring, "the gateway asks to renew the certificate"),
                Some(Notice::Lanes { count }) => { wanted.send_replace(count); }
                Some(Notice::StreamClosed { .. } | Notice::TargetsChanged { .. }) => {}
                None => return session.link.ended().await,
            },
            _ = reauthorised.tick() => {
                let grounds = grounds.load_full();
                if let Err(why) = reauthorise(agent, context.session, &grounds) {
                    session.lanes.close_because(&why);
                } else if grounds.is_outlived() {
                    // A new session, with the gateway's new certificate, takes the streams to come.
                    leave.released.cancel();
                }
            }
            Ok(()) = woken.changed() => session.lanes.woken(*woken.borrow_and_update()),
            Ok(()) = policy.changed() => {
                let now = policy.borrow_and_update().clone();
                tell_changes(session, &offered, &now);
                offered = now;
            }
            () = agent.drain.begins(), if !told => {
                session.notifier.tell(Notice::Drain { deadline: agent.settings.drain_timeout });
                told = true;
            }
            () = leave.succeeded.cancelled(), if !told => {
                session.notifier.tell(Notice::Drain { deadline: agent.settings.drain_timeout });
                told = true;
            }
            () = streams.join(), if finishing => {
                session.lanes.close();
                return session.link.ended().await;
            }
        }
    }
}

fn gateway_drains(deadline: Duration, released: &CancellationToken) {
    tracing::info!(seconds = deadline.as_secs(), "the gateway asks for another session; open streams may finish");
    released.cancel();
}

fn tell_changes(session: &Session, before: &Policy, now: &Policy) {
    let (before, now) = (before.offers(), now.offers());
    let added = now.iter().filter(|offer| !before.contains(offer)).cloned().collect();
    let removed =
        before.into_iter().map(|offer| offer.name).filter(|name| !now.iter().any(|offer| offer.name == *name)).collect();
    tell_offers(session, added, removed);
}

#[cfg(test)]
pub(super) mod tests;
