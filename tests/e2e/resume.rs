//! Who may take up a lane that lost its connection, and what comes of lies. Refuses to know how connections break.

use underpass::base::id::{InstanceId, SessionId};
use underpass::base::secret::Secret;
use underpass::wire::heartbeat::Heartbeat;
use underpass::wire::hello::{Hello, RESUME, VERSIONS, Welcome};
use underpass::wire::resume::Claim;

use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::Peer;
use crate::harness::site::{Agent, Gateway};
use crate::harness::{SOON, eventually};

type Connection = Peer<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

/// A gateway with an agent by hand that could take its session up.
struct Staged {
    gateway: Gateway,
    owner: Identity,
    session: Connection,
    welcome: Welcome,
}

fn hello(instance: InstanceId) -> Hello {
    Hello {
        versions: VERSIONS,
        agent_version: "by hand".to_owned(),
        instance,
        targets: Vec::new(),
        capacity: 100,
        capabilities: vec![RESUME.to_owned()],
    }
}

impl Staged {
    async fn new(keys: &str) -> Self {
        let mut gateway = Gateway::init().await;
        gateway.configure_gateway(keys, "");
        gateway.start().await;
        let owner = Identity::of_agent(&Agent::enroll(&gateway, "owner").await);
        let (session, welcome) = Peer::welcomed(&gateway, &owner, hello(InstanceId::fresh())).await.unwrap();
        Self { gateway, owner, session, welcome }
    }

    fn claim(&self, generation: u64) -> Claim {
        Claim { session: self.welcome.session, lane: 0, generation, received: self.session.received }
    }

    fn secret(&self) -> Secret {
        self.welcome.resume_secret.clone().unwrap()
    }

    fn refusals(&self, code: &str) -> usize {
        let refused = |row: &&serde_json::Value| row["event"] == "connect_refused" && row["code"] == code;
        self.gateway.audit().iter().filter(refused).count()
    }
}

#[tokio::test]
async fn s1_e9_who_may_not_take_up_a_lane_is_refused_by_name_and_audited() {
    let mut staged = Staged::new("").await;
    let other = Identity::of_agent(&Agent::enroll(&staged.gateway, "other").await);
    let stranger = Identity::of_agent(&Agent::enroll_in(&staged.gateway, "evil", "dc1", "owner").await);
    let (secret, wrong) = (staged.secret(), Secret::random().unwrap());
    let right = staged.claim(3);
    for (what, identity, claim, secret, exporter, code) in [
        ("another secret", &staged.owner, right, &wrong, None, "lane_refused"),
        ("the proof of another connection", &staged.owner, right, &secret, Some([7; 32]), "lane_refused"),
        ("another agent of the group", &other, right, &secret, None, "lane_refused"),
        ("an agent of another tenant", &stranger, right, &secret, None, "not_here"),
        ("another session", &staged.owner, Claim { session: SessionId::fresh(), ..right }, &secret, None, "not_here"),
        ("a lane that is not there", &staged.owner, Claim { lane: 1, ..right }, &secret, None, "lane_refused"),
        ("bytes that were never sent", &staged.owner, Claim { received: 1 << 40, ..right }, &secret, None, "lane_refused"),
    ] {
        let before = staged.refusals(code);
        let joined = Peer::joined(&staged.gateway, identity, |own| claim.prove(secret, exporter.as_ref().unwrap_or(own))).await;
        let answer = joined.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(answer.starts_with("HTTP/1.1 409 "), "{what}: {answer}");
        assert!(answer.to_ascii_lowercase().contains(&format!("underpass-refusal: {code}\r\n")), "{what}: {answer}");
        eventually(&format!("{what} is in the audit"), SOON, async || (staged.refusals(code) > before).then_some(())).await;
    }
    // Nobody has harmed the session that it was about.
    staged.session.until_heartbeat().await.unwrap();
    let claim = staged.claim(3);
    let (mut newer, answer) =
        Peer::answered(&staged.gateway, &staged.owner, |own| claim.prove(&secret, own)).await.expect("what is right is taken");
    assert!(answer.to_ascii_lowercase().contains("\r\nunderpass-received: "), "{answer}");
    newer.received = staged.session.received;
    // The older connection is fenced at once, though nobody had called it dead.
    staged.session.is_cut().await;
    let row = staged.gateway.audited("lane_resumed", |row| row["lane"] == 0).await;
    assert_eq!((&row["generation"], &row["agent"]), (&3.into(), &"acme/dc1/owner".into()));
    for generation in [1, 3] {
        let stale = Claim { generation, received: newer.received, ..claim };
        let answer = Peer::joined(&staged.gateway, &staged.owner, |own| stale.prove(&secret, own)).await.err().unwrap();
        assert!(answer.to_ascii_lowercase().contains("underpass-refusal: lane_refused\r\n"), "{generation}: {answer}");
    }
    newer.until_heartbeat().await.expect("an attempt that came too late takes nothing away");
    let gone = Claim { generation: 4, received: 0, ..claim };
    let answer = Peer::joined(&staged.gateway, &staged.owner, |own| gone.prove(&secret, own)).await.err().unwrap();
    assert!(
        answer.to_ascii_lowercase().contains("underpass-refusal: lane_refused\r\n"),
        "what is acknowledged is gone: {answer}"
    );
    newer.until_heartbeat().await.unwrap();
}

#[tokio::test]
async fn s1_who_acknowledges_what_was_never_sent_loses_its_own_session_alone() {
    let mut staged = Staged::new("").await;
    let honest = Identity::of_agent(&Agent::enroll(&staged.gateway, "honest").await);
    let (mut honest, _) = Peer::welcomed(&staged.gateway, &honest, hello(InstanceId::fresh())).await.unwrap();
    let lie = Heartbeat { kind: Heartbeat::ACKNOWLEDGEMENT, sequence: 0, received: 1 << 40 };
    staged.session.frame(10, &lie.to_bytes()).await.unwrap();
    staged.session.is_cut().await;
    staged.gateway.audited("disconnected", |row| row["agent"] == "acme/dc1/owner" && row["code"] == "protocol_violation").await;
    // A violation is no break: there is nothing to take up.
    let (secret, claim) = (staged.secret(), staged.claim(1));
    let answer = Peer::joined(&staged.gateway, &staged.owner, |own| claim.prove(&secret, own)).await.err().unwrap();
    assert!(answer.to_ascii_lowercase().contains("underpass-refusal: not_here\r\n"), "{answer}");
    honest.until_heartbeat().await.unwrap();
}

#[tokio::test]
async fn an_agent_that_can_not_and_a_gateway_that_does_not_take_up_lanes_go_without() {
    for (keys, capabilities) in [("  resume_window: 0\n", vec![RESUME.to_owned()]), ("", Vec::new())] {
        let staged = Staged::new(keys).await;
        let hello = Hello { capabilities, ..hello(InstanceId::fresh()) };
        let (session, welcome) = Peer::welcomed(&staged.gateway, &staged.owner, hello).await.unwrap();
        assert!(welcome.resume_window.is_zero(), "{keys}");
        drop(session);
        let ended = |row: &serde_json::Value| row["session"] == welcome.session.to_string().as_str();
        let row = staged.gateway.audited("disconnected", ended).await;
        assert_eq!(row["code"], "link_closed");
    }
}

#[tokio::test]
async fn f1_a_process_that_takes_the_place_of_another_ends_what_waits_for_that_one() {
    let Staged { gateway, owner, mut session, welcome } = Staged::new("").await;
    // It has its welcome, and says so.
    let got = Heartbeat { kind: Heartbeat::PING, sequence: 2, received: session.received };
    session.frame(9, &got.to_bytes()).await.unwrap();
    session.until_heartbeat().await.unwrap();
    drop(session);
    gateway.audited("lane_broken", |row| row["session"] == welcome.session.to_string().as_str()).await;
    let listed = gateway.agents().await;
    assert_eq!(listed["agents"][0]["sessions"].as_array().map(Vec::len), Some(1), "it waits: {listed}");
    let _next = Peer::welcomed(&gateway, &owner, hello(InstanceId::fresh())).await.unwrap();
    let row = gateway.audited("disconnected", |row| row["session"] == welcome.session.to_string().as_str()).await;
    assert_eq!(row["code"], "resume_expired");
}
