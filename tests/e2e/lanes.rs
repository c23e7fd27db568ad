//! Sessions of several lanes: when a further one comes, what its end costs, and who may add one. Refuses to know how fast they are.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::base::tasks::Tasks;

use crate::fixtures::balancer::Balancer;
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, pattern};
use crate::harness::{SOON, eventually, free_port, loopback};

/// Far above what counts as bulk, and no load for the machine.
const TENANTS: &str = "tenants: {acme: {limits: {rate: 8MiB}}}\n";

/// An agent that reaches its gateway through a balancer, with a target that echoes and one that sends without end.
struct Balanced {
    site: Site,
    balancer: Balancer,
    _targets: [Target; 2],
}

impl Balanced {
    /// `route` says where a connection goes, given its number and the gateway's address; the first is the enrollment's.
    async fn new(route: impl Fn(usize, SocketAddr) -> SocketAddr + Send + 'static) -> Self {
        let gateway = front().await;
        Self::of(gateway, "", route).await
    }

    async fn of(mut gateway: Gateway, keys: &str, route: impl Fn(usize, SocketAddr) -> SocketAddr + Send + 'static) -> Self {
        let targets = [Target::echo().await, Target::endless().await];
        let ports = vec![("echo".to_owned(), free_port()), ("endless".to_owned(), free_port())];
        let (at, front) = (gateway.at, gateway.endpoint().trim_start_matches("wss://").parse().unwrap());
        let balancer = Balancer::start(front, move |number| route(number, at)).await;
        gateway.configure_gateway(keys, &(Site::listeners(&ports) + TENANTS));
        gateway.start().await;
        let mut agent = Agent::enroll(&gateway, "a1").await;
        agent.configure(&Agent::targets(&[("echo", targets[0].address()), ("endless", targets[1].address())]));
        agent.start().await;
        Self { site: Site::of(gateway, agent, ports), balancer, _targets: targets }
    }

    /// A client that takes what comes, without end.
    async fn bulk(&self) -> Bulk {
        Bulk::start(self.site.client("endless").await)
    }

    /// A client that got its bytes back.
    async fn ping(&self) -> TcpStream {
        let mut client = self.site.client("echo").await;
        timeout(SOON, echoes(&mut client, b"ping")).await.unwrap().unwrap();
        client
    }

    /// Opens clients until the session has so many lanes; yields the last of them.
    async fn with_lanes(&self, lanes: u64) -> TcpStream {
        eventually(&format!("{lanes} lanes"), SOON, async || {
            let client = self.ping().await;
            (self.session().await["lanes"] == lanes).then_some(client)
        })
        .await
    }

    async fn session(&self) -> Value {
        self.site.agent.session().await.expect("the agent answers")
    }
}

/// A gateway behind 127.0.0.2, where a balancer is to listen; itself it is at 127.0.0.1.
async fn front() -> Gateway {
    let mut gateway = Gateway::init_at([127, 0, 0, 2].into(), None).await;
    gateway.at = loopback(gateway.at.port());
    gateway
}

/// A reader without end, and whether it still reads.
struct Bulk(Tasks);

impl Bulk {
    fn start(mut client: TcpStream) -> Self {
        let tasks = Tasks::new();
        tasks.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while client.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        });
        Self(tasks)
    }

    fn reads(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[tokio::test]
async fn a_second_lane_comes_under_bulk_and_its_end_costs_its_own_streams_alone() {
    let mut balanced = Balanced::new(|_, at| at).await;
    let mut early = balanced.ping().await;
    let session = balanced.session().await["session"].clone();
    assert_eq!(balanced.session().await["lanes"], 1);
    let bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    // Seen from everywhere.
    assert_eq!(balanced.site.gateway.agents().await["agents"][0]["sessions"][0]["lanes"], 2);
    let metrics = balanced.site.gateway.metrics().await;
    assert!(metrics.contains("underpass_lanes{gateway=\"gw1\"} 2"), "{metrics}");
    let opened = balanced.site.gateway.audited("lane_opened", |row| row["lane"] == 1).await;
    assert_eq!((&opened["session"], &opened["agent"]), (&session, &"acme/dc1/a1".into()));
    balanced.site.agent.audited("lane_opened", |row| row["lane"] == 1 && row["session"] == session).await;
    // The idle lane took the last client; it goes with it.
    timeout(SOON, echoes(&mut late, &pattern(300_000))).await.unwrap().unwrap();
    let number = balanced.balancer.connections() - 1;
    balanced.balancer.cut(number);
    let cut = timeout(SOON, echoes(&mut late, b"?")).await.expect("the client is not left hanging");
    assert!(cut.is_err());
    balanced.site.gateway.audited("lane_closed", |row| row["lane"] == 1 && row["code"] == "link_closed").await;
    balanced.site.agent.audited("lane_closed", |row| row["lane"] == 1).await;
    balanced.site.gateway.audited("closed", |row| row["code"] == "session_lost").await;
    timeout(SOON, echoes(&mut early, b"still here")).await.unwrap().unwrap();
    assert!(bulk.reads(), "the stream that moves most is on lane 0");
    // The same session gets another lane, under a number of its own.
    let _again = balanced.with_lanes(2).await;
    assert_eq!(balanced.session().await["session"], session);
    balanced.site.gateway.audited("lane_opened", |row| row["lane"] == 2 && row["session"] == session).await;
    assert!(!balanced.site.gateway.process().stderr().contains("panicked"));
}
