//! Several agents in a group: who is served by whom, and what happens when one can't. Refuses to know single agents.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::base::id::{InstanceId, Name};
use underpass::wire::hello::{Hello, Kind, Offer, VERSIONS};
use underpass::wire::open::Open;
use underpass::wire::reply::Reply;

use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::{ACK, DATA, Peer};
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, told};
use crate::harness::{SOON, eventually, free_port, loopback};

/// A gateway with one listener for `acme/dc1/who`, and agents whose `who` is a server that says its name.
struct Pair {
    _gateway: Gateway,
    agents: [Agent; 2],
    port: u16,
}

impl Pair {
    async fn new(whos: [&Target; 2]) -> Self {
        let mut gateway = Gateway::init().await;
        let port = free_port();
        gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/who")]));
        gateway.start().await;
        let mut agents = [Agent::enroll(&gateway, "one").await, Agent::enroll(&gateway, "two").await];
        for (agent, who) in agents.iter_mut().zip(whos) {
            agent.configure(&Agent::targets(&[("who", who.address())]));
            agent.start().await;
        }
        Self { _gateway: gateway, agents, port }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(loopback(self.port)).await.unwrap()
    }

    /// The name of the server that answers a fresh client.
    async fn who(&self) -> String {
        told(loopback(self.port)).await
    }
}

/// A server that says its name and keeps the connection until the client ends.
async fn staying(name: &'static str) -> Target {
    Target::start(move |mut stream| async move {
        stream.write_all(name.as_bytes()).await?;
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_least_loaded_agent_serves() {
    let (one, two) = (staying("1").await, staying("2").await);
    let pair = Pair::new([&one, &two]).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut client = pair.client().await;
        timeout(SOON, client.read_u8()).await.unwrap().unwrap();
        open.push(client);
    }
    assert_eq!((one.connections(), two.connections()), (5, 5), "open streams are spread evenly");
}

#[tokio::test]
async fn when_one_agent_dies_the_other_serves() {
    let (one, two) = (Target::named("1").await, Target::named("2").await);
    let mut pair = Pair::new([&one, &two]).await;
    pair.agents[0].process().kill();
    for _ in 0..20 {
        assert_eq!(pair.who().await, "2");
    }
    pair.agents[0].start().await;
    eventually("the returned agent serves too", SOON, async || (pair.who().await == "1").then_some(())).await;
}

#[tokio::test]
async fn a_refusal_that_another_agent_can_mend_is_tried_there_with_the_same_bytes() {
    let echo = Target::echo().await;
    let nothing = loopback(free_port());
    let mut gateway = Gateway::init().await;
    let port = free_port();
    gateway.configure(&Gateway::listeners(&[(port, "acme/dc1/echo")]));
    gateway.start().await;
    // The first has no such target, the second finds nobody there, the third serves.
    let mut without = Agent::enroll(&gateway, "without").await;
    let mut broken = Agent::enroll(&gateway, "broken").await;
    let mut good = Agent::enroll(&gateway, "good").await;
    broken.configure(&Agent::targets(&[("echo", nothing)]));
    good.configure(&Agent::targets(&[("echo", echo.address())]));
    for agent in [&mut without, &mut broken, &mut good] {
        agent.start().await;
    }
    for round in 0..12 {
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        let message = format!("early bytes of round {round}");
        timeout(SOON, echoes(&mut client, message.as_bytes())).await.unwrap().unwrap();
    }
    assert_eq!(echo.connections(), 12, "each client was connected once");
    good.process().kill();
    gateway.audited("lane_broken", |row| row["agent"] == "acme/dc1/good").await;
    assert_eq!(told(loopback(port)).await, "");
    gateway.audited("refused", |row| row["code"] == "target_refused").await;
}

/// An agent made by hand that offers `echo`, enrolled beside the others of `acme/dc1`.
async fn by_hand(gateway: &Gateway, name: &str) -> Peer<tokio_rustls::client::TlsStream<TcpStream>> {
    let identity = Identity::of_agent(&Agent::enroll(gateway, name).await);
    let hello = Hello {
        versions: VERSIONS,
        agent_version: "by hand".to_owned(),
        instance: InstanceId::fresh(),
        targets: vec![Offer { name: Name::parse("echo").unwrap(), kind: Kind::Tcp }],
        capacity: 1000,
        capabilities: Vec::new(),
    };
    Peer::greeted_with(gateway, &identity, hello).await.unwrap()
}

/// A gateway with a listener for `acme/dc1/echo`.
async fn gateway_with(listener: &str) -> (Gateway, u16) {
    let (mut gateway, port) = (Gateway::init().await, free_port());
    gateway.configure(&format!("listeners:\n  - {{listen: \"127.0.0.1:{port}\", target: acme/dc1/echo{listener}}}\n"));
    gateway.start().await;
    (gateway, port)
}

#[tokio::test]
async fn client_bytes_go_ahead_of_the_reply_unless_told_not_to() {
    for (listener, ahead) in [("", true), (", early_data: false", false)] {
        let (gateway, port) = gateway_with(listener).await;
        let mut agent = by_hand(&gateway, "hand").await;
        let mut client = TcpStream::connect(loopback(port)).await.unwrap();
        client.write_all(b"early").await.unwrap();
        let (open, mut bytes) = agent.receive_with_rest::<Open>(2).await.unwrap();
        assert_eq!(open.target.as_str(), "echo");
        if ahead {
            while bytes.len() < 5 {
                bytes.extend_from_slice(&agent.next_of(2).await.unwrap());
            }
        } else {
            // A heartbeat later there is still nothing.
            agent.until_heartbeat().await.unwrap();
            assert!(bytes.is_empty() && agent.is_empty(), "bytes before the reply");
        }
        agent.message(2, ACK, &Reply::Accepted).await.unwrap();
        while bytes.len() < 5 {
            bytes.extend_from_slice(&agent.next_of(2).await.unwrap());
        }
        assert_eq!(&bytes[..], b"early");
        agent.yamux(DATA, 0, 2, 4, b"late").await.unwrap();
        let mut answer = [0; 4];
        timeout(SOON, client.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"late");
    }
}

#[tokio::test]
async fn bytes_that_may_have_reached_a_target_are_not_sent_twice() {
    let echo = Target::echo().await;
    let (gateway, port) = gateway_with("").await;
    let mut dying = by_hand(&gateway, "hand").await;
    // Its session is lost after it was sent client bytes, with another agent at hand.
    let mut client = TcpStream::connect(loopback(port)).await.unwrap();
    client.write_all(b"pay 100").await.unwrap();
    let (_, mut bytes) = dying.receive_with_rest::<Open>(2).await.unwrap();
    while bytes.len() < 7 {
        bytes.extend_from_slice(&dying.next_of(2).await.unwrap());
    }
    let mut other = Agent::enroll(&gateway, "other").await;
    other.configure(&Agent::targets(&[("echo", echo.address())]));
    other.start().await;
    drop(dying);
    let end = timeout(SOON, client.read(&mut [0; 1])).await.expect("the client is not left hanging");
    assert!(end.is_err(), "reset, since nobody knows: {end:?}");
    gateway.audited("refused", |row| row["code"] == "outcome_unknown").await;
    assert_eq!(echo.connections(), 0);
}

#[tokio::test]
async fn a_session_lost_before_any_client_byte_is_made_up_for_by_another_agent() {
    let target = Target::named("here").await;
    let (gateway, port) = gateway_with("").await;
    let mut dying = by_hand(&gateway, "hand").await;
    let client = tokio::join!(told(loopback(port)), async {
        dying.receive_with_rest::<Open>(2).await.unwrap();
        let mut other = Agent::enroll(&gateway, "other").await;
        other.configure(&Agent::targets(&[("echo", target.address())]));
        other.start().await;
        drop(dying);
        other
    });
    assert_eq!(client.0, "here");
}
