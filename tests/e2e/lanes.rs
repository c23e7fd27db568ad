//! Sessions of several lanes: when a further one comes, what its end costs, and who may add one. Refuses to know how fast they
//! are.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use underpass::base::id::{InstanceId, SessionId};
use underpass::base::secret::Secret;
use underpass::base::tasks::Tasks;
use underpass::wire::hello::{Hello, VERSIONS};
use underpass::wire::resume::Claim;

use crate::fixtures::balancer::Balancer;
use crate::fixtures::certificates::Identity;
use crate::fixtures::peer::Peer;
use crate::harness::site::{Agent, Gateway, Site};
use crate::harness::target::{Target, echoes, pattern, serves};
use crate::harness::{SOON, always, eventually, free_port, loopback};

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
        Self::of(gateway, "", route, "").await
    }

    /// Whose lanes end with their connections.
    async fn mortal() -> Self {
        Self::of(front().await, "  resume_window: 0\n", |_, at| at, "").await
    }

    /// With more keys under `gateway:` and at the top of gateway.yaml.
    async fn of(
        mut gateway: Gateway,
        keys: &str,
        route: impl Fn(usize, SocketAddr) -> SocketAddr + Send + 'static,
        more: &str,
    ) -> Self {
        let targets = [Target::echo().await, Target::endless().await];
        let ports = vec![("echo".to_owned(), free_port()), ("endless".to_owned(), free_port())];
        let (at, front) = (gateway.at, gateway.endpoint().trim_start_matches("wss://").parse().unwrap());
        let balancer = Balancer::start(front, move |number| route(number, at)).await;
        gateway.configure_gateway(keys, &(Site::listeners(&ports) + TENANTS + more));
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

    /// Opens clients until the session has so many lanes at both ends; yields one that was opened then, so on the idlest.
    async fn with_lanes(&self, lanes: u64) -> TcpStream {
        eventually(&format!("{lanes} lanes"), SOON, async || {
            let client = self.ping().await;
            if self.session().await["lanes"] == lanes && self.lanes_at_gateway().await == lanes {
                return Some(self.ping().await);
            }
            drop(client);
            None
        })
        .await
    }

    async fn lanes_at_gateway(&self) -> Value {
        self.site.gateway.agents().await["agents"][0]["sessions"][0]["lanes"].clone()
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
    let mut balanced = Balanced::mortal().await;
    let mut early = balanced.ping().await;
    let session = balanced.session().await["session"].clone();
    assert_eq!(balanced.session().await["lanes"], 1);
    let bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    // Seen from everywhere.
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

#[tokio::test]
async fn the_first_lanes_end_is_the_sessions_and_takes_the_others_along() {
    let balanced = Balanced::mortal().await;
    let before = balanced.session().await["session"].clone();
    let _bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    // The first connection was the enrollment's.
    balanced.balancer.cut(1);
    let cut = timeout(SOON, echoes(&mut late, b"?")).await.expect("the client is not left hanging");
    assert!(cut.is_err(), "its own lane was whole, its session not");
    balanced.site.gateway.audited("disconnected", |row| row["session"] == before).await;
    balanced.site.gateway.audited("lane_closed", |row| row["session"] == before && row["lane"] == 1).await;
    eventually("a session of one lane is back", SOON, async || {
        let session = balanced.session().await;
        (session["tunnel"] == "connected" && session["session"] != before && session["lanes"] == 1).then_some(())
    })
    .await;
    assert!((0..3).all(|number| balanced.balancer.has_ended(number)), "no lane is left over");
    balanced.ping().await;
    let metrics = balanced.site.gateway.metrics().await;
    assert!(metrics.contains("underpass_lanes{gateway=\"gw1\"} 1"), "{metrics}");
}

#[tokio::test]
async fn c1_every_lane_goes_on_over_another_connection_with_its_streams() {
    let balanced = Balanced::new(|_, at| at).await;
    let session = balanced.session().await["session"].clone();
    let mut early = balanced.ping().await;
    let bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    for (lane, number) in [(0, 1), (1, 2)] {
        balanced.balancer.cut(number);
        for (gateway, agent) in [(true, false), (false, true)] {
            let wanted = |row: &Value| row["lane"] == lane && row["session"] == session && row["generation"] == 1;
            let row = match (gateway, agent) {
                (true, _) => balanced.site.gateway.audited("lane_resumed", wanted).await,
                _ => balanced.site.agent.audited("lane_resumed", wanted).await,
            };
            assert!(row["paused_ms"].as_u64().unwrap() < 1000 && row["serial"].is_string(), "{row}");
        }
        for client in [&mut early, &mut late] {
            timeout(SOON, echoes(client, &pattern(300_000))).await.unwrap().unwrap();
        }
    }
    assert!(bulk.reads());
    let now = balanced.session().await;
    assert_eq!((&now["session"], &now["tunnel"]), (&session, &"connected".into()), "{now}");
    assert!(now["lanes"].as_u64() >= Some(2), "a third may have come for what was open: {now}");
    let broken = balanced.site.gateway.audited("lane_broken", |row| row["lane"] == 0).await;
    assert_eq!(broken["code"], "link_closed");
    assert!(!balanced.site.gateway.audit().iter().any(|row| row["event"] == "disconnected"));
}

#[tokio::test]
async fn f27_revocation_cuts_every_lane() {
    let balanced = Balanced::new(|_, at| at).await;
    let bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    balanced.site.gateway.revoke("acme/dc1/a1").await.ok();
    let cut = async { while echoes(&mut late, b"after").await.is_ok() {} };
    timeout(std::time::Duration::from_secs(5), cut).await.expect("cut within 5 s");
    eventually("both connections and the bulk are cut", SOON, async || {
        (balanced.balancer.has_ended(1) && balanced.balancer.has_ended(2) && !bulk.reads()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agents_drain_waits_for_streams_of_every_lane() {
    let mut balanced = Balanced::new(|_, at| at).await;
    let bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    drop(bulk);
    let agent = balanced.site.agent.take_process();
    agent.signal(rustix::process::Signal::TERM);
    eventually("no new client is taken", SOON, async || (!serves(balanced.site.at("echo")).await).then_some(())).await;
    timeout(SOON, echoes(&mut late, &pattern(100_000))).await.unwrap().unwrap();
    drop(late);
    agent.finish(SOON).await.exits(0);
    balanced.site.agent.audited("lane_closed", |row| row["lane"] == 1 && row["code"].is_null()).await;
}

#[tokio::test]
async fn with_max_lanes_1_there_is_one() {
    let balanced = {
        let gateway = front().await;
        Balanced::of(gateway, "", |_, at| at, "limits: {max_lanes: 1}\n").await
    };
    let _bulk = balanced.bulk().await;
    eventually("much has moved", SOON, async || {
        let metrics = balanced.site.gateway.metrics().await;
        let down = metrics.lines().find(|line| line.starts_with("underpass_bytes_total{direction=\"down\"}"))?;
        (down.rsplit(' ').next()?.parse::<f64>().ok()? > 8e6).then_some(())
    })
    .await;
    always("one lane", std::time::Duration::from_secs(1), async || {
        balanced.ping().await;
        balanced.session().await["lanes"] == 1
    })
    .await;
    assert_eq!(balanced.balancer.connections(), 2, "the enrollment's and the session's");
}

#[tokio::test]
async fn a_lane_that_reaches_another_instance_is_not_here_and_the_session_goes_on_with_one() {
    let gateway = front().await;
    let mut twin = gateway.twin().await;
    twin.start().await;
    let other = twin.at;
    let balanced = Balanced::of(gateway, "", move |number, at| if number < 2 { at } else { other }, "").await;
    let mut early = balanced.ping().await;
    let _bulk = balanced.bulk().await;
    eventually("three misses", SOON, async || {
        balanced.ping().await;
        (balanced.balancer.connections() == 5).then_some(())
    })
    .await;
    twin.audited("connect_refused", |row| row["code"] == "not_here").await;
    always("one lane and no further attempt", std::time::Duration::from_secs(2), async || {
        balanced.ping().await;
        balanced.session().await["lanes"] == 1 && balanced.balancer.connections() == 5
    })
    .await;
    timeout(SOON, echoes(&mut early, &pattern(100_000))).await.unwrap().unwrap();
    let metrics = twin.metrics().await;
    assert!(metrics.contains("underpass_connects_refused_total{code=\"not_here\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_direct_address_leads_lanes_past_the_balancer() {
    let gateway = front().await;
    let direct = format!("  direct_address: \"{}\"\n", gateway.at);
    let nowhere = loopback(free_port());
    let balanced = Balanced::of(gateway, &direct, move |number, at| if number < 2 { at } else { nowhere }, "").await;
    let _bulk = balanced.bulk().await;
    let mut late = balanced.with_lanes(2).await;
    timeout(SOON, echoes(&mut late, &pattern(100_000))).await.unwrap().unwrap();
    assert_eq!(balanced.balancer.connections(), 2, "the lane went past it");
}

#[tokio::test]
async fn s1_e9_who_may_not_join_a_session_is_refused_by_name_and_audited() {
    let mut gateway = Gateway::init().await;
    gateway.start().await;
    let owner = Identity::of_agent(&Agent::enroll(&gateway, "owner").await);
    let other = Identity::of_agent(&Agent::enroll(&gateway, "other").await);
    let stranger = Identity::of_agent(&Agent::enroll_in(&gateway, "evil", "dc1", "owner").await);
    let hello = Hello {
        versions: VERSIONS,
        agent_version: "by hand".to_owned(),
        instance: InstanceId::fresh(),
        targets: Vec::new(),
        capacity: 100,
        capabilities: Vec::new(),
    };
    let (mut session, welcome) = Peer::welcomed(&gateway, &owner, hello).await.unwrap();
    let (id, secret) = (welcome.session, welcome.resume_secret.clone().unwrap());
    assert_eq!(welcome.max_lanes, 4);
    let wrong = Secret::random().unwrap();
    let lane = |lane| Claim::new_lane(id, lane);
    let good = Peer::joined(&gateway, &owner, |exporter| lane(1).prove(&secret, exporter)).await;
    let mut good = good.expect("what is right is taken");
    for (what, identity, claim, secret, exporter, code) in [
        ("another secret", &owner, lane(2), &wrong, None, "lane_refused"),
        ("the proof of another connection", &owner, lane(2), &secret, Some([7; 32]), "lane_refused"),
        ("another agent of the group", &other, lane(2), &secret, None, "lane_refused"),
        ("an agent of another tenant", &stranger, lane(2), &secret, None, "not_here"),
        ("another session", &owner, Claim::new_lane(SessionId::fresh(), 2), &secret, None, "not_here"),
        ("a lane that is there", &owner, lane(1), &secret, None, "lane_refused"),
        ("lane 0", &owner, lane(0), &secret, None, "lane_refused"),
        ("a later generation", &owner, Claim { generation: 1, ..lane(2) }, &secret, None, "lane_refused"),
        ("bytes on a new lane", &owner, Claim { received: 1, ..lane(2) }, &secret, None, "lane_refused"),
    ] {
        let before = refusals(&gateway, code);
        let joined = Peer::joined(&gateway, identity, |own| claim.prove(secret, exporter.as_ref().unwrap_or(own))).await;
        let answer = joined.err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(answer.starts_with("HTTP/1.1 409 "), "{what}: {answer}");
        assert!(answer.to_ascii_lowercase().contains(&format!("underpass-refusal: {code}\r\n")), "{what}: {answer}");
        eventually(&format!("{what} is in the audit"), SOON, async || (refusals(&gateway, code) > before).then_some(())).await;
    }
    // Three further lanes, and no fourth.
    let mut more = Vec::new();
    for number in [2, 7] {
        more.push(Peer::joined(&gateway, &owner, |exporter| lane(number).prove(&secret, exporter)).await.unwrap());
    }
    let fourth = Peer::joined(&gateway, &owner, |exporter| lane(8).prove(&secret, exporter)).await;
    assert!(fourth.err().unwrap().to_ascii_lowercase().contains("underpass-refusal: session_lanes\r\n"));
    // A lane that breaks the protocol ends alone; the end of the session is the end of its lanes.
    more[0].yamux(9, 0, 77, 0, b"").await.unwrap();
    more[0].is_cut().await;
    gateway.audited("lane_closed", |row| row["lane"] == 2 && row["code"] == "protocol_violation").await;
    session.until_heartbeat().await.unwrap();
    drop(session);
    good.is_cut().await;
    more[1].is_cut().await;
}

fn refusals(gateway: &Gateway, code: &str) -> usize {
    gateway.audit().iter().filter(|row| row["event"] == "connect_refused" && row["code"] == code).count()
}
