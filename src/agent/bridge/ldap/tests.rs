//! Connecting to directories on loopback, with real TLS, and a stream of LDAP through the hop. Refuses to know real directories.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server;

use super::*;
use crate::agent::bridge::resolve::Resolver;
use crate::agent::fixture;
use crate::agent::floor::Floor;
use crate::agent::policy::TargetSpec;
use crate::base::files;
use crate::base::id::SessionId;
use crate::ldap::message::Operation;
use crate::ldap::message::answer::{self, ResultCode, START_TLS};
use crate::pki::hostile::Authority;
use crate::pki::pem;
use crate::pki::tls::listener_config;
use crate::pki::tls::target::{TargetTls, TargetTlsFiles};
use crate::tunnel::fixture::muxes;
use crate::tunnel::ledger::Asked;

const HOST: &str = "dc1.corp.example";

/// A site with its own CA, whose names all lead to loopback.
struct Site {
    authority: Authority,
    dir: tempfile::TempDir,
    resolver: Resolver,
}

/// A directory that listens.
struct Listening {
    socket: TcpListener,
    tls: TlsAcceptor,
}

impl Site {
    fn new() -> Self {
        let (authority, dir) = (Authority::fresh("corp.example"), tempfile::tempdir().unwrap());
        pem::save(&dir.path().join("ca.pem"), [&authority.root]).unwrap();
        Self { authority, dir, resolver: Resolver::answering(HOST, vec!["127.0.0.1".parse().unwrap()]) }
    }

    /// A directory whose certificate is for this name, signed by this CA.
    async fn directory_of(&self, authority: &Authority, name: &str) -> Listening {
        let shown = authority.gateway("dc", name);
        let (chain, key): (PathBuf, PathBuf) = (self.dir.path().join("dc.pem"), self.dir.path().join("dc.key"));
        pem::save(&chain, &shown.chain).unwrap();
        let pair = rcgen::KeyPair::try_from(shown.key.secret_der()).unwrap();
        files::write_private(&key, pair.serialize_pem().as_bytes()).unwrap();
        let tls = TlsAcceptor::from(listener_config(&chain, &key, None, &[]).unwrap());
        Listening { socket: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls }
    }

    async fn directory(&self) -> Listening {
        self.directory_of(&self.authority, HOST).await
    }

    /// The first of these ports, with the others as alternates.
    fn spec(&self, ports: &[u16], start_tls: bool) -> TargetSpec {
        let mut places: Vec<HostPort> = ports.iter().map(|port| format!("{HOST}:{port}").parse().unwrap()).collect();
        let mut spec = fixture::spec(&places.remove(0).to_string(), true);
        let files = TargetTlsFiles { ca_file: Some(self.dir.path().join("ca.pem")), ..TargetTlsFiles::default() };
        let tls = TargetTls::load(&files).unwrap();
        let rules = Arc::new(serde_json::from_value(json!({})).unwrap());
        spec.service = Service::Ldap(LdapService { alternates: places, tls, start_tls, rules });
        spec
    }

    fn permit(spec: TargetSpec) -> Permit {
        fixture::policy(&[("hr", spec)]).authorize(&fixture::open("hr")).unwrap()
    }

    async fn connect(&self, spec: TargetSpec) -> Result<Directory, Refusal> {
        let way = Way { resolver: &self.resolver, floor: &Floor::default(), limit: Duration::from_secs(10) };
        connect(&Self::permit(spec), way).await
    }

    async fn refused(&self, spec: TargetSpec) -> Refusal {
        self.connect(spec).await.err().expect("it is refused")
    }
}

impl Listening {
    fn at(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn port(&self) -> u16 {
        self.at().port()
    }

    async fn accept(&self) -> std::io::Result<server::TlsStream<TcpStream>> {
        self.tls.accept(self.socket.accept().await?.0).await
    }
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_directory_is_reached_by_tls_and_an_alternate_when_it_is_gone() {
    let site = Site::new();
    let directory = site.directory().await;
    let (connected, accepted) = tokio::join!(site.connect(site.spec(&[directory.port()], false)), directory.accept());
    assert_eq!((connected.unwrap().address, accepted.is_ok()), (directory.at(), true));
    let spec = site.spec(&[closed_port().await, closed_port().await, directory.port()], false);
    let (connected, accepted) = tokio::join!(site.connect(spec), directory.accept());
    assert_eq!((connected.unwrap().address, accepted.is_ok()), (directory.at(), true));
    let refusal = site.refused(site.spec(&[closed_port().await, closed_port().await], false)).await;
    assert_eq!(refusal.code, Code::TargetRefused);
}

#[tokio::test]
async fn a_silent_directory_leaves_time_to_its_alternate() {
    let site = Site::new();
    let (silent, directory) = (site.directory().await, site.directory().await);
    let mut spec = site.spec(&[silent.port(), directory.port()], false);
    spec.limits.connect_timeout = Duration::from_secs(2);
    let (connected, accepted) = tokio::join!(site.connect(spec), directory.accept());
    assert_eq!((connected.unwrap().address, accepted.is_ok()), (directory.at(), true));
}

#[tokio::test]
async fn e7_a_directory_that_can_not_be_believed_is_told_of_even_when_the_others_are_only_gone() {
    let site = Site::new();
    let (misnamed, foreign) = (site.directory_of(&site.authority, "evil.example").await, {
        let other = Authority::fresh("corp.example");
        site.directory_of(&other, HOST).await
    });
    for (directory, code) in [(&misnamed, Code::TargetTlsNameMismatch), (&foreign, Code::TargetTlsUntrusted)] {
        let spec = site.spec(&[directory.port(), closed_port().await], false);
        let (refusal, accepted) = tokio::join!(site.refused(spec), directory.accept());
        assert_eq!((refusal.code, accepted.is_err()), (code, true), "{}", refusal.detail);
        assert!(refusal.detail.contains("hr"), "{}", refusal.detail);
    }
    let good = site.directory().await;
    let spec = site.spec(&[misnamed.port(), good.port()], false);
    let (connected, _, accepted) = tokio::join!(site.connect(spec), misnamed.accept(), good.accept());
    assert_eq!((connected.unwrap().address, accepted.is_ok()), (good.at(), true));
}

#[tokio::test]
async fn e7_start_tls_is_asked_for_and_without_it_nothing_is_said() {
    let site = Site::new();
    let directory = site.directory().await;
    let answers = async |code: ResultCode| {
        let (mut io, _) = directory.socket.accept().await.unwrap();
        let mut asked = vec![0; 31];
        io.read_exact(&mut asked).await.unwrap();
        assert!(asked.ends_with(START_TLS.as_bytes()));
        io.write_all(&answer::done(1, Operation::Extended, code, "")).await.unwrap();
        io
    };
    let begins = async { directory.tls.accept(answers(ResultCode::Success).await).await };
    let (connected, accepted) = tokio::join!(site.connect(site.spec(&[directory.port()], true)), begins);
    assert!(connected.is_ok() && accepted.is_ok());
    let stripped = async {
        let mut rest = Vec::new();
        let _ = answers(ResultCode::Unavailable).await.read_to_end(&mut rest).await;
        rest
    };
    let (refusal, rest) = tokio::join!(site.refused(site.spec(&[directory.port()], true)), stripped);
    assert_eq!((refusal.code, rest), (Code::TargetTlsFailed, Vec::new()));
}

#[tokio::test]
async fn a_stream_of_ldap_passes_the_hop_and_what_is_denied_is_on_record() {
    let site = Site::new();
    let listening = site.directory().await;
    let spec = site.spec(&[listening.port()], false);
    let (agent, mut rows, tasks) = fixture::agent(fixture::policy(&[("hr", spec)]), 9);
    let open = fixture::open("hr");
    let permit = Arc::new(agent.policy().authorize(&open).unwrap());
    let way = Way { resolver: &site.resolver, floor: &Floor::default(), limit: Duration::from_secs(10) };
    let (directory, far) = tokio::join!(connect(&permit, way), listening.accept());
    let (directory, mut far) = (directory.ok().unwrap(), far.unwrap());
    let mut asked = Asked::new(&agent.audit, open.request, "hr".into(), "c".into(), None, None);
    let ledger = Arc::new(asked.opened(SessionId::fresh(), &agent.settings.agent, Some(directory.address), ()).unwrap());
    let (mut near, theirs) = muxes().await;
    let mut client = theirs.opener.open().await.unwrap();
    let unbind = answer::request(3, b"\x42\x00", &[]);
    client.write_all(&answer::request(1, b"\x4a\x04cn=x", &[])).await.unwrap();
    let stream = near.incoming.accept().await.unwrap();
    let hop = Hop { agent, permit, open, stream, early: bytes::BytesMut::new(), ledger };
    let served = tasks.spawn(serve(hop, directory));
    let denied = answer::done(
        1,
        Operation::Delete,
        ResultCode::InsufficientAccessRights,
        "delete is not among this target's operations",
    );
    let mut got = vec![0; denied.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, denied);
    client.write_all(&unbind).await.unwrap();
    let mut passed = Vec::new();
    far.read_to_end(&mut passed).await.unwrap();
    assert_eq!(passed, unbind);
    assert_eq!(served.await.unwrap(), Some(None));
    assert_eq!(rows.take()[..2], ["opened", "refused request_denied"]);
}

#[tokio::test]
async fn a_posted_search_that_is_denied_is_on_record_with_its_rule() {
    let site = Site::new();
    let listening = site.directory().await;
    let policy = fixture::policy(&[("hr", site.spec(&[listening.port()], false))]);
    let (agent, mut rows, tasks) =
        fixture::agent_with(policy, 9, Resolver::answering(HOST, vec!["127.0.0.1".parse().unwrap()]));
    let open = fixture::open("hr");
    let permit = Arc::new(agent.policy().authorize(&open).unwrap());
    let mut asked = Asked::new(&agent.audit, open.request, "hr".into(), "c".into(), None, None);
    let ledger = Arc::new(asked.opened(SessionId::fresh(), &agent.settings.agent, None, ()).unwrap());
    let (mut near, theirs) = muxes().await;
    let mut client = theirs.opener.open().await.unwrap();
    let body = r#"{"filter": "(userPassword=*)"}"#;
    let head = format!("POST /search HTTP/1.1\r\nhost: hr\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    let stream = near.incoming.accept().await.unwrap();
    let served = tasks.spawn(searches(Hop { agent, permit, open, stream, early: bytes::BytesMut::new(), ledger }));
    let _directory = listening.accept().await.unwrap();
    let mut told = String::new();
    client.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 403 ") && told.contains("targets.hr.allow.deny_attributes"), "{told}");
    assert_eq!(served.await.unwrap(), Some(None));
    let rows = rows.take();
    assert!(rows.iter().any(|row| row == "refused request_denied"), "{rows:?}");
}
