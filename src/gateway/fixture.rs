//! For tests: a gateway without a port, agents that are the other end of a session and nothing more, clients in memory.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::callers::{Caller, Callers};
use super::ingress::{Answer, ClientIo, Entry, Terms, Wanted};
use super::issuer::{EnrollAsk, Enrolling, Issuer};
use super::quota::Limits;
use super::reauthorise::Certificate;
use super::registry::{Facts, Live};
use super::{Gateway, Settings};
use crate::base::allow::AllowFrom;
use crate::base::code::{Code, Failure};
use crate::base::grant::Grants;
use crate::base::id::{AgentId, InstanceId, Name, SessionId};
use crate::base::secret::Secret;
use crate::base::tasks::Tasks;
use crate::observe::audit::Audit;
use crate::pki::authority::Authority;
use crate::pki::identity::Serial;
use crate::pki::revoke::Revocations;
use crate::pki::tls::GatewayTls;
use crate::tunnel::fixture::{Rows, audit, hello, pipes, sessions};
use crate::tunnel::listen::Caps;
use crate::tunnel::mux::Stream;
use crate::tunnel::session::{Session, Wired};
use crate::tunnel::upgrade::Upgraded;
use crate::wire::open::Open;
use crate::wire::open::Spoken;
use crate::wire::refusal::Refusal;
use crate::wire::reply::Reply;
use crate::wire::resume::Claim;

struct NoIssuer;

impl Issuer for NoIssuer {
    fn enroll(&self, _: EnrollAsk) -> Enrolling<'_> {
        Box::pin(async { Err(Failure::new(Code::EnrollRefused, "not here")) })
    }
}

pub(crate) fn gateway() -> (Arc<Gateway>, Rows, Tasks) {
    let (audit, rows) = audit();
    let tasks = Tasks::new();
    (gateway_with(settings(), audit, &tasks), rows, tasks)
}

/// One with these settings, to which nobody comes by a socket.
pub(crate) fn gateway_with(settings: Settings, audit: Audit, tasks: &Tasks) -> Arc<Gateway> {
    let parts = (Revocations::new(), Callers::new());
    Gateway::new(settings, TLS.clone(), parts.0, parts.1, Arc::new(NoIssuer), audit, tasks)
}

/// All gateways of tests have the same.
static TLS: LazyLock<Arc<GatewayTls>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::init(dir.path(), &"test.example".parse().unwrap(), now).unwrap();
    let id = Name::parse("gw").unwrap();
    let credential = authority.issue_gateway(&id, &["wss://gw.example".parse().unwrap()], now).unwrap();
    Arc::new(GatewayTls::new(authority.root(), &credential, Revocations::new()).unwrap())
});

/// Makes what all have in common, if nobody has; takes chance and time.
pub(crate) fn prepare() {
    LazyLock::force(&TLS);
}

pub(crate) fn settings() -> Settings {
    Settings {
        id: Name::parse("gw").unwrap(),
        allow_from: AllowFrom::all(),
        enroll_from: AllowFrom::all(),
        clients_from: AllowFrom::all(),
        client_terms: Terms { entry: Entry::Connect, early_data: true, idle: None },
        proxy_from: AllowFrom::nobody(),
        caps: Caps::default(),
        max_streams: 1024,
        max_lanes: 4,
        resume_window: Duration::from_secs(30),
        direct_address: None,
        drain_timeout: Duration::from_secs(5),
    }
}

/// The other end of a session that is in a gateway's registry.
pub(crate) struct Agent {
    pub(crate) session: Session,
    pub(crate) live: Arc<Live>,
    pub(crate) tasks: Tasks,
}

/// A session of `acme/dc1/NAME` that offers `targets`, not in any registry.
pub(crate) async fn agent(name: &str, targets: &[&str]) -> Agent {
    process(name, targets, InstanceId::fresh()).await.0
}

/// One that has some time left.
pub(crate) fn certificate() -> Certificate {
    let not_after = time::OffsetDateTime::now_utc() + time::Duration::days(30);
    Certificate { serial: Serial::random().unwrap(), not_after }
}

/// The same of one process of that agent, with the gateway's end, to be attended to.
pub(crate) async fn process(name: &str, targets: &[&str], instance: InstanceId) -> (Agent, Session) {
    let (theirs, ours, tasks) = sessions(targets).await;
    let facts = Facts {
        session: SessionId::fresh(),
        agent: format!("acme/dc1/{name}").parse::<AgentId>().unwrap(),
        certificate: certificate(),
        instance,
        version: "test".to_owned(),
        peer: "192.0.2.1:1".parse().unwrap(),
        capacity: 100,
        resume_secret: Some(Secret::new("c2VjcmV0")),
        echoes: false,
    };
    let live = Live::new(facts, &hello(targets).targets, ours.lanes.clone(), ours.notifier.clone());
    (Agent { session: theirs, live: Arc::new(live), tasks }, ours)
}

impl Agent {
    /// Lets its first lane wait when the connection breaks.
    pub(crate) fn resumable(&self) {
        [&self.session.link, &self.live.link].into_iter().for_each(|link| link.resumable(Duration::from_secs(30)));
    }

    /// Breaks the first lane's connection.
    pub(crate) fn breaks(&self) {
        let why = || Failure::new(Code::LinkClosed, "as the test wants it");
        [&self.session.link, &self.live.link].into_iter().for_each(|link| link.give_up(why()));
    }

    /// Its attempt to go on with another connection: what it claims, the gateway's end, and its own.
    pub(crate) fn attempt(&self) -> (Claim, Upgraded, Upgraded) {
        let (generation, received) = self.session.link.claim().unwrap();
        let (theirs, ours) = pipes();
        let claim = Claim { session: self.live.session, lane: 0, generation, received };
        (claim, Upgraded { received: Some(received), ..ours }, theirs)
    }

    /// Its end of that, once it is told how far the gateway has got.
    pub(crate) fn goes_on(&self, claim: Claim, theirs: Upgraded, received: u64) {
        let told = Upgraded { received: Some(received), ..theirs };
        self.session.link.attach(claim.generation, told).unwrap();
    }

    /// Takes the first lane up over another connection.
    pub(crate) fn resumes(&self) {
        let (claim, ours, theirs) = self.attempt();
        let received = self.live.link.fence(claim.generation, claim.received).unwrap();
        self.live.link.attach(claim.generation, ours).unwrap();
        self.goes_on(claim, theirs, received);
    }

    /// The next stream, and what it asks for.
    pub(crate) async fn asked(&mut self) -> (Wired<Stream>, Open) {
        let mut wired = Wired::new(self.session.incoming.accept().await.unwrap());
        let open = wired.receive().await.unwrap().unwrap();
        (wired, open)
    }

    /// Accepts it; yields the stream, and what came with the `Open`.
    pub(crate) async fn accept(&mut self) -> (Stream, Vec<u8>) {
        let (mut wired, _) = self.asked().await;
        wired.send(&Reply::Accepted).await.unwrap();
        let (stream, early) = wired.into_parts();
        (stream, early.to_vec())
    }

    /// Refuses it.
    pub(crate) async fn refuse(&mut self, code: Code) {
        let (mut wired, _) = self.asked().await;
        wired.send(&Reply::Refused(Refusal::new(code, "as the test wants it"))).await.unwrap();
    }
}

pub(crate) fn wanted(target: &str) -> Wanted {
    Wanted {
        target: format!("acme/dc1/{target}").parse().unwrap(),
        spoken: Spoken::Raw,
        caller: caller("test", "acme/dc1/*"),
        until: None,
        source: "192.0.2.9:9".parse().unwrap(),
        early_data: true,
        idle: None,
        answer: Answer::Nothing,
        early: BytesMut::new(),
    }
}

/// A caller with one grant.
pub(crate) fn caller(name: &str, grant: &str) -> Arc<Caller> {
    let grants = Grants::new(vec![grant.parse().unwrap()]).unwrap();
    Arc::new(Caller::new(name.to_owned(), grants, Limits::default()))
}

/// A client's connection as the gateway has it.
pub(crate) struct Client {
    io: DuplexStream,
    reset: Arc<AtomicBool>,
}

/// How the gateway left a client's connection.
pub(crate) struct Left(Arc<AtomicBool>);

impl Left {
    /// Whether closing it was a reset.
    pub(crate) fn reset(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A client: the gateway's end, its own, and what became of it.
pub(crate) fn client() -> (Client, DuplexStream, Left) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let reset = Arc::new(AtomicBool::new(false));
    (Client { io: ours, reset: reset.clone() }, theirs, Left(reset))
}

impl ClientIo for Client {
    fn reset_on_close(&self, reset: bool) {
        self.reset.store(reset, Ordering::Relaxed);
    }

    fn gone(&self) -> Option<io::Error> {
        None
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
