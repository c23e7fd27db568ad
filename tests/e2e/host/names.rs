//! Names that change, fail or lead to addresses of which some are bad, and hosts that have one kind of addresses alone.
//! Refuses to know what listens at the good ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::time::timeout;

use crate::fixtures::dns::{Answer, Dns};
use crate::fixtures::silent::Silent;
use crate::harness::site::{Agent, Gateway};
use crate::harness::target::{Target, echoes, serves};
use crate::harness::{SOON, eventually, free_port};

const GATEWAY: &str = "gw1.vendor.example";
const TARGET: &str = "db.corp.example";
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A gateway at one address, an agent and a target, which know each other by names alone, and what those mean at the moment.
struct Named {
    gateway: Gateway,
    agent: Agent,
    names: Arc<Mutex<[Answer; 2]>>,
    client: SocketAddr,
    echo: Target,
    _dns: Dns,
}

impl Named {
    /// Enrolled, and not running.
    async fn new(at: IpAddr) -> Self {
        let names = Arc::new(Mutex::new([Answer::Addresses(vec![at]), Answer::Addresses(vec![at])]));
        let known = names.clone();
        let dns = Dns::answering(move |name| match name {
            GATEWAY => known.lock().unwrap()[0].clone(),
            TARGET => known.lock().unwrap()[1].clone(),
            _ => Answer::NoSuchName,
        });
        let mut gateway = Gateway::init_named_at(GATEWAY, at).await;
        let client = SocketAddr::new(at, free_port());
        gateway.configure(&format!("listeners:\n  - {{listen: \"{client}\", target: acme/dc1/echo}}\n"));
        gateway.start().await;
        let echo = Target::echo_at(SocketAddr::new(at, 0)).await;
        let agent = Agent::blank(&gateway, "a1").with_resolver(&dns.resolv_conf());
        let token = gateway.token("acme", "dc1").await;
        agent.enrollment(&token).run().await.ok();
        let port = echo.address().port();
        agent.configure(&format!("targets:\n  echo: {{kind: tcp, address: \"{TARGET}:{port}\", allow_loopback: true}}\n"));
        Self { gateway, agent, names, client, echo, _dns: dns }
    }

    fn gateway_is(&self, answer: Answer) {
        self.names.lock().unwrap()[0] = answer;
    }

    fn target_is(&self, answer: Answer) {
        self.names.lock().unwrap()[1] = answer;
    }

    /// The gateway's process ends and begins, and with it the agent's session.
    async fn restart(&mut self) {
        self.gateway.process().kill();
        self.gateway.start().await;
    }

    async fn serves(&self) {
        eventually("a client gets its bytes back", SOON, async || serves(self.client).await.then_some(())).await;
    }
}

fn all(addresses: &[IpAddr]) -> Answer {
    Answer::Addresses(addresses.to_vec())
}

#[tokio::test]
async fn f38_while_no_name_server_answers_the_gateway_is_where_it_was() {
    let mut site = Named::new(V4).await;
    // One that has never known it can only say so, with the name.
    site.gateway_is(Answer::NoSuchName);
    site.agent.launch();
    let detail = site.agent.fails_with("gateway_dns_failed").await;
    assert!(detail.contains(GATEWAY), "{detail}");
    site.gateway_is(all(&[V4]));
    site.agent.connected().await;
    for failure in [Answer::Silence, Answer::NoSuchName, all(&[])] {
        site.gateway_is(failure);
        site.restart().await;
        site.agent.connected().await;
    }
    // Whatever was known counts for nothing once the name leads elsewhere.
    site.gateway_is(all(&[IpAddr::V4(Ipv4Addr::new(127, 66, 0, 1))]));
    site.restart().await;
    site.agent.fails_with("gateway_refused").await;
    site.gateway_is(Answer::NoSuchName);
    site.agent.connected().await;
    site.serves().await;
}

#[tokio::test]
async fn f38_a_name_server_that_is_down_costs_a_target_its_streams_and_no_others() {
    let mut site = Named::new(V4).await;
    site.agent.start().await;
    site.serves().await;
    let mut client = tokio::net::TcpStream::connect(site.client).await.unwrap();
    echoes(&mut client, b"before").await.unwrap();
    site.target_is(Answer::NoSuchName);
    let refused = |row: &serde_json::Value| row["code"] == "target_dns_failed";
    // What was known of the name is used for a few seconds yet.
    eventually("new streams are refused, and why", SOON, async || {
        let served = serves(site.client).await;
        (!served && site.gateway.audit().iter().any(refused)).then_some(())
    })
    .await;
    echoes(&mut client, b"after").await.expect("what is open goes on");
    site.target_is(all(&[V4]));
    site.serves().await;
}

#[tokio::test]
async fn f38_three_bad_addresses_of_four_cost_less_than_a_second_each() {
    let mut site = Named::new(V4).await;
    let silent = Silent::at((Ipv4Addr::new(127, 66, 1, 1), site.gateway.at.port()).into()).await;
    let mute = Silent::at((Ipv4Addr::new(127, 66, 1, 2), site.echo.address().port()).into()).await;
    let bad =
        |at: &Silent| vec![Ipv4Addr::new(127, 66, 0, 1).into(), at.address().ip(), Ipv4Addr::new(127, 66, 0, 2).into(), V4];
    site.gateway_is(Answer::Addresses(bad(&silent)));
    site.target_is(Answer::Addresses(bad(&mute)));
    site.agent.start().await;
    assert!(site.agent.running().stderr().matches("not connected").count() == 0, "the first attempt got there");
    site.serves().await;
    // No attempt at a target has longer than this.
    let mut client = tokio::net::TcpStream::connect(site.client).await.unwrap();
    let limit = underpass::base::limits::CONNECT_TIMEOUT;
    timeout(limit, echoes(&mut client, b"past the bad ones")).await.unwrap().unwrap();
}

#[tokio::test]
async fn f39_a_host_with_one_kind_of_addresses_alone_is_served() {
    for at in [V4, V6] {
        let mut site = Named::new(at).await;
        site.agent.start().await;
        site.serves().await;
        let open = site.gateway.audited("opened", |_| true).await;
        let source: SocketAddr = open["source"].as_str().unwrap().parse().unwrap();
        assert_eq!(source.ip(), at, "{open}");
        site.agent.audited("opened", |row| row["address"] == site.echo.address().to_string()).await;
    }
}

#[tokio::test]
async fn f39_where_ipv6_leads_nowhere_ipv4_is_tried_at_once() {
    let mut site = Named::new(V4).await;
    let silent = Silent::at((Ipv6Addr::LOCALHOST, site.gateway.at.port()).into()).await;
    let mute = Silent::at((Ipv6Addr::LOCALHOST, site.echo.address().port()).into()).await;
    assert_eq!((silent.address().ip(), mute.address().ip()), (V6, V6));
    site.gateway_is(all(&[V6, V4]));
    site.target_is(all(&[V6, V4]));
    site.agent.start().await;
    assert!(site.agent.running().stderr().matches("not connected").count() == 0, "the first attempt got there");
    let mut client = tokio::net::TcpStream::connect(site.client).await.unwrap();
    let limit = underpass::base::limits::CONNECT_TIMEOUT;
    timeout(limit, echoes(&mut client, b"by IPv4")).await.unwrap().unwrap();
}
