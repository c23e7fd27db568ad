//! Attacks that were found by looking for them: what outlives its grant, what takes everybody's places, what leaves no trace.
//! Refuses to know the attacks that the other files are about.

use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use underpass::base::id::RequestId;
use underpass::base::tasks::Tasks;
use underpass::wire::notice::{Control, Notice};
use underpass::wire::open::{Open, Spoken};

use crate::fixtures::certificates::{Identity, Signer};
use crate::fixtures::peer::{DATA, ENROLL, Peer, SYN, client_config, dial};
use crate::harness::site::{Agent, Gateway};
use crate::harness::{SOON, eventually, loopback};

async fn gateway(more: &str) -> Gateway {
    let mut gateway = Gateway::init().await;
    gateway.configure(more);
    gateway.start().await;
    gateway
}

#[tokio::test]
async fn e8_a_session_does_not_outlive_its_certificate() {
    let gateway = gateway("drain: {timeout: 1s}\n").await;
    let ends = OffsetDateTime::now_utc() + Duration::from_secs(4);
    let brief = Signer::of(&gateway).leaf(|params| params.not_after = ends);
    let mut agent = Peer::greeted(&gateway, &brief).await.unwrap();
    let drained = async { while !matches!(agent.receive(1).await.unwrap(), Control::Notice(Notice::Drain { .. })) {} };
    timeout(SOON, drained).await.expect("the agent is told");
    assert!(OffsetDateTime::now_utc() >= ends - Duration::from_secs(1), "not before its time");
    agent.is_cut().await;
    gateway.audited("disconnected", |row| row["code"] == "certificate_expired").await;
}

#[tokio::test]
async fn s5_one_agents_certificate_does_not_take_every_place() {
    let gateway = gateway("").await;
    let agent = Agent::enroll(&gateway, "a1").await;
    let stolen = Identity::of_agent(&agent);
    // Those that are held too long without an answer to a heartbeat end, so on a slow machine the rate may be what refuses.
    let mut held = Vec::new();
    let refused = loop {
        match Peer::greeted(&gateway, &stolen).await {
            Ok(session) => held.push(session),
            Err(refused) => break refused,
        }
        assert!(held.len() < 300, "one certificate takes place after place");
    };
    assert!(refused.to_string().contains("AgentSessions"), "{refused}");
    gateway.audited("connect_refused", |row| row["code"] == "agent_sessions").await;
    let mut other = Agent::enroll(&gateway, "a2").await;
    other.start().await;
}

#[tokio::test]
async fn d1_strangers_who_enroll_leave_places_to_agents() {
    let gateway = gateway("limits: {max_connections: 80, max_handshakes: 80}\n").await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let mut held = Vec::new();
    for _ in 0..70 {
        if let Ok(mut stream) = dial(&gateway, client_config(&gateway, None, &[ENROLL]).into()).await {
            let _ = stream.write_all(b"POST /v1/enroll HTTP/1.1\r\n").await;
            held.push(stream);
        }
    }
    gateway.audited("connect_refused", |row| row["code"] == "enroll_limited").await;
    agent.start().await;
    drop(held);
}

#[tokio::test]
async fn r1_an_enrollment_that_is_no_request_is_audited_without_its_secret() {
    let gateway = gateway("").await;
    let body = json!({"secret": {"no text": 1}, "csr": "CANARY", "name": "CANARY", "CANARY": 1}).to_string();
    let text = json!("CANARY").to_string();
    for body in [body.as_str(), text.as_str()] {
        let mut stream = dial(&gateway, client_config(&gateway, None, &[ENROLL]).into()).await.unwrap();
        let head = format!("POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("enrollment answers");
        assert!(!String::from_utf8_lossy(&answer).contains("CANARY"));
    }
    gateway.audited("enroll_refused", |row| row["code"] == "csr_invalid").await;
    assert!(!gateway.audit().iter().any(|row| row.to_string().contains("CANARY")));
}

#[tokio::test]
async fn r1_an_agent_audits_what_a_hostile_gateway_asks_and_does_not_wait_for() {
    let mut gateway = gateway("").await;
    let mut agent = Agent::enroll(&gateway, "a1").await;
    let identity = Identity::of_gateway(&gateway);
    gateway.process().kill();
    // Its backlog is full, so connecting to it neither succeeds nor fails.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&loopback(0).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let tasks = Tasks::new();
    let _waiting: Vec<_> = (0..4).map(|_| tasks.spawn(TcpStream::connect(address))).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("wss://{}", listener.local_addr().unwrap());
    agent.configure_endpoint(&endpoint, &Agent::targets(&[("full", address)]));
    agent.launch();
    let mut cloud = Peer::accept(&listener, &identity).await.unwrap();
    cloud.yamux(DATA, SYN, 2, 4, &[3, 0xff, 0xff, 0xff]).await.unwrap();
    agent.audited("refused", |row| row["code"] == "open_invalid").await;
    let request = RequestId::fresh();
    let open = Open {
        request,
        target: "full".parse().unwrap(),
        spoken: Spoken::Raw,
        caller: "cloud".to_owned(),
        source: None,
        deadline: SOON,
        trace: None,
    };
    cloud.message(4, SYN, &open).await.unwrap();
    eventually("the agent connects", SOON, async || (agent.status().await?["streams"] == 1).then_some(())).await;
    drop(cloud);
    let row = agent.audited("refused", |row| row["request"] == request.to_string()).await;
    assert_eq!((&row["code"], &row["target"]), (&"session_lost".into(), &"full".into()));
}
