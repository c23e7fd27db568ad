//! A gateway with little memory, and many clients that take nothing of what comes for them. Refuses to know how it is counted.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::fixtures::group::MemoryGroup;
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, pattern, serves};
use crate::harness::{SOON, eventually, free_port, heavy, loopback};

/// Memory of the gateway's process.
const LIMIT: u64 = 192 << 20;

/// Agents, each with a session whose lanes may hold 64 MiB by themselves.
const AGENTS: usize = 3;

/// Clients of each, whose windows of 256 KiB are more than the limit.
const CLIENTS: usize = 250;

struct Crowded {
    gateway: Gateway,
    agents: Vec<Agent>,
    group: MemoryGroup,
    /// Where clients reach a target that says nothing until it is asked, and then says more and more.
    ports: Vec<u16>,
    /// Where they reach an echo.
    echo: SocketAddr,
    _targets: [Target; 2],
}

impl Crowded {
    async fn new() -> Self {
        let talker = Target::start(|mut stream| async move {
            stream.read_u8().await?;
            let block = pattern(64 * 1024);
            loop {
                stream.write_all(&block).await?;
            }
        })
        .await;
        let (echo, group) = (Target::echo().await, MemoryGroup::of(LIMIT));
        let targets = Agent::targets(&[("talker", talker.address()), ("echo", echo.address())]);
        let targets = targets.replace("allow_loopback: true", "allow_loopback: true, limits: {max_streams: 1000}");
        let mut gateway = Gateway::init().await;
        let (ports, at): (Vec<_>, _) = ((0..AGENTS).map(|_| free_port()).collect(), free_port());
        let names: Vec<_> = (0..AGENTS).map(|agent| format!("acme/g{agent}/talker")).collect();
        let mut listeners: Vec<_> = ports.iter().zip(&names).map(|(port, name)| (*port, name.as_str())).collect();
        listeners.push((at, "acme/g0/echo"));
        gateway.configure(&Gateway::listeners(&listeners));
        gateway.set_group(group.dir());
        gateway.start().await;
        let mut agents = Vec::new();
        for number in 0..AGENTS {
            let mut agent = Agent::enroll_in(&gateway, "acme", &format!("g{number}"), "a1").await;
            agent.configure(&targets);
            agent.start().await;
            agents.push(agent);
        }
        Self { gateway, agents, group, ports, echo: loopback(at), _targets: [talker, echo] }
    }

    /// Clients of each agent, for whom the kernel keeps little.
    async fn clients(&self) -> Vec<TcpStream> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            for port in &self.ports {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(16 * 1024).unwrap();
                clients.push(socket.connect(loopback(*port)).await.unwrap());
            }
        }
        clients
    }

    /// What a gauge says.
    async fn metric(&self, name: &str) -> f64 {
        let (text, name) = (self.gateway.metrics().await, format!("underpass_{name} "));
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn lives_on(&mut self, client: &mut TcpStream) {
        assert!(self.gateway.process().is_running());
        echoes(client, b"meanwhile").await.expect("who reads is not hurt");
        for agent in &self.agents {
            assert!(agent.is_connected().await);
        }
        let peak = self.group.peak_mib();
        assert!(peak < LIMIT >> 20, "{peak} MiB: the kernel's limit was met");
    }
}

/// Has everybody's target talk; nobody listens.
async fn ask(clients: &mut [TcpStream]) {
    for client in clients {
        let _ = client.write_all(b"?").await;
    }
}

/// Listens at last, to more than any window, or to the end.
async fn listen(mut client: TcpStream) {
    let mut block = vec![0; 64 * 1024];
    for _ in 0..32 {
        if client.read(&mut block).await.is_ok_and(|count| count > 0) {
            continue;
        }
        return;
    }
}

#[tokio::test]
async fn f31_a_gateway_short_of_memory_sheds_load_before_the_kernel_kills_it() {
    let _turn = heavy().await;
    let mut site = Crowded::new().await;
    let mut client = TcpStream::connect(site.echo).await.unwrap();
    echoes(&mut client, b"before").await.unwrap();
    let mut deaf = site.clients().await;
    eventually("all have their streams", SOON, async || {
        (site.metric("streams_open").await > (AGENTS * CLIENTS) as f64).then_some(())
    })
    .await;
    ask(&mut deaf).await;
    // Half of the memory is for what waits; it is full when as much is dropped as comes.
    let full = (LIMIT / 2 - (1 << 20)) as f64;
    eventually("what waits is all that may", 2 * SOON, async || (site.metric("buffered_bytes").await > full).then_some(()))
        .await;
    assert!(!serves(site.echo).await, "nobody new is let in");
    site.gateway.audited("refused", |row| row["code"] == "memory_short").await;
    site.lives_on(&mut client).await;
    // What waited for some of those who were in was dropped; they find out when they listen.
    futures_util::future::join_all(deaf.into_iter().map(listen)).await;
    let shed = site.gateway.audited("closed", |row| row["code"] == "memory_budget").await;
    let number: usize = shed["target"].as_str().unwrap()["acme/g".len()..][..1].parse().unwrap();
    site.agents[number].audited("closed", |row| row["request"] == shed["request"] && row["code"] == "memory_budget").await;
    eventually("it serves again", SOON, async || serves(site.echo).await.then_some(())).await;
    site.lives_on(&mut client).await;
}
