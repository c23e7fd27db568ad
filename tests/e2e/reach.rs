//! What an agent can be made to reach: nothing but its own targets, at addresses that were checked. Refuses to know who asks.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use underpass::base::id::{Name, RequestId};
use underpass::wire::open::{Open, Spoken};
use underpass::wire::reply::Reply;

use crate::fixtures::certificates::Identity;
use crate::fixtures::dns::Dns;
use crate::fixtures::peer::{DATA, FIN, Peer, SYN, WINDOW, yamux};
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, pattern, told};
use crate::harness::{SOON, eventually, free_port, loopback};

pub(crate) type Cloud = Peer<tokio_rustls::server::TlsStream<TcpStream>>;

/// An agent whose gateway has been taken over: with the gateway's own key and certificate, by a hand-made peer.
pub(crate) struct TakenOver {
    pub(crate) agent: Agent,
    identity: Identity,
    listener: TcpListener,
}

impl TakenOver {
    pub(crate) async fn new(targets: &str) -> Self {
        let mut gateway = Gateway::init().await;
        gateway.start().await;
        let agent = Agent::enroll(&gateway, "a1").await;
        let identity = Identity::of_gateway(&gateway);
        gateway.process().kill();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        agent.configure_endpoint(&format!("wss://{}", listener.local_addr().unwrap()), targets);
        Self { agent, identity, listener }
    }

    /// A session with the agent, which is started anew so as not to wait for its back-off.
    pub(crate) async fn cloud(&mut self) -> Cloud {
        self.agent.launch();
        Peer::accept(&self.listener, &self.identity).await.unwrap()
    }

    /// The agent's targets are others now; they count once it has reloaded.
    pub(crate) async fn reload(&mut self, targets: &str) {
        self.agent.configure_endpoint(&format!("wss://{}", self.listener.local_addr().unwrap()), targets);
        self.agent.process().signal(rustix::process::Signal::HUP);
        self.agent.audited("reloaded", |_| true).await;
    }

    /// The agent outlives what a session did to it: it dials again.
    async fn survives(&mut self, what: &str) {
        let again = timeout(SOON, self.listener.accept()).await;
        assert!(again.is_ok() && self.agent.process().is_running(), "{what}: the agent ended");
        let log = self.agent.process().stderr();
        assert!(!log.contains("panicked"), "{what}: {log}");
    }
}

pub(crate) fn open(target: &str, spoken: Spoken) -> Open {
    Open {
        request: RequestId::fresh(),
        target: Name::parse(target).unwrap(),
        spoken,
        caller: "evil\r\n\u{1b}[31m".to_owned(),
        source: None,
        deadline: Duration::from_secs(10),
        trace: None,
    }
}

/// Asks on a stream of its own and yields the code of the refusal, or `accepted`.
pub(crate) async fn ask(cloud: &mut Cloud, stream: u32, open: &Open) -> String {
    cloud.message(stream, SYN, open).await.unwrap();
    match cloud.receive(stream).await.unwrap() {
        Reply::Accepted => "accepted".to_owned(),
        Reply::Refused(refusal) => refusal.code.as_str().to_owned(),
    }
}

#[tokio::test]
async fn e1_a_taken_over_gateway_reaches_nothing_but_the_agents_own_targets() {
    let (allowed, forbidden) = (Target::named("allowed").await, Target::named("forbidden").await);
    let targets = Agent::targets(&[("allowed", allowed.address())])
        + &format!("  by-name: {{kind: tcp, address: \"localhost:{}\"}}\n", forbidden.address().port());
    let mut site = TakenOver::new(&targets).await;
    let mut cloud = site.cloud().await;
    for (stream, (target, spoken, code)) in (2..).step_by(2).zip([
        ("unknown", Spoken::Raw, "target_unknown"),
        ("by-name", Spoken::Raw, "loopback_forbidden"),
        ("allowed", Spoken::Http, "target_kind_mismatch"),
        ("allowed", Spoken::Raw, "accepted"),
    ]) {
        assert_eq!(ask(&mut cloud, stream, &open(target, spoken)).await, code, "{target} as {spoken}");
    }
    assert_eq!(forbidden.connections(), 0);
    site.agent.audited("refused", |row| row["code"] == "target_unknown").await;
    site.agent.audited("refused", |row| row["code"] == "loopback_forbidden").await;
    let log = site.agent.process().stderr();
    assert!(!log.contains('\u{1b}'), "a caller's name moves no cursor");
}

#[tokio::test]
async fn e1_t1_a_taken_over_gateway_cannot_crash_an_agent() {
    let echo = Target::echo().await;
    let mut site = TakenOver::new(&Agent::targets(&[("echo", echo.address())])).await;
    let over = 256 * 1024 + 1;
    for (what, bytes) in [
        ("an Open that is no message", yamux(0, DATA, SYN, 2, 5, b"\x04\xff\xff\xff\xff")),
        ("an Open over the limit", yamux(0, DATA, SYN, 2, 4, b"\xff\xff\xff\x7f")),
        ("an end instead of an Open", yamux(0, DATA, SYN | FIN, 2, 0, b"")),
        ("a stream id of the other side", yamux(0, DATA, SYN, 3, 0, b"")),
        ("a SYN with a length over its window (CVE-2026-32314)", yamux(0, DATA, SYN, 2, over, b"")),
        ("a window beyond any number, twice (CVE-2026-31814)", yamux(0, WINDOW, 0, 1, u32::MAX, b"").repeat(2)),
        ("a length of 4 GiB", yamux(0, DATA, 0, 1, u32::MAX, b"")),
        ("garbage", pattern(5000)),
        ("a farewell", yamux(0, 3, 0, 0, 0, b"")),
    ] {
        let mut cloud = site.cloud().await;
        let _ = cloud.frame(2, &bytes).await;
        drop(cloud);
        site.survives(what).await;
    }
    let mut cloud = site.cloud().await;
    for (what, bytes) in
        [("a text", &[0x81, 2, b'h', b'i'][..]), ("2^63-1 bytes", &[0x82, 127, 127, 255, 255, 255, 255, 255, 255, 255])]
    {
        let _ = cloud.raw(bytes).await;
        cloud.is_cut().await;
        site.survives(what).await;
        cloud = site.cloud().await;
    }
    assert_eq!(ask(&mut cloud, 2, &open("echo", Spoken::Raw)).await, "accepted", "it serves on");
}

#[tokio::test]
async fn d3_more_opens_than_the_agent_carries_are_refused_one_by_one() {
    let silent = Target::silent().await;
    let limits = format!(
        "targets:\n  silent: {{kind: tcp, address: \"{}\", allow_loopback: true, limits: {{max_streams: 100}}}}\n\
         limits: {{max_streams: 20}}\n",
        silent.address()
    );
    let mut site = TakenOver::new(&limits).await;
    let mut cloud = site.cloud().await;
    let mut codes = Vec::new();
    for stream in (2..).step_by(2).take(60) {
        codes.push(ask(&mut cloud, stream, &open("silent", Spoken::Raw)).await);
    }
    assert_eq!(codes.iter().filter(|code| *code == "accepted").count(), 20, "{codes:?}");
    assert!(codes[20..].iter().all(|code| code == "agent_streams"), "{codes:?}");
    assert_eq!(silent.connections(), 20);
}

#[tokio::test]
async fn e1_no_spelling_of_a_forbidden_address_is_a_target() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let agent = Agent::enroll(&gateway, "a1").await;
    let check = async |address: &str| {
        agent.configure(&format!("targets:\n  x: {{kind: tcp, address: {address:?}, allow_loopback: true}}\n"));
        agent.command(&["agent", "check"]).run().await
    };
    for address in [
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "[::ffff:a9fe:a9fe]:80",
        "[64:ff9b::169.254.169.254]:80",
        "[64:ff9b::a9fe:a9fe]:80",
        "[fd00:ec2::254]:80",
        "100.100.100.200:80",
        "0.0.0.0:80",
        "[::]:80",
        "[::ffff:0.0.0.0]:80",
        "224.0.0.1:80",
        "255.255.255.255:80",
        "[ff02::1]:80",
        "[fe80::1]:80",
        "0x7f.1:80",
        "0x7f000001:80",
        "2130706433:80",
        "017700000001:80",
        "127.1:80",
        "127.0.0.01:80",
        "localhost.:80",
        "127.0.0.1\u{3002}:80",
        "127\u{3002}0\u{3002}0\u{3002}1:80",
        "user@10.0.0.1:80",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.1:80\r\nX: y",
        "10.0.0.1\0:80",
        "10.0.0.1",
        "tcp://10.0.0.1:80",
        "fd00::1:80",
    ] {
        let refused = check(address).await;
        assert!([77, 78].contains(&refused.code()), "{address}: {}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains("agent.yaml:"), "{address}: {}", refused.stderr);
    }
    agent.configure("targets:\n  x: {kind: tcp, address: \"127.0.0.1:80\"}\n");
    let refused = agent.command(&["agent", "check"]).run().await;
    assert!(refused.code() != 0 && refused.stderr.contains("loopback_forbidden"), "{}", refused.stderr);
    for address in ["10.0.0.1:80", "db.corp.example:5432", "[fd00::1]:80", "127.0.0.1:80"] {
        let taken = check(address).await;
        assert_eq!(taken.code(), 0, "{address}: {}", taken.stderr);
    }
}

/// A site whose target `db` is a name, answered by `dns`.
async fn named_site(dns: &Dns, port: u16, more: &str) -> Site {
    let (mut gateway, listener) = (Gateway::init().await, free_port());
    let ports = vec![("db".to_owned(), listener)];
    gateway.configure(&Site::listeners(&ports));
    gateway.start().await;
    let mut agent = Agent::enroll(&gateway, "a1").await.with_resolver(&dns.resolv_conf());
    agent.configure(&format!("targets:\n  db: {{kind: tcp, address: \"db.corp.example:{port}\"{more}}}\n"));
    agent.start().await;
    Site::of(gateway, agent, ports)
}

#[tokio::test]
async fn cve_2020_8562_e2_a_name_that_turns_to_a_forbidden_address_is_refused_then() {
    let target = Target::named("db").await;
    let dns = Dns::start({
        let asked = AtomicUsize::new(0);
        move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => vec![Ipv4Addr::LOCALHOST],
            _ => vec![Ipv4Addr::new(169, 254, 169, 254)],
        }
    });
    let site = named_site(&dns, target.address().port(), ", allow_loopback: true").await;
    assert_eq!(told(site.at("db")).await, "db");
    // Answers are kept for 10 s at most, so the second one comes into use by then.
    let refused = eventually("the new address is refused", SOON, async || {
        let _ = told(site.at("db")).await;
        site.agent.audit().into_iter().find(|row| row["event"] == "refused")
    })
    .await;
    assert_eq!(refused["code"], "address_forbidden", "not even dialled: {refused}");
    assert!(refused["detail"].as_str().unwrap().contains("169.254.169.254"), "{refused}");
}

#[tokio::test]
async fn cve_2022_3294_e2_a_forbidden_address_among_others_is_never_dialled() {
    let target = Target::named("db").await;
    let mixed = || vec![Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED];
    let dns = Dns::start(move |_| mixed());
    let site = named_site(&dns, target.address().port(), ", allow_loopback: true").await;
    let said = told(site.at("db")).await;
    match site.agent.audit().iter().find(|row| row["event"] == "opened") {
        Some(opened) => {
            assert_eq!(said, "db");
            assert_eq!(opened["address"], target.address().to_string(), "{opened}");
        }
        None => {
            site.agent.audited("refused", |row| row["code"] == "address_forbidden").await;
        }
    }
}

#[tokio::test]
async fn e2_a_name_for_loopback_needs_permission() {
    let target = Target::named("db").await;
    let dns = Dns::start(|_| vec![Ipv4Addr::LOCALHOST]);
    let site = named_site(&dns, target.address().port(), "").await;
    assert_eq!(told(site.at("db")).await, "");
    site.agent.audited("refused", |row| row["code"] == "loopback_forbidden").await;
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn d6_e2_a_name_of_a_thousand_addresses_costs_no_more_than_a_few() {
    let addresses: Vec<_> = (0..1000_u16).map(u16::to_be_bytes).map(|[high, low]| Ipv4Addr::new(127, 99, high, low)).collect();
    // The last of them would answer.
    let target = Target::start_at(addresses[999].into(), |mut stream| async move { stream.write_all(b"db").await }).await;
    let dns = Dns::start(move |_| addresses.clone());
    let site = named_site(&dns, target.address().port(), ", allow_loopback: true").await;
    assert_eq!(told(site.at("db")).await, "");
    site.agent.audited("refused", |row| row["code"] == "target_refused").await;
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_target_that_is_not_there_is_named() {
    let dns = Dns::start(|_| Vec::new());
    let site = named_site(&dns, 5432, "").await;
    assert_eq!(told(site.at("db")).await, "");
    site.gateway.audited("refused", |row| row["code"] == "target_dns_failed").await;
    let nobody = Site::new(&[("nobody", loopback(free_port()))]).await;
    assert_eq!(told(nobody.at("nobody")).await, "");
    nobody.gateway.audited("refused", |row| row["code"] == "target_refused").await;
}
