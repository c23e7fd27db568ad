//! Several agents in a group: who is served by whom, and what happens when one can't. Refuses to know single agents.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, told};
use crate::harness::{SOON, eventually, free_port, loopback};

/// A gateway with one listener for `acme/dc1/who`, and agents whose `who` is a server that says its name.
struct Pair {
    gateway: Gateway,
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
        Self { gateway, agents, port }
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
async fn a_hanging_agent_is_left_out_within_seconds() {
    let (one, two) = (Target::named("1").await, Target::named("2").await);
    let mut pair = Pair::new([&one, &two]).await;
    pair.agents[0].process().signal(rustix::process::Signal::STOP);
    pair.gateway.audited("disconnected", |row| row["agent"] == "acme/dc1/one" && row["code"] == "link_dead").await;
    for _ in 0..20 {
        assert_eq!(pair.who().await, "2");
    }
    pair.agents[0].process().signal(rustix::process::Signal::CONT);
    eventually("the awakened agent serves again", SOON, async || (pair.who().await == "1").then_some(())).await;
    let listed = pair.gateway.agents().await;
    let sessions: Vec<_> =
        listed["agents"].as_array().unwrap().iter().map(|agent| agent["sessions"].as_array().unwrap().len()).collect();
    assert_eq!(sessions, [1, 1], "no ghost of the old session: {listed}");
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
    gateway.audited("disconnected", |row| row["agent"] == "acme/dc1/good").await;
    assert_eq!(told(loopback(port)).await, "");
    gateway.audited("refused", |row| row["code"] == "target_refused").await;
}
